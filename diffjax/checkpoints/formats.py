"""The weight files of one component, read under torch's names in torch's layout.

Whatever the file format, ``read_tensors`` returns what the component's torch
``state_dict`` holds. Flax files differ in two ways, undone here (H, W are a kernel's
extents, I and O its channels):

    dense kernel  [I, O]        →  weight  [O, I]
    conv kernel   [H, W, I, O]  →  weight  [O, I, H, W]
    resnets_0/norm1/scale       →  resnets.0.norm1.weight

Arrays are read-only views of the file wherever the format allows, so a model is not
held in memory twice. Nothing that is read is ever executed.
"""

import json
import mmap
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from diffjax.checkpoints.components import DIFFUSERS_STEM, TRANSFORMERS_STEM
from diffjax.checkpoints.torch_files import damaged, load_torch, state_dict
from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object, regular_file

Tensors = dict[str, np.ndarray]

# torch's stem: (the stem of Flax files, the stem of .bin and .pt files)
_OTHER_STEMS = {
    DIFFUSERS_STEM: ("diffusion_flax_model", "diffusion_pytorch_model"),
    TRANSFORMERS_STEM: ("flax_model", "pytorch_model"),
}

# What Flax modules call ``name_0, name_1, …`` torch calls ``name.0, name.1, …``.
# Only these: linear_1, conv1 or proj_out_2 are names of their own.
_FLAX_LISTS = re.compile(
    r"^(down_blocks|up_blocks|resnets|attentions|downsamplers|upsamplers"
    r"|transformer_blocks|to_out|net)_(\d+)$"
)

_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


# What may stand where a file's name says which variant of the weights it holds, such
# as fp16, bf16, ema or non_ema; a shard's number is none.
_VARIANT = r"(?P<variant>(?![\w-]*-\d+-of-\d+)[\w-]+)"
WEIGHTS = re.compile(r".*\.(safetensors|msgpack|bin|pt|pth|ckpt|h5|gguf|onnx)")


def weight_sets(names: Iterable[str], stem: str) -> dict[str | None, list[list[str]]]:
    """All sets of weight files among a folder's file names.

    Returns:
        By variant, None for the plain weights: its sets, best first. The first name of
        a set is the file itself, or the index of the shards that follow it. Safetensors
        come first since they are mapped, not read; ``.bin`` and ``.pt`` last, because
        they need torch.
    """
    present = sorted(set(names))
    flax, torch = _OTHER_STEMS[stem]
    sets: dict[str | None, list[list[str]]] = {}
    for base, suffix in (
        (stem, "safetensors"),
        (flax, "msgpack"),
        (torch, "bin"),
        (torch, "pt"),
    ):
        for first in (
            rf"{base}\.{suffix}",
            rf"{base}\.{_VARIANT}\.{suffix}",
            rf"{base}\.{suffix}\.index\.json",
            rf"{base}\.{suffix}\.index\.{_VARIANT}\.json",
            # as diffusers once named them
            rf"{base}\.{suffix}\.{_VARIANT}\.index\.json",
        ):
            for match in filter(None, map(re.compile(first).fullmatch, present)):
                variant = match.groupdict().get("variant")
                found = [match.string]
                if match.string.endswith(".json"):
                    number, v = r"-\d+-of-\d+", f"\\.{variant}" if variant else ""
                    shard = rf"{base}({v}{number}|{number}{v})\.{suffix}"
                    found += filter(re.compile(shard).fullmatch, present)
                sets.setdefault(variant, []).append(found)
    return sets


def weight_files(
    names: Iterable[str], stem: str, *, where: str, variant: str | None = None
) -> tuple[str | None, list[str]]:
    """Pick one set of weight files among a folder's file names.

    Args:
        names: of the files.
        stem: of the component's weights.
        where: the folder, for messages.
        variant: the one to take if it is there. Otherwise, and without one, the plain
            weights are taken, or the only variant where there are none.

    Returns:
        The variant, and the file itself, or the index of the shards that follow it.

    Raises:
        DiffjaxError: if there are no weights, or several variants to choose from.
    """
    names = list(names)
    sets = weight_sets(names, stem)
    if not sets:
        raise _no_weights(where, stem, names)
    if variant not in sets:
        if None not in sets and len(sets) > 1:
            raise DiffjaxError(
                f"{where} has weights in the variants {', '.join(map(str, sets))}, and "
                "none without: choose with --variant (variant= in Python)."
            )
        variant = None if None in sets else next(iter(sets))
    return variant, sets[variant][0]


