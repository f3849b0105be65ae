"""LoRA: changes of low rank to a model's weights, merged when they are read.

    W ← W + scale · (alpha / rank) · B A          (in float32, before any rounding)

with A [rank, in] and B [out, rank]; of a convolution A is [rank, in, h, w], and B
[out, rank, 1, 1]. Hu et al. 2021 (arXiv 2106.09685). alpha is the rank where a file
does not say. Several LoRAs add up. A model with one is another model: its fingerprint
is that of the merged weights.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.lora_names import (
    DENOISER,
    check_kind,
    cleaned,
    modules,
    place_of,
)
from diffjax.checkpoints.mappings import ParameterPath, torch_shape
from diffjax.checkpoints.naming import Names
from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object, user_path

# in a folder, as diffusers and peft name them
FILES = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
)
SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Change:
    """What is added to one weight: scale · B A, of some rows of B."""

    down: np.ndarray
    up: np.ndarray
    scale: float

    def __call__(self) -> Float[np.ndarray, "o n"]:
        """ΔW, float32, with everything but the outputs in one axis."""
        rank = self.down.shape[0]
        up = self.up.reshape(-1, rank).astype(np.float32)
        down = self.down.reshape(rank, -1).astype(np.float32)
        return np.float32(self.scale) * (up @ down)


@dataclass(frozen=True)
class Changes:
    """What LoRAs change in one network.

    Attributes:
        of: by parameter, what is added to it.
        files: the LoRAs that do.
        identity: a text that differs if they do.
    """

    of: Mapping[ParameterPath, Sequence[Change]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    identity: str = ""


@dataclass(frozen=True)
class Pair:
    """Both matrices of a module, and what they are scaled by."""

    key: str
    down: np.ndarray
    up: np.ndarray
    scale: float


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A file, and how much of it is added.

    Attributes:
        path: of the file.
        scale: of all its changes.
        digest: 16 hex digits of the file.
        pairs: by component and name of the module.
    """

    path: Path
    scale: float
    digest: str
    pairs: Mapping[tuple[str, str], Pair]

    def record(self) -> dict[str, Any]:
        """For a run's header; plain JSON values."""
        return {"file": str(self.path), "sha256": self.digest, "scale": self.scale}


class Loras:
    """All LoRAs of a model; each network claims what is its own."""

    def __init__(self, asked: Sequence[str | Path]) -> None:
        """Read them.

        Args:
            asked: each a file, or a folder with one, and after a colon the scale.

        Raises:
            DiffjaxError: if one is missing or damaged, or of another kind.
        """
        self.files = [read_lora(each) for each in asked]
        self._left = [dict(lora.pairs) for lora in self.files]

    def claim(
        self, component: str, config: Any, names: Names, state: nnx.State[Any, Any]
    ) -> Changes:
        """What changes in a network.

        Args:
            component: which one.
            config: its config.
            names: of its weights, as diffusers or transformers have them.
            state: its parameters, as shapes.

        Raises:
            DiffjaxError: if a change has another shape than its weight.
        """
        wanted = DENOISER if component in ("unet", "transformer") else component
        table = modules(config, names, state)
        flat = dict(nnx.to_flat_state(state))
        found: dict[ParameterPath, list[Change]] = {}
        used = []
        for lora, left in zip(self.files, self._left, strict=True):
            mine = {
                place: table[name]
                for place in left
                if place[0] == wanted and (name := cleaned(place[1])) in table
            }
            for place, paths in mine.items():
                shapes = [
                    torch_shape(flat[path].shape, str(path[-1])) for path in paths
                ]
                for path, change in zip(
                    paths, _split(lora, left.pop(place), shapes), strict=True
                ):
                    found.setdefault(path, []).append(change)
            if mine:
                used.append(lora)
        identity = repr([(each.digest, each.scale) for each in used])
        files = tuple(each.path for each in used)
        return Changes(found, files, identity if used else "")

    def check(self, model: object) -> None:
        """Raise a DiffjaxError for changes that no network of the model has claimed."""
        for lora, left in zip(self.files, self._left, strict=True):
            if not left:
                continue
            keys = [pair.key for pair in left.values()]
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            raise DiffjaxError(
                f"{lora.path} does not fit {model}, which lacks {len(keys)} of the "
                f"{len(lora.pairs)} modules that it changes: {', '.join(keys[:SHOWN])}"
                f"{more}. It was trained for another family of models, or for a part "
                "that is left out."
            )


