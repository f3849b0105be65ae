"""What JAX says of its settings and devices, in a line for whoever runs a command."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
CHECKS = tuple(
    f"JAX_ERROR_CHECKING_BEHAVIOR_{what}" for what in ("NAN", "OOB", "DIVIDE")
)


def meaning(error: BaseException) -> str | None:
    """Return the line that says what to do about an error of JAX; None for others."""
    text = next(iter(str(error).splitlines()), "")
    raised_in = _jax_files(error)
    if "config.py" in raised_in and isinstance(error, ValueError):
        return f"JAX does not understand one of its settings: {text}."
    if "xla_bridge.py" in raised_in or "nable to initialize backend" in text:
        return _cannot_start(text)
    if "Disallowed" in text and "transfer" in text:
        return (
            f"JAX_TRANSFER_GUARD forbids what this needs ({_short(text)}). Unset it, "
            "or set it to log."
        )
    if isinstance(error, FloatingPointError):
        return f"{text}: JAX_DEBUG_NANS or JAX_DEBUG_INFS is set, and found that."
    if "array reference" in text and (setting := _set_among(CHECKS)):
        return (
            f"{setting} does not work with programs that JAX maps, as these are; "
            "JAX_DEBUG_NANS=1 looks for NaN here."
        )
    for setting in ("jax_no_tracing", "jax_no_execution"):
        if setting in text or setting.removeprefix("jax_") in text:
            return f"{setting.upper()} is set, which leaves nothing to compute with."
    return None


def _cannot_start(text: str) -> str:
    asked = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    reason = _short(text.partition(": ")[2]) if ": " in text else _short(text)
    why = f" ({reason})" if reason else ""
    if not asked:
        return f"JAX cannot start{why}. JAX_PLATFORMS=cpu does without accelerators."
    wishes = " and ".join(f"{name} is {value!r}" for name, value in asked.items())
    return (
        f"{wishes}, which JAX cannot run on here{why}. There is: "
        f"{', '.join(available())}. Name one of these or unset the variable; for "
        "NVIDIA GPUs install diffjax[cuda], for TPUs diffjax[tpu]."
    )


def available() -> list[str]:
    """List the platforms that JAX can run on here, where it has not started yet."""
    import jax
    from jax.extend import backend

    with _silence():  # plugins write to standard error what they do not find
        for setting in ("jax_platforms", "jax_platform_name"):
            jax.config.update(setting, "")
        return sorted(backend.backends())


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing on the process's standard error, libraries in C++ included."""
    sys.stderr.flush()
    ours = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(ours, 2)
        os.close(ours)
        os.close(nothing)


def _jax_files(error: BaseException) -> set[str]:
    """The files of JAX itself that an error came through, by name."""
    frames = traceback.extract_tb(error.__traceback__)
    paths = [Path(frame.filename) for frame in frames]
    return {path.name for path in paths if path.parent.name == "_src"}


def _set_among(names: tuple[str, ...]) -> str | None:
    return next((name for name in names if os.environ.get(name)), None)


def _short(text: str, most: int = 200) -> str:
    plain = text.partition(" (set JAX_PLATFORMS")[0].rstrip(". ")
    return plain if len(plain) <= most else plain[: most - 1] + "…"
