"""Files of class numbers."""

import pytest

from diffjax.data.classes import read_classes
from diffjax.errors import DiffjaxError


def read(tmp_path, text, n_classes=20):
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    return read_classes(path, n_classes)


@pytest.mark.parametrize(
    "text",
    [
        "1 3 4 5 19",
        "19,5,4,3,1",
        "1\n3:6\n19\n",
        "# mine\r\n1, 3:6 # three of them\r\n\r\n19:20",
        "\ufeff1 3:5 5 19",
    ],
)
def test_numbers_and_ranges(tmp_path, text):
    assert read(tmp_path, text) == (1, 3, 4, 5, 19)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"names 0 class\(es\)"),
        ("# 1 2 3", r"names 0 class\(es\)"),
        ("7", r"names 1 class\(es\)"),
        ("1 2\n3 x", "line 2: 'x' is neither"),
        ("1 -2", "line 1: '-2' is neither"),
        ("1 2.5", "line 1: '2.5' is neither"),
        ("1 2:", "line 1: '2:' is neither"),
        ("1 ²", "line 1: '²' is neither"),
        ("1 " + "9" * 5000, "is neither"),
        ("1 5:5", "the range 5:5 is empty"),
        ("1 6:5", "the range 6:5 is empty"),
        ("1 20", "line 1: 20 goes beyond the data set's last class, 19"),
        ("1 18:21", "line 1: 18:21 goes beyond"),
        ("1 2\n0:3", "line 2: class 1 is there already"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    with pytest.raises(DiffjaxError, match=rf"classes\.txt.*{message}"):
        read(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DiffjaxError, match=r"no file .*none\.txt"):
        read_classes(tmp_path / "none.txt", 20)
    with pytest.raises(DiffjaxError, match="is a folder"):
        read_classes(tmp_path, 20)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("1 2 # é".encode("latin-1"))
    with pytest.raises(DiffjaxError, match="not UTF-8"):
        read_classes(latin, 20)
