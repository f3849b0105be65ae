"""A run from Python: names beside numbers, a DataFrame, one line, a small table."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from saved_runs import tables, write_run

from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object
from diffjax.runs.folder import read_run

SAVED = Path(__file__).parents[2] / "notebooks" / "saved"
NAMES = ["cat", "dog", "<ship>", "frog"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of classes 0, 1 and 3; an image of class 2, and one that failed."""
    errors, labels = tables(6, 3, 8)
    labels = [*labels.tolist()[:5], 2]
    return write_run(
        tmp_path_factory.mktemp("runs") / "run",
        errors,
        labels,
        classes=[0, 1, 3],
        names=NAMES,
        failed=[6],
    )


def test_names_stand_beside_numbers(run):
    rows = run.rows.to_pylist()
    for row in rows[:-1]:
        assert row["label_name"] == NAMES[row["label"]]
        assert row["prediction_name"] == NAMES[row["prediction"]]
    assert rows[-1]["prediction_name"] is None and rows[-1]["error"] == "broken"
    columns = run.rows.column_names
    assert columns.index("label_name") == columns.index("label") + 1


def test_a_label_that_cannot_be_has_no_name_where_its_image_failed(run, tmp_path):
    path = tmp_path / "run"
    write_run(path, *tables(2, 3, 8), names=NAMES, n_names=4)
    [part] = (path / "parts").glob("*.parquet")
    table = pq.read_table(part).to_pylist()
    table[0] |= {"label": 7, "prediction": None, "error": "broken"}
    schema = pq.read_schema(part)
    part.unlink()
    pq.write_table(type(run.rows).from_pylist(table, schema), path / "parts/1.parquet")
    assert read_run(path).rows["label_name"].to_pylist()[0] is None


@pytest.mark.parametrize(
    "name", ["tiny-cifar10", "resnet-cifar10", "dit-fashion", "flow-fashion"]
)
def test_a_dataframe_of_a_run_made_before(name):
    """What pandas counts is what the run's summary said when it was made."""
    pytest.importorskip("pandas")
    run = read_run(SAVED / name)
    frame = run.to_pandas()
    said = read_json_object(SAVED / name / "summary.json")
    assert (frame.label_name == frame.prediction_name).mean() == said["metrics"]["acc1"]
    assert frame.evaluations.mean() == pytest.approx(said["evaluations_per_image"])
    assert run.summary["metrics"]["acc1"] == said["metrics"]["acc1"]
    assert run.config["dataset"] == said["dataset"]
    assert str(run.path) in repr(run) and "10,000 images" in repr(run)


def test_without_pandas_one_line_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DiffjaxError, match="pip install pandas") as told:
        run.to_pandas()
    assert "\n" not in str(told.value)


def test_a_run_is_one_line_and_a_small_table(run):
    line, page = repr(run), run._repr_html_()
    assert "\n" not in line and len(line) < 300
    assert "7 (1 failed) images" in line and "% right" in line
    assert len(page) < 1000 and page.count("<tr>") == 5
    begun = write_run(
        run.path.parent / "<begun>", *tables(2, 3, 8), header={"data": {"n": 9}}
    )
    assert "2 of 9 (in progress) images" in repr(begun)
    assert "&lt;begun&gt;" in begun._repr_html_()


def test_a_run_without_images_has_a_line_too(tmp_path):
    errors, labels = tables(2, 3, 8)
    run = write_run(tmp_path / "run", errors[:0], labels[:0], header={"data": {"n": 9}})
    assert "0 of 9 (in progress) images" in repr(run) and "right" not in repr(run)
