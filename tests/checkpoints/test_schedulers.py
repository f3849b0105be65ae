"""Every scheduler class of diffusers: its forward process is ours, or it is refused."""

import inspect
import sys
import types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.checkpoints.schedulers import (
    BETA_SCHEDULES,
    DENOISING,
    FLOWS,
    SCHEDULERS,
    read_schedule,
)
from diffjax.errors import DiffjaxError

pytestmark = pytest.mark.filterwarnings("ignore")

SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
# Parameters of the supported classes that say how to sample: nothing of the forward
# process, nor of what the model is told or predicts.
SAMPLING = {
    "algorithm_type",
    "clip_sample",
    "clip_sample_range",
    "corrector_order",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "eta",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",  # of use_flow_sigmas
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "noise_sampler_seed",
    "original_inference_steps",
    "predict_x0",
    "predictor_order",
    "sample_max_value",
    "set_alpha_to_one",
    "shift_terminal",  # of use_dynamic_shifting
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "tau_func",
    "thresholding",
    "time_shift_type",  # of use_dynamic_shifting
    "timestep_scaling",
    "timestep_spacing",
    "use_beta_sigmas",
    "use_dynamic_shifting",  # of use_flow_sigmas
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
}
READ = {
    "beta_end",
    "beta_schedule",
    "beta_start",
    "num_train_timesteps",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_type",
    "trained_betas",
    "use_flow_sigmas",
}


# … and those of the flows. Karras', exponential and beta sigmas are a sampler's steps.
FLOW_SAMPLING = {"scale_factors", "stochastic_sampling", "upscale_mode"} | {
    f"use_{name}_sigmas" for name in ("beta", "exponential", "karras")
}
FLOW_READ = {
    "base_image_seq_len",
    "base_shift",
    "invert_sigmas",
    "max_image_seq_len",
    "max_shift",
    "num_train_timesteps",
    "shift",
    "shift_terminal",
    "time_shift_type",
    "use_dynamic_shifting",
}
_DYNAMIC = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
# every combination that public pipelines have
PUBLISHED_FLOWS = {
    "SD3, SD3.5, Z-Image": {"num_train_timesteps": 1000, "shift": 3.0},
    "FLUX.1-dev": _DYNAMIC,
    "FLUX.1-schnell": _DYNAMIC | {"shift": 1.0, "use_dynamic_shifting": False},
    "Krea": _DYNAMIC
    | {
        "max_image_seq_len": 6400,
        "invert_sigmas": False,
        "shift": 1.0,
        "shift_terminal": None,
        "stochastic_sampling": False,
        "time_shift_type": "exponential",
        "use_beta_sigmas": False,
        "use_exponential_sigmas": False,
        "use_karras_sigmas": False,
    },
    "LTX-Video": _DYNAMIC
    | {
        "base_image_seq_len": 1024,
        "base_shift": 0.95,
        "max_shift": 2.05,
        "shift_terminal": 0.1,
    },
    "Qwen-Image": _DYNAMIC
    | {"max_image_seq_len": 8192, "max_shift": 0.9, "shift_terminal": 0.02},
    "distilled": {"shift": 1.0, "stochastic_sampling": True},
    "silent": {},
    "linear": _DYNAMIC | {"time_shift_type": "linear"},
    "linear with an end": _DYNAMIC
    | {"time_shift_type": "linear", "shift_terminal": 0.3},
    "short": {"num_train_timesteps": 50, "shift": 7.0},
}

# All others of diffusers: of continuous noise levels, discrete tokens, flows of their
# own, or a signal-to-noise ratio that is shifted after the beta schedule.
OTHER_SCHEDULERS = [
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "CMStochasticIterativeScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "ConsistencyDecoderScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EntropyBoundScheduler",
    "FlowMapEulerDiscreteScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "LTXEulerAncestralRFScheduler",
    "MiniMaxH3Scheduler",
    "PiflowScheduler",
    "RFD4ProteinaScheduler",
    "SCMScheduler",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "VQDiffusionScheduler",
]


def scheduler_class(name, monkeypatch):
    """diffusers' own class, also where a library that it samples with is missing."""
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    if name == "DPMSolverSDEScheduler":
        from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

        return DPMSolverSDEScheduler
    from diffusers import schedulers

    return getattr(schedulers, name)


