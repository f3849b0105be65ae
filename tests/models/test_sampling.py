"""Sampling: the steps and noise levels of diffusers' schedulers, and their results."""

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from pipelines import from_torch, to_torch

from diffjax.checkpoints.schedulers import read_sampling, read_schedule
from diffjax.errors import DiffjaxError
from diffjax.models.sampling import guided, sample

SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}
SIZE = 4 * 4 * 3
WEIGHTS = np.random.default_rng(1).normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)


def network(x, time, numpy):
    """A small network of noised latents [n, 48] and a time in steps."""
    hidden = numpy.tanh(x @ numpy.asarray(WEIGHTS, dtype=numpy.float32))
    return hidden + numpy.cos(numpy.asarray(time / 300, dtype=numpy.float32)) * x / 2


def both(scheduler, config, n, **asked):
    """Two latents after n steps, by ours and by diffusers."""
    config = {**config, "_class_name": type(scheduler).__name__}
    schedule = read_schedule(config, "test", 64)
    steps = read_sampling(config, "test", 64, **asked).steps(schedule, n)
    z_T = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)

    def denoise(z_t, time):
        return network(z_t.reshape(2, SIZE), time, jnp).reshape(z_t.shape)

    ours = jax.jit(lambda z: sample(denoise, steps, z))(z_T)
    theirs = to_torch(z_T)
    for t in scheduler.timesteps:
        flat = from_torch(theirs).reshape(2, SIZE)
        predicted = to_torch(network(flat, t.numpy(), np).reshape(z_T.shape))
        theirs = scheduler.step(predicted, t, theirs, return_dict=False)[0]
    return ours, from_torch(theirs)


def check(ours, theirs):
    assert np.abs(theirs).max() > 0.5
    scale = np.sqrt(np.mean(theirs**2))
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim_is_that_of_diffusers(prediction, spacing, to_one):
    config = SD | {
        "prediction_type": prediction,
        "timestep_spacing": spacing,
        "set_alpha_to_one": to_one,
        "steps_offset": 1 if spacing == "leading" and not to_one else 0,
    }
    for n in (1, 7, 50):
        scheduler = DDIMScheduler(**config)
        scheduler.set_timesteps(n)
        check(*both(scheduler, config, n))


def test_ddim_goes_down_from_pure_noise_where_a_velocity_is_predicted():
    config = SD | {
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
    }
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(10)
    check(*both(scheduler, config, 10))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shift": 3.0},
        {"use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "shift_terminal": 0.02},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    ],
)
@pytest.mark.parametrize("even", [False, True])
def test_euler_is_that_of_diffusers(settings, even):
    for n in (1, 4, 28) if "shift_terminal" not in settings else (4, 28):
        scheduler = FlowMatchEulerDiscreteScheduler(**settings)
        mu = 0.5 + (1.15 - 0.5) * (64 - 256) / (4096 - 256)
        levels = np.linspace(1, 1 / n, n) if even else None
        asked = {"mu": mu} if "use_dynamic_shifting" in settings else {}
        scheduler.set_timesteps(None if even else n, sigmas=levels, **asked)
        check(*both(scheduler, settings, n, even=even))


def test_a_schedule_silent_about_sampling_is_sampled_as_by_diffusers():
    """… whose DDIMScheduler.from_config takes what another class has saved."""
    config = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "linear"}
    found = read_sampling(config, "test")
    known = DDIMScheduler.from_config(config).config
    assert (found.spacing, found.offset, found.to_one) == (
        known.timestep_spacing,
        known.steps_offset,
        known.set_alpha_to_one,
    )


def test_the_other_direction_of_time_is_told_and_sampled():
    """A perfect model of one image draws it, however its time and velocity run."""
    image = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 1)))
    for name, sign, told in (("SiTScheduler", 1, 1), ("REPAScheduler", -1, 0)):
        config = {"_class_name": name}
        schedule = read_schedule(config, "test")
        steps = read_sampling(config, "test").steps(schedule, 10)

        def denoise(z_t, time, told=told, sign=sign):
            sigma = 1 - time if told else time
            noise = (z_t - (1 - sigma) * image) / sigma
            return sign * (image - noise)

        drawn = sample(
            denoise, steps, jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
        )
        np.testing.assert_allclose(drawn, image, atol=1e-4)


def test_guidance_is_that_of_the_pipelines():
    of_class, of_none = torch.randn(2, 3, 3, 4)
    theirs = of_none + 7.5 * (of_class - of_none)
    ours = guided(jnp.stack([of_class.numpy(), of_none.numpy()]), 7.5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "n", "message"),
    [
        ({"timestep_spacing": "odd"}, 5, "timestep_spacing 'odd' is not supported"),
        ({"steps_offset": 1}, 1000, "begin at timestep 1000 of 1000. Take fewer"),
        ({}, 1001, "1001 steps of 1000 timesteps"),
        (
            {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            5,
            "begins at pure noise",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused(config, n, message):
    config = SD | {"_class_name": "DDIMScheduler"} | config
    schedule = read_schedule(config, "test")
    with pytest.raises(DiffjaxError, match=message):
        read_sampling(config, "test").steps(schedule, n)


def test_a_flow_of_other_levels_is_refused_when_it_is_sampled():
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    config["use_karras_sigmas"] = True
    read_schedule(config, "test")
    with pytest.raises(DiffjaxError, match="use_karras_sigmas is set"):
        read_sampling(config, "test")


PUBLISHED = [name for name, parts in published.RUN.items() if "scheduler" in parts]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("repository", PUBLISHED)
def test_published_pipelines_are_sampled_at_the_levels_of_diffusers(repository):
    config = published.RUN[repository]["scheduler"]
    flux = "FLUX" in repository
    found = read_sampling(config, repository, 1024, even=flux)
    steps = found.steps(read_schedule(config, repository, 1024), 20)
    if "FlowMatch" in config["_class_name"]:
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        mu = 0.5 + (1.15 - 0.5) * (1024 - 256) / (4096 - 256)
        asked = {"mu": mu} if config.get("use_dynamic_shifting") else {}
        even = {"sigmas": np.linspace(1, 1 / 20, 20)} if flux else {}
        scheduler.set_timesteps(None if flux else 20, **even, **asked)
        np.testing.assert_allclose(steps.levels.sigma, scheduler.sigmas[:-1], rtol=1e-5)
        np.testing.assert_allclose(steps.sigma, scheduler.sigmas[1:], rtol=1e-5)
    else:
        scheduler = DDIMScheduler.from_config(config)
        scheduler.set_timesteps(20)
        last = scheduler.final_alpha_cumprod
        np.testing.assert_allclose(np.square(steps.signal[-1]), last, rtol=1e-6)
    np.testing.assert_allclose(steps.levels.time, scheduler.timesteps, rtol=1e-5)
