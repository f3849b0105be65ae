"""Checkpoints of a phase, by orbax: one folder a step, whole or not there at all.

    FOLDER/500/default/     the leaves of a TrainState, by their path

The last two are kept, so that a crash while writing costs one interval at most.
"""

from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from diffjax.errors import DiffjaxError, optional

State = TypeVar("State")

KEEP = 2


class Checkpoints:
    """Those of one folder; close it after use, or use it in a ``with``."""

    def __init__(self, folder: Path) -> None:
        """Open or make the folder.

        Raises:
            DiffjaxError: orbax is not installed.
        """
        ocp = optional("orbax.checkpoint", "Training")
        self.folder = folder.absolute()  # orbax takes no other
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        """For ``with``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The newest step, if there is one."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, state: Any) -> None:
        """Write a pytree of arrays, then remove all but the last two checkpoints."""
        import orbax.checkpoint as ocp

        leaves = {name: np.asarray(leaf) for name, leaf in named(state)}
        self._manager.save(step, args=ocp.args.StandardSave(leaves))

    def load(self, like: State) -> State:
        """The newest checkpoint as a pytree like ``like``.

        Raises:
            DiffjaxError: it is damaged, or holds other arrays.
        """
        import orbax.checkpoint as ocp

        path = self.folder / str(self.latest)
        try:
            loaded = self._manager.restore(self.latest, args=ocp.args.StandardRestore())
        except Exception as error:  # orbax has no class of its own for damage
            raise DiffjaxError(
                f"{path} cannot be read ({str(error)[:200]}). Remove it to go on from "
                "the one before."
            ) from error
        wanted = dict(named(like))
        differing = sorted(set(wanted) ^ set(loaded)) or [
            name for name, leaf in wanted.items() if loaded[name].shape != leaf.shape
        ]
        if differing:
            raise DiffjaxError(
                f"{path} was written by another version or recipe; it differs in "
                f"{len(differing)} arrays, such as {differing[0]}. Start in a new "
                "folder."
            )
        # copies, which JAX owns: a step gives its input's buffers away
        arrays = [jax.numpy.array(loaded[name]) for name in wanted]
        state: State = jax.tree.unflatten(jax.tree.structure(like), arrays)
        return state


def named(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a pytree by their dotted paths, in its order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in leaves
    ]
