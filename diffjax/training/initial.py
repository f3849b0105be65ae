"""Networks to train, with initial weights."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from diffjax.models.initial import drawn
from diffjax.training.objective import zero_residuals


def initial_network(
    module: Callable[..., nnx.Module],
    config: Any,
    random: np.random.Generator,
    dtype: DTypeLike = jnp.float32,
) -> Any:
    """A module to train, whose residual branches begin as zero; see ``drawn``."""
    network = drawn(module, config, random, dtype)
    zero_residuals(network)
    return network
