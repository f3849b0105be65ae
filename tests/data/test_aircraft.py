"""FGVC Aircraft's own layout."""

import pytest
from tiny_sets import AIRCRAFT, write_aircraft

from diffjax.data.aircraft import open_aircraft
from diffjax.errors import DiffjaxError


def test_the_variants_in_their_published_order(tmp_path):
    write_aircraft(tmp_path)
    source = open_aircraft(data_dir=tmp_path)
    assert (source.name, source.split) == ("aircraft", "test")
    assert source.class_names == AIRCRAFT
    assert source.model_classes is None
    assert [e.id for e in source] == ["0001004", "0001005", "0001006", "0001007"]
    for k, example in enumerate(source):
        assert example.label == k
        # the whole image, with the banner at its bottom
        assert example.image.shape == (30, 40, 3)
        assert abs(int(example.image[0, 0, 0]) - 20 * (4 + k)) < 3
    assert source.labels().tolist() == [0, 1, 2, 3]


def test_splits(tmp_path):
    write_aircraft(tmp_path)
    ids = {
        split: [e.id for e in open_aircraft(split, tmp_path)]
        for split in ("train", "val", "trainval")
    }
    assert ids["trainval"] == ids["train"] + ids["val"]
    assert len(ids["train"]) == 2
    with pytest.raises(DiffjaxError, match="choose one of train, val, trainval, test"):
        open_aircraft("validation", tmp_path)


def test_missing(tmp_path):
    with pytest.raises(DiffjaxError, match=rf"gz from https://www.robots.* {tmp_path}"):
        open_aircraft(data_dir=tmp_path)


def test_incomplete(tmp_path):
    data = write_aircraft(tmp_path)
    listing = data / "images_variant_test.txt"
    listing.write_text(listing.read_text() + "0001001 Concorde\n")
    with pytest.raises(DiffjaxError, match="line 5: the variant 'Concorde'"):
        open_aircraft(data_dir=tmp_path)
    for image in (data / "images").iterdir():
        image.unlink()
    with pytest.raises(DiffjaxError, match=r"2 of 2 image files are missing"):
        open_aircraft("train", tmp_path)
    (data / "variants.txt").unlink()
    with pytest.raises(DiffjaxError, match=r"There is no file .*variants\.txt"):
        open_aircraft("train", tmp_path)
