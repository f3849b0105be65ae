"""Attention: the right implementation for each layer, and all of them equal.

Kernels run where their hardware is. Elsewhere the TPU's runs in Pallas's interpreter,
and cuDNN's is lowered for a GPU that is made up, as far as that goes without one.
"""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from diffjax.errors import DiffjaxError
from diffjax.models import attention
from diffjax.models.attention import (
    VARIABLE,
    Target,
    attend,
    batched,
    choose,
    chosen,
)
from diffjax.scoring.compiling import answering_for
from diffjax.scoring.placement import block_mesh

AMPERE, HOPPER, VOLTA = (8, 0), (9, 0), (7, 0)
BACKEND = jax.default_backend()
TOLERANCE = 0.02 if BACKEND == "tpu" else 1e-5  # TPUs multiply float32 in fewer digits


@pytest.mark.parametrize(
    ("expected", "backend", "dtype", "head", "lengths", "capability"),
    [
        # Stable Diffusion 2: heads of 64; self- and cross-attention at every level
        ("cudnn", "gpu", "bfloat16", 64, (4096, 4096), HOPPER),
        ("cudnn", "gpu", "bfloat16", 64, (4096, 77), HOPPER),
        ("cudnn", "gpu", "float16", 64, (64, 64), AMPERE),
        ("cudnn", "cuda", "bfloat16", 64, (4096, 4096), (12, 0)),
        ("xla", "gpu", "float32", 64, (4096, 4096), HOPPER),
        ("xla", "gpu", "float16", 64, (4096, 4096), VOLTA),
        # Stable Diffusion 1: heads of 40, 80 and 160
        ("cudnn", "gpu", "bfloat16", 40, (4096, 4096), AMPERE),
        ("xla", "gpu", "bfloat16", 160, (256, 256), AMPERE),
        ("cudnn", "gpu", "bfloat16", 160, (256, 256), HOPPER),
        # DiT: 72; the autoencoder: 512
        ("cudnn", "gpu", "bfloat16", 72, (256, 256), AMPERE),
        ("xla", "gpu", "bfloat16", 512, (4096, 4096), HOPPER),
        ("xla", "gpu", "bfloat16", 20, (4096, 4096), HOPPER),
        # AMD's have no compute capability
        ("xla", "gpu", "bfloat16", 64, (4096, 4096), None),
        ("xla", "rocm", "bfloat16", 64, (4096, 4096), None),
        ("pallas", "tpu", "bfloat16", 64, (4096, 4096), None),
        ("pallas", "tpu", "bfloat16", 40, (1024, 1024), None),
        ("pallas", "tpu", "bfloat16", 256, (1024, 1024), None),
        ("xla", "tpu", "bfloat16", 160, (1024, 1024), None),
        ("xla", "tpu", "bfloat16", 64, (4096, 77), None),
        ("xla", "tpu", "bfloat16", 64, (64, 64), None),
        ("xla", "tpu", "float32", 64, (4096, 4096), None),
        ("blocked", "cpu", "bfloat16", 64, (4096, 4096), None),
    ],
)
def test_the_choice(expected, backend, dtype, head, lengths, capability):
    assert choose(backend, dtype, head, *lengths, capability) == expected
    assert choose(backend, jnp.dtype(dtype), head, *lengths, capability) == expected


def test_this_machine_and_what_the_user_wants(monkeypatch):
    if BACKEND == "cpu":
        assert chosen("bfloat16", 64, 4096, 4096) == "blocked"
    monkeypatch.setattr(attention, "choose", lambda *args: "cudnn")
    assert chosen("bfloat16", 64, 4096, 4096) == "cudnn"
    monkeypatch.setenv(VARIABLE, "xla")
    assert chosen("bfloat16", 64, 4096, 4096) == "xla"
    monkeypatch.setenv(VARIABLE, "flash")
    with pytest.raises(DiffjaxError, match=r"DIFFJAX_ATTENTION .*flash"):
        chosen("bfloat16", 64, 4096, 4096)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("9.0", (9, 0)), ("12.0", (12, 0)), ("gfx942", None), (None, None)],
)
def test_the_compute_capability(monkeypatch, device, expected):
    class Device:
        compute_capability = device

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert attention._capability() == expected


def normal(*shape, dtype=jnp.float32, seed=0):
    x = np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)
    return jnp.asarray(x, dtype)


def plain(q, k, v):
    return jax.nn.dot_product_attention(q, k, v)


def strict(q, k, v):
    """A kernel that takes one batch axis and no other, as cuDNN's and the TPU's."""
    assert q.ndim == k.ndim == v.ndim == 4
    assert len(q) == len(k) == len(v)
    return plain(q, k, v)


Q, K, V = normal(5, 6, 2, 8), normal(3, 7, 2, 8), normal(3, 7, 2, 8, seed=1)


def over_classes(function, q, k, v):
    """As tiles map: queries that no class has touched yet, keys of each class."""
    one = jax.vmap(function, in_axes=(None, 0, 0))
    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))(q, k, v)


def test_kernels_may_be_mapped():
    ours = batched(strict)
    expected = over_classes(plain, Q, K, V)
    assert expected.shape == (5, 3, 6, 2, 8)
    np.testing.assert_allclose(over_classes(ours, Q, K, V), expected, atol=1e-6)
    np.testing.assert_allclose(ours(Q[0], K[0], V[0]), expected[0, 0], atol=1e-6)
    # along another axis, and back
    other = jax.vmap(ours, in_axes=(1, None, None), out_axes=1)
    np.testing.assert_allclose(
        other(Q.swapaxes(0, 1), K[0], V[0]), expected[:, 0].swapaxes(0, 1), atol=1e-6
    )


