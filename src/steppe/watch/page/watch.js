// Asks for the state of the study every two seconds and draws it. Text is set as text, never as markup.
"use strict";
const COLOURS = ["#3b6fb6", "#d1792b", "#3d9a6a", "#b8473d", "#7d5fb2", "#8c6d46", "#c2619e", "#6f7780"];
const EVERY = 2000, WIDTH = 460, HEIGHT = 230, LEFT = 58, RIGHT = 10, TOP = 8, BOTTOM = 30, DIGIT = 7;
const find = (id) => document.getElementById(id);
let chosen = null, last = null, reported = false;

function make(tag, attributes = {}, text = null) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

function drawn(tag, attributes, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function short(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function ago(seconds) {
  if (seconds < 1.5) return "just now";
  if (seconds < 90) return `${plural(Math.round(seconds), "second")} ago`;
  return `${seconds < 5400 ? plural(Math.round(seconds / 60), "minute") : plural(Math.round(seconds / 3600), "hour")} ago`;
}

function sentence(state) {
  const { finished, diverged, training, damaged } = state.counts;
  const parts = [`${finished + diverged} of ${plural(state.planned, "run")} ${state.planned === 1 ? "is" : "are"} done`];
  if (diverged) parts.push(`${diverged} diverged`);
  if (training) parts.push(`${training} in training`);
  if (damaged) parts.push(`${damaged} damaged`);
  if (state.unread) parts.push(`${state.unread} still to be read`);
  let text = parts.join(", ") + ".";
  if (state.trials) text = `Settings are chosen: ${state.trials[0]} of ${plural(state.trials[1], "trial")} are done. ${text}`;
  if (state.stage === "finished") return `${text} The study is finished.`;
  if (finished + diverged === state.planned && !state.unread) return `${text} The report is not written yet.`;
  if (state.silent !== null) text += ` The last sign of life was ${ago(state.silent)}`;
  if (state.silent !== null) text += state.silent > 300 ? ": the study may have been interrupted." : ".";
  return text;
}

function fill(bar, counts, planned) {
  for (const kind of ["finished", "diverged", "training"]) {
    bar.querySelector(`.${kind}`).style.width = `${(100 * counts[kind]) / planned}%`;
  }
  bar.setAttribute("aria-label", `${counts.finished + counts.diverged} of ${planned} runs are done`);
}

function bar(counts, planned) {
  const element = make("div", { class: "bar", role: "img" });
  for (const kind of ["finished", "diverged", "training"]) element.append(make("i", { class: kind }));
  fill(element, counts, planned);
  return element;
}

const colour = (state, place) => COLOURS[state.shown.indexOf(place) % COLOURS.length];

function choose(place, wanted) {
  chosen = last.shown.filter((other) => other !== place);
  if (wanted) chosen.push(place);
  ask();
}

function nameCell(state, condition, place) {
  const cell = make("th", { scope: "row" }), label = make("label"), line = make("i");
  const box = make("input", { type: "checkbox", "aria-label": `Draw the curves of ${condition.name}` });
  box.checked = state.shown.includes(place);
  box.addEventListener("change", () => choose(place, box.checked));
  if (box.checked) line.style.background = colour(state, place);
  label.append(box, line, make("span", {}, condition.name));
  cell.append(label);
  return cell;
}

function progressCell(state, condition) {
  const cell = make("td"), { finished, diverged } = condition.counts;
  let text = `${finished + diverged} of ${state.seeds}`;
  if (diverged) text += `, ${diverged} diverged`;
  if (condition.training.length) {
    const epochs = condition.training.slice(0, 3).join(", ") + (condition.training.length > 3 ? ", …" : "");
    text += `; ${condition.training.length} in training, ${epochs} of ${condition.epochs} epochs done`;
  }
  cell.append(bar(condition.counts, state.seeds), make("small", {}, text));
  return cell;
}

function table(state) {
  const names = Object.keys(state.labels).filter((name) => state.conditions.some((row) => name in row.final));
  const head = make("tr");
  head.append(make("th", { scope: "col" }, "Condition"), make("th", { scope: "col" }, "Runs that are done"));
  for (const name of names) head.append(make("th", { scope: "col", class: "n" }, state.labels[name]));
  const rows = state.conditions.map((condition, place) => {
    const row = make("tr");
    row.append(nameCell(state, condition, place), progressCell(state, condition));
    for (const name of names) row.append(make("td", { class: "n" }, short(condition.final[name])));
    return row;
  });
  const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
  find("head").replaceChildren(head);
  find("body").replaceChildren(...rows);
  for (const box of find("body").querySelectorAll("input")) if (box.getAttribute("aria-label") === focused) box.focus();
  find("caption").textContent = names.length
    ? "Means over the finished runs so far; of tr(H²), lower is flatter."
    : "Numbers come with the first finished run.";
  find("runs").hidden = false;
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(value);
  return found;
}

function powers(low, high) {
  const first = Math.ceil(low), end = Math.floor(high), stride = Math.max(1, Math.ceil((end - first + 1) / 5));
  const found = [];
  for (let power = first; power <= end; power += stride) found.push(power);
  return found.length > 1 ? found : ticks(low, high, 4);
}

function chart(data, state) {
  const usable = (value) => value !== null && (!data.log || value > 0);
  const scaled = (value) => (data.log ? Math.log10(value) : value);
  const lines = data.lines.map((line) => ({ ...line, points: line.points.filter(([, value]) => usable(value)) }));
  const all = lines.flatMap((line) => line.points);
  if (!all.length) return null;
  let low = Infinity, high = -Infinity, end = 1;
  for (const [epoch, value] of all) {
    low = Math.min(low, scaled(value)); high = Math.max(high, scaled(value)); end = Math.max(end, epoch);
  }
  const room = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
  low -= room; high += room;
  const x = (epoch) => LEFT + ((epoch - 1) / Math.max(1, end - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${data.label} over epochs` });
  for (const tick of data.log ? powers(low, high) : ticks(low, high, 5)) {
    svg.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
    const text = data.log ? short(10 ** tick) : short(Number(tick.toPrecision(6)));
    svg.append(drawn("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, text));
  }
  for (const epoch of ticks(1, Math.max(end, 2), 5).filter((tick) => Number.isInteger(tick) && tick <= end)) {
    const inside = Math.min(x(epoch), WIDTH - DIGIT * String(epoch).length / 2); // all of the last label
    svg.append(drawn("text", { x: inside, y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(epoch)));
  }
  svg.append(drawn("text", { x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, "epoch"));
  for (const line of lines) {
    const stroke = colour(state, line.condition), points = line.points;
    if (points.length === 1) {
      svg.append(drawn("circle", { cx: x(points[0][0]), cy: y(scaled(points[0][1])), r: 2.5, fill: stroke }));
    } else {
      const path = points.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(scaled(value)).toFixed(1)}`).join(" ");
      svg.append(drawn("polyline", { points: path, stroke, "stroke-opacity": lines.length > 12 ? 0.55 : 0.85 }));
    }
  }
  const figure = make("figure");
  figure.append(make("figcaption", {}, data.label + (data.log ? ", logarithmic" : "")), svg);
  return figure;
}

async function report(state) {
  if (reported || !state.report) return;
  reported = true;
  const answer = await fetch("/report.html");
  if (!answer.ok) { reported = false; return; }
  // kept by this page, so that it can be opened when the command has ended
  find("alone").href = URL.createObjectURL(new Blob([await answer.text()], { type: "text/html" }));
  find("frame").src = "/report.html";
  find("place").textContent = `It lies at ${state.folder}/report.html.`;
  find("report").hidden = false;
}

function show(state) {
  find("lost").hidden = true;
  if (state.stage === "begins" || state.stage === "unreadable") {
    find("title").textContent = state.stage === "begins" ? "The study begins" : "The study cannot be read";
    find("status").textContent = state.why || "Its data are read and its settings are tried. Runs follow.";
    return;
  }
  last = state;
  document.title = `${state.counts.finished + state.counts.diverged}/${state.planned} · ${state.name}`;
  find("name").textContent = state.name;
  find("title").textContent = state.title;
  find("status").textContent = sentence(state);
  fill(find("bar"), state.counts, state.planned);
  table(state);
  const charts = state.charts.map((data) => chart(data, state)).filter((figure) => figure !== null);
  find("charts").replaceChildren(...charts);
  find("curves").hidden = charts.length === 0;
  if (state.stage === "finished") return report(state);
  if (reported) { reported = false; find("report").hidden = true; }
}

async function ask() {
  try {
    const answer = await fetch("/state" + (chosen === null ? "" : `?show=${chosen.join(",") || "999999"}`));
    if (!answer.ok) throw new Error(answer.statusText);
    await show(await answer.json());
  } catch (error) {
    const folder = last ? ` Its folder is ${last.folder}.` : "";
    const done = last && last.stage === "finished";
    find("lost").textContent = done
      ? "The command has ended; this page shows the finished study."
      : `The command that serves this page does not answer: it has ended, or is busy.${folder} To look again, run \`steppe watch\`.`;
    find("lost").hidden = false;
  }
}

async function follow() {
  await ask();
  setTimeout(follow, EVERY);
}

follow();
