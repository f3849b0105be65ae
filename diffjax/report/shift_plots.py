"""Charts of accuracies under shift, of the points that ``runs.robustness`` makes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffjax.data.corruptions import CORRUPTIONS
from diffjax.runs.robustness import ALL, FAMILIES, KIND, Point, fit_lines, on_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HUES = ("#D55E00", "#CC79A7", "#0072B2", "#009E73")
COLOURS = dict(zip(FAMILIES, HUES, strict=True))
MARKERS = dict(zip(FAMILIES, "o^sD", strict=True))


def robustness_figure(points: Sequence[Point]) -> "Figure":
    """A panel a kind of shift: y over x with intervals, the line, and y = x."""
    from matplotlib.figure import Figure

    there = dict.fromkeys(p.shift for p in points)
    kinds = [kind for kind in (ALL, *CORRUPTIONS) if kind in there]
    kinds += [kind for kind in there if kind not in kinds]  # other data sets
    columns = min(3, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.2 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    lines = fit_lines(points)
    for axes, kind in zip(panels, kinds, strict=False):
        shown = [p for p in points if p.shift == kind]
        edges = np.array([(p.clean_low, p.clean_high) for p in shown])
        low, high = max(0.0, edges.min() - 0.03), min(1.0, edges.max() + 0.03)
        x = np.linspace(max(low, 0.01), min(high, 0.99), 50)
        axes.plot(x, x, color="#999999", linewidth=0.8, linestyle=":")
        if kind in lines:
            fitted = [p.clean for p in shown if p.family == KIND]
            within = np.linspace(min(fitted), max(fitted), 50)
            for each, style in ((x, ":"), (within, "-")):
                y = on_line(lines[kind], each)
                axes.plot(each, y, color=COLOURS[KIND], linewidth=1, linestyle=style)
        for family in FAMILIES:
            members = [p for p in shown if p.family == family]
            if members:
                _draw(axes, members, family)
        axes.set(title="all shifts" if kind == ALL else kind, xlim=(low, high))
        axes.grid(color="#e4e4e4", linewidth=0.5)
        axes.set(xlabel="clean accuracy", ylabel="accuracy under shift")
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw(axes: "Axes", members: Sequence[Point], family: str) -> None:
    x, y = ([getattr(p, name) for p in members] for name in ("clean", "shifted"))
    xerr, yerr = (
        [
            [getattr(p, name) - getattr(p, f"{name}_low") for p in members],
            [getattr(p, f"{name}_high") - getattr(p, name) for p in members],
        ]
        for name in ("clean", "shifted")
    )
    axes.errorbar(
        x,
        y,
        xerr=xerr,
        yerr=yerr,
        fmt=MARKERS[family],
        color=COLOURS[family],
        markersize=5,
        linewidth=1,
        label=FAMILIES[family],
    )
