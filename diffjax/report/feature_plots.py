"""Accuracy of heads by layer and timestep, without pyplot and its global state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffjax.report.charts import COLOURS, GRID, MARKERS, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.4, 3.9)  # inches
STYLES = {"linear": "-", "resnet": "--"}
KEYS = ("layer", "head")


def features_figure(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    chance: float,
    zero_shot: Mapping[str, Any] | None = None,
) -> "Figure":
    """A line for each layer and head over the timesteps, with 95 % intervals.

    Args:
        rows: "layer", "timestep", "head", "accuracy" in [0, 1], and its "interval".
        title: names model, data, and how many labels were learned from.
        chance: the accuracy of guessing.
        zero_shot: "accuracy" and "interval" of the model as a classifier, without a
            head; None to leave it out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    draw_features(figure.subplots(), rows, title, chance, zero_shot)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=2)
    return figure


def draw_features(
    axes: "Axes",
    rows: Sequence[Mapping[str, Any]],
    title: str,
    chance: float,
    zero_shot: Mapping[str, Any] | None = None,
) -> None:
    """The same, in a part of a figure, and without a legend."""
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["timestep"])):
        lines.setdefault((row["layer"], row["head"]), []).append(row)
    layers, heads = (list(dict.fromkeys(row[name] for row in rows)) for name in KEYS)
    times = [row["timestep"] for row in rows]
    aside = 0.006 * (max(times) - min(times))  # side by side, not on each other
    for (layer, head), mine in lines.items():
        place = layers.index(layer)
        # the first head beside the later ones, as they may be of one layer
        shift = place - (len(layers) - 1) / 2 + 0.5 * heads.index(head)
        accuracy = np.array([row["accuracy"] for row in mine])
        low, high = np.array([row["interval"] for row in mine]).T
        axes.errorbar(
            np.array([row["timestep"] for row in mine]) + aside * shift,
            accuracy,
            yerr=[accuracy - low, high - accuracy],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markerfacecolor=None if head == heads[0] else "white",
            markersize=5,
            linewidth=1.2,
            elinewidth=0.7,
            linestyle=STYLES.get(head, ":") if len(mine) > 1 else "",
            label=f"{layer}, {head}" if len(heads) > 1 else layer,
        )
    if zero_shot is not None:
        value, (low, high) = zero_shot["accuracy"], zero_shot["interval"]
        axes.axhspan(low, high, color=MUTED, alpha=0.15, linewidth=0)
        label = "the diffusion classifier, without a head"
        axes.axhline(value, color=MUTED, linewidth=1.2, linestyle="-.", label=label)
    axes.axhline(chance, color=MUTED, linestyle=":", linewidth=1)
    axes.text(1, chance, "chance", transform=axes.get_yaxis_transform(), ha="right",
              va="bottom", fontsize=8, color=MUTED, clip_on=True)  # fmt: skip
    axes.set_ylabel("accuracy on test images")
    axes.set_xlabel("timestep t   (noise grows →)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_title(title, fontsize=10, parse_math=False)
