"""Standard output as wide as it needs to be, and where compiled programs are kept."""

import os
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.text import Text


class Output(Console):
    """Standard output: what a narrow terminal does not hold goes on in its next line.

    A table that was made to fit would leave out names, and digits of numbers. What is
    in [brackets] is text, as names of files may be.
    """

    def __init__(self, **options: Any) -> None:
        """As rich has it."""
        super().__init__(**{"markup": False} | options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as wide as the parts need at least, each of a group for itself."""
        if any(isinstance(each, Group) for each in objects):
            for each in objects:
                inner = each.renderables if isinstance(each, Group) else [each]
                for part in inner:
                    self.print(part, **options)
            return
        parts = [each for each in objects if not isinstance(each, str | Text)]
        wide = self.options.update(width=10_000)  # else measures end at the edge
        widths = [self.measure(each, options=wide).minimum for each in parts]
        needed = max(widths, default=0)
        before = self.width
        if needed <= before:
            super().print(*objects, **options)
            return
        self.width = needed
        try:
            super().print(*objects, **options | {"crop": False})
        finally:
            self.width = before


def keep_compilations() -> None:
    """Have JAX, not yet imported, keep compiled programs in the user's cache folder.

    JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false
    switches it off. A folder that cannot be written is a warning.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(os.path.expanduser(cache)) / "diffjax" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        warnings.warn(
            f"compiled programs will not be kept ({error}); set "
            "JAX_COMPILATION_CACHE_DIR to a folder that you may write to.",
            stacklevel=2,
        )
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # JAX's default of one second leaves out many small programs
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
