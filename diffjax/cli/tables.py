"""Tables for the terminal: one image's ranking, the demo's summary, the models."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffjax.checkpoints.catalog import Model
from diffjax.classify.record import Record
from diffjax.classify.temperature import read_temperature
from diffjax.report.plots import UNIT

if TYPE_CHECKING:
    from diffjax.evaluation.plan import Plan
    from diffjax.runs.robustness import Point

BAR_WIDTH = 12


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
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("", width=BAR_WIDTH)
    table.add_column("Δ ×10⁻³", justify="right", no_wrap=True)
    table.add_column("samples", justify="right")
    table.add_column("", style="dim", no_wrap=True)
    scores = record.scores()[:top]
    for rank, (c, entry) in enumerate(zip(decision.ranking, scores, strict=False)):
        pruned = bool(decision.pruned[c])
        table.add_row(
            str(rank + 1),
            Text(entry["label"]),
            score_text(entry["score"], pruned),
            Bar(1.0, 0, entry["score"], width=BAR_WIDTH, color=_colour(rank, pruned)),
            difference_text(means[c], errors[c]) if rank else "0",
            str(decision.n_samples[c]),
            _fate(pruned, int(decision.n_samples[c])),
            style="bold" if rank == 0 else "dim" if pruned else "",
        )
    lines: list[RenderableType] = [title, table]
    if rest := len(record.labels) - len(scores):
        lines.append(Text(f"… and {rest:,} more", style="dim"))
    cost = f"{record.evaluations:,} evaluations in {record.seconds:.1f} s"
    lines.append(Text(cost, style="dim"))
    return Group(*lines)


def legend(temperature: float | str) -> Text:
    """Say in one line what scores and Δ are.

    Args:
        temperature: A number, or the calibrated run that has it.
    """
    if isinstance(temperature, str):
        what, value = f"fitted on {temperature}", read_temperature(temperature)
    else:
        what, value = "not a calibrated probability", temperature
    return Text(
        "Δ: paired error difference to the class that is best on the samples seen "
        "± standard error. "
        f"score: softmax of −Δ/τ, τ = {value:.3g}; {what}. "
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
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("image", overflow="fold")
    for column in ("truth", "prediction"):
        table.add_column(column, no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("", width=BAR_WIDTH)
    for column in ("evals", "time"):
        table.add_column(column, justify="right", style="dim")
    for name, truth, record in rows:
        right = record.label == truth
        colour = "green" if right else "red"
        score = record.scores()[0]["score"]
        table.add_row(
            Text(name),
            truth,
            Text(f"{'✓' if right else '✗'} {record.label}", style=colour),
            f"{score:.3f}",
            Bar(1.0, 0, score, width=BAR_WIDTH, color=colour),
            f"{record.evaluations:,}",
            f"{record.seconds:.1f} s",
        )
    n_right = sum(record.label == truth for _, truth, record in rows)
    return Group(table, Text(f"{n_right} of {len(rows)} right", style="bold"))


def models_table(models: Sequence[Model]) -> RenderableType:
    """Show what ``--model`` knows by name."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("px", justify="right", no_wrap=True)
    table.add_column("weights", justify="right", no_wrap=True)
    # an id is there to be copied: it stays in one piece
    longest = max(len(model.hub_id or "") for model in models)
    table.add_column("Hugging Face id, licence, note", min_width=longest)
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
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="dim")
    for metric, value in summary["metrics"].items():
        if value is None:
            continue
        interval = summary["intervals"].get(metric)
        if interval is None:
            table.add_row(metric, f"{value:.3f}", "")
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
    if filtered := summary.get("prefilter"):
        low, high = filtered["recall_interval"] or (0.0, 1.0)
        table.add_row(
            "prefilter",
            f"{filtered['recall']:.1%}" if filtered["recall"] is not None else "",
            f"of labels left; 95 %: {100 * low:.1f} to {100 * high:.1f}",
        )
    if summary["evaluations_per_image"] is not None:
        table.add_row(
            "evaluations", f"{summary['evaluations_per_image']:,.0f}", "an image"
        )
        table.add_row("seconds", f"{summary['seconds_per_image']:.2f}", "an image")
    title = Text(f"{summary['dataset']} · {summary['model']}", style="bold")
    return Group(title, table)


