"""Noise schedules: how an image becomes noise, and what a model predicts of it.

With ᾱ_t = Π_{s ≤ t} (1 − β_s), noise ε ~ N(0, 1) and a = sqrt(ᾱ_t), s = sqrt(1 − ᾱ_t):

    z_t = a z0 + s ε                                            (noisy latent)     (1)
    ε̂   = p                     if the model predicts ε        (epsilon)          (2)
    ε̂   = a p + s z_t           if it predicts v = a ε − s z0   (v_prediction)     (3)
    ε̂   = (z_t − a p) / s       if it predicts z0               (sample)           (4)

(3) follows from a² + s² = 1. It divides by nothing, so it holds at ᾱ = 0 too, which
rescale_betas_zero_snr makes of the last timestep; there z_t is the noise itself, every
v gives the same ε̂, and the sample tells no class from another. (4) needs s > 0: a
``Schedule`` from a config has β_0 > 0 and falling ᾱ, hence ᾱ ≤ ᾱ_0 < 1 everywhere.

Sources: Ho et al. 2020 (arXiv 2006.11239) for (1) and ``linear``; Rombach et al. 2022
(2112.10752) for ``scaled_linear``; Nichol and Dhariwal 2021 (2102.09672) for
``squaredcos_cap_v2``; Salimans and Ho 2022 (2202.00512) for v; Lin et al. 2024
(2305.08891), Algorithm 1, for the rescaling.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError


class Conversion(NamedTuple):
    """One kind of prediction: the noise it stands for, and the model's target.

    Both are functions of a = sqrt(ᾱ_t) and s = sqrt(1 − ᾱ_t), which come last.
    """

    noise: Callable[[Array, Array, Array, Array], Array]  # (p, z_t, a, s) -> ε
    target: Callable[[Array, Array, Array, Array], Array]  # (z0, ε, a, s) -> p


PREDICTIONS: dict[str, Conversion] = {
    "epsilon": Conversion(
        noise=lambda p, z_t, a, s: p,
        target=lambda z0, noise, a, s: noise,
    ),
    "v_prediction": Conversion(
        noise=lambda p, z_t, a, s: a * p + s * z_t,
        target=lambda z0, noise, a, s: a * noise - s * z0,
    ),
    "sample": Conversion(
        noise=lambda p, z_t, a, s: (z_t - a * p) / s,
        target=lambda z0, noise, a, s: z0,
    ),
}

MOST_STEPS = 100_000  # of training; published schedules have 4,000 at most

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
# Why the models that come with diffusers' other scheduler classes are refused.
OTHER_SCHEDULERS: dict[str, str] = {
    **dict.fromkeys(
        (
            "FlowMapEulerDiscreteScheduler",
            "FlowMatchEulerDiscreteScheduler",
            "FlowMatchHeunDiscreteScheduler",
            "FlowMatchLCMScheduler",
            "HeliosDMDScheduler",
            "HeliosScheduler",
            "LTXEulerAncestralRFScheduler",
            "MiniMaxH3Scheduler",
            "PiflowScheduler",
            "RFD4ProteinaScheduler",
        ),
        "its models are trained by flow matching, not to remove noise by a beta "
        "schedule",
    ),
    **dict.fromkeys(
        (
            "AmusedScheduler",
            "BlockRefinementScheduler",
            "DiscreteDDIMScheduler",
            "EntropyBoundScheduler",
            "VQDiffusionScheduler",
        ),
        "its models replace discrete tokens instead of adding noise",
    ),
    **dict.fromkeys(
        (
            "CMStochasticIterativeScheduler",
            "ConsistencyDecoderScheduler",
            "CosineDPMSolverMultistepScheduler",
            "DDPMWuerstchenScheduler",
            "EDMDPMSolverMultistepScheduler",
            "EDMEulerScheduler",
            "IPNDMScheduler",
            "KarrasVeScheduler",
            "SCMScheduler",
            "ScoreSdeVeScheduler",
            "ScoreSdeVpScheduler",
        ),
        "its models have continuous noise levels instead of a beta schedule",
    ),
    **dict.fromkeys(
        ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
        "its signal-to-noise ratio is shifted after the beta schedule",
    ),
}


@dataclass(frozen=True)
class Schedule:
    """The forward process of a diffusion model and what the model predicts.

    A jax pytree: the tables over timesteps are data, ``prediction_type`` is static.
    The last three tables belong to the posterior q(z_{t−1} | z_t, z0), of which the
    variational bound is made; they are computed in float64, since in float32 1 − ᾱ_t
    keeps only three digits at small t.

    Attributes:
        alpha_bar: ᾱ_t of the T training timesteps, float32 [T], falling, in [0, 1).
        prediction_type: a key of ``PREDICTIONS``.
        log_beta: log β_t, float32 [T].
        log_posterior_variance: log β̃_t with β̃_t = β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t);
            β̃_1 stands in for β̃_0 = 0. float32 [T].
        posterior_weight: √ᾱ_{t−1} β_t / (1 − ᾱ_t), of z0 in the posterior's mean,
            float32 [T].
    """

    # Left unchecked at run time: JAX rebuilds pytrees with placeholders as leaves.
    alpha_bar: Any  # Float[Array, "T"]
    prediction_type: str
    log_beta: Any
    log_posterior_variance: Any
    posterior_weight: Any

    @property
    def n_timesteps(self) -> int:
        """The number T of training timesteps."""
        return int(self.alpha_bar.shape[0])

    @property
    def fingerprint(self) -> str:
        """16 hex digits of ᾱ to seven decimals: a last bit may be the machine's."""
        text = " ".join(f"{each:.7f}" for each in np.asarray(self.alpha_bar).tolist())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "Schedule":
        """Read a diffusers scheduler_config.json.

        Args:
            config: the parsed JSON; absent keys mean what they mean to diffusers.
            source: the file's name, for error messages.

        Raises:
            DiffjaxError: if the scheduler class, beta schedule, prediction type or a
                number in it is not supported.
        """
        name = _scheduler_class(config, source)
        if _flag(config, "use_flow_sigmas", False, source):
            raise DiffjaxError(
                f"{source}: use_flow_sigmas is set, so the model was trained by flow "
                "matching; only diffusion models with a beta schedule are supported."
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
        _require_known("prediction_type", prediction_type, PREDICTIONS, source)
        alpha_bar = np.cumprod(1 - _betas(config, SCHEDULERS[name], source))
        if _flag(config, "rescale_betas_zero_snr", False, source):
            if len(alpha_bar) < 2:
                raise DiffjaxError(
                    f"{source}: rescale_betas_zero_snr needs two timesteps or more."
                )
            alpha_bar = _rescale_zero_snr(alpha_bar)
        return cls.of(alpha_bar, prediction_type)

    @classmethod
    def of(
        cls, alpha_bar: Float[np.ndarray, "T"], prediction_type: str = "epsilon"
    ) -> "Schedule":
        """The schedule of a table of ᾱ_t, float64 [T], falling, in [0, 1)."""
        before = np.append(1.0, alpha_bar[:-1])
        beta = 1 - alpha_bar / before
        beta_tilde = beta * (1 - before) / (1 - alpha_bar)
        beta_tilde[0] = beta_tilde[1] if len(beta) > 1 else beta[0]
        weight = np.sqrt(before) * beta / (1 - alpha_bar)
        tables = alpha_bar, np.log(beta), np.log(beta_tilde), weight
        alpha_bar32, *posterior = (jax.device_put(x.astype(np.float32)) for x in tables)
        return cls(alpha_bar32, prediction_type, *posterior)


jax.tree_util.register_dataclass(
    Schedule,
    data_fields=[
        "alpha_bar",
        "log_beta",
        "log_posterior_variance",
        "posterior_weight",
    ],
    meta_fields=["prediction_type"],
)


def add_noise(
    schedule: Schedule,
    z0: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    t: int | Int[Array, ""],
) -> Float[Array, "*shape"]:
    """The noisy latent z_t of equation (1), in float32; NaN if t ≥ T."""
    a, s = _signal_and_sigma(schedule, t)
    return a * z0 + s * noise


def noise_from_prediction(
    schedule: Schedule,
    prediction: Float[Array, "*shape"],
    z_t: Float[Array, "*shape"],
    t: int | Int[Array, ""],
) -> Float[Array, "*shape"]:
    """The noise ε̂ that a model's prediction stands for, by equations (2) to (4)."""
    a, s = _signal_and_sigma(schedule, t)
    return PREDICTIONS[schedule.prediction_type].noise(prediction, z_t, a, s)


def prediction_target(
    schedule: Schedule,
    z0: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    t: int | Int[Array, ""],
) -> Float[Array, "*shape"]:
    """What a perfect model would predict at z_t: ε, v or z0. Training fits this."""
    a, s = _signal_and_sigma(schedule, t)
    return PREDICTIONS[schedule.prediction_type].target(z0, noise, a, s)


def _signal_and_sigma(
    schedule: Schedule, t: int | Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    # jnp.take answers NaN past the end; plain indexing would silently clamp.
    alpha_bar = jnp.take(schedule.alpha_bar, jnp.asarray(t))
    return jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)


def _betas(
    config: Mapping[str, Any], defaults: tuple[float, float, str], source: str
) -> Float[np.ndarray, "T"]:
    # float64 throughout: ᾱ is a product of a thousand factors close to one.
    trained = config.get("trained_betas")
    if trained is not None:
        betas = _numbers(trained, source)
    else:
        T = config.get("num_train_timesteps", 1000)
        if not isinstance(T, int) or isinstance(T, bool) or not 1 <= T <= MOST_STEPS:
            raise DiffjaxError(
                f"{source}: num_train_timesteps must be a whole number from 1 to "
                f"{MOST_STEPS}, not {T!r:.40}."
            )
        start = _number(config.get("beta_start", defaults[0]), "beta_start", source)
        end = _number(config.get("beta_end", defaults[1]), "beta_end", source)
        name = config.get("beta_schedule", defaults[2])
        _require_known("beta_schedule", name, BETA_SCHEDULES, source)
        betas = BETA_SCHEDULES[name](start, end, T)
    # A β_0 below float32's resolution would round ᾱ_0 to 1, where (4) divides by zero.
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


def _linear(start: float, end: float, T: int) -> Float[np.ndarray, "T"]:
    return np.linspace(start, end, T)


def _scaled_linear(start: float, end: float, T: int) -> Float[np.ndarray, "T"]:
    return np.linspace(math.sqrt(start), math.sqrt(end), T) ** 2


def _squaredcos_cap_v2(start: float, end: float, T: int) -> Float[np.ndarray, "T"]:
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    betas: np.ndarray = np.minimum(1 - f[1:] / f[:-1], 0.999)
    return betas


BETA_SCHEDULES: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _squaredcos_cap_v2,
}


