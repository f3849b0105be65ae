"""Damaged parts, full disks and killed processes."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import writing
from parts_of_runs import indices, opened, parts, saved, saving, write
from writing import PROMPTS, row

from diffjax.errors import DiffjaxError
from diffjax.files import PARTIAL
from diffjax.runs.folder import read_run
from diffjax.runs.rows import schema

# ---- damage


def damage_half(part):
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


def damage_byte(part):
    content = bytearray(part.read_bytes())
    at = content.index(b"image 1")  # within a column, far from the file's ends
    content[at] ^= 1
    part.write_bytes(content)


def damage_end(part):
    content = bytearray(part.read_bytes())
    at = content.rindex(b"label")  # a column's name, which no page holds
    content[at] ^= 1
    part.write_bytes(content)


DAMAGES = {
    "half": damage_half,
    "empty": lambda part: part.write_bytes(b""),
    "zeros": lambda part: part.write_bytes(bytes(part.stat().st_size)),
    "byte": damage_byte,
    "end": damage_end,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_part_is_set_aside_and_its_images_done_again(
    tmp_path, name, monkeypatch
):
    path = tmp_path / "run"
    # uncompressed, so that a byte of a name can be found
    plain = pq.write_table
    monkeypatch.setattr(
        pq, "write_table", lambda *a, **kw: plain(*a, **kw | {"compression": "none"})
    )
    write(path, [0])
    write(path, [1, 2])
    write(path, [3])
    part = parts(path)[1]
    DAMAGES[name](part)
    with pytest.warns(UserWarning, match=rf"{part.name} is damaged .* again"):
        assert indices(path) == [0, 3]
    assert part.exists()  # who reads changes nothing
    with pytest.warns(UserWarning, match=part.name), opened(path) as run:
        assert run.done == {0, 3}
        run.add(row(1))
        run.add(row(2))
    assert not part.exists() and part.with_suffix(".damaged").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert indices(path) == [0, 1, 2, 3]
        with opened(path) as run:
            assert run.done == {0, 1, 2, 3}


def test_damage_in_saved_errors_is_found_by_who_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "run"
    plain = pq.write_table
    monkeypatch.setattr(
        pq, "write_table", lambda *a, **kw: plain(*a, **kw | {"compression": "none"})
    )
    for index in range(3):
        with saving(path) as run:
            run.add(saved(index))
    part, content = parts(path)[1], saved(1)["errors_l1"].tobytes()
    bytes_ = bytearray(part.read_bytes())
    bytes_[bytes_.index(content) + 5] ^= 1
    part.write_bytes(bytes_)
    with pytest.warns(UserWarning, match=part.name):
        run = read_run(path)
    assert run.rows["index"].to_pylist() == [0, 2] and run.damaged == (part,)
    with pytest.warns(UserWarning, match=part.name), saving(path) as run:
        assert run.done == {0, 2}
        run.add(saved(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = read_run(path)
    assert run.rows["index"].to_pylist() == [0, 1, 2] and run.damaged == ()
    np.testing.assert_array_equal(run.rows["errors"][1].as_py(), saved(1)["errors"])


def test_no_bit_of_a_part_can_change_unseen(tmp_path):
    path, other = tmp_path / "run", tmp_path / "other"
    with saving(path) as run:
        for index in range(4):
            run.add(saved(index))
    shutil.copytree(path, other)
    whole, [part] = read_run(path).rows, parts(other)
    content = part.read_bytes()
    end = len(content) - int.from_bytes(content[-8:-4], "little")
    draw, found = random.Random(0), 0
    for k in range(300):
        # half of them in the end, where pages are described
        at = draw.randrange(end if k % 2 else 0, len(content))
        part.write_bytes(
            content[:at]
            + bytes([content[at] ^ 1 << draw.randrange(8)])
            + content[at + 1 :]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = read_run(other)
        if run.damaged:
            found += 1
        else:
            assert run.rows.equals(whole), at
    assert found > 250


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"errors": np.full(6, np.nan)}, "The errors of a loss are not numbers"),
        ({"errors_l1": np.full(6, np.nan)}, "The errors of a loss are not numbers"),
        ({"errors_l1": np.append(np.ones(5), np.nan)}, "The errors of a loss are not"),
        ({"errors_l1": np.append(np.ones(5), np.inf)}, "An error is infinite"),
        ({"errors": np.ones(5), "errors_l1": np.ones(5)}, "not of all prompts"),
        ({"differences": np.full(2, np.nan)}, "differences to the best class are not"),
    ],
)
def test_numbers_that_cannot_be_are_those_of_an_image_that_failed(
    tmp_path, columns, reason
):
    """… as runs of before may hold them; who goes on evaluates it again."""
    path = tmp_path / "run"
    with saving(path) as run:
        run.add(saved(0))
        run.add(saved(1, **columns))
    good, bad = read_run(path).rows["error"].to_pylist()
    assert good is None and reason in bad and "again" in bad
    with saving(path) as run:
        assert run.done == {0}
        run.add(saved(1))
    assert read_run(path).rows["error"].to_pylist() == [None, None]


@pytest.mark.parametrize("change", ["absent", "type"])
def test_a_part_of_another_run_is_refused_and_left_where_it_is(tmp_path, change):
    path = write(tmp_path / "run", [0])
    table = pq.read_table(parts(path)[0])
    if change == "absent":
        table = table.drop_columns(["ranking"])
    else:
        place = table.column_names.index("ranking")
        table = table.set_column(place, "ranking", table["label"])
    part = path / "parts" / "1.parquet"
    pq.write_table(table, part)
    for use in (read_run, opened):
        with pytest.raises(
            DiffjaxError, match=r"1\.parquet has no column ranking.*out"
        ):
            use(path)
    assert part.exists()


def test_a_part_that_another_configuration_wrote_is_refused(tmp_path):
    path, other = write(tmp_path / "run", [0]), tmp_path / "other"
    with opened(other, seed=1) as run:
        run.add(row(1))
    [part] = parts(other)
    shutil.copy(part, path / "parts")
    for use in (read_run, opened):
        with pytest.raises(DiffjaxError, match=rf"{part.name} holds rows of another"):
            use(path)
    again = write(tmp_path / "again", [1])  # of the same, elsewhere and later
    (path / "parts" / part.name).unlink()
    shutil.copy(parts(again)[0], path / "parts")
    assert indices(path) == [0, 1]


def test_parts_with_and_without_saved_errors_do_not_mix(tmp_path):
    path = tmp_path / "run"
    with saving(path) as run:
        run.add(saved(0))
    [part] = parts(path)
    table = pq.read_table(part).drop_columns(["errors"])
    pq.write_table(table, path / "parts" / "9.parquet")
    with pytest.raises(DiffjaxError, match="same tables of errors"):
        read_run(path)
    assert len(read_run(path, errors=False).rows) == 1
    with pytest.raises(DiffjaxError, match=r"9\.parquet has no column errors"):
        saving(path)


def test_columns_of_a_later_version_do_no_harm(tmp_path):
    path = write(tmp_path / "run", [0])
    [part] = parts(path)
    table = pq.read_table(part)
    more = table.append_column("errorless", table["label"])
    pq.write_table(more, path / "parts" / "9.parquet")
    rows = read_run(path).rows.drop_columns(["label_name", "prediction_name"])
    assert rows.schema == schema([], save_errors=False)


def test_a_disk_that_cannot_be_read_does_not_set_parts_aside(tmp_path, monkeypatch):
    path = write(tmp_path / "run", [0])

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pq, "read_table", fail)
    with pytest.raises(OSError, match="Input/output"):
        opened(path)
    monkeypatch.undo()
    with opened(path) as run:
        assert run.done == {0}


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    path = write(tmp_path / "run", [0])
    left = [
        path / f".run.json.12345678{PARTIAL}",
        path / "parts" / f".1.parquet.12345678{PARTIAL}",
    ]
    for partial in left:
        partial.write_bytes(b"PAR1 half")
    assert indices(path) == [0]
    assert all(partial.exists() for partial in left)  # they may be in use
    with opened(path):
        assert not any(partial.exists() for partial in left)
        other = path / "parts" / f".2.parquet.12345678{PARTIAL}"
        other.touch()
        with pytest.raises(DiffjaxError):
            opened(path)  # refused, so it must not touch the writer's files
        assert other.exists()


def test_a_process_killed_before_the_header_leaves_a_folder_that_can_be_used(tmp_path):
    path = tmp_path / "run"
    (path / "parts").mkdir(parents=True)
    (path / "lock").touch()
    PROMPTS.write_csv(path / "prompts.csv")
    (path / f".run.json.12345678{PARTIAL}").write_text('{"format"')
    assert indices(write(path, [0])) == [0]


# ---- a full disk


def test_a_full_disk_keeps_earlier_rows(tmp_path, monkeypatch):
    path = tmp_path / "run"
    message = r"2 rows cannot be written to .*parts \(No space left .*room"
    write_bytes = Path.write_bytes

    def full(path, content):
        write_bytes(path, b"PAR1 and no more")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiffjaxError, match=message), opened(path) as run:
        run.add(row(0))
        run.flush()
        run.add(row(1))
        run.add(row(2))
        monkeypatch.setattr(Path, "write_bytes", full)
        run.flush()
    assert [p.name for p in (path / "parts").iterdir()] == [parts(path)[0].name]
    assert indices(path) == [0]
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with opened(path) as run:
        assert run.done == {0}


def test_room_can_be_made_while_rows_wait(tmp_path, monkeypatch):
    path = tmp_path / "run"

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(path) as run:
        run.add(row(0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DiffjaxError, match="No space left"):
                run.flush()
        run.add(row(1))
    assert indices(path) == [0, 1]


# ---- processes


def writer(path, n, *limit):
    command = [sys.executable, writing.__file__, str(path), str(n), *map(str, limit)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_files_that_may_not_grow(tmp_path):
    path = tmp_path / "run"
    process = writer(path, 40, 15_000)  # row 9 needs 20,000 bytes
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: 1 rows cannot be written")
    assert "File too large" in errors and "Traceback" not in errors
    assert indices(path) == list(range(9))
    assert [p.suffix for p in (path / "parts").iterdir()] == [".parquet"] * 9


def test_one_process_writes_until_it_ends_or_is_killed(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    process = writer(path, 10**9)
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(DiffjaxError, match=rf"written by process {process.pid} on"):
            opened(path)
        indices(path)  # but it can be read
    finally:
        process.kill()
        process.communicate()
    with opened(path) as run:
        assert run.done == set(range(len(run.done)))
        with pytest.raises(DiffjaxError, match=rf"written by process {os.getpid()} on"):
            opened(path)
    opened(path).__exit__()


def test_killed_again_and_again_a_run_ends_as_an_undisturbed_one(tmp_path):
    path, whole = tmp_path / "run", tmp_path / "whole"
    draw = random.Random(0)
    for done in (1, 8, 9, 20, 30):
        process = writer(path, 90)
        while len(parts(path)) < done and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.005))  # into a row, a flush, a rename
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 30 <= len(indices(path)) < 90, "the kills came too late to prove anything"
    writing.write(path, 90)
    writing.write(whole, 90)
    assert read_run(path).rows.equals(read_run(whole).rows)
    # and none was done twice
    assert sum(pq.read_metadata(part).num_rows for part in parts(path)) == 90
    assert not list(path.rglob(f"*{PARTIAL}"))
