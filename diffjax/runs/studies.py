"""What the errors of a complete run say about samples: three studies of the paper's.

From the error e[i, c, t, k] of image i, class c, timestep t and the k-th noise there:

    variance   how much errors differ over noises, and how much less the differences
               between classes do (Fig. 2)
    timestep   the accuracy of deciding by one timestep alone (Fig. 3)
    samples    the accuracy against the number of samples, by where they lie (Fig. 4)

Each is a table: columns by name. Intervals are Wilson's, 95 %. Figures are those of Li
et al. 2023.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffjax.classify.samples import few_shot
from diffjax.errors import DiffjaxError
from diffjax.runs.metrics import wilson
from diffjax.runs.outcomes import check_results, outcomes
from diffjax.runs.rescoring import saved_errors
from diffjax.runs.run import Run
from diffjax.runs.weights import Labelled, Saved, weights_by_name

Table = dict[str, list[float | int | str]]

REMEDY = (
    "Evaluate with --strategy exhaustive:n_samples=N:n_trials=K and --save-errors, and "
    "let it finish."
)
N_SIZES = 10  # points of a curve over numbers of samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """All errors of a complete run.

    Attributes:
        values: e of n images, C classes, T timesteps and K noises.
        timesteps: ascending.
        labels: the local class of each image.
        n_timesteps: how many the model's schedule has.
    """

    values: Float[np.ndarray, "n C T K"]
    timesteps: Int[np.ndarray, " T"]
    labels: Int[np.ndarray, " n"]
    n_timesteps: int

    def rate(self, means: Float[np.ndarray, "n C"]) -> tuple[float, float, float]:
        """The accuracy of deciding by these means, and its interval."""
        right = int((means.argmin(axis=1) == self.labels).sum())
        return right / len(means), *wilson(right, len(means))


def read_errors(run: Run) -> Errors:
    """The saved errors of the images whose label is a candidate.

    Raises:
        DiffjaxError: if a cell was not evaluated, images differ in their samples, or
            classes have several prompts.
    """
    check_results(run)
    if seen := few_shot(run.config):
        raise DiffjaxError(
            f"{run.path} is {seen}, and a study is of samples that are spread over "
            f"timesteps. {REMEDY}"
        )
    found = outcomes(run)
    if (n := len(run.prompts.classidx)) != len(run.classes):
        raise DiffjaxError(
            f"{run.path} has {n} prompts for {len(run.classes)} classes; a study takes "
            "one a class, as --template gives."
        )
    values: list[np.ndarray] = []
    labels: list[int] = []
    timesteps = np.zeros(0, np.int64)
    loss = run.header["experiment"]["loss"]
    for label, saved in zip(found.local_labels, saved_errors(run, loss), strict=False):
        if np.isnan(saved.errors).any():
            raise DiffjaxError(
                f"{run.path}: not every class was evaluated on every sample. {REMEDY}"
            )
        order = np.lexsort((saved.noises, saved.timesteps))
        every, counts = np.unique(saved.timesteps, return_counts=True)
        if len(set(counts.tolist())) > 1 or (values and len(order) != timesteps.size):
            raise DiffjaxError(
                f"{run.path}: images or timesteps differ in their number of samples. "
                f"{REMEDY}"
            )
        timesteps = saved.timesteps[order]
        if label < 0:
            continue
        table = saved.errors[np.argsort(run.prompts.classidx)][:, order]
        values.append(table.astype(np.float64).reshape(len(table), len(every), -1))
        labels.append(int(label))
    if not values:
        raise DiffjaxError(f"{run.path} has no image with errors and a known label.")
    return Errors(
        values=np.stack(values),
        timesteps=np.unique(timesteps),
        labels=np.array(labels),
        n_timesteps=int(run.header["model"]["n_timesteps"]),
    )


def variance(errors: Errors) -> Table:
    """The spread over noises, by timestep: of errors, and of differences to the label.

    Both are root mean squares, over images and classes (the label's own left out), of
    standard deviations over the noises of a timestep.

    Raises:
        DiffjaxError: if there is one noise per timestep only.
    """
    if errors.values.shape[3] < 2:
        raise DiffjaxError(
            "A spread needs two noises per timestep or more; there is one. Evaluate "
            "with --strategy exhaustive:n_samples=20:n_trials=8 and --save-errors."
        )
    images = np.arange(len(errors.labels))
    others = np.ones(errors.values.shape[:2], bool)
    others[images, errors.labels] = False
    own = errors.values[images, errors.labels][:, None]

    def spread(values: Float[np.ndarray, "n C T K"]) -> Float[np.ndarray, " T"]:
        squares = values.var(axis=3, ddof=1)[others]
        rms: np.ndarray = np.sqrt(squares.mean(axis=0))
        return rms

    whole, paired = spread(errors.values), spread(errors.values - own)
    if not paired.all():
        t = errors.timesteps[np.argmin(paired)]
        raise DiffjaxError(
            f"No noise changes a difference at timestep {t}, which only errors do that "
            f"are not a model's. {REMEDY}"
        )
    return {
        "timestep": errors.timesteps.tolist(),
        "sd_of_errors": whole.tolist(),
        "sd_of_differences": paired.tolist(),
        "ratio": (whole / paired).tolist(),
    }


def timestep(errors: Errors) -> Table:
    """The accuracy of deciding by the mean over the noises of one timestep alone."""
    rates = [
        errors.rate(errors.values[:, :, place].mean(axis=2))
        for place in range(len(errors.timesteps))
    ]
    accuracy, low, high = zip(*rates, strict=True)
    return {
        "timestep": errors.timesteps.tolist(),
        "samples": [errors.values.shape[3]] * len(rates),
        "accuracy": list(accuracy),
        "low": list(low),
        "high": list(high),
    }


def samples(errors: Errors) -> Table:
    """The accuracy by the number of samples a class, for four ways to place them.

    even      over all timesteps; the first noise of each, then the second, …
    single    the noises of the middle timestep
    centred   the timesteps next to the middle, one noise each, then the second, …
    weighted  even, with weights over timesteps learned from the other images' labels;
              left out, with a warning, where there is nothing to learn from
    """
    _, C, T, K = errors.values.shape
    middle = np.argsort(
        np.abs(errors.timesteps - errors.n_timesteps / 2), kind="stable"
    )
    try:
        weights = _learned(errors)
    except DiffjaxError as error:
        warnings.warn(f"no weights over timesteps: {error}", stacklevel=2)
        weights = None
    flat = errors.values.reshape(*errors.values.shape[:2], T * K)

    def even(n: int) -> Int[np.ndarray, " n"]:
        whole, rest = divmod(n, T)
        spread = (2 * np.arange(rest) + 1) * T // (2 * max(rest, 1))
        full = (np.arange(T)[None] * K + np.arange(whole)[:, None]).ravel()
        return np.concatenate([full, spread * K + whole])

    def centred(n: int) -> Int[np.ndarray, " n"]:
        place = np.arange(n)
        chosen: np.ndarray = middle[place % T] * K + place // T
        return chosen

    ways: dict[str, tuple[int, Callable[[int], np.ndarray]]] = {
        "even": (T * K, even),
        "single": (K, lambda n: middle[0] * K + np.arange(n)),
        "centred": (T * K, centred),
    }
    if weights is not None:
        ways["weighted"] = (T * K, even)
    rows = []
    for way, (most, columns) in ways.items():
        sizes = np.geomspace(1, most, min(N_SIZES, most)).round().astype(int)
        for n in np.unique(sizes).tolist():
            chosen = columns(n)
            values = flat[:, :, chosen]
            if way == "weighted" and weights is not None:
                # a few samples may all have the weight 0: they decide as they are
                factor = weights[:, errors.timesteps[chosen // K]]
                factor = np.where(factor.sum(axis=1, keepdims=True) > 0, factor, 1.0)
                values = values * factor[:, None]
            rows.append((way, n, n * C, *errors.rate(values.mean(axis=2))))
    names = ("where", "samples", "evaluations", "accuracy", "low", "high")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


STUDIES: dict[str, Callable[[Errors], Table]] = {
    "variance": variance,
    "timestep": timestep,
    "samples": samples,
}


def _learned(errors: Errors) -> Float[np.ndarray, "n T_model"]:
    """Of each image, weights for all timesteps of the schedule."""
    n, C, T, K = errors.values.shape
    timesteps, noises = np.repeat(errors.timesteps, K), np.arange(T * K)
    tables = errors.values.reshape(n, C, T * K).astype(np.float32)
    labelled = [
        Labelled(
            saved=Saved(timesteps=timesteps, noises=noises, errors=table),
            rows=np.arange(C),
            label=int(label),
        )
        for table, label in zip(tables, errors.labels, strict=True)
    ]
    found = weights_by_name("learned", labelled, errors.n_timesteps)
    weights: np.ndarray = found.by_timestep[found.which]
    return weights