def read_tensors(
    path: str | Path, *, stem: str = DIFFUSERS_STEM, variant: str | None = None
) -> Tensors:
    """Read one component's tensors under torch's names, in torch's layout.

    Args:
        path: a weight file, an index of shards, or a folder that has either under
            one of the names that ``weight_sets`` knows.
        stem: for a folder, ``"diffusion_pytorch_model"`` for what diffusers saves
            and ``"model"`` for what transformers saves: ``STEMS`` knows.
        variant: for a folder, as ``weight_files`` has it.

    Returns:
        Arrays by name, in the dtype of the file (bfloat16 as ml_dtypes has it).
        They are read-only views of the file where the format allows.

    Raises:
        DiffjaxError: if there are no weights, or they are damaged or incomplete, or
            a ``.bin`` or ``.pt`` file is all there is and torch is not installed.
    """
    path = Path(path)
    if path.is_dir():
        names = [entry.name for entry in path.iterdir()]
        taken, files = weight_files(names, stem, where=str(path), variant=variant)
        if taken is not None and taken != variant:
            warnings.warn(
                f"{path} has weights of the variant {taken} alone; they are taken.",
                stacklevel=2,
            )
        path = path / files[0]
    return _read_shards(path) if path.suffix == ".json" else _read_file(path)


def is_weight_file(path: Path) -> bool:
    """Whether a path is a file of a kind that ``read_tensors`` reads by itself."""
    return path.is_file() and path.suffix in _READERS


def _no_weights(where: str, stem: str, names: Iterable[str]) -> DiffjaxError:
    flax, torch = _OTHER_STEMS[stem]
    found = sorted(filter(WEIGHTS.fullmatch, names))
    shown = ", ".join(found[:8]) + (", …" if len(found) > 8 else "")
    return DiffjaxError(
        f"{where} has no weights. Looked for: {stem}.safetensors, {flax}.msgpack, "
        f"{torch}.bin, {torch}.pt; whole, in shards with an index, or as a variant, as "
        f"{stem}.fp16.safetensors. Found: {shown or 'no weight file of any name'}."
    )


def _read_file(path: Path) -> Tensors:
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DiffjaxError(
            f"{path}: cannot read weights of this kind; known are files that end in "
            f"{', '.join(_READERS)}."
        )
    with regular_file(path, "weight file").open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            raise DiffjaxError(
                f"{path} is only a Git LFS pointer, not the weights: run git lfs pull."
            )
    return reader(path)


def _read_shards(index: Path) -> Tensors:
    """Read all shards that an index names; both must list the same tensors."""
    again = "Download it again."
    table = read_json_object(index, "index of shards", again).get("weight_map")
    if not isinstance(table, dict) or not all(
        isinstance(name, str) for name in table.values()
    ):
        raise DiffjaxError(
            f"{index} is no index of shards: it has no weight_map, from names of "
            f"tensors to names of files. {again}"
        )
    shard_of: dict[str, str] = dict(table)
    if ".msgpack" in index.name:
        shard_of = {
            _flax_name(tuple(key.split("/"))): name for key, name in shard_of.items()
        }

    tensors: Tensors = {}
    for name in sorted(set(shard_of.values())):
        # An index is data from afar: it may not lead out of its own folder.
        if Path(name).name != name:
            raise DiffjaxError(
                f"{index} names the shard {name!r}, which is not a file beside it."
            )
        shard = index.parent / name
        if not shard.is_file():
            raise DiffjaxError(
                f"{index} names the shard {name}, which is missing. Download it into "
                f"{index.parent}."
            )
        found = _read_file(shard)
        listed = {key for key, place in shard_of.items() if place == name}
        if wrong := sorted(listed ^ found.keys()):
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise DiffjaxError(
                f"{index} and its shard {name} disagree about {', '.join(wrong[:5])}"
                f"{more}. Download both again, from one revision."
            )
        tensors |= found
    return tensors


