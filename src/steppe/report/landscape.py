"""The page of a landscape: its numbers, a surface that a reader can rotate, lines and planes."""

from functools import partial

from steppe.networks.landscapes import Landscape
from steppe.report.document import Block, Cell, Document, Gallery, Rotatable, Section, Table
from steppe.report.figures import interactive, landscapes
from steppe.report.figures.landscapes import View
from steppe.report.formats import number
from steppe.report.tables.base import facts_table, table

DIRECTIONS = {
    "random": "landscape along random directions",
    "eigenvectors": "landscape along eigenvectors",
    "between": "landscape between two networks",
}


def landscape_document(found: Landscape) -> Document:
    """The page of a landscape."""
    between = found.settings.along == "between"
    views, numbers = landscapes.landscape_views(found), facts(found)
    origin = facts_table("Provenance", found.provenance)
    return Document(
        place=DIRECTIONS[found.settings.along],
        title="The loss between two networks" if between else "The loss around trained networks",
        lead=found.about,
        sections=(
            Section(numbers.title, (numbers,), brief=True),
            _surface(views[0]),
            Section("Lines and planes", (Gallery(partial(landscapes.pictures, views)),)),
            Section(origin.title, (origin,), style="provenance"),
        ),
    )


def surfaces_document(name: str, title: str, view: View | None) -> Document | None:
    """The page of a study's loss surfaces, beside its report; none where there is no plane."""
    if view is None or landscapes.scale_of(view) is None:
        return None
    lead = f"{view.about} The report beside this page shows the same surfaces as curves and contours."
    return Document(name, f"{title or name}: the loss around the solutions", lead, sections=(_surface(view),))


def _surface(view: View) -> Section:
    """The planes of a view as surfaces; nothing where there is no plane."""
    surface = interactive.surface(view)
    blocks: tuple[Block, ...] = ()
    if surface:
        blocks = (Rotatable(surface, interactive.script(), interactive.caption(view)),)
    return Section("Interactive surface", blocks)


def facts(found: Landscape) -> Table:
    """The few numbers that sum a landscape up."""
    return _ends(found) if found.settings.along == "between" else _surroundings(found)


def _surroundings(found: Landscape) -> Table:
    """Loss at each network and as far out as was looked."""
    f, eigen, accuracy = found.facts, found.settings.along == "eigenvectors", _accuracy(found)
    rows = [
        (Cell(name), Cell(number(f["loss"][i])), *(Cell(_percent(f["accuracy"][i])) for _ in accuracy),
         Cell(number(f["rim_loss"][i]), f"[{number(f['rim_low'][i])}, {number(f['rim_high'][i])}]"),
         *(Cell(number(f[f"eigenvalue_{k}"][i]), f"± {number(f[f'residual_{k}'][i], 1)}") for k in (1, 2) if eigen))
        for i, name in enumerate(found.names)
    ]  # fmt: skip
    place = "the edge of the plane" if len(found.grid_steps) else "the two ends of the line"
    caption = f"Loss at the rim: the median over {place}, and below it the lowest and the highest value there."
    caption += " Eigenvalues are those of the Hessian on these examples, ± the residual ‖Hv − μv‖." if eigen else ""
    more = ("Eigenvalue 1", "Eigenvalue 2") if eigen else ()
    return table(_title(found), caption, ("Network", "Loss", *accuracy, "Loss at the rim", *more), rows)


def _ends(found: Landscape) -> Table:
    """Both ends and the barrier between them."""
    f = {name: float(values[0]) for name, values in found.facts.items()}
    (start, end), accuracy = found.networks, _accuracy(found)
    place, least = f"at t = {f['barrier_step']:.2f}", f.get("barrier_resolution", 0)
    if 0 < f["barrier"] <= least:
        place = f"no more than rounding, {number(least)}"
    rows = (
        (Cell(start), Cell(number(f["start_loss"])), *(Cell(_percent(f["start_accuracy"])) for _ in accuracy)),
        (Cell(end), Cell(number(f["end_loss"])), *(Cell(_percent(f["end_accuracy"])) for _ in accuracy)),
        (Cell("Barrier", strong=True), Cell(number(f["barrier"]), place, strong=True),
         *(Cell(f"−{_percent(f['error_barrier'])}", "points of accuracy") for _ in accuracy)),
    )  # fmt: skip
    rates = " and of the error rate" if accuracy else ""
    caption = (
        f"The barrier is the largest rise above the straight chord between the two ends, of the loss{rates}; 0 means "
        f"that there is none. The Euclidean distance between the networks’ parameters is {number(f['distance'])}."
    )
    return table(_title(found), caption, ("Network", "Loss", *accuracy), rows)


def _accuracy(found: Landscape) -> tuple[str, ...]:
    """The column of the accuracy, where there is one."""
    return ("Accuracy (%)",) if "accuracy" in found.lines else ()


def _title(found: Landscape) -> str:
    return "Loss and accuracy" if _accuracy(found) else "Loss"


def _percent(share: float) -> str:
    return number(100 * float(share))
