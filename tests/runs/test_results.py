import errno
import json
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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import writing
from writing import PROMPTS, header, row

from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.files import PARTIAL
from diffjax.runs.folder import open_run, read_run
from diffjax.runs.rows import lists, schema


def opened(path, prompts=PROMPTS, save_errors=False, **experiment):
    return open_run(path, header(**experiment), prompts, save_errors=save_errors)


def write(path, indices, **columns):
    """A part with the rows of these indices."""
    with opened(path) as run:
        for index in indices:
            run.add(row(index) | columns)
    return path


def parts(path):
    return sorted((path / "parts").glob("*.parquet"))


def indices(path):
    return read_run(path).rows["index"].to_pylist()


# ---- what is written is what is read


def test_the_columns():
    names = set(schema(["l1", "l2+vlb"], save_errors=True).names)
    plain = set(schema([], save_errors=False).names)
    assert names - plain == {
        *("prediction_l1", "prediction_l2+vlb", "timesteps", "noises", "errors"),
        *("errors_l1", "errors_l2+vlb"),
    }
    assert plain < names


def test_rows_come_back(tmp_path):
    path = tmp_path / "deep" / "run"
    errors = np.array([0.5, np.nan, 2.0, 3.0, 4.0, np.nan], np.float32)
    extra = {
        "prediction_l1": 2,
        "timesteps": np.array([100, 900]),
        "noises": np.array([0, 1]),
        "errors": errors,
        "errors_l1": errors + 1,
    }
    with opened(path, save_errors=True, also=["l1"]) as run:
        assert run.done == set() and len(run.rows) == 0
        run.add(row(3) | extra)
        run.add({"index": 1, "error": "it is broken"})
    run = read_run(path)
    assert run.header == json.loads(json.dumps(header(also=["l1"])))
    assert run.prompts == PROMPTS
    assert run.class_names == ("ape", "cat", "dog")
    assert run.classes.tolist() == [1, 2]
    assert run.losses == ("l1",) and run.has_errors
    assert run.rows.schema == schema(["l1"], save_errors=True)
    failed, good = run.rows.to_pylist()  # by index
    assert failed.pop("index") == 1 and failed.pop("error") == "it is broken"
    assert set(failed.values()) == {None}
    for name, value in (row(3) | extra).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(good[name], value.astype(np.float32))
        elif isinstance(value, float):
            assert good[name] == np.float32(value)
        else:
            assert good[name] == value
    assert good["error"] is None
    without = read_run(path, errors=False)
    assert not without.has_errors
    assert "errors_l1" not in without.rows.column_names
    assert without.rows["error"].to_pylist() == ["it is broken", None]


def test_lists_are_those_of_all_chunks():
    chunks = [[[1.0, 2.0], []], [[3.0]]]
    column = pa.chunked_array(chunks, pa.list_(pa.float32()))
    assert [x.tolist() for x in lists(column)] == [[1, 2], [], [3]]
    assert [x.tolist() for x in lists(column.slice(1))] == [[], [3]]


def test_rows_are_safe_after_a_flush_and_can_be_read_by_others(tmp_path):
    with opened(tmp_path / "run") as run:
        run.add(row(0))
        assert indices(tmp_path / "run") == []
        run.flush()
        run.flush()  # nothing waits, nothing is written
        assert indices(tmp_path / "run") == [0]
        run.add(row(1))
    assert indices(tmp_path / "run") == [0, 1]
    assert len(parts(tmp_path / "run")) == 2


def test_an_error_does_not_lose_what_waits(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), opened(path) as run:
        run.add(row(0))
        raise KeyboardInterrupt
    assert indices(path) == [0]
    with opened(path) as run:  # and others may write
        assert run.done == {0}


def test_good_rows_win_over_failures_and_later_ones_over_earlier(tmp_path):
    path = tmp_path / "run"
    broken = {"error": "broken", "prediction": None}
    write(path, [0, 1, 2])
    write(path, [1, 3], **broken)
    write(path, [2], seconds=9.0)
    write(path, [3], **(broken | {"error": "still broken"}))
    with opened(path) as run:
        assert run.done == {0, 1, 2}
        assert run.rows["index"].to_pylist() == [0, 1, 2]
    rows = read_run(path).rows
    assert rows["error"].to_pylist() == [None, None, None, "still broken"]
    assert rows["seconds"].to_pylist() == [0.5, 0.5, 9.0, 0.5]
    write(path, [3])
    assert read_run(path).rows["error"].null_count == 4


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


