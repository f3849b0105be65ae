"""Real processes on loopback: on one run, where one is killed, and on one mesh."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from noise_runs import Made, assert_same, task_of
from small import images, text_model

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.evaluation.runner import evaluate
from diffjax.runs.folder import read_run
from diffjax.strategies import parse_strategy

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SETTINGS = {"strategy": parse_strategy("racing:n_samples=8"), "cells": 2}
LABELS = ["cat", "dog", "ship", "frog", "emu"]
DEVICES = """
import os, signal, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)
"""


def start(code, *arguments, **environ):
    """A Python process; its environment says what a launcher would."""
    return subprocess.Popen(
        [sys.executable, "-c", DEVICES + code, *map(str, arguments)],
        cwd=HERE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def classifier():
    return DiffusionClassifier(text_model(), Settings(**SETTINGS))


# ---- one run


SHARES = """
from test_distributed import *
from diffjax.evaluation.launchers import launched
from diffjax.classify.progress import Progress

def watch(tally):
    if tally.done == 2 and sys.argv[2] == "waits":
        print("two done", flush=True)
        sys.stdin.read()
    if tally.done == 2 and sys.argv[2] == "raises":
        raise RuntimeError("boom")

classifier = DiffusionClassifier(text_model(), Settings(**SETTINGS))
evaluate(task_of(Made()), classifier, Path(sys.argv[1]), save_errors=True,
         flush_seconds=0, share=launched(), progress=Progress(watch=watch))
"""


def test_one_killed_and_one_raising_leave_the_others(classifier, tmp_path):
    path = tmp_path / "run"
    killed, raising, good = (
        start(SHARES, path, fate, SLURM_PROCID=str(k), SLURM_STEP_NUM_TASKS="3")
        for k, fate in enumerate(["waits", "raises", "ends"])
    )
    line = killed.stdout.readline()
    assert line == "two done\n", killed.communicate()[1]
    killed.kill()
    killed.communicate()
    _, error = good.communicate(timeout=300)
    assert good.returncode == 0, error
    _, error = raising.communicate(timeout=300)
    assert raising.returncode == 1 and "boom" in error
    left = read_run(path).rows["index"].to_pylist()
    assert left == [0, 1, 2, 3, 4, 5, 8, 11]  # two of each, and all of the last
    evaluate(task_of(Made()), classifier, path, save_errors=True)
    evaluate(task_of(Made()), classifier, tmp_path / "alone", save_errors=True)
    assert_same(read_run(path).rows, read_run(tmp_path / "alone").rows)
    assert (path / "summary.json").exists()


# ---- one mesh


def mesh(code, n=2):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"OMPI_COMM_WORLD_SIZE": str(n)}  # index and count come from here
    return [
        start(code, f"127.0.0.1:{port}", OMPI_COMM_WORLD_RANK=str(k), **environ)
        for k in range(n)
    ]


TOGETHER = """
from diffjax.cli.mesh import on_mesh
options = {"global_mesh": True, "coordinator": sys.argv[1],
           "process_index": None, "process_count": None}
"""
CLASSIFIES = """
with on_mesh(options) as shows:
    from test_distributed import *  # which uses JAX
    from diffjax.errors import DiffjaxError
    k = jax.process_index()
    for shard in ("always", "never"):
        settings = Settings(**SETTINGS, **options, shard_weights=shard)
        classifier = DiffusionClassifier(text_model(), settings)
        assert classifier.grid.sharded == (shard == "always")
        candidates = classifier.candidates(LABELS)
        try:
            classifier.classify(images(2)[k], candidates)
        except DiffjaxError as error:
            refused = [str(error)]
        read = [classifier.encode(image) for image in images(2)]
        read[k] = DiffjaxError("this process alone cannot read it")
        try:
            list(classifier.score(enumerate(read), candidates))
        except DiffjaxError as error:
            refused.append(str(error))
        records = classifier.classify(images(3), candidates)
        if shows:
            tables = [np.nan_to_num(r.table.errors, nan=-1).tolist() for r in records]
            labels = [r.label for r in records]
            print(json.dumps([labels, tables, classifier.device, refused]))
"""


def test_a_mesh_of_two_processes_answers_as_one_does(classifier):
    records = [classifier.classify(image, LABELS) for image in images(3)]
    expected = [np.nan_to_num(r.table.errors, nan=-1) for r in records]
    processes = mesh(TOGETHER + CLASSIFIES)
    (shown, error), (silent, _) = (p.communicate(timeout=600) for p in processes)
    assert [p.returncode for p in processes] == [0, 0], error
    assert silent == ""
    lines = [json.loads(line) for line in shown.splitlines()]  # and nothing else there
    assert len(lines) == 2  # with split weights and with copies
    for labels, tables, device, refused in lines:
        assert labels == [r.label for r in records]
        np.testing.assert_allclose(tables, expected, rtol=1e-5)
        assert device == "4 × cpu"
        assert len(refused) == 2
        for each in refused:
            assert each.startswith("Processes that share a mesh need the same image")


DIES = """
from diffjax.scoring.placement import block_mesh, least
with on_mesh(options):
    mesh = block_mesh(jax.devices())
    assert least(7 + jax.process_index(), mesh) == 7
    if jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    least(7, mesh)
    least(7, mesh)
"""


def test_a_mesh_ends_when_one_of_it_dies():
    survivor, dead = mesh(TOGETHER + DIES)
    survivor.communicate(timeout=120)  # far less than JAX's own five minutes
    dead.communicate()
    assert dead.returncode == -9
    assert survivor.returncode not in (None, 0)
