"""Several processes on one run: who does what, and who may write.

Process k of n does the images k, k + n, k + 2n, … of the run. No process talks to
another: each writes files of its own, and what one leaves undone, any later process
completes.

A process alone holds the run's lock until it ends, after a look at those of all parts.
Processes that share hold the locks of their parts, each taken while holding the run's:
so they lock out a second one of their number, and one that would be alone.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int

from diffjax.errors import DiffjaxError

LOCK = "lock"
PATIENCE = 2.0  # seconds, for others that begin at the same time


@dataclass(frozen=True)
class Share:
    """The part of a process: number ``index`` of ``count``, from 0."""

    index: int = 0
    count: int = 1

    def of(self, indices: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        """The images of this process."""
        return indices[self.index :: self.count]

    def check(self) -> None:
        """Raise DiffjaxError unless 0 ≤ index < count."""
        if not 0 <= self.index < self.count:
            raise DiffjaxError(
                f"Process {self.index} of {self.count} cannot be: processes count from "
                f"0 to {self.count - 1}."
            )


ALONE = Share()


def lock(folder: Path, share: Share) -> Callable[[], None]:
    """Keep other processes from the same work; the system lets go when this one dies.

    Returns:
        What lets go before that.

    Raises:
        DiffjaxError: if another process holds the run or this part of it, or the folder
            cannot be locked.
    """
    alone = share.count == 1
    held = whole = _hold(folder / LOCK, seconds=0.0 if alone else PATIENCE)
    try:
        if alone:
            for part in folder.glob(f"{LOCK}-*"):
                _hold(part).release()
        else:
            held = _hold(folder / f"{LOCK}-{share.index}-of-{share.count}")
    except DiffjaxError:
        whole.release()
        raise
    if not alone:
        whole.release()
    Path(held.lock_file).write_text(f"process {os.getpid()} on {socket.gethostname()}")
    return held.release


def _hold(path: Path, *, seconds: float = 0.0) -> FileLock:
    # a lock that only is a file would outlive its process
    lock = FileLock(path, seconds, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = path.read_text(encoding="utf-8").strip() or "another process"
        raise DiffjaxError(
            f"{path.parent} is being written by {holder}. Wait for it, or choose "
            "another folder."
        ) from None
    except OSError as error:
        raise DiffjaxError(
            f"{path} cannot be locked ({error.strerror}): a run needs a folder "
            "that can be written to, on a file system with locks."
        ) from error
    return lock
