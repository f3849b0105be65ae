"""Names and layouts of torch checkpoints ⇄ parameters of our modules. Strict.

Our attribute names are the torch ones but for the renames in the tables of ``naming``.
Layouts:

    linear  [out, in]        ⇄ kernel [in, out]
    conv    [out, in, h, w]  ⇄ kernel [h, w, in, out]
    1×1 convolution in the checkpoint, linear here: [out, in, 1, 1] ⇄ [in, out]
    norm    weight           ⇄ scale
    norm    running_mean     ⇄ mean                   (of a batch norm; and var)
    table   weight           ⇄ embedding

Filling accounts for everything: each tensor is used or ignored for a stated reason,
each parameter is filled, each shape is equal. Anything else is one error that
lists all differences.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffjax.checkpoints.naming import Names
from diffjax.errors import DiffjaxError

ALIGNMENT = 64  # bytes; of arrays that JAX shares with its CPU "devices"

ParameterPath = tuple[Any, ...]  # of attribute names and list indices
Changes = Mapping[ParameterPath, Sequence[Callable[[], np.ndarray]]]

_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}  # their bits
_PART = 1 << 20  # numbers that are looked at together
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "mean": "running_mean",  # of a batch norm
    "var": "running_var",
}


def without_wrappers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors without what torch's wrappers put before every name.

    DataParallel and DistributedDataParallel write ``module.``, compile ``_orig_mod.``.
    """
    for _ in range(4):  # one may wrap another
        for prefix in ("module.", "_orig_mod."):
            if tensors and all(key.startswith(prefix) for key in tensors):
                tensors = {k.removeprefix(prefix): t for k, t in tensors.items()}
    return dict(tensors)


def torch_names(path: ParameterPath, names: Names, blocks: int) -> list[str]:
    """Every torch name under which the parameter at ``path`` is stored."""
    *modules, leaf = map(str, path)  # a module's own numbers keep their name
    name = ".".join((*modules, _LEAVES.get(leaf, leaf)))
    for ours, torch in names.renames:
        if ours in name:  # most are not, and to look is quick
            # whole dotted parts only, so that "to_out" leaves "to_out_2" alone
            name = re.sub(rf"(?<![^.]){re.escape(ours)}(?![^.])", torch, name)
    if "*" not in name:
        return [name]
    return [name.replace("*", str(i)) for i in range(blocks)]


def fill(
    state: nnx.State[Any, Any],
    tensors: Mapping[str, np.ndarray],
    names: Names,
    source: str,
    changes: Changes | None = None,
) -> nnx.State[Any, Any]:
    """The abstract ``state`` with every parameter taken from ``tensors``, on the host.

    Arguments and errors are those of ``match``; parameters keep the state's dtypes.
    ``changes`` are added to parameters in float32, before they get theirs: functions
    that return ΔW as [out, all else].
    Each is copied once, out of the file and into our layout, and nothing of the file
    is held on to: JAX takes the copies as they are where the host is the device.
    """
    arrays = match(state, tensors, names, source)
    flat = nnx.to_flat_state(state)
    blocks = _count_blocks(path for path, _ in flat)

    def filled(path: ParameterPath, leaf: Any) -> Any:
        array = arrays[path]
        for change in (changes or {}).get(path, ()):
            shape = torch_shape(leaf.shape, str(path[-1]))
            delta = _to_ours(change().reshape(shape), str(path[-1]), leaf.ndim)
            array = array.astype(np.float32) + delta
        array = _copied(array, np.dtype(leaf.dtype))
        if not all_finite(array):
            name = torch_names(path, names, blocks)[0]
            raise _not_finite(f"{source}: {name}", arrays[path], array)
        return leaf.replace(array)

    with np.errstate(over="ignore"):  # a number that is too large for its dtype
        return nnx.from_flat_state((path, filled(path, leaf)) for path, leaf in flat)


