"""The training loop: a loss, its parameters and batches in, averaged parameters out.

FOLDER/loss.csv              a row every few steps
FOLDER/checkpoints/          the last two
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from diffjax.errors import DiffjaxError
from diffjax.training.checkpoint import Checkpoints, named
from diffjax.training.log import LossLog
from diffjax.training.optimiser import Leaves, initial_state, make_step
from diffjax.training.recipes import Phase


def fit(
    phase: Phase,
    loss: Callable[[Any, Any, Any], Any],
    parameters: Any,
    batch_of_step: Callable[[int], Any],
    folder: Path,
    *,
    seed: int,
    stop: int | None = None,
    show: Callable[[int, Any], None] = lambda step, average: None,
    console: Console,
) -> Any:
    """Run a phase from its last checkpoint to its end, or to step ``stop``.

    Batches are split over this process's devices, parameters are on each of them.

    Args:
        phase: the numbers.
        loss: (parameters, batch, key) → scalar, the mean over the batch.
        parameters: to start from; any pytree.
        batch_of_step: a pure function of the step; every array has the phase's batch
            for its first axis.
        folder: of loss.csv and the checkpoints.
        seed: the seed of the steps' keys.
        stop: no step from this one on is made.
        show: is given the averaged parameters every ``phase.show_every`` steps.
        console: where the progress bar goes.

    Returns:
        The averaged parameters.

    Raises:
        DiffjaxError: the loss is not finite, or the checkpoint is of other networks.
    """
    names, leaves = zip(*named(parameters), strict=True)
    structure = jax.tree.structure(parameters)

    def tree(leaves: Leaves) -> Any:
        return jax.tree.unflatten(structure, [leaves[name] for name in names])

    everywhere, split = batch_shardings(phase.batch)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = initial_state(phase, dict(zip(names, leaves, strict=True)))
        if checkpoints.latest is not None:
            state = checkpoints.load(state)
        state = jax.device_put(state, everywhere)
        start = int(state.step)
        end = phase.steps if stop is None else min(stop, phase.steps)
        update = make_step(phase, lambda leaves, *rest: loss(tree(leaves), *rest), seed)
        losses: list[Any] = []
        with LossLog(folder, folder.name, start, phase.steps, console) as log:
            for step in range(start + 1, end + 1):
                batch = jax.device_put(batch_of_step(step - 1), split)
                state, value = update(state, batch)
                losses.append(value)
                log.advance()
                if step % phase.log_every == 0 or step == end:
                    mean = float(np.mean(jax.device_get(losses)))
                    if not np.isfinite(mean):
                        raise DiffjaxError(
                            f"The loss of {folder.name} became {mean} by step {step}; "
                            "a lower learning rate in the recipe should help."
                        )
                    log.write(step, mean, phase.batch * len(losses))
                    losses = []
                if step % phase.checkpoint_every == 0 or step == end:
                    checkpoints.save(step, state)
                if phase.show_every and step % phase.show_every == 0:
                    show(step, tree(state.average))
        return tree(state.average)


def batch_shardings(batch: int) -> tuple[NamedSharding, NamedSharding]:
    """Shardings of what every device holds, and of batches over devices that divide."""
    devices = jax.local_devices()
    most = max(n for n in range(1, len(devices) + 1) if batch % n == 0)
    chosen = np.array(devices[:most])
    mesh = Mesh(chosen, ("batch",), axis_types=(AxisType.Auto,))
    return (
        NamedSharding(mesh, PartitionSpec()),
        NamedSharding(mesh, PartitionSpec("batch")),
    )
