"""A landscape as one self-contained page with a surface to turn, and as a table in the terminal."""

from rich.console import Console
from rich.text import Text

from steppe.analysis.results import Results
from steppe.networks.landscapes import Landscape
from steppe.report.figures import interactive, landscapes
from steppe.report.figures.landscapes import View
from steppe.report.formats import number
from steppe.report.pages.environment import ENVIRONMENT
from steppe.report.tables import Cell, Table
from steppe.report.text import to_rich

TEMPLATE = "landscape.html.j2"


def html(found: Landscape) -> str:
    """The page of a landscape. The same landscape gives the same bytes."""
    between = found.settings.along == "between"
    title = "From one solution to another" if between else "The loss around trained networks"
    rows = tuple((Cell(what), Cell(text)) for what, text in found.provenance.items())
    origin = Table("Where it all came from", "", ("What", "Value"), rows, (False, False))
    views = landscapes.of_landscape(found)
    kicker = "landscape " + {"random": "along random directions", "eigenvectors": "along eigenvectors",
                             "between": "between two networks"}[found.settings.along]  # fmt: skip
    return _page(
        views[0],
        title=title,
        kicker=kicker,
        lead=found.about,
        facts=facts(found),
        pictures=landscapes.pictures(views),
        provenance=origin,
    )


def of_study(results: Results) -> str | None:
    """The page of a study's surfaces, for the report to lead to and back; nothing where there is no plane."""
    view = landscapes.of_study(results)
    if view is None or landscapes.scale_of(view) is None:
        return None
    title = f"{results.title or results.name}: the loss around the solutions"
    lead = f"{view.about} The report beside this page shows the same as curves and contours."
    return _page(view, title=title, kicker=results.name, lead=lead, facts=None, pictures=(), provenance=None)


def _page(view: View, **parts: object) -> str:
    surface = interactive.surface(view)
    drawn = {"script": interactive.script(), "caption": interactive.caption(view)} if surface else {}
    return ENVIRONMENT.get_template(TEMPLATE).render(surface=surface, **drawn, **parts)


def show(found: Landscape, console: Console) -> None:
    """The table of a landscape in the terminal."""
    table = facts(found)
    console.print(to_rich(table))
    console.print(Text(table.caption, style="dim"))


def facts(found: Landscape) -> Table:
    """The few numbers that sum a landscape up."""
    return _way(found) if found.settings.along == "between" else _around(found)


def _around(found: Landscape) -> Table:
    """Loss at each network and as far out as was looked."""
    f, eigen = found.facts, found.settings.along == "eigenvectors"
    rows = [
        (Cell(name), Cell(number(f["loss"][i])), Cell(_percent(f["accuracy"][i])),
         Cell(number(f["rim_loss"][i]), f"[{number(f['rim_low'][i])}, {number(f['rim_high'][i])}]"),
         *(Cell(number(f[f"eigenvalue_{k}"][i]), f"± {number(f[f'residual_{k}'][i], 1)}") for k in (1, 2) if eigen))
        for i, name in enumerate(found.names)
    ]  # fmt: skip
    place = "the edge of the plane" if len(found.grid_steps) else "the two ends of the line"
    caption = f"At the rim: the median over {place}, and the lowest and highest value there."
    caption += " Eigenvalues are the Hessian's on these examples, ± the residual ‖Hv − μv‖." if eigen else ""
    columns = "Network", "Loss", "Accuracy (%)", "Loss at the rim", *(("Eigenvalue 1", "Eigenvalue 2") if eigen else ())
    numeric = (False, *(True for _ in columns[1:]))
    return Table("In numbers", caption, columns, tuple(rows), numeric)


def _way(found: Landscape) -> Table:
    """Both ends and the barrier between them."""
    f = {name: float(values[0]) for name, values in found.facts.items()}
    start, end = found.networks
    place, least = f"at t = {f['barrier_step']:.2f}", f.get("barrier_resolution", 0)
    if 0 < f["barrier"] <= least:
        place = f"no more than rounding, {number(least)}"
    rows = (
        (Cell(start), Cell(number(f["start_loss"])), Cell(_percent(f["start_accuracy"]))),
        (Cell(end), Cell(number(f["end_loss"])), Cell(_percent(f["end_accuracy"]))),
        (Cell("Barrier", strong=True), Cell(number(f["barrier"]), place, strong=True),
         Cell(f"−{_percent(f['error_barrier'])}", "points of accuracy")),
    )  # fmt: skip
    caption = (
        "The barrier is the largest rise above the straight chord between the two ends, of the loss and of the error "
        f"rate; 0 is none. The networks are {number(f['distance'])} apart (Euclidean distance of all parameters)."
    )
    return Table("In numbers", caption, ("Network", "Loss", "Accuracy (%)"), rows, (False, True, True))


def _percent(share: float) -> str:
    return number(100 * float(share))
