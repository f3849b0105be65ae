"""How good a run is: accuracy with its uncertainty, recall, calibration, cost.

With k of n right, p = k / n, and z = 1.96 for 95 %:

    Wilson's interval   (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)
    recall of class c   r_c = k_c / n_c
    mean recall         R = Σ_c r_c / C,   Var R = Σ_c q_c (1 − q_c) / n_c / C²
                        with q_c = (k_c + 1) / (n_c + 2)
    NLL                 −Σ_i log p_i(label_i) / n
    ECE                 Σ_b n_b / n · |accuracy_b − score_b|

Wilson (1927); ECE as in Guo et al., "On Calibration of Modern Neural Networks" (2017):
of the prediction's score alone (top-label), in 15 bins (b, b + 1] / 15 of equal width.
There is no other in diffjax, and ``ECE_KIND`` stands wherever it does.
Images that failed count in nothing but their own number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffjax.choices import TEMPERATURE
from diffjax.classify.record import log_scores, settled_differences
from diffjax.classify.samples import few_shot
from diffjax.runs.outcomes import Outcomes, outcomes
from diffjax.runs.run import Run

Z = 1.959964  # 97.5 % of a normal distribution lie below
N_BINS = 15
ECE_KIND = f"top-label, {N_BINS} bins of equal width"
TOP = 5
N_CONFUSIONS = 10

Interval = tuple[float, float]


def wilson(k: int, n: int) -> Interval:
    """The 95 % interval of a proportion of which k of n were seen.

    It is sound for small n and at 0 and 1, and lies within [0, 1].

    Raises:
        ValueError: unless 0 ≤ k ≤ n and n ≥ 1.
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"{k} of {n} is no proportion")
    p = k / n
    centre = p + Z**2 / (2 * n)
    half = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def in_top(
    rankings: Int[np.ndarray, "n C"], labels: Int[np.ndarray, " n"], k: int
) -> Bool[np.ndarray, " n"]:
    """Whether each label is among the first k of its ranking."""
    found: np.ndarray = (rankings[:, :k] == labels[:, None]).any(axis=1)
    return found


def mean_recall(
    labels: Int[np.ndarray, " n"], predictions: Int[np.ndarray, " n"]
) -> tuple[float, Interval]:
    """The mean of the recalls of the classes that occur, and its 95 % interval.

    The interval is the normal approximation for a mean of independent binomial
    proportions. Their variances come from (k + 1) / (n + 2) rather than k / n: with
    one or two images a class, as the paper uses for ImageNet, the plain estimate would
    be zero for most classes and the interval far too narrow.

    Raises:
        ValueError: if there are no images.
    """
    if not len(labels):
        raise ValueError("there are no images")
    _, row, n = np.unique(labels, return_inverse=True, return_counts=True)
    k = np.bincount(row, labels == predictions, len(n))
    mean = float((k / n).mean())
    q = (k + 1) / (n + 2)
    half = Z * sqrt((q * (1 - q) / n).sum()) / len(n)
    return mean, (max(0.0, mean - half), min(1.0, mean + half))


