"""Interruptions at any moment, and streams that are closed or know few characters."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import several
from saved_runs import tables, write_run
from tiny_sets import write_folder

import diffjax
from diffjax.runs.folder import read_run

IMAGE = Path(diffjax.__file__).parent / "assets" / "images" / "0202_ship.png"


def start(command, **options):
    """The command in a process of its own, in a group that a shell would signal."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a shell's background job is started with the signal ignored
    return subprocess.Popen(
        command,
        **pipes | options,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def diffjax_command(*args):
    return [sys.executable, "-m", "diffjax", *map(str, args)]


def python(code, **options):
    return start([sys.executable, "-c", code], **options)


def assert_interrupted(process, seconds=30):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 130, (out, err)
    assert err.splitlines()[-1].startswith("interrupted"), err
    assert "Traceback" not in err, err
    return out, err


MAIN = """
import sys, time
import diffjax.cli.commands
from diffjax.cli.group import group, keep
sys.argv = ["diffjax", "slow"]
class Run:
    path, saved = "RUN", 2
    def flush(self):
        self.saved += 1
        print("kept", flush=True)
@group.command()
def slow():
    keep(Run(), 60)
    print("ready", flush=True)
    {body}
diffjax.cli.main()
"""
BODIES = {
    "sleeping": "time.sleep(600)",
    # of which the main thread hears nothing until the call returns
    "in compiled code": """
    import ctypes
    mutex = ctypes.create_string_buffer(128)  # zeros: one that is free
    for _ in range(2): ctypes.CDLL(None).pthread_mutex_lock(mutex)
""",
    "swallowed by a callback": """
    class Callback:
        def __del__(self): time.sleep(10)
    for _ in range(300): Callback()
""",
    "swallowed by a handler": """
    while True:
        try: time.sleep(600)
        except BaseException: pass
""",
    "turned into another error": """
    try: time.sleep(600)
    except BaseException: raise RuntimeError("INTERNAL: a callback failed") from None
""",
}


@pytest.mark.parametrize("body", BODIES)
def test_wherever_it_comes_it_ends_the_process(body):
    process = python(MAIN.format(body=BODIES[body]))
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = assert_interrupted(process)
    # who ends by itself has written by itself
    alone = body in ("sleeping", "turned into another error")
    assert out == ("" if alone else "kept\n")
    n = 2 if alone else 3
    said = f"interrupted: {n} of 60 saved in RUN; the same command goes on\n"
    assert err.endswith(said)


def test_what_takes_its_time_to_be_written_gets_it():
    body = """
    try: time.sleep(600)
    finally:
        time.sleep(5)
        print("written", flush=True)
"""
    process = python(MAIN.format(body=body))
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = assert_interrupted(process)
    assert out == "written\n"


def test_a_signal_that_is_ignored_stays_so():
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from diffjax.cli.ending import Ending
Ending()
signal.raise_signal(signal.SIGINT)
print("still here")
"""
    out, _ = python(code).communicate(timeout=60)
    assert out == "still here\n"


def test_in_the_first_moments_there_is_no_traceback():
    """From when the program is its own: the interpreter's start is not."""
    code = (
        "import diffjax.cli.ending, os, signal, threading, time, sys\n"
        "at = float(sys.argv[1])\n"
        "def kill():\n    time.sleep(at); os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        "import diffjax.cli\n"
        f"sys.argv = ['diffjax', 'classify', {str(IMAGE)!r}, '--labels', 'a,b']\n"
        "diffjax.cli.main()\n"
    )
    for at in (0.02, 0.1, 0.2, 0.4, 0.8, 1.5):
        process = start([sys.executable, "-c", code, str(at)])
        assert_interrupted(process)


@pytest.mark.slow
def test_an_evaluation_that_is_interrupted_keeps_its_rows(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "run"
    write_folder(photos, {"cat": 300, "dog": 300})
    draw = random.Random(0)
    command = diffjax_command(
        *("evaluate", "--dataset", photos, "--out", out),
        *("--strategy", "exhaustive:n_samples=20"),
    )
    before = 0
    for k in range(10):
        if before and k >= 5:
            break  # more of them on a busy machine
        process = start(command)
        while not (out / "run.json").exists() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(draw.uniform(0.5, 4 + 4 * k))  # of loading, compiling, evaluating
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGINT)
        _, err = assert_interrupted(process)
        done = len(read_run(out).rows)
        if done > before:
            assert err.endswith(
                f"interrupted: {done} of 600 saved in {out}; the same command goes on\n"
            )
        assert done >= before
        before = done
    assert before > 0, "the signals came too early to prove anything"


# ---- streams


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "Δ猫"
    errors, labels = tables(40, 3, 8, gap=0.02)
    names = ["猫", "½ dog", "ship"]
    return write_run(path, errors, labels, names=names).path


def shell(command, env=None, **options):
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        timeout=120,
        env=os.environ | (env or {}),
        **options,
    )


COMMANDS = ("report {}", "rescore {}", "calibrate {}", "models", "report {} --json")
ENCODINGS = ("ascii", "cp1252", "latin-1", "utf-8")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_few_characters_are_no_reason_to_fail(encoding, run):
    done = shell(
        shlex.join(several(*(command.format(run) for command in COMMANDS))),
        env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    told = done.stdout.decode(encoding)
    assert json.loads(told[told.rindex("\n[\n") :])[0]["path"] == str(run)
    assert "calibration.json" in told and "sd-2-base" in told  # all of them spoke


CASES = {
    "no standard error": ("2>&-", 0),
    "no standard output": (">&-", 0),
    "neither": (">&- 2>&-", 0),
    "no input either": ("<&- >&- 2>&-", 0),
    "a reader that has seen enough": ("| head -1", 0),
    "a full disk": ("> /dev/full", 2),
    "no colour": ("", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_streams_that_take_nothing_lose_nothing(case, run):
    redirection, code = CASES[case]
    calibration = run / "calibration.json"
    env = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "60"}
    for command in (f"calibrate {run} --json", f"calibrate {run}"):
        calibration.unlink(missing_ok=True)
        both = shlex.join(several(command, f"report {run}"))
        done = shell(f"{both} {redirection}", env)
        assert done.returncode in (code, 1 if code else code), (command, done)
        assert b"Traceback" not in done.stderr and b"\x1b" not in done.stdout
        assert json.loads(calibration.read_text())["status"] == "complete"


def test_a_narrow_terminal_loses_no_digit_and_tells_what_goes(run):
    wide, narrow = (
        shell(
            f"{sys.executable} -m diffjax report {run}",
            {"COLUMNS": columns, "TERM": "dumb"},
        ).stdout.decode()
        for columns in ("200", "30")
    )
    assert "…" not in narrow
    told = narrow.split("not shown here, too narrow:")[1].split("classifies")[0]
    note = {"not", "shown", "here,", "too", "narrow:", *told.split()}
    assert set(narrow.split()) <= set(wide.split()) | note
    columns = {"top-5", "class", "evals", "s/image", "images"}
    for gone in columns - set(narrow.split()):
        assert gone in told.replace(",", " ").split()


def test_a_file_does_not_get_the_number_of_a_closed_stream(run, tmp_path):
    page = tmp_path / "page.html"
    done = shell(
        f"{sys.executable} -m diffjax report {run} --html {page} --json >&- 2>&-"
    )
    assert done.returncode == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
