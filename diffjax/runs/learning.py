"""Samples learned from labelled images: the few, with weights, that decide best.

Of errors e_i[c, s] of n labelled images, on the S samples of a run whose noise all
images share, a choice A of samples has the weights v ≥ 0 that minimise

    Σ_i −log p_i(y_i) + Σ_s (v_s − 1)² / 2,     p_i(c) ∝ exp(−Σ_s v_s e_i[c, s] / |A| τ)

over s in A, which is convex; the second term says that weights are all the same unless
the images say otherwise (``weights.learn``). A grows by one sample at a time: by the
one that, with the best of a few weights beside those that there are, lowers the first
term most. (An L1 norm, which makes the choice convex as well, was tried: at up to ten
samples it chose worse.) A sample whose weight is zero is left out at the end.

What a choice is worth is measured on images that had no say in it: the images are dealt
into folds, and each is decided by samples and weights of the others. Beside it stands
what as many samples do that are spread evenly, with one weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.classify.samples import LearnedSamples, file_digest
from diffjax.errors import DiffjaxError
from diffjax.runs.calibration import fit_temperature
from diffjax.runs.metrics import Z, wilson
from diffjax.runs.outcomes import check_results, outcomes
from diffjax.runs.rescoring import rank_saved, saved_errors
from diffjax.runs.run import Run
from diffjax.runs.weights import learn
from diffjax.strategies.base import ErrorTable, Samples, best_prompts
from diffjax.strategies.orders import even_timesteps

FOLDS = 5
COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)  # in a curve
LEAST = 1e-6  # of the largest weight: less is none
MOST = 16  # samples that are tried
TRIED = np.geomspace(1 / 32, 2, 7)  # of what a further sample may weigh
REMEDY = (
    "Evaluate labelled images again with --noise shared, --save-errors and --strategy "
    "exhaustive:n_samples=64."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """The errors of labelled images on the same samples.

    Attributes:
        excess: by how much the error of each of C − 1 rivals exceeds the label's own.
        labels: the local class of each image.
        samples: S of them, by timestep and noise.
    """

    excess: Float[np.ndarray, "n c S"]
    labels: Int[np.ndarray, " n"]
    samples: Samples

    def among(self, classes: Sequence[int]) -> "Examples":
        """The images of some local classes, with these for rivals."""
        chosen = np.asarray(classes)
        images = np.flatnonzero(np.isin(self.labels, chosen))
        # rivals are in the order of the classes, without the label's own
        place = chosen[None] - (chosen[None] > self.labels[images, None])
        others = chosen[None] != self.labels[images, None]
        rivals = place[others].reshape(len(images), len(chosen) - 1)
        return Examples(
            excess=self.excess[images[:, None], rivals],
            labels=self.labels[images],
            samples=self.samples,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Some of the samples, and their weights.

    Attributes:
        samples: k places among the S, the largest weight first.
        weights: with a mean of 1.
    """

    samples: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]

    def right(self, excess: Float[np.ndarray, "n c S"]) -> np.ndarray:
        """Which images it decides rightly, bool [n]."""
        worst = (excess[:, :, self.samples] @ self.weights).min(axis=1)
        right: np.ndarray = worst > 0
        return right


