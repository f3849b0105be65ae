"""Every scheduler class of diffusers: its forward process is ours, or it is refused."""

import inspect
import sys
import types
import warnings

import numpy as np
import pytest

from diffjax.errors import DiffjaxError
from diffjax.schedules import OTHER_SCHEDULERS, SCHEDULERS, Schedule

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
    assert theirs == set(SCHEDULERS) | set(OTHER_SCHEDULERS)
    assert not set(SCHEDULERS) & set(OTHER_SCHEDULERS)


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
        ours = Schedule.from_config(given, "scheduler_config.json")
        np.testing.assert_allclose(
            ours.alpha_bar, theirs.alphas_cumprod, rtol=1e-5, atol=1e-9
        )
        assert ours.prediction_type == config.get("prediction_type", "epsilon")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_parameter_is_read_or_of_sampling(name, monkeypatch):
    parameters = set(inspect.signature(scheduler_class(name, monkeypatch)).parameters)
    assert parameters - {"kwargs"} <= READ | SAMPLING


@pytest.mark.parametrize("prefix", ["", "Flax"])
@pytest.mark.parametrize("name", OTHER_SCHEDULERS)
def test_the_others_are_refused_with_a_reason(name, prefix):
    with pytest.raises(DiffjaxError) as caught:
        Schedule.from_config({"_class_name": prefix + name}, "x/scheduler_config.json")
    for words in (name, "x/scheduler_config.json", OTHER_SCHEDULERS[name], "DDIM"):
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
        Schedule.from_config(config, "scheduler_config.json")
