"""Image folders."""

import os

import numpy as np
import pytest
from PIL import Image
from tiny_sets import picture, save, write_folder

from diffjax.data.datasets import open_source
from diffjax.data.folders import open_folder
from diffjax.data.imagenet import imagenet_classes, imagenet_names, readable_names
from diffjax.data.presets import prompts_file
from diffjax.data.prompts import Prompts
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
        (["cat/a.png", "dog/a.txt"], "1 of 2 class folders .*dog.*1 .txt"),
    ],
)
def test_what_is_no_image_folder(tmp_path, files, message):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DiffjaxError, match=message):
        open_folder(tmp_path)


def divided(tmp_path, *names):
    for k, name in enumerate(names):
        write_folder(tmp_path / name, {"dog": 1 + k, "cat": 1})


@pytest.mark.parametrize("split", ["val", "validation", "dev"])
def test_folders_of_splits_are_no_classes(tmp_path, split):
    divided(tmp_path, "train", "val")
    with pytest.raises(DiffjaxError, match=r"divided into train, val\. .*--split val"):
        open_source(str(tmp_path))
    source = open_source(str(tmp_path), split)
    assert (source.name, source.split) == (str(tmp_path), "val")
    assert source.class_names == ("cat", "dog") and len(source) == 3
    alone = open_source(str(tmp_path / "val"))  # the same ids, hence the same noise
    assert [e.id for e in alone] == [e.id for e in source]
    assert alone.fingerprint == source.fingerprint
    with pytest.raises(DiffjaxError, match=r"no split of .* 'test'; .*train, val"):
        open_source(str(tmp_path), "test")


def test_one_split_alone_and_others_in_capitals(tmp_path):
    divided(tmp_path, "Training")
    with pytest.raises(DiffjaxError, match="--split Training"):
        open_folder(tmp_path)
    assert len(open_folder(tmp_path, "train")) == 2


def test_files_beside_the_splits(tmp_path):
    divided(tmp_path, "train", "test")
    (tmp_path / "devkit").mkdir()
    (tmp_path / "devkit" / "readme.txt").write_text("no image")
    assert len(open_folder(tmp_path, "test")) == 3


def test_a_class_may_be_called_train(tmp_path):
    write_folder(tmp_path, {"train": 1, "car": 1})
    assert open_folder(tmp_path).class_names == ("car", "train")
    save(tmp_path / "train" / "old" / "a.png", picture(0))
    with pytest.warns(UserWarning, match="train are taken for classes.*in car"):
        assert open_folder(tmp_path).class_names == ("car", "train")
    with pytest.raises(DiffjaxError, match="has no splits"):
        open_folder(tmp_path, "train")


def test_splits_without_classes(tmp_path):
    write_folder(tmp_path, {"train": 1, "test": 1})
    with pytest.raises(DiffjaxError, match="test, train, called like splits"):
        open_folder(tmp_path)


def test_links_are_followed_and_cycles_end(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    write_folder(data, {"cat": 1})
    write_folder(elsewhere, {"dogs": 2, "more": 1})
    (data / "dog").symlink_to(elsewhere / "dogs")
    (data / "dog" / "deep").symlink_to(elsewhere / "more")
    (data / "cat" / "back").symlink_to(data)  # a cycle
    (data / "cat" / "up").symlink_to("/")  # another, and a large one
    (data / "cat" / "self").symlink_to(data / "cat")
    (data / "cat" / "gone.png").symlink_to(tmp_path / "gone")
    message = r"Left out: 1 link\(s\) that lead nowhere; 3 link\(s\) that lead back"
    with pytest.warns(UserWarning, match=message):
        source = open_folder(data)
    ids = ["cat/0.png", "dog/0.png", "dog/1.png", "dog/deep/0.png"]
    assert [example.id for example in source] == ids


def test_what_is_left_out_is_counted(tmp_path, recwarn):
    write_folder(tmp_path, {"cat": 1, "dog": 1})
    open_folder(tmp_path)
    assert not recwarn
    for name in ("a.heic", "b.heic", "c.txt", ".DS_Store", "without"):
        (tmp_path / "cat" / name).touch()
    (tmp_path / "labels.txt").touch()
    with pytest.warns(UserWarning) as noted:
        assert len(open_folder(tmp_path)) == 2
    assert str(noted[0].message) == (
        f"{tmp_path}: Left out: 5 file(s) of other suffixes than images have (2 .txt, "
        "2 .heic, 1 without); 1 name(s) that begin with a dot."
    )


def test_names_that_are_not_utf_8(tmp_path):
    write_folder(tmp_path, {os.fsdecode(b"caf\xe9"): 1, "tea": 1})
    with pytest.warns(UserWarning, match="not UTF-8"):
        source = open_folder(tmp_path)
    assert source.class_names == ("caf\\xe9", "tea")
    assert source[0].id == "caf\\xe9/0.png"
    source[0].id.encode()


def test_a_folder_with_its_table(tmp_path):
    save(tmp_path / "a.png", picture(0))
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,cat\n")
    with pytest.raises(DiffjaxError, match=r"Open the table .*metadata\.csv"):
        open_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path):
    write_folder(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "cat" / "deep").mkdir(mode=0)
    with pytest.raises(DiffjaxError, match=r"deep cannot be read .Permission"):
        open_folder(tmp_path)


def test_wordnet_ids_become_names(tmp_path):
    write_folder(tmp_path, {"n02119789": 1, "n01440764": 1})
    source = open_folder(tmp_path)
    assert readable_names(source.class_names) == ["tench", "kit fox"]
    dogs = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel"]
    assert imagenet_classes(dogs) == ((151,), (152,))
    assert readable_names(dogs) == ["Chihuahua", "Japanese spaniel"]
    assert imagenet_classes(["n01440764", "n01440764_x"]) is None  # twice the same
    with pytest.warns(UserWarning, match=r"1 of 2 .*n99999999.*give prompts"):
        assert readable_names(["n99999999", "a_b"]) == ["n99999999", "a b"]


def test_names_of_imagenet_are_those_of_its_prompts():
    prompts = Prompts.read_csv(prompts_file("imagenet"))
    assert imagenet_names() == prompts.class_names


def test_missing_folder(tmp_path):
    with pytest.raises(DiffjaxError, match=r"There is no folder .*none"):
        open_folder(tmp_path / "none")