def read_examples(run: Run) -> Examples:
    """The saved errors of a run's labelled images.

    Of a class of several prompts, the one with the smallest mean error counts.

    Raises:
        DiffjaxError: if images do not share their noise, or not every class was
            evaluated on the same samples.
    """
    check_results(run)
    if run.header["experiment"].get("noise", "image") == "image":
        raise DiffjaxError(
            f"{run.path}: each image has noise of its own, so that no sample is the "
            f"same for two of them and none can be learned. {REMEDY}"
        )
    classidx = np.asarray(run.prompts.classidx)
    excess, labels = [], []
    first: Samples | None = None
    loss = run.header["experiment"]["loss"]
    known = outcomes(run).local_labels
    for label, saved in zip(known, saved_errors(run, loss), strict=True):
        if np.isnan(saved.errors).any():
            raise DiffjaxError(
                f"{run.path}: not every class was evaluated on every sample. {REMEDY}"
            )
        order = np.lexsort((saved.noises, saved.timesteps))
        here = Samples(timesteps=saved.timesteps[order], noises=saved.noises[order])
        first = first or here
        if not (
            np.array_equal(first.timesteps, here.timesteps)
            and np.array_equal(first.noises, here.noises)
        ):
            raise DiffjaxError(f"{run.path}: images differ in their samples. {REMEDY}")
        if label < 0:
            continue
        rows = best_prompts(rank_saved(ErrorTable(saved.errors)), classidx)
        errors = saved.errors[rows][:, order].astype(np.float64)
        excess.append(np.delete(errors, label, axis=0) - errors[label])
        labels.append(int(label))
    _check_enough(run, len(labels))
    assert first is not None
    return Examples(excess=np.stack(excess), labels=np.array(labels), samples=first)


def _check_enough(run: Run, n: int) -> None:
    """Raise DiffjaxError unless there are images for every fold."""
    if n < FOLDS:
        raise DiffjaxError(
            f"{run.path} has {n} images whose label is among the classes; it takes "
            f"{FOLDS} at least, and tens of each class to be of use."
        )


def choose(excess: Float[np.ndarray, "n c S"], most: int) -> list[Choice]:
    """The best samples of 1, 2, … ``most``, each choice with one more than the last.

    Fewer, where these decide all images rightly.

    Raises:
        DiffjaxError: if the errors point to the labels no more than by chance.
    """
    size = 1 / fit_temperature(excess.mean(axis=2))  # of v, about, in all
    chosen: list[int] = []
    known = np.zeros(excess.shape[:2])  # Σ v_s e[c, s] of those that are chosen
    choices: list[Choice] = []
    for _ in range(most):
        trials = np.stack(
            [surprise(known[:, :, None] + v * excess) for v in TRIED * size]
        )
        trials[:, chosen] = np.inf
        chosen.append(int(trials.min(axis=0).argmin()))
        mine = excess[:, :, chosen]
        try:
            weights = learn(mine / len(chosen))
            known = mine @ weights / fit_temperature(mine @ weights)
        except DiffjaxError:  # all images are right already
            if not choices:
                raise
            break
        order = np.argsort(-weights, kind="stable")
        choices.append(
            Choice(
                samples=np.array(chosen)[order],
                weights=weights[order] / weights.mean(),
            )
        )
    return choices


def surprise(excess: Float[np.ndarray, "n c ..."]) -> Float[np.ndarray, "..."]:
    """The mean of −log p(label) over images."""
    from scipy.special import logsumexp

    each = np.logaddexp(0, logsumexp(-excess, axis=1))  # 0: the label's own
    mean: np.ndarray = each.mean(axis=0)
    return mean


def even(n_samples: int, count: int) -> Choice:
    """So many samples spread evenly, with one weight."""
    return Choice(samples=even_timesteps(count, n_samples), weights=np.ones(count))


def curve(
    examples: Examples, most: int = MOST, also: int | None = None
) -> list[dict[str, Any]]:
    """The accuracy by the number of samples: learned by cross-validation, and even.

    Returns:
        A row for each number: "samples", "learned" and "even" (as proportions of the
        images, None where not known), each with its Wilson interval, "…_interval".
    """
    n, _, S = examples.excess.shape
    counts = sorted(
        {*(k for k in COUNTS if k < most), min(most, S), *filter(None, [also])}
    )
    right = {count: np.zeros(n, bool) for count in counts}
    for fold in folds(examples.labels):
        others = np.setdiff1d(np.arange(n), fold)
        choices = choose(examples.excess[others], counts[-1])
        for count in counts:
            choice = choices[min(count, len(choices)) - 1]
            right[count][fold] = choice.right(examples.excess[fold])
    rows = []
    for count in counts:
        plain = int(even(S, count).right(examples.excess).sum())
        learned = int(right[count].sum())
        rows.append(
            {
                "samples": count,
                "learned": learned / n,
                "learned_interval": wilson(learned, n),
                "even": plain / n,
                "even_interval": wilson(plain, n),
            }
        )
    return rows


