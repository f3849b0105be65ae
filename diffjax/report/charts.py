"""The figures of a report, for a page: narrow, and readable on dark and light.

Made without pyplot, so there is no global state. Colours are Okabe and Ito's, which
colour-blind people can tell apart; runs differ by marker too. Figures are about as wide
as a telephone, so that their text keeps its size there; see ``svg`` for the rest.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from diffjax.report.captions import CaptionReport
from diffjax.report.paired import Rate
from diffjax.report.run_report import Calibration, RunReport
from diffjax.runs.evidence import Confusions, ErrorCurve
from diffjax.runs.metrics import wilson
from diffjax.runs.robustness import ALL, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE)  # those with enough contrast on both
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Colours that the page's scheme decides: what is drawn in the light one is replaced by
# the other in the dark. None is used for anything else.
INK, MUTED, GRID, BLACK = "#1a1d21", "#565d66", "#cfd4da", "#000001"
DARK = {INK: "#e9ecef", MUTED: "#aab2bb", GRID: "#454c54", BLACK: "#ffffff"}
FULL = (0.0, 0.34, 0.58)  # a square of the confusion matrix with all of a row

SCORES = {  # of captions and images, and what they are called
    "text": "text",
    "image": "image",
    "group": "group",
    "image_normalised": "image, norm.",
    "group_normalised": "group, norm.",
}

WIDTH = 3.8  # inches, 365 pixels of a page
MATRIX_WIDTH = 5.4
UNIT = 1e-3  # of the error differences, as in ``plots``
LONGEST = 40  # characters of a run's name in a chart
MOST_TICKS = 6  # with numbers of up to five digits
MARGIN = 0.18  # between the end of an interval and its number, in parts of the axis


def accuracy_chart(runs: Sequence[RunReport]) -> "Figure":
    """A bar a run with its 95 % interval: top-1, and top-5 where all have it."""
    metrics = [("acc1", "top-1", BLUE)]
    if all(run.rate("acc5") and int(run.row["candidates"] or 0) > 5 for run in runs):
        metrics.append(("acc5", "top-5", GREEN))
    return _bar_chart(
        [(run.name, [(t, run.rate(m), c) for m, t, c in metrics]) for run in runs],
        "accuracy",
    )


def caption_chart(runs: Sequence[CaptionReport]) -> "Figure":
    """A bar a score of each run, with its 95 % interval; marks where chance is."""
    rows = [
        (run.name, [(SCORES[score], run.rate(score), BLUE) for score in run.scores])
        for run in runs
    ]
    chance = runs[0].chance
    return _bar_chart(rows, "examples that are right", [*chance.values()])


def shift_chart(points: Sequence[Point]) -> "Figure":
    """A bar for a model's clean images and one for each kind of shift, 95 % each."""
    groups: list[tuple[str, list[tuple[str, Rate | None, str]]]] = []
    for p in points:
        if p.shift == ALL:  # the first of each model
            clean = Rate(p.clean, p.clean_low, p.clean_high)
            groups.append((p.model, [("clean", clean, GREEN)]))
        text = "all shifts" if p.shift == ALL else p.shift
        rate = Rate(p.shifted, p.shifted_low, p.shifted_high)
        groups[-1][1].append((text, rate, BLUE))
    return _bar_chart(groups, "accuracy")


def cost_chart(runs: Sequence[RunReport]) -> "Figure":
    """Accuracy against evaluations per image: a point a run; curves where known."""
    with _figure(3.1 + 0.2 * len(runs)) as (figure, axes):
        for number, run in enumerate(runs):
            colour = _colour(number)
            if curve := run.sample_curve:
                x = curve.evaluations
                axes.fill_between(
                    x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0
                )
                axes.plot(x, curve.accuracy, color=colour, linewidth=1.2)
            rate, cost = run.rate("acc1"), run.row["evaluations_per_image"]
            if rate and cost:
                axes.errorbar(
                    float(cost),
                    rate.value,
                    _arms(rate),
                    fmt=MARKERS[number % len(MARKERS)],
                    color=colour,
                    capsize=3,
                    label=ends(run.name, LONGEST),
                )
        axes.set_xscale("log")
        round_ends(axes)
        _percent(axes, "y")
        axes.grid(axis="y")
        axes.set(xlabel="evaluations per image", ylabel="top-1 accuracy")
        figure.legend(loc="outside lower left", frameon=False)
    return figure


