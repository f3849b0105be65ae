"""Pictures of classifications.

A row an image: the image as the model sees it, the scores, and the curve that they come
from, over timesteps t and for some classes c against the winner w:

    d[c, s] = e[c, s] − e[w, s]          mean over the samples s in a bin of t, ± its
                                         standard error (standard deviation / √n)

Above zero the winner explains the noise better. Figures are made without pyplot, so
there is no global state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.classify.record import Record
from diffjax.classify.samples import few_shot
from diffjax.classify.settings import loss_name
from diffjax.errors import DiffjaxError
from diffjax.report.charts import short
from diffjax.strategies import (
    shortlist_from_dict,
    shortlist_to_text,
    strategy_from_dict,
    strategy_to_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 50  # a taller picture is of no use to anyone
SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")

# Okabe and Ito's colours, which colour-blind people can tell apart: the winner's,
# then those of the classes with a curve.
WINNER = "#0072B2"
RIVALS = ("#D55E00", "#009E73", "#CC79A7")
OTHERS = "#B8B8B8"
RIGHT, WRONG = "#007A59", "#B34700"
MUTED = "#555555"

UNIT = 1e-3  # of the error differences
N_BARS = 10
N_BINS = 10
ROW_HEIGHT = 2.3  # inches


class Curve(NamedTuple):
    """A class's error difference to the winner in bins of the timestep, ascending."""

    timesteps: Float[np.ndarray, "b"]
    mean: Float[np.ndarray, "b"]
    standard_error: Float[np.ndarray, "b"]


def classification_figure(
    records: Sequence[Record],
    names: Sequence[str],
    truths: Sequence[str] | None = None,
) -> "Figure":
    """A row an image: the image, its ranking, its error differences over timesteps.

    Args:
        records: what the classifier said of the images.
        names: the names of the images.
        truths: their labels, where known.

    Raises:
        DiffjaxError: if there are too many images for a picture, or none.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    check_rows(len(records))
    style = {
        "font.size": 9,
        "hatch.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # a label may hold dollar signs
    }
    with rc_context(style):
        height = ROW_HEIGHT * len(records) + 1.1
        layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)  # inches
        figure = Figure(figsize=(11, height), layout=layout)
        grid = figure.add_gridspec(len(records), 3, width_ratios=(1, 1.5, 2.1))
        for row, record in enumerate(records):
            axes = [figure.add_subplot(grid[row, column]) for column in range(3)]
            _draw_image(axes[0], record.pixels, names[row])
            _draw_bars(axes[1], record, truths[row] if truths else None)
            _draw_curves(axes[2], record)
        axes[1].set_xlabel("score")
        axes[2].set_xlabel("timestep t   (noise grows →)")
        figure.suptitle("Which label explains the noise best?", fontsize=13)
        figure.supxlabel(_footer(records), fontsize=8, color=MUTED)
    return figure


def difference_curve(record: Record, c: int) -> Curve:
    """d of class ``c`` against the winner, averaged in bins of equal width in t.

    A bin holds four samples or so; classes that were pruned early have fewer bins.
    """
    t = record.samples.timesteps
    winner = record.errors[record.decision.winner].astype(np.float64)
    d = record.errors[c] - winner
    seen = ~np.isnan(d)
    n_bins = int(np.clip(seen.sum() // 4, 1, N_BINS))
    which = (t * n_bins) // (int(t.max()) + 1)
    points = []
    for b in range(n_bins):
        inside = seen & (which == b)
        if n := int(inside.sum()):
            spread = d[inside].std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
            points.append((t[inside].mean(), d[inside].mean(), spread))
    return Curve(*np.array(points, dtype=float).reshape(-1, 3).T)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure; the file name's ending decides the format."""
    figure.savefig(path, dpi=120)


def check_rows(n: int) -> None:
    """Raise DiffjaxError if ``n`` images do not make a picture."""
    if not 1 <= n <= MAX_ROWS:
        raise DiffjaxError(
            f"A picture shows 1 to {MAX_ROWS} images, not {n}. Plot fewer of them."
        )


