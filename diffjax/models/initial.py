"""Initial weights, drawn on the host.

Kernels have variance 1 / fan-in (LeCun et al. 1998), tables 1 / width; biases are 0
and scales 1. flax's own initialisers draw the same, but take minutes to compile for a
U-Net.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike


def drawn(
    module: Callable[..., nnx.Module],
    config: Any,
    random: np.random.Generator,
    dtype: DTypeLike = jnp.float32,
) -> Any:
    """A module with initial weights.

    Args:
        module: its class; without ``rngs`` it makes shapes instead of weights.
        config: the config of that class.
        random: where the weights come from.
        dtype: of the computation; weights are float32.
    """
    empty = module(config, rngs=None, dtype=dtype, param_dtype=jnp.float32)
    graph, abstract = nnx.split(empty)

    def draw(path: tuple[Any, ...], leaf: Any) -> Any:
        match path[-1]:
            case "kernel":
                fan = float(np.prod(leaf.shape[:-1]))
            case "embedding":
                fan = float(leaf.shape[-1])
            case kind:
                return leaf.replace(jnp.full(leaf.shape, float(kind == "scale")))
        value = random.standard_normal(leaf.shape, np.float32) * fan**-0.5
        return leaf.replace(jnp.asarray(value, jnp.float32))

    leaves = [(path, draw(path, leaf)) for path, leaf in nnx.to_flat_state(abstract)]
    return nnx.merge(graph, nnx.from_flat_state(leaves))
