"""Ways to damage a file: of any kind, of JSON, of CSV and of text.

Each takes the content and a generator of random numbers, and returns another content;
a mutation that does not fit the content returns it unchanged.
"""

import io
import json
import random
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

Mutation = Callable[[bytes, random.Random], bytes]

EXTREMES: tuple[Any, ...] = (
    *(0, -1, 1, 2, 0.5, -0.0, 1e-300, 1e300, 2**31, 2**63, 10**9, -(10**9), 10**30),
    *(
        None,
        True,
        False,
        "",
        "x",
        "1",
        "NaN",
        "\0",
        "é",
        "😀",
        "~nosuchuser",
        "a" * 5000,
    ),
    *([], [1], [[]], {}, {"a": 1}, ["a", None], [0.1, "b"]),
)
# as they stand in the text, since Python would not write them
LITERALS = (
    "NaN",
    "-Infinity",
    "1e400",
    "1" * 5000,
    '"\\ud800"',
    "[" * 1500 + "]" * 1500,
)


def flip(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits turned over."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8) if data else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_early(data: bytes, rng: random.Random) -> bytes:
    """Bits of the first bytes, where headers are."""
    head = min(len(data), 200)
    return flip(data[:head], rng) + data[head:]


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))] if data else data


def cut_start(data: bytes, rng: random.Random) -> bytes:
    """The beginning is missing."""
    return data[rng.randrange(len(data)) :] if data else data


