"""What transformers over the patches of a latent have in common."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.errors import DiffjaxError
from diffjax.models.attention import kept_channels, matrix_elements


@runtime_checkable
class Heads(Protocol):
    """A config that says how attention is divided."""

    @property
    def num_attention_heads(self) -> int:  # noqa: D102
        ...

    @property
    def attention_head_dim(self) -> int:  # noqa: D102
        ...


def check_patches(sample_size: int, patch_size: int, source: str) -> None:
    """Raise DiffjaxError unless a latent of a model's own size divides into patches."""
    if sample_size % patch_size:
        raise DiffjaxError(
            f"{source}: sample_size = {sample_size} must be a multiple of "
            f"patch_size = {patch_size}."
        )


def bytes_of_tokens(
    config: Heads, dtype: DTypeLike, tokens: int, *, maps: int = 11, others: int = 0
) -> int:
    """Bytes that one more forward pass takes in a tile, about.

    Where attention is not fused, two of its matrices are there, in float32. What
    compilers for accelerators say is as much, or less by a third or so.

    Args:
        config: of the network.
        dtype: in which it computes.
        tokens: that attend to one another.
        maps: how many arrays of all tokens are there at once: three, and the inside of
            an MLP, four times as wide, before and after its activation.
        others: keys of an attention that is never fused, a text's for one.
    """
    heads, head = config.num_attention_heads, config.attention_head_dim
    matrix = max(matrix_elements(dtype, heads, head, tokens), heads * tokens * others)
    numbers = maps * tokens * kept_channels(heads * head)
    return 4 * 2 * matrix + jnp.dtype(dtype).itemsize * numbers


def unpatch(
    x: Float[Array, "l e"], height: int, width: int, patch: int
) -> Float[Array, "h w c"]:
    """Tokens of a grid, each all channels of a square of pixels → those pixels."""
    x = x.reshape(height, width, patch, patch, -1).swapaxes(1, 2)
    return x.reshape(height * patch, width * patch, -1)