def all_finite(array: np.ndarray) -> bool:
    """Whether every number is finite, found without a second array of its size."""
    if not array.size:
        return True
    exponent = _EXPONENTS.get(str(array.dtype))
    if exponent is None:  # both are NaN if one number is
        return bool(np.isfinite(array.min()) and np.isfinite(array.max()))
    # NumPy takes long to compare these; all ones in the exponent is what is not finite
    bits = array.view(np.uint16).ravel(order="K")
    parts = np.array_split(bits, -(-len(bits) // _PART))
    return all(int((part & exponent).max()) < exponent for part in parts)


def match(
    state: nnx.State[Any, Any],
    tensors: Mapping[str, np.ndarray],
    names: Names,
    source: str,
) -> dict[ParameterPath, np.ndarray]:
    """Each parameter's array, in our layout: views of ``tensors``, never copies.

    Args:
        state: of a module under ``nnx.eval_shape``; gives paths and shapes.
        tensors: torch names and layouts.
        names: the table of this kind of network.
        source: the file, for messages.

    Raises:
        DiffjaxError: one for all missing, unexpected, misshapen and unequally
            repeated tensors.
    """
    flat = dict(nnx.to_flat_state(state))
    blocks = _count_blocks(flat)
    found: dict[str, str] = {}
    twice: list[str] = []  # an old and a present name of one tensor in one file
    for key in tensors:
        present = key
        for pattern, replacement in names.aliases:
            present = re.sub(pattern, replacement, present)
        if found.setdefault(present, key) != key:
            twice.append(key)
    missing: list[str] = []
    misshapen: list[str] = []
    unequal: list[str] = []
    matched: dict[ParameterPath, np.ndarray] = {}
    for path, parameter in flat.items():
        keys = torch_names(path, names, blocks)
        missing += [key for key in keys if key not in found]
        arrays = [tensors[found.pop(key)] for key in keys if key in found]
        if not arrays:
            continue
        first = arrays[0]
        unequal += [
            key
            for key, array in zip(keys[1:], arrays[1:], strict=False)
            if not np.array_equal(array, first)
        ]
        array = _to_ours(first, str(path[-1]), parameter.ndim)
        if array.shape != parameter.shape:
            wanted = torch_shape(parameter.shape, str(path[-1]))
            misshapen.append(f"{keys[0]}: {list(first.shape)}, expected {wanted}")
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            misshapen.append(f"{keys[0]}: {array.dtype}, expected a float type")
        else:
            matched[path] = array
    unexpected = twice + [
        key
        for present, key in found.items()
        if not any(re.fullmatch(pattern, present) for pattern in names.ignored)
    ]
    problems = [
        _listing("missing", missing),
        _listing("unexpected", unexpected),
        _listing("of another shape or type", misshapen),
        _listing("repeated in every block, but not equal", unequal),
    ]
    if any(problems):
        raise DiffjaxError(
            f"{source} does not fit its config.json:\n"
            + "\n".join(problem for problem in problems if problem)
            + "\nCheck that weights and config.json belong together, or download "
            "both again."
        )
    return matched


def to_torch(state: nnx.State[Any, Any], names: Names) -> dict[str, np.ndarray]:
    """The inverse of ``match``: torch names and layouts, float arrays.

    Linear maps come out as [out, in] also where diffusers stores a 1×1 convolution
    (``use_linear_projection: false``); write configs that say true.
    """
    flat = dict(nnx.to_flat_state(state))
    blocks = _count_blocks(flat)
    return {
        key: _to_theirs(np.asarray(parameter[...]), str(path[-1]))
        for path, parameter in flat.items()
        for key in torch_names(path, names, blocks)
    }


def _not_finite(what: str, stored: np.ndarray, array: np.ndarray) -> DiffjaxError:
    if all_finite(stored):
        return DiffjaxError(
            f"{what} holds numbers that are too large for {array.dtype}; use bfloat16 "
            "or float32."
        )
    return DiffjaxError(
        f"{what} holds numbers that are NaN or infinite. The file is damaged, or its "
        "training went wrong: download it again, or take another checkpoint."
    )


def _copied(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """In row-major order at an address that JAX need not copy from; read-only."""
    size = array.size * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + size].view(dtype).reshape(array.shape)
    np.copyto(copy, array, casting="unsafe")  # between float types, as ``match`` saw
    copy.flags.writeable = False
    return copy


def _count_blocks(flat: Iterable[ParameterPath]) -> int:
    return len({path[1] for path in flat if path[0] == "transformer_blocks"})


def _to_ours(array: np.ndarray, leaf: str, ndim: int) -> np.ndarray:
    if leaf == "embedding" and array.ndim == ndim + 1 and len(array) == 1:
        return array.squeeze(0)  # a table of positions, for a batch of one
    if leaf != "kernel":
        return array
    if array.ndim == 4 and ndim == 2 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _to_theirs(array: np.ndarray, leaf: str) -> np.ndarray:
    if leaf != "kernel":
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def torch_shape(shape: tuple[int, ...], leaf: str) -> list[int]:
    """The shape in a checkpoint of a parameter of ours."""
    # a broadcast scalar has the shape and takes no memory
    return list(_to_theirs(np.broadcast_to(np.float32(0), shape), leaf).shape)


def _listing(title: str, lines: list[str], most: int = 20) -> str:
    if not lines:
        return ""
    shown = "".join(f"\n    {line}" for line in sorted(lines)[:most])
    rest = f"\n    … and {len(lines) - most} more" if len(lines) > most else ""
    return f"  {title} ({len(lines)}):{shown}{rest}"
