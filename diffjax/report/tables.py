"""A report's tables, and how its numbers are written.

A table is (caption, header, rows of text).
"""

from collections.abc import Sequence

import numpy as np

from diffjax.report.captions import CaptionReport, rate_of
from diffjax.report.charts import SCORES, UNIT, short
from diffjax.report.compare import Group
from diffjax.report.crosstable import Cell, CrossTable
from diffjax.report.paired import Rate
from diffjax.report.run_report import Calibration, RunReport
from diffjax.runs.evidence import Confusions, ErrorCurve, SampleCurve
from diffjax.runs.metrics import ECE_KIND
from diffjax.runs.robustness import ALL, Point

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]

NOTHING = "—"
INTERVAL = "95\N{NO-BREAK SPACE}% interval"
N_FAILURES = 50
ACCURACIES = ("run", "top-1 %", "top-5 %", "mean per class %")


def comparison(group: Group) -> Table:
    """A row a run: how good it is, against the first, at what cost, and what it is."""
    several = len(group.runs) > 1
    first = next((run.name for run in group.runs if run.accuracy), "")
    header = ["run", "top-1 %"]
    header += [f"points above {short(first, 24)}", "p"] if several else []
    header += ["images", "evaluations per image"]
    header += ["model", "strategy", "loss"]
    rows = []
    for run in group.runs:
        row = run.row
        cells = [run.name, interval_text(run.accuracy)]
        cells += [difference_text(run), p_text(run)] if several else []
        cells += [images_text(run), number(row["evaluations_per_image"], ",.0f")]
        cells += [str(row["model"]), strategy(run), str(row["loss"] or NOTHING)]
        rows.append(cells)
    caption = f"Runs on {group.title}; in brackets: {INTERVAL}"
    if several:
        caption += "; p: McNemar’s exact test of the same images"
    return caption, header, rows


def other_metrics(group: Group) -> Table:
    """A row a run: the other metrics, and its time."""
    header = ("run", *ACCURACIES[2:], "ECE", "NLL", "seconds per image")
    rows = [
        (
            run.name,
            *_accuracies(run)[2:],
            number(run.row["ece"], ".3f"),
            number(run.row["nll"], ".3f"),
            number(run.row["seconds_per_image"], ",.3g"),
        )
        for run in group.runs
    ]
    return f"Other metrics; in brackets: {INTERVAL}; ECE: {ECE_KIND}", header, rows


def narrowed(group: Group) -> Table | None:
    """A row a run that chose among few classes of many; None if none did."""
    rows = [
        (
            run.name,
            str(run.row[way]),
            number(run.row[f"{way}_classes_per_image"], ",.1f"),
            interval_text(run.rate(f"{way}_recall")),
            interval_text(run.accuracy),
            number(run.row["evaluations_per_image"], ",.0f"),
            number(run.row["flops_per_image"], ".3g"),
            number(run.row["prefilter_flops"], ".3g"),
        )
        for run in group.runs
        for way in ("prefilter", "shortlist")
        if run.rate(f"{way}_recall")
    ]
    header = (
        *("run", "chosen by", "classes left", "label among them %", "top-1 %"),
        *("evaluations per image", "FLOPs per image", "of these, prefilter"),
    )
    caption = f"Few classes of many, chosen first; in brackets: {INTERVAL}"
    return (caption, header, rows) if rows else None


def captions(runs: Sequence[CaptionReport]) -> Table:
    """A row a run of captions and images: its scores, and what it is."""
    scores = runs[0].scores
    header = ("run", *(f"{SCORES[score]} %" for score in scores), "examples", "model")
    rows = [
        (
            run.name,
            *(interval_text(run.rate(score)) for score in scores),
            number(run.row["images"]),
            str(run.row["model"]),
        )
        for run in runs
    ]
    return f"Scores; in brackets: {INTERVAL}", header, rows


def tags(run: CaptionReport) -> Table:
    """A row a tag of the examples, the first for all."""
    scores = run.scores
    header = ("examples", "n", *(f"{SCORES[score]} %" for score in scores))
    rows = [
        (tag, f"{entry['n']:,}", *(interval_text(rate_of(entry, s)) for s in scores))
        for tag, entry in run.tags
    ]
    rows += [
        (f"{name}, mean of {mean['tags']} tags", "", f"{100 * mean['score']:.1f}")
        for name, mean in run.summary.get("mean_over_tags", {}).items()
    ]
    return f"Scores by tag; in brackets: {INTERVAL}", header, rows