def saved(scheduler, folder):
    """The config as the class itself saves it."""
    import json

    scheduler.save_pretrained(folder)
    return json.loads((folder / "scheduler_config.json").read_text())


def test_every_class_of_diffusers_is_supported_or_refused():
    from diffusers import schedulers

    theirs = {name for name in dir(schedulers) if name.endswith("Scheduler")}
    assert theirs == {*SCHEDULERS, *FLOWS, *OTHER_SCHEDULERS}
    assert len(theirs) == len(SCHEDULERS) + len(FLOWS) + len(OTHER_SCHEDULERS)


@pytest.mark.parametrize("prefix", ["", "Flax"])
@pytest.mark.parametrize("settings", ["defaults", "sd"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_alpha_bar_is_the_class_s_own(name, settings, prefix, monkeypatch, tmp_path):
    cls = scheduler_class(name, monkeypatch)
    known = inspect.signature(cls.__init__).parameters
    config = {k: v for k, v in SD.items() if k in known} if settings == "sd" else {}
    if name == "UnCLIPScheduler":  # has but one beta schedule, and no v
        config = {k: v for k, v in config.items() if k == "num_train_timesteps"}
    theirs = cls(**config)
    content = saved(theirs, tmp_path)
    assert content["_class_name"] == name
    content["_class_name"] = prefix + name
    for given in (content, {**config, "_class_name": prefix + name}):
        ours = read_schedule(given, "scheduler_config.json")
        np.testing.assert_allclose(
            ours.posterior.alpha_bar, theirs.alphas_cumprod, rtol=1e-5, atol=1e-9
        )
        assert ours.prediction_type == config.get("prediction_type", "epsilon")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_parameter_is_read_or_of_sampling(name, monkeypatch):
    parameters = set(inspect.signature(scheduler_class(name, monkeypatch)).parameters)
    assert parameters - {"kwargs"} <= READ | SAMPLING


@pytest.mark.parametrize("name", FLOWS)
def test_every_parameter_of_a_flow_is_read_or_of_sampling(name, monkeypatch):
    parameters = set(inspect.signature(scheduler_class(name, monkeypatch)).parameters)
    assert parameters <= FLOW_READ | FLOW_SAMPLING


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"invert_sigmas": True}, ["invert_sigmas"]),
        ({"shift_terminal": 0.1}, ["shift_terminal", "use_dynamic_shifting"]),
        ({"shift": 0.0}, ["shifted by 0", "1e-06 at least"]),
        ({"shift": 1e-300}, ["shifted by 1e-300", "1e-06 at least"]),
        (_DYNAMIC | {"base_shift": -90, "max_shift": -91.0}, ["1e-06 at least"]),
        ({"shift": "3"}, ["shift", "'3'"]),
        ({"shift": float("nan")}, ["shift", "nan"]),
        ({"num_train_timesteps": 0}, ["num_train_timesteps"]),
        (_DYNAMIC | {"time_shift_type": "square"}, ["time_shift_type", "linear"]),
        (_DYNAMIC | {"max_image_seq_len": 256}, ["max_image_seq_len", "differ"]),
        (_DYNAMIC | {"max_shift": 1e9}, ["max_shift", "100"]),
        (_DYNAMIC | {"base_shift": -9.0, "time_shift_type": "linear"}, ["shifted by"]),
        (_DYNAMIC | {"shift_terminal": 1.0}, ["shift_terminal"]),
        (_DYNAMIC | {"base_shift": 90.0, "max_shift": 90.5}, ["must rise"]),
    ],
)
def test_what_is_not_supported_of_a_flow_is_named(change, names):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **change}
    with pytest.raises(DiffjaxError) as error:
        read_schedule(config, "x/scheduler_config.json", 256)
    for name in ["x/scheduler_config.json", *names]:
        assert name in str(error.value)


@pytest.mark.parametrize("shift", [1e-5, 1e-3, 0.3, 7.0, 100.0])
def test_a_flow_ends_in_noise_whatever_its_shift(shift, monkeypatch):
    name = "FlowMatchEulerDiscreteScheduler"
    schedule = read_schedule({"_class_name": name, "shift": shift}, "x")
    assert schedule.sigma[-1] == 1 and schedule.signal[-1] == 0
    theirs = np.asarray(scheduler_class(name, monkeypatch)(shift=shift).sigmas)[::-1]
    rounding = 1e-7 / shift  # theirs subtract, where ours divide
    np.testing.assert_allclose(schedule.sigma, theirs, rtol=max(1e-4, rounding))


