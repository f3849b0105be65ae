"""Attention, by the implementation that fits: softmax(q kᵀ / √h) v of each head.

    xla      matrices of logits in memory, in float32; runs everywhere
    blocked  a block of queries at a time, on CPUs, where matrices are large
    cudnn    fused, on NVIDIA: float16 and bfloat16, heads of a multiple of 8 up to 128,
             from Hopper on up to 256
    pallas   fused, JAX's splash attention kernel on TPUs, for long sequences

Fused ones never hold a matrix: at 64×64 latents those of Stable Diffusion 2 are 320 MiB
for a single layer of a single evaluation. DIFFJAX_ATTENTION=xla does without them.

The networks map one image, and batches come from vmap outside. The kernels want one
batch axis that q, k and v all have, so they are told here how to take more of them: an
argument that vmap does not map (queries that no class has touched yet, keys of a text
for many samples) is repeated.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from diffjax.errors import unknown
from diffjax.models.blocked import blocked, of_passes

VARIABLE = "DIFFJAX_ATTENTION"
CHOICES = ("auto", "xla")
HALF = ("float16", "bfloat16")
HOPPER = (9, 0)
# Of TPUs, whose kernel takes keys in blocks of as many. Shorter sequences have small
# matrices, and texts of 77 tokens would be filled up to 128.
LANES = 128
SHORTEST_ON_TPU = 512
BLOCKS_ON_TPU = (512, 384, 256, 128)
# Logits of a head, on CPUs: smaller matrices take no time to speak of.
SMALLEST_BLOCKED = 128**2
_UNFUSED: ContextVar[bool] = ContextVar("unfused", default=False)


@dataclass(frozen=True)
class Target:
    """What programs are traced for.

    Attributes:
        backend: of JAX: "cpu", "gpu", "cuda", "rocm" or "tpu".
        compute_capability: of NVIDIA's GPUs; (9, 0) is Hopper. None for others.
    """

    backend: str
    compute_capability: tuple[int, int] | None = None


_ELSEWHERE: ContextVar[Target | None] = ContextVar("elsewhere", default=None)


def target() -> Target:
    """This process's first device, unless programs are traced for another machine."""
    elsewhere = _ELSEWHERE.get()
    if elsewhere is not None:
        return elsewhere
    backend = jax.default_backend()
    return Target(backend, _capability() if backend != "cpu" else None)


@contextmanager
def traced_for(elsewhere: Target) -> Iterator[None]:
    """Trace for devices that are not here; the programs can be compiled, not run."""
    token = _ELSEWHERE.set(elsewhere)
    try:
        yield
    finally:
        _ELSEWHERE.reset(token)


def choose(
    backend: str,
    dtype: DTypeLike,
    head: int,
    length_q: int,
    length_k: int,
    compute_capability: tuple[int, int] | None = None,
) -> str:
    """The implementation for a layer: "xla", "blocked", "cudnn" or "pallas".

    Args:
        backend: of JAX: "cpu", "gpu", "cuda", "rocm" or "tpu".
        dtype: of q, k and v.
        head: width of a head.
        length_q: number of queries.
        length_k: number of keys.
        compute_capability: of NVIDIA's GPUs; (9, 0) is Hopper. None for others.
    """
    kind = str(jnp.dtype(dtype))
    if backend in ("gpu", "cuda") and compute_capability is not None:
        widest = 256 if compute_capability >= HOPPER else 128
        fits = kind in HALF and head % 8 == 0 and head <= widest
        return "cudnn" if fits and compute_capability >= (8, 0) else "xla"
    if backend == "tpu":
        long = min(length_q, length_k) >= SHORTEST_ON_TPU
        fits = kind == "bfloat16" and (head <= LANES or head % LANES == 0)
        return "pallas" if fits and long else "xla"
    if backend == "cpu" and length_q * length_k >= SMALLEST_BLOCKED:
        return "blocked"
    return "xla"


def chosen(dtype: DTypeLike, head: int, length_q: int, length_k: int) -> str:
    """``choose`` for the target, unless DIFFJAX_ATTENTION says "xla".

    Raises:
        DiffjaxError: if DIFFJAX_ATTENTION is neither "auto" nor "xla".
    """
    wish = os.environ.get(VARIABLE) or "auto"
    if wish not in CHOICES:
        raise unknown(VARIABLE, wish, CHOICES)
    if wish == "xla" or _UNFUSED.get():
        return "xla"
    here = target()
    return choose(
        here.backend, dtype, head, length_q, length_k, here.compute_capability
    )


@contextmanager
def unfused() -> Iterator[None]:
    """Trace with matrices: compilers do not see the FLOPs inside of fused kernels."""
    token = _UNFUSED.set(True)
    try:
        yield
    finally:
        _UNFUSED.reset(token)


def precision(dtype: DTypeLike) -> str | None:
    """How products of a number type are to be multiplied: float32 in all its digits.

    TPUs and recent GPUs would multiply float32 in fewer. Other types say nothing: asked
    for more digits than they have, TPUs refuse kernels and GPUs take slower products.
    """
    return "float32" if jnp.dtype(dtype) == jnp.float32 else None


def matrix_elements(dtype: DTypeLike, heads: int, head: int, length: int) -> int:
    """Logits that self-attention holds in memory; none where it is fused or blocked."""
    fused = chosen(dtype, head, length, length) != "xla"
    return 0 if fused else heads * length**2


def kept_channels(channels: int) -> int:
    """Channels that memory is taken for: TPUs fill the last axis up to 128 lanes."""
    return channels + (-channels % LANES if target().backend == "tpu" else 0)


