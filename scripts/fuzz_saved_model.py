"""Writes a small detector of unsafe images, as TensorFlow saves Keras models.

Of the graph there is only what is read: the tables of categories, and who fills and
takes them.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

NAME = "clip_autokeras_binary_nsfw"
LISTS = {1: ("0.500000", "-0.250000"), 3: ("0.125000",)}  # texts by column


def write_detector(
    path: Path,
    width: int = 4,
    *,
    hidden: Sequence[int] = (3, 2),
    lists: Mapping[int, Sequence[str]] = LISTS,
    **changed: Any,
) -> dict[str, np.ndarray]:
    """Write the zip file.

    Args:
        path: of it.
        width: of the features.
        hidden: widths of the layers before the last.
        lists: of categories, by column.
        **changed: settings of the Keras layers, by their classes.

    Returns:
        The variables by their names.
    """
    rng = np.random.default_rng(0)
    widths = [width, *hidden, 1]
    arrays = {
        "layer_with_weights-1/mean": rng.normal(0, 0.1, width),
        "layer_with_weights-1/variance": rng.uniform(0.5, 2, width),
    }
    for k, (a, b) in enumerate(pairwise(widths), 2):
        arrays[f"layer_with_weights-{k}/kernel"] = rng.normal(0, a**-0.5, (a, b))
        arrays[f"layer_with_weights-{k}/bias"] = rng.normal(0, 0.1, b)
    variables = {name: array.astype(np.float32) for name, array in arrays.items()}
    index, data = _table(variables)
    files = {
        "keras_metadata.pb": _field(1, _metadata(width, len(hidden), lists, changed)),
        "saved_model.pb": _field(2, _field(2, _graph(list(lists.values())))),
        "variables/variables.index": index,
        "variables/variables.data-00000-of-00001": data,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{NAME}/{name}", content)
    path.write_bytes(packed.getvalue())
    return variables


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _metadata(
    width: int, n: int, lists: Mapping[int, Sequence[str]], changed: Mapping[str, Any]
) -> bytes:
    kinds = ["InputLayer", "Custom>MultiCategoryEncoding", "Normalization"]
    kinds += ["Dense", "ReLU"] * n + ["Dense", "Activation"]
    settings: dict[str, Any] = {
        "Custom>MultiCategoryEncoding": {
            "encoding": ["int" if c in lists else "none" for c in range(width)]
        },
        "Dense": {"activation": "linear", "use_bias": True},
        "ReLU": {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
        "Activation": {"activation": "sigmoid"},
    }
    layers: list[dict[str, Any]] = []
    for k, kind in enumerate(kinds):
        config = settings.get(kind, {}) | changed.get(kind, {})
        before = [[[f"layer_{k - 1}", 0, 0, {}]]] if k else []
        layer = {"class_name": kind, "name": f"layer_{k}", "config": config}
        layers.append(layer | {"inbound_nodes": before})
    text = json.dumps({"class_name": "Functional", "config": {"layers": layers}})
    return _field(3, "root") + _field(4, "_tf_keras_network") + _field(5, text)


def _node(name: str, op: str, inputs: Sequence[str] = (), value: bytes = b"") -> bytes:
    node = _field(1, name) + _field(2, op)
    node += b"".join(_field(3, each) for each in inputs)
    if value:
        node += _field(5, _field(1, "value") + _field(2, _field(8, value)))
    return _field(1, node)


def _graph(lists: Sequence[Sequence[str]]) -> bytes:
    nodes, tables = [], []
    for k, texts in enumerate(lists):
        keys = _field(1, 7) + b"".join(_field(8, text) for text in texts)
        numbers = np.arange(1, len(texts) + 1, dtype="<i8").tobytes()
        nodes += [
            _node(f"table_{k}", "StatefulPartitionedCall"),
            _node(f"keys_{k}", "Const", value=keys),
            _node(f"numbers_{k}", "Const", value=_field(1, 9) + _field(4, numbers)),
            _node(f"fill_{k}", "Call", (f"table_{k}", f"keys_{k}", f"numbers_{k}")),
        ]
        tables.append(f"table_{k}")
    nodes.append(_node("answer", "Call", ("serving_default_input_1", *tables)))
    nodes.append(_node("serving_default_input_1", "Placeholder"))
    return b"".join(nodes)


def _table(variables: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    """The index, in one block, and the data."""
    entries, data = [(b"", _field(1, 1) + _field(3, _field(1, 1)))], b""
    for name, array in sorted(variables.items()):
        shape = b"".join(_field(2, _field(1, side)) for side in array.shape)
        entry = _field(1, 1) + _field(2, shape)
        entry += _field(4, len(data)) + _field(5, array.nbytes)
        entries.append((f"{name}/.ATTRIBUTES/VARIABLE_VALUE".encode(), entry))
        data += array.tobytes()
    table = b""

    def add(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
        nonlocal table
        block, before = b"", b""
        for key, value in entries:
            pairs = zip(key, before, strict=False)
            shared = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
            block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
            block, before = block + key[shared:] + value, key
        block += (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
        handle = _varint(len(table)) + _varint(len(block))
        table += block + bytes(5)  # not compressed; a checksum that nobody reads
        return handle

    handles = add(entries), add([])
    footer = handles[1] + add([(b"z", handles[0])])
    return table + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"), data
