"""Noises and weights of samples improved by gradient, on labelled images.

    e_i[c, k] = the error of image i under class c on the sample (t_k, ε_k)
    p_i(c)    ∝ exp(−Σ_k exp(u_k) e_i[c, k])

    minimise  Σ_i −log p_i(y_i) / n     over u [K] and ε [K, h, w, c]; t stays

by Adam on batches of images. Nothing keeps ε normal: it becomes whatever the network's
errors under it tell classes apart by. An image costs C K forward and backward passes a
step; images of a batch are computed one after the other where memory asks for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import log_softmax

from diffjax.errors import optional
from diffjax.models.conditions import take, told_of
from diffjax.models.network import Network
from diffjax.schedules import Schedule
from diffjax.scoring.grid import cell_errors
from diffjax.tracing import jit


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What is improved.

    Attributes:
        noises: ε, float32 [K, h, w, c].
        scales: u, float32 [K].
    """

    noises: Any
    scales: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Lessons:
    """Labelled images; n of them.

    Attributes:
        z0: latents, float32 [n, h, w, c].
        labels: rows of the conditions, int32 [n].
        told: what each image tells of a condition, a dict of arrays [n, …].
    """

    z0: Any
    labels: Any
    told: Any

    def of(self, images: Sequence[int] | Int[np.ndarray, " m"]) -> "Lessons":
        """Some of the images."""
        return take(self, np.asarray(images))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What does not change.

    Attributes:
        denoiser: the network.
        schedule: the forward process.
        conditions: of the classes, a tree of C rows.
        timesteps: t, int32 [K].
    """

    denoiser: Network
    schedule: Schedule
    conditions: Any
    timesteps: Any


def sample_errors(
    noises: Float[Array, "K h w c"], fixed: Fixed, image: Lessons, *, loss: str
) -> Float[Array, "C K"]:
    """e[c, k] of one image."""

    def cell(condition: Any, t: Array, noise: Array) -> Array:
        condition = told_of(condition, image.told)
        of = (fixed.denoiser, fixed.schedule, image.z0, condition, t, noise)
        return cell_errors(*of, losses=(loss,))[0]

    over_classes = jax.vmap(cell, in_axes=(0, None, None))
    over_samples = jax.vmap(over_classes, in_axes=(None, 0, 0), out_axes=1)
    errors: Array = over_samples(fixed.conditions, fixed.timesteps, noises)
    return errors


@partial(jit, static_argnames="loss")
def image_errors(
    noises: Float[Array, "K h w c"], fixed: Fixed, lessons: Lessons, *, loss: str
) -> Float[Array, "n C K"]:
    """e[i, c, k] of all images."""
    errors: Array = jax.vmap(partial(sample_errors, noises, fixed, loss=loss))(lessons)
    return errors


@partial(jit, static_argnames="loss")
def noise_slope(
    noises: Float[Array, "K h w c"],
    fixed: Fixed,
    lessons: Lessons,
    rows: Int[Array, "n r"],
    factors: Float[Array, "n r K"],
    *,
    loss: str,
) -> Float[Array, "K h w c"]:
    """The gradient of Σ factors[i, r, k] e[i, rows[i, r], k] with respect to ε."""

    def total(noises: Array) -> Array:
        def image(lesson: Lessons, rows: Array, factors: Array) -> Array:
            mine = replace(fixed, conditions=take(fixed.conditions, rows))
            return jnp.sum(factors * sample_errors(noises, mine, lesson, loss=loss))

        return jnp.sum(jax.vmap(image)(lessons, rows, factors))

    slope: Array = jax.grad(total)(noises)
    return slope


def slope(
    tuned: Tuned, fixed: Fixed, lessons: Lessons, *, loss: str, rivals: int
) -> tuple[float, Tuned]:
    """The mean of −log p(label) over n images, and its gradient.

        ∂/∂e_i[c, k] = exp(u_k) (1[c = y_i] − p_i(c)) / n

    With respect to ε that of the label's own class and of the ``rivals`` others whose p
    are largest: backward passes of all classes are what would cost most.
    """
    errors = np.asarray(image_errors(tuned.noises, fixed, lessons, loss=loss))
    labels, weights = np.asarray(lessons.labels), np.exp(np.asarray(tuned.scales))
    odds = log_softmax(-errors.astype(np.float64) @ weights, axis=1)
    own = np.arange(len(labels)), labels
    parts = -np.exp(odds) / len(labels)
    parts[own] += 1 / len(labels)
    size = np.abs(parts)
    size[own] = np.inf
    rows = np.argsort(-size, axis=1, kind="stable")[:, : rivals + 1]
    factors = np.take_along_axis(parts, rows, axis=1)[:, :, None] * weights
    noises = noise_slope(
        tuned.noises,
        fixed,
        lessons,
        rows.astype(np.int32),
        factors.astype(np.float32),
        loss=loss,
    )
    scales = weights * np.einsum("nc,nck->k", parts, errors)
    return float(-odds[own].mean()), Tuned(
        noises=noises, scales=jnp.asarray(scales, jnp.float32)
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far it is.

    Attributes:
        step: done so far.
        learned: mean of −log p(label) over the images learned from since the last one.
        held: the same of the images held out.
        right: how many of these are decided rightly.
        best: whether ``held`` has never been smaller.
    """

    step: int
    learned: float | None
    held: float
    right: int
    best: bool


