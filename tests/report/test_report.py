"""The report: legible, self-contained, escaped, the same bytes for the same results, whatever is missing."""

import dataclasses
import html
import io
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import polars
import pytest
from markdown_it import MarkdownIt
from matplotlib import cbook
from rich.console import Console

from steppe import report
from steppe.analysis.analysis import analyse
from steppe.analysis.frames import EPOCHS
from steppe.analysis.results import PublishedTable, Results, Surfaces
from steppe.networks.landscapes import Landscape, Settings
from steppe.report import landscape as landscape_page
from steppe.report import markdown
from steppe.report.figures import curves as figures
from steppe.report.figures import drawing, landscapes
from steppe.report.figures import interactive as turning
from steppe.report.wording.conclusion import conclusion
from steppe.report.wording.notes import power
from steppe.study import progress

LAMBDAS = (0.0, 0.001, 0.01, 0.1, 1.0)


def with_tr_h2(runs, value):
    return runs.with_columns(
        polars.lit(value).alias(name) for name in ("batch_frobenius_squared", "average_batch_frobenius_squared")
    )


def with_all_columns(history):
    kinds = {"": polars.Float64, "_sem": polars.Float64, "_residual": polars.Float64, "_converged": polars.Boolean}
    columns = {f"{name}{suffix}": kind for name in EPOCHS for suffix, kind in kinds.items()}
    lacking = {name: kind for name, kind in columns.items() if name not in history.columns}
    return history.with_columns(polars.lit(None, kind).alias(name) for name, kind in lacking.items())


