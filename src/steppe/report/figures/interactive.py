"""Surfaces that a reader can rotate: plotly's drawing, its data inline, its script once a page."""

import html
import math
from typing import TYPE_CHECKING, cast

import numpy as np
from markupsafe import Markup

from steppe.report.figures.landscapes import WORDS, Scale, View, round_numbers, scale_of, tick_label
from steppe.report.formats import number

if TYPE_CHECKING:
    import plotly

HEIGHT = 660
EYE = {"x": 0.9, "y": -1.3, "z": 1.1}
BROADSIDE = {"x": 0.45, "y": -1.15, "z": 1.5}
STEP_BACK = """
const turning = document.getElementById("{plot_id}"), eye = turning.layout.scene.camera.eye;
if (turning.clientWidth < 640) {
  const far = 640 / turning.clientWidth;
  Plotly.relayout(turning, {"scene.camera.eye": {x: far * eye.x, y: far * eye.y, z: far * eye.z}});
}
"""
"""What shows all of a surface on a narrow screen, too."""

BUTTONS = ["orbitRotation", "tableRotation", "pan3d", "zoom3d", "resetCameraDefault3d", "toImage"]
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", "size": 13, "color": "#222222"}


def script() -> Markup:
    """The library that draws, about 4.8 megabytes: inline it once."""
    import plotly.offline

    return Markup(plotly.offline.get_plotlyjs())


def surface(view: View) -> Markup | None:
    """The planes of a view as surfaces to rotate, for a page that holds `script`; None without planes."""
    import plotly.io

    if scale_of(view) is None:
        return None
    config = {"displaylogo": False, "responsive": True, "modeBarButtons": [BUTTONS]}
    options = {"full_html": False, "include_plotlyjs": False, "div_id": "turning", "post_script": STEP_BACK}
    return Markup(plotly.io.to_html(figure(view), config, **options))


def figure(view: View) -> "plotly.graph_objects.Figure":
    """The planes of a view as surfaces on one scale, one shown at a time and chosen by name."""
    import plotly.graph_objects as go

    drawn, scale = go.Figure(), cast(Scale, scale_of(view))
    for index, (name, grid) in enumerate(zip(view.names, view.grids, strict=True)):
        drawn.add_trace(_surface(view, name, np.asarray(grid, float), scale, visible=index == 0))
        drawn.add_trace(_networks(view, np.asarray(grid, float), scale, visible=index == 0))
    axes, (_, across, up) = _axis(scale), WORDS[view.along].axes
    grid_color = {"gridcolor": "#dddddd", "zeroline": False, "showbackground": False, "nticks": 6}
    drawn.update_layout(
        template="none",
        height=HEIGHT,
        margin={"l": 0, "r": 0, "t": 50 if len(view.names) > 1 else 10, "b": 70},
        font=FONT,
        paper_bgcolor="white",
        showlegend=False,
        uirevision="one",  # the camera stays where it is when another network is chosen
        updatemenus=menu(view),
        scene={
            "xaxis": {"title": {"text": across}, **grid_color},
            "yaxis": {"title": {"text": up}, **grid_color},
            "zaxis": {"title": {"text": view.label}, **axes, **grid_color},
            "aspectratio": {"x": 1, "y": 1, "z": 0.75},
            "camera": {"eye": BROADSIDE if view.along == "between" else EYE, "center": {"x": 0, "y": 0, "z": -0.2}},
        },
    )
    return drawn


def caption(view: View) -> str:
    """What the surface shows."""
    scale = cast(Scale, scale_of(view))
    many = len(view.names) > 1
    words = f"{view.quantity} {WORDS[view.along].plane.replace('(+', '(dots')}"
    words += "; choose a network above: all share the axes and the colours" if many else ""
    words += "; the height is logarithmic" if scale.log else ""
    words += f"; heights above {number(scale.high, 2)} are cut" if scale.cut else ""
    return f"{words}. Drag to rotate, scroll to zoom, point at the surface to read values."


def _surface(view: View, name: str, grid: np.ndarray, scale: Scale, *, visible: bool) -> dict:
    """One network's surface."""
    _, across, up = WORDS[view.along].axes
    read = (f"{across} %{{x:.3g}}", f"{up} %{{y:.3g}}", f"{view.label} %{{customdata:.3g}}")
    floor, ceiling = (float(_height(end, scale)) for end in (scale.low, scale.high))
    lines = {"show": True, "start": floor, "end": ceiling, "size": (ceiling - floor) / 20, "color": "white", "width": 1}
    return {
        "type": "surface",
        "name": name,
        "x": view.grid_steps,
        "y": view.grid_steps,
        "z": np.float32(_height(grid, scale)),
        "customdata": np.float32(grid),
        "hovertemplate": "<br>".join(read) + "<extra></extra>",
        "cmin": floor,
        "cmax": ceiling,
        "colorscale": "Cividis",
        "colorbar": {
            "title": {"text": view.label, "side": "bottom"},
            "orientation": "h",
            "len": 0.7,
            "thickness": 14,
            "y": 0.0,
            "yanchor": "top",
            **_ticks(scale),
        },
        "contours": {"z": lines},
        "lighting": {"ambient": 0.75, "diffuse": 0.55, "specular": 0.05, "roughness": 0.9},
        "visible": visible,
    }


def _networks(view: View, grid: np.ndarray, scale: Scale, *, visible: bool) -> dict:
    """The places of networks, just above the surface; all lie on the plane's horizontal line through the centre."""
    above = 0.015 * float(_height(scale.high, scale) - _height(scale.low, scale))
    middle = _height(grid[len(grid) // 2], scale)
    return {
        "type": "scatter3d",
        "mode": "markers",
        "x": [x for x, _ in view.places],
        "y": [y for _, y in view.places],
        "z": [float(np.interp(x, view.grid_steps, middle)) + above for x, _ in view.places],
        "marker": {"size": 5, "color": "#D55E00", "line": {"color": "white", "width": 1}},
        "hoverinfo": "skip",
        "visible": visible,
    }


def _height(values: np.ndarray | float, scale: Scale) -> np.ndarray:
    """Values as heights: cut above, logarithms on a logarithmic scale, NaN where there is none."""
    values = np.where(np.isfinite(values), values, np.nan)
    values = np.minimum(values, scale.high) if scale.cut else values
    return np.log10(values) if scale.log else values


def _axis(scale: Scale) -> dict:
    """The range of heights, the same for all networks, and its ticks."""
    low, high = (float(_height(end, scale)) for end in (scale.low, scale.high))
    room = 0.02 * (high - low)
    return {"range": [low - room, high + room], **_ticks(scale)}


def _ticks(scale: Scale) -> dict:
    """Ticks at round numbers where heights are logarithms."""
    if not scale.log:
        return {}
    ticks = round_numbers(scale.low, scale.high, 6)
    return {"tickvals": [math.log10(tick) for tick in ticks], "ticktext": [tick_label(tick) for tick in ticks]}


def menu(view: View) -> list[dict]:
    """What chooses a network: buttons, or a list where there are many. Plotly reads labels as HTML."""
    count = len(view.names)
    if count < 2:
        return []
    few = count <= 4 and sum(map(len, view.names)) <= 60
    shown = [[i // 2 == chosen for i in range(2 * count)] for chosen in range(count)]
    buttons = [
        {"label": html.escape(name, quote=False), "method": "restyle", "args": [{"visible": visible}]}
        for name, visible in zip(view.names, shown, strict=True)
    ]
    kind = {"type": "buttons", "direction": "right"} if few else {"type": "dropdown"}
    return [{"buttons": buttons, "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom", "showactive": True, **kind}]