def confusion_chart(confusions: Confusions) -> "Figure":
    """The matrix: shade for the part of a class's images, number for their count."""
    counts = np.column_stack([confusions.counts, confusions.elsewhere])
    if not confusions.elsewhere.any():
        counts = counts[:, :-1]
    shades = counts / np.maximum(confusions.totals, 1)[:, None]
    names = [short(name, 16) for name in confusions.names]
    columns = [*names, "all others"][: counts.shape[1]]
    with _figure(1.3 + 0.3 * len(names), width=MATRIX_WIDTH) as (figure, axes):
        axes.hlines(np.arange(len(names) + 1), 0, len(columns), GRID, linewidth=0.6)
        axes.vlines(np.arange(len(columns) + 1), 0, len(names), GRID, linewidth=0.6)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                _cell(axes, row, column, int(count), float(shades[row, column]))
        axes.set_xlim(0, counts.shape[1])
        axes.set_ylim(len(names), 0)
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90)
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="prediction", ylabel="label")
    return figure


def error_chart(curve: ErrorCurve) -> "Figure":
    """The lead of the label over the best other class, by timestep."""
    with _figure(2.9) as (figure, axes):
        axes.axhline(0, color=INK, linewidth=1)
        t, mean = curve.timesteps, curve.mean / UNIT
        ends = (curve.low / UNIT, curve.high / UNIT)
        axes.fill_between(t, *ends, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(t, mean, color=BLUE, marker="o", markersize=4)
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        axes.set(xlabel="timestep t   (noise grows →)", ylabel="error difference ×10⁻³")
    return figure


def calibration_chart(calibrations: Sequence[Calibration]) -> "Figure":
    """Accuracy against scores; on the diagonal scores are probabilities."""
    with _figure(3.5) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
        for number, calibration in enumerate(calibrations):
            bins = calibration.reliability
            seen = bins.counts > 0
            right = np.round(bins.accuracy[seen] * bins.counts[seen]).astype(int)
            rates = [
                Rate(k / n, *wilson(int(k), int(n)))
                for k, n in zip(right, bins.counts[seen], strict=True)
            ]
            axes.errorbar(
                bins.score[seen],
                [rate.value for rate in rates],
                np.concatenate([_arms(rate) for rate in rates], axis=1),
                color=_colour(number),
                marker=MARKERS[number],
                capsize=2,
                linewidth=1.2,
                elinewidth=0.8,
                label=f"τ = {calibration.temperature:.3g}: ECE {bins.ece:.3f}",
            )
        _percent(axes, "x")
        _percent(axes, "y")
        axes.grid()
        axes.set(xlim=(0, 1.02), xlabel="score of the prediction")
        axes.set(ylim=(0, 1.02), ylabel="how many are right")
        figure.legend(loc="outside lower left", frameon=False)
    return figure


def svg(figure: "Figure") -> str:
    """The figure as an SVG file: text as text, colours as the reader's scheme has it.

    The same figure gives the same file: no date, and names of parts from their content.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": "diffjax", "svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    light, dark = [], []
    for number, (colour, other) in enumerate(DARK.items()):
        text = text.replace(colour, f"var(--c{number})")
        light.append(f"--c{number}:{colour}")
        dark.append(f"--c{number}:{other}")
    # the reader's own typeface, which is hardly wider than the one that was measured
    style = (
        f"<style>svg{{{';'.join(light)}}}"
        "text{font-family:system-ui,sans-serif!important}"
        f"@media (prefers-color-scheme:dark){{svg{{{';'.join(dark)}}}}}</style>"
    )
    end = text.index(">") + 1
    return text[:end] + style + text[end:]


def _bar_chart(
    groups: Sequence[tuple[str, Sequence[tuple[str, Rate | None, str]]]],
    xlabel: str,
    marks: Sequence[float] = (),
) -> "Figure":
    """Bars of (text, rate, colour) under the names of their groups.

    Args:
        groups: of as many bars each.
        xlabel: what the rates are.
        marks: a place on each bar of a group, that of chance.
    """
    n = max(len(bars) for _, bars in groups)
    ticks: dict[float, str] = {}
    with _figure(0.75 + len(groups) * (0.32 + 0.26 * n)) as (figure, axes):
        for place, (name, bars) in enumerate(groups):
            top = place * (n + 1.2)
            axes.text(0, top, ends(name, LONGEST), va="center", weight="bold")
            for row, (label, rate, colour) in enumerate(bars, start=1):
                ticks[top + row] = label
                if rate:
                    _bar(axes, top + row, rate, colour)
            for row, mark in enumerate(marks, start=1):
                for end in (top + row - 0.5, top + row + 0.5):  # beside the numbers
                    inner = end + 0.22 * np.sign(top + row - end)
                    axes.vlines(mark, end, inner, color=INK, linewidth=1.2)
        axes.set_ylim(len(groups) * (n + 1.2) - 0.5, -0.7)
        axes.set_yticks([*ticks], [*ticks.values()])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _percent(axes, "x")
        axes.set(xlim=(0, 1 + MARGIN), xlabel=xlabel)
    return figure


def _bar(axes: "Axes", y: float, rate: Rate, colour: str) -> None:
    """A bar from zero, its interval and its number."""
    axes.barh(y, rate.value, height=0.8, color=colour)
    axes.errorbar(rate.value, y, xerr=_arms(rate), color=INK, capsize=3, linewidth=1)
    axes.text(rate.high + 0.02, y, f"{100 * rate.value:.1f}", va="center")


def _arms(rate: Rate) -> Float[np.ndarray, "2 1"]:
    """The lengths of the two arms of an interval."""
    arms = [rate.value - rate.low, rate.high - rate.value]
    return np.maximum(arms, 0)[:, None]


def _cell(axes: "Axes", row: int, column: int, count: int, rate: float) -> None:
    """A square, fuller for larger rates; small ones are lifted, to be seen."""
    from matplotlib.patches import Rectangle

    alpha = float(np.sqrt(rate))
    corner = (column + 0.02, row + 0.02)
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=FULL, alpha=alpha))
    # On light paper the one with more contrast, at least 4.5 : 1; on dark paper both
    # are white, since no square is light there.
    on_white = 1 + alpha * (np.array(FULL) - 1)
    colour = "white" if _luminance(on_white) < 0.179 else BLACK
    text = axes.text(column + 0.5, row + 0.5, f"{count:,}", color=colour, fontsize=7)
    text.set(ha="center", va="center")


def _luminance(colour: Float[np.ndarray, "3"]) -> float:
    """Relative luminance, as WCAG defines it."""
    linear = np.where(
        colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4
    )
    return float(linear @ [0.2126, 0.7152, 0.0722])


@contextmanager
def _figure(height: float, width: float = WIDTH) -> "Iterator[tuple[Figure, Axes]]":
    """A figure and the style to draw it in."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {
        "font.size": 9,
        "font.sans-serif": ["DejaVu Sans"],  # for its widths; pages use their own
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # a name may hold dollar signs
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
    }
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _percent(axes: "Axes", which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1, decimals=None))


