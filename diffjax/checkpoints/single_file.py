"""What a file of weights holds, by the names in its header: nothing else is read.

A whole model in a single file, as CompVis, Stability AI and most fine-tuners publish
them, is recognised and refused with the way to convert it; so are other files that are
easily taken for a network's weights.
"""

import re
import shlex
import zipfile
from pathlib import Path

from diffjax.checkpoints.components import RUNS

_MOST_BYTES = 2**26  # of the part of a torch file that has its names
_WHOLE = "model.diffusion_model."
# of a whole model: which one, by further names in it
_VERSIONS = (
    ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3"),
    ("model.diffusion_model.double_blocks.", "FLUX"),
    ("conditioner.embedders.", "Stable Diffusion XL"),
    ("cond_stage_model.model.", "Stable Diffusion 2.x"),
    ("cond_stage_model.transformer.", "Stable Diffusion 1.x"),
)
_PIPELINES = {  # that convert what diffjax runs
    "Stable Diffusion XL": "StableDiffusionXLPipeline",
    "Stable Diffusion 2.x": "StableDiffusionPipeline",
    "Stable Diffusion 1.x": "StableDiffusionPipeline",
}
_LORA = re.compile(r"\blora_(unet|te\d?)_|\.lora_(A|B|up|down)\.|\.lora\.(up|down)\.")
# weights of a network alone, by a name in them: what it is of, a model that has one,
# and the option that takes it
_ALONE = (
    ("x_embedder.proj.", "a DiT", "dit-256", "transformer"),
    ("down_blocks.0.resnets.0.time_emb_proj.", "a U-Net", "sd-1.5", "unet"),
    ("text_model.encoder.layers.", "a text encoder", "sd-1.5", "text-encoder"),
    ("encoder.down_blocks.0.", "an autoencoder", "sd-1.5", "vae"),
)


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
    if _WHOLE in names:
        version = next((v for mark, v in _VERSIONS if mark in names), "diffusion model")
        if version not in _PIPELINES:
            return f"It is a whole {version} in a single file. diffjax runs {RUNS}."
        return _convert(f"a whole {version}", _PIPELINES[version], path)
    if _LORA.search(names):
        return (
            "It is a LoRA: changes to a model's weights. Add them once with diffusers, "
            "pipeline.load_lora_weights(...), pipeline.fuse_lora(), "
            "pipeline.unload_lora_weights(), pipeline.save_pretrained('FOLDER'), and "
            "name FOLDER."
        )
    if "encoder.down.0.block.0." in names:
        return _convert("an autoencoder", "AutoencoderKL", path)
    if "input_blocks.0.0." in names:
        return _convert("a U-Net", "UNet2DConditionModel", path)
    return ""


def alone(path: Path) -> str:
    """What a file is that was named where a whole model is asked for, as sentences."""
    names = names_in(path)
    if sentence := foreign(path, names):
        return sentence
    for mark, what, model, option in _ALONE:
        if mark in names:
            return (
                f"It is the weights of {what} alone. Name a whole model with --model, "
                f"such as {model}, and these beside it, with --{option} {path}."
            )
    return (
        "A model is a folder in the diffusers layout, with model_index.json in it; "
        "name the folder."
    )


def _convert(what: str, cls: str, path: Path) -> str:
    program = (
        f"from diffusers import {cls}; "
        f'{cls}.from_single_file({str(path)!r}).save_pretrained("FOLDER")'
    )
    return (
        f"It is {what} in a single file, in a layout that is not read: convert it once "
        f"with diffusers, and name the folder: python -c {shlex.quote(program)}"
    )