def insert(data: bytes, rng: random.Random) -> bytes:
    """Some bytes more."""
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.choice([1, 4, 100])) + data[at:]


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.randint(1, 1 + len(data) // 3))


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A block is there twice."""
    start, end = _block(data, rng)
    return data[:end] + data[start:]


def drop(data: bytes, rng: random.Random) -> bytes:
    """A block is missing."""
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def blank(data: bytes, rng: random.Random) -> bytes:
    """A block of zeros, as after a crash."""
    start, end = _block(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def empty(data: bytes, rng: random.Random) -> bytes:
    """Nothing."""
    return b""


def noise(data: bytes, rng: random.Random) -> bytes:
    """Something else altogether."""
    return rng.randbytes(rng.choice([1, 16, 1000]))


def other(data: bytes, rng: random.Random) -> bytes:
    """Another kind of file under this name, whole or its beginning alone."""
    whole = rng.choice(_others())
    return whole if rng.random() < 0.5 else whole[: rng.randint(4, 40)] + data


@cache
def _others() -> list[bytes]:
    """Small sound files of many kinds."""
    files = [
        b'{"a": 1, "b": [2, 3]}',
        b"[1, 2]",
        b"a,b\n1,2\n",
        b"<html><body>404</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        struct.pack("<Q", 2) + b"{}",  # safetensors without tensors
    ]
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for save in (np.save, np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, array)
        files.append(buffer.getvalue())
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, kind)
        files.append(buffer.getvalue())
    return files


BYTES: dict[str, Mutation] = {
    f.__name__: f
    for f in (
        *(flip, flip_early, cut, cut_start, insert, repeat, drop, blank),
        *(empty, noise, other),
    )
}


def encoded(data: bytes, rng: random.Random) -> bytes:
    """The same text in another encoding."""
    text = data.decode("utf-8", "replace")
    codec = rng.choice(
        ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "utf-7"]
    )
    return text.encode(codec, "replace")


def odd_characters(data: bytes, rng: random.Random) -> bytes:
    """A character that is rarely seen."""
    odd = [
        "\0",
        "\r",
        "\u2028",
        "\ufeff",
        "é",
        "e\u0301",
        "😀",
        '"',
        "\x1b[31m",
        ",",
        "\n",
    ]
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(odd).encode() + data[at:]


def bad_utf8(data: bytes, rng: random.Random) -> bytes:
    """Bytes that are no UTF-8, surrogates of another encoding among them."""
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice([b"\xff", b"\xe9", b"\xed\xa0\x80"]) + data[at:]


def lines(data: bytes, rng: random.Random) -> bytes:
    """Lines in another order, twice, or gone; or other ends of lines."""
    rows = data.split(b"\n")
    what = rng.randrange(4)
    if what == 0:
        rng.shuffle(rows)
    elif what == 1:
        rows.insert(rng.randrange(len(rows) + 1), rng.choice(rows))
    elif what == 2:
        del rows[rng.randrange(len(rows))]
    return (b"\r\n" if what == 3 else b"\n").join(rows)


TEXT: dict[str, Mutation] = {
    f.__name__: f for f in (encoded, odd_characters, bad_utf8, lines)
}


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    found = []
    keys = (
        value.keys()
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


def _changed(
    data: bytes, change: Callable[[Any, Any], None], rng: random.Random
) -> bytes:
    """A JSON text with one place changed; of JSON lines, one line."""
    rows = data.split(b"\n")
    at = 0
    try:
        value = json.loads(data)
    except ValueError:
        at = rng.randrange(len(rows))
        try:
            value = json.loads(rows[at])
        except ValueError:
            return data
    else:
        rows = [data]
    holder = [value]
    places = _places(holder)
    change(*rng.choice(places[:2000]))
    rows[at] = json.dumps(holder[0] if holder else None).encode()
    return b"\n".join(rows)


def swap(data: bytes, rng: random.Random) -> bytes:
    """A value of another type or size."""

    def change(holder: Any, key: Any) -> None:
        holder[key] = rng.choice(EXTREMES)

    return _changed(data, change, rng)


def literal(data: bytes, rng: random.Random) -> bytes:
    """A value that JSON writers do not write."""

    def change(holder: Any, key: Any) -> None:
        holder[key] = "@here@"

    return _changed(data, change, rng).replace(
        b'"@here@"', rng.choice(LITERALS).encode(), 1
    )


def rename(data: bytes, rng: random.Random) -> bytes:
    """A key goes by another name."""

    def change(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[rng.choice([key + "s", key.upper(), "", "x" * 300])] = holder.pop(
                key
            )

    return _changed(data, change, rng)


def remove(data: bytes, rng: random.Random) -> bytes:
    """A key or an entry is missing."""

    def change(holder: Any, key: Any) -> None:
        del holder[key]

    return _changed(data, change, rng)


def nest(data: bytes, rng: random.Random) -> bytes:
    """A value deep inside lists or objects."""
    depth = rng.choice([5, 60, 70, 900])

    def change(holder: Any, key: Any) -> None:
        holder[key] = "@here@"

    opened, closed = rng.choice([("[", "]"), ('{"a":', "}")])
    deep = (opened * depth + "1" + closed * depth).encode()
    return _changed(data, change, rng).replace(b'"@here@"', deep, 1)


JSON: dict[str, Mutation] = {
    f.__name__: f for f in (swap, literal, rename, remove, nest)
}


def cell(data: bytes, rng: random.Random) -> bytes:
    """A cell of a table with another content."""
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    cells = rows[at].split(b",")
    values = [
        *map(str, EXTREMES),
        *LITERALS[:4],
        "99999",
        "999999",
        "-5",
        "²",
        "٣",
        "=1+1",
    ]
    cells[rng.randrange(len(cells))] = rng.choice(values).encode()
    rows[at] = b",".join(cells)
    return b"\n".join(rows)


def columns(data: bytes, rng: random.Random) -> bytes:
    """A column more, fewer, or twice; or another separator."""
    what = rng.randrange(4)
    if what == 0:
        return data.replace(b",", rng.choice([b";", b"\t", b", "]))
    rows = [row.split(b",") for row in data.split(b"\n")]
    at = rng.randrange(len(rows[0]))
    for row in rows:
        if at < len(row):
            row[at : at + 1] = [[], [row[at]] * 2, [row[at], b"more"]][what - 1]
    return b"\n".join(b",".join(row) for row in rows)


CSV: dict[str, Mutation] = {f.__name__: f for f in (cell, columns)}

# by the format of a file
MUTATIONS: dict[str, dict[str, Mutation]] = {
    "bytes": BYTES,
    "text": BYTES | TEXT,
    "json": BYTES | TEXT | JSON,
    "csv": BYTES | TEXT | CSV,
}
