from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import choices
from diffjax.checkpoints.schedulers import DENOISING, read_schedule
from diffjax.errors import DiffjaxError
from diffjax.schedules import (
    PREDICTIONS,
    SPACES,
    TIMES,
    Schedule,
    add_noise,
    latent_from_prediction,
    noise_from_prediction,
    prediction_target,
)

# diffusers and numpy 2 disagree about __array__ and __array_wrap__.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
RESCALED = {**SD, "rescale_betas_zero_snr": True}
CONFIGS = {
    "defaults": {},
    "sd": SD,
    "dit": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "short": {"beta_schedule": "linear", "num_train_timesteps": 40, "beta_end": 0.3},
    "short cosine": {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 64},
    "trained": {"trained_betas": [0.001, 0.02, 0.005, 0.3], "beta_schedule": "linear"},
    "rescaled": RESCALED,
    "rescaled trained": {
        "trained_betas": [0.001, 0.02, 0.005, 0.3],
        "rescale_betas_zero_snr": True,
    },
    "rescaled linear": {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
    "rescaled cosine": {
        "beta_schedule": "squaredcos_cap_v2",
        "rescale_betas_zero_snr": True,
    },
}


def schedule(config=None, cls="DDIMScheduler", prediction_type="epsilon"):
    config = {**(config or {}), "_class_name": cls, "prediction_type": prediction_type}
    return read_schedule(config, "scheduler_config.json")


def latents(seed, shape=(5, 3, 4)):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(2)]


