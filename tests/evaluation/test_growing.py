"""A limit takes the first of an order, and a larger one goes on in the same run."""

import numpy as np
import pytest
from noise_runs import Made, N, assert_same, task_of, variant
from tiny_sets import write_folder

import diffjax
from diffjax.data.subsets import limited
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import Experiment
from diffjax.evaluation.runner import evaluate
from diffjax.files import read_json_object
from diffjax.runs.folder import read_run
from diffjax.runs.rescoring import rescore, write_rescored
from diffjax.runs.sharing import Share
from diffjax.strategies.exhaustive import Exhaustive

POOL = np.arange(N)


def run(classifier, path, limit, *, source=None, **options):
    """As the command does."""
    source = source or Made()
    task = task_of(source, limited(POOL, limit), pool=POOL)
    return evaluate(task, classifier, path, asked={"limit": limit}, **options)


@pytest.fixture(scope="module")
def seven(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "seven"
    run(classifier, path, 7, save_errors=True)
    return read_run(path)


def test_more_images_in_the_same_run(classifier, tmp_path, seven):
    path = tmp_path / "run"
    first = run(classifier, path, 4, save_errors=True)
    assert first["images"] == 4 and first["status"] == "complete"
    indices = read_run(path).rows["index"].to_pylist()
    source = Made()
    result = run(classifier, path, 7, source=source, save_errors=True)
    assert len(source.read) == 3 and not set(source.read) & set(indices)
    assert result["images"] == result["images_selected"] == 7
    found = read_run(path)
    assert_same(found.rows, seven.rows)
    assert found.status == "complete"
    assert found.summary == read_json_object(path / "summary.json")
    for key in ("experiment", "data"):
        assert found.header[key] == seven.header[key]
    # all there are, and a limit above it, are more still
    for limit in (None, 50):
        assert run(classifier, path, limit, save_errors=True)["images"] == N


def test_fewer_images_or_other_settings_are_refused(classifier, tmp_path):
    path = tmp_path / "run"
    run(classifier, path, 4)
    before = read_run(path).header
    with pytest.raises(DiffjaxError, match=r"experiment\.limit: 4 there, 3 here"):
        run(classifier, path, 3)
    with pytest.raises(
        DiffjaxError, match=r"experiment\.seed: 0 there, 1 here"
    ) as told:
        run(variant(classifier, seed=1), path, 7)
    assert "limit" not in str(told.value)
    other = task_of(Made(), limited(POOL[1:], 7), pool=POOL[1:])
    with pytest.raises(DiffjaxError, match=r"data\.indices"):
        evaluate(other, classifier, path, asked={"limit": 7})
    assert read_run(path).header == before and (path / "summary.json").exists()


def test_an_interruption_while_it_grows(classifier, tmp_path, seven):
    """Files of rows hold the smaller run's header, and the larger one's."""
    path = tmp_path / "run"
    run(classifier, path, 4, save_errors=True)
    stop = limited(POOL, 7)[-1]
    assert stop not in limited(POOL, 4)
    with pytest.raises(KeyboardInterrupt):
        run(classifier, path, 7, source=Made(stop=stop), save_errors=True)
    assert not (path / "summary.json").exists()
    assert read_run(path).status == "in progress"
    with pytest.raises(DiffjaxError, match=r"limit: 7 there, 4 here"):
        run(classifier, path, 4, save_errors=True)
    run(classifier, path, 7, save_errors=True)
    (path / "run.json").unlink()
    with pytest.warns(UserWarning, match="found in the files of rows"):
        assert_same(read_run(path).rows, seven.rows)


def test_processes_share_a_run_that_grows(classifier, tmp_path, seven):
    path = tmp_path / "run"
    run(classifier, path, 4, save_errors=True)
    for k in range(2):
        share = Share(k, 2)
        result = run(classifier, path, 7, share=share, save_errors=True)
    assert result["status"] == "complete" and (path / "summary.json").exists()
    assert_same(read_run(path).rows, seven.rows)


def test_a_run_that_grew_is_decided_again(classifier, tmp_path, seven):
    path = tmp_path / "run"
    for limit in (4, 7):
        run(classifier, path, limit, save_errors=True)
    settings = {"strategy": Exhaustive(n_samples=2)}
    new, old = (rescore(each, **settings) for each in (read_run(path), seven))
    assert [row["prediction"] for row in new.rows] == [
        row["prediction"] for row in old.rows
    ]
    written = write_rescored(new, tmp_path / "new")
    assert written.status == "complete" and len(written.rows) == 7


def test_a_run_from_before_limits_were_nested_goes_on(classifier, tmp_path):
    """With the images that it was begun with."""
    photos, path = tmp_path / "photos", tmp_path / "run"
    write_folder(photos, {"cat": 6, "dog": 5})
    asked = Experiment(dataset=str(photos), limit=5)
    task = asked.task()
    old = limited(np.arange(11), 5, nested=False)
    assert set(old) != set(task.indices)
    before = task_of(task.source, old)  # with a header as it was then
    begun = evaluate(before, classifier, path, asked=asked.as_dict(), share=Share(0, 2))
    assert begun["images"] == 3
    assert "pool" not in read_run(path).header["data"]
    found = diffjax.evaluate(classifier, photos, limit=5, out=path, progress=False)
    assert found.rows["index"].to_pylist() == old.tolist()
    assert found.status == "complete"
    with pytest.raises(DiffjaxError, match=r"limit: 5 there, 6 here"):
        diffjax.evaluate(classifier, photos, limit=6, out=path, progress=False)
    new = diffjax.evaluate(
        classifier, photos, limit=5, out=tmp_path / "new", progress=False
    )
    assert new.rows["index"].to_pylist() == task.indices.tolist()
