"""scheduler_config.json of a diffusers pipeline → the ``Schedule`` of its model.

Two forward processes stand behind diffusers' scheduler classes. DDPM's has

    ᾱ_t = Π_{u ≤ t} (1 − β_u),        β by ``beta_schedule``

and a flow's the noise levels σ_t = f((t + 1) / T), t in [0, T), where f is

    shift k                   f(x) = k x / (1 + (k − 1) x)                         (1)
    dynamic, exponential      f of (1) with k = exp(μ)
    dynamic, linear           f of (1) with k = μ

with μ linear in the number n of the image's tokens, base_shift at base_image_seq_len
and max_shift at max_image_seq_len. shift_terminal e then has 1 − σ stretched, so that
the smallest σ is e:  σ ← 1 − (1 − σ) (1 − e) / (1 − σ_0).

Sources: Lin et al. 2024 (arXiv 2305.08891), Algorithm 1, for the rescaling; Esser et
al. 2024 (2403.03206) for the shift.
"""

import math
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from diffjax.errors import DiffjaxError
from diffjax.models.config import Bounds, fits, in_words
from diffjax.models.sampling import DDIM, SPACINGS, Euler, Sampling
from diffjax.schedules import BETA_SCHEDULES as BETA_SCHEDULES
from diffjax.schedules import Schedule

DENOISING = ("epsilon", "v_prediction", "sample")  # predictions of DDPM models
MOST_STEPS = 100_000  # of training; published schedules have 4,000 at most
MOST_SHIFT = 100  # of noise levels; published ones are 12 at most
LEAST_SHIFT = 1e-6  # below, there is hardly noise but at the last level
Whole = Annotated[int, Bounds(1, MOST_STEPS)]
Real = Annotated[float, Bounds(-MOST_SHIFT, MOST_SHIFT)]
Share = Annotated[float, Bounds(0, 1)]
Offset = Annotated[int, Bounds(0, MOST_STEPS)]
OTHER_LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")

# What each scheduler class of diffusers takes for beta_start, beta_end and
# beta_schedule where its config is silent. The classes differ in how they SAMPLE;
# all of these share the forward process (1), which is all that is used here.
_DDPM = (1e-4, 0.02, "linear")
_KDPM = (0.00085, 0.012, "linear")
_LCM = (0.00085, 0.012, "scaled_linear")
SCHEDULERS: dict[str, tuple[float, float, str]] = {
    "DDPMScheduler": _DDPM,
    "DDPMParallelScheduler": _DDPM,
    "DDIMScheduler": _DDPM,
    "DDIMParallelScheduler": _DDPM,
    "DDIMInverseScheduler": _DDPM,
    "PNDMScheduler": _DDPM,
    "LMSDiscreteScheduler": _DDPM,
    "EulerDiscreteScheduler": _DDPM,
    "EulerAncestralDiscreteScheduler": _DDPM,
    "DPMSolverMultistepScheduler": _DDPM,
    "DPMSolverMultistepInverseScheduler": _DDPM,
    "DPMSolverSinglestepScheduler": _DDPM,
    "DEISMultistepScheduler": _DDPM,
    "UniPCMultistepScheduler": _DDPM,
    "SASolverScheduler": _DDPM,
    "RePaintScheduler": _DDPM,
    "HeunDiscreteScheduler": _KDPM,
    "KDPM2DiscreteScheduler": _KDPM,
    "KDPM2AncestralDiscreteScheduler": _KDPM,
    "DPMSolverSDEScheduler": _KDPM,
    "LCMScheduler": _LCM,
    "TCDScheduler": _LCM,
    "UnCLIPScheduler": (1e-4, 0.02, "squaredcos_cap_v2"),  # its only one
}
# Flows, which share the noise levels of training and differ in how they sample.
FLOWS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
# Flows of programs that have no scheduler's file: ours, what their networks predict and
# what they are told of the time
PROGRAMS: dict[str, tuple[str, str]] = {
    "SiTScheduler": ("reverse_flow", "signal"),
    "REPAScheduler": ("flow", "sigma"),
}