def make_results(
    lams=LAMBDAS, seeds=3, *, epochs=20, names=None, surfaces=True, surfaces_of=lambda s: s, planned=None, **changes
) -> Results:
    """A study as a small MLP on Breast Cancer would leave it."""
    rng = np.random.default_rng(0)
    names = names or [f"lam={lam:g}" for lam in lams]
    runs, history = [], []
    for name, lam in zip(names, lams, strict=True):
        strength = lam or 0.0
        for seed in range(seeds):
            final = round(114 * (0.972 + 0.006 * rng.standard_normal() - 0.01 * (strength > 0.5))) / 114
            level = 40.0 / (1 + 60 * strength) * math.exp(0.25 * rng.standard_normal())
            seconds = (6.4 if not lam else 15.5) * (1 + 0.04 * rng.standard_normal())
            runs.append({
                "condition": name, "seed": seed, "lam": lam, "status": "finished", "epochs": epochs,
                "steps": 15 * epochs, "parameters": 147_713, "train_loss": 0.02 + 0.03 * strength,
                "train_accuracy": 0.995,
                "test_loss": 0.09 + 0.01 * rng.random(), "test_accuracy": final,
                "best_test_accuracy": min(final + 1 / 114, 1),
                "average_batch_frobenius_squared": 2.2 * level, "batch_frobenius_squared": level,
                "batch_frobenius_squared_sem": 0.04 * level,
                "train_seconds": seconds, "compile_seconds": 3.2, "measure_seconds": 1.1, "step_memory_mb": 12.5,
                "host": "a machine",
            })  # fmt: skip
            for epoch in range(1, epochs + 1):
                fade = math.exp(-epoch / 5)
                history.append({
                    "condition": name, "seed": seed, "lam": lam, "epoch": epoch,
                    "objective": 0.02 + 0.03 * strength + 0.6 * fade, "test_loss": 0.09 + 0.5 * fade,
                    "train_loss": 0.02 + 0.03 * strength + 0.6 * fade,
                    "test_accuracy": final - 0.3 * fade + 0.004 * rng.standard_normal(),
                    "batch_frobenius_squared": level * (1 + 8 * fade), "batch_frobenius_squared_sem": 0.04 * level,
                    "train_seconds": seconds / epochs,
                })  # fmt: skip
    values = dict(
        name="fa-breast-cancer",
        title="Does FA-Regularization help on Breast Cancer Wisconsin?",
        about="An MLP of 512 and 256 units on 30 standardised features.\n\nFive strengths of the penalty, three seeds.",
        baseline=names[0],
        conditions=tuple(names),
        planned=len(runs) if planned is None else planned,
        runs=polars.DataFrame(runs, schema_overrides={"lam": polars.Float64}),
        history=with_all_columns(polars.DataFrame(history, schema_overrides={"lam": polars.Float64})),
        surfaces=surfaces_of(make_surfaces(names)) if surfaces else None,
        published=(
            PublishedTable(
                "Table 3 of the FA paper: Breast Cancer MLP",
                "One seed behind it as far as the released files show; an uncompiled training step.",
                ("λ", "Test accuracy", "Best accuracy", "Train time (s)"),
                (("0.000", 0.5556, 0.5556, 14.36), ("0.001", 0.5585, 0.5585, 162.06), ("0.010", 0.5859, 0.5859, 166.0)),
            ),
        ),
        provenance={
            "Steppe": "0.1.0", "JAX": "0.10.2 on CPU", "Hardware": "2 cores, x86_64", "Seeds": "0, 1, 2",
            "Data": "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        },
        notes=(),
        spec_toml='name = "fa-breast-cancer"\n\n[train]\nepochs = 20\n\n[method]\nname = "fa"\nprobes = 5\n',
    )  # fmt: skip
    return Results(**(values | changes))


def make_surfaces(names) -> Surfaces:
    steps, grid = np.linspace(-1, 1, 41), np.linspace(-1, 1, 25)
    sharp = 3.0 / (1 + np.arange(len(names)))
    x, y = np.meshgrid(grid, grid)
    lines = 0.02 + sharp[:, None] * steps**2
    grids = 0.02 + sharp[:, None, None] * (x**2 + 0.6 * y**2 + 0.2 * x * y)
    return Surfaces(tuple(names), steps, lines, grid, grids, "Training loss on 256 examples, dropout off.")


def with_runs(results: Results, change) -> Results:
    return dataclasses.replace(results, runs=change(results.runs))


def read(results, folder) -> tuple[str, str]:
    report.write(results, folder)
    return (folder / "report.html").read_text(), (folder / "summary.md").read_text()


def terminal(results, width=120) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.show(results, console)
    return console.file.getvalue()


def pl_when(condition, value, name):
    return polars.when(condition).then(polars.lit(value, polars.Float64)).otherwise(polars.col(name)).alias(name)


VARIANTS = {
    "whole": make_results,
    "one seed": lambda: make_results(seeds=1, surfaces=False),
    "one condition": lambda: make_results(lams=(0.0,)),
    "one condition, lam > 0": lambda: make_results(lams=(0.1,), surfaces=False),
    "one run of one epoch": lambda: make_results(lams=(0.0,), seeds=1, epochs=1),
    "no runs": lambda: with_runs(make_results(surfaces=False), lambda runs: runs.clear()),
    "no history": lambda: dataclasses.replace(make_results(surfaces=False), history=make_results().history.clear()),
    "no lam": lambda: make_results(lams=(None,) * 3, names=("adam", "sam", "asam with quite a long name for a label")),
    "some lam": lambda: make_results(lams=(0.0, 0.1, None), names=("adam", "fa", "sam")),
    "fifteen": lambda: make_results(lams=(0.0, *np.geomspace(1e-4, 10, 14)), seeds=2, epochs=5, surfaces=False),
    "nothing published": lambda: make_results(published=(), provenance={}, about="", spec_toml="", surfaces=False),
    "no baseline": lambda: with_runs(make_results(), lambda runs: runs.filter(polars.col("lam") > 0)),
    "NaN and null": lambda: with_runs(
        make_results(surfaces=False),
        lambda runs: runs.with_columns(
            pl_when(polars.col("seed") == 0, math.nan, "test_accuracy"),
            pl_when(polars.col("lam") > 0.05, None, "batch_frobenius_squared"),
        ),
    ),
    "all flatness zero": lambda: dataclasses.replace(
        with_runs(
            make_results(surfaces=False),
            lambda runs: with_tr_h2(runs, 0.0),
        ),
        history=make_results().history.with_columns(batch_frobenius_squared=0.0),
    ),
    "diverged": lambda: with_runs(
        make_results(notes=("2 runs diverged.",), planned=17, surfaces=False),
        lambda runs: runs.with_columns(
            polars.when((polars.col("lam") == 1.0) & (polars.col("seed") < 2))
            .then(polars.lit("diverged"))
            .otherwise(polars.col("status"))
            .alias("status"),
            pl_when((polars.col("lam") == 1.0) & (polars.col("seed") < 2), math.nan, "test_accuracy"),
        ),
    ),
    "infinite surfaces": lambda: make_results(surfaces_of=lambda s: dataclasses.replace(s, grids=s.grids * np.inf)),
    "flat surfaces": lambda: make_results(
        surfaces_of=lambda s: dataclasses.replace(s, grids=0 * s.grids, lines=0 * s.lines)
    ),
    "all flatness unknown": lambda: with_runs(
        make_results(surfaces=False),
        lambda runs: with_tr_h2(runs, None),
    ),
}


class Page(HTMLParser):
    """What a browser would load and show: tags, attributes, text, and the text of each cell of a table."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.words, self.cells, self.in_cell = [], [], [], False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.words.append(data)
        if self.in_cell:
            self.cells[-1] = f"{self.cells[-1]} {data}".strip()

    def attributes(self, *names):
        return [value for _, attrs in self.tags for name, value in attrs.items() if name in names]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, str]:
    return read(make_results(notes=("A note.",)), tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_study_whole_or_partial_is_reported(name, tmp_path):
    results = VARIANTS[name]()
    html, summary = read(results, tmp_path)
    shown = terminal(results)
    for told in (Page(html).text, summary, shown):
        assert not re.search(r"\b(nan|inf|None|null)\b", told)
    assert polars.read_parquet(tmp_path / "results.parquet").height == results.runs.height
    pages = ["landscape.html", "report.html"] if "landscape.html" in html else ["report.html"]
    assert sorted(os.listdir(tmp_path)) == [*pages, "results.parquet", "summary.md"]  # nothing partial is left


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(tmp_path):
    shuffled = with_runs(make_results(), lambda runs: runs.sample(fraction=1.0, shuffle=True, seed=1))
    first, second = (report.write(r, tmp_path / d) for r, d in ((make_results(), "a"), (shuffled, "b")))
    assert [p.name for p in first] == ["results.parquet", "summary.md", "report.html", "landscape.html"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_parquet_file_holds_runs_by_condition_then_seed(tmp_path):
    results = with_runs(make_results(surfaces=False), lambda runs: runs.reverse())
    report.write(results, tmp_path)
    runs = polars.read_parquet(tmp_path / "results.parquet")
    assert runs.columns == results.runs.columns
    assert list(runs["condition"].unique(maintain_order=True)) == list(results.conditions)
    assert runs["seed"].to_list() == [0, 1, 2] * 5


@pytest.mark.slow
def test_the_page_loads_nothing_and_runs_nothing(whole):
    html, _ = whole
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    images = page.attributes("src", "srcset")
    assert images and all(value.startswith("data:image/svg+xml;base64,") for value in images)
    assert page.attributes("href") == ["landscape.html"]  # a link to follow: what is loaded is above
    assert not re.search(r"https?://|@import|url\(", html)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


@pytest.mark.slow
def test_text_from_data_and_spec_is_escaped_everywhere(tmp_path):
    evil = "<script>alert('x')</script>|[a](b)$"
    names = (evil, "lam=0.1 <b>")
    results = make_results(
        lams=(0.0, 0.1), names=names, title=evil, name=evil, about=f"{evil}\n\n# {evil}", notes=(evil,),
        provenance={evil: evil}, spec_toml=f"# {evil}\n```\n</pre>{evil}",
        published=(PublishedTable(evil, evil, (evil, "b"), ((evil, 1.0),)),),
    )  # fmt: skip
    html, summary = read(results, tmp_path)
    assert "<script" not in html and "<b>" not in html
    assert "<script>alert" in Page(html).text
    before, fence, _ = summary.partition("````toml")
    assert fence and "<script" not in before and "[a](b)" not in before
    assert "[/" not in terminal(make_results(title="[/bold] [link=x]", surfaces=False)).replace("[/bold]", "")


AWKWARD = (
    "small batch", "all", "both", "significantly lower", "a, b and c", "λ → ∞ (é, 平ら)", "[red]adam[/red]", "a[/]",
    ":smile:", "{0} {name} %s", "\\1 $x_1$ \\$", "_a_ __b__ *c* ~~d~~ `e`", "a|b", "<b>x</b> &amp; &", "# 1.",
    "[a](b) [c][d] [e]: f", "'\"",
)  # fmt: skip
"""Names that a sentence, a template or a language of markup might take for its own."""


@pytest.fixture(scope="module")
def awkward() -> Results:
    return make_results(lams=(0.0,) * len(AWKWARD), seeds=2, names=AWKWARD, surfaces=False, epochs=2)


def test_a_name_passes_unchanged_through_the_page_and_the_summary(awkward, tmp_path):
    html, summary = read(awkward, tmp_path)
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(summary)
    for page in (Page(html), Page(rendered)):
        assert {f"{AWKWARD[0]} baseline", *AWKWARD[1:]} <= set(page.cells)
    told = " ".join(conclusion(analyse(awkward)).split())
    assert told in Page(html).text and told in Page(rendered).text


@pytest.mark.parametrize("name", AWKWARD)
def test_a_name_passes_unchanged_through_every_sentence_and_the_terminal(name):
    results = make_results(lams=(0.0, 0.1), seeds=4, names=("plain", name), surfaces=False, epochs=2)
    told = analyse(results)
    assert f"under {name}" in conclusion(told)
    shown = " ".join(terminal(results, width=1000).split())
    assert " ".join(conclusion(told).split()) in shown and shown.count(name) > conclusion(told).count(name)


def test_a_name_passes_unchanged_through_figures(awkward):
    for name in AWKWARD:
        label = drawing.label_of(name, 99)
        assert not cbook.is_math_text(label) and label.replace(r"\$", "$").lstrip("\u200b") == name


def test_a_name_passes_unchanged_through_the_choice_of_a_surface():
    buttons = turning.menu(landscapes.study_view(make_surfaces(AWKWARD), AWKWARD))[0]["buttons"]
    assert [html.unescape(button["label"]) for button in buttons] == list(AWKWARD)
    assert not any("<" in button["label"] for button in buttons)


def test_both_ends_of_a_way_are_named_whatever_they_are_called():
    facts = (
        "start_loss",
        "end_loss",
        "start_accuracy",
        "end_accuracy",
        "barrier",
        "barrier_step",
        "error_barrier",
        "distance",
    )
    ends = ("a → b-s0", "c → d-s1")
    found = Landscape(
        names=(" → ".join(ends),), networks=ends, steps=np.zeros(1), lines={}, grid_steps=np.zeros(0), grids={},
        facts=dict.fromkeys(facts, np.zeros(1)), settings=Settings(along="between"), about="", provenance={},
    )  # fmt: skip
    assert [row[0].text for row in landscape_page.facts(found).rows[:2]] == list(ends)


def test_a_name_passes_unchanged_through_the_progress_bar():
    for name in AWKWARD:
        console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
        with progress.Bar(console) as bar:
            bar.stage(f"{name} seed 0")
            bar.say(f"{name} is announced")
            bar.progress.refresh()
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
        assert f"{name} seed 0" in shown and f"{name} is announced" in shown


def test_every_figure_has_a_text_and_says_what_its_band_is(whole):
    html, _ = whole
    page = Page(html)
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 10 and all(len(attrs["alt"]) > 30 for attrs in images)
    assert page.text.count("from the lowest to the highest seed") == 3
    assert page.text.count("95 % confidence interval over seeds") == 2
    assert sum(tag == "figcaption" for tag, _ in page.tags) == len(images)


def test_table_heads_say_what_they_head(whole):
    html, _ = whole
    scopes = [attrs.get("scope") for tag, attrs in Page(html).tags if tag == "th"]
    assert scopes and set(scopes) == {"row", "col"}


def test_sections_stand_in_order(whole):
    html, _ = whole
    order = [
        "Does FA", "This rests on 3 runs", "A note.", "Results by condition", "Comparisons",
        "Statistical power", "Training curves", "Accuracy and tr(H²) by condition", "Cost</h2>",
        "Loss surfaces", "Published numbers", "Provenance", "verbatim",
    ]  # fmt: skip
    text_of_body = html[html.index("<body>") :]
    places = [text_of_body.index(words) for words in order]
    assert places == sorted(places)


def test_page_summary_and_terminal_say_the_same(whole):
    results = make_results(notes=("A note.",))
    html, summary = whole
    analysis = analyse(results)
    said = (Page(html).text, " ".join(summary.split()), " ".join(terminal(results, width=4000).split()))
    for told in said:
        assert " ".join(conclusion(analysis).split()) in told
        assert power(analysis.power, analysis.alpha, analysis.judged.quantity) in told
        assert "No difference shown" in told and "Significantly lower (by a factor of" in told


def test_every_verdict_can_be_read(tmp_path):
    results = make_results(lams=(0.0, 0.001, 0.01, 0.1, 1.0, 2.0), surfaces=False)
    accuracy = {
        "lam=0": [0.90, 0.91, 0.92], "lam=0.001": [0.90, 0.91, 0.92], "lam=0.01": [0.70, 0.71, 0.72],
        "lam=0.1": [0.98, 0.985, 0.99], "lam=1": [0.905, 0.9, 0.93], "lam=2": [0.9, None, None],
    }  # fmt: skip
    runs = results.runs.with_columns(test_accuracy=polars.Series([x for c in results.conditions for x in accuracy[c]]))
    html, summary = read(dataclasses.replace(results, runs=runs), tmp_path)
    for words in (
        "No difference shown: identical in every run", "Significantly lower (by 20.0 points)",
        "Significantly higher (by 7.50 points)", "Cannot tell: one run cannot be tested",
    ):  # fmt: skip
        assert words in html and words in summary
    flat = runs.with_columns(test_accuracy=polars.when(polars.col("condition") == "lam=1").then(0.7).otherwise(0.9))
    html, _ = read(dataclasses.replace(results, runs=flat), tmp_path)
    assert "Cannot tell: lower in every run by 20.0 points, and without spread between seeds no test is defined" in html


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    report.write(make_results(lams=(0.0,), seeds=1, surfaces=False), tmp_path)
    old = (tmp_path / "report.html").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        report.write(make_results(lams=(0.0,), seeds=1, surfaces=False, title="new"), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == old
    assert sorted(os.listdir(tmp_path)) == ["report.html", "results.parquet", "summary.md"]


def test_drawing_leaves_matplotlib_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    found = analyse(make_results())
    figures.pictures(found.curves, found.trajectories, found.results)
    assert dict(mpl.rcParams) == before


def test_conditions_differ_without_colour():
    names = [f"c{i}" for i in range(15)]
    looks = drawing.looks(names)
    assert len({(str(look.line), look.marker) for look in looks.values()}) == 15
    assert len({look.color for look in looks.values()}) == 15


def test_a_fence_is_longer_than_any_in_the_code():
    assert markdown.fenced("a\n```\nb").startswith("````toml\n")


@pytest.mark.parametrize("ends", [(5.8, 7.0), (0.69, 1.0), (53.0, 95.0), (6.5, 6.51), (7.0, 21.0), (3.0, 3e5)])
def test_labels_of_a_logarithmic_axis_differ(ends):
    figure, ax = drawing.canvas(3.0)
    ax.plot([1, 2], ends)
    drawing.log_axis(ax.yaxis, ends)
    figure.canvas.draw()
    low, high = ax.get_ylim()
    ticks = zip(ax.get_yticks(), ax.yaxis.get_majorticklabels(), strict=True)
    labels = [label.get_text() for place, label in ticks if low <= place <= high]
    assert len(labels) >= 2 and len({*labels}) == len(labels)
