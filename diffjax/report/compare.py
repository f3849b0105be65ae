"""What `diffjax report` shows of some runs, as data: rows to compare, and evidence.

Runs are comparable if they are about the same data: split and fingerprint. Among
them each is compared with the first, image by image; see ``paired``.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.classify.settings import loss_name
from diffjax.classify.temperature import CALIBRATION, read_temperature
from diffjax.errors import DiffjaxError
from diffjax.files import json_text
from diffjax.report.paired import (
    Rate,
    Standing,
    mcnemar,
    paired_difference,
    standing,
)
from diffjax.runs import evidence
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import (
    Reliability,
    reliability,
    run_log_scores,
    summary,
    temperature_of,
)
from diffjax.runs.outcomes import Outcomes, failures, no_results, outcomes
from diffjax.runs.run import Run
from diffjax.strategies import strategy_from_dict, strategy_to_text

Row = dict[str, str | int | float | None]
ENDS = ("", "_low", "_high")  # of the keys of a rate: itself and its interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """The reliability of a run's scores, at some temperature."""

    temperature: float
    reliability: Reliability

    @property
    def score(self) -> float:
        """The predictions' mean score."""
        return self._mean(self.reliability.confidence)

    @property
    def right(self) -> float:
        """How many predictions are right, as a proportion."""
        return self._mean(self.reliability.accuracy)

    def _mean(self, values: np.ndarray) -> float:
        counts = self.reliability.counts
        return float(np.average(values[counts > 0], weights=counts[counts > 0]))


