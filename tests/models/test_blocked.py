"""Attention in blocks of queries: equal to the plain one, and small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import attention
from diffjax.models import blocked as module
from diffjax.models.blocked import blocked

plain = jax.nn.dot_product_attention
NUMBERS = (0, 1, 2)


@pytest.fixture
def small(monkeypatch):
    """Blocks of at most 128 queries, and two heads together only of short lengths."""
    monkeypatch.setattr(module, "QUERIES", 128)
    monkeypatch.setattr(module, "LOGITS_OF_HEADS", 3 * 100**2)


def normal(*shape, seed=0, dtype=jnp.float32):
    x = np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)
    return jnp.asarray(x, dtype)


def assert_equal(found, expected, tolerance=2e-6):
    """To a share of the largest element."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    found, expected = (np.asarray(x, np.float32) for x in (found, expected))
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


# one block, several, a last one that is not full; texts; the autoencoder's one head
@pytest.mark.parametrize("lengths", [(100, 100), (256, 256), (301, 77), (700, 701)])
@pytest.mark.parametrize(("heads", "head"), [(3, 16), (1, 64)])
def test_it_equals_the_plain_one(small, lengths, heads, head):
    (q, k), v = (normal(n, heads, head) for n in lengths), normal(lengths[1], heads, 1)
    v = v + normal(lengths[1], heads, head, seed=1)
    assert_equal(jax.jit(blocked)(q, k, v), plain(q, k, v))


def test_logits_of_any_size_have_a_softmax(small):
    q, k, v = 100 * normal(300, 2, 8), 100 * normal(300, 2, 8), normal(300, 2, 8)
    assert_equal(blocked(q, k, v), plain(q, k, v), 1e-5)


def test_bfloat16_goes_in_and_out(small):
    q, k, v = (normal(300, 2, 8, seed=i, dtype=jnp.bfloat16) for i in range(3))
    assert_equal(blocked(q, k, v), plain(q, k, v), 0.01)


def over_classes(function, q, k, v):
    """As tiles map: queries that no class has touched yet, keys of each class."""
    one = jax.vmap(function, in_axes=(None, 0, 0))
    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))(q, k, v)


def test_it_may_be_mapped(small):
    q, k, v = normal(4, 301, 2, 8), normal(3, 77, 2, 8), normal(3, 77, 2, 8, seed=1)
    assert_equal(over_classes(blocked, q, k, v), over_classes(plain, q, k, v))
    other = jax.vmap(blocked, in_axes=(1, None, None), out_axes=1)
    assert_equal(
        other(q.swapaxes(0, 1), k[0], v[0]),
        over_classes(plain, q, k, v)[:, 0].swapaxes(0, 1),
    )


def test_what_is_not_mapped_is_not_repeated():
    """Sixty-four texts for one image: its queries are there once."""
    q, k = normal(2048, 2, 32), normal(64, 16, 2, 32)
    mapped = jax.jit(jax.vmap(blocked, in_axes=(None, 0, 0)))
    memory = mapped.lower(q, k, k).compile().memory_analysis()
    besides = memory.temp_size_in_bytes - memory.output_size_in_bytes
    assert besides < 16 * q.nbytes  # blocks, and each argument in another layout


@pytest.mark.parametrize("lengths", [(301, 77), (256, 256)])
def test_it_may_be_differentiated_and_mapped(small, lengths):
    q, k, v = (
        normal(4 if i == 0 else 3, lengths[i > 0], 2, 8, seed=i) for i in range(3)
    )

    def of_maps(function):
        def total(q, k, v):
            return (over_classes(function, q, k, v) ** 2).sum()

        return jax.jit(jax.grad(total, NUMBERS))(q, k, v)

    def maps_of(function):
        def total(q, k, v):
            return (function(q, k, v) ** 2).sum()

        return over_classes(jax.grad(total, NUMBERS), q, k, v)

    for way in (of_maps, maps_of):
        for found, expected in zip(way(blocked), way(plain), strict=True):
            assert_equal(found, expected, 2e-6)


def test_no_matrix_of_logits_is_in_memory():
    """4,096 tokens, forward and backward: one head's matrix alone has 64 MiB."""
    x = jax.ShapeDtypeStruct((4096, 2, 16), jnp.float32)
    forward = jax.jit(blocked)
    backward = jax.jit(jax.grad(lambda q, k, v: blocked(q, k, v).sum(), NUMBERS))
    for program, most in ((forward, 20), (backward, 60)):
        memory = program.lower(x, x, x).compile().memory_analysis()
        assert memory.temp_size_in_bytes < most * 2**20


@pytest.mark.parametrize(
    ("expected", "lengths"),
    [
        ("blocked", (4096, 4096)),
        ("blocked", (1024, 1024)),
        ("blocked", (256, 256)),
        ("blocked", (1024, 77)),
        ("xla", (64, 77)),
    ],
)
def test_where_cpus_use_it(expected, lengths):
    assert attention.choose("cpu", "float32", 64, *lengths) == expected


def test_layers_attend_by_it(monkeypatch):
    x = normal(600, 16)
    found = attention.attend(x, x, x, 2)
    calls = []
    monkeypatch.setitem(
        attention.FUSED, "blocked", lambda *x: calls.append(1) or plain(*x)
    )
    with attention.traced_for(attention.Target("cpu")):
        assert_equal(attention.attend(x, x, x, 2), found)
    assert calls == [1]