def round_ends(axes: "Axes") -> None:
    """A logarithmic x axis between round numbers, which are written.

    They are 1, 2 or 5 times a power of ten; of many, powers of ten alone.
    """
    low, high = (float(end) for end in axes.dataLim.intervalx)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)) - 1, np.log10(high) + 2)
    steps = (powers[:, None] * [1, 2, 5]).ravel()
    first = np.searchsorted(steps, low * 1.001, side="right") - 1
    last = np.searchsorted(steps, high / 1.001)
    if first == last:
        first, last = first - 1, last + 1
    ticks = steps[first : last + 1]
    axes.set_xlim(min(ticks[0], low / 1.08), max(ticks[-1], high * 1.08))
    if len(ticks) > MOST_TICKS:
        ticks = powers[(powers >= ticks[0]) & (powers <= ticks[-1])]
    axes.set_xticks(ticks, [_plain(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def short(text: str, width: int) -> str:
    """Printable text, cut to a width."""
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def ends(name: str, width: int) -> str:
    """Printable text, cut in its middle: names of runs may differ by their end."""
    text = printable(name)
    tail = (width - 1) // 2
    if len(text) <= width:
        return text
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def printable(text: str) -> str:
    """Text without what cannot be printed, and would spoil an SVG."""
    return "".join(
        c
        if c.isprintable() or c == "\N{NO-BREAK SPACE}"
        else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def parts(text: str) -> list[str]:
    """A text, cut where a line of it may end besides spaces: after - _ / : . , =.

    A strategy is cut between its settings. Numbers stay whole, with their signs and
    exponents.
    """
    if ":" in text and "=" in text:
        return re.split("(?<=:)", text)
    ends = r"(?<=[^\W\d][-_/:.,=])(?<!\de-)(?=\w)|(?<=\d[-_/:=])(?=[^\W\d])"
    return re.split(ends, text)