def attend(
    q: Float[Array, "l d"],
    k: Float[Array, "m d"],
    v: Float[Array, "m d"],
    heads: int,
    *,
    causal: bool = False,
    mask: Bool[Array, " m"] | None = None,
) -> Float[Array, "l d"]:
    """softmax(q kᵀ / √(d/heads)) v a head; the softmax in float32.

    With a mask only those keys are attended to for which it is true; then, and if it is
    causal, by XLA.

    Raises:
        DiffjaxError: if DIFFJAX_ATTENTION is not understood.
    """
    dtype = q.dtype
    if dtype == jnp.float16 and target().backend == "cpu":
        # CPUs lack the product of float16 into float32 that the function asks for
        q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    q, k, v = (x.reshape(x.shape[0], heads, -1) for x in (q, k, v))
    name = chosen(q.dtype, q.shape[-1], len(q), len(k))
    # causal is the text encoder alone, once a prompt; masks are of short texts
    if causal or mask is not None or name == "xla":
        seen = None if mask is None else mask[None, None]
        with jax.default_matmul_precision(precision(q.dtype)):
            out: Array = jax.nn.dot_product_attention(
                q, k, v, mask=seen, is_causal=causal
            )
    else:
        out = FUSED[name](q, k, v)
    return out.reshape(out.shape[0], -1).astype(dtype)


Kernel = Callable[[Array, Array, Array], Array]


def batched(kernel: Kernel, differentiable: Kernel | None = None) -> Kernel:
    """A kernel of one batch axis made ready for vmap and for reverse differentiation.

    Args:
        kernel: q [b, l, n, h], k and v [b, m, n, h] → [b, l, n, h].
        differentiable: the same with a backward pass, where it is another.

    Returns:
        The same of [..., l, n, h] and [..., m, n, h].
    """

    def flat(*arrays: Array) -> tuple[Array, ...]:
        return tuple(x.reshape(-1, *x.shape[-3:]) for x in arrays)

    def forward(q: Array, k: Array, v: Array) -> Array:
        # a kernel chooses for itself: JAX_DEFAULT_MATMUL_PRECISION would break it
        with jax.default_matmul_precision(None):
            return kernel(*flat(q, k, v)).reshape(q.shape)

    def backward(q: Array, k: Array, v: Array, slope: Array) -> tuple[Array, ...]:
        # forward once more inside: what the kernel keeps is not known here
        with jax.default_matmul_precision(None):
            slopes = jax.vjp(differentiable or kernel, *flat(q, k, v))[1](*flat(slope))
        return tuple(s.reshape(x.shape) for s, x in zip(slopes, (q, k, v), strict=True))

    def repeated(x: Array, size: int) -> Array:
        return jnp.broadcast_to(x, (size, *x.shape))

    return of_passes(forward, backward, repeated)


def _cudnn(q: Array, k: Array, v: Array) -> Array:
    out: Array = jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    return out


def _cudnn_or_xla(q: Array, k: Array, v: Array) -> Array:
    """JAX has cuDNN's backward pass for even lengths; a text's 77 are few for XLA."""
    if q.shape[1] % 2 or k.shape[1] % 2:
        out: Array = jax.nn.dot_product_attention(q, k, v)
        return out
    return _cudnn(q, k, v)


def _pallas(q: Array, k: Array, v: Array) -> Array:
    return jax.vmap(splash)(*(x.swapaxes(1, 2) for x in (q, k, v))).swapaxes(1, 2)


def splash(
    q: Float[Array, "n l h"], k: Float[Array, "n m h"], v: Float[Array, "n m h"]
) -> Float[Array, "n l h"]:
    """JAX's kernel for TPUs, of lengths filled up to blocks; what fills up is masked.

    It reads q, k and v with the tokens along the lanes, as the TPU's products leave
    them: channels along the lanes would be copies, and 64 of them filled up to 128.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    (heads, length_q, head), length_k = q.shape, k.shape[1]
    # the kernel leaves scaling to us: exact for heads of 64, else one more rounding
    q = (q.astype(jnp.float32) / math.sqrt(head)).astype(q.dtype)
    q, k, v = (_filled(x) for x in (q, k, v))
    rows, columns = q.shape[1], k.shape[1]
    ids = None
    if columns > length_k:  # real tokens attend to real ones
        ids = kernels.SegmentIds(
            jnp.zeros(rows, jnp.int32),
            jnp.asarray(np.arange(columns) >= length_k, jnp.int32),
        )
    block_q, block_k = (
        next(size for size in BLOCKS_ON_TPU if n % size == 0) for n in (rows, columns)
    )
    lanes = kernels.QKVLayout.SEQ_MINOR
    sizes = kernels.BlockSizes(
        block_q=block_q,
        block_kv=block_k,
        block_kv_compute=block_k,
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k,
        block_q_dq=block_q,
        block_kv_dq=block_k,
        q_layout=lanes,
        k_layout=lanes,
        v_layout=lanes,
    )
    kernel = kernels.make_splash_mha(
        mask=masks.MultiHeadMask([masks.FullMask((rows, columns))] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
    )
    out: Array = kernel(q, k, v, segment_ids=ids)
    return out[:, :length_q]


def _filled(x: Float[Array, "n l h"]) -> Float[Array, "n l2 h"]:
    """Zeros behind the tokens, up to a multiple of the kernel's block."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % LANES), (0, 0)))


def _capability() -> tuple[int, int] | None:
    """Of the first device, if it is NVIDIA's."""
    text = getattr(jax.local_devices()[0], "compute_capability", None)
    if text is None or not str(text).replace(".", "").isdigit():
        return None  # AMD's are names such as gfx942
    major, _, minor = str(text).partition(".")
    return int(major), int(minor or 0)


FUSED: dict[str, Kernel] = {
    "blocked": blocked,
    "cudnn": batched(_cudnn, _cudnn_or_xla),
    "pallas": batched(_pallas),
}
