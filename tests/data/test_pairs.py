"""Pairs of image and label."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_sets import picture, save

from diffjax.data.datasets import source_of
from diffjax.data.tables import open_table
from diffjax.errors import DiffjaxError

ARRAYS = [np.asarray(picture(k)) for k in range(4)]


def test_whatever_holds_an_image(tmp_path):
    path = save(tmp_path / "0.png", picture(0)) or tmp_path / "0.png"
    stream = io.BytesIO()
    Image.fromarray(ARRAYS[2]).save(stream, "PNG")
    given = [
        (path, "cat"),
        {"image": Image.fromarray(ARRAYS[1]), "label": "dog", "id": "rex"},
        [stream.getvalue(), "cat"],
        (jnp.asarray(ARRAYS[3]), "ape"),
    ]
    source = source_of(each for each in given)  # an iterator, read once
    assert source.class_names == ("ape", "cat", "dog")
    assert source.labels().tolist() == [1, 2, 1, 0]
    for array, example in zip(ARRAYS, source, strict=True):
        np.testing.assert_array_equal(example.image, array)
    assert [e.id for e in source] == [str(path), "rex", "00002", "00003"]


def test_names_of_the_classes():
    pairs = list(zip(ARRAYS, (2, np.int64(0), "cat", "1"), strict=True))
    source = source_of(pairs, class_names=["ape", "cat", "dog"])
    assert source.labels().tolist() == [2, 0, 1, 1]
    source = source_of(list(zip(ARRAYS, (2, 0, 1, 1), strict=True)))
    assert source.class_names == ("0", "1", "2")


def test_an_object_that_names_its_classes():
    """As torchvision's data sets do."""

    class Dataset:
        classes = ("ape", "cat")

        def __len__(self):
            return 2

        def __getitem__(self, i):
            if i >= 2:
                raise IndexError
            return Image.fromarray(ARRAYS[i]), i

    assert source_of(Dataset()).class_names == ("ape", "cat")


def test_a_table_numbers_labels_alike(tmp_path):
    for labels in (["b", "a", "b"], [2, 0, 1], ["10", "3", "3"]):
        lines = [f"{k}.png,{label}" for k, label in enumerate(labels)]
        for k in range(3):
            save(tmp_path / f"{k}.png", picture(k))
        (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
        table = open_table(tmp_path / "t.csv")
        pairs = source_of([(tmp_path / f"{k}.png", x) for k, x in enumerate(labels)])
        assert pairs.class_names == table.class_names
        assert pairs.labels().tolist() == table.labels().tolist()


def test_the_fingerprint_is_of_labels_and_content():
    def fingerprint(*labels, arrays=ARRAYS):
        return source_of(list(zip(arrays, labels, strict=True))).fingerprint

    first = fingerprint(0, 1, 0, 1)
    assert fingerprint(0, 1, 0, 1, arrays=[a.copy() for a in ARRAYS]) == first
    assert fingerprint(0, 1, 1, 1) != first
    assert fingerprint(0, 1, 0, 1, arrays=[*ARRAYS[1:], ARRAYS[0]]) != first


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ([], {}, "holds no images"),
        ([ARRAYS[0]], {}, "Entry 0 of the data set is a ndarray"),
        ([(ARRAYS[0], 0), (ARRAYS[0], 0, 1)], {}, "Entry 1 of the data set is a tuple"),
        ([{"image": ARRAYS[0]}], {}, "Entry 0 of the data set is a dict"),
        (["ab"], {}, "Entry 0 of the data set is a str"),
        ([("none.png", 0)], {}, r"no image none\.png"),
        ([(ARRAYS[0], True)], {}, "entry 0 .* a class name or number, not True"),
        ([(ARRAYS[0], 0.5)], {}, "a class name or number"),
        ([(ARRAYS[0], "emu")], {"class_names": ["ape", "cat"]}, "'emu' is neither"),
        ([(ARRAYS[0], 2)], {"class_names": ["ape", "cat"]}, "0 to 1"),
        ([(ARRAYS[0], 0)], {"class_names": ["ape"]}, "at least two"),
        ([(ARRAYS[0], 0)], {"split": "test"}, "no splits"),
        ([(ARRAYS[0], 0)], {"label_column": "y"}, "label_column is of Hugging Face"),
        ({"image": ARRAYS}, {}, "a dict is no data set"),
        (3, {}, "a int is no data set"),
    ],
)
def test_what_is_no_data_set(dataset, options, message):
    with pytest.raises(DiffjaxError, match=message):
        source_of(dataset, **options)


def test_an_image_that_cannot_be_read_fails_alone(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    lazy = Image.new("RGB", (4, 4))
    lazy.close()
    source = source_of([(tmp_path / "bad.png", "a"), (ARRAYS[1], "b")])
    with pytest.raises(DiffjaxError, match=r"bad\.png"):
        source[0]
    assert source[1].label == 1
