"""The one command for an accelerator, rehearsed where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import accelerator_check
import numpy as np
import pytest

SCRIPT = Path(accelerator_check.__file__)
AGREED = {"state": "done", "rows": [{"agrees": True}]}


def test_only_agreement_of_all_that_decides_is_agreement():
    agrees = accelerator_check.agrees
    assert agrees({"numbers": AGREED, "attention": AGREED, "idle": {"state": "failed"}})
    for wrong in (
        {"state": "stopped after 3 s", "rows": AGREED["rows"]},
        {"state": "done", "rows": []},
        {"state": "done", "rows": [{"agrees": True}, {"agrees": False}]},
        None,
    ):
        for name in ("numbers", "attention"):
            parts = {"numbers": AGREED, "attention": AGREED} | {name: wrong}
            assert not agrees(parts)


@pytest.mark.parametrize(
    ("name", "seconds", "state", "rows"),
    [
        ("fails", 60, "failed (RuntimeError: as rehearsed)", 1),
        ("hangs", 8, "stopped", 0),
    ],
)
def test_a_part_that_goes_wrong_loses_nothing(tmp_path, name, seconds, state, rows):
    found = accelerator_check.supervise(name, tmp_path, seconds, rehearse=True)
    assert found["state"].startswith(state)
    assert len(found["rows"]) >= rows


def test_no_time_left(tmp_path):
    found = accelerator_check.supervise("fails", tmp_path, 0.0, rehearse=True)
    assert found == {"state": "no time was left", "rows": []}


def test_differences_are_seen():
    stored = json.loads(accelerator_check.STORED.read_text())
    assert set(stored) == {"tiny", "tiny-dit"}
    for values in stored.values():
        same = accelerator_check.differences(values, values)
        assert set(same.values()) == {0.0}
        for name in ("noise", "latent", "errors"):
            changed = (np.array(values[name]) * 1.001).tolist()
            found = accelerator_check.differences(values | {name: changed}, values)
            assert 5e-4 < found[name] < 5e-3
            assert not any(found[other] for other in found if other != name)


def test_parts_take_no_more_than_their_time():
    for rehearse in (False, True):
        shares = accelerator_check.shares(rehearse)
        assert set(shares) <= set(accelerator_check.PARTS)
        assert all(0 < share < 0.5 for share in shares.values())


@pytest.mark.slow
def test_the_rehearsal(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--rehearse", "--minutes", "30", "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "check.json").read_text())
    states = {name: part["state"] for name, part in report["parts"].items()}
    assert states.pop("fails") == "failed (RuntimeError: as rehearsed)"
    assert states.pop("hangs").startswith("stopped after")
    assert set(states.values()) == {"done"}
    assert report["agrees"] and "the numbers agree" in done.stdout