def shifts(points: Sequence[Point]) -> Table:
    """A row a model and kind of shift."""
    header = ("model", "shift", "shifted %", "clean %", "effective", "images", "shifts")
    rows = [
        (
            p.model,
            "all" if p.shift == ALL else p.shift,
            interval_text(Rate(p.shifted, p.shifted_low, p.shifted_high)),
            interval_text(Rate(p.clean, p.clean_low, p.clean_high)),
            effective_text(p),
            f"{p.images:,}",
            f"{p.shifts:,}",
        )
        for p in points
    ]
    return f"Accuracy under shift; in brackets: {INTERVAL}", header, rows


def effective_text(point: Point) -> str:
    """Percentage points above the discriminative models' line, if there is one."""
    ends = (point.effective, point.effective_low, point.effective_high)
    known = [end for end in ends if end is not None]
    return _points(Rate(*known)) if len(known) == len(ends) else NOTHING


class Best(str):
    """A cell that stands out."""


def cross(table: CrossTable) -> Table:
    """A row a model, a column a data set."""
    ranked = any(rank is not None for rank in table.ranks)
    header = ("model", *table.columns, *(["mean rank"] if ranked else []))
    rows = [
        [
            name,
            *(cross_cell(cell) for cell in cells),
            *([NOTHING if rank is None else f"{rank:.2f}"] if ranked else []),
        ]
        for name, cells, rank in zip(table.rows, table.cells, table.ranks, strict=True)
    ]
    return f"Top-1 accuracy in %; in brackets: {INTERVAL}", header, rows


def cross_cell(cell: Cell | None) -> str:
    """An accuracy with its interval; a ``Best`` where it is the best."""
    text = interval_text(cell.rate if cell else None)
    return Best(text) if cell and cell.best else text


def losses(run: RunReport) -> Table:
    """Accuracy by each loss that was evaluated along."""
    rates = {f"{run.row['loss']} (decided)": run.rate("acc1"), **run.other_losses}
    rows = [(loss, interval_text(rate)) for loss, rate in rates.items()]
    return f"Top-1 accuracy of {run.name} by loss, in %", ("loss", "top-1 %"), rows


def accuracy(runs: Sequence[RunReport]) -> Table:
    """The numbers of the accuracy chart."""
    return f"Accuracy; in brackets: {INTERVAL}", ACCURACIES, [*map(_accuracies, runs)]


def _accuracies(run: RunReport) -> list[str]:
    """The cells of ``ACCURACIES``."""
    metrics = ("acc1", "acc5", "mean_per_class_recall")
    return [run.name, *(interval_text(run.rate(metric)) for metric in metrics)]


def cost(runs: Sequence[RunReport]) -> Table:
    """The points of the cost chart."""
    costs = [number(run.row["evaluations_per_image"]) for run in runs]
    rows = [
        (run.name, cost, interval_text(run.rate("acc1")))
        for run, cost in zip(runs, costs, strict=True)
    ]
    header = ("run", "evaluations per image", "top-1 %")
    return f"Accuracy and cost; in brackets: {INTERVAL}", header, rows


def samples(name: str, curve: SampleCurve) -> Table:
    """The points of a run's curve of accuracy after fewer samples."""
    rates = map(Rate, curve.accuracy, curve.low, curve.high)
    columns = (curve.n_samples, curve.evaluations, rates)
    rows = [
        (f"{n:,}", f"{evaluations:,}", interval_text(rate))
        for n, evaluations, rate in zip(*columns, strict=True)
    ]
    header = ("samples", "evaluations per image", "top-1 %")
    caption = f"{name}: accuracy after fewer samples, on {curve.images:,} images"
    return caption, header, rows


def confusions(confusions: Confusions) -> Table:
    """The matrix."""
    others = bool(confusions.elsewhere.any())
    header = ["label", *confusions.names, *(["all others"] if others else []), "images"]
    shown = [confusions.counts, *([confusions.elsewhere] if others else [])]
    table = np.column_stack([*shown, confusions.totals])
    rows = [
        [name, *(f"{cell:,}" for cell in cells)]
        for name, cells in zip(confusions.names, table, strict=True)
    ]
    return "Images by label (row) and prediction (column)", header, rows


def pairs(confusions: Confusions) -> Table:
    """The most frequent mistakes."""
    rows = [(label, taken, f"{n:,}") for label, taken, n in confusions.pairs]
    header = ("label", "taken for", "images")
    return "Most frequent mistakes", header, rows


