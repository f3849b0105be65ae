"""Headers and prompts that are damaged, missing or of another run."""

import json
import warnings

import pytest
from parts_of_runs import of_before, opened, parts, saved, saving, write
from writing import PROMPTS, header

from diffjax.errors import DiffjaxError
from diffjax.runs.folder import open_run, read_run
from diffjax.runs.header import differences, read_header, write_header
from diffjax.strategies import shortlist_from_dict
from diffjax.strategies.shortlist import Shortlist


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


def test_a_shortlist_of_before_is_that_of_now(tmp_path):
    path = write(tmp_path / "run", [0])
    before = {"k": 9, "n_samples": 16, "base": "mean", "rounds": 1, "clusters": 8}
    content = json.loads((path / "run.json").read_text())
    content["experiment"]["shortlist"] = before
    write_header(path, content)
    now = {"experiment": content["experiment"] | {"shortlist": vars(Shortlist(k=9))}}
    read = read_header(path)
    assert shortlist_from_dict(read["experiment"]["shortlist"]) == Shortlist(k=9)
    for there in (content, read):
        assert differences(there, content | now) == []
    before["rounds"] = 2
    told = "experiment.shortlist.rounds: 2 there, null here"
    assert differences(content, content | now) == [told]


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
