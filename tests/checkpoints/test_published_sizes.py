"""Sizes of published files, to the byte, from our lists of their tensors.

A list that lacked a tensor, or had a wrong shape or name, would give another size: this
ties tests/goldens/keys, and with it the name tables, to the real files without any
download.

A safetensors file is eight bytes, a JSON header and the tensors' data. The header is
padded with spaces to a multiple of eight and lists the tensors by falling size of their
dtype, then by name: then the size follows exactly. Files of early 2023 were written by
a version that neither padded nor sorted. There the offsets in the header have more or
fewer digits by the tensors' order; the smallest tensors first give the shortest header
and the largest first the longest, which bounds the size within 5 kB.

Flax's files are nested tables in msgpack, where every number takes as few bytes as it
can: their size follows exactly too, from the names that Flax modules give.
"""

import gzip
import json
import re
from math import prod
from pathlib import Path

import msgpack
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from safetensors.numpy import save

from diffjax.checkpoints.formats import read_tensors

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
BYTES = {"I64": 8, "F32": 4, "F16": 2}
FOUR = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def tensors(name, dtype):
    """Name → (dtype, shape) of a published file; positions are integers."""
    lines = gzip.decompress((KEYS / f"{name}.txt.gz").read_bytes()).decode()
    pairs = (line.split("\t") for line in lines.splitlines())
    return {
        key: (
            "I64" if key.endswith("position_ids") else dtype,
            tuple(map(int, shape.split(","))),
        )
        for key, shape in pairs
    }


