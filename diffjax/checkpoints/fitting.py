"""What the parts of a pipeline are to one another, by its index and their configs."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from diffjax.checkpoints.components import RUNS
from diffjax.checkpoints.schedulers import read_sampling, read_schedule
from diffjax.data.imagenet import imagenet_names
from diffjax.errors import DiffjaxError
from diffjax.models.autoencoder import AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig, CLIPTextWithProjectionConfig
from diffjax.models.dit import DiTTransformer2DConfig
from diffjax.models.flux import FluxTransformer2DConfig
from diffjax.models.mmdit import SD3Transformer2DConfig
from diffjax.models.pixart import PixArtTransformer2DConfig
from diffjax.models.sampling import Sampling
from diffjax.models.t5 import T5Config
from diffjax.models.unet_config import UNet2DConditionConfig
from diffjax.schedules import Schedule

MOST_PIXELS = 2**14


def denoiser_name(index: dict[str, Any], folder: Path) -> str:
    """The component that predicts: "unet" or "transformer".

    Raises:
        DiffjaxError: if the index names neither, or both.
    """
    present = [name for name in ("unet", "transformer") if name in index]
    if len(present) != 1:
        raise DiffjaxError(
            f"{folder} is a {index.get('_class_name', 'pipeline')} that names no unet "
            f"and no transformer; diffjax runs {RUNS}."
        )
    return present[0]


def check_index(index: dict[str, Any]) -> None:
    """Raise a DiffjaxError for a pipeline that asks for what no image tells."""
    if index.get("requires_aesthetics_score"):
        raise DiffjaxError(
            "its model_index.json says requires_aesthetics_score: a refiner is told "
            "how beautiful an image is, which is not supported. Name the base model, "
            "such as sdxl."
        )


def check_encoders(there: Collection[str], names: Sequence[str], folder: Path) -> None:
    """Raise a DiffjaxError unless a pipeline has its denoiser's text encoders."""
    for name in names:
        if name not in there:
            raise DiffjaxError(
                f"{folder}: its denoiser is told what {' and '.join(names)} say, by "
                f"its config.json, but model_index.json has no {name}; they do not "
                "belong together."
            )


def check_latents(denoiser: Any, vae: AutoencoderKLConfig, folder: Path) -> None:
    """Raise a DiffjaxError unless the denoiser maps the autoencoder's latents."""
    c = vae.latent_channels * getattr(denoiser, "packed", 1)
    out = denoiser.out_channels or denoiser.in_channels
    if denoiser.in_channels != c or out not in (c, 2 * c):
        raise DiffjaxError(
            f"{folder}: the denoiser maps {denoiser.in_channels} channels to {out}, "
            f"but the autoencoder's latents have {c} (inpainting and other models "
            "with further inputs are not supported)"
        )


def check_widths(
    unet: UNet2DConditionConfig, encoders: Sequence[CLIPTextConfig], folder: Path
) -> None:
    """Raise a DiffjaxError unless the U-Net is told what the text encoders say."""
    widths = [each.hidden_size for each in encoders]
    if sum(widths) != unet.cross_attention_dim:
        has = "encoder's have" if len(widths) == 1 else "encoders' have"
        raise DiffjaxError(
            f"{folder}: the U-Net attends to states of width "
            f"{unet.cross_attention_dim}, but the text {has} "
            f"{' + '.join(map(str, widths))}; they do not belong together."
        )
    last = encoders[-1]
    if not isinstance(last, CLIPTextWithProjectionConfig):
        return
    if last.projection_dim != unet.pooled_width:
        raise DiffjaxError(
            f"{folder}: the U-Net is told a pooled state of width "
            f"{unet.pooled_width}, but that of the text encoder has "
            f"{last.projection_dim}; they do not belong together."
        )


def check_joint(
    denoiser: SD3Transformer2DConfig
    | FluxTransformer2DConfig
    | PixArtTransformer2DConfig,
    encoders: Sequence[CLIPTextConfig | T5Config],
    folder: Path,
) -> None:
    """Raise a DiffjaxError unless a transformer is told what the text encoders say."""
    clip = [each for each in encoders if isinstance(each, CLIPTextConfig)]
    pooled = [getattr(each, "projection_dim", each.hidden_size) for each in clip]
    told = getattr(denoiser, "pooled_projection_dim", 0)
    if sum(pooled) != told:
        raise DiffjaxError(
            f"{folder}: the transformer is told a pooled state of width {told}, but "
            f"those of the text encoders have {' + '.join(map(str, pooled))}; they do "
            "not belong together."
        )
    widest = sum(each.hidden_size for each in clip)
    widths = [each.d_model for each in encoders if isinstance(each, T5Config)]
    if isinstance(denoiser, PixArtTransformer2DConfig):
        width = denoiser.caption_channels
    else:
        width = denoiser.joint_attention_dim
    wrong = [each for each in widths if each != width]
    if isinstance(denoiser, SD3Transformer2DConfig):
        wrong += [widest] * (widest > width)
    if wrong:
        raise DiffjaxError(
            f"{folder}: the transformer attends to states of width {width}, but a text "
            f"encoder's have {wrong[0]}; they do not belong together."
        )


