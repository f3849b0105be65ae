"""What a cell's error is: several can be had of one forward pass.

With d = ε − ε̂, times the factor of t that another space than noise has (``schedules``,
equation 5), per element of the latent:

    l2      d²
    l1      |d|
    huber   ½ d²  where |d| ≤ 1,  |d| − ½  elsewhere
    vlb     the variational bound's term of timestep t, in bits: see ``bound``
    l2+vlb  their sum

A loss gives them all; their mean is the error. vlb needs a model that predicts its
variance.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.schedules import Schedule, at
from diffjax.scoring.bound import bound_terms


class Cell(NamedTuple):
    """One forward pass: what went in and what came out, float32."""

    schedule: Schedule
    z0: Float[Array, "h w c"]
    t: Int[Array, ""]
    noise: Float[Array, "h w c"]
    predicted: Float[Array, "h w c"]  # ε̂
    variance: Float[Array, "h w c"] | None  # the model's variance channels, as they are

    @property
    def difference(self) -> Float[Array, "h w c"]:
        """By what the prediction is wrong, d."""
        d = self.noise - self.predicted
        factor = self.schedule.factor
        return d if factor is None else at(factor, self.t) * d


def l2(cell: Cell) -> Float[Array, "h w c"]:
    """Squared error."""
    return jnp.square(cell.difference)


def l1(cell: Cell) -> Float[Array, "h w c"]:
    """Absolute error."""
    return jnp.abs(cell.difference)


def huber(cell: Cell) -> Float[Array, "h w c"]:
    """Squared up to a distance of 1, absolute beyond."""
    d = jnp.abs(cell.difference)
    return jnp.where(d <= 1, jnp.square(d) / 2, d - 0.5)


def vlb(cell: Cell) -> Float[Array, "h w c"]:
    """The variational bound's term, in bits."""
    assert cell.variance is not None, "checked when the classifier is made"
    return bound_terms(
        cell.schedule, cell.z0, cell.t, cell.noise, cell.predicted, cell.variance
    )


LOSSES: dict[str, Callable[[Cell], Array]] = {
    "l2": l2,
    "l1": l1,
    "huber": huber,
    "vlb": vlb,
    "l2+vlb": lambda cell: l2(cell) + vlb(cell),
}
NEED_VARIANCE = ("vlb", "l2+vlb")
