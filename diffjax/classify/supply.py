"""Images made ready ahead of the grid: in a thread, in order, so many at most.

    thread:  read ──► preprocess ──► encode ──► ready ≤ READY ──► the grid's next image

A grid that asks for its next image gets it at once, unless making images takes longer
than deciding them. Order, and so every tile and every number, is as without a thread.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from diffjax.scoring.work import Work

READY = 32  # images: several batches of the autoencoder; 100 MB of them at 512 pixels
NAME = "diffjax images"  # of the thread
PATIENCE = 2.0  # seconds that one who ends early waits for what is in the making

T = TypeVar("T")


class Supply(Generic[T]):
    """What an iterable gives, made by a thread ahead of whoever iterates.

    An exception of the iterable is raised at its place. It is to be iterated once,
    inside of ``with``, whose end is the end of the thread.
    """

    def __init__(self, items: Iterable[T], work: Work, most: int = READY) -> None:
        """Make nothing yet.

        Args:
            items: gone through in the thread alone.
            work: whose ``unready`` counts what was not ready when it was asked for.
            most: that are ready at a time.
        """
        self._work = work
        self._most = most
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._make, args=(items,), name=NAME, daemon=True
        )

    def __enter__(self) -> "Supply[T]":
        """Begin to make."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Make no more; an item in the making is waited for, but not for long."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():  # of garbage collection
            self._thread.join(PATIENCE)

    def __iter__(self) -> Iterator[T]:
        """In order, as they become ready."""
        first = True
        while True:
            with self._changed:
                ready = bool(self._ready or self._ended)
                self._changed.wait_for(lambda: self._ready or self._ended)
                if not self._ready:
                    break
                self._work.unready += not (ready or first)
                item = self._ready.popleft()
                self._changed.notify_all()
            yield item
            first = False
        if self._error is not None:
            raise self._error

    def _make(self, items: Iterable[T]) -> None:
        """What the thread does."""
        try:
            for item in items:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._closed or len(self._ready) < self._most
                    )
                    if self._closed:
                        return
                    self._ready.append(item)
                    self._changed.notify_all()
        except BaseException as error:  # raised again where the item was to come
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
