from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import several
from flax import nnx
from small import (
    SCHEDULE,
    TOKENS,
    WIDTH,
    class_denoiser,
    jax_random,
    one_level_denoiser,
)

from diffjax.checkpoints.untrained import random_network
from diffjax.errors import DiffjaxError
from diffjax.models.attention import unfused
from diffjax.models.conditions import centre, floating, take, with_floating
from diffjax.models.conditions import shapes as one_shape
from diffjax.models.network import Network
from diffjax.models.unet import TextCondition
from diffjax.scoring.gradients import (
    Estimator,
    bytes_of_gradient,
    condition_vectors,
    error_gradients,
    first_order,
)
from diffjax.scoring.grid import cell_errors
from diffjax.scoring.noise import ImageNoise, NoiseTable
from diffjax.scoring.placement import block_mesh, replicate

Z0 = jax_random(8, 8, 4, seed=1)
TABLE = NoiseTable(jax_random(7, 8, 8, 4), "a table, which compiles quickly")
NOISE = ImageNoise(TABLE, jnp.uint32(0))
TIMESTEPS = np.array([60, 150, 250, 500, 750, 900, 998])
NOISES = np.array([3, 0, 1, 2, 6, 5, 4])
N = 9
STATES = TextCondition(jax_random(N, TOKENS, WIDTH, seed=2))


text_network = cache(one_level_denoiser)


class Toy(nnx.Module):
    """A denoiser that is a matrix product and a function."""

    def __init__(self, kind, dtype=jnp.float32, width=WIDTH):
        self.kind, self.dtype = kind, dtype
        size = TOKENS * width, Z0.size
        self.matrix = nnx.Param(jax_random(*size, seed=3) / np.sqrt(size[0]))

    def __call__(self, latent, timestep, condition):
        c = condition.states.astype(self.dtype).ravel()
        image = (c @ self.matrix[...].astype(self.dtype)).reshape(latent.shape)
        image = image.astype(jnp.float32)
        if self.kind == "linear":
            # so far from any noise that its absolute error has no kink
            return 20 + image
        if self.kind == "curved":
            return jnp.tanh(image + latent) * jnp.cos(timestep)
        a, s = SCHEDULE.signal[timestep], SCHEDULE.sigma[timestep]
        return (latent - a * image) / s  # "image": what c is a picture of


def toy(kind, **kwargs):
    return Network.of(Toy(kind, **kwargs))


def estimator(denoiser, loss="l2", batch=4, devices=1):
    mesh = block_mesh(jax.local_devices()[:devices])
    denoiser, schedule = replicate((denoiser, SCHEDULE), mesh)
    return Estimator(
        denoiser=denoiser, schedule=schedule, loss=loss, batch=batch, mesh=mesh
    )


def at(estimator, base, vectors=STATES, z0=Z0):
    place = replicate((NOISE, z0, vectors, base), estimator.mesh)
    return estimator.estimate(*place, TIMESTEPS, NOISES)


def true_errors(denoiser, vectors=STATES, loss="l2"):
    @jax.jit
    def errors(denoiser, vectors):
        def cell(vector, t, k):
            noise = NOISE.draw(k, Z0.shape)
            [error] = cell_errors(
                denoiser, SCHEDULE, Z0, vector, t, noise, losses=(loss,)
            )
            return error

        samples = jax.vmap(cell, in_axes=(None, 0, 0))
        t, k = jnp.asarray(TIMESTEPS), jnp.asarray(NOISES)
        return jax.vmap(samples, in_axes=(0, None, None))(vectors, t, k)

    return np.asarray(errors(denoiser, vectors))


# --- The estimate


def test_it_is_exact_where_errors_are_linear():
    network = toy("linear")
    expected = true_errors(network, loss="l1")
    assert np.ptp(expected, axis=0).min() > 0.01  # the class matters
    base = TextCondition(jax_random(TOKENS, WIDTH, seed=4))
    found = at(estimator(network, "l1"), base)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def text_case():
    direction = TextCondition(jax_random(TOKENS, WIDTH, seed=5))
    return text_network(), take(STATES, 0), direction