def tune(
    tuned: Tuned,
    fixed: Fixed,
    lessons: Lessons,
    held: Lessons,
    *,
    loss: str,
    steps: int,
    batch: int,
    rate: float,
    every: int,
    patience: int,
    at_once: int,
    rivals: int,
    watch: Callable[[Step], None] = lambda step: None,
) -> Tuned:
    """The noises and weights that do best on the images held out.

    Args:
        tuned: to begin with.
        fixed: what does not change.
        lessons: images to learn from.
        held: images that say when to stop.
        loss: a key of ``LOSSES``.
        steps: at most.
        batch: images a step.
        rate: of Adam, for noises; weights learn at the same.
        every: so many steps the images held out are looked at.
        patience: looks without a better one, after which it ends.
        at_once: images computed together.
        rivals: classes besides the label that a step goes back through, an image.
        watch: is told of each look.
    """
    optax = optional("optax", "Improving noises")
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps, 0.1))
    state = optimiser.init(tuned)
    draw = np.random.default_rng(0)
    order: list[int] = []
    told: list[float] = []  # since the last look
    best, least, poor = tuned, np.inf, 0
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            nll, right = judge(tuned, fixed, held, loss=loss, at_once=at_once)
            better = nll < least
            mean = float(np.mean(told)) if told else None
            watch(Step(step=step, learned=mean, held=nll, right=right, best=better))
            told = []
            best, least = (tuned, nll) if better else (best, least)
            poor = 0 if better else poor + 1
            if poor > patience or step == steps:
                break
        while len(order) < batch:
            order += draw.permutation(len(lessons.labels)).tolist()
        images, order = order[:batch], order[batch:]
        parts = [
            slope(
                tuned,
                fixed,
                lessons.of(images[k : k + at_once]),
                loss=loss,
                rivals=rivals,
            )
            for k in range(0, batch, at_once)
        ]
        told.append(float(np.mean([value for value, _ in parts])))
        gradient = jax.tree.map(lambda *g: sum(g) / len(g), *(g for _, g in parts))
        changes, state = optimiser.update(gradient, state)
        tuned = optax.apply_updates(tuned, changes)
    return best


def judge(
    tuned: Tuned, fixed: Fixed, lessons: Lessons, *, loss: str, at_once: int
) -> tuple[float, int]:
    """The mean of −log p(label), and how many images are decided rightly."""
    n = len(lessons.labels)
    errors = []
    for start in range(0, n, at_once):
        # filled up with the last image: another number would be compiled anew
        images = np.minimum(np.arange(start, start + at_once), n - 1)
        part = image_errors(tuned.noises, fixed, lessons.of(images), loss=loss)
        errors.append(np.asarray(part))
    every = np.concatenate(errors)[:n].astype(np.float64)
    odds = log_softmax(-every @ np.exp(np.asarray(tuned.scales)), axis=1)
    labels = np.asarray(lessons.labels)
    right = int((odds.argmax(axis=1) == labels).sum())
    return float(-odds[np.arange(n), labels].mean()), right
