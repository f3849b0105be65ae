"""The readers of text, JSON, CSV and numpy's files: what is wrong, and where."""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest

from diffjax.data.arrays import read_npy, read_npz
from diffjax.errors import DiffjaxError
from diffjax.files import (
    MAX_NESTING,
    read_bytes,
    read_csv,
    read_json,
    read_json_lines,
    read_json_object,
    read_lines,
    read_text,
    regular_file,
    user_path,
)

READERS = {
    "text": read_text,
    "json": read_json,
    "json lines": lambda path: list(read_json_lines(path)),
    "csv": lambda path: list(read_csv(path, ["a"])),
    "npy": read_npy,
    "npz": read_npz,
}


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file(tmp_path, reader):
    read = READERS[reader]
    with pytest.raises(DiffjaxError, match=r"There is no .*gone"):
        read(tmp_path / "gone")
    with pytest.raises(DiffjaxError, match="is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    with pytest.raises(DiffjaxError, match="pipe or a device"):
        read(tmp_path / "pipe")
    with pytest.raises(DiffjaxError, match="pipe or a device"):
        read("/dev/zero")
    with pytest.raises(DiffjaxError, match="cannot be read"):
        read(tmp_path / ("x" * 300))
    with pytest.raises(DiffjaxError, match="user after ~ is unknown"):
        read("~nosuchuser/file")
    with pytest.raises(DiffjaxError, match="null character"):
        read("a\0b")
    with pytest.raises(DiffjaxError, match="half a character"):
        read("a\ud800b")
    if os.geteuid():
        closed = write(tmp_path / "closed", "1")
        closed.chmod(0)
        with pytest.raises(DiffjaxError, match="Permission denied"):
            read(closed)


def test_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a"
    odd = os.fsdecode(b"caf\xe9")  # not UTF-8, and a path all the same
    assert os.fsencode(user_path(odd)) == b"caf\xe9"
    write(tmp_path / odd, "x")
    assert regular_file(tmp_path / odd).name == odd
    assert read_text(tmp_path / odd) == "x"


def test_a_size_is_looked_at_before_reading(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(DiffjaxError, match="1,048,576 MiB; a list may have 256"):
        read_text(path, "list")
    with pytest.raises(DiffjaxError, match="may have 64"):
        read_json(path)
    assert read_bytes(write(path, "12345"), most=5) == b"12345"
    with pytest.raises(DiffjaxError, match="split it"):
        read_bytes(path, most=4)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_is_no_text(tmp_path, mark):
    def text(content):
        return write(tmp_path / "f", mark + content)

    assert read_text(text("é\r\n")) == "é\r\n"
    assert read_lines(text(" a \r\nb\u2028c")) == ["a", "b\u2028c"]
    assert read_json(text('{"a": 1}')) == {"a": 1}
    ((where, value),) = read_json_lines(text('\n{"a": 1}\n'))
    assert value == {"a": 1} and where.endswith("f, line 2")
    ((where, cells),) = read_csv(text('a,b\n"1\n2",3\n'), ["a"])
    assert cells == {"a": "1\n2", "b": "3"} and where.endswith("f, line 3")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_other_encodings(tmp_path, codec):
    path = write(tmp_path / "f", '{"a":\n"é"}'.encode(codec))
    for read in (read_text, read_json, lambda p: list(read_csv(p, ["a"]))):
        with pytest.raises(DiffjaxError, match=r"f is not UTF-8 text.*Save it as UTF"):
            read(path)
    if codec == "utf-16":
        with pytest.raises(DiffjaxError, match="UTF-16"):
            read_text(path)
    if codec == "latin-1":
        with pytest.raises(DiffjaxError, match="line 2 has the byte 0xe9"):
            read_text(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"a": 1}}', "is not JSON"),
        ("nul", r"is not JSON .*line 1 column 1"),
        ("[1,\n2,,]", r"is not JSON .*line 2"),
        ("[NaN]", "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e400]", "the number 1e400 is too large"),
        ("[1" + "0" * 5000 + "]", "1000.* is too large"),
        ("[" * 1000 + "]" * 1000, "nested"),
        ("[" * 100_000, "nested"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "nested"),
        ("[" * 100 + "]" * 100, f"nested more than {MAX_NESTING} deep"),
        ('{"a": [0, {"b": "\\ud800"}]}', r"half a character.* at a\[1\]\.b"),
        ('{"\\udfff": 1}', "half a character"),
    ],
)
def test_json_that_is_refused(tmp_path, content, message):
    path = write(tmp_path / "f.json", content)
    with pytest.raises(DiffjaxError, match=message) as refused:
        read_json(path, remedy="Fetch it again.")
    assert str(path) in str(refused.value) and "Fetch it again." in str(refused.value)
    assert len(str(refused.value)) < 400
    lines = write(tmp_path / "f.jsonl", '{"a": 1}\n' + content.replace("\n", " "))
    if content:
        with pytest.raises(DiffjaxError, match=r"f\.jsonl, line 2 .*"):
            list(read_json_lines(lines))


