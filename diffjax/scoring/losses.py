"""What a cell's error is: several can be had of one forward pass.

With d = ε − ε̂, per element of the latent:

    l2      d²
    l1      |d|
    huber   ½ d²  where |d| ≤ 1,  |d| − ½  elsewhere
    vlb     the variational bound's term of timestep t, in bits: see ``bound``
    l2+vlb  their sum

each averaged over the elements. vlb needs a model that predicts its variance.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.schedules import Schedule
from diffjax.scoring.bound import bound_term


class Cell(NamedTuple):
    """One forward pass: what went in and what came out, float32."""

    schedule: Schedule
    z0: Float[Array, "h w c"]
    t: Int[Array, ""]
    noise: Float[Array, "h w c"]
    predicted: Float[Array, "h w c"]  # ε̂
    variance: Float[Array, "h w c"] | None  # the model's variance channels, as they are


def l2(cell: Cell) -> Float[Array, ""]:
    """Squared error."""
    return jnp.mean(jnp.square(cell.noise - cell.predicted))


def l1(cell: Cell) -> Float[Array, ""]:
    """Absolute error."""
    return jnp.mean(jnp.abs(cell.noise - cell.predicted))


def huber(cell: Cell) -> Float[Array, ""]:
    """Squared up to a distance of 1, absolute beyond."""
    d = jnp.abs(cell.noise - cell.predicted)
    return jnp.mean(jnp.where(d <= 1, jnp.square(d) / 2, d - 0.5))


def vlb(cell: Cell) -> Float[Array, ""]:
    """The variational bound's term, in bits per element."""
    assert cell.variance is not None, "checked when the classifier is made"
    return bound_term(
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