def saved(index, P=3, S=2, seed=0, **columns):
    """A row with errors of two losses."""
    errors = np.random.default_rng(seed + index).random(P * S).astype(np.float32)
    return row(index) | {
        "prediction_l1": 1,
        "timesteps": np.arange(S),
        "noises": np.zeros(S, int),
        "errors": errors,
        "errors_l1": errors + 1,
        **columns,
    }


def saving(path):
    return opened(path, save_errors=True, also=["l1"])


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
    assert read_run(path).rows.schema == schema([], save_errors=False)


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


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"loss": "l1"}, "experiment.loss: l2 there, l1 here"),
        ({"limit": 5}, "experiment.limit: null there, 5 here"),
        ({"also": ["vlb"]}, r'experiment.also: \[\] there, \["vlb"\] here'),
        ({"strategy": {"to_keep": [5, 1]}}, "experiment.strategy: null there"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(tmp_path, change, line):
    path = write(tmp_path / "run", [0])
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(DiffjaxError, match=rf"(?s){line}.*choose another folder"):
        opened(path, **change)
    del before[path / "lock"]
    assert before == {p: p.read_bytes() for p in before}
    with opened(path) as run:
        assert run.done == {0}


def test_only_the_differences_are_shown(tmp_path):
    path = tmp_path / "run"
    with opened(path, strategy={"name": "staged", "to_keep": [5, 1]}) as run:
        run.add(row(0))
    changed = header(strategy={"name": "staged", "to_keep": [2, 1]}, template="x" * 500)
    changed["class_names"] = ["ape", "cat", "wolf"]
    with pytest.raises(DiffjaxError) as caught:
        open_run(path, changed, PROMPTS, save_errors=False)
    _, *lines, _ = str(caught.value).splitlines()
    assert lines == [
        "  experiment.strategy.to_keep: [5, 1] there, [2, 1] here",
        f"  experiment.template: null there, {'x' * 79}… here",
        '  class_names: ["ape", "cat", "dog"] there, ["ape", "cat", "wolf"] here',
    ]


def test_where_and_when_do_not_decide(tmp_path):
    path = write(tmp_path / "run", [0])
    elsewhere = header() | {"environment": {"jax": "9"}, "created": "later"}
    with open_run(path, elsewhere, PROMPTS, save_errors=False) as run:
        assert run.done == {0}
    assert read_run(path).header["created"] == header()["created"]


def test_other_prompts_are_refused(tmp_path):
    path = write(tmp_path / "run", [0])
    other = Prompts(
        prompts=("a cat", "a dog"), classidx=(0, 1), class_names=("cat", "dog")
    )
    with pytest.raises(DiffjaxError, match=r"prompts: other than in .*prompts\.csv"):
        opened(path, other)


def test_prompts_with_odd_line_breaks_are_kept(tmp_path):
    prompts = Prompts(
        prompts=("a cat", "a \r\n dog"), classidx=(0, 1), class_names=("cat", "dog")
    )
    opened(tmp_path / "run", prompts).__exit__()
    assert read_run(tmp_path / "run").prompts == prompts


@pytest.mark.parametrize("name", ["notes.txt", "prompts.csv", "summary.json"])
def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DiffjaxError, match=rf"other files \({name}\)"):
        opened(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def of_before(path):
    """Parts as they were before they kept the header."""
    for part in parts(path):
        table = pq.read_table(part).replace_schema_metadata(None)
        part.unlink()
        pq.write_table(table, part.with_name(f"{part.name[:20]}-0123abcd.parquet"))


def test_parts_without_a_header_are_not_taken_for_ours(tmp_path):
    path = write(tmp_path / "run", [0])
    of_before(path)
    (path / "run.json").unlink()
    with pytest.raises(DiffjaxError, match="is not a run"):
        opened(path)
    with pytest.raises(DiffjaxError, match=r"run\.json is missing.*from a copy"):
        read_run(path)


@pytest.mark.parametrize("content", [None, "", '{"format": 1', "\0" * 300])
def test_a_lost_header_is_found_in_the_parts(tmp_path, content):
    path = write(tmp_path / "run", [0])
    write(path, [1])
    before = read_run(path)
    if content is None:
        (path / "run.json").unlink()
    else:
        (path / "run.json").write_text(content)
    parts(path)[1].write_bytes(b"damaged too")
    with pytest.warns(UserWarning, match=r"found in the files of rows"):
        run = read_run(path)
    assert run.header == before.header
    assert run.rows["index"].to_pylist() == [0]
    with pytest.raises(DiffjaxError, match=r"experiment\.loss: l2 there, l1 here"):
        opened(path, loss="l1")
    with pytest.warns(UserWarning), opened(path) as run:
        assert run.done == {0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_run(path).header == before.header


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(DiffjaxError, match="is a file"):
        opened(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ('{"format": 1', "is not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "not the header"),
        (json.dumps(header() | {"format": 2}), "not the header"),
        ("\xff", "is not UTF-8"),
    ],
)
def test_a_bad_header_is_refused(tmp_path, content, message):
    path = write(tmp_path / "run", [0])
    of_before(path)
    (path / "run.json").write_text(content, encoding="latin-1")
    for use in (read_run, opened):
        with pytest.raises(DiffjaxError, match=message):
            use(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("experiment", 3), ("experiment", None), ("model", []), ("data", "x")),
        *(("class_names", "abc"), ("class_names", ["a", 1]), ("classes", {"1": 2})),
        *(("classes", [1, 3]), ("classes", [1, -1]), ("classes", [1.0, 2])),
        *(("classes", [True, 2]), ("experiment.loss", 3), ("experiment.also", "l1")),
        *(("experiment.temperature", "hot"), ("model.name", None), ("data.n", "4")),
        *(("classes", [1, 1]), ("data.n", -1), ("experiment.temperature", 0)),
        *(("data.fingerprint", 5), ("model.n_timesteps", 1.5), ("data.n", None)),
    ],
)
def test_a_header_of_other_types_is_refused(tmp_path, name, value):
    path = write(tmp_path / "run", [0])
    content = json.loads((path / "run.json").read_text())
    *part, key = name.split(".")
    (content[part[0]] if part else content)[key] = value
    (path / "run.json").write_text(json.dumps(content))
    for use in (read_run, opened):
        with pytest.raises(DiffjaxError, match=rf"run\.json is damaged: {name} is"):
            use(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("classes", [1]), ("classes", [0, 1]), ("class_names", ["ape", "cat"])),
        *(("classes", [1, 2, 0]), ("model.n_timesteps", 1)),
    ],
)
def test_a_header_of_another_run_is_refused(tmp_path, name, value):
    path = tmp_path / "run"
    with saving(path) as run:
        run.add(saved(0))
        run.add(saved(1))
    of_before(path)  # else the parts know
    content = json.loads((path / "run.json").read_text())
    *part, key = name.split(".")
    (content[part[0]] if part else content)[key] = value
    (path / "run.json").write_text(json.dumps(content))
    with pytest.raises(DiffjaxError, match=r"damaged: classes|are not of one run"):
        read_run(path)


