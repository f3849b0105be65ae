"""A report in words and tables: what each chart shows, for those who do not see it.

A table is (caption, header, rows of text); ``percent`` and ``span`` are the only places
that turn proportions into text.
"""

from collections.abc import Sequence

import numpy as np

from diffjax.report.charts import UNIT, short
from diffjax.report.compare import Calibration, Group, Rate, RunReport
from diffjax.runs.evidence import (
    Confusions,
    ErrorCurve,
    Mistake,
    SampleCurve,
)

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]

NAME = 60  # characters of a name within a sentence
MOST = 6  # runs that a sentence lists
NOTHING = "—"
INTERVAL = "95\N{NO-BREAK SPACE}% interval"
NO_SAMPLE_CURVE = (
    "How accuracy grows with the samples is known of runs made with --save-errors and "
    "--strategy exhaustive."
)
NO_CALIBRATION = (
    "No label is among the candidate classes, so there is nothing to calibrate on."
)
FOOTER = (
    "Intervals cover 95 %: Wilson's for proportions, a normal approximation for means. "
    "A score is the softmax of −Δ/τ, with Δ the paired difference of a class's error "
    "to that of the predicted class, and τ the temperature."
)


def lead(group: Group) -> str:
    """A sentence: the best run about some data."""
    known = [(run.name, rate) for run in group.runs if (rate := run.rate("acc1"))]
    name, rate = max(known, key=lambda each: each[1].value)
    who = f"{short(name, NAME)} classifies"
    if len(known) > 1:
        who = f"of {len(known)} runs, {short(name, NAME)} is the most accurate, with"
    return f"{group.title}: {who} {rate_text(rate)} of the images correctly."


def comparison_table(group: Group) -> Table:
    """A row a run: what it is, how good, at what cost."""
    first = short(group.runs[0].name, 24)
    header = ["run", "top-1 %", "top-5 %", "mean per class %"]
    header += [f"points above {first}"] if len(group.runs) > 1 else []
    header += ["images", "evaluations per image", "seconds per image", "ECE", "NLL"]
    header += ["model", "strategy", "loss"]
    rows = []
    for run in group.runs:
        row = run.row
        metrics = ("acc1", "acc5", "mean_per_class_recall")
        cells = [run.name, *(interval_text(run.rate(metric)) for metric in metrics)]
        cells += [difference_text(run)] if len(group.runs) > 1 else []
        cells += [images_text(run), _number(row["evaluations_per_image"], ",.0f")]
        cells += [_number(row["seconds_per_image"], ",.3g")]
        cells += [_number(row["ece"], ".3f"), _number(row["nll"], ".3f")]
        cells += [str(row["model"]), _strategy(run), str(row["loss"])]
        rows.append(cells)
    caption = f"Runs on {group.title}; in brackets: {INTERVAL}"
    return caption, header, rows


def run_summary(run: RunReport) -> str:
    """A few sentences about one run."""
    row, rate = run.row, run.rate("acc1")
    model = f"Model {row['model']}, {row['candidates']:,} candidate classes"
    parts = [f"{model}, strategy {_strategy(run)}, loss {row['loss']}."]
    if rate:
        parts.append(f"{rate_text(rate)} of {row['images']:,} images are correct.")
    if recall := run.rate("prefilter_recall"):
        left = _number(row["prefilter_classes_per_image"], ",.1f")
        parts.append(
            f"The prefilter {row['prefilter']} left {left} classes an image, and the "
            f"label among them for {rate_text(recall)} of the images."
        )
    if row["status"] != "complete":
        parts.append(
            f"The run is to do {row['images_selected']:,} and is {row['status']}."
        )
    if row["failed_images"]:
        parts.append(f"{row['failed_images']:,} failed and are not counted.")
    return " ".join(parts)


def losses_table(run: RunReport) -> Table:
    """Accuracy by each loss that was evaluated along."""
    rates = {f"{run.row['loss']} (decided)": run.rate("acc1"), **run.other_losses}
    rows = [(loss, interval_text(rate)) for loss, rate in rates.items()]
    return f"Top-1 accuracy of {run.name} by loss, in %", ("loss", "top-1 %"), rows


