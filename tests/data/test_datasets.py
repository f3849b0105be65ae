"""Data sets by name or path."""

import pytest
from tiny_sets import (
    LABELLED,
    forbid_network,
    picture,
    png,
    write_aircraft,
    write_folder,
    write_objectnet,
    write_tfds,
)

from diffjax.data.datasets import open_source
from diffjax.data.sources import Source
from diffjax.errors import DiffjaxError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    forbid_network(monkeypatch)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """One of each kind."""
    folder = tmp_path_factory.mktemp("sets")
    write_aircraft(folder)
    write_objectnet(folder)
    examples = [{"image": png(picture(k)), "label": k % 2} for k in range(3)]
    write_tfds(folder, "pets", examples, LABELLED, split="validation")
    write_folder(folder / "photos", {"cat": 1, "dog": 1})
    for name in ("list.csv", "LIST2.CSV"):
        (folder / name).write_text("path,label\nphotos/cat/0.png,cat\n")
    (folder / "list.jsonl").write_text('{"path": "photos/cat/0.png", "label": 2}')
    return folder


@pytest.mark.parametrize(
    ("dataset", "split", "n", "classes"),
    [
        ("aircraft", "test", 4, 4),
        ("objectnet", "test", 6, 3),
        ("pets", "validation", 3, 2),
        ("pets:1.0.0", "validation", 3, 2),
        ("./photos", "all", 2, 2),
        ("~/photos", "all", 2, 2),
        ("HERE/photos", "all", 2, 2),
        ("./list.csv", "all", 1, 1),
        ("list.csv", "all", 1, 1),
        ("LIST2.CSV", "all", 1, 1),
        ("list.jsonl", "all", 1, 3),
    ],
)
def test_by_name_or_path(sets, monkeypatch, dataset, split, n, classes):
    monkeypatch.chdir(sets)
    monkeypatch.setenv("HOME", str(sets))
    dataset = dataset.replace("HERE", str(sets))
    source = open_source(dataset, data_dir=sets)
    assert isinstance(source, Source)
    assert (source.name, source.split) == (dataset, split)
    assert len(source) == len(source.labels()) == n
    assert len(source.class_names) == classes
    assert source[n - 1].label == source.labels()[n - 1]
    again = open_source(dataset, split, sets)
    assert again.fingerprint == source.fingerprint


def test_a_split_is_passed_on(sets):
    assert open_source("aircraft", "train", sets).split == "train"
    assert len(open_source("pets", "validation[:2]", sets)) == 2
    with pytest.raises(DiffjaxError, match="Its splits are: validation"):
        open_source("pets", "test", sets)


def test_the_usual_folder(sets, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(sets))
    assert len(open_source("pets")) == 3
    assert len(open_source("aircraft")) == 4


@pytest.mark.parametrize("dataset", ["./photos", "list.csv"])
def test_paths_have_no_splits(sets, monkeypatch, dataset):
    monkeypatch.chdir(sets)
    with pytest.raises(DiffjaxError, match="has no splits, so there is no 'test'"):
        open_source(dataset, "test")


@pytest.mark.parametrize(
    ("dataset", "advice"),
    [
        ("food101", "tfds build food101 --file_format array_record"),
        ("imagenet2012", "ILSVRC2012_img_val.tar"),
        ("aircraft", "Fetch fgvc-aircraft-2013b.tar.gz from https://www.robots"),
        ("objectnet", "Fetch objectnet-1.0.zip from https://objectnet.dev"),
        ("photos", "given by its path, as in ./photos"),
        ("./photos", "There is no folder"),
        ("photos.csv", "There is no table"),
        ("", "name of the data set is empty"),
    ],
)
def test_what_is_missing_says_how_to_get_it(tmp_path, monkeypatch, dataset, advice):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiffjaxError, match=advice):
        open_source(dataset, data_dir=tmp_path)
    assert not list(tmp_path.iterdir())
