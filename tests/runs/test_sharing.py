"""Several processes on one run, without models: parts, locks, and real processes."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from diffjax.errors import DiffjaxError
from diffjax.runs.sharing import ALONE, LOCK, Share, lock


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
def test_every_image_is_done_once(count):
    indices = np.arange(3, 17)
    parts = [Share(k, count).of(indices) for k in range(count)]
    assert sorted(np.concatenate(parts)) == list(indices)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("share", [Share(2, 2), Share(5, 1), Share(-1, 3)])
def test_a_process_that_cannot_be(share):
    with pytest.raises(DiffjaxError, match="processes count from 0"):
        share.check()


def test_who_excludes_whom(tmp_path):
    def refused(share):
        with pytest.raises(DiffjaxError, match="is being written by process"):
            lock(tmp_path, share)

    release = lock(tmp_path, ALONE)
    refused(ALONE)
    refused(Share(0, 2))
    release()
    first, second = (lock(tmp_path, Share(k, 2)) for k in (0, 1))
    refused(Share(1, 2))
    refused(ALONE)
    lock(tmp_path, Share(0, 3))()  # others are only slower for it
    second()
    refused(ALONE)
    first()
    lock(tmp_path, ALONE)()


@pytest.mark.parametrize("share", [ALONE, Share(0, 2)])
@pytest.mark.parametrize(
    ("module", "function", "code"),
    [
        (fcntl, "flock", errno.ENOSYS),
        (fcntl, "flock", errno.ENOLCK),
        (os, "open", errno.EROFS),
    ],
)
def test_a_file_system_without_locks_is_told_of(
    tmp_path, monkeypatch, module, function, code, share
):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, function, fail)
    with pytest.raises(DiffjaxError, match=f"{os.strerror(code)}.*a file system with"):
        lock(tmp_path, share)


def test_all_parts_may_begin_at_once(tmp_path):
    """Each holds the run's own lock for a moment, for which the others wait."""
    n = 8
    with ThreadPoolExecutor(n) as pool:
        held = list(pool.map(lambda k: lock(tmp_path, Share(k, n)), range(n)))
    for release in held:
        release()
    lock(tmp_path, ALONE)()


def test_a_lock_dies_with_its_process(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from diffjax.runs.sharing import Share, lock\n"
        "held = lock(pathlib.Path(sys.argv[1]), Share(1, 2))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "held\n"
    with pytest.raises(DiffjaxError, match=f"process {child.pid} on"):
        lock(tmp_path, Share(1, 2))
    child.kill()
    child.wait()
    lock(tmp_path, ALONE)()
    assert (Path(tmp_path) / LOCK).exists()
