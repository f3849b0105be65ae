"""Convolution by the way that fits: XLA's own, or as one product of two matrices.

    y[p, o] = Σ x[p + (i, j), c] w[i, j, c, o] = (pixels' neighbourhoods) · (kernel)
                                                   [h w, 9 c]           [9 c, o]

On CPUs XLA convolves small maps of many channels at a third of the speed at which it
multiplies matrices: it goes through the kernel, which is larger than the map, in small
pieces. Neighbourhoods of small maps take no memory to speak of.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.models.attention import target

# Of CPUs: pixels of the map, and its channels. The lowest levels of Stable Diffusion.
MOST_PIXELS = 16**2
FEWEST_CHANNELS = 512


def convolve(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "a b i o"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "n h2 w2 o"]:
    """``jax.lax.conv_general_dilated`` of maps with channels last, undilated.

    Args:
        x: the maps.
        kernel: of at least one pixel.
        strides: of both axes.
        padding: before and after, of both axes.
        **options: of JAX's function.
    """
    if takes_product(target().backend, x.shape[1:], kernel.shape, strides):
        return as_product(x, kernel, padding, precision=options.get("precision"))
    out: Array = jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return out


def takes_product(
    backend: str, map: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> bool:
    """Whether ``convolve`` goes by ``as_product``.

    Args:
        backend: of JAX: "cpu", "gpu", "cuda", "rocm" or "tpu".
        map: height, width and channels.
        kernel: height, width, and channels of both sides.
        strides: of both axes.
    """
    height, width, channels = map
    large = channels >= FEWEST_CHANNELS and tuple(kernel[:2]) != (1, 1)
    small = height * width <= MOST_PIXELS and tuple(strides) == (1, 1)
    return backend == "cpu" and large and small


def as_product(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "a b i o"],
    padding: Sequence[tuple[int, int]],
    precision: Any = None,
) -> Float[Array, "n h2 w2 o"]:
    """A convolution of stride one as a product of two matrices."""
    rows, columns, _, outputs = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    neighbourhoods = jnp.concatenate(
        [
            x[:, i : i + height, j : j + width]
            for i in range(rows)
            for j in range(columns)
        ],
        axis=-1,
    )
    return jnp.matmul(neighbourhoods, kernel.reshape(-1, outputs), precision=precision)