def header(files, order):
    """The header's length without padding, and that of the data."""
    content = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in order:
        dtype, shape = files[key]
        start, end = end, end + BYTES[dtype] * prod(shape)
        content[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return len(json.dumps(content, separators=(",", ":"))), end


def size(files):
    """Of a file that today's safetensors writes."""
    order = sorted(files, key=lambda key: (-BYTES[files[key][0]], key))
    length, data = header(files, order)
    return 8 + -(-length // 8) * 8 + data


def bounds(files):
    """Of a file of the same tensors that an early version wrote."""
    rising = sorted(files, key=lambda key: BYTES[files[key][0]] * prod(files[key][1]))
    (least, data), (most, _) = header(files, rising), header(files, rising[::-1])
    return 8 + least + data, 8 + most + data


def stored(name, dtype, change=None):
    """The tensors of a file, as a later version of its class names or keeps them."""
    files = tensors(name, dtype)
    if change == "without positions":  # since transformers 4.31
        return {k: v for k, v in files.items() if not k.endswith("position_ids")}
    if change == "later names":  # since diffusers 0.15
        for new, old in FOUR.items():
            files = {k.replace(f".{old}.", f".{new}."): v for k, v in files.items()}
    return files


# file: size in bytes, as the Hub lists it
EXACT = {
    "runwayml/stable-diffusion-v1-5 unet, non_ema": (
        "sd15-unet",
        "F32",
        None,
        3438167536,
    ),
    "runwayml/stable-diffusion-v1-5 unet, fp16": ("sd15-unet", "F16", None, 1719125304),
    "runwayml/stable-diffusion-v1-5 vae": ("sd-vae", "F32", None, 334643276),
    "runwayml/stable-diffusion-v1-5 text_encoder, fp16": (
        *("sd1-text", "F16", None),
        246144864,
    ),
    "stabilityai/stable-diffusion-xl-base-0.9 text_encoder": (
        *("sd1-text", "F32", None),
        492265880,
    ),
    "stabilityai/stable-diffusion-xl-base-1.0 text_encoder": (
        *("sd1-text", "F32", "without positions"),
        492265168,
    ),
    "stabilityai/stable-diffusion-xl-base-1.0 text_encoder, fp16": (
        *("sd1-text", "F16", "without positions"),
        246144152,
    ),
    "stabilityai/stable-diffusion-xl-base-1.0 unet, fp16": (
        *("sdxl-unet", "F16", None),
        5135149760,
    ),
    "stabilityai/sdxl-turbo unet": ("sdxl-unet", "F32", None, 10270077736),
    "stabilityai/stable-diffusion-xl-base-1.0 text_encoder_2": (
        *("sdxl-text-2", "F32", None),
        2778702264,
    ),
    "stabilityai/sdxl-vae": ("sd-vae", "F32", "later names", 334643268),
    "stabilityai/stable-diffusion-xl-base-1.0 vae, fp16": (
        *("sd-vae", "F16", "later names"),
        167335342,
    ),
    "stabilityai/stable-diffusion-2-1 unet": ("sd2-unet", "F32", None, 3463726504),
    "stabilityai/sd-turbo unet, fp16": ("sd2-unet", "F16", None, 1731904736),
    "stabilityai/sd-turbo text_encoder, fp16": (
        *("sd2-text", "F16", "without positions"),
        680820392,
    ),
    "prs-eth/marigold-v1-0 text_encoder": ("sd2-text", "F32", None, 1361597016),
}
EARLY = {
    "runwayml/stable-diffusion-v1-5 unet": ("sd15-unet", "F32", 3438167540),
    "runwayml/stable-diffusion-v1-5 text_encoder": ("sd1-text", "F32", 492265874),
    "runwayml/stable-diffusion-v1-5 vae, fp16": ("sd-vae", "F16", 167335342),
    "IDKiro/sdxs-512-0.9 text_encoder": ("sd2-text", "F32", 1361597018),
}


@pytest.mark.parametrize("file", EXACT)
def test_to_the_byte(file):
    name, dtype, change, expected = EXACT[file]
    assert size(stored(name, dtype, change)) == expected


@pytest.mark.parametrize("file", EARLY)
def test_early_files_within_the_digits_of_their_offsets(file):
    name, dtype, expected = EARLY[file]
    least, most = bounds(tensors(name, dtype))
    assert least <= expected <= most and most - least < 5000


@pytest.mark.parametrize("file", EXACT)
def test_any_other_list_of_tensors_has_another_size(file):
    name, dtype, change, expected = EXACT[file]
    files = stored(name, dtype, change)
    for key in list(files)[:: max(1, len(files) // 10)]:
        fewer = {k: v for k, v in files.items() if k != key}
        assert size(fewer) != expected
        kind, shape = files[key]
        assert size(files | {key: (kind, (shape[0] + 1, *shape[1:]))}) != expected


def test_this_is_how_safetensors_writes():
    """The layout, on tensors that are small enough to write."""
    files = {
        "b.weight": ("F32", (3, 5)),
        "a.bias": ("F16", (7,)),
        "a.position_ids": ("I64", (1, 9)),
        "c": ("F16", (2, 2, 100)),
    }
    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    for k in range(12):  # every remainder of the header by eight
        files["d" * (k + 1)] = ("F32", (k + 1,))
        arrays = {key: np.zeros(shape, kinds[d]) for key, (d, shape) in files.items()}
        written = save(arrays, metadata={"format": "pt"})
        assert size(files) == len(written)


# -- Flax ---------------------------------------------------------------------------

FLAX = {
    "stabilityai/stable-diffusion-xl-base-1.0 text_encoder": (
        *("sd1-text", "without positions"),
        492248682,
    ),
    "stabilityai/stable-diffusion-xl-base-1.0 vae": ("sd-vae", None, 334623853),
}


def flax_path(key, listed):
    """Where a Flax class keeps a tensor; diffusers' name ``list.0`` ``list_0``."""
    *modules, leaf = key.split(".")
    if leaf == "weight":
        leaf = "scale" if "norm" in modules[-1] else "kernel"
        leaf = "embedding" if modules[-1].endswith("embedding") else leaf
    path = ".".join([*modules, leaf])
    return (re.sub(r"\.(\d+)\.", r"_\1.", path) if listed else path).split(".")


def flax_tree(files, listed, make):
    """The nested table, of what ``make`` makes of shapes."""
    tree = {}
    for key, (_, shape) in files.items():
        *modules, leaf = flax_path(key, listed)
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[leaf] = make(shape)
    return tree


def packed_size(node):
    """Bytes of a table, or of a float32 array by its shape."""
    if isinstance(node, dict):
        head = 1 if len(node) < 16 else 3
        names = sum(len(msgpack.packb(name)) for name in node)
        return head + names + sum(map(packed_size, node.values()))
    data = 4 * prod(node)
    lengths = (2, 3, 5)[(data > 255) + (data > 65535)]  # of the number that says it
    inside = len(msgpack.packb([node, "float32"])) + lengths + data
    return (3, 4, 6)[(inside > 255) + (inside > 65535)] + inside


@pytest.mark.parametrize("file", FLAX)
def test_flax_files_to_the_byte(file):
    name, change, expected = FLAX[file]
    files = stored(name, "F32", change)
    tree = flax_tree(files, name == "sd-vae", lambda shape: shape)
    assert packed_size(tree) == expected


@pytest.mark.parametrize("file", FLAX)
def test_the_loader_knows_these_names(tmp_path, file):
    """With few numbers in each tensor: the same names, in a file that Flax writes."""
    name, change, _ = FLAX[file]
    files = {
        key: (dtype, (1,) * len(shape))
        for key, (dtype, shape) in stored(name, "F32", change).items()
    }
    shapes = flax_tree(files, name == "sd-vae", lambda shape: shape)
    arrays = flax_tree(files, name == "sd-vae", lambda s: np.zeros(s, np.float32))
    data = msgpack_serialize(arrays)
    assert packed_size(shapes) == len(data)
    (tmp_path / "flax_model.msgpack").write_bytes(data)
    found = read_tensors(tmp_path, stem="model")
    assert {key: value.shape for key, value in found.items()} == {
        key: shape for key, (_, shape) in files.items()
    }
