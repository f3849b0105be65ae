"""What work says while it runs in a thread, as an iterator that may be closed early."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

NAME = "diffjax work"  # of the thread

T = TypeVar("T")


class Left(Exception):  # noqa: N818  # no error: whoever listened has gone
    """Raised in the work by what it tells, when nobody listens any more."""


class _End(NamedTuple):
    error: BaseException | None


def tellings(
    work: Callable[[Callable[[T], None]], None], beat: float
) -> Iterator[T | None]:
    """Run work in a thread, and give what it tells.

    Args:
        work: It is called with a function to tell things by. An error of its is raised
            where the next thing would have come.
        beat: Seconds without a word after which None is given, so that whoever iterates
            can look around. When the iterator is closed, the next that the work tells
            is answered by ``Left``.
    """
    said: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    closed = threading.Event()

    def tell(what: T) -> None:
        if closed.is_set():
            raise Left
        said.put(what)

    def run() -> None:
        try:
            work(tell)
        except Left:
            return
        except BaseException as error:  # raised again in the other thread
            said.put(_End(error))
        else:
            said.put(_End(None))

    threading.Thread(target=run, name=NAME, daemon=True).start()
    try:
        while True:
            try:
                what = said.get(timeout=beat)
            except queue.Empty:
                yield None
                continue
            if isinstance(what, _End):
                if what.error is not None:
                    raise what.error
                return
            yield what
    finally:
        closed.set()
