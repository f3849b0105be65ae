"""Tables for the terminal: one image's ranking, the demo's summary, the models."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.text import Text

from diffjax.checkpoints.catalog import Model
from diffjax.classify.record import Record
from diffjax.classify.samples import few_shot
from diffjax.cli.columns import Column, FittingTable
from diffjax.report.plots import UNIT

if TYPE_CHECKING:
    from diffjax.runs.published import Standing
    from diffjax.runs.robustness import Point

NOTHING = "—"


def ranking_table(record: Record, name: str, *, top: int = 10) -> RenderableType:
    """Show one image's classes, best first, with what the ranking rests on.

    Args:
        record: What is known of the image.
        name: What the image is called.
        top: How many classes to show.
    """
    decision = record.decision
    means, errors = record.differences()
    title = Text.assemble((name, "bold"), " → ", (record.label, "bold green"))
    table = FittingTable(
        columns=(
            Column(title="#", style="dim", goes=1),
            Column(title="label"),
            Column(title="score"),
            Column(bar=True),
            Column(title="Δ ×10⁻³", goes=2),
            Column(title="samples", goes=4),
            Column(style="dim", justify="left", goes=3),
        ),
        key=1,
    )
    scores = record.scores()[:top]
    for rank, (c, entry) in enumerate(zip(decision.ranking, scores, strict=False)):
        pruned = bool(decision.pruned[c])
        table.add_row(
            str(rank + 1),
            entry["label"],
            score_text(entry["score"], pruned),
            Bar(1.0, 0, entry["score"], color=_colour(rank, pruned)),
            difference_text(means[c], errors[c]) if rank else "0",
            str(decision.n_samples[c]),
            _fate(pruned, int(decision.n_samples[c])),
            style="bold" if rank == 0 else "dim" if pruned else "",
        )
    lines: list[RenderableType] = [title, table]
    if rest := len(record.labels) - len(scores):
        lines.append(Text(f"… and {rest:,} more", style="dim"))
    cost = f"{record.evaluations:,} evaluations in {record.seconds:.1f} s"
    if record.confidence is not None and record.settings.get("strategy", {}).get(
        "budget"
    ):  # which may have stopped the race before it was as sure as it should be
        cost += f", {record.confidence:.0%} sure that all samples would decide alike"
    seen = few_shot(record.settings)
    lines.append(Text(f"{cost}{f'; {seen}' if seen else ''}", style="dim"))
    return Group(*lines)


def legend(record: Record, asked: float | str | None) -> Text:
    """Say in one line what scores and Δ are.

    Args:
        record: Of one of the images.
        asked: The temperature that was asked for: a number, or the calibrated run that
            has it.
    """
    if isinstance(asked, str):
        what = f"fitted on {asked}"
    elif record.calibrated:
        what = "fitted to labels, as it comes with the model"
    else:
        what = "scores are not calibrated"
    return Text(
        "Δ: paired error difference to the class that is best on the samples seen "
        "± standard error. "
        f"score: softmax of −Δ/τ, τ = {record.temperature:.3g}; {what}. "
        "Times of the first images hold compilation.",
        style="dim",
    )


def score_text(score: float, pruned: bool) -> str:
    """Write a score; one that rests on a pruned class's few samples says "about"."""
    return f"{'≈' if pruned else ''}{score:.3f}"


def difference_text(mean: float, standard_error: float) -> str:
    """Write Δ ± its standard error, in units of ``UNIT``."""
    if not np.isfinite(mean):
        return "unknown"
    error = f"{standard_error / UNIT:.2f}" if np.isfinite(standard_error) else "?"
    return f"{mean / UNIT:+.2f} ± {error}"


def demo_table(rows: Iterable[tuple[str, str, Record]]) -> RenderableType:
    """Show the demo's images: name, truth, prediction, and what it took."""
    rows = list(rows)
    table = FittingTable(
        columns=(
            Column(title="image"),
            Column(title="truth", justify="left", goes=1),
            Column(title="prediction", justify="left"),
            Column(title="score", goes=2),
            Column(bar=True),
            Column(title="evals", style="dim", goes=3),
            Column(title="time", style="dim", goes=4),
        )
    )
    for name, truth, record in rows:
        right = record.label == truth
        colour = "green" if right else "red"
        score = record.scores()[0]["score"]
        table.add_row(
            name,
            truth,
            Text(f"{'✓' if right else '✗'} {record.label}", style=colour),
            f"{score:.3f}",
            Bar(1.0, 0, score, color=colour),
            f"{record.evaluations:,}",
            f"{record.seconds:.1f} s",
        )
    n_right = sum(record.label == truth for _, truth, record in rows)
    return Group(table, Text(f"{n_right} of {len(rows)} right", style="bold"))


