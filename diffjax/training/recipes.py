"""Recipes: everything that decides what a training run makes.

A recipe holds the configs of the networks in the words of diffusers, as they are
written beside the weights, and the numbers of the two training phases. A run is a
function of (recipe, seed, data), so a run resumed under another recipe is refused.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffjax.errors import DiffjaxError


@dataclass(frozen=True, kw_only=True)
class Phase:
    """How one set of parameters is trained: AdamW, warm-up, then cosine to zero.

    Attributes:
        steps: updates in all.
        batch: images a step.
        learning_rate: the highest one, reached after ``warmup`` steps.
        weight_decay: decoupled, on matrices and kernels only.
        clip_norm: the gradient's global norm is cut to this.
        ema_decay: of the averaged weights, which are what is exported.
        log_every: steps a row of the loss log.
        checkpoint_every: steps between checkpoints.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    log_every: int = 50
    checkpoint_every: int = 500


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A Stable Diffusion of any size, and how it is trained on labelled images.

    Attributes:
        name: what the command line calls it.
        summary: one line for people.
        dataset: as tensorflow-datasets calls it; images of one size.
        split: the part that is trained on.
        templates: captions with one {} for the class name.
        empty_caption: the share of images whose caption is "".
        vocabulary: the tokenizer's size at most.
        vae, unet, text_encoder, scheduler: config.json contents. The VAE's
            ``scaling_factor`` and the text encoder's vocabulary size and special
            token ids are measured in the run, and stand in none of these.
        kl_weight: of the autoencoder's divergence from N(0, 1), a latent element,
            against the mean absolute error of a pixel.
        autoencoder: the first phase; trains the VAE.
        denoiser: the second phase; trains U-Net and text encoder together.
        dtype: of the computation; parameters are float32.
    """

    name: str
    summary: str
    dataset: str
    split: str = "train"
    templates: tuple[str, ...]
    empty_caption: float = 0.1
    vocabulary: int = 2000
    vae: Mapping[str, Any]
    unet: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    kl_weight: float = 1e-3
    autoencoder: Phase
    denoiser: Phase
    dtype: str = "float32"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for files and for comparison."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }


TEMPLATES = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a small photo of a {}.",
    "a low resolution photo of a {}.",
    "a close-up photo of a {}.",
    "a good photo of a {}.",
    "a cropped photo of a {}.",
    "a photo of one {}.",
    "a {}.",
    "{}",
)

# The forward process of Stable Diffusion 1 and 2. PNDM is how their pipelines sample.
SCHEDULER = {
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
    *, widths: tuple[int, ...], latent: int, groups: int, size: int
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
        "latent_channels": latent,
        "norm_num_groups": groups,
        "act_fn": "silu",
        "sample_size": size,
        "mid_block_add_attention": False,
    }


def unet_config(
    *,
    widths: tuple[int, ...],
    attends: tuple[bool, ...],
    latent: int,
    size: int,
    groups: int,
    heads: int,
    condition: int,
    layers: int = 1,
) -> dict[str, Any]:
    """A UNet2DConditionModel that attends to the text on the given levels."""
    down = ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": size,
        "in_channels": latent,
        "out_channels": latent,
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(down)],
        "block_out_channels": list(widths),
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "cross_attention_dim": condition,
        "attention_head_dim": heads,  # diffusers means the number of heads
        "use_linear_projection": True,
    }


def text_config(*, width: int, layers: int, heads: int, length: int) -> dict[str, Any]:
    """A CLIPTextModel."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": length,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="tiny",
            summary="Stable Diffusion in miniature on CIFAR-10; an hour on two cores.",
            dataset="cifar10",
            templates=TEMPLATES,
            vae=vae_config(widths=(16, 32), latent=4, groups=8, size=32),
            unet=unet_config(
                widths=(32, 64, 128),
                attends=(False, False, True),
                latent=4,
                size=16,
                groups=8,
                heads=4,
                condition=64,
            ),
            text_encoder=text_config(width=64, layers=2, heads=4, length=32),
            scheduler=SCHEDULER,
            autoencoder=Phase(
                steps=3000, batch=8, learning_rate=2e-3, warmup=100, ema_decay=0.995
            ),
            denoiser=Phase(
                steps=3500,
                batch=64,
                learning_rate=1.5e-3,
                warmup=200,
                weight_decay=0.01,
                ema_decay=0.999,
            ),
        ),
        Recipe(
            name="test",
            summary="A few steps of the smallest networks, to try the path.",
            dataset="cifar10",
            templates=TEMPLATES[:3],
            vocabulary=700,
            # few different shapes, since drawing a weight compiles once a shape
            vae=vae_config(widths=(8, 8), latent=4, groups=4, size=32),
            unet=unet_config(
                widths=(8, 8),
                attends=(False, True),
                latent=4,
                size=16,
                groups=4,
                heads=2,
                condition=8,
            ),
            text_encoder=text_config(width=8, layers=1, heads=2, length=32),
            scheduler=SCHEDULER,
            autoencoder=Phase(
                steps=4,
                batch=4,
                learning_rate=1e-3,
                warmup=1,
                log_every=2,
                checkpoint_every=2,
            ),
            denoiser=Phase(
                steps=6,
                batch=4,
                learning_rate=1e-3,
                warmup=1,
                log_every=3,
                checkpoint_every=3,
            ),
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        DiffjaxError: there is none; the message lists them.
    """
    if name not in RECIPES:
        raise DiffjaxError(
            f"There is no recipe {name!r}; there are: {', '.join(RECIPES)}."
        )
    return RECIPES[name]