def check_tokens(known: int, tokens: int, folder: Path) -> None:
    """Raise a DiffjaxError if a text encoder has learned tokens that would be split.

    Args:
        known: rows of the table of a text encoder from elsewhere.
        tokens: of the pipeline's own tokenizer, with the rows to spare of its own
            text encoder.
        folder: of the pipeline.
    """
    if tokens < known:
        raise DiffjaxError(
            f"The text encoder knows {known} tokens, but the tokenizer of {folder} has "
            f"{tokens} and would split those that the text encoder has learned. Name "
            "the text encoder's own tokenizer too."
        )


def resolution(denoiser: Any, vae: AutoencoderKLConfig, folder: Path) -> int:
    """Pixels along an edge, for which the denoiser was trained.

    Raises:
        DiffjaxError: if its config does not say.
    """
    size = denoiser.sample_size
    if isinstance(size, tuple) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise DiffjaxError(
            f"{folder}: sample_size={size} in the denoiser's config.json does not say "
            "for which square resolution it was trained; write the latent's edge "
            "there, such as 64"
        )
    if (pixels := size * vae.downscale) > MOST_PIXELS:
        raise DiffjaxError(
            f"{folder}: sample_size={size} and {vae.downscale} pixels a cell of the "
            f"autoencoder make images of {pixels} pixels along an edge; "
            f"{MOST_PIXELS} is the most."
        )
    return size * vae.downscale


def process(
    config: dict[str, Any],
    file: Path,
    denoiser: Any,
    vae: AutoencoderKLConfig,
    shift: float | None = None,
) -> dict[str, Any]:
    """The "resolution", the "schedule" for it and, if others differ, "schedule_at" any.

    And "sampling_at" any, which raises for a setting that is of sampling alone.

    Args:
        config: what a scheduler_config.json says.
        file: its path.
        denoiser: its config; one that has patches has tokens.
        vae: config of the autoencoder.
        shift: of a flow's noise levels, instead of the file's.

    Raises:
        DiffjaxError: if it is not supported, or not with such a denoiser.
    """
    if shift is not None:
        fixed = {"use_dynamic_shifting": False, "shift_terminal": None}
        config = config | fixed | {"shift": shift}

    def tokens(pixels: int) -> int | None:
        patch = getattr(denoiser, "patch_size", None)
        return None if patch is None else (pixels // vae.downscale // patch) ** 2

    def at(pixels: int) -> Schedule:
        return read_schedule(config, str(file), tokens(pixels))

    def sampling(pixels: int) -> Sampling:
        even = isinstance(denoiser, FluxTransformer2DConfig)
        return read_sampling(config, str(file), tokens(pixels), even=even)

    pixels = resolution(denoiser, vae, file.parents[1])
    schedule = at(pixels)
    out = denoiser.out_channels or denoiser.in_channels
    if schedule.posterior is None and out != denoiser.in_channels:
        raise DiffjaxError(
            f"{file} is of a flow, whose steps have no variance, but the denoiser "
            f"predicts one: its out_channels are {out}, its in_channels "
            f"{denoiser.in_channels}. The two do not belong together."
        )
    if shift is not None and schedule.posterior is not None:
        raise DiffjaxError(f"{file} is of no flow, whose noise levels have a shift.")
    dynamic = schedule.posterior is None and config.get("use_dynamic_shifting")
    return {
        "resolution": pixels,
        "schedule": schedule,
        "schedule_at": at if dynamic else None,
        "sampling_at": sampling,
    }


def class_names(
    index: dict[str, Any], config: DiTTransformer2DConfig, folder: Path
) -> tuple[str, ...] | None:
    """Names of the class ids, from id2label in the pipeline's index if it has it.

    In place of names it may say "imagenet".

    Raises:
        DiffjaxError: if it names others.
    """
    labels = index.get("id2label")
    if not labels:
        return None
    n = config.num_embeds_ada_norm
    if labels == "imagenet":
        labels = {str(i): name for i, name in enumerate(imagenet_names())}
    if not isinstance(labels, dict) or set(labels) != {str(i) for i in range(n)}:
        raise DiffjaxError(
            f"{folder / 'model_index.json'}: id2label must name the class ids "
            f"0 to {n - 1}, each once"
        )
    return tuple(str(labels[str(i)]) for i in range(n))