def errors(curve: ErrorCurve) -> Table:
    """The points of the error chart."""
    columns = (curve.timesteps, curve.mean, curve.low, curve.high, curve.images)
    rows: list[Sequence[str]] = [
        (
            f"{t:.0f}",
            f"{mean / UNIT:+.3f}",
            f"{low / UNIT:+.3f} to {high / UNIT:+.3f}" if low == low else NOTHING,
            f"{n:,}",
        )
        for t, mean, low, high, n in zip(*columns, strict=True)
    ]
    header = ("timestep", "difference ×10⁻³", f"{INTERVAL} ×10⁻³", "images")
    caption = "By how much the label's error is below the best other class's"
    return caption, header, rows


def calibration(calibration: Calibration) -> Table:
    """The bins of the calibration chart that hold images."""
    bins = calibration.reliability
    rows: list[Sequence[str]] = [
        (
            f"{bins.edges[b]:.2f} to {bins.edges[b + 1]:.2f}",
            percent(bins.score[b]),
            percent(bins.accuracy[b]),
            f"{bins.counts[b]:,}",
        )
        for b in np.flatnonzero(bins.counts)
    ]
    header = ("score", "mean score", "correct", "images")
    caption = (
        f"Scores at τ = {calibration.temperature:.3g}, ECE {bins.ece:.3f} ({ECE_KIND})"
    )
    return caption, header, rows


def failures(failed: Sequence[tuple[str, str]]) -> Table:
    """The images that failed, and why."""
    n = len(failed)
    more = f" (the first {N_FAILURES} of {n:,})" if n > N_FAILURES else ""
    header = ("image", "what went wrong")
    return f"Images that failed{more}", header, failed[:N_FAILURES]


def percent(value: float) -> str:
    """A proportion: 71.3 %."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def score_text(score: float) -> str:
    """A score with three digits, or what little it is."""
    return f"{score:.3f}" if score >= UNIT else "<\N{NO-BREAK SPACE}0.001"


def interval_text(rate: Rate | None) -> str:
    """A proportion and its interval in %, as in tables: 71.3 (70.1–72.5)."""
    if rate is None:
        return NOTHING
    value, low, high = (100 * number for number in rate)
    return f"{value:.1f} ({low:.1f}–{high:.1f})"


def rate_text(rate: Rate) -> str:
    """A proportion and its interval, as in sentences."""
    low, high = 100 * rate.low, 100 * rate.high
    return f"{percent(rate.value)} ({INTERVAL} {low:.1f} to {high:.1f})"


def difference_text(run: RunReport) -> str:
    """Percentage points to the first run, paired: +1.2 (−0.3 to +2.7)."""
    rate = run.rate("difference")
    return NOTHING if rate is None else _points(rate)


def _points(difference: Rate) -> str:
    value, low, high = map(signed, difference)
    return f"{value} ({low} to {high})"


def p_text(run: RunReport) -> str:
    """The p of a run's difference to the first: 0.42."""
    p = run.row.get("difference_p")
    if p is None:
        return NOTHING
    return f"{float(p):.2g}" if float(p) >= 0.001 else "<\N{NO-BREAK SPACE}0.001"


def signed(difference: float) -> str:
    """A difference of proportions in percentage points, with its sign: −1.2."""
    number = f"{100 * difference:+.1f}"
    return "0.0" if float(number) == 0 else number.replace("-", "−")


def images_text(run: RunReport) -> str:
    """How many images are done, and whether all are."""
    row = run.row
    failed = f", {row['failed_images']:,} failed" if row["failed_images"] else ""
    if row["status"] == "complete":
        return f"{row['images']:,}{failed}"
    return f"{row['images']:,}{failed} of {row['images_selected']:,}, {row['status']}"


def strategy(run: RunReport) -> str:
    """How a run chose what to evaluate, and how it weighted that."""
    weights = run.row["weights"]
    extra = f", weights {weights}" if weights else ""
    if seen := run.row["few_shot"]:
        extra += f", {seen}"
    if prefilter := run.row["prefilter"]:
        extra += f", prefilter {prefilter}"
    if shortlist := run.row["shortlist"]:
        extra += f", shortlist {shortlist}"
    return f"{run.row['strategy'] or NOTHING}{extra}"


def number(value: object, form: str = ",.0f") -> str:
    """A number as its format has it, or a dash where it is not known."""
    return NOTHING if value is None else format(value, form)