def check_output(path: Path) -> None:
    """Try that a picture can be written there, before any work is done.

    Raises:
        DiffjaxError: if it cannot, or the format is unknown.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DiffjaxError(
            f"{path}: a picture's name must end in one of {', '.join(SUFFIXES)}."
        )
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise DiffjaxError(
            f"Cannot write {path}: {error.strerror}. Name a file in an existing "
            "folder that you may write to."
        ) from None
    if not existed:
        path.unlink()


def _draw_image(axes: "Axes", image: Float[np.ndarray, "h w 3"], name: str) -> None:
    axes.imshow(np.clip((image + 1) / 2, 0, 1), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(short(name, 24), fontsize=9, color=MUTED)


def _draw_bars(axes: "Axes", record: Record, truth: str | None) -> None:
    """Scores, best on top; a pruned class is hatched."""
    decision, scores = record.decision, record.scores()[:N_BARS]
    for y, (c, entry) in enumerate(zip(decision.ranking, scores, strict=False)):
        pruned = bool(decision.pruned[c])
        seen = int(decision.n_samples[c])
        after = f"pruned after {seen}" if seen else "not on the shortlist"
        text = after if pruned else ""
        axes.barh(
            y,
            entry["score"],
            height=0.7,
            color="white" if pruned else _colour(y),
            edgecolor=OTHERS if pruned else _colour(y),
            hatch="////" if pruned else None,
        )
        axes.text(
            entry["score"] + 0.02,
            y,
            text or f"{entry['score']:.2f}",
            va="center",
            fontsize=7.5 if pruned else 9,
            color=MUTED if pruned else "black",
        )
    names = [short(entry["label"], 22) for entry in scores]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.12), xticks=[0, 0.5, 1])
    if rest := len(record.labels) - len(names):
        axes.text(
            *(1, 0.02, f"and {rest:,} more"),
            ha="right",
            transform=axes.transAxes,
            fontsize=7.5,
            color=MUTED,
        )
    title, colour = short(record.label, 30), "black"
    if truth is not None:
        right = truth == record.label
        title = f"✓ {title}" if right else short(f"✗ {title} (truth: {truth})", 36)
        colour = RIGHT if right else WRONG
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=colour)


def _draw_curves(axes: "Axes", record: Record) -> None:
    """The winner's line at zero and the next few classes' curves."""
    axes.axhline(0, color=WINNER, linewidth=1.5, label=short(record.label, 18))
    for place, c in enumerate(record.decision.ranking[1 : 1 + len(RIVALS)], start=1):
        curve = difference_curve(record, int(c))
        mean, error = curve.mean / UNIT, curve.standard_error / UNIT
        look: dict[str, Any] = {"color": _colour(place)}
        axes.fill_between(
            curve.timesteps, mean - error, mean + error, alpha=0.18, linewidth=0, **look
        )
        axes.plot(
            curve.timesteps,
            mean,
            marker="o",
            markersize=3,
            linewidth=1.5,
            linestyle="--" if record.decision.pruned[c] else "-",
            label=short(record.labels[c], 18),
            **look,
        )
    axes.set_xlim(0, 1.04 * (int(record.samples.timesteps.max()) + 1))
    axes.set_ylabel("×10⁻³")
    axes.set_title(f"error minus that of “{short(record.label, 24)}”", fontsize=9)
    # beside the curves, never on them
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _colour(rank: int) -> str:
    colours = (WINNER, *RIVALS)
    return colours[rank] if rank < len(colours) else OTHERS


def _footer(records: Sequence[Record]) -> str:
    settings = records[0].settings
    strategy = settings.get("strategy")
    what = strategy_to_text(strategy_from_dict(strategy)) if strategy else ""
    shortlist = settings.get("shortlist")
    listed = shortlist_to_text(shortlist_from_dict(shortlist)) if shortlist else ""
    evaluations = sum(record.evaluations for record in records)
    seconds = sum(record.seconds for record in records)
    known = [
        f"model {settings['model']}" if "model" in settings else "",
        f"strategy {what}" if what else "",
        f"shortlist {listed}" if listed else "",
        few_shot(settings) or "",
        f"loss {loss_name(settings)}" if "loss" in settings else "",
        f"τ = {records[0].temperature:g}",
        f"{evaluations:,} evaluations in {seconds:.1f} s",
    ]
    return "\n".join(filter(None, [" · ".join(filter(None, known)), _marks(records)]))


def _marks(records: Sequence[Record]) -> str:
    """What bands, hatching and dashes stand for, of those that are drawn."""
    decisions = [record.decision for record in records]

    def pruned(first: int, last: int) -> bool:
        return any(d.pruned[d.ranking[first:last]].any() for d in decisions)

    marks = [
        *(["hatched"] if pruned(0, N_BARS) else []),
        *(["dashed"] if pruned(1, 1 + len(RIVALS)) else []),
    ]
    curves = (
        difference_curve(record, int(c)).standard_error
        for record in records
        for c in record.decision.ranking[1 : 1 + len(RIVALS)]
    )
    banded = any(np.isfinite(errors).any() for errors in curves)
    return "; ".join(
        [
            *(["bands: ± one standard error of the mean"] if banded else []),
            *([f"{', '.join(marks)}: pruned early"] if marks else []),
        ]
    )