def read_schedule(
    config: Mapping[str, Any], source: str, tokens: int | None = None
) -> Schedule:
    """The schedule that a diffusers scheduler_config.json describes.

    Args:
        config: the parsed JSON; absent keys mean what they mean to diffusers.
        source: the file's name, for error messages.
        tokens: of an image in the network, on which some flows' noise levels depend.

    Raises:
        DiffjaxError: if the scheduler class, beta schedule, prediction type or a
            number in it is not supported.
    """
    name = _scheduler_class(config, source)
    if name in FLOWS or name in PROGRAMS:
        sigma = _flow_sigmas(config, source, tokens)
        try:
            return Schedule.flow(sigma, *PROGRAMS.get(name, ()))
        except DiffjaxError as error:
            raise DiffjaxError(f"{source}: {error}") from error
    if _flag(config, "use_flow_sigmas", False, source):
        raise DiffjaxError(
            f"{source}: use_flow_sigmas is set, so the model was trained by flow "
            f"matching; of these, {FLOWS[0]} is supported."
        )
    if config.get("timestep_type", "discrete") != "discrete":
        raise DiffjaxError(
            f"{source}: timestep_type={config['timestep_type']!r} is set, so the "
            "model is told noise levels; only those that are told timesteps are "
            "supported."
        )
    # before they could say "sample", schedulers said predict_epsilon: false
    epsilon = _flag(config, "predict_epsilon", True, source)
    old = "epsilon" if epsilon else "sample"
    prediction_type = config.get("prediction_type", old)
    _require_known("prediction_type", prediction_type, DENOISING, source)
    alpha_bar = np.cumprod(1 - _betas(config, SCHEDULERS[name], source))
    if _flag(config, "rescale_betas_zero_snr", False, source):
        if len(alpha_bar) < 2:
            raise DiffjaxError(
                f"{source}: rescale_betas_zero_snr needs two timesteps or more."
            )
        alpha_bar = _rescale_zero_snr(alpha_bar)
    return Schedule.ddpm(alpha_bar, prediction_type)


def read_sampling(
    config: Mapping[str, Any],
    source: str,
    tokens: int | None = None,
    *,
    even: bool = False,
) -> Sampling:
    """How diffusers would sample by DDIM, or Euler's method, under such a config.

    Keys that are absent mean what they mean to its DDIMScheduler.

    Args:
        config: as for ``read_schedule``, which has read it.
        source: the file's name, for error messages.
        tokens: of an image in the network.
        even: whether the steps of a flow are spread evenly down to 1 / n, as by FLUX's
            pipeline, SiT and REPA; else down to the least noise level of training.

    Raises:
        DiffjaxError: if a setting is not supported.
    """
    name = _scheduler_class(config, source)
    if name in FLOWS or name in PROGRAMS:
        for key in OTHER_LEVELS:
            if _flag(config, key, False, source):
                raise DiffjaxError(
                    f"{source}: {key} is set, by which other noise levels are sampled "
                    "than are supported. Set it to false."
                )
        shift, end = _flow_shift(config, source, tokens)
        least = 1 / _read(config, "num_train_timesteps", 1000, Whole, source)
        if not config.get("use_dynamic_shifting"):
            least = shift * least / (1 + (shift - 1) * least)  # and once more by f
        return Euler(
            least=None if even or name in PROGRAMS else least,
            shift=shift,
            terminal=end,
            time=PROGRAMS[name][1] if name in PROGRAMS else "steps",
        )
    for key in ("clip_sample", "thresholding"):
        if _flag(config, key, False, source):
            warnings.warn(
                f"{source} sets {key}, which is of models of pixels: latents are not "
                "cut.",
                stacklevel=2,
            )
    spacing = config.get("timestep_spacing", "leading")
    _require_known("timestep_spacing", spacing, SPACINGS, source)
    return DDIM(
        spacing=spacing,
        offset=_read(config, "steps_offset", 0, Offset, source),
        to_one=_flag(config, "set_alpha_to_one", True, source),
    )


def _flow_sigmas(
    config: Mapping[str, Any], source: str, tokens: int | None
) -> Float[np.ndarray, "T"]:
    if _flag(config, "invert_sigmas", False, source):
        raise DiffjaxError(
            f"{source}: invert_sigmas is set, under which time runs the other way; "
            "that is not supported."
        )
    T = _read(config, "num_train_timesteps", 1000, Whole, source)
    sigma: np.ndarray = np.arange(1, T + 1) / T
    shift, end = _flow_shift(config, source, tokens)
    # whatever the rounding, to 1 at most
    sigma = shift * sigma / (shift * sigma + (1 - sigma))
    if end:
        if sigma[0] == 1 or end == 1:
            raise DiffjaxError(f"{source}: shift_terminal leaves no noise levels.")
        sigma = 1 - (1 - sigma) * (1 - end) / (1 - sigma[0])
    return sigma


def _flow_shift(
    config: Mapping[str, Any], source: str, tokens: int | None
) -> tuple[float, float]:
    """k of equation (1), and e; 0 where nothing is stretched."""
    dynamic = _flag(config, "use_dynamic_shifting", False, source)
    end = _read(config, "shift_terminal", None, Share | None, source) or 0.0
    if dynamic:
        shift = _dynamic_shift(config, source, tokens)
    else:
        shift = _read(config, "shift", 1.0, Real, source)
        if end:
            raise DiffjaxError(
                f"{source}: shift_terminal is supported along with "
                "use_dynamic_shifting alone; without, it is of sampling: remove it."
            )
    if not shift >= LEAST_SHIFT:
        raise DiffjaxError(
            f"{source}: the noise levels are shifted by {shift:g}; it must be "
            f"{LEAST_SHIFT:g} at least. Check shift, or base_shift and max_shift."
        )
    return shift, end


