"""What all sources share."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tiny_sets import picture, save, write_folder

from diffjax.data.files import load_plain
from diffjax.data.folders import open_folder
from diffjax.data.imagenet import imagenet_classes, wordnet_ids
from diffjax.data.sources import Source, data_root, digest, load_arrays
from diffjax.errors import DiffjaxError


def test_load_arrays(tmp_path):
    source = open_folder(write_folder(tmp_path, {"cat": 2, "dog": 3}))
    images, labels = load_arrays(source)
    assert images.shape == (5, 8, 6, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, source.labels())
    for index, record in enumerate(source):
        np.testing.assert_array_equal(images[index], record.image)


def test_load_arrays_needs_one_size(tmp_path):
    write_folder(tmp_path, {"cat": 1})
    save(tmp_path / "dog" / "large.png", picture(0, 20, 20))
    with pytest.raises(DiffjaxError, match=r"differ in size \(dog/large.png is"):
        load_arrays(open_folder(tmp_path))


def test_a_file_source_is_a_source(tmp_path):
    source = open_folder(write_folder(tmp_path, {"cat": 2, "dog": 1}))
    assert isinstance(source, Source)
    assert len(list(source)) == len(source) == 3
    for outside in (-1, 3):
        with pytest.raises(IndexError):
            source[outside]


def test_a_broken_image_does_not_hinder_the_others(tmp_path):
    write_folder(tmp_path, {"cat": 3})
    broken = tmp_path / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    source = open_folder(tmp_path)
    assert source.labels().tolist() == [0, 0, 0]
    with pytest.raises(DiffjaxError, match=r"cat/1\.png.* cannot be decoded"):
        source[1]
    for index in (0, 2):
        np.testing.assert_array_equal(source[index].image, picture(index))
    with pytest.raises(DiffjaxError, match=r"cat/1\.png cannot be decoded"):
        load_plain(broken)


def test_the_fingerprint_follows_the_files(tmp_path):
    folder = write_folder(tmp_path / "a", {"cat": 2, "dog": 1})
    first = open_folder(folder).fingerprint
    assert len(first) == 16 and int(first, 16) >= 0
    again = write_folder(tmp_path / "b", {"cat": 2, "dog": 1})
    assert open_folder(again).fingerprint == first
    save(folder / "cat" / "0.png", picture(0, 9, 9))
    assert open_folder(folder).fingerprint == first  # a broken image may be mended
    save(folder / "cat" / "9.png", picture(9))
    more = open_folder(folder).fingerprint
    (again / "dog").rename(again / "fox")
    renamed = open_folder(again).fingerprint
    assert len({first, more, renamed}) == 3


def test_digests_tell_where_parts_end():
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest(["ab"]) == digest([b"ab"])


def test_the_usual_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data_root(None) == tmp_path
    assert data_root("~/sets") == Path.home() / "sets"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_root(None) == Path.home() / "tensorflow_datasets"


def test_wordnet_ids():
    """Known classes of every ImageNet model."""
    ids = wordnet_ids()
    assert len(set(ids)) == 1000 and list(ids) == sorted(ids)
    for index, name in [(0, "n01440764"), (281, "n02123045"), (999, "n15075141")]:
        assert ids[index] == name
    tfds = Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    assert list(ids) == (tfds / "datasets/imagenet2012/labels.txt").read_text().split()


def test_imagenet_classes():
    assert imagenet_classes(["n02123045", "n01440764"]) == ((281,), (0,))
    assert imagenet_classes(wordnet_ids()) == tuple((i,) for i in range(1000))
    for names in ([], ["cat"], ["n02123045", "cat"], ["n00000000"]):
        assert imagenet_classes(names) is None
