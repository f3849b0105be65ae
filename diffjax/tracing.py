"""Traces that do not depend on JAX's process-wide settings.

JAX_ENABLE_X64, JAX_THREEFRY_PARTITIONABLE, JAX_DEFAULT_MATMUL_PRECISION and their like
(environment variables, ``jax.config``, context managers of the calling program) change
what an array function means, and JAX reads them when it traces. Results must not: two
processes share one run. So this package compiles by ``jit`` from here, and whatever it
traces otherwise, it traces under ``pinned``. The caller's settings stay as they are.

Settings that only watch (debug_nans, check_tracer_leaks, log_compiles …) are left to
whoever set them.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax

# Each with JAX's default, under which all published results were computed.
PINNED: tuple[tuple[Callable[[Any], Any], Any], ...] = (
    (jax.enable_x64, False),
    (jax.threefry_partitionable, True),
    (jax.default_matmul_precision, None),
    (jax.numpy_dtype_promotion, "standard"),
    (jax.numpy_rank_promotion, "allow"),
    (jax.transfer_guard, "allow"),
)


# For a program that runs once. The TPU's compiler then leaves out its search for how to
# cut each product: two layers of a text encoder take it 3 s instead of 42. JAX 0.12
# has no such option any more, and refuses what it does not know.
EFFORT = "exec_time_optimization_effort"
LITTLE_EFFORT = {EFFORT: -1.0} if hasattr(jax.config, f"jax_{EFFORT}") else {}


@contextmanager
def pinned() -> Iterator[None]:
    """Settings as this package means them, in this thread, until the end of a block."""
    with ExitStack() as stack:
        for setting, value in PINNED:
            stack.enter_context(setting(value))
        yield


class jit:  # noqa: N801 - it stands for jax.jit
    """``jax.jit``, tracing and running under ``pinned``."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        """Take what ``jax.jit`` takes."""
        self._jitted: Any = jax.jit(function, **options)
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and compile first where that was not done for such arguments."""
        with pinned():
            return self._jitted(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The program for such arguments, to be compiled or looked at."""
        with pinned():
            return self._jitted.lower(*args, **kwargs)

    @property
    def programs(self) -> int:
        """How many different programs were made of it so far."""
        return int(self._jitted._cache_size())


def program(function: Callable[..., Any], *args: Any) -> Any:
    """The jaxpr of a function of such arguments, or shapes, under ``pinned``."""
    with pinned():
        return jax.make_jaxpr(function)(*args).jaxpr


def eval_shape(function: Callable[..., Any], *args: Any) -> Any:
    """``jax.eval_shape`` under ``pinned``."""
    with pinned():
        return jax.eval_shape(function, *args)