def confusion_matrix(
    labels: Int[np.ndarray, " n"], predictions: Int[np.ndarray, " n"], n_classes: int
) -> Int[np.ndarray, "D D"]:
    """How often each class (row) was taken for each (column)."""
    cells = labels.astype(np.int64) * n_classes + predictions
    counts = np.bincount(cells, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def confusion_pairs(
    labels: Int[np.ndarray, " n"], predictions: Int[np.ndarray, " n"], most: int
) -> list[tuple[int, int, int]]:
    """(label, prediction, how often) of the most frequent mistakes, falling."""
    wrong = labels != predictions
    pairs = np.stack([labels[wrong], predictions[wrong]], axis=1)
    if not len(pairs):
        return []
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    rows = zip(kinds[order], counts[order], strict=True)
    return [(int(a), int(b), int(n)) for (a, b), n in rows]


def negative_log_likelihood(
    log_scores: Float[np.ndarray, "n C"], labels: Int[np.ndarray, " n"]
) -> float:
    """The mean of −log score of the label, in nats; infinite if a score is 0.

    Args:
        log_scores: logarithms of scores that sum to 1.
        labels: columns.
    """
    chosen = np.take_along_axis(log_scores, labels[:, None], axis=1)
    return float(-chosen.mean(dtype=np.float64))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """How often predictions of some score are right; B bins of equal width.

    Attributes:
        edges: the B + 1 of the bins, from 0 to 1; a bin holds its upper edge.
        counts: images in each.
        score: their mean score; NaN where there are none.
        accuracy: how many of them are right; NaN where there are none.
    """

    edges: Float[np.ndarray, " E"]
    counts: Int[np.ndarray, " B"]
    score: Float[np.ndarray, " B"]
    accuracy: Float[np.ndarray, " B"]

    @property
    def ece(self) -> float:
        """The expected calibration error, in [0, 1]."""
        seen = self.counts > 0
        gap = np.abs(self.accuracy - self.score)[seen]
        return float((gap * self.counts[seen]).sum() / self.counts.sum())


def reliability(
    scores: Float[np.ndarray, " n"],
    correct: Bool[np.ndarray, " n"],
    n_bins: int = N_BINS,
) -> Reliability:
    """Sort predictions into bins by their score.

    Args:
        scores: that of each prediction, in [0, 1].
        correct: whether it is right.
        n_bins: how many bins.

    Raises:
        ValueError: if there are no predictions.
    """
    if not len(scores):
        raise ValueError("there are no predictions")
    edges = np.linspace(0, 1, n_bins + 1)
    column = np.clip(np.searchsorted(edges, scores) - 1, 0, n_bins - 1)
    counts = np.bincount(column, minlength=n_bins)
    n = np.where(counts == 0, np.nan, counts)
    return Reliability(
        edges=edges,
        counts=counts,
        score=np.bincount(column, scores, n_bins) / n,
        accuracy=np.bincount(column, correct, n_bins) / n,
    )


def run_log_scores(found: Outcomes, temperature: float) -> Float[np.ndarray, "n C"]:
    """Logarithms of the scores, as ``Record.scores`` has them, in local order."""
    settled = settled_differences(found.differences, found.rankings)
    return log_scores(settled.astype(np.float64), temperature)


def temperature_of(run: Run) -> float:
    """The temperature that a run's own scores use."""
    return float(run.header["experiment"].get("temperature", TEMPERATURE))


def summary(run: Run) -> dict[str, Any]:
    """What summary.json holds: CLIP_benchmark's record, and more beside it.

    "metrics" are proportions in [0, 1]; one that has no meaning is None: acc5 with
    fewer than five candidates, everything without an image. NLL and ECE are those of
    the run's own temperature, over the images whose label is a candidate; NLL is None
    where a label's class shares no sample with the winner.
    """
    found = outcomes(run)
    n = len(found.labels)
    header = run.header
    seen = few_shot(header["experiment"], header["data"]["fingerprint"])
    metrics: dict[str, float | None] = dict.fromkeys(
        ("acc1", "acc5", "mean_per_class_recall", "nll", "ece")
    )
    intervals: dict[str, Sequence[float]] = {}
    if n:
        _accuracies(run, found, metrics, intervals)
    confusions = confusion_pairs(found.labels, found.predictions, N_CONFUSIONS)
    return {
        "dataset": header["data"]["name"],
        "model": header["model"]["name"],
        "pretrained": header["model"]["fingerprint"],
        "task": f"{seen.split()[0].replace('-', '') if seen else 'zeroshot'}"
        "_classification",
        **({"few_shot": seen} if seen else {}),
        "metrics": metrics,
        "language": "en",
        "intervals": intervals,
        "ece_kind": ECE_KIND,
        "temperature": temperature_of(run),
        "status": run.status,
        "images_selected": header["data"]["n"],
        "images": n,
        "failed_images": len(run.rows) - n,
        "labels_not_among_candidates": int((found.local_labels < 0).sum()),
        **narrowed(run),
        **({"limits": header["limits"]} if "limits" in header else {}),
        "evaluations_per_image": _mean(run, "evaluations"),
        "seconds_per_image": _mean(run, "seconds"),
        "confusions": [
            {
                "label": run.class_names[label],
                "prediction": run.class_names[prediction],
                "count": count,
            }
            for label, prediction, count in confusions
        ],
    }


def narrowed(run: Run) -> dict[str, Any]:
    """ "prefilter" and "shortlist", where there was one, and what a decision cost.

    Their keys: what the header says of them; recall, the share of images whose label
    they left, and its interval; classes_per_image; acc1_of_these, the accuracy on
    those images. What is a share of no images is None. A class that a shortlist left
    out has seen no sample. Where the header knows FLOPs, "flops_per_image" are those
    of all evaluations and of the prefilter, whose own are its "flops".
    """
    experiment, costs = run.header["experiment"], run.header.get("flops")
    good, found = run.good, dict[str, Any]()
    n = len(good)
    if isinstance(described := experiment.get("prefilter"), dict):
        left = good["candidates"].to_pylist()
        found["prefilter"] = described | _left(good, left)
    if n and isinstance(described := experiment.get("shortlist"), dict):
        classes = np.asarray(run.classes)
        seen = good["n_samples"].to_pylist()
        left = [classes[np.asarray(each) > 0].tolist() for each in seen]
        found["shortlist"] = described | _left(good, left)
    known = isinstance(costs, dict) and {"evaluation", "prefilter"} <= set(costs)
    evaluations = _mean(run, "evaluations")
    if known and evaluations is not None:
        assert isinstance(costs, dict)
        prefilter = float(costs["prefilter"])
        found["flops_per_image"] = evaluations * float(costs["evaluation"]) + prefilter
        if prefilter and "prefilter" in found:
            found["prefilter"]["flops"] = prefilter
    return found


def _left(good: Any, left: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How often the label is among what was left of the classes of each image."""
    labels, predictions = (good[c].to_pylist() for c in ("label", "prediction"))
    each = list(zip(labels, predictions, left, strict=True))
    kept = [label == prediction for label, prediction, among in each if label in among]
    n, k = len(each), len(kept)
    return {
        "recall": k / n if n else None,
        "recall_interval": wilson(k, n) if n else None,
        "classes_per_image": sum(map(len, left)) / n if n else None,
        "acc1_of_these": sum(kept) / k if k else None,
    }


def _kept(run: Run) -> Bool[np.ndarray, " n"]:
    """Whether a prefilter, if there was one, left each label: others rank by chance."""
    each = zip(*(run.good[c].to_pylist() for c in ("label", "candidates")), strict=True)
    return np.array([among is None or label in among for label, among in each], bool)


def _accuracies(
    run: Run,
    found: Outcomes,
    metrics: dict[str, float | None],
    intervals: dict[str, Sequence[float]],
) -> None:
    """Fill in metrics and their intervals."""
    n = len(found.labels)
    right = {"acc1": found.correct}
    if len(run.classes) >= TOP:
        right["acc5"] = in_top(found.rankings, found.local_labels, TOP) & _kept(run)
    for loss, predictions in found.also.items():
        right[f"acc1_{loss}"] = predictions == found.labels
    for name, correct in right.items():
        k = int(correct.sum())
        metrics[name], intervals[name] = k / n, wilson(k, n)
    recall, interval = mean_recall(found.labels, found.predictions)
    metrics["mean_per_class_recall"] = recall
    intervals["mean_per_class_recall"] = interval

    known = found.local_labels >= 0
    if known.any():
        logs = run_log_scores(found, temperature_of(run))[known]
        nll = negative_log_likelihood(logs, found.local_labels[known])
        metrics["nll"] = nll if np.isfinite(nll) else None
        scores = np.exp(logs.max(axis=1))
        metrics["ece"] = reliability(scores, found.correct[known]).ece


def _mean(run: Run, column: str) -> float | None:
    """Over the images that have it; None if none has."""
    values = run.rows[column].drop_null().to_numpy()
    return float(values.mean()) if len(values) else None
