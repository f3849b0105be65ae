"""Stable Diffusion 1, 2 and XL as their own programs save them, all in one file.

    model.diffusion_model.…                  the U-Net
    model_ema.diffusion_model…               its averaged weights; names have no dots
    first_stage_model.…                      the autoencoder
    cond_stage_model.transformer.…           SD 1's text encoder, as transformers has it
    cond_stage_model.model.…                 SD 2's, as open_clip has it
    conditioner.embedders.0.transformer.…    XL's first one, as SD 1's
    conditioner.embedders.1.model.…          and its second, as SD 2's

A network's weights are also published alone, in the same layout without the prefix.
The U-Net's blocks are counted through, not by level: its first convolution is
input_blocks.0, and each resnet, with its transformer, and each halving is one more.
open_clip differs besides in two layouts:

    attn.in_proj_weight  [3d, d]  →  q_proj, k_proj, v_proj  [d, d] each
    text_projection      [d, p]   →  a linear map's weight   [p, d]

Sources: CompVis/stable-diffusion, Stability-AI/generative-models,
mlfoundations/open_clip.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from diffjax.checkpoints.components import option
from diffjax.checkpoints.naming import CLIP_TEXT, UNET, Names
from diffjax.checkpoints.single_file import AVERAGED, AVERAGED_PREFIX, PREFIXES
from diffjax.errors import DiffjaxError
from diffjax.models.autoencoder import AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig, CLIPTextWithProjectionConfig
from diffjax.models.config import per_block
from diffjax.models.unet_config import UNet2DConditionConfig

Tensors = Mapping[str, np.ndarray]

# names that each component has without a prefix
_ALONE = {
    "unet": "input_blocks.0.0.weight",
    "vae": "encoder.down.0.block.0.norm1.weight",
    "text_encoder": "transformer.resblocks.0.ln_1.weight",
    "text_encoder_2": "transformer.resblocks.0.ln_1.weight",
}
# what a whole file holds besides
IGNORED = {
    r"(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?": "a table of "
    "the schedule, which its config says",
    r"betas|(posterior|lvlb|logvar|denoiser\.sigmas).*": "a table of the schedule",
    r"model_ema\.(decay|num_updates)": "of the averaging",
    r"scale_factor|global_step|v_pred|ztsnr": "not of a network",
    r"embedding_manager\..*": "of textual inversion in training, and empty",
    r"cond_stage_model\.logit_scale": "of CLIP's loss",
    r"conditioner\.embedders\.\d\.(model\.)?logit_scale": "of CLIP's loss",
}
_IN_CLIP = {
    **CLIP_TEXT.ignored,
    r"vision_model\..*": "of CLIP's other half",
    r"logit_scale": "of CLIP's loss",
}
# ours → theirs, in a resnet
_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
_FUSED = re.compile(r"(.*\.attn)\.in_proj_(weight|bias)")


def is_original(component: str, tensors: Tensors) -> bool:
    """Whether tensors have these programs' names, of a whole model or a component."""
    return is_whole(tensors) or _ALONE.get(component) in tensors


def is_whole(tensors: Tensors) -> bool:
    """Whether tensors are those of a whole model in one file."""
    known = tuple(prefix for each in PREFIXES.values() for prefix in each)
    return any(key.startswith(known) for key in tensors)


def part(
    component: str,
    tensors: Tensors,
    config: Any,
    source: str,
    variant: str | None = None,
) -> tuple[dict[str, np.ndarray], Names]:
    """One network's tensors, and how they are named.

    Args:
        component: which one: "unet", "vae", "text_encoder" or "text_encoder_2".
        tensors: of the file, a whole model's or the component's alone.
        config: of the network.
        source: the file, for messages.
        variant: "ema" for a U-Net's averaged weights, "non_ema" for the others; they
            are taken too, with a warning, if there is a choice and none is made.

    Raises:
        DiffjaxError: if the file lacks it, or holds what nobody knows.
    """
    found = dict(tensors)
    if is_whole(tensors):
        found = _of_whole(component, tensors, source, variant)
    if component == "unet":
        assert isinstance(config, UNet2DConditionConfig)
        check_inputs(found, config.in_channels, source)
        return found, unet_names(config)
    if component == "vae":
        return found, autoencoder_names(config)
    if _ALONE[component] in found:
        return _split(found), open_clip_names(config)
    return found, replace(CLIP_TEXT, ignored=_IN_CLIP)