def class_case():
    network = class_denoiser()
    table = condition_vectors(network, jnp.arange(11))
    return network, table[10], table[3] - table[10]


def several_case():
    """Leaves of integers and booleans stay what they are at the base."""
    rows = several.conditions(2)
    towards = [leaf[1] - leaf[0] for leaf in floating(rows)]
    base = take(rows, 1)
    return several.denoiser(), base, with_floating(base, towards)


@pytest.mark.parametrize("case", [text_case, class_case, several_case])
def test_it_follows_the_slope_of_a_network(case):
    network, base, direction = case()
    ours, h = estimator(network), 0.02

    def moved(*steps):  # rows of that many steps along the direction
        along = jnp.array(steps)
        rows = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(steps)), base)
        both = zip(floating(base), floating(direction), strict=True)
        return with_floating(rows, [b + jnp.multiply.outer(along, d) for b, d in both])

    here, estimated = at(ours, base, moved(0, h))
    ahead, behind = (at(ours, take(moved(s), 0), moved(s))[0] for s in (h, -h))
    slope = (ahead - behind) / (2 * h)
    assert np.abs(slope).min() > 1e-3
    np.testing.assert_allclose((estimated - here) / h, slope, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(("batch", "devices"), [(1, 1), (3, 1), (3, 2), (64, 2)])
def test_it_does_not_depend_on_the_batch_or_the_devices(batch, devices):
    network, base = toy("curved"), take(STATES, 0)
    samples = jnp.asarray(TIMESTEPS), jnp.asarray(NOISES)
    alone = error_gradients(*(network, SCHEDULE, NOISE, Z0, base, *samples), loss="l2")
    expected = first_order(STATES, base, *alone)
    found = at(estimator(network, batch=batch, devices=devices), base)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_class_that_is_the_base_is_exact():
    network = toy("curved")
    ours, true = estimator(network), true_errors(network)
    for c in range(N):
        found = at(ours, take(STATES, c))
        np.testing.assert_allclose(found[c], true[c], rtol=1e-5)
        assert np.abs(found - true).max() > 1e-3


def test_it_finds_the_winner():
    """Each class is a picture; the image is one of them, and noise as strong."""
    network = toy("image")
    n, winner = 200, 77
    vectors = jax_random(n, TOKENS * WIDTH, seed=6)
    vectors /= jnp.linalg.norm(vectors, axis=1, keepdims=True)
    picture = (vectors[winner] @ network.module().matrix[...]).reshape(Z0.shape)
    vectors = TextCondition(vectors.reshape(n, TOKENS, WIDTH))
    z0 = picture + jnp.std(picture) * Z0
    ours = estimator(network)
    found = at(ours, centre(vectors), vectors, z0).mean(axis=1)
    assert found.argmin() == winner


def test_half_precision_does_not_lose_the_gradient():
    # the matrix makes gradients of the mean that float16 rounds to zero
    def slopes(dtype):
        network = toy("linear", dtype=dtype)
        small = jax.tree.map(lambda x: x * 1e-4, network)
        [states] = STATES
        return at(
            estimator(small), TextCondition(0 * states[0]), TextCondition(1e4 * states)
        )

    full, half = slopes(jnp.float32), slopes(jnp.float16)
    assert np.ptp(full, axis=0).min() > 0.1
    np.testing.assert_allclose(half - half.mean(0), full - full.mean(0), atol=0.02)


# --- Conditions


def test_a_vector_stands_for_a_class_id():
    network = class_denoiser()
    vectors = condition_vectors(network, jnp.array([7, 10]))
    assert vectors.dtype == jnp.float32
    run = jax.jit(lambda *args: network.module()(*args))
    by_id = run(Z0, jnp.int32(500), jnp.int32(7))
    np.testing.assert_array_equal(by_id, run(Z0, jnp.int32(500), vectors[0]))
    assert jnp.abs(by_id - run(Z0, jnp.int32(500), vectors[1])).max() > 0.01
    with pytest.raises(ValueError, match=r"\(16,\), not \(1,\)"):
        network.module()(Z0, jnp.int32(500), jnp.ones(1))


def test_text_states_stand_for_themselves():
    found = condition_vectors(text_network(), STATES)
    np.testing.assert_array_equal(found.states, STATES.states)


# --- What it costs


@pytest.mark.parametrize(
    ("make", "condition", "low", "high"),
    [
        (text_network, take(STATES, 0), 1.8, 2.6),
        (class_denoiser, jnp.ones(16), 1.8, 2.6),
    ],
)
def test_forward_and_backward_cost_two_forward_passes(make, condition, low, high):
    """No gradient of the weights is taken, so it is less than the three of training."""
    arguments = make(), Z0, condition

    def error(network, z0, c):
        t = jnp.int32(500)
        return cell_errors(network, SCHEDULE, z0, c, t, z0, losses=("l2",))[0]

    def flops(function):
        # as traced: nothing is compiled
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]

    ratio = flops(jax.value_and_grad(error, argnums=2)) / flops(error)
    assert low < ratio < high