def accuracy_table(runs: Sequence[RunReport]) -> Table:
    """The numbers of the accuracy chart."""
    header = ("run", "top-1 %", "top-5 %", "mean per class %")
    metrics = ("acc1", "acc5", "mean_per_class_recall")
    rows: list[Sequence[str]] = [
        (run.name, *(interval_text(run.rate(metric)) for metric in metrics))
        for run in runs
    ]
    return f"Accuracy; in brackets: {INTERVAL}", header, rows


def accuracy_finding(runs: Sequence[RunReport]) -> str:
    """Every run's accuracy."""
    return f"Bar chart of top-1 accuracy. {_each_rate(runs)}"


def cost_table(runs: Sequence[RunReport]) -> Table:
    """The points of the cost chart."""
    rows = [
        (
            run.name,
            _number(run.row["evaluations_per_image"], ",.0f"),
            interval_text(run.rate("acc1")),
        )
        for run in runs
    ]
    header = ("run", "evaluations per image", "top-1 %")
    return f"Accuracy and cost; in brackets: {INTERVAL}", header, rows


def cost_finding(runs: Sequence[RunReport]) -> str:
    """Accuracy at each run's cost, and what the curves reach."""
    points = [
        f"{short(run.name, NAME)}: {percent(rate.value)} at {cost:,.0f} evaluations"
        for run in runs[:MOST]
        if (rate := run.rate("acc1"))
        and (cost := run.row["evaluations_per_image"]) is not None
    ]
    curves = []
    for run in runs[:MOST]:
        if curve := run.sample_curve:
            place = int(np.argmax(curve.accuracy >= 0.95 * curve.accuracy[-1]))
            curves.append(
                f"{short(run.name, NAME)} reaches {percent(curve.accuracy[place])} "
                f"after {curve.evaluations[place]:,} evaluations and "
                f"{percent(curve.accuracy[-1])} after {curve.evaluations[-1]:,}."
            )
    return " ".join(
        [f"Top-1 accuracy against evaluations per image. {'; '.join(points)}.", *curves]
    )


def sample_table(name: str, curve: SampleCurve) -> Table:
    """The points of a run's curve of accuracy after fewer samples."""
    columns = (curve.accuracy, curve.low, curve.high)
    rates = [Rate(*map(float, point)) for point in zip(*columns, strict=True)]
    rows = [
        (f"{n:,}", f"{evaluations:,}", interval_text(rate))
        for n, evaluations, rate in zip(
            curve.n_samples, curve.evaluations, rates, strict=True
        )
    ]
    header = ("samples", "evaluations per image", "top-1 %")
    caption = f"{name}: accuracy after fewer samples, on {curve.images:,} images"
    return caption, header, rows


def confusion_table(confusions: Confusions) -> Table:
    """The matrix."""
    others = bool(confusions.elsewhere.any())
    header = ["label", *confusions.names, *(["all others"] if others else []), "images"]
    rows: list[Sequence[str]] = []
    for name, counts, elsewhere, total in zip(
        confusions.names,
        confusions.counts,
        confusions.elsewhere,
        confusions.totals,
        strict=True,
    ):
        cells = [*counts, *([elsewhere] if others else []), total]
        rows.append([name, *(f"{cell:,}" for cell in cells)])
    return "Images by label (row) and prediction (column)", header, rows


def pairs_table(confusions: Confusions) -> Table:
    """The most frequent mistakes."""
    rows = [(label, taken, f"{n:,}") for label, taken, n in confusions.pairs]
    header = ("label", "taken for", "images")
    return "Most frequent mistakes", header, rows


def confusion_finding(confusions: Confusions) -> str:
    """The most frequent mistakes."""
    start = "Confusion matrix."
    if not confusions.pairs:
        return f"{start} There is no mistake."
    pairs = [
        f"{short(label, NAME)} taken for {short(taken, NAME)}, {n:,} times"
        for label, taken, n in confusions.pairs[:3]
    ]
    return f"{start} Most frequent: {'; '.join(pairs)}."


def error_table(curve: ErrorCurve) -> Table:
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


