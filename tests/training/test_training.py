"""Objectives, the loop and its optimiser; a resume is exact."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from small import DIT

from diffjax.checkpoints.schedulers import read_schedule
from diffjax.errors import DiffjaxError
from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.models.unet import TextCondition
from diffjax.training.checkpoint import Checkpoints
from diffjax.training.initial import initial_network
from diffjax.training.log import read_losses
from diffjax.training.loop import batch_shardings, fit
from diffjax.training.objective import autoencoder_loss, denoiser_loss
from diffjax.training.optimiser import make_optimiser, matrices
from diffjax.training.recipes import (
    Phase,
    get_recipe,
)
from diffjax.training.text_to_image import build_networks

TEST = get_recipe("test")
TEST_DIT = get_recipe("test-dit")
VOCABULARY = ["a", "<|startoftext|>", "<|endoftext|>"]
QUIET = Console(quiet=True)


# Objectives


def test_the_untrained_denoiser_predicts_zero_so_its_loss_is_the_noise():
    key, latents = jax.random.key(7), jnp.ones((4, 8, 8, 4))
    unet, _, _ = build_networks(TEST, VOCABULARY, np.random.default_rng(0))
    graph, parameters = nnx.split(unet)
    schedule = read_schedule(TEST.scheduler, "test")
    states = TextCondition(jnp.ones((4, 5, 8)))
    timesteps = jnp.array([0, 10, 500, 999])

    @jax.jit
    def loss(parameters):
        unet = nnx.merge(graph, parameters)
        return denoiser_loss(unet, schedule, latents, states, timesteps, key)

    expected = jnp.mean(jax.random.normal(key, latents.shape) ** 2)
    np.testing.assert_allclose(loss(parameters), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def bound_gradients():
    """Of the loss with w = 0 and w = 1, by an untrained transformer."""
    network = initial_network(DiTTransformer2DModel, DIT, np.random.default_rng(0))
    graph, parameters = nnx.split(network)
    schedule = read_schedule(TEST_DIT.scheduler, "test")

    @jax.jit
    def gradient(parameters, weight):
        return jax.grad(
            lambda parameters: denoiser_loss(
                nnx.merge(graph, parameters),
                schedule,
                jnp.ones((3, 4, 4, 4)),
                jnp.array([0, 1, 10]),
                jnp.array([0, 400, 999]),
                jax.random.key(0),
                weight,
            )
        )(parameters)

    return [gradient(parameters, weight)["proj_out_2"] for weight in (0.0, 1.0)]


def test_the_bound_trains_the_variance_and_nothing_else(bound_gradients):
    without, with_bound = (
        np.asarray(g["bias"][...]).reshape(2, 2, 8) for g in bound_gradients
    )
    np.testing.assert_array_equal(without[..., 4:], 0)
    assert (with_bound[..., 4:] != 0).all() and np.isfinite(with_bound).all()
    np.testing.assert_allclose(with_bound[..., :4], without[..., :4], rtol=1e-5)


def test_the_autoencoder_pays_for_its_divergence():
    config = AutoencoderKLConfig.from_dict(TEST.vae, "test")
    network = initial_network(AutoencoderKL, config, np.random.default_rng(0))
    graph, parameters = nnx.split(network)
    pixels = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1)
    key = jax.random.key(2)

    @jax.jit
    def cost_and_posterior(parameters, weight):
        vae = nnx.merge(graph, parameters)
        return autoencoder_loss(vae, pixels, key, weight), jax.vmap(vae.encode)(pixels)

    free, (mean, logvar) = cost_and_posterior(parameters, 0.0)
    dear, _ = cost_and_posterior(parameters, 2.0)
    # KL(N(μ, σ²) ‖ N(0, 1)) as E_q[log q − log p], by 64-point quadrature
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    z = mean[..., None] + jnp.exp(logvar / 2)[..., None] * nodes
    difference = -logvar[..., None] / 2 - nodes**2 / 2 + z**2 / 2
    divergence = (difference * weights).sum(-1) / weights.sum()
    np.testing.assert_allclose(dear - free, 2 * divergence.mean(), rtol=1e-4)


# The loop

PHASE = Phase(
    steps=20, batch=2, learning_rate=0.1, warmup=2, log_every=5, checkpoint_every=5
)


LINE = np.random.default_rng(1).normal(size=(20, 2, 3)).astype(np.float32)


def fit_line(
    folder,
    stop=None,
    seed=0,
    phase=PHASE,
    x=LINE.__getitem__,
    show=lambda step, average: None,
):
    def loss(w, x, key):
        return jnp.mean((w["w"] * x - 3 + 0.1 * jax.random.normal(key, x.shape)) ** 2)

    average = fit(
        phase,
        loss,
        {"w": jnp.ones((3,))},
        x,
        folder,
        seed=seed,
        stop=stop,
        show=show,
        console=QUIET,
    )
    return np.asarray(average["w"])


def test_twenty_steps_are_ten_and_ten_more_to_the_last_bit(tmp_path):
    whole = fit_line(tmp_path / "a")
    stopped = fit_line(tmp_path / "b", stop=10)
    resumed = fit_line(tmp_path / "b")
    np.testing.assert_array_equal(whole, resumed)
    assert (stopped != resumed).any()
    assert (whole != fit_line(tmp_path / "c", seed=1)).any()


KILLED = """
import sys
from pathlib import Path
import numpy as np
import test_training

