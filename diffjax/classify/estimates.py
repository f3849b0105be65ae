"""Estimates of all candidates' errors, by which a shortlist is made.

See ``scoring.gradients`` for what they are, ``strategies.shortlist`` for their use.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffjax.classify.candidates import Candidates
from diffjax.models.conditions import count, shapes, take, told_of
from diffjax.models.diffusion import DiffusionModel
from diffjax.scoring.bases import Bases, make_bases
from diffjax.scoring.cost import Cost, median_seconds
from diffjax.scoring.gradients import Estimator, bytes_of_gradient, condition_vectors
from diffjax.scoring.grid import Grid
from diffjax.scoring.noise import ImageNoise
from diffjax.scoring.placement import cells_that_fit, everywhere, replicate
from diffjax.strategies.base import Samples, State
from diffjax.strategies.shortlist import Shortlist, shorten
from diffjax.tracing import pinned


class Estimates:
    """Estimates the errors of the same candidates for one image after the other.

    Attributes:
        candidates: All of the candidates.
        n_gradients: The number of forward and backward passes for an image.
    """

    @pinned()
    def __init__(
        self,
        shortlist: Shortlist,
        candidates: Candidates,
        model: DiffusionModel,
        grid: Grid,
        latent_shape: tuple[int, int, int],
        told: Mapping[str, np.ndarray] | None = None,
        given: Samples | None = None,
    ) -> None:
        """Find the bases.

        Args:
            shortlist: What is asked for.
            candidates: All of the candidates.
            model: The model.
            grid: What evaluates them.
            latent_shape: (h, w, c) of the images.
            told: What some image tells the denoiser besides.
            given: Samples in the place of the shortlist's own, which takes the first.

        Raises:
            DiffjaxError: If the schedule has fewer timesteps than the shortlist asks
                for.
        """
        self.candidates = candidates
        self._shortlist = shortlist
        self._samples = (
            shortlist.samples(model.schedule.n_timesteps)
            if given is None
            else given.head(shortlist.n_samples)
        )
        self._noise = grid.noise
        self._latent_shape = latent_shape
        self._told = told = told or {}
        vectors = condition_vectors(grid.denoiser, candidates.conditions)
        self._vectors = everywhere(vectors, grid.mesh)  # rows of a table may be split
        bases = make_bases(
            shortlist.base,
            self._vectors,
            lambda: condition_vectors(model.denoiser, model.unconditional()),
            shortlist.clusters,
        )
        self._bases = Bases(replicate(bases.points, grid.mesh), bases.nearest)
        [loss, *_] = grid.losses
        base = told_of(shapes(self._vectors), told)
        needs = bytes_of_gradient(
            grid.denoiser, grid.schedule, latent_shape, base, loss
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
        self.n_gradients = len(self._samples) * (
            count(bases.points) + shortlist.rounds - 1
        )

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
        mesh = self._estimator.mesh
        placed: Any = replicate((np.uint32(key), z0, dict(told or {})), mesh)
        image, latent, more = placed
        return self._estimator.estimate(
            ImageNoise(self._noise, image),
            latent,
            self._vectors,
            self._bases,
            self._samples.timesteps,
            self._samples.noises,
            rounds=self._shortlist.rounds,
            best=self._shortlist.k,
            told=more,
        )

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
        return shorten(
            state, self._shortlist.k, estimates, self.n_gradients, self._samples
        )

    @pinned()
    def cost(self) -> Cost:
        """Time the gradients of an image."""
        z0 = np.zeros(self._latent_shape, np.float32)
        noise = ImageNoise(self._noise, jnp.uint32(0))
        base = told_of(take(self._bases.points, 0), self._told)
        flops = self._estimator.flops(noise, jnp.asarray(z0), base)
        return Cost(
            flops=self.n_gradients * flops,
            seconds=median_seconds(lambda: self.of(z0, 0, self._told)),
        )
