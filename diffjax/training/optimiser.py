"""The optimiser of a phase, and the state that it carries from step to step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from diffjax.training.recipes import Phase


class TrainState(NamedTuple):
    """A pytree: everything that a step reads and writes.

    Attributes:
        step: updates made so far.
        parameters: of the networks, any pytree.
        average: their exponential moving average, which is what is exported.
        optimiser: optax's state.
    """

    step: Int[Array, ""]
    parameters: Any
    average: Any
    optimiser: Any


# (parameters, batch, key) → loss; a batch is a pytree of arrays
Loss = Callable[[Any, Any, Array], Float[Array, ""]]


def make_optimiser(phase: Phase) -> optax.GradientTransformation:
    """AdamW with clipped gradients, linear warm-up and cosine decay to zero."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, phase.learning_rate, phase.warmup, phase.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(phase.clip_norm),
        optax.adamw(
            rate,
            weight_decay=phase.weight_decay,
            # biases and the scales of norms are not decayed
            mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree),
        ),
    )


def initial_state(phase: Phase, parameters: Any) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        # a copy, since a step gives both buffers away
        average=jax.tree.map(jnp.copy, parameters),
        optimiser=make_optimiser(phase).init(parameters),
    )


def make_step(
    phase: Phase, loss: Loss, seed: int
) -> Callable[[TrainState, Any], tuple[TrainState, Float[Array, ""]]]:
    """One jitted update: (state, batch) → (state, loss).

    The key of a step is a function of seed and step alone, so that a run which was
    interrupted goes on as if it had not been.
    """
    optimiser = make_optimiser(phase)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        value, gradient = jax.value_and_grad(loss)(state.parameters, batch, key)
        updates, optimiser_state = optimiser.update(
            gradient, state.optimiser, state.parameters
        )
        parameters = optax.apply_updates(state.parameters, updates)
        # a young average would remember the random start for 1 / (1 − decay) steps
        decay = jnp.minimum(phase.ema_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * new, state.average, parameters
        )
        return (
            TrainState(state.step + 1, parameters, average, optimiser_state),
            value,
        )

    return jax.jit(step, donate_argnums=0)