def _rescale_zero_snr(alpha_bar: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    # Shift sqrt(ᾱ) so that it ends at 0, scale it so that it starts where it did.
    root = np.sqrt(alpha_bar)
    shifted: np.ndarray = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return shifted**2


def _scheduler_class(config: Mapping[str, Any], source: str) -> str:
    """A key of ``SCHEDULERS``; the former Flax classes are their namesakes' twins."""
    name = config.get("_class_name")
    if isinstance(name, str):
        name = name.removeprefix("Flax")
        if name in OTHER_SCHEDULERS:
            raise DiffjaxError(
                f"{source}: {name} is not supported: {OTHER_SCHEDULERS[name]}. "
                f"Supported are {', '.join(SCHEDULERS)}."
            )
    _require_known("_class_name", name, SCHEDULERS, source)
    return str(name)


def _require_known(
    key: str, value: object, known: Mapping[str, object], source: str
) -> None:
    if not isinstance(value, str) or value not in known:
        raise DiffjaxError(
            f"{source}: {key} {value!r:.80} is not supported; supported are "
            f"{', '.join(known)}."
        )


def _number(value: object, key: str, source: str) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not 0 <= value <= 1:  # type: ignore[operator]
        raise DiffjaxError(
            f"{source}: {key} must be a number from 0 to 1, not {value!r:.40}."
        )
    return float(value)  # type: ignore[arg-type]


def _flag(config: Mapping[str, Any], key: str, default: bool, source: str) -> bool:
    value = config.get(key, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise DiffjaxError(f"{source}: {key} must be true or false, not {value!r:.40}.")
    return value


def _numbers(values: object, source: str) -> Float[np.ndarray, "T"]:
    if not isinstance(values, list | tuple | np.ndarray) or not (
        1 <= len(values) <= MOST_STEPS
    ):
        raise DiffjaxError(
            f"{source}: trained_betas must be a list of 1 to {MOST_STEPS} numbers."
        )
    return np.array([_number(v, "trained_betas", source) for v in list(values)])
