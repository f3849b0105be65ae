"""A whole pipeline of its published size, with random weights, in float16 files.

    python scripts/make_random_pipeline.py sd-2-base FOLDER
    python scripts/make_random_pipeline.py sd-2-base FOLDER --like PUBLISHED

For all that depends on size alone: loading, memory, speed. diffusers and transformers
make the networks from their configs, one after the other, and save them, as they do
with trained ones. Stable Diffusion 2 takes 2.5 GB of disk and a minute or two.

The configs of the denoisers are the package's (`diffjax/assets/configs`); those of the
other parts are published facts and stand here; the tokenizer is that of `tiny`.
--like takes configs and tokenizer from a folder in diffusers' layout instead; it needs
no weights.
"""

import argparse
import gc
import json
import shutil
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parent.parent / "diffjax" / "assets"
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT = {
    "sd-1.5": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
    },
    "sd-2-base": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
}
SCHEDULES = {
    "unet": {
        "_class_name": "PNDMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    "transformer": {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "num_train_timesteps": 1000,
    },
}
CLASSES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "transformer": ["diffusers", "DiTTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=[*TEXT, "dit-256"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", type=Path, metavar="FOLDER")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} is there already; name another folder.")
    make(args.model, args.out, args.dtype, args.like)


def make(
    model: str, out: Path, dtype: str = "float16", like: Path | None = None
) -> None:
    """Write the folder; from ``like``'s configs and tokenizer, if given."""
    if like is None:
        save(configs(model), out, dtype)
        return
    schedule = _read(like / "scheduler" / "scheduler_config.json")
    save(configs_of(like), out, dtype, schedule, like / "tokenizer")


def save(
    parts: dict[str, dict[str, Any]],
    out: Path,
    dtype: str,
    schedule: dict[str, Any] | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Write a folder of networks with these configs.

    The schedule is the published one, and the tokenizer that of `tiny`, unless given.
    """
    import torch

    torch.manual_seed(0)
    denoiser = next(part for part in parts if part in SCHEDULES)
    schedule = schedule or SCHEDULES[denoiser]
    for part, config in parts.items():
        network = empty(part, config).to(getattr(torch, dtype))
        network.save_pretrained(out / part)
        del network  # one at a time in memory
        gc.collect()
    _write(out / "scheduler" / "scheduler_config.json", schedule)
    named = list(parts)
    if "text_encoder" in parts:
        named.append("tokenizer")
        shutil.copytree(tokenizer or ASSETS / "tiny" / "tokenizer", out / "tokenizer")
        if tokenizer is None:
            length = parts["text_encoder"]["max_position_embeddings"]
            path = out / "tokenizer" / "tokenizer_config.json"
            _write(path, _read(path) | {"model_max_length": length})
    index = {part: CLASSES[part] for part in named}
    pipeline = "StableDiffusionPipeline" if denoiser == "unet" else "DiTPipeline"
    index["scheduler"] = ["diffusers", schedule["_class_name"]]
    _write(out / "model_index.json", {"_class_name": pipeline, **index})


def configs(model: str) -> dict[str, dict[str, Any]]:
    """Of all networks, by the name of their folder."""
    denoiser = _read(ASSETS / "configs" / f"{model}.json")
    if model not in TEXT:
        return {"transformer": denoiser, "vae": VAE}
    text = {"vocab_size": 49408, "max_position_embeddings": 77, **TEXT[model]}
    return {"unet": denoiser, "vae": VAE, "text_encoder": text}


def configs_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The same, from a folder in diffusers' layout."""
    paths = {part: folder / part / "config.json" for part in CLASSES}
    return {part: _read(path) for part, path in paths.items() if path.is_file()}


def empty(part: str, config: dict[str, Any]) -> Any:
    """A network in torch, with the weights that its library draws."""
    import diffusers
    import transformers

    library, name = CLASSES[part]
    if library == "diffusers":
        network = getattr(diffusers, name).from_config(config)
        if part == "transformer":  # the published ones have one embedding in all blocks
            first, *others = (block.norm1.emb for block in network.transformer_blocks)
            for other in others:
                other.load_state_dict(first.state_dict())
        return network
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**config))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