def folds(labels: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " m"]]:
    """The images dealt into ``FOLDS``, those of each class evenly."""
    shuffled = np.random.default_rng(0).permutation(len(labels))
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return [np.sort(dealt[k::FOLDS]) for k in range(FOLDS)]


def fewest(rows: Sequence[Mapping[str, Any]]) -> int:
    """The fewest samples that are not worse than the best number by its error."""
    best = max(rows, key=lambda row: float(row["learned"]))
    low, high = best["learned_interval"]
    enough = best["learned"] - (high - low) / (2 * Z)
    return next(int(row["samples"]) for row in rows if row["learned"] >= enough)


def learn_samples(
    run: Run,
    *,
    count: int | None = None,
    most: int = MOST,
    classes: Sequence[int] | None = None,
    noise_file: Path | None = None,
) -> tuple[LearnedSamples, list[dict[str, Any]]]:
    """The samples that decide a run's images best, and the curve that says how well.

    Args:
        run: with saved errors of labelled images under shared noise.
        count: how many samples; None for as few as are as good as more.
        most: how many are tried.
        classes: local classes to learn from; None for all.
        noise_file: of the run's noise, where it has one.

    Raises:
        DiffjaxError: if the run is not such a run, or has too few images.
    """
    examples = read_examples(run)
    _check_noise(run, noise_file)
    names = [run.class_names[c] for c in run.classes]
    if classes is not None:
        examples = examples.among(classes)
        _check_enough(run, len(examples.labels))
        names = [names[c] for c in classes]
    S = len(examples.samples)
    if count is not None and not 1 <= count <= S:
        raise DiffjaxError(
            f"{count} samples cannot be chosen of the {S} that {run.path} has; choose "
            f"1 to {S}."
        )
    rows = curve(examples, min(S, max(most, count or 1)), also=count)
    count = count or fewest(rows)
    choice = choose(examples.excess, count)[-1]
    weighted = examples.excess[:, :, choice.samples] @ choice.weights
    experiment, model, data = (
        run.header[part] for part in ("experiment", "model", "data")
    )
    split = data.get("split")
    row = next(row for row in rows if row["samples"] == count)
    keep = choice.weights > LEAST * choice.weights.max()
    choice = Choice(samples=choice.samples[keep], weights=choice.weights[keep])
    return LearnedSamples(
        timesteps=tuple(examples.samples.timesteps[choice.samples].tolist()),
        noises=tuple(examples.samples.noises[choice.samples].tolist()),
        weights=tuple(choice.weights.tolist()),
        noise=experiment["noise"],
        seed=int(experiment.get("seed", 0)),
        noise_file=None if noise_file is None else str(noise_file),
        loss=experiment["loss"],
        space=experiment.get("space", "noise"),
        temperature=fit_temperature(weighted / len(choice.samples)),
        model={"name": model["name"], "fingerprint": model["fingerprint"]},
        resolution=int(experiment["resolution"]),
        learned_on={
            "data": " ".join(filter(None, (data["name"], split))),
            "data_fingerprint": data["fingerprint"],
            "classes": names,
            "images": len(examples.labels),
        },
        accuracy={
            "cross_validated": row["learned"],
            "interval": list(row["learned_interval"]),
            "folds": FOLDS,
        },
    ), rows


def _check_noise(run: Run, file: Path | None) -> None:
    """Raise DiffjaxError unless a file of noise is given where the run had one."""
    noise = run.header["experiment"]["noise"]
    if file is None and noise != "shared":
        raise DiffjaxError(
            f"{run.path} read its noise from a file ({noise}), which the samples need: "
            "give it by --noise FILE."
        )
    if file is not None and not file.is_file():
        raise DiffjaxError(
            f"There is no file {file}: give the one that {run.path} read its noise "
            "from, or no --noise if that was shared."
        )
    if file is not None and f"sha256 {file_digest(file)}" != noise:
        raise DiffjaxError(
            f"{file} does not hold the noise of {run.path}, which is {noise}."
        )
