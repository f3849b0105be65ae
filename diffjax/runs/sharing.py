"""Several processes on one run: who does what, and who may write.

Process k of n does the images k, k + n, k + 2n, … of the run. No process talks to
another: each writes files of its own, and what one leaves undone, any later process
completes. A process alone locks out all others; processes that share lock out a second
one of their number, and one that would be alone.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Int

from diffjax.errors import DiffjaxError, not_on_this_system

LOCK = "lock"


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
        DiffjaxError: if another process holds the run or this part of it.
    """
    alone = share.count == 1
    held = [_hold(folder / LOCK, exclusive=alone)]
    if not alone:
        name = f"{LOCK}-{share.index}-of-{share.count}"
        try:
            held.append(_hold(folder / name, exclusive=True))
        except DiffjaxError:
            held[0].close()
            raise

    def release() -> None:
        for file in held:
            file.close()

    return release


def _hold(path: Path, *, exclusive: bool) -> TextIO:
    try:
        import fcntl
    except ImportError:
        raise not_on_this_system("Keeping others from writing to a run") from None
    file = path.open("a+", encoding="utf-8")
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise DiffjaxError(
            f"{path.parent} is being written by {holder}. Wait for it, or choose "
            "another folder."
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
