"""Attention in blocks of queries, for CPUs: no matrix of all logits in memory.

A loop takes one head and a block of queries at a time, or a few heads whose matrices
are small. Their logits stay in the caches, in memory that is used again by the next
step, and the products are plain ones of two matrices, which CPUs multiply fastest.
Softmax and products are in float32.

    p = exp(s q kᵀ − max)          o = p v / Σ p          s = 1 / √h
    g = slope of o:                dv = Σ (p / Σ p)ᵀ g
    dz = p / Σ p · (g vᵀ − Σ g · o)       dq = s dz k         dk = s Σ dzᵀ q

The backward pass computes p again, block by block. An argument that vmap does not map
is not repeated: the loop reads it where it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.typing import DTypeLike
from jaxtyping import Array, Float

LOGITS = 2**21  # of a block, at most about: 8 MiB
QUERIES = 1024  # of a block, at most
LOGITS_OF_HEADS = 2**19  # of several heads together, at most


def of_passes(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    spread: Callable[[Array, int], Array],
) -> Callable[[Array, Array, Array], Array]:
    """Attention for vmap and reverse differentiation.

    Args:
        forward: q [..., l, n, h], k and v [..., m, n, h] → [..., l, n, h].
        backward: these and the slope of the result → their slopes.
        spread: what vmap does not map, and a size → it with one more leading axis.
    """

    def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
        mapped = custom_vmap(function)

        @mapped.def_vmap
        def rule(size: int, is_mapped: list[bool], *arrays: Array) -> tuple[Any, Any]:
            pairs = zip(arrays, is_mapped, strict=True)
            out = mapped(*(x if has else spread(x, size) for x, has in pairs))
            return out, jax.tree.map(lambda _: True, out)

        return mapped

    ahead, back = mapped(forward), mapped(backward)

    @jax.custom_vjp
    def attention(q: Array, k: Array, v: Array) -> Array:
        out: Array = ahead(q, k, v)
        return out

    attention.defvjp(
        lambda q, k, v: (ahead(q, k, v), (q, k, v)),
        lambda kept, slope: back(*kept, slope),
    )
    return attention


def _forward(q: Array, k: Array, v: Array) -> Array:
    lead = np.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])
    cut = _Cut.of(q, k)
    queries = cut.queries(q)
    keys, values = cut.keys(k), cut.keys(v)
    at_q, at_k, at_v = (cut.places(x, lead) for x in (q, k, v))

    def one(place: tuple[Array, ...]) -> Array:
        i, j, m, n = place
        weights = _exponentials(queries[i, j], keys[m])
        return (weights @ values[n]) / weights.sum(-1, keepdims=True)

    places = (
        np.repeat(at_q, cut.blocks),
        np.tile(np.arange(cut.blocks, dtype=np.int32), len(at_q)),
        np.repeat(at_k, cut.blocks),
        np.repeat(at_v, cut.blocks),
    )
    out = jax.lax.map(one, places).reshape(-1, *queries.shape[1:])
    return cut.tokens(out, (*lead, *q.shape[-3:]), q.dtype)


def _backward(q: Array, k: Array, v: Array, slope: Array) -> tuple[Array, ...]:
    arrays = (q, k, v, slope)
    lead = np.broadcast_shapes(*(x.shape[:-3] for x in arrays))
    cut = _Cut.of(q, k)
    queries, upstream = cut.queries(q), cut.queries(slope)
    keys, values = cut.keys(k), cut.keys(v)
    scale = 1 / math.sqrt(q.shape[-1])

    def one(place: tuple[Array, ...]) -> tuple[Array, ...]:
        i, m, n, o = place
        key, value = keys[m], values[n]

        def of_block(
            sums: tuple[Array, Array], pair: tuple[Array, Array]
        ) -> tuple[tuple[Array, Array], Array]:
            query, g = pair
            weights = _exponentials(query, key)
            weights = weights / weights.sum(-1, keepdims=True)
            inner = g @ value.mT
            mean = (weights * inner).sum(-1, keepdims=True)  # = Σ g · o
            dz = scale * weights * (inner - mean)
            return (sums[0] + dz.mT @ query, sums[1] + weights.mT @ g), dz @ key

        zeros = (jnp.zeros_like(key), jnp.zeros_like(value))
        sums, dq = jax.lax.scan(of_block, zeros, (queries[i], upstream[o]))
        return dq, sums[0][None], sums[1][None]

    slopes = jax.lax.map(one, tuple(cut.places(x, lead) for x in arrays))
    dq, dk, dv = (
        cut.tokens(slope, (*lead, *x.shape[-3:]), x.dtype)
        for slope, x in zip(slopes, (q, k, v), strict=True)
    )
    return dq, dk, dv


@dataclass(frozen=True)
class _Cut:
    """How a step takes its part: so many heads, and one of the blocks of queries."""

    heads: int
    blocks: int
    block: int  # queries

    @classmethod
    def of(cls, q: Array, k: Array) -> "_Cut":
        (length, heads), other = q.shape[-3:-1], k.shape[-3]
        most = min(QUERIES, max(1, LOGITS // other))
        blocks = -(-length // most)
        together = max(1, LOGITS_OF_HEADS // (length * other))
        return cls(
            heads=max(
                n for n in range(1, heads + 1) if n <= together and heads % n == 0
            ),
            blocks=blocks,
            block=-(-length // blocks),  # as even as can be
        )

    def queries(self, x: Float[Array, "... l n h"]) -> Float[Array, "p b n2 l2 h"]:
        """Parts of heads, and their blocks; zeros behind the last query."""
        missing = self.blocks * self.block - x.shape[-3]
        if missing:
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(0, missing), (0, 0), (0, 0)])
        x = self.keys(x).reshape(-1, self.heads, self.blocks, self.block, x.shape[-1])
        return x.swapaxes(1, 2)

    def keys(self, x: Float[Array, "... m n h"]) -> Float[Array, "p n2 m h"]:
        """Parts of heads, in float32."""
        x = x.astype(jnp.float32).swapaxes(-3, -2)
        return x.reshape(-1, self.heads, *x.shape[-2:])

    def tokens(
        self, x: Float[Array, "p b n2 l2 h"], shape: tuple[int, ...], dtype: DTypeLike
    ) -> Array:
        """The inverse of both, to a shape [..., l, n, h]."""
        length, heads, head = shape[-3:]
        x = x.swapaxes(1, 2).reshape(*shape[:-3], heads, -1, head)
        return x[..., :length, :].swapaxes(-3, -2).astype(dtype)

    def places(self, x: Array, lead: tuple[int, ...]) -> np.ndarray:
        """Of each part under the leading axes, where it is in ``keys(x)``; int32."""
        own, parts = x.shape[:-3], x.shape[-2] // self.heads
        numbers = np.arange(math.prod(own) * parts, dtype=np.int32)
        return np.broadcast_to(numbers.reshape(*own, parts), (*lead, parts)).ravel()


def _exponentials(q: Float[Array, "n b h"], k: Float[Array, "n m h"]) -> Array:
    logits = (q / math.sqrt(q.shape[-1])) @ k.mT
    return jnp.exp(logits - logits.max(-1, keepdims=True))


# softmax(q kᵀ / √h) v of each of n heads, in the dtype of q
blocked = of_passes(_forward, _backward, lambda x, size: x[None])
