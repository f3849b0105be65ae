"""What `diffjax report` shows of one run, as data: a row to compare, and evidence."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.classify.samples import few_shot
from diffjax.classify.settings import loss_name
from diffjax.classify.temperature import CALIBRATION, read_temperature
from diffjax.errors import DiffjaxError
from diffjax.files import json_text
from diffjax.report.paired import Rate
from diffjax.runs import evidence
from diffjax.runs.metrics import (
    Reliability,
    reliability,
    run_log_scores,
    summary,
    temperature_of,
)
from diffjax.runs.outcomes import Outcomes, failures, no_results
from diffjax.runs.run import Run
from diffjax.strategies import (
    shortlist_from_dict,
    shortlist_to_text,
    strategy_from_dict,
    strategy_to_text,
)

Row = dict[str, str | int | float | None]
ENDS = ("", "_low", "_high")  # of the keys of a rate: itself and its interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """The reliability of a run's scores, at some temperature.

    Attributes:
        temperature: of the scores.
        calibrated: whether it was fitted to labels; None where nobody knows.
        reliability: of the scores.
    """

    temperature: float
    calibrated: bool | None
    reliability: Reliability

    @property
    def points(self) -> int:
        """How many bins hold images."""
        return int((self.reliability.counts > 0).sum())

    @property
    def score(self) -> float:
        """The predictions' mean score."""
        return self._mean(self.reliability.score)

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


def run_report(run: Run, found: Outcomes, name: str) -> RunReport:
    """What there is to show of a run, under a name."""
    return RunReport(
        name=name,
        row=_row(run, name),
        settings=dict(settings(run.header)),
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
        "path": readable(run.path),
        "dataset": str(data["name"]),
        "split": None if data.get("split") is None else str(data["split"]),
        "data_fingerprint": str(data["fingerprint"]),
        "model": str(header["model"]["name"]),
        "model_fingerprint": str(header["model"]["fingerprint"]),
        "strategy": strategy_text(experiment.get("strategy")),
        "prefilter": prefilter["name"] if isinstance(prefilter, dict) else None,
        "shortlist": _shortlist(experiment.get("shortlist")),
        "few_shot": few_shot(experiment, data["fingerprint"]),
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
    for way in ("prefilter", "shortlist"):
        if filtered := figures.get(way):
            row[f"{way}_recall"] = filtered["recall"]
            if interval := filtered["recall_interval"]:
                row[f"{way}_recall_low"], row[f"{way}_recall_high"] = interval
            row[f"{way}_classes_per_image"] = filtered["classes_per_image"]
    row["prefilter_flops"] = figures.get("prefilter", {}).get("flops")
    row["flops_per_image"] = figures.get("flops_per_image")
    for key in ("temperature", "evaluations_per_image", "seconds_per_image"):
        row[key] = figures[key]
    return row


def _shortlist(described: object) -> str | None:
    """A header's shortlist as the command line writes it."""
    if not isinstance(described, dict):
        return None
    try:
        return shortlist_to_text(shortlist_from_dict(described))
    except DiffjaxError:  # of a later version
        return ":".join(f"{key}={value}" for key, value in described.items())


def settings(header: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys and values of a header, as text; lists of all classes are left out."""
    for key, value in header.items():
        if prefix == "" and key in ("class_names", "classes"):
            continue
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json_text(value)
            yield f"{prefix}{key}", text


def _calibrations(run: Run, found: Outcomes) -> tuple[Calibration, ...]:
    known = found.local_labels >= 0
    if not known.any():
        return ()
    temperatures = [(temperature_of(run), run.header["experiment"].get("calibrated"))]
    if (run.path / CALIBRATION).exists():
        temperatures.append((read_temperature(run.path), True))

    def calibration(temperature: float, calibrated: bool | None) -> Calibration:
        scores = np.exp(run_log_scores(found, temperature)[known].max(axis=1))
        return Calibration(
            temperature=temperature,
            calibrated=calibrated,
            reliability=reliability(scores, found.correct[known]),
        )

    return tuple(calibration(*each) for each in temperatures)


def strategy_text(strategy: object) -> str | None:
    """A header's strategy as the command line writes it, if it is one of ours."""
    if not isinstance(strategy, dict):
        return None if strategy is None else str(strategy)
    try:
        return strategy_to_text(strategy_from_dict(strategy))
    except DiffjaxError:  # of another program, or a later version
        return ":".join(str(value) for value in strategy.values())


def readable(path: str | Path) -> str:
    """A path as text that any file can hold; a file name need not be text."""
    return os.fsencode(path).decode("utf-8", "replace")
