"""What `diffjax report` shows of runs of `diffjax winoground`, as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffjax.classify.settings import loss_name
from diffjax.report.paired import Rate, Standing, standing
from diffjax.report.run_report import ENDS, Row, readable, settings, strategy_text
from diffjax.runs.winoground import CHANCE, CHOICE, SCORES, CaptionRun, summarise


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionReport:
    """One run of captions and images.

    Attributes:
        name: short, and different from the other runs' names.
        row: its line in the comparison; plain JSON values.
        settings: all that its header says of how and where it was made.
        summary: scores over all examples and by tag; see ``winoground.summarise``.
        failures: (example, what went wrong).
        shortfall: what is to be said of a run that is not complete.
        nothing: what is to be said in place of results, where there are none.
    """

    name: str
    row: Row
    settings: dict[str, str]
    summary: dict[str, Any]
    failures: list[tuple[str, str]]
    shortfall: str | None
    nothing: str | None

    def rate(self, score: str) -> Rate | None:
        """A score over all examples; None without one."""
        return rate_of(self.summary["overall"], score)

    @property
    def choice(self) -> bool:
        """Whether examples have one image, and captions to choose from."""
        return bool(self.row["task"] == CHOICE)

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores that there are."""
        return ("text",) if self.choice else SCORES

    @property
    def chance(self) -> dict[str, float]:
        """What guessing has of each score."""
        if not self.choice:
            return CHANCE
        return {"text": float(self.summary.get("chance", 0.5))}

    @property
    def tags(self) -> list[tuple[str, dict[str, Any]]]:
        """(tag, scores): of all examples, by collapsed tag, and by tag."""
        rows = [("all", self.summary["overall"])]
        for kind in ("by_collapsed_tag", "by_tag"):
            rows += self.summary[kind].items()
        return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionGroup:
    """Runs about the same examples.

    Attributes:
        title: the name of the set.
        runs: in the order given.
        standing: which of the runs with results leads by the text score, on the
            examples that all of them have; None if it is the only one.
        notes: sentences on what to keep in mind when comparing.
    """

    title: str
    runs: tuple[CaptionReport, ...]
    standing: Standing | None
    notes: tuple[str, ...]


def rate_of(entry: dict[str, Any], score: str) -> Rate | None:
    """A score of a summary's entry, with its interval."""
    found = entry.get(score)
    return None if found is None else Rate(found["score"], *found["interval"])


def caption_groups(runs: Sequence[tuple[str, CaptionRun]]) -> tuple[CaptionGroup, ...]:
    """Named runs by the examples that they are about."""
    found: dict[str, list[tuple[str, CaptionRun]]] = {}
    for name, run in runs:
        found.setdefault(str(run.header["data"].get("examples")), []).append(
            (name, run)
        )
    return tuple(map(_group, found.values()))


def _group(members: Sequence[tuple[str, CaptionRun]]) -> CaptionGroup:
    reports = [_report(name, run) for name, run in members]
    notes = []
    for report in reports:
        if report.nothing or report.shortfall:
            notes.append(report.nothing or str(report.shortfall))
        elif report.failures:
            notes.append(
                f"{report.name}: {len(report.failures):,} examples failed; they count "
                "neither as right nor as wrong."
            )
    some = [(name, run) for name, run in members if run.good]
    return CaptionGroup(
        title=str(members[0][1].header["data"]["name"]),
        runs=tuple(reports),
        standing=_standing(some) if len(some) > 1 else None,
        notes=tuple(notes),
    )


def _standing(members: Sequence[tuple[str, CaptionRun]]) -> Standing:
    text = [{row["index"]: bool(row["text"]) for row in run.good} for _, run in members]
    shared = sorted(set[int].intersection(*map(set, text)))
    right = np.array([[each[i] for i in shared] for each in text], bool)
    return standing([name for name, _ in members], right)


def _report(name: str, run: CaptionRun) -> CaptionReport:
    summary, experiment = summarise(run.rows), run.header["experiment"]
    nothing = None
    if not run.good:
        why = f" The first: {run.failures[0][1]}" if run.failures else ""
        nothing = f"{run.path} has no result of any example.{why}"
    row: Row = {
        "run": name,
        "path": readable(run.path),
        "dataset": str(run.header["data"]["name"]),
        "task": str(experiment.get("task")),
        "model": str(run.header["model"]["name"]),
        "model_fingerprint": str(run.header["model"].get("fingerprint")),
        "strategy": strategy_text(experiment.get("strategy")),
        "loss": None if experiment.get("loss") is None else loss_name(experiment),
        "seed": experiment.get("seed"),
        "images": summary["examples"],
        "failed_images": summary["failed_examples"],
        "status": run.status,
    }
    for score in SCORES:
        if rate := rate_of(summary["overall"], score):
            row |= {f"{score}{end}": v for end, v in zip(ENDS, rate, strict=True)}
    return CaptionReport(
        name=name,
        row=row,
        settings=dict(settings(run.header)),
        summary=summary,
        failures=run.failures,
        shortfall=run.shortfall,
        nothing=nothing,
    )
