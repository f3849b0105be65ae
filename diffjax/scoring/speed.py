"""How fast tiles run, against what the device can do at best.

    share of peak   = FLOP/s of a tile / FLOP/s of a large matrix product
    intensity       = FLOPs of a tile / bytes that it accesses
    roofline        = min(peak FLOP/s, intensity · bandwidth)

Peak and bandwidth are measured in the same process, on the same devices. FLOPs and
bytes are as the compiler counts them; its bytes take each operand of each fused
operation once, as if there were no caches.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from diffjax.models.attention import precision
from diffjax.scoring.cost import median_seconds
from diffjax.scoring.placement import BLOCKS
from diffjax.tracing import jit, pinned

PRODUCTS = 4  # in one call, so that the call itself takes no share
SIDE = {"cpu": 2048}  # of the matrices
SIDE_ELSEWHERE = 8192
COPIED = {"cpu": 2**27}  # bytes, well beyond caches
COPIED_ELSEWHERE = 2**31


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What devices do at best, all together.

    Attributes:
        flops: of a large matrix product in a dtype, FLOP/s.
        bandwidth: of reading and writing memory, bytes/s.
    """

    flops: float
    bandwidth: float

    def roofline(self, intensity: float) -> float:
        """FLOP/s that are possible at so many FLOPs a byte."""
        return min(self.flops, intensity * self.bandwidth)


@pinned()
def measure_peak(mesh: Mesh, dtype: str) -> Peak:
    """Time large matrix products and copies on every device of the mesh at once.

    Args:
        mesh: as of ``block_mesh``.
        dtype: of the matrices.
    """
    platform = mesh.devices.flat[0].platform
    side = SIDE.get(platform, SIDE_ELSEWHERE)
    copied = COPIED.get(platform, COPIED_ELSEWHERE)
    return Peak(
        flops=product_flops(mesh, dtype, side), bandwidth=bandwidth(mesh, copied)
    )


def product_flops(mesh: Mesh, dtype: str, side: int) -> float:
    """FLOP/s of products of square matrices, one chain of them a device."""
    split = NamedSharding(mesh, PartitionSpec(BLOCKS))
    rng = np.random.default_rng(0)
    # random, as power limits slow down real digits and not zeros
    matrix = rng.standard_normal((side, side), np.float32) * side**-0.5
    x = jax.device_put(
        jnp.broadcast_to(jnp.asarray(matrix, dtype), (mesh.size, side, side)), split
    )
    seconds = median_seconds(lambda: jax.block_until_ready(_products(x, mesh=mesh)))
    return float(mesh.size * PRODUCTS * 2 * side**3 / seconds)


def bandwidth(mesh: Mesh, size: int) -> float:
    """Bytes/s of reading and writing ``size`` bytes a device."""
    split = NamedSharding(mesh, PartitionSpec(BLOCKS))
    x = jax.device_put(jnp.zeros((mesh.size, size // 4), jnp.float32), split)
    seconds = median_seconds(lambda: jax.block_until_ready(_copy(x)))
    return float(2 * x.nbytes / seconds)


@partial(jit, static_argnames="mesh")
def _products(x: Array, *, mesh: Mesh) -> Array:
    def chain(x: Array) -> Array:
        y = x[0]
        for _ in range(PRODUCTS):
            y = jnp.matmul(y, x[0], precision=precision(x.dtype))
        return y[None]

    one = PartitionSpec(BLOCKS)
    product: Array = jax.shard_map(
        chain, mesh=mesh, in_specs=one, out_specs=one, check_vma=False
    )(x)
    return product


@jit
def _copy(x: Array) -> Array:
    return x + 1
