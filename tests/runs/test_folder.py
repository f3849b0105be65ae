"""A run's folder: what is written is what is read."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from parts_of_runs import indices, opened, parts, write
from writing import PROMPTS, header, row

from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.runs import folder
from diffjax.runs.folder import read_run
from diffjax.runs.rows import lists, schema
from diffjax.runs.run import with_names

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
    columns = schema(["l1"], save_errors=True).empty_table()
    assert run.rows.schema == with_names(columns, ()).schema
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


# ---- what is refused


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


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(DiffjaxError, match="is a file"):
        opened(tmp_path / "run")


# ---- names


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


def test_a_folder_in_which_another_process_begins_just_now(tmp_path, monkeypatch):
    """Its header may come between two looks at the folder."""
    listed = Path.iterdir

    def begins(self):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "run.json").write_text("{}")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", begins)
    folder._check_folder(tmp_path)
