"""Image folders."""

import numpy as np
import pytest
from PIL import Image
from tiny_sets import picture, save, write_folder

from diffjax.data.folders import open_folder
from diffjax.errors import DiffjaxError


def test_classes_are_the_sorted_subfolders(tmp_path):
    write_folder(tmp_path, {"dog": 1, "cat": 2, "Yak": 1})
    source = open_folder(str(tmp_path))
    assert (source.name, source.split) == (str(tmp_path), "all")
    assert source.class_names == ("Yak", "cat", "dog")
    assert source.labels().tolist() == [0, 1, 1, 2]
    ids = ["Yak/0.png", "cat/0.png", "cat/1.png", "dog/0.png"]
    assert [example.id for example in source] == ids
    np.testing.assert_array_equal(source[2].image, picture(101))
    assert source.model_classes is None


def test_images_are_found_at_any_depth_and_nothing_else(tmp_path):
    write_folder(tmp_path, {"cat": 1})
    for name in ("deep/er/a.JPG", "deep/b.webp", ".hidden/c.png", ".d.png"):
        save(tmp_path / "cat" / name, picture(0))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "LICENSE").write_text("no image")
    ids = [example.id for example in open_folder(tmp_path)]
    assert ids == ["cat/0.png", "cat/deep/b.webp", "cat/deep/er/a.JPG"]


def test_exif_turns_the_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 4)).save(tmp_path / "cat" / "a.png", exif=exif)
    assert open_folder(tmp_path)[0].image.shape == (8, 4, 3)


def test_imagenet_folders_know_their_classes(tmp_path):
    write_folder(tmp_path, {"n02119789": 1, "n01440764": 1})
    assert open_folder(tmp_path).model_classes == ((0,), (278,))


def test_images_are_decoded_when_asked_for(tmp_path):
    write_folder(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    source = open_folder(tmp_path)
    np.testing.assert_array_equal(source[1].image, picture(100))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no sub-folders"),
        (["a.png"], r"holds images beside its sub-folders \(a.png\)"),
        (["cat/a.png", "b.jpg"], r"holds images beside its sub-folders \(b.jpg\)"),
        (["cat/a.png", "dog/a.txt"], "dog holds no images"),
    ],
)
def test_what_is_no_image_folder(tmp_path, files, message):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DiffjaxError, match=message):
        open_folder(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(DiffjaxError, match=r"There is no folder .*none"):
        open_folder(tmp_path / "none")
