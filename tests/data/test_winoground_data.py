"""Reading Winoground."""

import json
import zipfile

import numpy as np
import pytest
from tiny_sets import picture, write_winoground

from diffjax.data.images import load_image
from diffjax.data.winoground import read_winoground
from diffjax.errors import DiffjaxError


@pytest.mark.parametrize("place", ["", "data"])
def test_examples(tmp_path, place):
    write_winoground(tmp_path)
    examples = read_winoground(tmp_path / place)
    assert [e.id for e in examples] == ["0", "1", "2"]
    assert [e.collapsed_tag for e in examples] == ["Object", "Relation", "Both"]
    example = examples[1]
    assert example.captions == ("a mug in grass 1", "grass in a mug 1")
    assert (example.tag, example.secondary_tag) == ("Noun", "")
    for k, image in enumerate(map(load_image, example.images)):
        np.testing.assert_array_equal(np.asarray(image), picture(10 + k))


def test_names_with_their_suffix(tmp_path):
    path = write_winoground(tmp_path) / "data" / "examples.jsonl"
    path.write_text(path.read_text().replace('img_0"', 'img_0.png"'))
    names = [image.name for image in read_winoground(tmp_path)[0].images]
    assert names == ["ex_0_img_0.png", "ex_0_img_1.png"]


def test_images_are_read_when_asked_for(tmp_path):
    write_winoground(tmp_path)
    (tmp_path / "data" / "images" / "ex_0_img_1.png").write_bytes(b"no image")
    examples = read_winoground(tmp_path)
    list(map(load_image, examples[1].images))
    with pytest.raises(DiffjaxError, match=r"ex_0_img_1\.png"):
        list(map(load_image, examples[0].images))


def test_missing(tmp_path):
    with pytest.raises(DiffjaxError, match=r"no data/examples\.jsonl.*huggingface\.co"):
        read_winoground(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").touch()
    with pytest.raises(DiffjaxError, match=r"parquet is the form .* not read here"):
        read_winoground(tmp_path)


def test_packed_images(tmp_path):
    data = write_winoground(tmp_path) / "data"
    (data / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DiffjaxError, match=r"Fetch data/images\.zip"):
        read_winoground(tmp_path)
    with zipfile.ZipFile(data / "images.zip", "w") as archive:
        archive.writestr("images/ex_0_img_0.png", b"")
    with pytest.raises(DiffjaxError, match=r"unzip .*data/images\.zip -d .*data"):
        read_winoground(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_1": "ex_9_img_1"}, r"line 2: there is no image .*ex_9_img_1\.png"),
        ({"caption_0": None}, "line 2: caption_0 must be a text, not None"),
        ({"id": []}, "line 2: id must be a whole number"),
    ],
)
def test_malformed_lines(tmp_path, change, message):
    path = write_winoground(tmp_path) / "data" / "examples.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    path.write_text("\n".join(lines))
    with pytest.raises(DiffjaxError, match=message):
        read_winoground(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no examples"),
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 must be an object"),
    ],
)
def test_malformed_files(tmp_path, text, message):
    path = write_winoground(tmp_path) / "data" / "examples.jsonl"
    path.write_text(text)
    with pytest.raises(DiffjaxError, match=message):
        read_winoground(tmp_path)
