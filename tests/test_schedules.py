import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import DiffjaxError
from diffjax.schedules import (
    BETA_SCHEDULES,
    PREDICTIONS,
    Schedule,
    add_noise,
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
    return Schedule.from_config(config, "scheduler_config.json")


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
    assert ours.alpha_bar.dtype == jnp.float32
    assert ours.alpha_bar.shape == expected.shape
    # The absolute term is for ᾱ of 1e-8 and less, at the end of the cosine and the
    # rescaled schedules, where diffusers rounds 1 − β in float32 with β near one.
    np.testing.assert_allclose(ours.alpha_bar, expected, rtol=1e-5, atol=1e-9)
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
    np.testing.assert_allclose(ours.alpha_bar, expected, rtol=1e-5, atol=1e-10)
    z0, noise = latents(0)
    for t in timesteps(ours):
        exact = np.sqrt(expected[t]) * z0 + np.sqrt(1 - expected[t]) * noise
        z_t = add_noise(ours, jnp.asarray(z0), jnp.asarray(noise), t)
        assert relative(z_t, exact) <= 4e-6, t


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_alpha_bar_falls_and_stays_below_one(config):
    alpha_bar = np.asarray(schedule(config).alpha_bar)
    assert (np.diff(alpha_bar) < 0).all()
    assert 0 <= alpha_bar[-1] and alpha_bar[0] < 1
    assert (alpha_bar[-1] == 0) == bool(config.get("rescale_betas_zero_snr"))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_noise_comes_back_from_a_perfect_prediction(config, prediction_type):
    s = schedule(config, prediction_type=prediction_type)
    z0, noise = map(jnp.asarray, latents(1))
    for t in timesteps(s):
        z_t = add_noise(s, z0, noise, t)
        prediction = prediction_target(s, z0, noise, t)
        back = noise_from_prediction(s, prediction, z_t, t)
        # (4) divides rounding errors of z_t by s, which is sqrt(β_0) at its smallest.
        assert relative(back, noise) <= 3e-5, t


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
    assert Schedule.from_config(old, "old").prediction_type == "sample"
    new = old | {"prediction_type": "v_prediction"}
    assert Schedule.from_config(new, "new").prediction_type == "v_prediction"


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
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
    assert jax.eval_shape(lambda s: s, s).alpha_bar.shape == (1000,)


def test_a_timestep_past_the_end_is_nan_not_clamped():
    z0, noise = map(jnp.asarray, latents(7))
    assert jnp.isnan(add_noise(schedule(SD), z0, noise, 1000)).all()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"beta_schedule": "sigmoid"}, ["beta_schedule", "sigmoid", *BETA_SCHEDULES]),
        ({"prediction_type": "flow"}, ["prediction_type", "flow", *PREDICTIONS]),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, ["FlowMatch", "DDIM"]),
        ({"_class_name": "EDMEulerScheduler"}, ["EDMEuler", "DDIMScheduler"]),
        ({"_class_name": None}, ["_class_name", "None", "DDIMScheduler"]),
        ({"_class_name": ["DDIMScheduler"]}, ["_class_name"]),
        ({"use_flow_sigmas": True}, ["flow"]),
        ({"num_train_timesteps": 0}, ["num_train_timesteps", "0"]),
        ({"num_train_timesteps": "many"}, ["num_train_timesteps", "'many'"]),
        ({"beta_start": "a"}, ["beta_start", "'a'"]),
        ({"beta_start": -0.1}, ["beta_start", "-0.1"]),
        ({"beta_start": 0.0}, ["beta", "timestep 0", "(0, 1]"]),
        ({"beta_start": 1e-9}, ["beta", "timestep 0"]),
        ({"beta_end": 1.5}, ["beta_end", "1.5", "from 0 to 1"]),
        ({"beta_end": float("nan")}, ["beta_end", "nan", "from 0 to 1"]),
        ({"trained_betas": 0.1}, ["trained_betas"]),
        ({"trained_betas": []}, ["trained_betas"]),
        ({"trained_betas": [0.1, None]}, ["trained_betas", "None"]),
        ({"trained_betas": [0.1, 0.0]}, ["timestep 1"]),
        ({"trained_betas": [0.1], "rescale_betas_zero_snr": True}, ["two timesteps"]),
    ],
)
def test_what_is_not_supported_is_named(change, names):
    config = {"_class_name": "DDIMScheduler", **change}
    with pytest.raises(DiffjaxError) as error:
        Schedule.from_config(config, "x/scheduler_config.json")
    for name in ["x/scheduler_config.json", *names]:
        assert name in str(error.value)
