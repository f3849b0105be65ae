"""``diffjax evaluate --dry-run``: what would be done, and what it would take."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffjax.choices import STRATEGY

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from diffjax.classify.classifier import DiffusionClassifier
    from diffjax.evaluation.plan import Plan
    from diffjax.evaluation.probe import Begun, Expected
    from diffjax.evaluation.task import Task

SEEN = {"in the run": "of the run", "in a probe": "that were tried now"}


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a run would be, and what it would take.

    Attributes:
        model: its name.
        strategy: as it is given.
        loss: with its space.
        first_prompt: of all prompts; None where the model takes class ids.
        out: the folder of the run.
        begun: what is there.
        plan: evaluations at least and at most, and their time.
        expected: evaluations as a run's rows or a few images show; None where all
            images need the same, or nothing is known.
    """

    model: str
    strategy: str
    loss: str
    first_prompt: str | None
    out: Path
    begun: "Begun"
    plan: "Plan"
    expected: "Expected | None"

    @property
    def stops_early(self) -> bool:
        """Whether images may need less than the most."""
        plan = self.plan
        return plan.fewest_evaluations_per_image < plan.evaluations_per_image

    @property
    def seconds_per_evaluation(self) -> float:
        """Of full tiles."""
        return self.plan.seconds_per_image / self.plan.evaluations_per_image

    @property
    def expected_seconds(self) -> float | None:
        """Of the images that are not done; None where nothing is expected."""
        if self.expected is None:
            return None
        each = self.expected.evaluations_per_image * self.seconds_per_evaluation
        return each * (self.plan.images - self.begun.done)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: those of the plan, and more."""
        names = ("model", "strategy", "loss", "first_prompt")
        told = {name: getattr(self, name) for name in names}
        return {
            **told,
            "out": str(self.out),
            "done": self.begun.done,
            "refused": self.begun.refused or None,
            **self.plan.as_dict(),
            "expected": self.expected and asdict(self.expected),
            "expected_seconds": self.expected_seconds,
        }


def outlook(
    task: "Task",
    classifier: "DiffusionClassifier",
    out: Path,
    asked: Mapping[str, Any],
    hint: str = "",
) -> Outlook:
    """Find out what a run would be and take; evaluates a few images at most.

    Args:
        task: The images and classes.
        classifier: The model and how to classify.
        out: The folder of the run.
        asked: As for ``runner.evaluate``, with "save_errors".
        hint: What to add where the run would be refused.
    """
    from diffjax.classify.samples import few_shot
    from diffjax.classify.settings import loss_name
    from diffjax.evaluation.plan import make_plan
    from diffjax.evaluation.probe import begun, expected, probe, too_slow
    from diffjax.strategies import (
        parse_strategy,
        shortlist_to_text,
        strategy_to_text,
    )

    plan, there = make_plan(task, classifier), begun(out, task, classifier, asked)
    if there.refused:
        there = replace(there, refused=there.refused + hint)
    known = None
    if plan.fewest_evaluations_per_image < plan.evaluations_per_image:
        known = expected(there.evaluations)
        if known is None and not too_slow(plan):
            known = probe(task, classifier)
    settings = classifier.settings
    strategy = settings.strategy.of(plan.prompts)
    is_usual = strategy == parse_strategy(STRATEGY)
    text = classifier.model.kind == "text"
    seen = few_shot(settings.as_dict())
    named = STRATEGY if is_usual else strategy_to_text(strategy)
    narrowed = []
    if settings.shortlist is not None:
        narrowed.append(f"shortlist {shortlist_to_text(settings.shortlist)}")
    if task.prefilter is not None:
        narrowed.append(f"prefilter {task.prefilter.name}")
    return Outlook(
        model=classifier.model.name,
        strategy=", ".join(filter(None, (named, *narrowed, seen))),
        loss=loss_name(settings.as_dict()),
        first_prompt=task.prompts.prompts[0] if text else None,
        out=out,
        begun=there,
        plan=plan,
        expected=known,
    )


def outlook_table(found: Outlook) -> "RenderableType":
    """Show what a run would be, and take."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    plan = found.plan
    told = Table(box=None, show_header=False, pad_edge=False)
    told.add_column(style="dim", no_wrap=True)
    told.add_column(overflow="fold")
    prompts = f"{plan.prompts:,} class ids of the model"
    if found.first_prompt is not None:
        prompts = f"{found.first_prompt!r}"
        if plan.prompts > 1:
            prompts += f" and {plan.prompts - 1:,} more"
    done = f", {found.begun.done:,} of them done" if found.begun.done else ""
    for name, text in (
        ("model", found.model),
        ("strategy", found.strategy),
        ("loss", found.loss),
        ("prompts", prompts),
        ("classes", f"{plan.classes:,}"),
        ("images", f"{plan.images:,}{done}"),
        ("folder", str(found.out)),
    ):
        told.add_row(name, Text(text))
    notes = [Text(note, style="dim") for note in _notes(found)]
    if found.begun.refused:
        notes.append(Text(f"It would be refused: {found.begun.refused}", style="red"))
    return Group(told, "", _cost_table(found), *notes)


