import errno
import os
import signal
import subprocess
import sys

import pytest

from diffjax.errors import DiffjaxError
from diffjax.files import PARTIAL, atomic, json_text, read_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_all_has_gone_well(tmp_path):
    path = tmp_path / "a.txt"
    with atomic(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        # hidden, in the same folder, and to be told from whole files
        (name,) = names(tmp_path)
        assert name.startswith(".a.txt.") and name.endswith(PARTIAL)
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "new"


def test_the_older_file_stays_until_then_and_if_anything_goes_wrong(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_last_moment(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_a_kill_leaves_the_older_file_and_a_partial_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, pathlib, signal, sys\n"
        "from diffjax.files import atomic\n"
        "with atomic(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    partial, whole = names(tmp_path)
    assert whole == "a.txt" and partial.endswith(PARTIAL)


def test_partial_files_of_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with atomic(path) as one, atomic(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # the one that finished last


def test_texts_are_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Δ ≤ ½ – 猫\n")
    assert (tmp_path / "a.txt").read_bytes() == "Δ ≤ ½ – 猫\n".encode()


# ---- JSON; tests/data/test_reading.py has what is refused


@pytest.mark.parametrize("indent", [None, 1])
def test_json_comes_back(tmp_path, indent):
    value = {"½": [1, 2.5, None, True], "name": "ä\udce4", "猫": {"": 1e-300}}
    write_text(tmp_path / "a.json", json_text(value, indent=indent))
    # a byte of a file's name that is no character
    assert read_json(tmp_path / "a.json") == value | {"name": "ä\ufffd"}
    assert json_text(["ä"], ascii=True) == '["\\u00e4"]'
    assert json_text({"b": 1, "a": 2}, sort=True) == '{"a": 2, "b": 1}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_named_and_not_written(number):
    with pytest.raises(DiffjaxError, match=rf"metrics\.nll\[1\] is {number}"):
        json_text({"metrics": {"acc1": 0.5, "nll": [0.1, number]}})
    with pytest.raises(DiffjaxError, match=f"The result is {number}"):
        json_text(number)
