"""The temperature that turns scores into probabilities.

    p_i(c) ∝ exp(−Δ_i(c) / τ),     τ minimises −Σ_i log p_i(label_i)

Temperature scaling, as in Guo et al., "On Calibration of Modern Neural Networks"
(2017), of the differences of errors that a run stores. The likelihood is concave in
1/τ, so its maximum is the only one.

The result is a file, RUN/calibration.json, whose "temperature" a classifier can use.
What it is worth is measured on images that it was not fitted to: the images are dealt
into ``FOLDS`` folds, and each is scored with the temperature of the others. If NLL or
ECE rises there, calibration has made things worse, and the command writes no file.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.checkpoints.temperatures import save_temperature
from diffjax.classify.record import log_scores, settled_differences
from diffjax.classify.settings import loss_name
from diffjax.classify.temperature import CALIBRATION
from diffjax.errors import DiffjaxError
from diffjax.files import write_json
from diffjax.runs.metrics import (
    ECE_KIND,
    negative_log_likelihood,
    reliability,
    temperature_of,
)
from diffjax.runs.outcomes import check_results, outcomes
from diffjax.runs.run import Run

FOLDS = 5


def fit_temperature(excess: Float[np.ndarray, "n c"]) -> float:
    """The τ with the smallest mean of log(1 + Σ_c exp(−excess_c / τ)).

    Args:
        excess: by how much the error of each of c rivals exceeds that of the image's
            own class; infinite for rivals out of the question.

    Raises:
        DiffjaxError: if there is none, because all images are right (τ would be 0),
            or they are right no more often than by chance (τ would be infinite).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    n = len(excess)
    finite = np.isfinite(excess)
    size = float(np.abs(excess[finite]).mean()) if finite.any() else 0.0
    if (excess >= 0).all() or size == 0:
        raise DiffjaxError(
            f"No temperature fits: all {n} images are classified correctly, so it "
            "would be 0. Use more images, or harder ones."
        )
    # The slope of the likelihood at 1/τ = 0, where all rivals have equal odds.
    slope = np.where(finite, excess, 0).sum(axis=1) / (finite.sum(axis=1) + 1)
    if slope.mean() <= 0:
        raise DiffjaxError(
            f"No temperature fits: on {n} images the errors point to the labels no "
            "more than by chance, so it would be infinite. Check that the labels and "
            "the prompts number the classes alike."
        )

    def nll(log_temperature: float) -> float:
        logits = -excess / (size * np.exp(log_temperature))
        return float(np.logaddexp(0, logsumexp(logits, axis=1)).mean())

    # twelve powers of e to either side of the size of the differences
    found = minimize_scalar(nll, bounds=(-12, 12), method="bounded")
    return size * float(np.exp(found.x))


def calibrate(run: Run) -> dict[str, Any]:
    """Fit the temperature of a run, and say what it does.

    NLL and ECE are those of the run's own temperature ("before") and of the fitted one
    ("after"), where each fold of the images is measured with the temperature of the
    others; None where some folds alone have no temperature. "temperature" itself comes
    from all of them. "worse" names what rose: "NLL", "ECE", both or none.

    Images that cannot take part are left out and counted: those that failed, whose
    label is no candidate, or whose label's class shares no sample with the prediction.

    Raises:
        DiffjaxError: if no temperature fits; see ``fit_temperature``.
    """
    check_results(run)
    found = outcomes(run)
    settled = settled_differences(found.differences, found.rankings).astype(np.float64)
    labels = found.local_labels
    own = np.take_along_axis(settled, labels[:, None], axis=1)[:, 0]
    usable = (labels >= 0) & np.isfinite(own)
    settled, own, labels = settled[usable], own[usable], labels[usable]
    correct = found.correct[usable]
    if len(own) < 2:
        raise DiffjaxError(
            f"{run.path} has {len(own)} labelled images to fit a temperature to; it "
            "takes two, and hundreds to be of use."
        )
    excess = settled - own[:, None]
    np.put_along_axis(excess, labels[:, None], np.inf, axis=1)  # no rival of itself
    temperature = fit_temperature(excess)

    before = log_scores(settled, temperature_of(run))
    measured, after = [before], np.empty_like(settled)
    fold = np.random.default_rng(0).permutation(len(own)) % FOLDS
    try:
        for k in np.unique(fold):
            fitted = fit_temperature(excess[fold != k])
            after[fold == k] = log_scores(settled[fold == k], fitted)
        measured.append(after)
    except DiffjaxError:  # too few images: those of a fit are all right, or all wrong
        pass
    nll = [negative_log_likelihood(logs, labels) for logs in measured]
    ece = [reliability(np.exp(logs.max(axis=1)), correct).ece for logs in measured]
    pairs = {"NLL": nll, "ECE": ece}
    experiment = run.header["experiment"]
    return {
        "temperature": temperature,
        "temperature_before": temperature_of(run),
        "nll_before": nll[0],
        "nll_after": nll[1] if nll[1:] else None,
        "ece_before": ece[0],
        "ece_after": ece[1] if ece[1:] else None,
        "ece_kind": ECE_KIND,
        "folds": len(np.unique(fold)),
        "worse": [name for name, each in pairs.items() if each[-1] > each[0]],
        "status": run.status,
        "images_selected": run.header["data"]["n"],
        "images": len(own),
        "left_out": len(run.rows) - len(own),
        "model": run.header["model"],
        "dataset": run.header["data"]["name"],
        "loss": loss_name(experiment),
        "strategy": experiment.get("strategy"),
    }


# of a calibration, what a model's folder tells
TOLD = ("temperature", "nll_after", "ece_after", "ece_kind", "images", "dataset")


def save_calibration(folder: Path, calibration: dict[str, Any]) -> Path:
    """Write a temperature into a model's folder, with which it comes from now on."""
    told = {name: calibration[name] for name in (*TOLD, "strategy")}
    return save_temperature(folder, calibration["loss"], told)


def write_calibration(run: Run, calibration: dict[str, Any]) -> Path:
    """Write RUN/calibration.json."""
    path = run.path / CALIBRATION
    write_json(path, calibration)
    return path
