"""Work that must end: what waits for other machines has a deadline in all.

Timeouts of sockets are of one read each: a server that sends a byte now and then holds
its client for ever.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Outcome(Generic[T]):
    """What a thread has come to."""

    def __init__(self) -> None:
        self.value: list[T] = []
        self.error: BaseException | None = None


def within(seconds: float, work: Callable[[threading.Event], T]) -> T:
    """Do something in another thread and wait for it so long.

    Args:
        seconds: to wait.
        work: gets an event that is set when nobody waits any more: it should end then.

    Raises:
        TimeoutError: if it has not ended. Its thread does not keep the process alive.
    """
    outcome: _Outcome[T] = _Outcome()
    given_up = threading.Event()

    def run() -> None:
        try:
            outcome.value.append(work(given_up))
        except BaseException as error:  # it belongs to who waits
            outcome.error = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        if thread.is_alive():
            raise TimeoutError(f"no end after {seconds:g} s")
    finally:
        given_up.set()
    if outcome.error is not None:
        raise outcome.error
    return outcome.value[0]
