"""How an image becomes noise, and what a model predicts of it.

A process mixes a latent z0 with noise ε ~ N(0, 1), and every model predicts some other
mixture of the two. At the index t in [0, T), with a = signal[t] and s = sigma[t],

    z_t = a z0 + s ε                                            (noisy latent)     (1)
    p   = α z0 + β ε                                            (prediction)       (2)
    ε̂   = (a p − α z_t) / D,    D = a β − α s                                      (3)
    ẑ0  = (β z_t − s p) / D                                                        (4)

where (3) and (4) solve (1) and (2). The network is told time[t].

    process     a            s                time
    DDPM        sqrt(ᾱ_t)    sqrt(1 − ᾱ_t)    t             ᾱ_t = Π_{u ≤ t} (1 − β_u)
    flow        1 − σ_t      σ_t              see ``TIMES``

    prediction       α     β     D
    epsilon          0     1     a
    v_prediction    −s     a     1, as a² + s² = 1
    sample           1     0    −s
    flow            −1     1     1, as a + s = 1
    reverse_flow     1    −1    −1

Given z_t, whoever is wrong about the noise by ε − ε̂ is wrong about the mixture of any
other row by D / a times that: about z0 by s / a, about the velocity (v, or a flow's) by
1 / a, up to the sign. So the space in which errors are measured is a factor on ε − ε̂
that depends on t alone.                                                           (5)

At a = 0 z_t is the noise itself, whatever the model says of it: so it is at the end of
a flow, and of a DDPM schedule that rescale_betas_zero_snr made. (3) holds there too:
for epsilon a cancels, and the others' D is not 0 unless s is, which is above 0.

Sources: Ho et al. 2020 (arXiv 2006.11239) for DDPM; Rombach et al. 2022 (2112.10752)
for ``scaled_linear``; Nichol and Dhariwal 2021 (2102.09672) for ``squaredcos_cap_v2``;
Salimans and Ho 2022 (2202.00512) for v; Lipman et al. 2023 (2210.02747) and Esser et
al. 2024 (2403.03206) for flows, Ma et al. 2024 (SiT, 2401.08740) for those whose time
and velocity run the other way.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError, unknown

# kind of prediction: (a, s) → (α, β) of equation (2)
PREDICTIONS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "epsilon": lambda a, s: (0.0, 1.0),
    "v_prediction": lambda a, s: (-s, a),
    "sample": lambda a, s: (1.0, 0.0),
    "flow": lambda a, s: (-1.0, 1.0),  # noise minus data: SD3, FLUX, REPA
    "reverse_flow": lambda a, s: (1.0, -1.0),  # data minus noise: SiT
}
FLOWS = ("flow", "reverse_flow")
# what a flow's network is told of the noise level: (σ, T) → time
TIMES: dict[str, Callable[[Any, int], Any]] = {
    "steps": lambda sigma, T: T * sigma,  # SD3, FLUX: 1000 σ
    "sigma": lambda sigma, T: sigma,  # REPA: 1 is noise
    "signal": lambda sigma, T: 1 - sigma,  # SiT: 1 is data
}
# name in diffusers: (β of the first timestep, of the last, T) → β, float64 [T]
BETA_SCHEDULES: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "linear": lambda first, last, T: np.linspace(first, last, T),
    "scaled_linear": lambda first, last, T: (
        np.linspace(math.sqrt(first), math.sqrt(last), T) ** 2
    ),
    "squaredcos_cap_v2": lambda first, last, T: _cosine_betas(T),
}
# space: what is predicted there
SPACES = {"noise": "epsilon", "data": "sample", "velocity": "v_prediction"}
ROUNDING = 5e-7  # of a² + s² and a + s in float32


class Posterior(NamedTuple):
    """q(z_{t−1} | z_t, z0) of a DDPM process, of which the variational bound is made.

    The tables are computed in float64, since in float32 1 − ᾱ_t keeps only three digits
    at small t.

    Attributes:
        alpha_bar: ᾱ_t of the T training timesteps, float32 [T], falling, in [0, 1).
        log_beta: log β_t, float32 [T].
        log_variance: log β̃_t with β̃_t = β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t); β̃_1 stands in
            for β̃_0 = 0. float32 [T].
        weight: √ᾱ_{t−1} β_t / (1 − ᾱ_t), of z0 in the posterior's mean, float32 [T].
    """

    # Left unchecked at run time: JAX rebuilds pytrees with placeholders as leaves.
    alpha_bar: Any  # Float[Array, "T"]
    log_beta: Any
    log_variance: Any
    weight: Any


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A process, and what the model predicts of it.

    A JAX pytree: the tables over the index t are data, ``prediction_type`` is static.

    Attributes:
        signal: a of equation (1), float32 [T], falling, in [0, 1).
        sigma: s of equation (1), float32 [T], rising, in (0, 1].
        time: what the network is told, [T]: int32, or float32 for flows.
        prediction_type: a key of ``PREDICTIONS``.
        posterior: of a DDPM process; None for a flow.
        factor: (5), by which errors count, float32 [T]; None in the space of noise.
    """

    # Left unchecked at run time: JAX rebuilds pytrees with placeholders as leaves.
    signal: Any  # Float[Array, "T"]
    sigma: Any  # Float[Array, "T"]
    time: Any  # Int[Array, "T"] | Float[Array, "T"]
    prediction_type: str
    posterior: Posterior | None = None
    factor: Any = None

    @property
    def n_timesteps(self) -> int:
        """The number T of training timesteps."""
        return int(self.signal.shape[0])

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the tables to seven digits: the last bit is a machine's."""
        if self.posterior is None:
            tables = np.stack([self.sigma, self.time], axis=1).ravel()
            text = " ".join(f"{each:.6e}" for each in tables.tolist())
        else:
            table = np.asarray(self.posterior.alpha_bar)
            text = " ".join(f"{each:.7f}" for each in table.tolist())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def ddpm(
        cls, alpha_bar: Float[np.ndarray, "T"], prediction_type: str = "epsilon"
    ) -> "Schedule":
        """The schedule of a table of ᾱ_t, float64 [T], falling, in [0, 1)."""
        before = np.append(1.0, alpha_bar[:-1])
        beta = 1 - alpha_bar / before
        beta_tilde = beta * (1 - before) / (1 - alpha_bar)
        beta_tilde[0] = beta_tilde[1] if len(beta) > 1 else beta[0]
        weight = np.sqrt(before) * beta / (1 - alpha_bar)
        tables = alpha_bar, np.log(beta), np.log(beta_tilde), weight
        posterior = Posterior(*(table.astype(np.float32) for table in tables))
        return cls._on_device(
            signal=np.sqrt(posterior.alpha_bar),
            sigma=np.sqrt(1 - posterior.alpha_bar),
            time=np.arange(len(alpha_bar), dtype=np.int32),
            prediction_type=prediction_type,
            posterior=posterior,
        )

    @classmethod
    def flow(
        cls,
        sigma: Float[np.ndarray, "T"],
        prediction_type: str = "flow",
        time: str = "steps",
    ) -> "Schedule":
        """The schedule of a table of σ_t, float64 [T], rising, in (0, 1].

        Args:
            sigma: the table.
            prediction_type: a key of ``PREDICTIONS``.
            time: a key of ``TIMES``: what the network is told.

        Raises:
            DiffjaxError: if the table does not rise, or leaves (0, 1].
        """
        if not (sigma[0] > 0 and sigma[-1] <= 1 and (np.diff(sigma) > 0).all()):
            raise DiffjaxError(
                "The noise levels σ of a flow must rise from above 0 to 1 at most, "
                f"not from {sigma[0]:g} to {sigma[-1]:g}."
            )
        return cls._on_device(
            signal=(1 - sigma).astype(np.float32),
            sigma=sigma.astype(np.float32),
            time=TIMES[time](sigma, len(sigma)).astype(np.float32),
            prediction_type=prediction_type,
        )

    @classmethod
    def named(
        cls,
        name: str,
        *,
        n_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        prediction_type: str | None = None,
        shift: float = 1.0,
        time: str = "steps",
    ) -> "Schedule":
        """Make a schedule by its name.

        Args:
            name: "linear", "scaled_linear" or "cosine" (diffusers' squaredcos_cap_v2),
                the DDPM processes with these β; or "flow".
            n_timesteps: The number T of training timesteps.
            beta_start: The first β of "linear" and "scaled_linear"; Stable Diffusion
                has 0.00085.
            beta_end: The last β; Stable Diffusion has 0.012.
            prediction_type: What the network predicts: "epsilon" (the default),
                "v_prediction" or "sample"; of a flow "flow" (its default: ε − z0) or
                "reverse_flow" (z0 − ε).
            shift: The k of a flow's noise levels k x / (1 + (k − 1) x), where x runs
                from 1 / T to 1; SD3 has 3.
            time: What a flow's network is told: "steps" (T σ), "sigma" (σ) or "signal"
                (1 − σ). Others are told the timestep, from 0.

        Raises:
            DiffjaxError: If a name is unknown or a number makes no sense.
        """
        betas = BETA_SCHEDULES | {"cosine": BETA_SCHEDULES["squaredcos_cap_v2"]}
        if name not in (*betas, "flow"):
            known = ("linear", "scaled_linear", "cosine", "flow")
            raise unknown("schedule", name, known)
        if n_timesteps < 1:
            raise DiffjaxError(f"n_timesteps is {n_timesteps}; it must be at least 1.")
        flow = name == "flow"
        predictions = [p for p in PREDICTIONS if (p in FLOWS) == flow]
        prediction_type = prediction_type or predictions[0]
        if prediction_type not in predictions:
            raise unknown(f"prediction_type of {name}", prediction_type, predictions)
        if flow:
            if time not in TIMES:
                raise unknown("time", time, TIMES)
            if not shift > 0:
                raise DiffjaxError(f"shift is {shift}; it must be above 0.")
            x = np.arange(1, n_timesteps + 1) / n_timesteps
            sigma = shift * x / (shift * x + (1 - x))
            return cls.flow(sigma, prediction_type, time)
        beta = betas[name](beta_start, beta_end, n_timesteps)
        if not (1e-7 <= beta[0] and (beta > 0).all() and (beta <= 1).all()):
            raise DiffjaxError(
                "Every β must be in (0, 1], the first at least 1e-7; beta_start is "
                f"{beta_start} and beta_end {beta_end}."
            )
        return cls.ddpm(np.cumprod(1 - beta), prediction_type)

    def in_space(self, space: str) -> "Schedule":
        """The schedule, errors measured in a space: a key of ``SPACES``."""
        if space == "noise":
            return replace(self, factor=None)
        kind = SPACES[space]
        if self.posterior is None and kind == "v_prediction":
            kind = "flow"  # a velocity too: D is 1 in both
        there = replace(self, prediction_type=kind)
        a, *_, determinant = _coefficients(there, jnp.arange(self.n_timesteps))
        return replace(self, factor=jnp.abs(determinant) / a)

    def check(self, timesteps: Int[np.ndarray, " s"]) -> None:
        """Raise a DiffjaxError if errors at a timestep are infinite in their space."""
        if self.factor is None:
            return
        infinite = ~np.isfinite(np.asarray(self.factor)[timesteps])
        if infinite.any():
            raise DiffjaxError(
                f"At timestep {timesteps[infinite][0]} nothing is left of the image, "
                "and errors are infinite but in the space of noise. Choose that, or "
                "another n_samples."
            )

    @classmethod
    def _on_device(cls, **tables: Any) -> "Schedule":
        schedule: Schedule = jax.tree.map(jax.device_put, cls(**tables))
        return schedule


