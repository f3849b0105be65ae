"""Tables of image paths and labels."""

import json

import numpy as np
import pytest
from tiny_sets import picture, save

from diffjax.data.tables import open_table
from diffjax.errors import DiffjaxError


@pytest.fixture
def folder(tmp_path):
    """Images a.png, b.png and sub/c,d.png beside the table."""
    for k, name in enumerate(["a.png", "b.png", "sub/c,d.png"]):
        save(tmp_path / name, picture(k))
    return tmp_path


def write(folder, text, name="list.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv(folder):
    text = 'label,path\ndog,b.png\n\ncat,"sub/c,d.png"\ndog,a.png\n'
    source = open_table(write(folder, text))
    assert source.class_names == ("cat", "dog")
    assert source.labels().tolist() == [1, 0, 1]
    assert [e.id for e in source] == ["b.png", "sub/c,d.png", "a.png"]
    np.testing.assert_array_equal(source[1].image, picture(2))
    assert (source.name, source.split) == (str(folder / "list.csv"), "all")


def test_json_lines_are_the_same(folder):
    rows = [("b.png", "dog"), ("sub/c,d.png", "cat"), ("a.png", "dog")]
    lines = [json.dumps({"path": p, "label": c, "more": [1]}) for p, c in rows]
    table = open_table(write(folder, "\n".join(lines), "list.jsonl"))
    text = 'path,label\nb.png,dog\n"sub/c,d.png",cat\na.png,dog\n'
    other = open_table(write(folder, text))
    assert table.class_names == other.class_names
    assert table.fingerprint == other.fingerprint
    for ours, theirs in zip(table, other, strict=True):
        assert (ours.id, ours.label) == (theirs.id, theirs.label)


def test_tables_of_the_hugging_face_hub(folder):
    """metadata.csv and metadata.jsonl of its image folders name files so."""
    text = "file_name,label,caption\na.png,cat,a cat\nb.png,dog,a dog\n"
    source = open_table(write(folder, text, "metadata.csv"))
    assert source.class_names == ("cat", "dog")
    lines = '{"file_name": "a.png", "label": 0}\n{"file_name": "b.png", "label": 1}\n'
    assert len(open_table(write(folder, lines, "metadata.jsonl"))) == 2
    for wrong in ("path,file_name,label\na.png,a.png,x\n", "label\nx\n"):
        with pytest.raises(DiffjaxError, match=r"path \(or file_name\) and label"):
            open_table(write(folder, wrong))


def test_a_large_number_is_a_slip_or_told_of(folder):
    text = "path,label\na.png,0\nb.png,999999\n"  # names would take gigabytes
    with pytest.raises(DiffjaxError, match="999999 is not a class number from 0 to 99"):
        open_table(write(folder, text))
    with pytest.warns(UserWarning, match="20,001 classes to choose from, and 2 of"):
        source = open_table(write(folder, text.replace("999999", "20000")))
    assert len(source.class_names) == 20_001


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_integers_are_class_numbers(folder, name):
    text = "\ufeffpath,label\na.png,3\nb.png,1\n"
    if name == "list.jsonl":
        text = '{"path": "a.png", "label": 3}\n{"path": "b.png", "label": "1"}\n'
    source = open_table(write(folder, text, name))
    assert source.class_names == ("0", "1", "2", "3")
    assert source.labels().tolist() == [3, 1]


def test_one_name_makes_all_names(folder):
    source = open_table(write(folder, "path,label\na.png,10\nb.png,x\n"))
    assert source.class_names == ("10", "x")


def test_ids(folder):
    text = "id,path,label\nfirst,a.png,x\n,b.png,y\n7,a.png,y\n"
    assert [e.id for e in open_table(write(folder, text))] == ["first", "b.png", "7"]


def test_absolute_paths(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    text = f"path,label\n{folder / 'a.png'},x\n"
    np.testing.assert_array_equal(
        open_table(write(elsewhere, text))[0].image, picture(0)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"list\.csv lists no images"),
        ("path,label\n", r"list\.csv lists no images"),
        ("file,label\na.png,x\n", "line 2: the columns must include path .* file, lab"),
        ("path,kind\n", "line 1: the columns must include path and label"),
        ("path,label\na.png,x\nb.png\n", "line 3: 1 fields instead of 2"),
        ("path,label\na.png,x\n,x\n", "line 3: the path is missing"),
        ("path,label\na.png, \n", "line 2: the label must be a class name or number"),
        ("path,label\na.png,-1\n", "line 2: the label -1 is not a class number"),
        ("path,label\na.png,9999999\n", "line 2: the label 9999999 is not a class"),
        ("path,label\na.png,x\nz.png,x\n", r"line 3: there is no image .*z\.png"),
        ("path,label\nsub,x\n", "line 2: there is no image .*sub"),
        ("path,label\na.png,x\na.png,y\n", r"line 3: the id 'a.png' .* line 2 too"),
        ('path,label\n"a.png,x\n', r"line 2: unexpected end of data"),
    ],
)
def test_malformed_csv(folder, text, message):
    with pytest.raises(DiffjaxError, match=message):
        open_table(write(folder, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", "line 1: the columns must include path"),
        ('\n{"path": "a.png"', "line 2 is not JSON"),
        ('["a.png", 1]', "line 1 must be an object"),
        ('{"path": "a.png", "label": true}', "line 1: the label must be"),
        ('{"path": "a.png", "label": 1.0}', "line 1: the label must be"),
        ('{"path": 5, "label": 1}', "line 1: the path is missing"),
        ('{"path": "a\\u0000.png", "label": 1}', "line 1: the path is missing"),
        ('{"path": "a.png", "label": 1, "id": []}', "line 1: the id must be"),
        ("[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_malformed_json(folder, text, message):
    with pytest.raises(DiffjaxError, match=message):
        open_table(write(folder, text, "list.jsonl"))


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DiffjaxError, match="There is no table"):
        open_table(tmp_path / "none.csv")
    with pytest.raises(DiffjaxError, match=r"name it \.csv or \.jsonl"):
        open_table(tmp_path / "none.txt")
    (tmp_path / "latin.csv").write_bytes(b"path,label\n\xe9.png,x\n")
    with pytest.raises(DiffjaxError, match="not UTF-8"):
        open_table(tmp_path / "latin.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DiffjaxError, match="is a folder"):
        open_table(tmp_path / "folder.csv")
