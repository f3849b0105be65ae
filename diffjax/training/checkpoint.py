"""Checkpoints of a phase: one safetensors file a step, whole or not there at all.

    FOLDER/step-00000500.safetensors      leaves of a TrainState by their path

The last two are kept, so that a crash while writing costs one interval at most.
"""

import os
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from diffjax.errors import DiffjaxError

State = TypeVar("State")

KEEP = 2


def save_checkpoint(folder: Path, step: int, state: Any) -> None:
    """Write a pytree of arrays, then remove all but the last two checkpoints."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    tensors = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    path = folder / f"step-{step:08d}.safetensors"
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    os.replace(partial, path)
    for old in _paths(folder)[:-KEEP]:
        old.unlink()


def latest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint, if there is one."""
    paths = _paths(folder)
    return int(paths[-1].stem.removeprefix("step-")) if paths else None


def load_checkpoint(folder: Path, like: State) -> State:
    """The newest checkpoint as a pytree like ``like``.

    Raises:
        DiffjaxError: the file is damaged, or holds other arrays.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = _paths(folder)[-1]
    advice = "Remove it to go on from the one before."
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DiffjaxError(f"{path} cannot be read ({error}). {advice}") from error
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {jax.tree_util.keystr(key): leaf for key, leaf in leaves}
    differing = sorted(set(wanted) ^ set(tensors)) or [
        key for key, leaf in wanted.items() if tensors[key].shape != leaf.shape
    ]
    if differing:
        raise DiffjaxError(
            f"{path} was written by another version or recipe; it differs in "
            f"{len(differing)} arrays, such as {differing[0]}. Start in a new folder."
        )
    # copies, which JAX owns: a step gives its input's buffers away
    arrays = [jax.numpy.array(tensors[key]) for key in wanted]
    state: State = jax.tree_util.tree_unflatten(structure, arrays)
    return state


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