def test_kernels_may_be_differentiated_and_mapped():
    ours, numbers = batched(strict), (0, 1, 2)

    def slopes(function):
        def total(q, k, v):
            return (over_classes(function, q, k, v) ** 2).sum()

        return jax.jit(jax.grad(total, numbers))(Q, K, V)

    def mapped(function):
        def total(q, k, v):
            return (function(q, k, v) ** 2).sum()

        return over_classes(jax.grad(total, numbers), Q, K, V)

    for way in (slopes, mapped):
        for found, expected in zip(way(ours), way(plain), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-5)


def test_attend_uses_what_was_chosen(monkeypatch):
    q, k = normal(6, 16), normal(7, 16)
    expected = attend(q, k, k, 2)
    monkeypatch.setattr(attention, "chosen", lambda *args: "other")
    calls = []

    def other(q, k, v):
        calls.append(q.shape)
        return plain(q, k, v)

    monkeypatch.setitem(attention.FUSED, "other", batched(other))
    found = attend(q, k, k, 2)
    assert calls == [(1, 6, 2, 8)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    attend(q, q, q, 2, causal=True)  # the kernels are not asked for it
    assert len(calls) == 1


@pytest.mark.parametrize(("length_q", "length_k"), [(128, 128), (140, 200)])
def test_the_tpu_kernel(length_q, length_k):
    """On a TPU; elsewhere in Pallas's interpreter. Also where blocks are filled up."""
    q, k = normal(1, length_q, 1, 8), normal(1, length_k, 1, 8)
    with interpreted():
        found = attention._pallas(q, k, k)
    np.testing.assert_allclose(found, plain(q, k, k), atol=TOLERANCE)


@pytest.mark.slow
def test_the_backward_pass_of_the_tpu_kernel():
    """Of one image: the interpreter does not know the kernel's backward pass mapped."""

    def one(function):
        return lambda q, k, v: function(*(x.swapaxes(1, 2)[0] for x in (q, k, v)))

    def expected(q, k, v):
        return plain(*(x.swapaxes(0, 1)[None] for x in (q, k, v)))[0].swapaxes(0, 1)

    q, k, v = normal(1, 140, 2, 8), normal(1, 200, 2, 8), normal(1, 200, 2, 8, seed=1)
    slope = normal(2, 140, 8)
    with interpreted():
        slopes = jax.vjp(one(attention.splash), q, k, v)[1](slope)
    for found, right in zip(
        slopes, jax.vjp(one(expected), q, k, v)[1](slope), strict=True
    ):
        np.testing.assert_allclose(found, right, atol=10 * TOLERANCE)


def interpreted():
    from jax.experimental.pallas import tpu

    if BACKEND == "tpu":
        return contextlib.nullcontext()
    return tpu.force_tpu_interpret_mode()


def lowered(platform, name, q, k, v):
    """The program for a platform that is not here: nested vmap inside of shard_map."""
    mesh = block_mesh(jax.local_devices()[:2])
    part = partial(over_classes, attention.FUSED[name])
    split, copied = PartitionSpec("blocks"), PartitionSpec()
    tile = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(split, copied, copied),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(tile).trace(q, k, v).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("head", [40, 64, 72, 128])
def test_the_tpu_kernel_compiles_in_tiles(head):
    half = partial(normal, dtype=jnp.bfloat16)
    text = lowered("tpu", "pallas", half(4, 640, 2, head), *[half(3, 600, 2, head)] * 2)
    assert text.count("tpu_custom_call") == 1


def test_cudnn_compiles_in_tiles():
    half = partial(normal, dtype=jnp.bfloat16)
    q, k, text = half(4, 16, 2, 64), half(3, 16, 2, 64), half(3, 77, 2, 64)
    with answering_for(Target("cuda", (9, 0))):
        for keys in (k, text):
            assert lowered("cuda", "cudnn", q, keys, keys).count("@__cudnn$fmha") == 1
        # the backward pass: of even lengths only
        for keys, expected in ((k, True), (text, False)):
            program = jax.jit(jax.grad(lambda *args: total("cudnn", *args)))
            traced = program.trace(q[:3], keys, keys)
            as_text = traced.lower(lowering_platforms=("cuda",)).as_text()
            assert ("@__cudnn$fmhaSoftmaxBackward" in as_text) == expected


def total(name, q, k, v):
    return jax.vmap(attention.FUSED[name])(q, k, v).astype(jnp.float32).sum()


@pytest.mark.skipif(BACKEND != "gpu", reason="cuDNN needs an NVIDIA GPU")
@pytest.mark.parametrize("length_k", [77, 256])
def test_cudnn_equals_xla(length_k):
    half = partial(normal, dtype=jnp.bfloat16)
    q, k, v = half(5, 256, 4, 64), half(3, length_k, 4, 64), half(3, length_k, 4, 64)
    found, expected = (
        over_classes(f, q, k, v).astype(jnp.float32)
        for f in (attention.FUSED["cudnn"], plain)
    )
    np.testing.assert_allclose(found, expected, atol=0.02)
    found, expected = (
        jax.grad(lambda k, f=f: over_classes(f, q, k, v).astype(jnp.float32).sum())(k)
        for f in (attention.FUSED["cudnn"], plain)
    )
    np.testing.assert_allclose(found, expected, atol=0.1)
