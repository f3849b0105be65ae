"""The process: its noise, its cache, interruptions."""

import os
import signal
import subprocess
import sys
import time

import pytest
from commands import assert_refused, classify, json_lines

import diffjax

pytestmark = pytest.mark.usefixtures("no_compile_cache")


def run(*args, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, **kwargs
    )


def test_as_a_module():
    done = run("-m", "diffjax", "--version")
    assert done.returncode == 0
    assert diffjax.__version__ in done.stdout


def test_standard_error_is_free_of_other_libraries_noise(folder, tmp_path):
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        # what takes less is not kept, and on a fast machine all of it does
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = run(
        *("-m", "diffjax", "classify", folder / "noise.png", "--labels", "cat,dog"),
        *("--model", folder / "sd", "--strategy", "exhaustive:n_samples=2", "--json"),
        *("--cells", "2"),
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert len(json_lines(done.stdout)) == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("1/1 ")
    # and what was compiled has been kept
    assert list((tmp_path / "cache" / "diffjax" / "jax").iterdir())


def test_an_unwritable_compile_cache_is_noted(monkeypatch, tmp_path, folder):
    (tmp_path / "file").touch()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = classify(folder, images=["missing.png"])
    assert_refused(result, "missing.png")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert result.stderr.startswith("note: ")
    assert "JAX_COMPILATION_CACHE_DIR" in result.stderr.splitlines()[0]


def test_an_interruption_ends_with_130_and_no_traceback(monkeypatch, folder):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffjax.cli.batch.load_image", interrupt)
    result = classify(folder)
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_signal_interrupts():
    code = (
        "import signal, sys, time\nimport diffjax.cli, diffjax.checkpoints.catalog\n"
        # a shell's background job is started with the signal ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Slow(dict):\n"
        "    def values(self): print('ready', flush=True); time.sleep(600)\n"
        "diffjax.checkpoints.catalog.MODELS = Slow()\n"
        "sys.argv = ['diffjax', 'models', '--json']\n"
        "diffjax.cli.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "interrupted"