def models_table(models: Sequence[Model]) -> RenderableType:
    """Show what ``--model`` knows by name."""
    # an id is there to be copied: it stays in one piece
    longest = max(len(model.hub_id or "") for model in models)
    what = "Hugging Face id, licence, note"
    table = FittingTable(
        columns=(
            Column(title="name", style="bold"),
            Column(title="kind", justify="left", goes=2),
            Column(title="px", goes=4),
            Column(title="weights", goes=3),
            Column(title=what, justify="left", wraps=True, least=longest, goes=1),
        )
    )
    for model in models:
        table.add_row(
            model.name,
            model.kind,
            str(model.resolution),
            count_text(model.total_parameters),
            Text.assemble(
                *([] if model.hub_id is None else [f"{model.hub_id}\n"]),
                (f"{model.licence}; {model.note}", "dim"),
            ),
        )
    return Group(
        table,
        Text(
            "kind text: any labels, through prompts; class: the model's own classes. "
            "px: pixels along an edge.\n"
            "--model also takes a folder in the diffusers layout, or the Hugging Face "
            "id of such a model.",
            style="dim",
        ),
    )


def count_text(n: int) -> str:
    """Write a number of parameters with three digits: 866 M."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return str(n)


def _fate(pruned: bool, n_samples: int) -> str:
    if not pruned:
        return ""
    return "pruned" if n_samples else "not listed"


def _colour(rank: int, pruned: bool) -> str:
    return "green" if rank == 0 else "bright_black" if pruned else "blue"


def summary_table(summary: Mapping[str, Any]) -> RenderableType:
    """Show what a finished run found."""
    table = _facts()
    for metric, value in summary["metrics"].items():
        if value is None:
            continue
        interval = summary["intervals"].get(metric)
        if interval is None:
            note = summary.get("ece_kind", "") if metric == "ece" else ""
            table.add_row(metric, f"{value:.3f}", note)
        else:
            low, high = interval
            table.add_row(
                metric, f"{value:.1%}", f"95 %: {100 * low:.1f} to {100 * high:.1f}"
            )
    rest = ""
    if summary["status"] != "complete":
        rest = f"of {summary['images_selected']:,}; {summary['status']}"
    table.add_row("images", f"{summary['images']:,}", rest)
    if summary["failed_images"]:
        table.add_row("failed", f"{summary['failed_images']:,}", "")
    if seen := summary.get("few_shot"):
        how, _, where = seen.partition(" ")
        table.add_row("labels seen", how, where)
    for way in ("prefilter", "shortlist"):
        if filtered := summary.get(way):
            low, high = filtered["recall_interval"] or (0.0, 1.0)
            table.add_row(
                way,
                f"{filtered['recall']:.1%}" if filtered["recall"] is not None else "",
                f"of labels left; 95 %: {100 * low:.1f} to {100 * high:.1f}",
            )
    if summary["evaluations_per_image"] is not None:
        table.add_row(
            "evaluations", f"{summary['evaluations_per_image']:,.0f}", "an image"
        )
        if flops := summary.get("flops_per_image"):
            own = summary.get("prefilter", {}).get("flops")
            share = f"; the prefilter's {own / flops:.1%} of them" if own else ""
            table.add_row("FLOPs", f"{flops:.3g}", f"an image{share}")
        table.add_row("seconds", f"{summary['seconds_per_image']:.2f}", "an image")
    title = Text(f"{summary['dataset']} · {summary['model']}", style="bold")
    return Group(title, table)


def _facts() -> FittingTable:
    """A table of names, numbers, and what is to be said of these."""
    return FittingTable(
        columns=(
            Column(style="dim"),
            Column(style="bold"),
            Column(style="dim", justify="left", wraps=True, least=8, goes=1),
        ),
        header=False,
    )


MOST_TAGS = 60  # lines of a table


def winoground_table(summary: Mapping[str, Any]) -> RenderableType:
    """Show scores overall, by collapsed tag and by tag, in percent with intervals."""
    names = {  # and how early they go
        "text": ("text", 0),
        "image": ("image", 4),
        "group": ("group", 3),
        "image_normalised": ("image,\nnorm.", 2),
        "group_normalised": ("group,\nnorm.", 1),
    }
    note = (
        "percent, with 95 % intervals; chance: 25, 25, 16.7. norm.: errors less those "
        "under the empty caption, which makes images comparable."
    )
    if "chance" in summary:
        names = {"text": ("right", 0)}
        note = f"percent, with 95 % intervals; chance: {100 * summary['chance']:.3g}."
    table = FittingTable(
        columns=(
            Column(title="examples", style="bold"),
            Column(title="n", goes=5),
            *(Column(title=title, goes=goes) for title, goes in names.values()),
        )
    )
    rows = [("all", summary["overall"]), *summary["by_collapsed_tag"].items()]
    tags = summary["by_tag"]
    if len(tags) <= MOST_TAGS:
        rows += tags.items()
    else:
        note += f" The {len(tags)} tags are in the run's summary.json and its report."
    for tag, entry in rows:
        cells = [entry.get(score) for score in names]
        texts = [
            stacked(cell["score"], *cell["interval"], digits=0) if cell else ""
            for cell in cells
        ]
        table.add_row(tag, f"{entry['n']:,}", *texts)
    for name, mean in summary.get("mean_over_tags", {}).items():
        note += f" {name}, mean of {mean['tags']} tags: {100 * mean['score']:.1f}."
    return Group(table, Text(note, style="dim"))


def robustness_table(points: "Sequence[Point]") -> RenderableType:
    """Show accuracies on clean and shifted images, in percent with intervals."""
    table = FittingTable(
        columns=(
            Column(title="model", style="bold"),
            Column(title="shift", justify="left"),
            Column(title="images", goes=3),
            Column(title="clean", goes=1),
            Column(title="shifted"),
            Column(title="effective", goes=2),
        )
    )
    for p in points:
        table.add_row(
            p.model,
            p.shift,
            f"{p.images:,}",
            stacked(p.clean, p.clean_low, p.clean_high),
            stacked(p.shifted, p.shifted_low, p.shifted_high),
            stacked(p.effective, p.effective_low, p.effective_high, signed=True),
        )
    return Group(table, Text("percent, with 95 % intervals", style="dim"))


def standings_table(standings: "Sequence[Standing]") -> RenderableType:
    """Show where points lie beside published models, in percent with intervals."""
    table = FittingTable(
        columns=(
            Column(title="model", style="bold"),
            Column(title="shift", justify="left", goes=4),
            Column(title="ImageNet", goes=1),
            Column(title="shifted"),
            Column(title="the line", goes=2),
            Column(title="effective"),
            Column(title="as far\nabove it", goes=3),
        )
    )
    for p in standings:
        table.add_row(
            p.model,
            p.shift,
            stacked(p.clean, p.clean_low, p.clean_high),
            stacked(p.shifted, p.shifted_low, p.shifted_high),
            stacked(p.predicted, p.predicted_low, p.predicted_high),
            stacked(p.effective, p.effective_low, p.effective_high, signed=True),
            f"{p.further:,}\nof {p.models:,}",
        )
    classes = " and ".join(f"{n:,}" for n in sorted({p.classes for p in standings}))
    note = (
        "Percent; ImageNet's is among {} classes. The line goes, in logits, through "
        "timm's models trained on no images besides ImageNet-1k's; below it, between "
        "what 95 % of them lie. Other intervals are of the point, 95 %."
    )
    return Group(table, Text(note.format(classes), style="dim"))


def stacked(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    signed: bool = False,
    digits: int = 1,
) -> str:
    """Write a number in percent and, below it, its interval; a dash for none.

    Args:
        value, low, high: Proportions, or None.
        signed: Whether they are differences.
        digits: Of the ends of the interval, after the point.
    """
    if value is None or low is None or high is None:
        return NOTHING
    sign, to = ("+", "…") if signed else ("", "–")
    least, most = (f"{100 * each:{sign}.{digits}f}" for each in (low, high))
    middle = f"{100 * value:{sign}.1f}"
    return f"{middle if float(middle) else '0.0'}\n{least}{to}{most}"
