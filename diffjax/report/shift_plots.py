"""Charts of accuracies under shift, of the points that ``runs.robustness`` makes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from diffjax.data.corruptions import CORRUPTIONS
from diffjax.report.charts import short
from diffjax.runs.published import Published, Standing, published
from diffjax.runs.robustness import ALL, FAMILIES, KIND, Point, fit_lines, on_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HUES = ("#D55E00", "#CC79A7", "#0072B2", "#009E73")
COLOURS = dict(zip(FAMILIES, HUES, strict=True))
MARKERS = dict(zip(FAMILIES, "o^sD", strict=True))
STAR = "#000000"  # of what a person gives, whose family nobody tells
PERCENTS = (1, 2, 5, 10, 20, 30, 50, 70, 80, 85, 90, 95, 97, 98, 99)


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


def published_figure(standings: Sequence[Standing]) -> "Figure":
    """A panel a data set: published models, their line and band, and stars, in logits.

    Stars are the points that are compared, with their intervals and names.
    """
    from matplotlib.figure import Figure

    among = standings[0].classes != 1000
    kinds = dict.fromkeys(each.shift for each in standings)
    figure = Figure(figsize=(6.4 * len(kinds), 5.2), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        shown = [each for each in standings if each.shift == kind]
        models = published(kind, among=among)
        _draw_published(axes, models)
        for each in shown:
            _draw_star(axes, each)
        for side, name, known in (
            ("x", "clean", models.clean),
            ("y", "shifted", models.shifted),
        ):
            ends = [
                getattr(p, f"{name}_{end}") for p in shown for end in ("low", "high")
            ]
            axes.set(**{f"{side}lim": _limits([*known, *ends])})
        of = f", of its {models.classes} classes" if models.classes < 1000 else ""
        axes.set(xlabel=f"top-1 on ImageNet{of}, %")
        axes.set(ylabel=f"top-1 on {models.shift.title}, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_published(axes: "Axes", models: Published) -> None:
    for more, colour, label in (
        (True, "#b9b9b9", "timm's models, with other images too"),
        (False, "#0072B2", f"timm's {models.count:,} models of ImageNet-1k alone"),
    ):
        which = models.more == more
        axes.scatter(
            models.clean[which],
            models.shifted[which],
            s=9,
            alpha=0.45,
            linewidths=0,
            color=colour,
            label=label,
        )
    x = np.linspace(models.clean.min(), models.clean.max(), 400)
    axes.plot(x, models.line(x), color="#D55E00", linewidth=1.2, label="their line")
    axes.fill_between(
        x,
        *models.band(x),
        color="#D55E00",
        alpha=0.15,
        linewidth=0,
        label="95 % of them",
    )
    axes.set(xscale="logit", yscale="logit")
    for axis, values in ((axes.xaxis, models.clean), (axes.yaxis, models.shifted)):
        ticks = [p / 100 for p in PERCENTS if values.min() < p / 100 < values.max()]
        axis.set_ticks(ticks, [f"{100 * tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.grid(color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """A range with a margin, in logits, about accuracies that are neither 0 nor 1."""
    x = logit(np.clip(values, 0.002, 0.998))
    margin = 0.04 * (x.max() - x.min())
    return float(expit(x.min() - margin)), float(expit(x.max() + margin))


def _draw_star(axes: "Axes", point: Standing) -> None:
    colour = COLOURS.get(point.family, STAR)
    axes.errorbar(
        point.clean,
        point.shifted,
        xerr=[[point.clean - point.clean_low], [point.clean_high - point.clean]],
        yerr=[
            [point.shifted - point.shifted_low],
            [point.shifted_high - point.shifted],
        ],
        fmt="*",
        color=colour,
        markersize=13,
        markeredgecolor="white",
        markeredgewidth=0.7,
        linewidth=1,
        zorder=5,
    )
    left = point.further < point.models / 20  # else models lie to its left
    axes.annotate(
        short(point.model, 40),
        (point.clean, point.shifted),
        xytext=(-9, 5) if left else (9, -11),
        textcoords="offset points",
        horizontalalignment="right" if left else "left",
        color=colour,
        zorder=6,
    )