@pytest.mark.parametrize("name", ["experiment.loss", "data.n", "model.name"])
def test_a_header_that_lacks_something_is_refused(tmp_path, name):
    path = write(tmp_path / "run", [0])
    content = json.loads((path / "run.json").read_text())
    part, key = name.split(".")
    del content[part][key]
    (path / "run.json").write_text(json.dumps(content))
    with pytest.raises(DiffjaxError, match=f"damaged: {name} is null"):
        read_run(path)


def test_missing_prompts_are_written_again_where_they_are_known(tmp_path):
    path = write(tmp_path / "run", [0])
    of_before(path)
    (path / "prompts.csv").unlink()
    with pytest.raises(DiffjaxError, match=r"prompts\.csv is missing.*command that"):
        read_run(path)
    with pytest.raises(DiffjaxError, match=r"prompts: .*prompts\.csv is missing"):
        opened(path)
    known = header() | {"model": header()["model"] | {"ids": "2" * 16}}
    (path / "run.json").write_text(json.dumps(known))
    with open_run(path, known, PROMPTS, save_errors=False) as run:
        assert run.done == {0}
    assert read_run(path).prompts == PROMPTS


# ---- names


@pytest.mark.parametrize(
    ("part", "key"),
    [
        *(("experiment", "dataset"), ("experiment", "prompts"), ("data", "name")),
        *(("model", "name"), ("model", "revision"), ("model", "elsewhere")),
    ],
)
def test_what_a_thing_is_called_does_not_decide(tmp_path, part, key):
    path = write(tmp_path / "run", [0])
    other = header()
    other[part] = other[part] | {key: "/elsewhere/it"}
    with open_run(path, other, PROMPTS, save_errors=False) as run:
        assert run.done == {0}
    assert read_run(path).header == json.loads(json.dumps(header()))