def read_lora(asked: str | Path) -> Lora:
    """A LoRA's file, with its scale after a colon.

    Raises:
        DiffjaxError: if it is missing, damaged or of another kind.
    """
    path, scale = _split_scale(asked)
    if path.is_dir():
        inside = [path / name for name in FILES if (path / name).is_file()]
        if not inside:
            raise DiffjaxError(f"{path} has no LoRA: none of {', '.join(FILES)}.")
        path = inside[0]
    if not path.exists():
        raise DiffjaxError(
            f"There is no LoRA {path}. It is FILE or FILE:SCALE, as "
            "pixel-art.safetensors:0.8."
        )
    tensors = read_tensors(path)
    check_kind(path, list(tensors))
    settings = _settings(path)
    parts: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    keys: dict[tuple[str, str], str] = {}
    foreign = []
    for key, tensor in tensors.items():
        place = place_of(key)
        if place is None:
            foreign.append(key)
            continue
        where = place.component, place.module
        parts.setdefault(where, {})[place.role] = tensor
        keys.setdefault(where, key)
    if foreign or not parts:
        raise DiffjaxError(
            f"{path} is no LoRA: it has {', '.join(foreign[:SHOWN]) or 'nothing'}, "
            "where a LoRA has pairs of matrices, named lora_A and lora_B or lora_down "
            "and lora_up."
        )
    pairs = {
        where: _pair(path, keys[where], where, roles, scale, settings)
        for where, roles in parts.items()
    }
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return Lora(path=path, scale=scale, digest=digest, pairs=pairs)


def _split_scale(asked: str | Path) -> tuple[Path, float]:
    text = str(asked)
    name, colon, number = text.rpartition(":")
    if not colon or user_path(text).exists():
        return user_path(text), 1.0
    try:
        scale = float(number)
    except ValueError:
        return user_path(text), 1.0  # a name with a colon, which is not there
    if not math.isfinite(scale):
        raise DiffjaxError(f"The scale of {name} is {number}; it must be a number.")
    return user_path(name), scale


def _pair(
    path: Path,
    key: str,
    where: tuple[str, str],
    roles: Mapping[str, np.ndarray],
    scale: float,
    settings: Mapping[str, Any],
) -> Pair:
    """Both matrices of a module, if they go together."""
    down, up = roles.get("down"), roles.get("up")
    if down is None or up is None:
        lacks = "the second (lora_B, lora_up)" if up is None else "the first (lora_A)"
        raise DiffjaxError(
            f"{path} is incomplete: of the two matrices of {key} it lacks {lacks}. "
            "Download it again."
        )
    fits = up.ndim == down.ndim and up.ndim in (2, 4) and down.shape[0] == up.shape[1]
    if not fits or (up.ndim == 4 and up.shape[2:] != (1, 1)) or not down.shape[0]:
        raise DiffjaxError(
            f"{path}: the two matrices of {key} have the shapes {list(down.shape)} and "
            f"{list(up.shape)}, which do not go together."
        )
    rank = down.shape[0]
    alpha = roles.get("alpha")
    if alpha is None:
        value, root = _alpha_of(settings, where, rank)
    else:
        value, root = (
            float(alpha.reshape(-1)[0]) if alpha.size == 1 else math.nan,
            False,
        )
    if not math.isfinite(value):
        raise DiffjaxError(f"{path}: the alpha of {key} is not a number.")
    return Pair(key, down, up, scale * value / (math.sqrt(rank) if root else rank))


def _alpha_of(
    settings: Mapping[str, Any], where: tuple[str, str], rank: int
) -> tuple[float, bool]:
    """alpha of a module by what peft keeps, and whether it is divided by √rank."""
    component, module = where
    prefixes = (
        ("unet.", "transformer.") if component == DENOISER else (f"{component}.",)
    )
    own = dict(settings)
    for key, value in settings.items():
        for prefix in prefixes:
            if key.startswith(prefix):
                own[key.removeprefix(prefix)] = value
    alpha = own.get("lora_alpha", rank)
    patterns = own.get("alpha_pattern") or {}
    if isinstance(patterns, dict):
        for pattern, value in patterns.items():
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                alpha = value
                break
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    return (float(alpha) if number else math.nan), bool(own.get("use_rslora"))


def _settings(path: Path) -> dict[str, Any]:
    """What peft keeps of a LoRA: in the file's header, or in a file beside it."""
    beside = path.with_name("adapter_config.json")
    if path.name.startswith("adapter_model.") and beside.is_file():
        return dict(read_json_object(beside, "config of a LoRA", "Download it again."))
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        kept = (file.metadata() or {}).get("lora_adapter_metadata")
    try:
        found = json.loads(kept) if kept else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DiffjaxError(
            f"{path}: lora_adapter_metadata in its header is damaged; download it "
            "again."
        )
    return found


def _split(lora: Lora, pair: Pair, shapes: Sequence[Sequence[int]]) -> list[Change]:
    """A module's change to each of the weights that it stands for."""
    rows = [shape[0] for shape in shapes]
    columns = math.prod(shapes[0][1:])
    given = [pair.up.shape[0], *pair.down.shape[1:]]
    if pair.up.shape[0] != sum(rows) or math.prod(given[1:]) != columns:
        raise DiffjaxError(
            f"{lora.path} does not fit the model: {pair.key} changes a weight of the "
            f"shape {given}, which is {[sum(rows), *shapes[0][1:]]} here. It was "
            "trained for another model."
        )
    ends = np.cumsum(rows)
    return [
        Change(pair.down, pair.up[end - n : end], pair.scale)
        for end, n in zip(ends, rows, strict=True)
    ]