def test_json_that_is_read(tmp_path):
    values = {"a": [1, 2.5, -(10**30), None, True, "😀 é\u2028"], "b": {"c": {}}}
    for ascii_only in (True, False):
        path = write(tmp_path / "f", json.dumps(values, ensure_ascii=ascii_only))
        assert read_json(path) == read_json_object(path) == values
    nested = write(tmp_path / "f", "[" * MAX_NESTING + "]" * MAX_NESTING)
    read_json(nested)
    with pytest.raises(DiffjaxError, match="not a JSON object"):
        read_json_object(nested)
    with pytest.raises(DiffjaxError, match="line 1 must be an object"):
        list(read_json_lines(nested))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("b,c\n1,2", "must include a, each once, not b, c"),
        ("a,a\n1,2", "must include a, each once"),
        ("a;b\n1;2", r"Commas must separate them, not ';'"),
        ("a\tb\n1\t2", "Commas must separate"),
        ("a,b\n\n1,2,3", "line 3: 3 fields instead of 2"),
        ('a,b\n1,"2', "line 2: unexpected end"),
        ('a,b\n1,"2"x', "line 2:"),
        ("a\n" + "x" * 200_000, "field larger"),
    ],
)
def test_csv_that_is_refused(tmp_path, content, message):
    with pytest.raises(DiffjaxError, match=message) as refused:
        list(read_csv(write(tmp_path / "f.csv", content), ["a"]))
    assert "f.csv, line" in str(refused.value)


ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    np.array(7, np.int16),
    np.zeros((0, 3)),
    np.arange(3, dtype=">i4"),
    np.array(["a", "bc"]),
    np.zeros(2, [("x", "f4"), ("y", "i8")]),
    np.zeros(3, "V0"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_are_read_as_numpy_reads_them(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", x=array, y=array)
    np.savez_compressed(tmp_path / "c.npz", x=array, y=array)
    read = read_npy(tmp_path / "a.npy")
    theirs = np.load(tmp_path / "a.npy")
    assert read.dtype == theirs.dtype and read.shape == theirs.shape
    assert read.tobytes() == theirs.tobytes() and read.flags.writeable
    assert read.flags.f_contiguous == theirs.flags.f_contiguous
    for name in ("a.npz", "c.npz"):
        both = read_npz(tmp_path / name)
        assert list(both) == ["x", "y"]
        assert all(each.tobytes() == theirs.tobytes() for each in both.values())


def header(shape, descr="'<f4'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-len(text) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header"),
        (b"PK\x03\x04", "archive"),
        (b"\x93NUMPY", "header"),
        (b"\x93NUMPY\x09\x00" + b" " * 100, "header"),
        (header("(10,)"), "40 bytes, and it has 0: it is cut"),
        (header("(2,)") + b"1234567", "it is cut"),
        (header("(10**12,)"), "header"),
        (header("(1000000000000,)"), r"3,725\.3 GiB of memory"),
        (header("(100000000,)"), "it is cut"),
        (header("(-1,)"), "shape"),
        (header("(True,)"), "shape"),
        (header("(2, 'a')"), "header"),
        (header("(1,)", "'|O'") + b"12345678", "objects"),
        (header("(1,)", "'nonsense'"), "header"),
        (header("(1,)", "((((((" * 50), "header"),
        (header("(1,)", "__import__('os')"), "header"),
    ],
)
def test_npy_files_that_are_refused(tmp_path, content, message):
    with pytest.raises(DiffjaxError, match=message):
        read_npy(write(tmp_path / "a.npy", content))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    if b"PK" not in content:
        with pytest.raises(DiffjaxError, match=r"a\.npz, x\.npy"):
            read_npz(tmp_path / "a.npz")


def test_any_damaged_byte_of_an_archives_arrays_is_seen(tmp_path):
    whole = io.BytesIO()
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.savez(whole, values)
    data = whole.getvalue()
    with zipfile.ZipFile(whole) as archive:
        (member,) = archive.infolist()
        start = member.header_offset + 30 + len(member.filename)
    path = tmp_path / "a.npz"
    end = data.index(b"PK\x01\x02")
    for place in range(start + 24, end, 7):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DiffjaxError, match=r"a\.npz"):
            read_npz(path)
    for cut in (10, len(data) // 2, len(data) - 1):
        with pytest.raises(DiffjaxError, match=r"a\.npz"):
            read_npz(write(path, data[:cut]))


def test_an_archive_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(10**6), y=np.zeros(10**6))
    assert path.stat().st_size < 50_000
    data = bytearray(path.read_bytes())
    place = -1
    while (place := data.find(b"PK\x01\x02", place + 1)) >= 0:
        data[place + 24 : place + 28] = struct.pack("<I", 2**32 - 2)  # its size
    with pytest.raises(DiffjaxError, match=r"8\.0 GiB of memory; 4 GiB are read"):
        read_npz(write(path, bytes(data)))


def test_an_archive_with_a_password_or_data_after_the_array(tmp_path):
    content = header("(1,)") + b"1234"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content + b"more")
    with pytest.raises(DiffjaxError, match="data after the array"):
        read_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DiffjaxError, match=r"a\.npz cannot be read"):
        read_npz(write(tmp_path / "a.npz", bytes(data)))
