"""ObjectNet's own layout."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_sets import picture, write_objectnet

from diffjax.data.objectnet import open_objectnet
from diffjax.errors import DiffjaxError


@pytest.fixture
def root(tmp_path):
    return write_objectnet(tmp_path)


def test_classes_that_imagenet_has_by_folder(root, tmp_path):
    source = open_objectnet(data_dir=tmp_path)
    assert (source.name, source.split) == ("objectnet", "test")
    # by the names of folders, not of labels: "Bath towel" is full_sized_towel
    assert source.class_names == ("Alarm clock", "Bath towel", "Tie")
    assert source.labels().tolist() == [0, 1, 1, 2, 2, 2]
    assert source[1].id == "full_sized_towel/00.png"
    assert source.model_classes == ((409, 530), (434,), (457, 906))


def test_the_red_border_is_cropped(root, tmp_path):
    with Image.open(root / "images" / "tie" / "00.png") as image:
        assert image.size == (10, 12)
    example = open_objectnet(data_dir=tmp_path)[3]
    np.testing.assert_array_equal(example.image, picture(30, 12, 10)[2:-2, 2:-2])


def test_missing(tmp_path):
    with pytest.raises(DiffjaxError, match=rf"objectnet\.dev.* {tmp_path}"):
        open_objectnet(data_dir=tmp_path)


def test_splits(root, tmp_path):
    with pytest.raises(DiffjaxError, match="choose one of test"):
        open_objectnet("val", tmp_path)


def test_an_image_without_inside(root, tmp_path):
    Image.new("RGB", (4, 9)).save(root / "images" / "alarm_clock" / "00.png")
    with pytest.raises(DiffjaxError, match=r"00\.png .* smaller than its border"):
        open_objectnet(data_dir=tmp_path)[0]


@pytest.mark.parametrize(
    "file",
    [
        "folder_to_objectnet_label.json",
        "objectnet_to_imagenet_1k.json",
        "pytorch_to_imagenet_2012_id.json",
        "imagenet_to_label_2012_v2",
    ],
)
@pytest.mark.parametrize("content", [None, b"[]", b"\xff", b'{"0": 5000}'])
def test_damaged_mappings(root, tmp_path, file, content):
    path = root / "mappings" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DiffjaxError, match=r"Unpack objectnet-1\.0\.zip again"):
        open_objectnet(data_dir=tmp_path)


def test_incomplete(root, tmp_path):
    (root / "images" / "alarm_clock" / "00.png").unlink()
    with pytest.raises(DiffjaxError, match=r"alarm_clock .* holds no images"):
        open_objectnet(data_dir=tmp_path)


def test_an_unknown_imagenet_label(root, tmp_path):
    path = root / "mappings" / "objectnet_to_imagenet_1k.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Tie": "bow tie"}))
    with pytest.raises(DiffjaxError, match="map no ImageNet label 'bow tie'"):
        open_objectnet(data_dir=tmp_path)