def _read_safetensors(path: Path) -> Tensors:
    from ml_dtypes import bfloat16
    from safetensors import SafetensorError, safe_open

    try:
        # The library checks the header against itself and the file's length. The
        # arrays are then mapped here because it would copy each one.
        with safe_open(path, "np"):
            data = np.memmap(path, np.uint8, "r")
        length = int(data[:8].view("<u8")[0])
        header = json.loads(data[8 : 8 + length].tobytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    header.pop("__metadata__", None)

    tensors: Tensors = {}
    for key, entry in header.items():
        code = entry["dtype"]
        if code not in _SAFETENSORS_DTYPES:
            raise DiffjaxError(
                f"{path}: tensor {key} has dtype {code}, which is not supported; "
                "save the weights as float32, float16 or bfloat16."
            )
        dtype = np.dtype(bfloat16 if code == "BF16" else _SAFETENSORS_DTYPES[code])
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        flat = np.asarray(data[start:stop]).view(dtype)
        tensors[key] = flat.reshape(entry["shape"])
    return tensors


def _read_msgpack(path: Path) -> Tensors:
    from flax.serialization import msgpack_restore

    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            # Any buffer will do, whatever the annotation says; a mapped one spares
            # a second copy of the file.
            tree = msgpack_restore(cast(bytes, data))
        leaves = list(_leaves(tree))
    except Exception as error:  # on damage the reader raises nearly anything
        raise damaged(path, error) from error

    tensors: Tensors = {}
    for names, leaf in leaves:
        key = _flax_name(names)
        if not isinstance(leaf, np.ndarray):
            raise DiffjaxError(
                f"{path}: {'/'.join(names)} is not an array but {type(leaf).__name__}."
            )
        if key in tensors:
            raise DiffjaxError(f"{path}: two of its arrays mean the tensor {key}.")
        tensors[key] = _torch_layout(leaf) if names[-1] == "kernel" else leaf
    return tensors


def _leaves(tree: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Paths and leaves of a nested dict; ``"a/b"`` counts as ``"a"``, then ``"b"``."""
    if not isinstance(tree, dict):
        if not names:
            raise TypeError("not a table of arrays")
        yield names, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, (*names, *name.split("/")))


def _flax_name(names: tuple[str, ...]) -> str:
    """The torch name of a Flax parameter's path."""
    *modules, leaf = names
    parts = [_FLAX_LISTS.sub(r"\1.\2", module) for module in modules]
    parts.append("weight" if leaf in ("kernel", "scale", "embedding") else leaf)
    return ".".join(parts)


def _torch_layout(kernel: np.ndarray) -> np.ndarray:
    """A Flax kernel's axes in torch's order, as a view."""
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def _read_torch(path: Path) -> Tensors:
    remedy = (
        "Download it again, or take a safetensors copy of the weights; where you trust "
        "the file, load it in torch and save the model's state_dict() alone."
    )
    state = state_dict(load_torch(path, instead=remedy), path)
    try:
        return {key: torch_array(value) for key, value in state.items()}
    except TypeError as error:  # sparse, quantised or 8-bit floating point
        raise DiffjaxError(
            f"{path} holds a tensor that numpy has no form for ({error}); save the "
            "weights as float32, float16 or bfloat16."
        ) from error


def torch_array(tensor: Any) -> np.ndarray:
    """A torch tensor's memory as an array; numpy has no bfloat16 of its own."""
    import torch
    from ml_dtypes import bfloat16

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return cast(np.ndarray, tensor.view(torch.int16).numpy()).view(bfloat16)
    return cast(np.ndarray, tensor.numpy())


_READERS: dict[str, Callable[[Path], Tensors]] = {
    ".safetensors": _read_safetensors,
    ".msgpack": _read_msgpack,
    ".bin": _read_torch,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".ckpt": _read_torch,
}
