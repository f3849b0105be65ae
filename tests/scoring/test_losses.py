"""Losses of a cell, and the variational bound against a float64 reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from small import SCHEDULE, jax_random

from diffjax import choices
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.schedules import Schedule
from diffjax.scoring.bound import bound_terms, discretised_nll, gaussian_kl
from diffjax.scoring.losses import LOSSES, NEED_VARIANCE, Cell

SHAPE = (4, 4, 4)
Z0, NOISE, PREDICTED, VARIANCE = (jax_random(*SHAPE, seed=s) for s in range(4))
LINEAR = read_schedule(
    {"_class_name": "DDPMScheduler", "beta_schedule": "linear"}, "test"
)


def test_every_name_has_its_loss():
    assert tuple(LOSSES) == choices.LOSSES


def cell(noise=NOISE, predicted=PREDICTED, t=400, schedule=SCHEDULE, variance=VARIANCE):
    return Cell(schedule, Z0, jnp.int32(t), noise, predicted, variance)


@pytest.mark.parametrize(
    ("loss", "values"),
    [
        ("l2", [9, 0.25, 0, 1, 4]),
        ("l1", [3, 0.5, 0, 1, 2]),
        ("huber", [2.5, 0.125, 0, 0.5, 1.5]),
    ],
)
def test_distances_by_hand(loss, values):
    d = jnp.array([-3.0, -0.5, 0.0, 1.0, 2.0])
    for one, value in zip(d, values, strict=True):
        here = cell(noise=jnp.full(SHAPE, one), predicted=jnp.zeros(SHAPE))
        np.testing.assert_allclose(LOSSES[loss](here), value)


def test_the_sum_is_the_sum():
    both = LOSSES["l2+vlb"](cell())
    np.testing.assert_allclose(both, LOSSES["l2"](cell()) + LOSSES["vlb"](cell()))
    assert set(NEED_VARIANCE) == {name for name in LOSSES if "vlb" in name}


def reference(betas, t, z0, noise, predicted, variance):
    """The textbook formulas in float64, means and all."""
    alphas = 1 - betas
    bar = np.cumprod(alphas)
    before = np.append(1.0, bar[:-1])
    z_t = np.sqrt(bar[t]) * z0 + np.sqrt(1 - bar[t]) * noise
    z0_hat = (z_t - np.sqrt(1 - bar[t]) * predicted) / np.sqrt(bar[t])

    def mean(x):
        first = np.sqrt(before[t]) * betas[t] / (1 - bar[t])
        second = np.sqrt(alphas[t]) * (1 - before[t]) / (1 - bar[t])
        return first * x + second * z_t

    tilde = betas * (1 - before) / (1 - bar)
    tilde[0] = tilde[1]
    v = (variance + 1) / 2
    log_variance = v * np.log(betas[t]) + (1 - v) * np.log(tilde[t])
    if t == 0:
        scale = np.exp(log_variance / 2)
        above = norm.cdf((z0 - mean(z0_hat) + 1 / 255) / scale)
        below = norm.cdf((z0 - mean(z0_hat) - 1 / 255) / scale)
        p = np.where(z0 < -0.999, above, np.where(z0 > 0.999, 1 - below, above - below))
        return -np.log2(np.maximum(p, 1e-12)).mean()
    kl = 0.5 * (
        -1
        + log_variance
        - np.log(tilde[t])
        + np.exp(np.log(tilde[t]) - log_variance)
        + (mean(z0) - mean(z0_hat)) ** 2 * np.exp(-log_variance)
    )
    return kl.mean() / np.log(2)


@pytest.mark.parametrize("t", [0, 1, 2, 10, 100, 500, 998, 999])
def test_the_bound_agrees_with_a_float64_reference(t):
    betas = np.linspace(1e-4, 0.02, 1000)
    # a good model: an error of a tenth, a variance channel within its range
    predicted = NOISE + 0.1 * PREDICTED
    variance = jnp.tanh(VARIANCE)
    ours = jax.jit(bound_terms)(LINEAR, Z0, t, NOISE, predicted, variance)
    wide = [np.asarray(x, np.float64) for x in (Z0, NOISE, predicted, variance)]
    assert ours.shape == SHAPE
    np.testing.assert_allclose(ours.mean(), reference(betas, t, *wide), rtol=1e-4)


def test_a_perfect_model_pays_nothing():
    for t in (1, 500, 999):
        ours = bound_terms(LINEAR, Z0, jnp.int32(t), NOISE, NOISE, -jnp.ones(SHAPE))
        assert np.abs(ours).max() < 1e-8


def test_kl_is_zero_only_for_equals():
    zero = jnp.zeros(3)
    np.testing.assert_allclose(gaussian_kl(zero, zero - 2, zero - 2), 0)
    assert np.all(gaussian_kl(zero, zero, jnp.array([-1.0, 1e-2, 1.0])) > 0)
    assert np.all(gaussian_kl(jnp.array([1e-2, -1.0, 3.0]), zero, zero) > 0)


def test_bins_add_up_to_one():
    """The 256 values of an 8-bit pixel, as [−1, 1], share all the probability."""
    values = jnp.linspace(-1, 1, 256)
    for mean, log_variance in ((0.1, -4.0), (-1.2, -6.0), (0.99, 0.0)):
        nll = discretised_nll(values, jnp.full(256, mean), jnp.full(256, log_variance))
        np.testing.assert_allclose(jnp.exp(-nll).sum(), 1, rtol=1e-4)


def test_far_away_values_stay_finite():
    nll = discretised_nll(jnp.array([0.5]), jnp.array([-30.0]), jnp.array([-9.0]))
    np.testing.assert_allclose(nll, 12 * np.log(10), rtol=1e-5)


def test_the_bound_of_a_whole_chain_is_the_sum_of_its_terms():
    """A schedule of two steps, by hand: the posterior of t = 1 given both steps."""
    schedule = Schedule.ddpm(np.array([0.9, 0.5]))
    beta = 1 - 0.5 / 0.9
    tilde = beta * 0.1 / 0.5
    np.testing.assert_allclose(
        np.exp(schedule.posterior.log_beta), [0.1, beta], rtol=1e-6
    )
    np.testing.assert_allclose(
        np.exp(schedule.posterior.log_variance), [tilde, tilde], rtol=1e-6
    )
    np.testing.assert_allclose(
        schedule.posterior.weight, [1, np.sqrt(0.9) * beta / 0.5], rtol=1e-6
    )