def _dynamic_shift(config: Mapping[str, Any], source: str, tokens: int | None) -> float:
    """k of equation (1) for an image of so many tokens."""
    if tokens is None:
        raise DiffjaxError(
            f"{source}: use_dynamic_shifting is set, so the noise levels depend on the "
            "number of an image's tokens, which this model has none of."
        )
    low = _read(config, "base_image_seq_len", 256, Whole, source)
    high = _read(config, "max_image_seq_len", 4096, Whole, source)
    if low == high:
        raise DiffjaxError(
            f"{source}: base_image_seq_len and max_image_seq_len are both {low}; they "
            "must differ."
        )
    base = _read(config, "base_shift", 0.5, Real, source)
    most = _read(config, "max_shift", 1.15, Real, source)
    mu = base + (most - base) * (tokens - low) / (high - low)
    name = config.get("time_shift_type", "exponential")
    _require_known("time_shift_type", name, SHIFTS, source)
    return SHIFTS[name](mu)


# k of equation (1), by time_shift_type
SHIFTS: dict[str, Callable[[float], float]] = {
    "exponential": lambda mu: math.exp(min(mu, MOST_SHIFT)),
    "linear": lambda mu: mu,
}


def _betas(
    config: Mapping[str, Any], defaults: tuple[float, float, str], source: str
) -> Float[np.ndarray, "T"]:
    # float64 throughout: ᾱ is a product of a thousand factors close to one.
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or not 1 <= len(trained) <= MOST_STEPS:
            raise DiffjaxError(
                f"{source}: trained_betas must be a list of 1 to {MOST_STEPS} numbers."
            )
        key = "trained_betas"
        betas = np.array([_read({key: b}, key, 0, Share, source) for b in trained])
    else:
        T = _read(config, "num_train_timesteps", 1000, Whole, source)
        start = _read(config, "beta_start", defaults[0], Share, source)
        end = _read(config, "beta_end", defaults[1], Share, source)
        name = config.get("beta_schedule", defaults[2])
        _require_known("beta_schedule", name, BETA_SCHEDULES, source)
        betas = BETA_SCHEDULES[name](start, end, T)
    # A β_0 below float32's resolution would round ᾱ_0 to 1, and σ_0 to 0.
    valid = (betas > 0) & (betas <= 1)
    valid[0] &= betas[0] >= 1e-7
    wrong = np.flatnonzero(~valid)
    if wrong.size:
        raise DiffjaxError(
            f"{source}: the noise variance beta of timestep {wrong[0]} is "
            f"{betas[wrong[0]]:g}; every beta must be in (0, 1], the first at least "
            "1e-7. Check beta_start, beta_end and trained_betas."
        )
    return betas


def _rescale_zero_snr(alpha_bar: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    # Shift sqrt(ᾱ) so that it ends at 0, scale it so that it starts where it did.
    root = np.sqrt(alpha_bar)
    shifted: np.ndarray = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return shifted**2


def _scheduler_class(config: Mapping[str, Any], source: str) -> str:
    """The class; former Flax classes are their namesakes' twins."""
    name = config.get("_class_name")
    if isinstance(name, str):
        name = name.removeprefix("Flax")
    known = (*SCHEDULERS, *FLOWS, *PROGRAMS)
    why = (
        "Models of other classes are trained with continuous noise levels or shifted "
        "ones, on discrete tokens, or by a flow matching of their own."
    )
    _require_known("_class_name", name, known, source, why)
    return str(name)


def _require_known(
    key: str, value: object, known: Collection[str], source: str, why: str = ""
) -> None:
    if not isinstance(value, str) or value not in known:
        raise DiffjaxError(
            f"{source}: {key} {value!r:.80} is not supported; supported are "
            f"{', '.join(known)}. {why}".rstrip()
        )


def _read(
    config: Mapping[str, Any], key: str, default: Any, kind: Any, source: str
) -> Any:
    """A value of a type that may have bounds."""
    value = config.get(key, default)
    if not fits(value, kind):
        raise DiffjaxError(
            f"{source}: {key} must be {in_words(kind)}, not {value!r:.40}."
        )
    return value


def _flag(config: Mapping[str, Any], key: str, default: bool, source: str) -> bool:
    value = _read(config, key, None, bool | None, source)
    return default if value is None else bool(value)