def test_the_name_decides_where_nothing_else_is_known(tmp_path):
    unknown = header()
    unknown["model"] = {"name": "a", "fingerprint": "unknown"}
    path = tmp_path / "run"
    with open_run(path, unknown, PROMPTS, save_errors=False) as run:
        run.add(row(0))
    unknown["model"] = {"name": "b", "fingerprint": "unknown"}
    with pytest.raises(DiffjaxError, match=r"model\.name: a there, b here"):
        open_run(path, unknown, PROMPTS, save_errors=False)


def model(**changes):
    described = {
        "weights": "3" * 16,
        "configs": {"unet": {"norm_eps": 1e-5}, "vae": {}},
        "scaling_factor": 0.18215,
        "prediction_type": "epsilon",
        "schedule": "4" * 16,
        "ids": "5" * 16,
    }
    return {"name": "sd", "fingerprint": "6" * 16, **described} | changes


CHANGES = {
    "weights: 3+ there, 7+ here": {"weights": "7" * 16},
    "configs.unet.norm_eps: 1e-05 there, 1e-06 here": {
        "configs": {"unet": {"norm_eps": 1e-6}, "vae": {}}
    },
    "configs.vae.scaling: null there, 2 here": {
        "configs": {"unet": {"norm_eps": 1e-5}, "vae": {"scaling": 2}}
    },
    "scaling_factor: 0.18215 there, 0.13025 here": {"scaling_factor": 0.13025},
    "prediction_type: epsilon there": {"prediction_type": "v_prediction"},
    "schedule: 4+ there, 8+ here": {"schedule": "8" * 16},
    "ids: 5+ there, 9+ here": {"ids": "9" * 16},
}


@pytest.mark.parametrize("line", CHANGES)
def test_all_of_the_model_decides(tmp_path, line):
    path = tmp_path / "run"

    def begin(model):
        made = header() | {"model": model}
        return open_run(path, made, PROMPTS, save_errors=False)

    with begin(model()) as run:
        run.add(row(0))
    with pytest.raises(DiffjaxError, match=rf"model\.{line}"):
        begin(model(**CHANGES[line]))
    with begin(model(fingerprint="0" * 16, name="of another version")) as run:
        assert run.done == {0}


def test_a_run_of_before_goes_on_and_knows_more_from_then_on(tmp_path):
    path = tmp_path / "run"

    def begin(model):
        made = header() | {"model": model}
        return open_run(path, made, PROMPTS, save_errors=False)

    before = {"name": "sd", "fingerprint": "3" * 16}
    with begin(before) as run:
        run.add(row(0))
    with pytest.raises(DiffjaxError, match=r"model\.fingerprint: 3+ there, 7+ here"):
        begin(model(weights="7" * 16))
    with pytest.warns(UserWarning, match="kept the weights of its model alone"):
        run = begin(model())
    with run:
        assert run.done == {0}
    assert read_run(path).header["model"] == model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin(model()).__exit__()
    with pytest.raises(DiffjaxError, match=r"model\.scaling_factor"):
        begin(model(scaling_factor=1.0))


def test_no_run_at_all(tmp_path):
    with pytest.raises(DiffjaxError, match=r"holds no run.*diffjax evaluate"):
        read_run(tmp_path)


def test_a_command_that_failed_before_its_first_image_spoils_nothing(tmp_path):
    path = tmp_path / "run"
    with opened(path, seed=1):
        pass  # refused, or interrupted
    write(path, [0])
    assert read_run(path).header == json.loads(json.dumps(header()))
    with pytest.raises(DiffjaxError, match="another configuration"):
        opened(path, seed=1)
