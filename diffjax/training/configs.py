"""The config.json files of small networks, in the words of diffusers."""

from typing import Any

LATENT = 4  # channels, as Stable Diffusion's and DiT's autoencoders have

# The forward process of Stable Diffusion 1 and 2. PNDM is how their pipelines sample.
STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def vae_config(
    widths: tuple[int, ...], *, size: int = 32, groups: int = 8
) -> dict[str, Any]:
    """A small AutoencoderKL: one resnet a level, no attention."""
    n = len(widths)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * n,
        "up_block_types": ["UpDecoderBlock2D"] * n,
        "block_out_channels": list(widths),
        "layers_per_block": 1,
        "latent_channels": LATENT,
        "norm_num_groups": groups,
        "act_fn": "silu",
        "sample_size": size,
        "mid_block_add_attention": False,
    }


def unet_config(
    widths: tuple[int, ...],
    attends: tuple[bool, ...],
    *,
    condition: int,
    groups: int = 8,
    heads: int = 4,
) -> dict[str, Any]:
    """A UNet2DConditionModel for 16×16, that attends to text on the given levels."""
    down = ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 16,
        "in_channels": LATENT,
        "out_channels": LATENT,
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(down)],
        "block_out_channels": list(widths),
        "layers_per_block": 1,
        "norm_num_groups": groups,
        "cross_attention_dim": condition,
        "attention_head_dim": heads,  # diffusers means the number of heads
        "use_linear_projection": True,
    }


def text_config(width: int, *, layers: int, heads: int = 4) -> dict[str, Any]:
    """A CLIPTextModel for prompts of 32 tokens."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


# The forward process of DiT. DDIM is how its pipeline samples.
DIT = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
}


# A flow, as Stable Diffusion 3's, its noise levels spread evenly.
FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 1.0,
}


def dit_config(
    width: int, *, heads: int, layers: int, size: int, variance: bool = True
) -> dict[str, Any]:
    """A DiTTransformer2DModel, that may learn the variance: 2×2 patches, 10 classes."""
    return {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "in_channels": LATENT,
        "out_channels": 2 * LATENT if variance else LATENT,
        "num_layers": layers,
        "sample_size": size,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 10,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
    }


def resnet_config(
    widths: tuple[int, ...], *, layers: int, groups: int = 8
) -> dict[str, Any]:
    """A ResNet of ``baselines``; classes and resolution are those of the data."""
    return {
        "_class_name": "ResNet",
        "block_out_channels": list(widths),
        "layers_per_block": layers,
        "norm_num_groups": groups,
    }