def test_a_network_without_tokens_has_no_dynamic_shift():
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **_DYNAMIC}
    with pytest.raises(DiffjaxError, match="use_dynamic_shifting"):
        read_schedule(config, "x/scheduler_config.json")


def their_flow(cls, config, tokens):
    """σ and time by the class itself, rising; as FLUX's pipeline sets μ."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    theirs = cls(**config)
    c = theirs.config
    if c.get("use_dynamic_shifting"):
        lengths = c.base_image_seq_len, c.max_image_seq_len
        mu = calculate_shift(tokens, *lengths, c.base_shift, c.max_shift)
        theirs.set_timesteps(c.num_train_timesteps, mu=mu)
    T = c.num_train_timesteps
    return [np.asarray(x)[:T][::-1] for x in (theirs.sigmas, theirs.timesteps)]


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 16384])
@pytest.mark.parametrize("config", PUBLISHED_FLOWS.values(), ids=PUBLISHED_FLOWS)
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_s_noise_levels_are_the_class_s_own(
    name, config, tokens, monkeypatch, tmp_path
):
    cls = scheduler_class(name, monkeypatch)
    known = inspect.signature(cls.__init__).parameters
    config = {k: v for k, v in config.items() if k in known}
    if name == "FlowMatchHeunDiscreteScheduler":  # each but the first step twice
        assert set(known) <= {"self", "num_train_timesteps", "shift"}
    sigma, time = their_flow(cls, config, tokens)
    for content in (saved(cls(**config), tmp_path), {**config, "_class_name": name}):
        ours = read_schedule(content, "scheduler_config.json", tokens)
        np.testing.assert_allclose(ours.sigma, sigma, rtol=1e-6)
        np.testing.assert_allclose(ours.signal, 1 - sigma, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.time, time, rtol=1e-6)
        assert ours.prediction_type == "flow"
        assert ours.posterior is None


def test_add_noise_of_a_flow_is_the_class_s_own():
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from diffjax.schedules import add_noise

    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    ours = read_schedule(config, "x")
    rng = np.random.default_rng(0)
    z0, noise = rng.normal(size=(2, 1, 4, 4, 2)).astype(np.float32)
    for t in (0, 1, 500, 998, 999):
        time = theirs.timesteps[999 - t][None]
        expected = theirs.scale_noise(torch.tensor(z0), time, torch.tensor(noise))
        z_t = add_noise(ours, jnp.asarray(z0), jnp.asarray(noise), t)
        np.testing.assert_allclose(z_t, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "Flax"])
@pytest.mark.parametrize("name", OTHER_SCHEDULERS)
def test_the_others_are_refused_with_a_reason(name, prefix):
    with pytest.raises(DiffjaxError) as caught:
        read_schedule({"_class_name": prefix + name}, "x/scheduler_config.json")
    for words in (name, "x/scheduler_config.json", "continuous noise levels", "DDIM"):
        assert words in str(caught.value)


def test_refused_classes_have_no_such_table(monkeypatch):
    """None of them has the ᾱ that its betas would give, where it can be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in OTHER_SCHEDULERS:
            try:
                theirs = scheduler_class(name, monkeypatch)()
            except (TypeError, ImportError):
                continue  # needs arguments or a library
            table = getattr(theirs, "alphas_cumprod", None)
            if table is not None:
                assert not np.allclose(table, np.cumprod(1 - theirs.betas), rtol=1e-3)


@pytest.mark.parametrize("key", ["use_flow_sigmas", "timestep_type"])
def test_settings_under_which_a_class_is_not_ours(key):
    value = {"use_flow_sigmas": True, "timestep_type": "continuous"}[key]
    config = {"_class_name": "EulerDiscreteScheduler", key: value}
    with pytest.raises(DiffjaxError, match=key):
        read_schedule(config, "scheduler_config.json")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"beta_schedule": "sigmoid"}, ["beta_schedule", "sigmoid", *BETA_SCHEDULES]),
        ({"prediction_type": "flow"}, ["prediction_type", "flow", *DENOISING]),
        ({"_class_name": "HeliosScheduler"}, ["Helios", "flow matching", "DDIM"]),
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
        read_schedule(config, "x/scheduler_config.json")
    for name in ["x/scheduler_config.json", *names]:
        assert name in str(error.value)
