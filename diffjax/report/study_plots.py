"""The figures of ``studies``, without pyplot, so that there is no global state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffjax.report.charts import COLOURS, GRID, MARKERS, MUTED, round_ends
from diffjax.runs.studies import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.0, 3.8)  # inches


def study_figure(study: str, table: Table, title: str, chance: float) -> "Figure":
    """The figure of a study.

    Args:
        study: a key of ``studies.STUDIES``.
        table: what it found.
        title: names the run.
        chance: the accuracy of guessing, in [0, 1].
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    n = len(COLOURS)
    axes.set_prop_cycle(color=COLOURS, marker=MARKERS[:n], markersize=[4] * n)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    match study:
        case "variance":
            _variance(axes, table)
        case "timestep":
            _timestep(axes, table)
        case _:
            _samples(axes, table)
    if study != "variance":
        axes.axhline(chance, color=MUTED, linestyle=":", linewidth=1)
        axes.text(1, chance, "chance", transform=axes.get_yaxis_transform(), ha="right",
                  va="bottom", fontsize=8, color=MUTED)  # fmt: skip
        axes.set_ylabel("accuracy")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_title(title, fontsize=10, parse_math=False)
    return figure


def learning_figure(
    rows: Sequence[Mapping[str, Any]], title: str, images: int
) -> "Figure":
    """Accuracy against the number of samples, learned and evenly spread.

    Args:
        rows: of ``runs.learning.curve``.
        title: names model and data.
        images: that it was learned on.
    """
    table: Table = {"where": [], "samples": [], "accuracy": [], "low": [], "high": []}
    names = {"learned": f"learned on {images:,} images", "even": "evenly spread"}
    for way, name in names.items():
        for row in rows:
            values = (name, row["samples"], row[way], *row[f"{way}_interval"])
            for column, value in zip(table.values(), values, strict=True):
                column.append(value)
    return study_figure("samples", table, f"{title}, cross-validated", 0.0)


def _variance(axes: "Axes", table: Table) -> None:
    t = table["timestep"]
    axes.plot(t, table["sd_of_errors"], label="errors of a class")
    axes.plot(t, table["sd_of_differences"], label="differences between classes")
    axes.set(
        yscale="log",
        xlabel="timestep",
        ylabel="standard deviation over noises",
    )
    axes.legend(frameon=False)


def _timestep(axes: "Axes", table: Table) -> None:
    t = table["timestep"]
    [line] = axes.plot(t, table["accuracy"])
    axes.fill_between(
        t, table["low"], table["high"], color=line.get_color(), alpha=0.18, linewidth=0
    )
    n = table["samples"][0]
    axes.set_xlabel(f"the one timestep of {n} sample{'s' if n != 1 else ''} a class")


def _samples(axes: "Axes", table: Table) -> None:
    where = np.array(table["where"])
    n, accuracy, low, high = (
        np.array(table[name], dtype=float)
        for name in ("samples", "accuracy", "low", "high")
    )
    for place, way in enumerate(dict.fromkeys(table["where"])):
        rows = where == way
        axes.errorbar(
            n[rows] * (1 + 0.03 * (place - 1.5)),  # side by side, not on each other
            accuracy[rows],
            yerr=[accuracy[rows] - low[rows], high[rows] - accuracy[rows]],
            linewidth=1.2,
            elinewidth=0.7,
            label=str(way),
        )
    axes.set(xscale="log", xlabel="samples a class")
    round_ends(axes)
    axes.legend(frameon=False)