def plan_table(plan: "Plan") -> RenderableType:
    """Show what a run would cost."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="dim")
    classes = "" if plan.prompts == plan.classes else f"{plan.prompts:,} prompts"
    gradients = []
    if ratio := plan.gradient_in_evaluations:
        what = "an image; each counts for 3 evaluations and takes the time of"
        gradients = [
            ("gradients", f"{plan.gradients_per_image:,}", f"{what} {ratio:.1f}")
        ]
    fewest, most = plan.fewest_evaluations_per_image, plan.evaluations_per_image
    each, total = "an image", "in all"
    notes = ["Timed on a few tiles; reading and encoding the images comes on top."]
    if fewest < most:
        each, total = "an image, at most", "in all, at most"
        notes.append(
            f"An image needs {fewest:,} evaluations or more; few need as many as the "
            "most."
        )
    rows = [
        ("images", f"{plan.images:,}", ""),
        ("classes", f"{plan.classes:,}", classes),
        ("evaluations", f"{most:,}", each),
        ("", f"{plan.evaluations:,}", total),
        *gradients,
        ("FLOPs", f"{plan.flops_per_image:.3g}", each),
        ("", f"{plan.flops:.3g}", total),
        ("time", f"{plan.seconds_per_image:.3g} s", f"{each}, on {plan.device}"),
        ("", str(timedelta(seconds=round(plan.seconds))), total),
    ]
    for row in rows:
        table.add_row(*row)
    return Group(table, Text("\n".join(notes), style="dim"))


def winoground_table(summary: Mapping[str, Any]) -> RenderableType:
    """Show scores overall, by collapsed tag and by tag, in percent with intervals."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("examples", style="bold")
    table.add_column("n", justify="right")
    names = {
        "text": "text",
        "image": "image",
        "group": "group",
        "image_normalised": "image, norm.",
        "group_normalised": "group, norm.",
    }
    for name in names.values():
        table.add_column(name, justify="right")
    tags = ("by_collapsed_tag", "by_tag")
    rows = [("all", summary["overall"])]
    rows += [row for each in tags for row in summary[each].items()]
    for tag, entry in rows:
        cells = [entry.get(score) for score in names]
        texts = [_percent(cell) if cell else "" for cell in cells]
        table.add_row(Text(tag), f"{entry['n']:,}", *texts)
    note = (
        "percent, with 95 % intervals; chance: 25, 25, 16.7. norm.: errors less those "
        "under the empty caption, which makes images comparable."
    )
    return Group(table, Text(note, style="dim"))


def _percent(cell: Mapping[str, Any]) -> str:
    low, high = cell["interval"]
    return f"{100 * cell['score']:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def robustness_table(points: "Sequence[Point]") -> RenderableType:
    """Show accuracies on clean and shifted images, in percent with intervals."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("model", style="bold", overflow="fold", min_width=8)
    table.add_column("shift", no_wrap=True)
    for name in ("images", "clean", "shifted", "effective"):
        table.add_column(name, justify="right", no_wrap=True)
    for p in points:
        table.add_row(
            Text(p.model),
            p.shift,
            f"{p.images:,}",
            _points(p.clean, p.clean_low, p.clean_high),
            _points(p.shifted, p.shifted_low, p.shifted_high),
            _points(p.effective, p.effective_low, p.effective_high, sign="+"),
        )
    return Group(table, Text("percent, with 95 % intervals", style="dim"))


def _points(
    value: float | None, low: float | None, high: float | None, sign: str = ""
) -> str:
    if value is None or low is None or high is None:
        return ""
    middle, least, most = (f"{100 * each:{sign}.1f}" for each in (value, low, high))
    return f"{middle} ({least} to {most})"
