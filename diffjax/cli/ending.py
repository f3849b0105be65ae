"""How the process ends: Ctrl-C always ends it, and no output stream makes it fail.

Ctrl-C is an exception in Python's main thread. That thread may not see it for minutes
while it waits in compiled code, and code that is called from there may swallow it. So a
second thread hears of the signal too. It gives the main thread some seconds to end by
itself, longer if it is on its way; then it has written what was to be kept, and ends
the process.

Nothing here takes long to import: until this module has been, Ctrl-C is a traceback.
"""

import _thread
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
GRACE = 3.0  # seconds that the main thread has to begin to end
AGAIN = 0.5  # seconds until it is told again
PATIENCE = 60.0  # seconds to write what is to be kept


class Ending:
    """What is to be kept of this process, however it ends. Made once, by ``main``.

    Attributes:
        interrupted: Whether somebody has pressed Ctrl-C.
        told: A function that says, at the end, what is kept; None where nothing is.
    """

    def __init__(self) -> None:
        """Listen, unless whoever started the process wants Ctrl-C to be ignored."""
        self.interrupted = False
        self.told: Callable[[], str] | None = None
        self._kept: list[Callable[[], None]] = []
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        signal.signal(signal.SIGINT, self._interrupt)
        sys.unraisablehook = self._swallowed
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._sockets = ours, theirs  # which close when nobody has them
        threading.Thread(target=self._listen, daemon=True).start()

    def keep(self, write: Callable[[], None]) -> None:
        """Call ``write`` before the process ends, from another thread if need be."""
        self._kept.append(write)

    def now(self) -> NoReturn:
        """End after an interruption, saying so."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        what = "interrupted"
        with contextlib.suppress(Exception):
            what += f": {self.told()}" if self.told else ""
        cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}{what}\n".encode())
        # not through the interpreter's end: it crashes when JAX is still computing
        os._exit(EXIT_INTERRUPTED)

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True
        if not _on_its_way():  # else what is to be kept is being written
            raise KeyboardInterrupt

    def _swallowed(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """An exception that nobody can catch; Ctrl-C is raised again elsewhere."""
        if unraisable.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(unraisable)

    def _listen(self) -> None:
        while signal.SIGINT not in self._sockets[0].recv(64):
            pass
        began = time.monotonic()
        while (waited := time.monotonic() - began) < PATIENCE:
            time.sleep(AGAIN)
            if not _on_its_way():
                if waited > GRACE:
                    break
                _thread.interrupt_main()
        for write in self._kept:
            with contextlib.suppress(Exception):
                write()
        self.now()


def _on_its_way() -> bool:
    """Whether the main thread is handling the interruption."""
    found = sys._current_exceptions().get(threading.main_thread().ident or 0)
    error = found[1] if isinstance(found, tuple) else found  # a tuple before 3.12
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def open_streams() -> None:
    """Give output that nobody reads somewhere to go, and characters a stand-in."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else a file that is opened later gets the number
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # not every terminal has every character, and not every file name is text
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