def _cost_table(found: Outlook) -> "Table":
    """Evaluations and what they take: at least, as expected, at most."""
    from rich.table import Table

    plan, known = found.plan, found.expected
    most = plan.evaluations_per_image
    counts: dict[str, tuple[str, float]] = {}
    if found.stops_early:
        counts["at least"] = "", plan.fewest_evaluations_per_image
        if known is not None:
            sign = "over " if known.unfinished else "about "
            counts["expected"] = sign, known.evaluations_per_image
    counts["at most" if found.stops_early else ""] = "", most
    table = Table(
        box=None, header_style="dim", pad_edge=False, show_header=found.stops_early
    )
    table.add_column("", style="dim", no_wrap=True)
    for name in counts:
        table.add_column(name, justify="right", style="bold", no_wrap=True)
    table.add_column("", style="dim")
    costs: dict[str, Callable[[float], str]] = {
        "evaluations": lambda n: f"{n:,.0f}",
        "FLOPs": lambda n: f"{plan.flops_per_image * n / most:.3g}",
        "time": lambda n: _time(n * found.seconds_per_evaluation),
    }
    left = plan.images - found.begun.done
    total = f"for the {left:,} images to do" if found.begun.done else "in all"
    for n, what in ((1, "an image"), (left, total)):
        for name, text in costs.items():
            cells = (f"{sign}{text(n * each)}" for sign, each in counts.values())
            table.add_row(name, *cells, what)
    return table


def _notes(found: Outlook) -> list[str]:
    """What the numbers rest on."""
    plan, known = found.plan, found.expected
    notes = [
        f"Timed on a few tiles on {plan.device}; reading and encoding the images comes "
        "on top."
    ]
    if ratio := plan.gradient_in_evaluations:
        notes.append(
            f"Of these are {plan.gradients_per_image:,} gradients an image, each of "
            f"which counts for 3 evaluations and takes the time of {ratio:.1f}."
        )
    if known is not None:
        who = f"{known.images:,} images {SEEN[known.seen]}"
        if known.unfinished:
            who += f", {known.unfinished:,} of them given up unfinished"
        had = f"{known.least:,} to {known.most:,} evaluations"
        notes.append(f"Expected by {who}: {had}.")
    elif found.stops_early:
        least = plan.fewest_evaluations_per_image * found.seconds_per_evaluation
        notes.append(
            "What to expect between the bounds is not known: even an easy image takes "
            f"{_time(least)} here, too long to try some. Once the run has rows, "
            "--dry-run tells by them."
        )
    return notes


def _time(seconds: float) -> str:
    """Write 0.52 s, and 1:02:03 for more than a minute."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    return str(timedelta(seconds=round(seconds)))
