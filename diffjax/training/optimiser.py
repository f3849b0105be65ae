"""The optimisers of a phase, and the state that it carries from step to step.

AdamW moves every weight by about the learning rate. Muon (Jordan 2024) replaces the
averaged gradient of a matrix by the nearest orthogonal one, so that all of its
directions learn at one pace; biases, norms, tables, and the first and last layers of a
diffusion model are AdamW's even then. A convolution counts as a matrix from
(height, width, input) to output.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax import contrib

from diffjax.scoring.noise import seed_key
from diffjax.tracing import jit
from diffjax.training.recipes import Phase

Leaves = dict[str, Array]  # weights by their dotted path

# between data and features, where directions are not alike
OUTERMOST = ("patch", "conv_in", "conv_out", "proj_out_2")


class TrainState(NamedTuple):
    """A pytree: everything that a step reads and writes.

    Attributes:
        step: updates made so far.
        parameters: the weights of the networks.
        average: their exponential moving average, which is what is exported.
        optimiser: optax's state.
    """

    step: Int[Array, ""]
    parameters: Leaves
    average: Leaves
    optimiser: Any


# (parameters, batch, key) → loss; a batch is a pytree of arrays
Loss = Callable[[Leaves, Any, Array], Float[Array, ""]]


def make_optimiser(phase: Phase, leaves: Leaves) -> optax.GradientTransformation:
    """The optimiser for weights of these names and shapes."""

    def rate(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, phase.warmup, phase.steps)

    if phase.muon_rate:
        optimiser = contrib.muon(
            rate(phase.muon_rate),
            weight_decay=phase.weight_decay,
            adam_learning_rate=rate(phase.learning_rate),
            muon_weight_dimension_numbers=matrices(leaves),
        )
    else:
        optimiser = optax.adamw(
            rate(phase.learning_rate),
            weight_decay=phase.weight_decay,
            # biases and the scales of norms are not decayed
            mask={name: leaf.ndim > 1 for name, leaf in leaves.items()},
        )
    return optax.chain(optax.clip_by_global_norm(phase.clip_norm), optimiser)


def matrices(leaves: Leaves) -> dict[str, contrib.MuonDimensionNumbers | None]:
    """How each weight that Muon trains is a matrix; None for AdamW's."""
    return {
        name: contrib.MuonDimensionNumbers(
            reduction_axis=tuple(range(leaf.ndim - 1)), output_axis=leaf.ndim - 1
        )
        if name.endswith(".kernel")
        and leaf.ndim > 1
        and not {*name.split(".")} & {*OUTERMOST}
        else None
        for name, leaf in leaves.items()
    }


def initial_state(phase: Phase, parameters: Leaves) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        # copies, since a step gives the buffers away
        parameters=jax.tree.map(jnp.copy, parameters),
        average=jax.tree.map(jnp.copy, parameters),
        optimiser=make_optimiser(phase, parameters).init(parameters),
    )


def make_step(
    phase: Phase, loss: Loss, seed: int
) -> Callable[[TrainState, Any], tuple[TrainState, Float[Array, ""]]]:
    """One jitted update: (state, batch) → (state, loss).

    The key of a step is a function of seed and step alone, so that a run which was
    interrupted goes on as if it had not been.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(seed_key(seed), state.step)
        value, gradient = jax.value_and_grad(loss)(state.parameters, batch, key)
        optimiser = make_optimiser(phase, state.parameters)
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

    return jit(step, donate_argnums=0)
