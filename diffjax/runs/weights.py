"""Weights over timesteps, for the mean of saved errors.

    e_c = Σ_s w(t_s) e[c, s] / Σ_s w(t_s),     t in [0, T)

    uniform       w(t) = 1
    exp           w(t) = exp(−7 t / T)
    inverse-sd    w(t) = 1 / sd(t), the standard deviation of all saved errors at t,
                  over images and classes alike
    learned       w(t) = v_b of the bin b = ⌊B t / T⌋, v ≥ 0, which maximises

                  Σ_i log p_i(label_i) − Σ_b (v_b − 1)² / 2,
                  p_i(c) ∝ exp(−Σ_s v_b(s) e_i[c, s] / (S τ)),

with the τ that is best for v = 1. The second term says that weights are uniform unless
the images say otherwise (a normal prior of standard deviation 1). Weights are learned k
times, each time without one of k parts of the images, which the weights then decide: no
image's label has a say in its own decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffjax.errors import DiffjaxError, unknown
from diffjax.runs.calibration import fit_temperature

DECAY = 7.0
WEIGHTS = ("uniform", "exp", "inverse-sd", "learned")
N_FOLDS = 5
N_BINS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """What was saved of one image.

    Attributes:
        timesteps: those of the S samples.
        noises: which of the image's noises each sample used.
        errors: of each prompt, NaN where not evaluated.
    """

    timesteps: Int[np.ndarray, " S"]
    noises: Int[np.ndarray, " S"]
    errors: Float[np.ndarray, "P S"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Weights for each image; up to a factor.

    Attributes:
        by_timestep: K sets of weights for the T timesteps.
        which: the set that each of the n images uses.
        by_sample: further factors of some (timestep, noise) pairs.
    """

    by_timestep: Float[np.ndarray, "K T"]
    which: Int[np.ndarray, " n"]
    by_sample: Mapping[tuple[int, int], float] | None = None

    def of(
        self,
        image: int,
        timesteps: Int[np.ndarray, " S"],
        noises: Int[np.ndarray, " S"],
    ) -> np.ndarray:
        """The weights of an image's samples, float64 [S], with a mean of 1.

        Raises:
            DiffjaxError: if all are zero.
        """
        chosen = self.by_timestep[self.which[image], timesteps]
        if self.by_sample is not None:
            pairs = zip(timesteps.tolist(), noises.tolist(), strict=True)
            chosen = chosen * [self.by_sample.get(pair, 1.0) for pair in pairs]
        if not chosen.sum() > 0:
            raise DiffjaxError(
                "Every timestep of these samples got the weight 0: their errors do "
                "not tell the classes apart. Use other weights or more samples."
            )
        weights: np.ndarray = chosen / chosen.mean()
        return weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """What learning needs of one image.

    Attributes:
        saved: its errors.
        rows: the prompt that stands for each of the C classes.
        label: the local class; −1 where the label is not a candidate.
    """

    saved: Saved
    rows: Int[np.ndarray, " C"]
    label: int


def weights_by_name(
    name: str,
    images: Sequence[Labelled],
    n_timesteps: int,
    *,
    n_folds: int = N_FOLDS,
    n_bins: int = N_BINS,
) -> Weights:
    """The weights of that name for some images.

    Args:
        name: one of ``WEIGHTS``.
        images: all images of a run.
        n_timesteps: T.
        n_folds: k, for learned weights.
        n_bins: B, for learned weights.

    Raises:
        DiffjaxError: if there are no such weights, or the images do not suffice.
    """
    match name:
        case "uniform":
            weights = np.ones(n_timesteps)
        case "exp":
            weights = np.exp(-DECAY * np.arange(n_timesteps) / n_timesteps)
        case "inverse-sd":
            weights = _inverse_sd([image.saved for image in images], n_timesteps)
        case "learned":
            return learned(images, n_timesteps, n_folds=n_folds, n_bins=n_bins)
        case _:
            raise unknown("weights", name, WEIGHTS)
    which = np.zeros(len(images), np.int64)
    return Weights(by_timestep=weights[None], which=which)


