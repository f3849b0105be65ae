"""Which of several processes this is, as what launched them tells.

    Slurm, Open MPI, MPICH    environment variables
    TPU pods                  environment variables on GKE, else the machine's metadata

An evaluation needs no more than this. JAX's distributed runtime, which finds the same
numbers, would have the processes wait for each other at the start and at the end, and
would end all of them when one dies.
"""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Mapping

from diffjax.data.deadlines import within
from diffjax.errors import DiffjaxError
from diffjax.runs.sharing import Share

# launcher: variables that hold a process's index, and the number of processes
LAUNCHERS = {
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # the latter only under srun
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MPICH": ("PMI_RANK", "PMI_SIZE"),
}
TPU_INDEX, TPU_HOSTS = "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"  # hosts with commas
SLICE_INDEX, SLICE_COUNT = "MEGASCALE_SLICE_ID", "MEGASCALE_NUM_SLICES"
METADATA = "GCE_METADATA_IP", "metadata.google.internal"  # a variable, its default
METADATA_PATH = "/computeMetadata/v1/instance/attributes/"
METADATA_INDEX, METADATA_HOSTS = "agent-worker-number", "worker-network-endpoints"
METADATA_SECONDS = 5.0
MOST_BYTES = 2**20  # of an answer


def share_of(index: int, count: int, *, distributed: bool) -> Share:
    """The share of this process, as it was said, or as what launched it tells.

    Raises:
        DiffjaxError: if both are asked for, or as ``launched`` does.
    """
    if not distributed:
        return Share(index, count)
    if (index, count) != (0, 1):
        raise DiffjaxError(
            "--distributed finds out what --process-index and --process-count say: "
            "give one or the other."
        )
    return launched()


def launched(environ: Mapping[str, str] = os.environ) -> Share:
    """The share of this process.

    Args:
        environ: its environment variables.

    Raises:
        DiffjaxError: if nothing tells, or what is told makes no sense.
    """
    for index, count in LAUNCHERS.values():
        if index in environ and count in environ:
            return _share(environ[index], environ[count])
    if TPU_INDEX in environ and TPU_HOSTS in environ:
        n = len(environ[TPU_HOSTS].split(","))
        inside = _share(environ[TPU_INDEX], str(n))
        slices = _share(environ.get(SLICE_INDEX, "0"), environ.get(SLICE_COUNT, "1"))
        return Share(slices.index * n + inside.index, slices.count * n)
    try:
        hosts = _metadata(METADATA_HOSTS, environ)
        return _share(_metadata(METADATA_INDEX, environ), str(len(hosts.split(","))))
    except (OSError, http.client.HTTPException, UnicodeDecodeError):
        raise DiffjaxError(
            "Nothing tells which of several processes this is: there is no "
            f"{', '.join(LAUNCHERS)} step and no TPU pod. Give --process-index and "
            "--process-count."
        ) from None


def _share(index: str, count: str) -> Share:
    try:
        share = Share(int(index), int(count))
    except ValueError:
        raise DiffjaxError(
            f"The launcher calls this process {index!r} of {count!r}, which are no "
            "numbers. Give --process-index and --process-count."
        ) from None
    share.check()
    return share


def _metadata(name: str, environ: Mapping[str, str]) -> str:
    """What Google's cloud knows of this machine."""
    variable, default = METADATA
    url = f"http://{environ.get(variable, default)}{METADATA_PATH}{name}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})

    def read(_: object) -> str:
        with urllib.request.urlopen(request, timeout=METADATA_SECONDS) as answer:
            return str(answer.read(MOST_BYTES).decode())

    return within(METADATA_SECONDS, read)
