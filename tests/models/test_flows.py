"""Models of flows, from a folder with such a scheduler to a decision."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
import small
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from flax import nnx
from pipelines import error, from_torch, normal, to_torch

from diffjax import DiffjaxError, DiffusionClassifier
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.classify.settings import Settings
from diffjax.models.diffusion import predict
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.models.network import Network
from diffjax.schedules import TIMES, Schedule
from diffjax.scoring.gradients import error_gradients
from diffjax.scoring.grid import Blocks, tile_errors
from diffjax.scoring.noise import ImageNoise, SeededNoise
from diffjax.scoring.noise import normal as normal_draw
from diffjax.scoring.placement import block_mesh
from diffjax.training.objective import denoiser_loss

DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 4}
SIGMA = np.array([0.125, 0.3, 0.55, 1.0])


def flow_pipeline(folder, *, out_channels=4, **settings):
    return pipelines.dit_pipeline(
        folder,
        transformer=pipelines.dit(out_channels=out_channels),
        scheduler=FlowMatchEulerDiscreteScheduler(**settings),
    )


def test_noise_of_a_flow_is_that_of_diffusers_parts(tmp_path):
    """v at the time 1000 σ, and the noise by diffusers' own step to σ = 1."""
    pipeline = flow_pipeline(tmp_path, shift=3.0)
    model = load_model(tmp_path)
    assert not model.learned_variance
    z_t = normal(1, 8, 8, 4)
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    for t in (0, 333, 999):
        time, sigma = theirs.timesteps[999 - t], theirs.sigmas[999 - t]
        assert time == 1000 * sigma and (t == 999 or time % 1 > 1e-3)
        with torch.no_grad():
            v = pipeline.transformer(
                to_torch(z_t), timestep=time[None], class_labels=torch.tensor([7])
            ).sample
        noise = to_torch(z_t) + (1 - sigma) * v
        ours, variance = jax.jit(predict)(
            model.denoiser, model.schedule, z_t[0], jnp.int32(t), jnp.int32(7)
        )
        assert variance is None
        assert error(ours[None], from_torch(noise)) < 1e-4


def test_a_flow_classifies(tmp_path):
    flow_pipeline(tmp_path, shift=3.0)
    clf = DiffusionClassifier.from_pretrained(
        tmp_path, strategy="exhaustive:n_samples=8"
    )
    image = small.images(1)[0]
    record = clf.classify(image)
    assert record.evaluations == 80
    assert np.isfinite(record.errors).all() and len(set(record.errors.mean(1))) == 10
    assert record.label == clf.classify(image).label
    with pytest.raises(DiffjaxError, match="vlb needs; DiT and PixArt do, and no flow"):
        DiffusionClassifier(clf.model, Settings(loss="vlb"))


def test_dynamic_shifting_follows_the_resolution(tmp_path):
    flow_pipeline(tmp_path, **DYNAMIC)
    config = json.loads((tmp_path / "scheduler/scheduler_config.json").read_text())
    model = load_model(tmp_path)
    assert model.resolution == 16
    for resolution, tokens in {None: 16, 16: 16, 32: 64, 24: 36}.items():
        clf = DiffusionClassifier(model, Settings(resolution=resolution))
        expected = read_schedule(config, "x", tokens)
        for schedule in (clf.model.schedule, clf.grid.schedule):
            np.testing.assert_array_equal(schedule.sigma, expected.sigma)
        same = clf.model.fingerprint == model.fingerprint
        assert same == (tokens == 16)
        again = DiffusionClassifier(clf.model, Settings())  # and back
        assert again.model.fingerprint == model.fingerprint


def test_a_variance_is_none_of_a_flow(tmp_path):
    flow_pipeline(tmp_path, out_channels=8)
    with pytest.raises(DiffjaxError, match="a flow, whose steps have no variance"):
        load_model(tmp_path)


class Clock(DiTTransformer2DModel):
    """Predicts what it is told of the time."""

    def __init__(self):
        self.one = nnx.Param(jnp.ones(()))

    def __call__(self, latent, timestep, condition):
        return jnp.full(latent.shape, timestep * self.one[...] + 0 * condition)


@pytest.mark.parametrize("time", TIMES)
def test_a_fractional_time_reaches_the_network(time):
    """In the grid, in gradients and in training, and not the index, nor its floor."""
    schedule = Schedule.flow(SIGMA, "flow", time)
    told = np.asarray(TIMES[time](SIGMA, 4), np.float32)
    assert (told % 1 != 0).any()
    network, noise = Network.of(Clock()), SeededNoise.of(0)
    z0 = small.jax_random(4, 4, 2)
    t = np.arange(4, dtype=np.int32)
    epsilon = np.stack([noise.draw(jnp.uint32(0), jnp.int32(k), z0.shape) for k in t])
    a, s = (1 - SIGMA)[:, None, None, None], SIGMA[:, None, None, None]
    predicted = (a * z0 + s * epsilon) + a * told[:, None, None, None]
    expected = np.mean((epsilon - predicted) ** 2, axis=(1, 2, 3))

    blocks = Blocks(
        keys=np.zeros(4, np.uint32),
        z0=np.broadcast_to(z0, (4, *z0.shape)),
        timesteps=t,
        noises=t,
        classes=np.zeros((4, 1), np.int32),
    )
    found = tile_errors(
        network,
        schedule,
        noise,
        jnp.zeros(1),
        blocks,
        losses=("l2",),
        mesh=block_mesh(),
    )
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)
    image = ImageNoise(noise, jnp.uint32(0))
    errors, _ = error_gradients(
        network,
        schedule,
        image,
        z0,
        jnp.zeros(()),
        *map(jnp.asarray, (t, t)),
        loss="l2",
    )
    np.testing.assert_allclose(errors, expected, rtol=1e-5)

    start = jax.random.key(0)
    loss = denoiser_loss(
        Clock(), schedule, z0[None], jnp.zeros(1), jnp.array([1]), start
    )
    target = normal_draw(start, (1, *z0.shape)) - z0
    np.testing.assert_allclose(loss, jnp.mean((told[1] - target) ** 2), rtol=1e-5)