def _inverse_sd(images: Sequence[Saved], n_timesteps: int) -> np.ndarray:
    """Timesteps without errors get a weight of 0, which no sample will ask for."""
    counts, means = np.zeros(n_timesteps), np.zeros(n_timesteps)
    squares = np.zeros(n_timesteps)  # of deviations from the mean
    for saved in images:
        seen = ~np.isnan(saved.errors)
        # of this image: counts, means and squares by timestep, then merged (Chan 1979)
        t = np.broadcast_to(saved.timesteps, seen.shape)[seen]
        errors = saved.errors[seen].astype(np.float64)
        n = np.bincount(t, minlength=n_timesteps)
        mean = np.bincount(t, errors, n_timesteps) / np.maximum(n, 1)
        total = np.maximum(counts + n, 1)
        squares += np.bincount(t, (errors - mean[t]) ** 2, n_timesteps)
        squares += (mean - means) ** 2 * counts * n / total
        means += (mean - means) * n / total
        counts += n
    poor = np.flatnonzero((counts > 0) & ~(squares > 0))
    if len(poor):
        raise DiffjaxError(
            f"The errors at timestep {poor[0]} do not vary, so there is no weight "
            "1/sd. Use other weights, or a run of more images."
        )
    sd = np.sqrt(squares / np.maximum(counts - 1, 1))
    return np.divide(1, sd, out=np.zeros(n_timesteps), where=sd > 0)


def learned(
    images: Sequence[Labelled], n_timesteps: int, *, n_folds: int, n_bins: int
) -> Weights:
    """Weights on bins of timesteps, for each image from the others.

    Only classes that saw all samples of their image take part, since means over
    different samples do not compare. An image whose own class is not among them
    teaches nothing.

    Raises:
        DiffjaxError: if too few images teach something.
    """
    if not 1 <= n_bins <= n_timesteps:
        raise DiffjaxError(
            f"{n_bins} bins cannot be made of {n_timesteps} timesteps; use 1 to "
            f"{n_timesteps}."
        )
    if not 2 <= n_folds <= len(images):
        raise DiffjaxError(
            f"{len(images)} images cannot be cut into {n_folds} parts to learn "
            "weights; use 2 parts or more, with an image for each."
        )
    bins = np.arange(n_timesteps) * n_bins // n_timesteps
    found = [_excess(image, bins, n_bins) for image in images]
    teaches = np.array([excess is not None for excess in found])
    widest = max((len(e) for e in found if e is not None), default=0)
    excess = np.full((len(images), widest, n_bins), np.inf)
    for i, each in enumerate(found):
        if each is not None:
            excess[i, : len(each)] = each
    # shuffled, since data sets are often sorted by class
    fold = np.random.default_rng(0).permutation(len(images)) % n_folds
    by_bin = []
    for k in range(n_folds):
        chosen = (fold != k) & teaches
        if not chosen.any():
            raise DiffjaxError(
                "Weights cannot be learned: no image's own class saw all samples, or "
                "has a rival that did. Use a run with --strategy exhaustive."
            )
        by_bin.append(learn(excess[chosen]))
    return Weights(by_timestep=np.stack(by_bin)[:, bins], which=fold)


def _excess(
    image: Labelled, bins: Int[np.ndarray, " T"], n_bins: int
) -> Float[np.ndarray, "c B"] | None:
    """By how much the errors of c rivals exceed the label's: each bin's part of it."""
    errors = image.saved.errors[image.rows].astype(np.float64)
    complete = ~np.isnan(errors).any(axis=1)
    if image.label < 0 or not complete[image.label] or complete.sum() < 2:
        return None
    own = errors[image.label]
    complete[image.label] = False
    parts = np.zeros((int(complete.sum()), n_bins))
    np.add.at(parts.T, bins[image.saved.timesteps], (errors[complete] - own).T)
    return parts / len(own)


def learn(excess: Float[np.ndarray, "n c B"]) -> Float[np.ndarray, " B"]:
    """The best non-negative weights of B bins, in units of the best uniform ones.

    Args:
        excess: by how much the mean error of each of c rivals exceeds the label's, in
            the parts that the bins contribute; infinite where there is no such rival.

    Raises:
        DiffjaxError: if uniform weights have no best temperature; see
            ``fit_temperature``.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    there = np.isfinite(excess).all(axis=2)
    excess = excess / fit_temperature(excess.sum(axis=2))
    excess[~there] = 0.0  # their odds are set to zero instead

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.where(there, -excess @ v, -np.inf)
        each = np.logaddexp(0, logsumexp(logits, axis=1))  # 0: the label's own
        odds = np.exp(logits - each[:, None])
        nll = each.sum() + ((v - 1) ** 2).sum() / 2
        slope = -np.einsum("nc,ncb->b", odds, excess) + (v - 1)
        return float(nll) / len(excess), slope / len(excess)

    n_bins = excess.shape[2]
    found = minimize(
        loss, np.ones(n_bins), jac=True, method="L-BFGS-B", bounds=[(0, None)] * n_bins
    )
    if not found.success:
        raise DiffjaxError(f"Weights cannot be learned: {found.message}.")
    weights: np.ndarray = found.x
    return weights
