"""Work that must end: what waits for other machines has a deadline in all.

Timeouts of sockets are of one read each: a server that sends a byte now and then holds
its client for ever.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_GLANCE_SECONDS = 1.0


class _Work(Generic[T]):
    """Something that another thread does; it does not keep the process alive."""

    def __init__(self, work: Callable[[threading.Event], T]) -> None:
        self.given_up = threading.Event()
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[threading.Event], T]) -> None:
        try:
            self._values.append(work(self.given_up))
        except BaseException as error:  # it belongs to who waits
            self._error = error

    def ended(self, seconds: float) -> bool:
        """Wait so long, and say whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> T:
        """What came of it, once it has ended; its exception is raised here."""
        if self._error is not None:
            raise self._error
        return self._values[0]


def within(seconds: float, work: Callable[[threading.Event], T]) -> T:
    """Do something in another thread and wait for it so long.

    Args:
        seconds: how long to wait.
        work: gets an event that is set when nobody waits any more: it should end then.

    Raises:
        TimeoutError: if it has not ended.
    """
    begun = _Work(work)
    try:
        if not begun.ended(seconds):
            raise TimeoutError(f"no end after {seconds:g} s")
        return begun.result()
    finally:
        begun.given_up.set()


def while_growing(
    work: Callable[[threading.Event], T],
    size: Callable[[], int],
    *,
    seconds: float,
    least: int,
) -> T:
    """Do something in another thread and wait while there is progress.

    Args:
        work: what is done, as in ``within``.
        size: how much has been done.
        seconds: the time in which it must grow.
        least: by how much.

    Raises:
        TimeoutError: if it grows by less, and has not ended.
    """
    begun = _Work(work)
    try:
        since, before = time.monotonic(), size()
        while not begun.ended(min(_GLANCE_SECONDS, seconds)):
            if (now := size()) >= before + least:
                since, before = time.monotonic(), now
            elif time.monotonic() - since > seconds:
                raise TimeoutError(
                    f"only {max(now - before, 0):,} bytes came in {seconds:g} s"
                )
        return begun.result()
    finally:
        begun.given_up.set()
