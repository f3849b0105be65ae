"""What a run shows besides its accuracy: confusions, mistakes, curves.

With e[p, s] the error of prompt p on sample s, a class c being represented by its best
prompt, y the label and o the best-ranked class besides it:

    error curve     d[s] = e[o, s] − e[y, s], averaged over an image's samples in a bin
                    of t, then over images: mean ± 1.96 standard deviations / √images
    sample curve    accuracy of argmin_c Σ e[c, s] over n of the S samples, spread
                    evenly: s = ⌊(i + ½) S / n⌋

Above zero the label explains the noise better than any other class. Both need the
errors of a run (``--save-errors``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffjax.runs.metrics import (
    Z,
    confusion_matrix,
    confusion_pairs,
    run_log_scores,
    temperature_of,
    wilson,
)
from diffjax.runs.outcomes import Outcomes
from diffjax.runs.rescoring import own_weights, rank_saved, saved_errors
from diffjax.runs.run import Run
from diffjax.runs.weights import Saved
from diffjax.strategies.base import ErrorTable, best_prompts

MAX_CLASSES = 16  # a larger matrix cannot be read
MOST_CONFUSED = 12
N_MISTAKES = 12
N_BINS = 10
N_POINTS = 12


class Mistake(NamedTuple):
    """A wrong prediction.

    Attributes:
        image: what the data set calls it.
        label, prediction: names of classes.
        score: the score of the prediction.
        label_score: of the label; None if it was no candidate.
        margin, margin_error: Δ of the runner-up and its standard error, if known.
        thumbnail: JPEG, if saved.
    """

    image: str
    label: str
    prediction: str
    score: float
    label_score: float | None
    margin: float | None
    margin_error: float | None
    thumbnail: bytes | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusions:
    """How often some classes were taken for one another.

    Attributes:
        names: the names of the k classes that are shown.
        counts: images of each class (row) that were taken for each (column).
        elsewhere: images of each class that were taken for a class not shown.
        n_classes: how many classes occur in the run, as label or prediction.
        pairs: (label, prediction, how often) of the most frequent mistakes of all.
    """

    names: tuple[str, ...]
    counts: Int[np.ndarray, "k k"]
    elsewhere: Int[np.ndarray, " k"]
    n_classes: int
    pairs: tuple[tuple[str, str, int], ...]

    @property
    def totals(self) -> Int[np.ndarray, " k"]:
        """Images of each class."""
        totals: np.ndarray = self.counts.sum(axis=1) + self.elsewhere
        return totals


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorCurve:
    """d over the timestep, in b bins that hold samples, ascending.

    Attributes:
        timesteps: mean timestep of each bin's samples.
        mean: over images, in units of the error.
        low, high: ends of the 95 % interval; NaN below two images.
        images: with samples in the bin.
    """

    timesteps: Float[np.ndarray, " b"]
    mean: Float[np.ndarray, " b"]
    low: Float[np.ndarray, " b"]
    high: Float[np.ndarray, " b"]
    images: Int[np.ndarray, " b"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleCurve:
    """Accuracy after fewer samples than were evaluated.

    Attributes:
        n_samples: of each prompt, ascending; the last is all.
        evaluations: per image.
        accuracy: in [0, 1].
        low, high: ends of Wilson's 95 % interval.
        images: that it was computed from.
    """

    n_samples: Int[np.ndarray, " k"]
    evaluations: Int[np.ndarray, " k"]
    accuracy: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    images: int


def confusions(found: Outcomes, class_names: tuple[str, ...]) -> Confusions:
    """The confusion matrix of all classes that occur, or of the most confused ones."""
    labels, predictions = found.labels, found.predictions
    occur = np.union1d(labels, predictions)
    pairs = confusion_pairs(labels, predictions, len(labels))
    chosen = occur
    if len(occur) > MAX_CLASSES:
        busiest = dict.fromkeys(c for a, b, _ in pairs for c in (a, b))
        # without a mistake the classes are as good as any
        chosen = np.sort([*busiest, *np.setdiff1d(occur, [*busiest])][:MOST_CONFUSED])
    # classes that are not shown share a last column
    number = np.full(len(class_names), len(chosen))
    number[chosen] = np.arange(len(chosen))
    shown = number[labels] < len(chosen)
    k = len(chosen)
    counts = confusion_matrix(number[labels[shown]], number[predictions[shown]], k + 1)
    return Confusions(
        names=tuple(class_names[c] for c in chosen),
        counts=counts[:k, :k],
        elsewhere=counts[:k, k],
        n_classes=len(occur),
        pairs=tuple(
            (class_names[a], class_names[b], n) for a, b, n in pairs[:MOST_CONFUSED]
        ),
    )


def confident_mistakes(
    run: Run, found: Outcomes, most: int = N_MISTAKES
) -> list[Mistake]:
    """The wrong predictions with the highest scores; among equals, margins."""
    wrong = np.flatnonzero(~found.correct)
    scores = np.exp(run_log_scores(found, temperature_of(run))[wrong])
    columns = ["id", "thumbnail", "margin", "margin_error"]
    rows, best = run.good.select(columns).take(wrong), scores.max(axis=1)
    margins = rows["margin"].to_numpy().astype(np.float64)
    order = np.lexsort((-np.nan_to_num(margins), -best))[:most]
    mistakes = []
    for row, kept in zip(order, rows.take(order).to_pylist(), strict=True):
        i = wrong[row]
        local = int(found.local_labels[i])
        mistakes.append(
            Mistake(
                image=str(kept["id"]),
                label=run.class_names[found.labels[i]],
                prediction=run.class_names[found.predictions[i]],
                score=float(best[row]),
                label_score=float(scores[row, local]) if local >= 0 else None,
                margin=_known(kept["margin"]),
                margin_error=_known(kept["margin_error"]),
                thumbnail=kept["thumbnail"],
            )
        )
    return mistakes


def error_curve(run: Run, found: Outcomes) -> ErrorCurve | None:
    """d over t; None without saved errors, or if no label is a candidate."""
    if not run.has_errors:
        return None
    n_timesteps = int(run.header["model"]["n_timesteps"])
    classidx = np.asarray(run.prompts.classidx)
    means, timesteps, samples = [], np.zeros(N_BINS), np.zeros(N_BINS)
    for label, ranking, saved in zip(
        found.local_labels, found.rankings, _saved(run), strict=False
    ):
        if label < 0:
            continue
        other = ranking[0] if ranking[0] != label else ranking[1]
        best = best_prompts(rank_saved(ErrorTable(saved.errors)), classidx)
        d = saved.errors[best[other]].astype(np.float64) - saved.errors[best[label]]
        seen = ~np.isnan(d)
        t = saved.timesteps
        bins = t[seen].astype(np.int64) * N_BINS // n_timesteps
        n = np.bincount(bins, minlength=N_BINS)
        samples += n
        timesteps += np.bincount(bins, t[seen], N_BINS)
        means.append(np.bincount(bins, d[seen], N_BINS) / np.where(n, n, np.nan))
    held = samples > 0
    if not held.any():
        return None
    table = np.array(means)[:, held]
    images = (~np.isnan(table)).sum(axis=0)
    mean = np.nanmean(table, axis=0)
    squares = np.nansum((table - mean) ** 2, axis=0)
    spread = np.sqrt(squares / np.where(images > 1, images - 1, np.nan) / images)
    return ErrorCurve(
        timesteps=timesteps[held] / samples[held],
        mean=mean,
        low=mean - Z * spread,
        high=mean + Z * spread,
        images=images,
    )


def sample_curve(run: Run, found: Outcomes) -> SampleCurve | None:
    """Accuracy after n samples; None unless all errors were evaluated and saved."""
    if own_weights(run.header):  # fewer of learned samples are not the fewer learned
        return None
    classidx = np.asarray(run.prompts.classidx)
    n_samples = np.zeros(0, np.int64)
    right, images = np.zeros(0, np.int64), 0
    for label, saved in zip(found.local_labels, _saved(run), strict=False):
        errors = saved.errors
        if not errors.size or np.isnan(errors).any():
            return None
        if not images:
            S = errors.shape[1]
            n_samples = np.unique(np.geomspace(1, S, N_POINTS).round().astype(np.int64))
            columns = [(2 * np.arange(n) + 1) * S // (2 * n) for n in n_samples]
            right = np.zeros(len(n_samples), np.int64)
        elif errors.shape[1] != S:
            return None
        images += 1
        precise = errors.astype(np.float64)
        winners = [classidx[precise[:, some].mean(axis=1).argmin()] for some in columns]
        right += np.array(winners) == label
    if len(n_samples) < 2:  # of one sample there is nothing before
        return None
    intervals = np.array([wilson(int(k), images) for k in right])
    return SampleCurve(
        n_samples=n_samples,
        evaluations=n_samples * len(classidx),
        accuracy=right / images,
        low=intervals[:, 0],
        high=intervals[:, 1],
        images=images,
    )


def _saved(run: Run) -> Iterator[Saved]:
    """What was saved of each image that did not fail; nothing where nothing was."""
    if run.has_errors:
        yield from saved_errors(run, run.header["experiment"]["loss"])


def _known(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