def test_the_network_is_compiled_once_for_any_number_of_classes():
    from diffjax.scoring.gradients import _sharded_gradients

    ours = estimator(toy("curved"))
    at(ours, take(STATES, 0))
    before = _sharded_gradients.programs
    at(ours, take(STATES, 1), take(STATES, slice(4)))
    at(ours, take(STATES, 2), take(STATES, np.tile(np.arange(N), 40)))
    assert _sharded_gradients.programs == before


def test_what_a_gradient_takes_follows_the_image():
    network, states = text_network(), one_shape(STATES)
    with unfused():
        small, large = (
            bytes_of_gradient(network, SCHEDULE, (edge, edge, 4), states, "l2")
            for edge in (8, 16)
        )
    # feature maps grow by 4, attention matrices by 16; the weights are not counted
    assert 4 * small < large < 16 * small


def test_running_out_of_memory_makes_batches_smaller(monkeypatch):
    from diffjax.scoring.gradients import _sharded_gradients

    network, sizes = toy("curved"), []
    expected = at(estimator(network), take(STATES, 0))

    def fail(*args, **kwargs):
        sizes.append(len(args[5]))
        if sizes[-1] > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return _sharded_gradients(*args, **kwargs)

    monkeypatch.setattr("diffjax.scoring.gradients._sharded_gradients", fail)
    most, ours = 2, estimator(network, batch=8)
    with pytest.warns(UserWarning, match="gradients of 4 samples; going on with 2"):
        found = at(ours, take(STATES, 0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert sizes == [7, 4, 2, 2, 2, 2]
    assert ours.batch == 2  # for the next image
    most = 0
    with (
        pytest.warns(UserWarning, match="gradients"),
        pytest.raises(DiffjaxError, match="gradient of a single sample"),
    ):
        at(ours, take(STATES, 0))


def test_noise_that_a_file_does_not_hold_is_refused():
    ours = estimator(toy("curved"))
    table = NoiseTable(jnp.zeros((3, *Z0.shape)), "three")
    with pytest.raises(DiffjaxError, match="three holds 3 noises"):
        noise = ImageNoise(table, jnp.uint32(0))
        ours.estimate(noise, Z0, STATES, take(STATES, 0), TIMESTEPS, NOISES)


def test_gradients_in_small_number_types_keep_less():
    def reckoned(dtype):
        network = random_network(text_network().module().config, dtype)
        return bytes_of_gradient(
            network, SCHEDULE, (16, 16, 4), one_shape(STATES), "l2"
        )

    # half as many bytes a number, and float32 in norms that is not kept
    assert 0.2 < reckoned("bfloat16") / reckoned("float32") < 0.6