@dataclass(frozen=True, kw_only=True, eq=False)
class RunReport:
    """One run.

    Attributes:
        name: short, and different from the other runs' names.
        row: its line in the comparison; plain JSON values.
        settings: all that its header says of how and where it was made.
        confusions, mistakes, failures: as ``evidence`` describes them.
        error_curve, sample_curve: see ``evidence``; None where they cannot be had.
        has_errors: whether errors were saved.
        shortfall: what is to be said of a run that is not complete.
        nothing: what is to be said in place of results, where there are none.
        calibrations: at the run's own temperature and, if it has been calibrated, at
            the fitted one; none if no label is a candidate.
    """

    name: str
    row: Row
    settings: dict[str, str]
    confusions: evidence.Confusions
    mistakes: list[evidence.Mistake]
    failures: list[tuple[str, str]]
    error_curve: evidence.ErrorCurve | None
    sample_curve: evidence.SampleCurve | None
    has_errors: bool
    shortfall: str | None
    nothing: str | None
    calibrations: tuple[Calibration, ...]

    def rate(self, metric: str) -> Rate | None:
        """A metric with its interval; None if the run does not have it."""
        ends = [self.row.get(f"{metric}{end}") for end in ENDS]
        numbers = [float(end) for end in ends if end is not None]
        return Rate(*numbers) if len(numbers) == len(ends) else None

    @property
    def accuracy(self) -> Rate | None:
        """How many images are right."""
        return self.rate("acc1")

    @property
    def other_losses(self) -> dict[str, Rate]:
        """Accuracy by the losses that were evaluated along."""
        metrics = [key for key in self.row if key.startswith("acc1_")]
        space = self.settings.get("experiment.space", "noise")
        found = {key.removeprefix("acc1_"): self.rate(key) for key in metrics}
        return {
            loss_name({"loss": loss, "space": space}): rate
            for loss, rate in found.items()
            if rate is not None
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Runs about the same data.

    Attributes:
        title: the name and split of the data.
        runs: in the order given; those with results are compared with the first that
            has any.
        standing: which of the runs with results leads; None if it is the only one.
        notes: sentences on what to keep in mind when comparing.
    """

    title: str
    runs: tuple[RunReport, ...]
    standing: Standing | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Runs by the data they are about."""

    groups: tuple[Group, ...]

    @property
    def runs(self) -> tuple[RunReport, ...]:
        """All runs, group by group."""
        return tuple(run for group in self.groups for run in group.runs)

    @property
    def shortfalls(self) -> list[str]:
        """What to say of runs that are not complete."""
        return [run.shortfall for run in self.runs if run.shortfall is not None]

    @property
    def rows(self) -> list[Row]:
        """A row a run, with the same keys: proportions in [0, 1], None if unknown."""
        keys = dict.fromkeys(key for run in self.runs for key in run.row)
        return [{key: run.row.get(key) for key in keys} for run in self.runs]


def read_report(
    paths: Sequence[str | os.PathLike[str]], *, errors: bool = True
) -> Report:
    """Read runs, complete or not.

    Args:
        paths: their folders.
        errors: with the curves that saved errors give; these may be large.

    Raises:
        DiffjaxError: if there is no run, one is given twice, or none has a result.
    """
    if not paths:
        raise DiffjaxError("Name at least one run to report on.")
    names = _names([Path(path) for path in paths])
    found: dict[tuple[str, ...], list[tuple[RunReport, Outcomes]]] = {}
    for path, name in zip(paths, names, strict=True):
        run = read_run(path, errors=errors)
        results = outcomes(run)
        data = run.header["data"]
        # its name is how somebody spelled it
        key = tuple(str(data.get(part)) for part in ("split", "fingerprint"))
        found.setdefault(key, []).append((_run_report(run, results, name), results))
    made = Report(groups=tuple(map(_group, found.values())))
    if all(run.nothing for run in made.runs):
        raise DiffjaxError(str(made.runs[0].nothing))
    return made


def _run_report(run: Run, found: Outcomes, name: str) -> RunReport:
    return RunReport(
        name=name,
        row=_row(run, name),
        settings=dict(_settings(run.header)),
        confusions=evidence.confusions(found, run.class_names),
        mistakes=evidence.confident_mistakes(run, found),
        failures=failures(run),
        error_curve=evidence.error_curve(run, found),
        sample_curve=evidence.sample_curve(run, found),
        has_errors=run.has_errors,
        shortfall=run.shortfall,
        nothing=no_results(run),
        calibrations=_calibrations(run, found),
    )


def _row(run: Run, name: str) -> Row:
    """A run's line: what it is, how far it is, how good it is, what it cost."""
    header, figures = run.header, summary(run)
    experiment, data = header["experiment"], header["data"]
    prefilter = experiment.get("prefilter")
    row: Row = {
        "run": name,
        "path": _readable(run.path),
        "dataset": str(data["name"]),
        "split": None if data.get("split") is None else str(data["split"]),
        "data_fingerprint": str(data["fingerprint"]),
        "model": str(header["model"]["name"]),
        "model_fingerprint": str(header["model"]["fingerprint"]),
        "strategy": strategy_text(experiment.get("strategy")),
        "prefilter": prefilter["name"] if isinstance(prefilter, dict) else None,
        "loss": None if experiment.get("loss") is None else loss_name(experiment),
        "weights": experiment.get("weights"),
        "seed": experiment.get("seed"),
        "candidates": len(run.classes),
        "images_selected": int(data["n"]),
        "images": int(figures["images"]),
        "failed_images": int(figures["failed_images"]),
        "labels_not_among_candidates": int(figures["labels_not_among_candidates"]),
        "status": run.status,
    }
    for metric, value in figures["metrics"].items():
        row[metric] = value
        if interval := figures["intervals"].get(metric):
            row[f"{metric}_low"], row[f"{metric}_high"] = interval
    if filtered := figures.get("prefilter"):
        row["prefilter_recall"] = filtered["recall"]
        if interval := filtered["recall_interval"]:
            row["prefilter_recall_low"], row["prefilter_recall_high"] = interval
        row["prefilter_classes_per_image"] = filtered["classes_per_image"]
    for key in ("temperature", "evaluations_per_image", "seconds_per_image"):
        row[key] = figures[key]
    return row


def _settings(header: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys and values of a header, as text; lists of all classes are left out."""
    for key, value in header.items():
        if prefix == "" and key in ("class_names", "classes"):
            continue
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json_text(value)
            yield f"{prefix}{key}", text


def _group(members: Sequence[tuple[RunReport, Outcomes]]) -> Group:
    some = [member for member in members if len(member[1].labels)]
    first = (some or members)[0]
    name, split = first[0].row["dataset"], first[0].row["split"]
    compared = [replace(m[0], row=m[0].row | _comparison(m, first)) for m in members]
    return Group(
        title=str(name) if split is None else f"{name}, {split}",
        runs=tuple(compared),
        standing=_standing(some) if len(some) > 1 else None,
        notes=tuple(_notes(members)),
    )


def _standing(members: Sequence[tuple[RunReport, Outcomes]]) -> Standing:
    """How runs stand on the images that all of them classified."""
    shared = reduce(np.intersect1d, (found.indices for _, found in members))
    right = [found.correct[np.isin(found.indices, shared)] for _, found in members]
    return standing([run.name for run, _ in members], np.array(right))


def _comparison(
    member: tuple[RunReport, Outcomes], first: tuple[RunReport, Outcomes]
) -> Row:
    """Columns of the difference to the first run; none for that run itself."""
    if member is first:
        return {}
    _, mine, theirs = np.intersect1d(
        member[1].indices, first[1].indices, return_indices=True
    )
    row: Row = {"compared_with": first[0].name, "compared_images": len(mine)}
    if len(mine):
        right, others = member[1].correct[mine], first[1].correct[theirs]
        rate = paired_difference(right, others)
        row |= {
            f"difference{end}": value for end, value in zip(ENDS, rate, strict=True)
        }
        row["difference_p"] = mcnemar(right, others)
    return row


def _notes(members: Sequence[tuple[RunReport, Outcomes]]) -> list[str]:
    notes = []
    rows = [run.row for run, _ in members]
    for run, _ in members:
        row = run.row
        if run.nothing:
            notes.append(run.nothing)
            continue
        name, images = row["run"], int(row["images"] or 0)
        done = images + int(row["failed_images"] or 0)
        if row["status"] != "complete":
            notes.append(
                f"{name} is {row['status']}: {done:,} of {row['images_selected']:,} "
                "images are there."
            )
        if row["failed_images"]:
            notes.append(
                f"{name}: {row['failed_images']:,} of {done:,} images failed; they "
                "count neither as right nor as wrong."
            )
        if row["prefilter"]:
            notes.append(
                f"{name} chose among the classes that a prefilter, {row['prefilter']}, "
                "had left of each image; its accuracy is that of both together."
            )
        if row["labels_not_among_candidates"]:
            notes.append(
                f"{name}: {row['labels_not_among_candidates']:,} of {images:,} labels "
                "are not among its candidate classes; such images are wrong whatever "
                "it predicts."
            )
    indices = [found.indices for _, found in members if len(found.indices)]
    if any(not np.array_equal(indices[0], others) for others in indices):
        notes.append(
            "The runs did not classify the same images. The differences to the first "
            "run rest on the images that both did; the other columns do not compare "
            "strictly."
        )
    if len({row["candidates"] for row in rows}) > 1:
        notes.append(
            "The runs chose among different numbers of classes, so their accuracies "
            "do not compare strictly."
        )
    return notes


def _calibrations(run: Run, found: Outcomes) -> tuple[Calibration, ...]:
    known = found.local_labels >= 0
    if not known.any():
        return ()
    temperatures = [temperature_of(run)]
    if (run.path / CALIBRATION).exists():
        temperatures.append(read_temperature(run.path))
    scores = [run_log_scores(found, t)[known].max(axis=1) for t in temperatures]
    return tuple(
        Calibration(
            temperature=temperature,
            reliability=reliability(np.exp(score), found.correct[known]),
        )
        for temperature, score in zip(temperatures, scores, strict=True)
    )


def strategy_text(strategy: object) -> str | None:
    """A header's strategy as the command line writes it, if it is one of ours."""
    if not isinstance(strategy, dict):
        return None if strategy is None else str(strategy)
    try:
        return strategy_to_text(strategy_from_dict(strategy))
    except DiffjaxError:  # of another program, or a later version
        return ":".join(str(value) for value in strategy.values())


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names; whole paths where names repeat."""
    places = [path.resolve() for path in paths]
    if twice := [path for path in paths if places.count(path.resolve()) > 1]:
        raise DiffjaxError(f"The run {twice[0]} is given twice. Name each run once.")
    names = [place.name for place in places]
    return [
        _readable(name if names.count(name) == 1 else path)
        for name, path in zip(names, paths, strict=True)
    ]


def _readable(path: str | Path) -> str:
    """A path as text that any file can hold; a file name need not be text."""
    return os.fsencode(path).decode("utf-8", "replace")
