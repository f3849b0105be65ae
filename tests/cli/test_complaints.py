"""A setting of JAX that leaves nothing to run on is one line and exit code 2."""

import os
import subprocess
import sys

import jax
import pytest

from diffjax.cli.complaints import meaning
from diffjax.cli.demo import examples

SHIP = str(next(iter(examples())))
COMMANDS = {
    "classify": ["classify", SHIP, "--labels", "ship,dog"],
    "demo": ["demo"],
    "explain": ["explain", SHIP, "--labels", "ship,dog"],
    "bench": ["bench", "--blocks", "2"],
}


def command(arguments, folder, **settings):
    return subprocess.run(
        [sys.executable, "-m", "diffjax", *arguments, "--quiet"],
        env=os.environ | settings,
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_platforms_that_are_not_there(tmp_path, name):
    done = command(COMMANDS[name], tmp_path, JAX_PLATFORMS="nonsense")
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: JAX_PLATFORMS is 'nonsense', which JAX cannot run")
    assert "There is: cpu" in line


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("JAX_PLATFORMS", "cuda", "There is: cpu"),
        ("JAX_PLATFORM_NAME", "tpu", "JAX_PLATFORM_NAME is 'tpu'"),
        ("JAX_ENABLE_X64", "maybe", "does not understand one of its settings"),
        ("JAX_NUMPY_RANK_PROMOTION", "odd", "does not understand one of its settings"),
        ("JAX_TRANSFER_GUARD", "disallow_explicit", "JAX_TRANSFER_GUARD forbids"),
        ("JAX_NO_EXECUTION", "1", "JAX_NO_EXECUTION is set"),
        ("JAX_ERROR_CHECKING_BEHAVIOR_NAN", "raise", "does not work with programs"),
    ],
)
def test_settings_that_leave_nothing_to_do(tmp_path, setting, value, words):
    if value == "cuda" and any(d.platform == "gpu" for d in jax.devices()):
        pytest.skip("there is a GPU")
    done = command(COMMANDS["classify"], tmp_path, **{setting: value})
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line


def test_numbers_that_a_setting_forbids():
    with jax.debug_nans(True), pytest.raises(FloatingPointError) as caught:
        jax.numpy.log(-1.0)
    assert "JAX_DEBUG_NANS" in meaning(caught.value)


@pytest.mark.parametrize(
    "error", [ValueError("jax"), RuntimeError("transfer"), KeyError("JAX_PLATFORMS")]
)
def test_other_errors_have_no_such_line(error):
    with pytest.raises(type(error)) as caught:
        raise error
    assert meaning(caught.value) is None
