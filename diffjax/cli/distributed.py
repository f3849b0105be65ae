"""Several processes as one program on one mesh, by JAX's distributed runtime.

Every process runs the same commands in the same order. When one ends early, the others
cannot go on: they wait in a collective, or for it to say goodbye. So a process that
fails ends at once, and the runtime ends the others when they miss it.
"""

import os
import sys

import jax

from diffjax.errors import DiffjaxError

HEARTBEAT_SECONDS = 20  # without one, a process counts as dead
SHUTDOWN_SECONDS = 60  # to wait for the slowest at the end


def join(coordinator: str | None, index: int | None, count: int | None) -> int:
    """Become one of the processes of a mesh, before JAX is used for anything else.

    Args:
        coordinator: HOST:PORT of process 0; None to have JAX find everything out, which
            it can under Slurm, Open MPI and on TPU pods.
        index: The number of this process, from 0.
        count: The number of processes.

    Returns:
        The index.

    Raises:
        DiffjaxError: If the processes do not find each other.
    """
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            # with a coordinator, JAX would under Slurm take one device a process
            cluster_detection_method="deactivate" if coordinator else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise DiffjaxError(
            f"The processes of the mesh do not find each other ({error}). Start all of "
            "them within five minutes, with --coordinator HOST:PORT, which process 0 "
            "listens at, --process-index and --process-count."
        ) from error
    return int(jax.process_index())


def keep_output() -> None:
    """Leave standard output to Python: JAX's own messages go to standard error.

    Between CPUs they come from a library that writes to standard output.
    """
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(ours, "w", encoding=sys.stdout.encoding, buffering=1)


def leave() -> None:
    """Wait for the other processes to be done."""
    jax.distributed.shutdown()


def abort(code: int) -> None:
    """End this process without waiting for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
