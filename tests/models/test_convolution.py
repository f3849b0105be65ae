"""Convolutions as products of matrices: equal, and where CPUs take them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import convolution
from diffjax.models.attention import Target, traced_for
from diffjax.models.convolution import as_product, convolve
from diffjax.models.layers import Make

NHWC = ("NHWC", "HWIO", "NHWC")


def normal(*shape, seed=0):
    x = np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)
    return jnp.asarray(x)


def plain(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=NHWC
    )


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 1)])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 1), (2, 0))])
def test_they_are_equal(shape, padding):
    x, kernel = normal(*shape, 6), normal(3, 3, 6, 5)
    if min(n + sum(p) for n, p in zip(shape[1:], padding, strict=True)) < 3:
        pytest.skip("the kernel does not fit")
    found, expected = as_product(x, kernel, padding), plain(x, kernel, padding)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_so_are_their_slopes():
    x, kernel, padding = normal(2, 6, 6, 4), normal(3, 3, 4, 5), ((1, 1), (1, 1))

    def slopes(function):
        def total(x, kernel):
            return (function(x, kernel, padding) ** 2).sum()

        return jax.grad(total, (0, 1))(x, kernel)

    for found, expected in zip(slopes(as_product), slopes(plain), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("taken", "backend", "edge", "channels", "size", "stride"),
    [
        (True, "cpu", 8, 1280, 3, 1),
        (True, "cpu", 16, 640, 3, 1),
        (False, "cpu", 32, 640, 3, 1),  # XLA's own is faster
        (False, "cpu", 8, 128, 3, 1),
        (False, "cpu", 16, 1280, 1, 1),  # a product already
        (False, "cpu", 16, 1280, 3, 2),
        (False, "gpu", 8, 1280, 3, 1),
        (False, "tpu", 8, 1280, 3, 1),
    ],
)
def test_where_it_is_taken(monkeypatch, taken, backend, edge, channels, size, stride):
    calls = []

    def counted(x, kernel, padding, precision=None):
        calls.append(precision)
        return as_product(x, kernel, padding, precision)

    monkeypatch.setattr(convolution, "as_product", counted)
    layer = Make(rngs=None).conv(channels, 4, size, stride=stride)
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((1, edge, edge, channels), (size, size, channels, 4))
    ]
    padding = ((size // 2, size // 2),) * 2

    def run(x, kernel):
        options = {"dimension_numbers": NHWC, "precision": layer.precision}
        return convolve(x, kernel, (stride, stride), padding, **options)

    with traced_for(Target(backend)):
        out = jax.eval_shape(run, *shapes)
    assert calls == (["float32"] if taken else [])
    assert out.shape == (1, edge // stride, edge // stride, 4)
    assert layer.conv_general_dilated is convolve