def relative(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def timesteps(s):
    return sorted({0, 1, s.n_timesteps // 2, s.n_timesteps - 2, s.n_timesteps - 1})


def torch_scheduler(name, config):
    import diffusers

    return getattr(diffusers, name)(**config)


@pytest.mark.parametrize("cls", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_alpha_bar_and_add_noise_equal_diffusers(config, cls):
    import torch

    theirs = torch_scheduler(cls, config)
    ours = schedule(config, cls)
    expected = theirs.alphas_cumprod.double().numpy()
    assert ours.posterior.alpha_bar.dtype == jnp.float32
    assert ours.posterior.alpha_bar.shape == expected.shape
    # The absolute term is for ᾱ of 1e-8 and less, at the end of the cosine and the
    # rescaled schedules, where diffusers rounds 1 − β in float32 with β near one.
    np.testing.assert_allclose(ours.posterior.alpha_bar, expected, rtol=1e-5, atol=1e-9)
    z0, noise = latents(0)
    for t in timesteps(ours):
        reference = theirs.add_noise(
            torch.tensor(z0)[None], torch.tensor(noise)[None], torch.tensor([t])
        )[0]
        ours_t = add_noise(ours, jnp.asarray(z0), jnp.asarray(noise), t)
        # Their rescaled cosine has 1 − ᾱ_0 wrong by 0.4 % (float32); the next test
        # shows that ours is not.
        bound = 2e-5 if config == CONFIGS["rescaled cosine"] else 1e-5
        assert relative(ours_t, reference) <= bound, t


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_alpha_bar_and_add_noise_equal_float64(config):
    plain = {k: v for k, v in config.items() if k != "rescale_betas_zero_snr"}
    betas = torch_scheduler("DDPMScheduler", plain).betas.double().numpy()
    expected = np.cumprod(1 - betas)
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(expected)
        expected = (root - root[-1]) ** 2 * (root[0] / (root[0] - root[-1])) ** 2
    ours = schedule(config)
    np.testing.assert_allclose(
        ours.posterior.alpha_bar, expected, rtol=1e-5, atol=1e-10
    )
    z0, noise = latents(0)
    for t in timesteps(ours):
        exact = np.sqrt(expected[t]) * z0 + np.sqrt(1 - expected[t]) * noise
        z_t = add_noise(ours, jnp.asarray(z0), jnp.asarray(noise), t)
        assert relative(z_t, exact) <= 4e-6, t


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_alpha_bar_falls_and_stays_below_one(config):
    alpha_bar = np.asarray(schedule(config).posterior.alpha_bar)
    assert (np.diff(alpha_bar) < 0).all()
    assert 0 <= alpha_bar[-1] and alpha_bar[0] < 1
    assert (alpha_bar[-1] == 0) == bool(config.get("rescale_betas_zero_snr"))


FLOWS = {
    "even": np.arange(1, 1001) / 1000,
    "shifted": 3 * np.arange(1, 1001) / (1000 + 2 * np.arange(1, 1001)),
    "short": np.array([0.1, 0.5, 1.0]),
    "without an end": np.array([0.01, 0.3, 0.98]),
    "nearly noise": np.array([0.5, 1 - 1e-4, 1 - 1e-6]),
}
PROCESSES = {name: ("ddpm", config) for name, config in CONFIGS.items()}
PROCESSES |= {f"flow, {name}": ("flow", sigma) for name, sigma in FLOWS.items()}


def process(kind, table, prediction_type):
    if kind == "ddpm":
        return replace(schedule(table), prediction_type=prediction_type)
    return Schedule.flow(table, prediction_type)


@pytest.mark.parametrize("kind", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_noise_comes_back_from_a_perfect_prediction(kind, prediction_type):
    """Of every kind in every process: from nearly no noise to nothing else, a = 0."""
    s = process(*kind, prediction_type)
    z0, noise = map(jnp.asarray, latents(1))
    for t in timesteps(s):
        z_t = add_noise(s, z0, noise, t)
        prediction = prediction_target(s, z0, noise, t)
        back = noise_from_prediction(s, prediction, z_t, t)
        a, sigma = float(s.signal[t]), float(s.sigma[t])
        alpha, beta = PREDICTIONS[prediction_type](a, sigma)
        # what is divided by D was rounded: for "sample" D is s, 0.01 at its smallest
        smallest = 1 if alpha == 0 else abs(a * beta - alpha * sigma)
        assert relative(back, noise) <= 4e-7 / smallest, t


@pytest.mark.parametrize("kind", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_the_latent_comes_back_from_a_perfect_prediction(kind, prediction_type):
    s = process(*kind, prediction_type)
    z0, noise = map(jnp.asarray, latents(1))
    for t in timesteps(s):
        prediction = prediction_target(s, z0, noise, t)
        back = latent_from_prediction(s, prediction, add_noise(s, z0, noise, t), t)
        a, sigma = float(s.signal[t]), float(s.sigma[t])
        alpha, beta = PREDICTIONS[prediction_type](a, sigma)
        determinant = abs(a * beta - alpha * sigma)
        if determinant == 0:  # epsilon where there is noise alone
            assert not jnp.isfinite(back).any()
        else:
            assert relative(back, z0) <= 4e-7 / determinant, t


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_one_is_not_rounded(config):
    """ε̂ of v is a p + s z, and of epsilon p: nothing is divided, to the last bit."""
    p, z_t = map(jnp.asarray, latents(8))
    v, epsilon = (
        schedule(config, prediction_type=k) for k in ("v_prediction", "epsilon")
    )
    for t in range(0, v.n_timesteps, max(1, v.n_timesteps // 50)):
        expected = v.signal[t] * p + v.sigma[t] * z_t
        np.testing.assert_array_equal(noise_from_prediction(v, p, z_t, t), expected)
        np.testing.assert_array_equal(noise_from_prediction(epsilon, p, z_t, t), p)


@pytest.mark.parametrize("sigma", FLOWS.values(), ids=FLOWS)
def test_the_two_directions_of_a_flow(sigma):
    """ε − z0 and z0 − ε: ε̂ = z + a p and z − a p, again without a division."""
    p, z_t = map(jnp.asarray, latents(9))
    forward, reverse = Schedule.flow(sigma), Schedule.flow(sigma, "reverse_flow")
    for t in timesteps(forward):
        a = forward.signal[t]
        np.testing.assert_array_equal(
            noise_from_prediction(forward, p, z_t, t), a * p + z_t
        )
        np.testing.assert_array_equal(
            noise_from_prediction(reverse, -p, z_t, t), a * p + z_t
        )
    v = prediction_target(forward, z_t, p, 0)
    np.testing.assert_array_equal(v, p - z_t)
    np.testing.assert_array_equal(prediction_target(reverse, z_t, p, 0), -v)


def test_what_a_network_is_told_of_a_flow():
    sigma = np.array([0.25, 0.5, 1.0])
    told = {t: Schedule.flow(sigma, time=t).time.tolist() for t in TIMES}
    assert told == {
        "steps": [0.75, 1.5, 3.0],
        "sigma": [0.25, 0.5, 1.0],  # REPA: 1 is noise
        "signal": [0.75, 0.5, 0.0],  # SiT: 1 is data
    }
    prints = {Schedule.flow(sigma, time=t).fingerprint for t in TIMES}
    assert len(prints | {Schedule.flow(sigma * 0.999).fingerprint}) == 4


@pytest.mark.parametrize(
    "sigma", [[0.0, 0.5, 1.0], [0.1, 0.5, 1.1], [0.5, 0.4, 0.9], [0.2, 0.2, 1.0]]
)
def test_noise_levels_that_are_none(sigma):
    with pytest.raises(DiffjaxError, match="must rise from above 0 to 1"):
        Schedule.flow(np.array(sigma))


def test_fingerprints_are_those_of_earlier_runs():
    """Headers of runs hold them; a resume compares."""
    assert schedule(SD).fingerprint == "b554a2b2ade4d6b0"
    assert schedule(CONFIGS["dit"]).fingerprint == "176fcdff6501e3af"


@pytest.mark.parametrize("config", [SD, RESCALED, CONFIGS["cosine"]])
def test_velocity_equals_diffusers(config):
    import torch

    theirs = torch_scheduler("DDPMScheduler", config)
    s = schedule(config, prediction_type="v_prediction")
    z0, noise = latents(2)
    for t in timesteps(s):
        expected = theirs.get_velocity(
            torch.tensor(z0)[None], torch.tensor(noise)[None], torch.tensor([t])
        )[0]
        ours = prediction_target(s, jnp.asarray(z0), jnp.asarray(noise), t)
        assert relative(ours, expected) <= 1e-5, t


def test_what_old_schedulers_said_of_their_prediction():
    old = {"_class_name": "DDPMScheduler", "predict_epsilon": False}
    assert read_schedule(old, "old").prediction_type == "sample"
    new = old | {"prediction_type": "v_prediction"}
    assert read_schedule(new, "new").prediction_type == "v_prediction"


@pytest.mark.parametrize("prediction_type", DENOISING)
def test_predictions_mean_to_diffusers_what_they_mean_to_us(prediction_type):
    # A DDIM step yields z0; ε of ours must be the one that goes with it in (1).
    import torch

    theirs = torch_scheduler(
        "DDIMScheduler",
        {**SD, "prediction_type": prediction_type, "clip_sample": False},
    )
    theirs.set_timesteps(1000)
    s = schedule(SD, prediction_type=prediction_type)
    prediction, z_t = latents(3)
    for t in (1, 300, 999):
        z0 = theirs.step(
            torch.tensor(prediction)[None], t, torch.tensor(z_t)[None]
        ).pred_original_sample[0]
        noise = noise_from_prediction(s, jnp.asarray(prediction), jnp.asarray(z_t), t)
        assert relative(add_noise(s, jnp.asarray(z0.numpy()), noise, t), z_t) <= 1e-5


def test_at_zero_snr_the_velocity_does_not_matter():
    s = schedule(RESCALED, prediction_type="v_prediction")
    v, z_t = map(jnp.asarray, latents(4))
    np.testing.assert_array_equal(noise_from_prediction(s, v, z_t, 999), z_t)


def test_bfloat16_latents_are_mixed_in_float32():
    z0, noise = (jnp.asarray(x, jnp.bfloat16) for x in latents(5))
    assert add_noise(schedule(SD), z0, noise, 10).dtype == jnp.float32


def test_a_schedule_passes_through_jit_vmap_and_tree_map():
    s = schedule(SD, prediction_type="v_prediction")
    z0, noise = map(jnp.asarray, latents(6))
    t = jnp.array([0, 500, 999])
    many = jax.jit(jax.vmap(add_noise, in_axes=(None, None, None, 0)))(s, z0, noise, t)
    for row, step in zip(many, t, strict=True):
        np.testing.assert_allclose(row, add_noise(s, z0, noise, step), rtol=1e-6)
    doubled = jax.tree.map(lambda x: 2 * x, s)
    assert doubled.prediction_type == "v_prediction"
    assert jax.eval_shape(lambda s: s, s).posterior.alpha_bar.shape == (1000,)


def test_a_timestep_past_the_end_is_nan_not_clamped():
    z0, noise = map(jnp.asarray, latents(7))
    assert jnp.isnan(add_noise(schedule(SD), z0, noise, 1000)).all()


@pytest.mark.parametrize("kind", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("space", SPACES)
def test_the_factor_of_a_space_is_the_error_taken_there(kind, space):
    """|z0 − ẑ0| and |v − v̂| of a wrong noise, with z_t as it is, in float64."""
    s = process(*kind, "epsilon")
    there = s.in_space(space)
    z0, noise = (x.astype(np.float64) for x in latents(10))
    wrong = noise + 0.1 * latents(11)[0]
    for t in timesteps(s):
        a, sigma = float(s.signal[t]), float(s.sigma[t])
        if a == 0 and space != "noise":
            assert np.isinf(there.factor[t])
            with pytest.raises(DiffjaxError, match=f"timestep {t} nothing is left"):
                there.check(np.array([0, t]))
            continue
        there.check(np.array([t]))
        if space == "noise":
            assert there.factor is None
            continue
        z_t = a * z0 + sigma * noise
        back = (z_t - sigma * wrong) / a
        if space == "data":
            error = z0 - back
        elif s.posterior is None:
            error = (noise - z0) - (wrong - back)
        else:
            error = (a * noise - sigma * z0) - (a * wrong - sigma * back)
        expected = np.abs(error) / np.abs(noise - wrong)
        np.testing.assert_allclose(
            np.broadcast_to(there.factor[t], expected.shape), expected, rtol=1e-5
        )


def test_spaces_are_those_that_settings_choose_from():
    assert tuple(SPACES) == choices.SPACES


NAMED = {"linear": {}, "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012}}


@pytest.mark.parametrize("prediction_type", DENOISING)
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_names_mean_what_they_mean_to_diffusers(name, prediction_type):
    betas = NAMED.get(name, {})
    ours = Schedule.named(name, prediction_type=prediction_type, **betas)
    known = "squaredcos_cap_v2" if name == "cosine" else name
    theirs = torch_scheduler("DDPMScheduler", {"beta_schedule": known, **betas})
    expected = theirs.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(ours.posterior.alpha_bar, expected, rtol=1e-5, atol=1e-9)
    assert ours.prediction_type == prediction_type


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_named_flow_is_that_of_diffusers(shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    ours = Schedule.named("flow", shift=shift)
    np.testing.assert_allclose(ours.sigma, theirs.sigmas.numpy()[::-1], rtol=1e-5)
    np.testing.assert_allclose(ours.time, theirs.timesteps.numpy()[::-1], rtol=1e-5)
    other = Schedule.named("flow", prediction_type="reverse_flow", time="signal")
    np.testing.assert_allclose(other.time, other.signal)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "linaer"}, "Did you mean 'linear'"),
        ({"name": "flow", "prediction_type": "epsilon"}, "flow, reverse_flow"),
        ({"name": "linear", "prediction_type": "flow"}, "epsilon, v_prediction"),
        ({"name": "linear", "beta_end": 2.0}, "beta_end 2.0"),
        ({"name": "flow", "shift": 0.0}, "above 0"),
        ({"name": "flow", "time": "step"}, "Did you mean 'steps'"),
        ({"name": "cosine", "n_timesteps": 0}, "at least 1"),
    ],
)
def test_names_and_numbers_that_make_no_schedule(wrong, words):
    with pytest.raises(DiffjaxError, match=words):
        Schedule.named(**wrong)