seen = 0


def x(k):
    global seen
    seen += 1
    if seen == 14:  # past the checkpoint of step 10, before that of step 15
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return test_training.LINE[k]


test_training.fit_line(Path(sys.argv[1]), x=x)
"""


def test_a_killed_run_goes_on_to_the_same_end(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "killed"],
        cwd=Path(__file__).parent,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Checkpoints(tmp_path / "killed" / "checkpoints") as checkpoints:
        assert checkpoints.latest == 10
    resumed = fit_line(tmp_path / "killed")
    np.testing.assert_array_equal(resumed, fit_line(tmp_path / "whole"))
    steps = [row[0] for row in read_losses(tmp_path / "killed" / "loss.csv")]
    assert steps == [5, 10, 15, 20]


def test_a_batch_split_over_devices_trains_as_one_device_does(tmp_path):
    assert jax.local_device_count() == 2
    odd = dataclasses.replace(PHASE, batch=3)  # does not divide: one device
    x = np.random.default_rng(2).normal(size=(20, 6, 3)).astype(np.float32)
    even = dataclasses.replace(PHASE, batch=6)
    for batch, devices in ((6, 2), (3, 1)):
        assert len(batch_shardings(batch)[1].device_set) == devices
    two = fit_line(tmp_path / "two", phase=even, x=lambda k: x[k])
    one = fit_line(tmp_path / "one", phase=odd, x=lambda k: x[k])
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_sample_images_are_asked_for_at_their_steps(tmp_path):
    phase = dataclasses.replace(PHASE, show_every=8)
    shown = []
    fit_line(tmp_path, phase=phase, show=lambda step, w: shown.append((step, w["w"])))
    assert [step for step, _ in shown] == [8, 16]


def test_muon_takes_the_matrices_between_first_and_last_layer():
    leaves = {
        "conv_in.kernel": jnp.ones((3, 3, 4, 8)),
        "mid.conv1.kernel": jnp.ones((3, 3, 8, 16)),
        "mid.conv1.bias": jnp.ones(16),
        "block.0.to_q.kernel": jnp.ones((8, 8)),
        "class_embedder.embedding": jnp.ones((10, 8)),
        "norm.scale": jnp.ones(8),
        "proj_out_2.kernel": jnp.ones((8, 16)),
    }
    chosen = {name: d for name, d in matrices(leaves).items() if d is not None}
    assert set(chosen) == {"mid.conv1.kernel", "block.0.to_q.kernel"}
    assert chosen["mid.conv1.kernel"] == ((0, 1, 2), 3)

    # its first step makes all singular values of a gradient nearly equal
    phase = dataclasses.replace(PHASE, muon_rate=1.0, warmup=0)
    optimiser = make_optimiser(phase, leaves)
    random = np.random.default_rng(1)
    gradient = {
        name: random.normal(size=leaf.shape).astype(np.float32)
        for name, leaf in leaves.items()
    }
    updates = jax.jit(
        lambda gradient: optimiser.update(gradient, optimiser.init(leaves), leaves)[0]
    )(gradient)
    values = np.linalg.svd(
        np.asarray(updates["mid.conv1.kernel"]).reshape(72, 16), compute_uv=False
    )
    assert values.max() / values.min() < 2
    # Adam's first step, with Nesterov's look ahead, is the same for all weights
    steps = np.abs(updates["class_embedder.embedding"])
    assert steps.max() / steps.min() < 1.01
    assert 1 < steps.max() / PHASE.learning_rate < 2


def test_the_last_two_checkpoints_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest is None
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": np.full(2, step)})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
        assert checkpoints.latest == 3
        loaded = checkpoints.load({"x": np.zeros(2)})
    np.testing.assert_array_equal(loaded["x"], [3, 3])


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, {"x": np.zeros(2)})
        with pytest.raises(DiffjaxError, match=r"/7 was .* differs in 1 arrays.* x\."):
            checkpoints.load({"x": np.zeros(3)})
        with pytest.raises(DiffjaxError, match="such as y"):
            checkpoints.load({"x": np.zeros(2), "y": np.zeros(1)})
        for file in (tmp_path / "7" / "default").rglob("*"):
            if file.is_file():
                file.write_bytes(b"\xff" * 20)
        with pytest.raises(DiffjaxError, match=r"/7 cannot be read"):
            checkpoints.load({"x": np.zeros(2)})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    phase = dataclasses.replace(PHASE, steps=2, warmup=1)
    with pytest.raises(DiffjaxError, match=r"became nan by step 2; a lower learning"):
        fit(
            phase,
            lambda w, x, key: jnp.sum(w * x),
            jnp.ones(2),
            lambda k: np.full(2, np.nan, np.float32),
            tmp_path,
            seed=0,
            console=QUIET,
        )
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None
