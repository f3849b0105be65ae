"""DiT as the program of its paper saves it; SiT and REPA, whose programs came of it.

Three things differ from what diffusers makes of facebookresearch/DiT's .pt files,
besides the names in ``naming.ORIGINAL_DIT``:

    blocks.N.attn.qkv  [3d, d]  →  to_q, to_k, to_v  [d, d] each
    timestep  ω_i = 10000^(−i / 128)  and not  10000^(−i / 127)
    ε of every layer norm  1e-6

The frequencies are those that the weights were trained with, so that a file in this
layout computes with them. ``pos_embed`` is compared with the sinusoids that are
computed: nothing else tells a model for 512 pixels from one for 256.

SiT's and REPA's networks are DiT's, and so are their names, but that

    SiT     predicts a velocity; where the last layer has 2c channels for c, the latter
            half are no variance: the program leaves them out, untrained
    REPA    predicts a velocity; ``projectors`` compare a block's states with those of
            another network in training, and nothing of the prediction comes of them

Which of the three a network is, the pipeline's scheduler says. Time runs another way
in each, so a file of another program than that is refused where the file shows it.

Sources: Ma et al. 2024 (arXiv 2401.08740), Yu et al. 2024 (2410.06940).
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.models.dit import DiTTransformer2DConfig, sincos_positions

_POSITIONS = "pos_embed"
_QKV = re.compile(r"(blocks\.\d+\.attn)\.qkv\.(weight|bias)")
_TOLERANCE = 1e-2  # bfloat16 rounds by 4e-3; another resolution is off by 1
_LAST = ("final_layer.linear.weight", "final_layer.linear.bias")
_PROJECTORS = "projectors."

Tensors = Mapping[str, np.ndarray]


def is_original(tensors: Tensors) -> bool:
    """Whether tensors have the names of the paper's program."""
    return "x_embedder.proj.weight" in tensors


def original_config(config: DiTTransformer2DConfig) -> DiTTransformer2DConfig:
    """The config of diffusers' copy, with the numbers that the original has."""
    return replace(config, freq_shift=0.0, norm_eps=1e-6)


def of_program(
    tensors: Tensors, config: DiTTransformer2DConfig, scheduler: str, source: str
) -> dict[str, np.ndarray]:
    """The tensors that predict, of a file that DiT's, SiT's or REPA's program saved.

    Args:
        tensors: under the original's names.
        config: of the network that they are for.
        scheduler: its class, which says how the network is used.
        source: the file, for messages.

    Raises:
        DiffjaxError: if another program saved them than the scheduler stands for.
    """
    if normed := [key for key in tensors if ".attn.q_norm." in key]:
        raise DiffjaxError(
            f"{source} has {normed[0]}: it was trained with --qk-norm, which is not "
            "supported. The published files are without."
        )
    projected = any(key.startswith(_PROJECTORS) for key in tensors)
    if projected and scheduler != "REPAScheduler":
        raise DiffjaxError(
            f"{source} has projectors, so REPA's program saved it, and time runs "
            f"otherwise there than {scheduler} says. Name a model of REPA's with "
            "--model, such as repa-xl-2-256."
        )
    if not projected and scheduler == "REPAScheduler":
        warnings.warn(
            f"{source} has no projectors, as files of REPA's program do. Time runs the "
            "other way in SiT's: if it is one, name a model such as sit-xl-2-256.",
            stacklevel=2,
        )
    found = {k: t for k, t in tensors.items() if not k.startswith(_PROJECTORS)}
    c, area = config.in_channels, config.patch_size**2
    last = [found[key] for key in _LAST if key in found]
    if any(len(tensor) != 2 * c * area for tensor in last):
        return found
    pairs = [tensor.reshape(area, 2, c, *tensor.shape[1:]) for tensor in last]
    untrained = not any(pair[:, 1].any() for pair in pairs)
    if config.out_channels == 2 * c and untrained:
        raise DiffjaxError(
            f"{source} predicts no variance: those weights are zero, as SiT's program "
            "leaves them. Name a model of SiT's with --model, such as sit-xl-2-256."
        )
    if scheduler == "SiTScheduler" and config.out_channels in (None, c):
        if not untrained:
            warnings.warn(
                f"{source} has weights for a variance, which SiT's program leaves at "
                "zero. If DiT's saved it, name a model such as dit-256.",
                stacklevel=2,
            )
        for key, pair in zip(_LAST, pairs, strict=False):
            found[key] = pair[:, 0].reshape(c * area, *pair.shape[3:])
    return found


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
