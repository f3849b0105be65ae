"""DiT as the program of its paper saves it: facebookresearch/DiT's .pt files.

Three things differ from what diffusers makes of them, besides the names in
``naming.ORIGINAL_DIT``:

    blocks.N.attn.qkv  [3d, d]  →  to_q, to_k, to_v  [d, d] each
    timestep  ω_i = 10000^(−i / 128)  and not  10000^(−i / 127)
    ε of every layer norm  1e-6

The frequencies are those that the weights were trained with, so that a file in this
layout computes with them. ``pos_embed`` is compared with the sinusoids that are
computed: nothing else tells a model for 512 pixels from one for 256.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.models.dit import DiTTransformer2DConfig, sincos_positions

_POSITIONS = "pos_embed"
_QKV = re.compile(r"(blocks\.\d+\.attn)\.qkv\.(weight|bias)")
_TOLERANCE = 1e-2  # bfloat16 rounds by 4e-3; another resolution is off by 1

Tensors = Mapping[str, np.ndarray]


def is_original(tensors: Tensors) -> bool:
    """Whether tensors have the names of the paper's program."""
    return "x_embedder.proj.weight" in tensors


def original_config(config: DiTTransformer2DConfig) -> DiTTransformer2DConfig:
    """The config of diffusers' copy, with the numbers that the original has."""
    return replace(config, freq_shift=0.0, norm_eps=1e-6)


def split_attention(
    tensors: Tensors, config: DiTTransformer2DConfig, source: str
) -> dict[str, np.ndarray]:
    """The tensors with queries, keys and values apart, as views.

    Args:
        tensors: under the original's names.
        config: of the network that they are for.
        source: the file, for messages.

    Raises:
        DiffjaxError: if its position table is that of another resolution.
    """
    _check_positions(tensors, config, source)
    found: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        match = _QKV.fullmatch(key)
        if match is None or len(tensor) % 3:
            found[key] = tensor
            continue
        attention, leaf = match.groups()
        thirds = np.split(tensor, 3)
        names = (f"{attention}.to_{part}.{leaf}" for part in "qkv")
        found |= dict(zip(names, thirds, strict=True))
    return found


def _check_positions(
    tensors: Tensors, config: DiTTransformer2DConfig, source: str
) -> None:
    table = tensors.get(_POSITIONS)
    if table is None:
        return
    n = config.sample_size // config.patch_size
    expected = sincos_positions(config.features, n, n, n)[None]
    if table.shape != expected.shape:
        edge = isqrt(table.shape[1]) if table.ndim == 3 else 0
        raise DiffjaxError(
            f"{source}: {_POSITIONS} has the shape {list(table.shape)}, expected "
            f"{list(expected.shape)}: its latents have an edge of "
            f"{edge * config.patch_size}, and the model's config.json says "
            f"sample_size={config.sample_size}. Name the model for its resolution, "
            "such as dit-512 in place of dit-256."
        )
    if not np.allclose(table.astype(np.float32), expected, atol=_TOLERANCE):
        raise DiffjaxError(
            f"{source}: {_POSITIONS} is not the table of sinusoids that this model "
            "computes. It was made by another program than DiT's."
        )