def _cosine_betas(T: int) -> Float[np.ndarray, "T"]:
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    betas: np.ndarray = np.minimum(1 - f[1:] / f[:-1], 0.999)
    return betas


jax.tree_util.register_dataclass(
    Schedule,
    data_fields=["signal", "sigma", "time", "posterior", "factor"],
    meta_fields=["prediction_type"],
)


def at(table: Array, t: int | Int[Array, "*n"]) -> Array:
    """The entry of a table at index t; NaN past the end, or the smallest integer."""
    # plain indexing would silently clamp
    return jnp.take(table, jnp.asarray(t))


def add_noise(
    schedule: Schedule,
    z0: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    t: int | Int[Array, ""],
) -> Float[Array, "*shape"]:
    """The noisy latent z_t of equation (1), in float32; NaN if t ≥ T."""
    z_t: Array = at(schedule.signal, t) * z0 + at(schedule.sigma, t) * noise
    return z_t


def prediction_target(
    schedule: Schedule,
    z0: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    t: int | Int[Array, ""],
) -> Float[Array, "*shape"]:
    """What a perfect model would predict at z_t, equation (2). Training fits this."""
    _, _, alpha, beta, _ = _coefficients(schedule, t)
    target: Array = alpha * z0 + beta * noise
    return target


def noise_from_prediction(
    schedule: Schedule,
    prediction: Float[Array, "*shape"],
    z_t: Float[Array, "*shape"],
    t: int | Int[Array, ""],
) -> Float[Array, "*shape"]:
    """The noise ε̂ that a model's prediction stands for, by equation (3)."""
    if schedule.prediction_type == "epsilon":
        return prediction  # a cancels, where it is 0 too
    a, _, alpha, _, determinant = _coefficients(schedule, t)
    noise: Array = (a * prediction - alpha * z_t) / determinant
    return noise


def latent_from_prediction(
    schedule: Schedule,
    prediction: Float[Array, "*shape"],
    z_t: Float[Array, "*shape"],
    t: int | Int[Array, ""],
) -> Float[Array, "*shape"]:
    """The latent ẑ0 that a model's prediction stands for, by equation (4).

    It is infinite for epsilon at a = 0, where the noise says nothing of it.
    """
    _, s, _, beta, determinant = _coefficients(schedule, t)
    z0: Array = (beta * z_t - s * prediction) / determinant
    return z0


def _coefficients(schedule: Schedule, t: int | Int[Array, "*n"]) -> tuple[Any, ...]:
    """a, s, α, β and D at index t."""
    a, s = at(schedule.signal, t), at(schedule.sigma, t)
    alpha, beta = PREDICTIONS[schedule.prediction_type](a, s)
    determinant = a * beta - alpha * s
    # a² + s² and a + s are 1, and not what the rounded a and s make of it
    one = jnp.abs(jnp.abs(determinant) - 1) < ROUNDING
    return a, s, alpha, beta, jnp.where(one, jnp.sign(determinant), determinant)