def components(tensors: Tensors) -> tuple[str, ...]:
    """The components that a whole file holds."""
    return tuple(
        component
        for component, prefixes in PREFIXES.items()
        if any(key.startswith(prefixes) for key in tensors)
    )


def has_averaged(tensors: Tensors) -> bool:
    """Whether a whole file holds averaged weights besides."""
    return any(key.startswith(AVERAGED_PREFIX) for key in tensors)


def check_inputs(unet: Tensors, channels: int, source: str) -> None:
    """Raise a DiffjaxError if a U-Net has further inputs than a latent's channels."""
    first = unet.get(_ALONE["unet"])
    if first is not None and first.ndim == 4 and first.shape[1] != channels:
        raise DiffjaxError(
            f"{source} is of a U-Net with {first.shape[1]} input channels instead of "
            f"{channels}; inpainting and other models with further inputs are not "
            "supported."
        )


def _of_whole(
    component: str, tensors: Tensors, source: str, variant: str | None
) -> dict[str, np.ndarray]:
    """The tensors of a component, without their prefix."""
    holds = components(tensors)
    if component not in holds:
        raise DiffjaxError(
            f"{source} has no {component}: it holds {', '.join(holds)}. Name one with "
            f"{option(component)}."
        )
    known = tuple(prefix for each in PREFIXES.values() for prefix in each)
    unknown = [
        key
        for key in tensors
        if not key.startswith((*known, AVERAGED_PREFIX))
        and not any(re.fullmatch(pattern, key) for pattern in IGNORED)
    ]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise DiffjaxError(
            f"{source} holds what no Stable Diffusion is known to have: "
            f"{', '.join(unknown[:5])}{more}. It is another kind of model, or another "
            "program's; convert it to a folder in the diffusers layout."
        )
    found = {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        for prefix in PREFIXES[component]
        if key.startswith(prefix)
    }
    if component != "unet" or not has_averaged(tensors):
        return found
    if variant is None:
        warnings.warn(
            f"{source} holds averaged weights of its U-Net too, which --variant "
            f"{AVERAGED} (variant= in Python) takes. The others are taken, as "
            "diffusers does; --variant non_ema does so without this note.",
            stacklevel=2,
        )
    return _averaged(found, tensors, source) if variant == AVERAGED else found


def _averaged(unet: Tensors, tensors: Tensors, source: str) -> dict[str, np.ndarray]:
    """The averaged weights under the names of the others."""
    names = {AVERAGED_PREFIX + key.replace(".", ""): key for key in unet}
    there = {key for key in tensors if key.startswith(AVERAGED_PREFIX)}
    if wrong := sorted(there ^ names.keys()):
        raise DiffjaxError(
            f"{source}: its averaged weights are not those of the same network; "
            f"{wrong[0]} is in one of the two alone. Leave --variant {AVERAGED} away."
        )
    return {key: tensors[name] for name, key in names.items()}


def unet_names(config: UNet2DConditionConfig) -> Names:
    """A U-Net's names, which its numbers of blocks and layers decide."""
    blocks = list(_unet_blocks(config))
    # transformers have norm1 and norm2 too, which keep their names
    in_resnets = [
        (f"{ours}.{name}", f"{theirs}.{new}")
        for ours, theirs in blocks
        if ".resnets." in ours
        for name, new in _RESNET
        if name.startswith("norm")
    ]
    return Names(
        renames=(
            *in_resnets,
            *blocks,
            *(each for each in _RESNET if not each[0].startswith("norm")),
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
            *UNET.renames,
        )
    )