def error_finding(curve: ErrorCurve) -> str:
    """Where the label is ahead."""
    best = int(np.argmax(curve.mean))
    ahead, behind = int((curve.low > 0).sum()), int((curve.high < 0).sum())
    text = (
        "Difference of errors over the timestep. It is largest around t = "
        f"{curve.timesteps[best]:.0f}, with {curve.mean[best] / UNIT:.2g}×10⁻³. The "
        f"label is ahead with its whole interval in {ahead} of {len(curve.mean)} bins"
    )
    return f"{text}, and behind in {behind}."


def error_caption(run: RunReport) -> str:
    """How to read the error chart."""
    text = (
        "By how much the label's error is below that of the best other class, on the "
        "same noise; above zero the label is ahead. Line: mean over images; band: its "
        "95 % interval. The other class is the best by these very errors, so a label "
        "that is no better than others lies below zero."
    )
    if run.sample_curve is None:
        text += " Where classes were dropped, only the samples that both saw count."
    return text


def no_error_curve(run: RunReport) -> str:
    """Why there is none, and what would give one."""
    if run.has_errors:
        return "No label is among the candidate classes, so there is no curve."
    return (
        "The errors of this run were not saved. `diffjax evaluate --save-errors` keeps "
        "them."
    )


def calibration_table(calibration: Calibration) -> Table:
    """The bins of the calibration chart that hold images."""
    bins = calibration.reliability
    rows: list[Sequence[str]] = [
        (
            f"{bins.edges[b]:.2f} to {bins.edges[b + 1]:.2f}",
            percent(bins.confidence[b]),
            percent(bins.accuracy[b]),
            f"{bins.counts[b]:,}",
        )
        for b in np.flatnonzero(bins.counts)
    ]
    header = ("score", "mean score", "correct", "images")
    caption = f"Scores at τ = {calibration.temperature:.3g}, ECE {bins.ece:.3f}"
    return caption, header, rows


def calibration_finding(calibrations: Sequence[Calibration]) -> str:
    """Whether scores are too high or too low, and by how much."""
    parts = []
    for calibration in calibrations:
        bins = calibration.reliability
        seen, weights = bins.counts > 0, bins.counts / bins.counts.sum()
        score = float((bins.confidence * weights)[seen].sum())
        right = float((bins.accuracy * weights)[seen].sum())
        much = "too high" if score > right else "too low"
        parts.append(
            f"At temperature {calibration.temperature:.3g} scores are {much}: "
            f"{percent(score)} on average, where {percent(right)} are right; "
            f"expected calibration error {bins.ece:.3f}."
        )
    return f"Reliability diagram. {' '.join(parts)}"


def mistakes_lead(run: RunReport) -> str:
    """What the list of mistakes is."""
    wrong = sum(mistake.thumbnail is None for mistake in run.mistakes)
    text = "The wrong predictions with the highest scores, which stand in brackets."
    if wrong:
        text += (
            " Pictures are missing where the run holds none; `diffjax evaluate` saves "
            "them with each mistake."
        )
    return text


def mistake_terms(mistake: Mistake) -> list[tuple[str, str]]:
    """What is said of a mistake, as terms and values."""
    own = "no candidate"
    if mistake.label_score is not None:
        own = score_text(mistake.label_score)
    terms = [
        ("predicted", f"{mistake.prediction} ({score_text(mistake.score)})"),
        ("label", f"{mistake.label} ({own})"),
    ]
    if mistake.margin is not None:
        margin = f"{mistake.margin / UNIT:.3f}"
        if mistake.margin_error is not None:
            margin += f" ± {mistake.margin_error / UNIT:.3f}"
        terms.append(("margin ×10⁻³", margin))
    return terms


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
    if rate is None:
        return NOTHING
    value, low, high = map(signed, rate)
    return f"{value} ({low} to {high})"


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


def _each_rate(runs: Sequence[RunReport]) -> str:
    parts = [
        f"{short(run.name, NAME)}: {rate_text(rate)}"
        for run in runs[:MOST]
        if (rate := run.rate("acc1"))
    ]
    more = f"; and {len(runs) - MOST} more" if len(runs) > MOST else ""
    return f"{'; '.join(parts)}{more}."


def _strategy(run: RunReport) -> str:
    weights = run.row["weights"]
    extra = f", weights {weights}" if weights else ""
    if prefilter := run.row["prefilter"]:
        extra += f", prefilter {prefilter}"
    return f"{run.row['strategy'] or 'unknown'}{extra}"


def _number(value: str | int | float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
