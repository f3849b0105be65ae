"""Estimates of all candidates' errors, by which a shortlist is made.

See ``scoring.gradients`` for what they are, ``strategies.shortlist`` for their use.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffjax.classify.candidates import Candidates
from diffjax.models.conditions import centre, shapes, take, told_of
from diffjax.models.diffusion import DiffusionModel
from diffjax.scoring.cost import Cost, count_flops, median_seconds
from diffjax.scoring.curvature import error_hessians, principal, second_order
from diffjax.scoring.gradients import Estimator, bytes_of_gradient, condition_vectors
from diffjax.scoring.grid import Blocks, Grid, joined
from diffjax.scoring.noise import ImageNoise
from diffjax.scoring.placement import cells_that_fit, everywhere, replicate
from diffjax.strategies.base import Request, Samples, State, check_finite
from diffjax.strategies.shortlist import (
    CURVED,
    FEWEST,
    Shortlist,
    a_few,
    enough,
    shorten,
    to_check,
)
from diffjax.tracing import pinned


class Estimates:
    """Estimates the errors of the same candidates for one image after the other.

    Attributes:
        candidates: All of the candidates.
        n_gradients: The number of forward and backward passes for an image.
        fewest, most: How many classes a shortlist leaves.
    """

    @pinned()
    def __init__(
        self,
        shortlist: Shortlist,
        candidates: Candidates,
        model: DiffusionModel,
        grid: Grid,
        latent_shape: tuple[int, int, int],
        own: Samples,
        told: Mapping[str, np.ndarray] | None = None,
        given: Samples | None = None,
    ) -> None:
        """Find the base.

        Args:
            shortlist: What is asked for.
            candidates: All of the candidates.
            model: The model.
            grid: What evaluates them.
            latent_shape: (h, w, c) of the images.
            own: The strategy's samples.
            told: What some image tells the denoiser besides.
            given: Samples in the place of the shortlist's own, which takes the first.

        Raises:
            DiffjaxError: If the schedule has fewer timesteps than the shortlist asks
                for.
        """
        self.candidates = candidates
        self._shortlist = shortlist
        self._samples = (
            shortlist.samples(model.schedule.n_timesteps, own)
            if given is None or shortlist.n_samples is None
            else given.head(shortlist.n_samples)
        )
        self._grid = grid
        self._latent_shape = latent_shape
        self._told = told = told or {}
        vectors = condition_vectors(grid.denoiser, candidates.conditions)
        self._vectors = everywhere(vectors, grid.mesh)  # rows of a table may be split
        base = centre(self._vectors)
        self._base = replicate(base, grid.mesh)
        [loss, *_] = grid.losses
        needs = bytes_of_gradient(
            *(grid.denoiser, grid.schedule, latent_shape),
            *(told_of(shapes(self._vectors), told), loss),
        )
        fit = cells_that_fit(needs, grid.mesh)
        self._estimator = Estimator(
            denoiser=grid.denoiser,
            schedule=grid.schedule,
            loss=loss,
            batch=max(1, min(fit, grid.cells) // grid.devices),
            mesh=grid.mesh,
            sharded=grid.sharded,
        )
        self._curved = a_few(self._samples, CURVED)
        self._places, axes = principal(self._vectors, base, shortlist.directions or 0)
        self._axes = replicate(axes, grid.mesh)
        self.fewest = shortlist.k or FEWEST
        self.most = shortlist.k or len(candidates.prompts.class_names)
        self.n_gradients = len(self._samples)

    @pinned()
    def of(
        self,
        z0: Float[np.ndarray, "h w c"],
        key: int,
        told: Mapping[str, np.ndarray] | None = None,
    ) -> Float[np.ndarray, "n s"]:
        """Return ê of every row of the candidates.

        Args:
            z0: The image's latent.
            key: The number of the image that decides its noise.
            told: What it tells the denoiser besides.

        Raises:
            DiffjaxError: If the device's memory does not hold one sample's gradient.
        """
        grid = self._grid
        placed: Any = replicate((np.uint32(key), z0, dict(told or {})), grid.mesh)
        image, latent, more = placed
        noise = ImageNoise(grid.noise, image)
        base = told_of(self._base, more)
        estimates = self._estimator.estimate(
            noise,
            latent,
            self._vectors,
            base,
            self._samples.timesteps,
            self._samples.noises,
        )
        if not self._shortlist.directions:
            return estimates
        curved = second_order(
            *(grid.denoiser, grid.schedule, noise, latent),
            base,
            self._places,
            self._axes,
            self._samples.timesteps[self._curved],
            self._samples.noises[self._curved],
            loss=self._estimator.loss,
            mesh=grid.mesh,
            sharded=grid.sharded,
        )
        of_second_order: np.ndarray = estimates + curved[:, None]
        return of_second_order

    @property
    def n_curved(self) -> int:
        """The evaluations that the second order counts for: a pass and its tangents."""
        q = self._places.shape[1]
        return len(self._curved) * (1 + q) if q else 0

    def shorten(
        self,
        state: State,
        z0: Float[np.ndarray, "h w c"],
        key: int,
        told: Mapping[str, np.ndarray] | None = None,
    ) -> State:
        """Return a started state without the classes that are not on the shortlist.

        Raises:
            NotFiniteError: If the network's numbers overflowed.
        """
        estimates = self.of(z0, key, told)
        k, risk, n_extra = self._shortlist.k, self._shortlist.risk, self.n_curved
        if k is None and risk is not None:
            rows, columns = to_check(state, estimates, self._samples)
            errors = self._errors(z0, key, told, rows, columns)
            check_finite(state, Request(classes=rows, samples=columns), errors)
            k = enough(state, estimates, self._samples, rows, columns, errors, risk)
            n_extra += errors.size
        return shorten(
            *(state, k or self.most, estimates),
            *(self.n_gradients, self._samples, n_extra),
        )

    def outlook(self, state: State, k: int) -> State:
        """Return a started state with any k classes; nothing is computed."""
        estimates = np.zeros((len(state.dropped), len(self._samples)), np.float32)
        rows, columns = to_check(state, estimates, self._samples)
        n_checks = 0 if self._shortlist.k else len(rows) * len(columns)
        return shorten(
            *(state, k, estimates, self.n_gradients, self._samples),
            self.n_curved + n_checks,
        )

    @pinned()
    def _errors(
        self,
        z0: Float[np.ndarray, "h w c"],
        key: int,
        told: Mapping[str, np.ndarray] | None,
        rows: Int[np.ndarray, "m"],
        columns: Int[np.ndarray, "p"],
    ) -> Float[np.ndarray, "m p"]:
        """The errors of some candidates on some of the samples, by the grid's tiles."""
        grid, n = self._grid, len(rows) * len(columns)
        samples, who = np.tile(columns, len(rows)), np.repeat(rows, len(columns))
        tile = grid.tile(1)

        def whole(leaf: np.ndarray) -> np.ndarray:
            return np.broadcast_to(leaf, (n, *np.shape(leaf)))

        every = Blocks(
            keys=np.full(n, key, np.uint32),
            z0=whole(z0),
            timesteps=self._samples.timesteps[samples].astype(np.int32),
            noises=self._samples.noises[samples].astype(np.int32),
            classes=who.astype(np.int32)[:, None],
            told={name: whole(leaf) for name, leaf in (told or {}).items()},
        )
        errors = []
        for start in range(0, n, tile.blocks):
            part = take(every, slice(start, start + tile.blocks))
            found = grid.errors(self.candidates.conditions, joined([part], tile.blocks))
            errors.append(np.asarray(found)[0, : len(part.keys), 0])
        return np.concatenate(errors).reshape(len(rows), len(columns))

    @pinned()
    def cost(self) -> Cost:
        """Time the gradients of an image."""
        z0 = np.zeros(self._latent_shape, np.float32)
        noise = ImageNoise(self._grid.noise, jnp.uint32(0))
        base = told_of(self._base, self._told)
        flops = self.n_gradients * self._estimator.flops(noise, jnp.asarray(z0), base)
        if self.n_curved:
            grid, one = self._grid, jnp.zeros(1, jnp.int32)
            flops += len(self._curved) * count_flops(
                partial(error_hessians, loss=self._estimator.loss),
                *(grid.denoiser, grid.schedule, noise, jnp.asarray(z0), base),
                *(self._axes, one, one),
            )
        return Cost(
            flops=flops,
            seconds=median_seconds(lambda: self.of(z0, 0, self._told)),
        )
