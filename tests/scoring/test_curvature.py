import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small import SCHEDULE, class_denoiser, jax_random

from diffjax.models.conditions import centre, floating, take
from diffjax.models.diffusion import predict
from diffjax.models.network import Network
from diffjax.models.unet import TextCondition
from diffjax.schedules import add_noise
from diffjax.scoring.cost import count_flops
from diffjax.scoring.curvature import error_hessians, principal, second_order
from diffjax.scoring.gradients import condition_vectors, error_gradients, first_order
from diffjax.scoring.grid import cell_errors
from diffjax.scoring.noise import ImageNoise, NoiseTable
from diffjax.scoring.placement import block_mesh, replicate

Z0 = jax_random(8, 8, 4, seed=1)
NOISE = ImageNoise(NoiseTable(jax_random(4, 8, 8, 4), "a table"), jnp.uint32(0))
TIMESTEPS, NOISES = np.array([60, 500, 900]), np.array([3, 0, 1])
N, TOKENS, WIDTH = 6, 3, 4
STATES = TextCondition(jax_random(N, TOKENS, WIDTH, seed=2))


class Linear(nnx.Module):
    """A denoiser that is a matrix product."""

    def __init__(self):
        self.dtype = jnp.float32
        self.matrix = nnx.Param(jax_random(TOKENS * WIDTH, Z0.size, seed=3))

    def __call__(self, latent, timestep, condition):
        return (condition.states.ravel() @ self.matrix[...]).reshape(latent.shape)


def mean_errors(network, vectors, loss):
    def cell(vector, t, k):
        noise = NOISE.draw(k, Z0.shape)
        return cell_errors(network, SCHEDULE, Z0, vector, t, noise, losses=(loss,))[0]

    samples = jax.vmap(cell, in_axes=(None, 0, 0))
    over = jax.vmap(samples, in_axes=(0, None, None))
    return np.asarray(over(vectors, jnp.asarray(TIMESTEPS), jnp.asarray(NOISES)))


@pytest.mark.parametrize("devices", [1, 2])
def test_both_orders_are_exact_where_the_network_is_linear(devices):
    network, base = Network.of(Linear()), centre(STATES)
    expected = mean_errors(network, STATES, "l2").mean(axis=1)
    samples = jnp.asarray(TIMESTEPS), jnp.asarray(NOISES)
    first = error_gradients(network, SCHEDULE, NOISE, Z0, base, *samples, loss="l2")
    linear = np.asarray(first_order(STATES, base, *first)).mean(axis=1)
    places, axes = principal(STATES, base, N)
    assert places.shape == (N, N - 1)  # the differences to their mean
    mesh = block_mesh(jax.local_devices()[:devices])
    placed = replicate((network, SCHEDULE, NOISE, Z0, base), mesh)
    second = second_order(
        *placed, places, replicate(axes, mesh), TIMESTEPS, NOISES, loss="l2", mesh=mesh
    )
    assert second.min() > 0.1
    np.testing.assert_allclose(linear + second, expected, rtol=1e-4)


def test_directions_are_axes_of_the_classes_places():
    base = take(STATES, 0)
    places, axes = principal(STATES, base, 3)
    flat = axes[0].reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-5)
    apart = np.asarray(STATES.states - base.states).reshape(N, -1)
    np.testing.assert_allclose(places, apart @ flat.T, atol=1e-5)
    left = np.linalg.svd(apart - places @ flat, compute_uv=False)
    np.testing.assert_allclose(left[:2], np.linalg.svd(apart)[1][3:5], rtol=1e-4)
    same = TextCondition(jnp.repeat(STATES.states[:2], 3, axis=0))
    assert principal(same, centre(same), 3)[0].shape == (6, 1)


def dit_case():
    network = class_denoiser()
    vectors = condition_vectors(network, jnp.arange(11))
    _, axes = principal(vectors, vectors.mean(axis=0), 4)
    return network, vectors.mean(axis=0), [jnp.asarray(each) for each in axes]


@jax.jit
def whole_jacobian(network, base, noise, t):
    z_t = add_noise(SCHEDULE, Z0, noise, t)

    def prediction(c):
        return predict(network, SCHEDULE, z_t, t, c)[0].ravel()

    return prediction(base), jax.jacfwd(prediction)(base)


@pytest.mark.parametrize("loss", ["l2", "huber"])
def test_it_is_the_loss_s_curvature_along_the_prediction_s_slopes(loss):
    """Against the whole Jacobian of a transformer, and the loss's own definition."""
    network, base, axes = dit_case()
    t, k = jnp.int32(500), jnp.int32(2)
    noise = NOISE.draw(k, Z0.shape)

    predicted, jacobian = whole_jacobian(network, base, noise, t)
    along = jacobian @ axes[0].T
    curvature = jnp.full(Z0.size, 2.0)
    if loss == "huber":
        curvature = (jnp.abs(noise.ravel() - predicted) <= 1).astype(jnp.float32)
        assert 0 < curvature.mean() < 1
    expected = (along.T * curvature) @ along / Z0.size
    hessians = jax.jit(error_hessians, static_argnames="loss")
    samples = jnp.array([t]), jnp.array([k])
    [found] = hessians(network, SCHEDULE, NOISE, Z0, base, axes, *samples, loss=loss)
    scale = float(jnp.abs(expected).max())
    assert scale > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)


def test_a_direction_costs_about_a_forward_pass():
    network, base, axes = dit_case()
    one = jnp.zeros(1, jnp.int32)

    def forward(network, base):
        return predict(network, SCHEDULE, Z0, jnp.int32(500), base)

    def hessians(*arguments):
        return error_hessians(*arguments, loss="l2")

    whole = count_flops(hessians, network, SCHEDULE, NOISE, Z0, base, axes, one, one)
    evaluations = whole / count_flops(forward, network, base)
    assert 0.8 * (1 + len(axes[0])) < evaluations < 1.2 * (1 + len(axes[0]))
    assert len(floating(base)) == 1
