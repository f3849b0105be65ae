"""What a file of weights holds, by the names in its header: nothing else is read.

A whole Stable Diffusion 1, 2 or XL in a single file, as CompVis, Stability AI and most
fine-tuners publish them, is a model: its configs are in the package. Files that are
easily taken for one are named for what they are.
"""

import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffjax.checkpoints.catalog import ASSETS
from diffjax.checkpoints.components import RUNS

AVERAGED = "ema"  # the variant of the weights that names them
AVERAGED_PREFIX = "model_ema.diffusion_model"
# what stands before a component's names in a whole file
PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.",),
}
_MOST_BYTES = 2**26  # of the part of a torch file that has its names
_WHOLE = "model.diffusion_model."
_READ = "Stable Diffusion 1.x, 2.x and XL"
# by a name in a whole file: its short name, and the folder of its configs
_VERSIONS = (
    ("conditioner.embedders.1.model.", "sdxl", "sdxl"),
    ("cond_stage_model.model.", "sd-2.1", "sd-2"),
    ("cond_stage_model.transformer.", "sd-1.5", "sd-1"),
)
CONFIGS = ASSETS / "single_file"
# what no code reads, by a name in it, whole or alone
_REFUSED = (
    ("joint_blocks.0.", "Stable Diffusion 3"),
    ("double_blocks.0.", "FLUX"),
    ("conditioner.embedders.0.model.", "refiner of Stable Diffusion XL"),
    ("edm_mean", "Playground 2.5"),
    ("edm_vpred.", "CosXL"),
)
_LORA = re.compile(
    r"\blora_(unet|te\d?|transformer)_|\.lora_(A|B|up|down)\."
    r"|[._]lora(_linear_layer)?\.(up|down)\.|\.(hada|lokr)_w"
)
# weights of a network alone, by a name in them: what it is of, a model that has one,
# and the option that takes it
_ALONE = (
    ("x_embedder.proj.", "a DiT or a SiT", "dit-256 or sit-xl-2-256", "transformer"),
    ("down_blocks.0.resnets.0.time_emb_proj.", "a U-Net", "sd-1.5", "unet"),
    ("input_blocks.0.0.", "a U-Net", "sd-1.5", "unet"),
    ("text_model.encoder.layers.", "a text encoder", "sd-1.5", "text-encoder"),
    ("encoder.down_blocks.0.", "an autoencoder", "sd-1.5", "vae"),
    ("encoder.down.0.block.0.", "an autoencoder", "sd-1.5", "vae"),
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a whole model in a single file is.

    Attributes:
        name: as ``diffjax models`` has it, whose tokenizers it has.
        folder: of the package, with its configs.
        components: that the file holds.
        schedule: what its scheduler's config says besides.
    """

    name: str
    folder: Path
    components: tuple[str, ...]
    schedule: dict[str, Any] = field(default_factory=dict)


def layout_of(path: Path) -> Layout | None:
    """What a file holds that is a whole model; None for any other file."""
    names = names_in(path)
    if foreign(path, names) or _WHOLE not in names:
        return None
    found = [(name, folder) for mark, name, folder in _VERSIONS if mark in names]
    if not found:
        return None
    name, folder = found[0]
    schedule: dict[str, Any] = {}
    if re.search(r"\bv_pred\b", names):  # as trainers of Stable Diffusion XL mark it
        schedule["prediction_type"] = "v_prediction"
    if re.search(r"\bztsnr\b", names):
        schedule["rescale_betas_zero_snr"] = True
    if folder == "sd-2":
        warnings.warn(
            f"{path} is taken for a Stable Diffusion 2 of 768 pixels and v-prediction, "
            "as diffusers does: nothing in the file tells it from a base model, of 512 "
            "pixels and ε. If it is one, name that model and take its parts from the "
            f"file: --model sd-2.1-base --unet {path} --vae {path} --text-encoder "
            f"{path}",
            stacklevel=2,
        )
    held = [c for c, each in PREFIXES.items() if any(p in names for p in each)]
    return Layout(
        name=name,
        folder=CONFIGS / folder,
        components=tuple(held),
        schedule=schedule,
    )


def variants_in(path: Path) -> tuple[str, ...]:
    """Variants of the weights that a whole model in a file has, if there are two."""
    both = AVERAGED_PREFIX in names_in(path)
    return (AVERAGED, f"non_{AVERAGED}") if both else ()


def names_in(path: Path) -> str:
    """The names of the tensors in a file, or text that has them, on one line each.

    Of a file that is damaged, or of another kind, that is the empty text.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "np") as file:
                return "\n".join(file.keys())
        if not zipfile.is_zipfile(path):  # torch's before 1.6 begin with them
            with path.open("rb") as file:
                return file.read(_MOST_BYTES).decode("latin-1")
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith("data.pkl"):
                    with archive.open(member) as file:
                        return file.read(_MOST_BYTES).decode("latin-1")
    except Exception:  # whoever reads the weights says what is wrong with them
        return ""
    return ""


def foreign(path: Path, names: str | None = None) -> str:
    """What a file is that no network's weights can be read from, and what to do.

    Args:
        path: of the file.
        names: in it, if they are known.

    Returns:
        Sentences that begin with "It is"; the empty text for any other file.
    """
    names = names_in(path) if names is None else names
    if _LORA.search(names):
        return (
            "It is a LoRA: changes to a model's weights. Name it beside the model that "
            f"it changes: --lora {path} (lora= in Python)."
        )
    for mark, version in _REFUSED:
        alone = "conditioner.embedders.1.model." not in names
        if mark in names and (alone or not mark.startswith("conditioner")):
            return (
                f"It is a {version} in a single file; of these diffjax reads {_READ}. "
                f"As folders in the diffusers layout it runs {RUNS}."
            )
    return ""


def alone(path: Path) -> str:
    """What a file is that was named where a whole model is asked for, as sentences."""
    names = names_in(path)
    if sentence := foreign(path, names):
        return sentence
    if not names and path.suffix == ".safetensors":
        return "It is damaged or incomplete: download it again."
    for mark, what, model, option in _ALONE:
        if mark in names:
            return (
                f"It is the weights of {what} alone. Name a whole model with --model, "
                f"such as {model}, and these beside it, with --{option} {path}."
            )
    return (
        "A model is a folder in the diffusers layout, with model_index.json in it, or "
        f"a file of a whole {_READ}; name the folder or the file."
    )