def _unet_blocks(config: UNet2DConditionConfig) -> Iterator[tuple[str, str]]:
    """Our names and theirs of all that has a number."""
    n = len(config.block_out_channels)
    layers = per_block(config.layers_per_block, n, "layers_per_block")
    i = 1
    for level in range(n):
        block = f"down_blocks.{level}"
        for layer in range(layers[level]):
            yield f"{block}.resnets.{layer}", f"input_blocks.{i}.0"
            yield f"{block}.attentions.{layer}", f"input_blocks.{i}.1"
            i += 1
        if level < n - 1:
            yield f"{block}.downsamplers.0.conv", f"input_blocks.{i}.0.op"
            i += 1
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"
    i = 0
    for level, kind in enumerate(config.up_block_types):
        block = f"up_blocks.{level}"
        for layer in range(layers[n - 1 - level] + 1):
            yield f"{block}.resnets.{layer}", f"output_blocks.{i}.0"
            yield f"{block}.attentions.{layer}", f"output_blocks.{i}.1"
            i += 1
        # the doubling comes after the last resnet and its transformer
        place = 2 if kind == "CrossAttnUpBlock2D" else 1
        yield f"{block}.upsamplers.0.conv", f"output_blocks.{i - 1}.{place}.conv"


def autoencoder_names(config: AutoencoderKLConfig) -> Names:
    """An autoencoder's names, whose decoder counts its levels from the other end."""
    n = len(config.block_out_channels)
    up = [(f"up_blocks.{i}", f"up.{n - 1 - i}") for i in range(n)]
    return Names(
        renames=(
            *up,
            ("down_blocks", "down"),
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0", "mid.attn_1"),
            ("resnets", "block"),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
            ("conv_shortcut", "nin_shortcut"),
            ("group_norm", "norm"),
            ("attention.to_q", "q"),
            ("attention.to_k", "k"),
            ("attention.to_v", "v"),
            ("attention.to_out", "proj_out"),
            ("conv_norm_out", "norm_out"),
        ),
        ignored={
            r"loss\..*": "of training: a discriminator's",
            r"model_ema\..*": "averaged weights of it",
        },
    )


def open_clip_names(config: CLIPTextConfig) -> Names:
    """The names of open_clip's text encoder, apart from what ``_split`` does."""
    ignored = {
        r"logit_scale": "of CLIP's loss",
        r"attn_mask": "a buffer",
        # SD 2 takes the states before the last layer, which no config counts
        rf"transformer\.resblocks\.{config.num_hidden_layers}\..*": "not used",
    }
    if not isinstance(config, CLIPTextWithProjectionConfig):
        ignored[r"text_projection\.weight"] = "only used for the pooled output"
    return Names(
        renames=(
            ("position_embedding", "positional_embedding"),
            ("layers", "transformer.resblocks"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("self_attn", "attn"),
            ("fc1", "c_fc"),
            ("fc2", "c_proj"),
            ("final_layer_norm", "ln_final"),
        ),
        ignored=ignored,
    )


def _split(tensors: Tensors) -> dict[str, np.ndarray]:
    """open_clip's tensors in the layouts of linear maps and tables, as views."""
    found: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        match = _FUSED.fullmatch(key)
        if match and tensor.ndim and not len(tensor) % 3:
            attention, leaf = match.groups()
            names = (f"{attention}.{part}_proj.{leaf}" for part in "qkv")
            found |= dict(zip(names, np.split(tensor, 3), strict=True))
        elif key == "positional_embedding":
            found[f"{key}.weight"] = tensor
        elif key == "text_projection":
            found[f"{key}.weight"] = tensor.T
        else:
            found[key] = tensor
    return found
