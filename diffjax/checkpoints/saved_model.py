"""A Keras model as TensorFlow 2 saves it, read from a zip file without TensorFlow.

    keras_metadata.pb       which layers there are: JSON in a protobuf
    saved_model.pb          the graph, and in it the constants: a protobuf
    variables/variables.index                    where each array lies: a string table
    variables/variables.data-00000-of-00001      the arrays

A protobuf is a sequence of (number of a field, value), and so is each value that is a
message. A string table, LevelDB's, ends in where its index lies; that is a block that
says where the other blocks lie, whose keys are stored without what they have in common
with the key before. The zip's checksums are compared. Nothing that is read is run.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.checkpoints.torch_files import damaged
from diffjax.errors import DiffjaxError
from diffjax.files import read_bytes

MOST = 2**26  # bytes of the zip file, and of each file in it
_FILES = ("keras_metadata.pb", "saved_model.pb", "variables/variables.index")
_DATA = "variables/variables.data-00000-of-00001"
_MAGIC = bytes.fromhex("57fb808b247547db")  # the end of a string table
_FLOAT32, _TEXT, _INT64 = 1, 7, 9  # TensorFlow's numbers of types


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the graph.

    Attributes:
        op: what it does.
        inputs: names of the nodes that it takes.
        value: of a constant of texts or whole numbers, a list; else None.
    """

    op: str
    inputs: tuple[str, ...]
    value: list[Any] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedModel:
    """What is read of a model.

    Attributes:
        config: of the Keras model.
        nodes: of the graph, by their names.
        variables: float32 arrays by their names.
    """

    config: Mapping[str, Any]
    nodes: Mapping[str, Node]
    variables: Mapping[str, np.ndarray]


def read_saved_model(path: Path) -> SavedModel:
    """Read a zip file that has the folder of a model in it.

    Raises:
        DiffjaxError: if it is missing, damaged, too large, or something else.
    """
    packed = read_bytes(path, "saved model", MOST)
    try:
        files = _unpacked(packed)
        return SavedModel(
            config=_keras_config(files["keras_metadata.pb"]),
            nodes=_nodes(files["saved_model.pb"]),
            variables=_variables(files["variables/variables.index"], files[_DATA]),
        )
    except DiffjaxError:
        raise
    except Exception as error:  # on damage zipfile and the parsers raise anything
        raise damaged(path, error) from error


def _unpacked(packed: bytes) -> dict[str, bytes]:
    """The four files, by their places in the model's folder."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        found = {}
        for name in (*_FILES, _DATA):
            members = [
                m for m in archive.infolist() if f"/{m.filename}".endswith(f"/{name}")
            ]
            if len(members) != 1:
                raise ValueError(f"it has {len(members)} files {name}, not one")
            if members[0].file_size > MOST:
                raise ValueError(f"{name} is too large")
            found[name] = archive.read(members[0])  # which compares the checksum
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number is too long")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: their numbers, and an int or the bytes of each."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}[key & 7]
        if at + size > len(data):
            raise ValueError("a message ends too early")
        yield key >> 3, data[at : at + size]
        at += size


def _all(data: bytes, *numbers: int) -> list[Any]:
    """The values of a field; of several numbers, in the message within the message."""
    found = [data]
    for number in numbers:
        found = [v for each in found for n, v in _fields(each) if n == number]
    return found


def _one(data: bytes, number: int, otherwise: Any) -> Any:
    """The value of a field; of several the last counts."""
    return (_all(data, number) or [otherwise])[-1]


def _keras_config(data: bytes) -> dict[str, Any]:
    for node in _all(data, 1):
        if _one(node, 3, b"") == b"root":
            config: dict[str, Any] = json.loads(_one(node, 5, b""))["config"]
            return config
    raise ValueError("keras_metadata.pb has no root")


def _nodes(data: bytes) -> dict[str, Node]:
    found = {}
    for node in _all(data, 2, 2, 1):  # meta graph, its graph, nodes
        tensors = [
            _one(_one(entry, 2, b""), 8, None)
            for entry in _all(node, 5)
            if _one(entry, 1, b"") == b"value"
        ]
        found[_one(node, 1, b"").decode()] = Node(
            op=_one(node, 2, b"").decode(),
            inputs=tuple(name.decode() for name in _all(node, 3)),
            value=_constant(tensors[0]) if tensors and tensors[0] else None,
        )
    return found


def _constant(tensor: bytes) -> list[Any] | None:
    kind = _one(tensor, 1, 0)
    if kind == _TEXT:  # of which some are no text, as the graph of objects
        return [text.decode("utf-8", "replace") for text in _all(tensor, 8)]
    if kind == _INT64:
        return list(np.frombuffer(_one(tensor, 4, b""), "<i8").tolist())
    return None


def _block(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block that lies where a handle says."""
    start, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    block = table[start : start + size]
    if len(block) != size or table[start + size] != 0:
        raise ValueError("a block of the index is compressed or ends too early")
    restarts = int.from_bytes(block[-4:], "little")
    at, end, key = 0, size - 4 * (restarts + 1), b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key, at = key[:shared] + block[at : at + own], at + own
        yield key, block[at : at + length]
        at += length


def _variables(table: bytes, data: bytes) -> dict[str, np.ndarray]:
    if table[-8:] != _MAGIC:
        raise ValueError("variables.index is no table of variables")
    footer, at = table[-48:], 0
    for _ in range(2):  # over the handle of another index
        _, at = _varint(footer, at)
    found = {}
    for _, handle in _block(table, footer[at:]):
        for key, entry in _block(table, handle):
            if not key:
                if _one(entry, 1, 1) != 1 or _one(entry, 2, 0) != 0:
                    raise ValueError("variables are in several files, or big-endian")
            elif _one(entry, 1, 0) == _FLOAT32:
                shape = [_one(side, 1, 0) for side in _all(_one(entry, 2, b""), 2)]
                start, size = _one(entry, 4, 0), _one(entry, 5, 0)
                if size != 4 * math.prod(shape) or start + size > len(data):
                    raise ValueError(f"{key.decode()} does not fit its place")
                flat = np.frombuffer(data[start : start + size], "<f4")
                name = key.decode().removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
                found[name] = flat.reshape(shape)
    return found
