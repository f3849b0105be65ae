"""A run's decisions as arrays, and a decision as a row of a run.

Local class numbers 0 … C − 1 count the candidates of a run; the data set's numbers, in
which labels, predictions and rankings are stored, may leave some out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.errors import DiffjaxError
from diffjax.runs.rows import lists
from diffjax.runs.run import Run
from diffjax.strategies.base import (
    Decision,
    ErrorTable,
    best_prompts,
    class_decision,
    class_differences,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """The n images of a run that did not fail, by index.

    Attributes:
        indices: their places in the data set.
        labels: in the data set's numbering.
        local_labels: in local numbering; −1 where the label is not a candidate.
        predictions: in the data set's numbering.
        rankings: the candidates, best first, in LOCAL numbering.
        differences: Δ of each candidate, as ``Record.differences`` has it, in local
            order; NaN where unknown.
        also: predictions by the losses that were evaluated along, by loss.
    """

    indices: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    local_labels: Int[np.ndarray, " n"]
    predictions: Int[np.ndarray, " n"]
    rankings: Int[np.ndarray, "n C"]
    differences: Float[np.ndarray, "n C"]
    also: dict[str, np.ndarray]

    @property
    def correct(self) -> np.ndarray:
        """Which predictions are right, bool [n]."""
        right: np.ndarray = self.labels == self.predictions
        return right


def outcomes(run: Run) -> Outcomes:
    """The decisions of a run; images that failed are left out."""
    rows = run.good
    to_local = local_numbers(run)
    shape = (len(rows), len(run.classes))
    rankings, differences = np.empty(shape, np.int64), np.empty(shape, np.float32)
    for i, (ranking, difference) in enumerate(
        zip(lists(rows["ranking"]), lists(rows["differences"]), strict=True)
    ):
        rankings[i], differences[i] = to_local[ranking], difference
    labels = rows["label"].to_numpy()
    return Outcomes(
        indices=rows["index"].to_numpy(),
        labels=labels,
        local_labels=to_local[labels],
        predictions=rows["prediction"].to_numpy(),
        rankings=rankings,
        differences=differences,
        also={loss: rows[f"prediction_{loss}"].to_numpy() for loss in run.losses},
    )


def failures(run: Run) -> list[tuple[str, str]]:
    """(image, what went wrong) of the images that failed."""
    rows = run.rows.filter(run.rows["error"].is_valid())
    return list(zip(rows["id"].to_pylist(), rows["error"].to_pylist(), strict=True))


def left_out(run: Run) -> str | None:
    """What to say of failed images wherever results are shown; None if there are none.

    Of a run that is not complete see its ``shortfall``.
    """
    if not (failed := len(failures(run))):
        return None
    return (
        f"{run.path}: {failed:,} of {len(run.rows):,} images failed; they count "
        "neither as right nor as wrong."
    )


def check_results(run: Run) -> None:
    """Raise a DiffjaxError if a run has no image that did not fail."""
    if reason := no_results(run):
        raise DiffjaxError(reason)


def no_results(run: Run) -> str | None:
    """Why a run has no image that did not fail; None if it has one."""
    failed = failures(run)
    if len(failed) < len(run.rows):
        return None
    if failed:
        image, message = failed[0]
        return (
            f"{run.path}: every image failed ({len(failed):,}), so there is nothing to "
            f"look at. The first, {image}: {message}"
        )
    return (
        f"{run.path} has no results yet. Come back when images are done, or leave it "
        "out."
    )


def local_numbers(run: Run) -> Int[np.ndarray, " D"]:
    """The local number of each of the data set's D classes; −1 for no candidate."""
    to_local = np.full(len(run.class_names), -1)
    to_local[run.classes] = np.arange(len(run.classes))
    return to_local


def decision_columns(
    table: ErrorTable,
    prompt_decision: Decision,
    classidx: Int[np.ndarray, "P"],
    classes: Int[np.ndarray, "C"],
) -> dict[str, Any]:
    """The columns of a row that hold what was decided.

    Args:
        table: the errors that the decision compares.
        prompt_decision: about the P prompts.
        classidx: the local class of each prompt; prompts of one class compete.
        classes: the data set's number of each local class.
    """
    decision = class_decision(prompt_decision, classidx)
    best = best_prompts(prompt_decision, classidx)
    mean, standard_error = class_differences(table.rows(best), decision)
    runner_up = decision.ranking[1]
    return {
        "prediction": int(classes[decision.winner]),
        "ranking": classes[decision.ranking],
        "differences": mean,
        "standard_errors": standard_error,
        "n_samples": decision.n_samples,
        "margin": float(mean[runner_up]),
        "margin_error": float(standard_error[runner_up]),
        "confidence": decision.confidence,
        "evaluations": decision.n_evaluations,
    }
