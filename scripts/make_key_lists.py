"""Write the key-and-shape lists of the public checkpoints that diffjax loads.

The lists prove the name tables without any weights. They are made from the torch
classes of diffusers and transformers on the meta device (no memory is taken) with
the configs that stand in the public repositories, so torch, diffusers and
transformers are needed, and for CLIP's two towers OpenCLIP (pip install
open_clip_torch):

    python scripts/make_key_lists.py [tests/goldens/keys]
    python scripts/make_key_lists.py --programs SIT REPA [tests/goldens/keys]

The second command makes those of SiT and REPA, from the model classes of their authors'
programs in folders beside (github.com/willisma/SiT and sihyun-yu/REPA, with timm).

torchvision's own classifiers need torchvision too. Lists whose package is not installed
are left as they are, and the table says so.

For every checkpoint NAME it writes NAME.json (the config) and NAME.txt.gz: one line
per tensor, ``key<TAB>comma-separated shape``, sorted by key. Shapes are torch's.

Today's classes do not name everything as the public files do. `published` puts the
published names back:

- Text encoders: transformers 5 dropped the prefix ``text_model.`` and keeps
  ``position_ids`` out of the file. Files saved before transformers 4.31, as those of
  Stable Diffusion 1 and 2 are, have both.
- The autoencoder: files saved before diffusers 0.15, as that of Stable Diffusion 1,
  call the attention's layers ``query``, ``key``, ``value`` and ``proj_attn``.
- Vision transformers have the names of transformers 4.
- DiT repeats the timestep and label embedders in each of its 28 blocks. The file
  holds them 28 times; the model is counted with one.
"""

import argparse
import gzip
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]

UNET_SD15 = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": [
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    ],
}
# SD 2-base; SD 2.1-base and SD 2.1 (sample_size 96) have the same tensors.
UNET_SD2 = UNET_SD15 | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "use_linear_projection": True,
}
ROOT = Path(__file__).resolve().parent.parent
BARE = ROOT / "diffjax" / "assets" / "bare"
SDXL = ROOT / "diffjax" / "assets" / "configs" / "sdxl.json"
UNET_SDXL = json.loads(SDXL.read_text(encoding="utf-8"))
VAE_SD = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_SD1 = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
TEXT_SD2 = TEXT_SD1 | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
# The first text encoder of SDXL is that of SD 1; its files have no position_ids.
TEXT_SDXL_2 = TEXT_SD1 | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
DIT_XL_2_256 = {
    "_class_name": "Transformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "cross_attention_dim": None,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 32,
    "upcast_attention": False,
    "use_linear_projection": False,
}
# model_cfg of open_clip_config.json
_CLIP_TEXT = {"context_length": 77, "vocab_size": 49408}
CLIP_RN50 = {
    "embed_dim": 1024,
    "quick_gelu": True,
    "text_cfg": {**_CLIP_TEXT, "heads": 8, "layers": 12, "width": 512},
    "vision_cfg": {
        **{"image_size": 224, "layers": [3, 4, 6, 3], "patch_size": None, "width": 64},
    },
}
CLIP_VIT_H_14 = {
    "embed_dim": 1024,
    "text_cfg": {**_CLIP_TEXT, "heads": 16, "layers": 24, "width": 1024},
    "vision_cfg": {
        **{"head_width": 80, "image_size": 224, "layers": 32, "patch_size": 14},
        "width": 1280,
    },
}

VIT_B_16 = {
    "architectures": ["ViTForImageClassification"],
    "attention_probs_dropout_prob": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 768,
    "image_size": 224,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "model_type": "vit",
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 16,
    "qkv_bias": True,
}
VIT_L_32_384 = VIT_B_16 | {
    "hidden_size": 1024,
    "image_size": 384,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 32,
}
RESNET_101 = {
    "architectures": ["ResNetForImageClassification"],
    "depths": [3, 4, 23, 3],
    "downsample_in_first_stage": False,
    "embedding_size": 64,
    "hidden_act": "relu",
    "hidden_sizes": [256, 512, 1024, 2048],
    "layer_type": "bottleneck",
    "model_type": "resnet",
    "num_channels": 3,
}
# torchvision's files have no config: the function that makes the network
TORCHVISION = {"torchvision-resnet101": "resnet101", "torchvision-vit_l_32": "vit_l_32"}

# name: (config, parameters as the model is counted: repeats once, no buffers)
CHECKPOINTS: dict[str, tuple[dict[str, Any], int]] = {
    "sd15-unet": (UNET_SD15, 859_520_964),
    "sd2-unet": (UNET_SD2, 865_910_724),
    "sd-vae": (VAE_SD, 83_653_863),
    "sd1-text": (TEXT_SD1, 123_060_480),
    "sd2-text": (TEXT_SD2, 340_387_840),
    "sdxl-unet": (UNET_SDXL, 2_567_463_684),
    "sdxl-text-2": (TEXT_SDXL_2, 694_659_840),
    # The authors' 675,129,632 counts the fixed 256 × 1152 position table as well, which
    # diffusers computes and does not store.
    "dit-xl-2-256": (DIT_XL_2_256, 675_129_632 - 256 * 1152),
    # of 1,000 classes; the published numbers of timm and torchvision
    "vit-b-16": (VIT_B_16, 86_567_656),
    "vit-l-32-384": (VIT_L_32_384, 306_632_680),
    "resnet-101": (RESNET_101, 44_549_160),
    "torchvision-resnet101": ({}, 44_549_160),
    "torchvision-vit_l_32": ({}, 306_535_400),
    # OpenCLIP's table of results has them in millions: 102.01 and 986.11
    "clip-rn50": (CLIP_RN50, 102_007_137),
    "clip-vit-h-14": (CLIP_VIT_H_14, 986_109_441),
}

VIT_PUBLISHED = {
    r"^vit\.layers\.": "vit.encoder.layer.",
    r"\.attention\.q_proj\.": ".attention.attention.query.",
    r"\.attention\.k_proj\.": ".attention.attention.key.",
    r"\.attention\.v_proj\.": ".attention.attention.value.",
    r"\.attention\.o_proj\.": ".attention.output.dense.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}
# name: (the program, its function, settings, numbers in a file); as the program of SiT
# prints them, with the table of positions
OF_PROGRAMS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "sit-s-2-256": ("models.py", "SiT_S_2", {}, 32_963_360),
    "sit-xl-2-256": ("models.py", "SiT_XL_2", {}, 675_129_632),
    "repa-xl-2-256": (
        "models/sit.py",
        "SiT_XL_2",
        {"z_dims": [768], "fused_attn": False, "qk_norm": False},
        675_111_184 + 8_131_328,  # of the projectors
    ),
}

VAE_PUBLISHED = {
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "proj_attn",
}
REPEATED = re.compile(r"transformer_blocks\.\d+\.norm1\.emb\.")
BUFFERS = ("position_ids", "running_mean", "running_var", "num_batches_tracked")


def state_shapes(name: str, config: dict[str, Any]) -> Shapes:
    """Key and shape of all that today's torch class would save."""
    import torch
    from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    if name.startswith("clip-"):
        import open_clip

        with torch.device("meta"):
            model = open_clip.CLIP(**config)
        return {key: tuple(value.shape) for key, value in model.state_dict().items()}
    arguments = {k: v for k, v in config.items() if not k.startswith("_")}
    with torch.device("meta"):
        if name.endswith("-unet"):
            model = UNet2DConditionModel(**arguments)
        elif name == "sd-vae":
            model = AutoencoderKL(**arguments)
        elif name == "sdxl-text-2":
            model = CLIPTextModelWithProjection(CLIPTextConfig(**arguments))
        elif name in TORCHVISION:
            from torchvision.models import get_model

            model = get_model(TORCHVISION[name])
        elif name.startswith("vit-"):
            config = ViTConfig(num_labels=1000, **arguments)
            model = ViTForImageClassification(config)
        elif name.startswith("resnet-"):
            config = ResNetConfig(num_labels=1000, **arguments)
            model = ResNetForImageClassification(config)
        elif name.endswith("-text"):
            model = CLIPTextModel(CLIPTextConfig(**arguments))
        else:
            # The config was saved by the older, wider class; what only that class
            # knows is at its neutral value here.
            known = inspect.signature(DiTTransformer2DModel.__init__).parameters
            model = DiTTransformer2DModel(
                **{k: v for k, v in arguments.items() if k in known}
            )
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


# by the first word of a name
NEEDS = {"clip": "open_clip", "torchvision": "torchvision"}


def program_shapes(file: Path, function: str, settings: dict[str, Any]) -> Shapes:
    """Key and shape of all that a model of a program's own would save."""
    import torch

    spec = importlib.util.spec_from_file_location("program", file)
    if spec is None or spec.loader is None:
        sys.exit(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.device("meta"):
        model = getattr(module, function)(**settings)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def published(name: str, shapes: Shapes, config: dict[str, Any]) -> Shapes:
    """The same tensors under the names of the public file."""
    if name.startswith("vit-"):
        for today, then in VIT_PUBLISHED.items():
            shapes = {re.sub(today, then, key): shape for key, shape in shapes.items()}
        return shapes
    if name.endswith("-text"):
        shapes = {f"text_model.{key}": shape for key, shape in shapes.items()}
        positions = (1, config["max_position_embeddings"])
        return shapes | {"text_model.embeddings.position_ids": positions}
    if name == "sd-vae":
        return {
            re.sub(
                r"(attentions\.\d+\.)(to_q|to_k|to_v|to_out\.0)\.",
                lambda match: f"{match[1]}{VAE_PUBLISHED[match[2]]}.",
                key,
            ): shape
            for key, shape in shapes.items()
        }
    return shapes


def size(shape: tuple[int, ...]) -> int:
    """Number of elements."""
    product = 1
    for extent in shape:
        product *= extent
    return product


def parameters(shapes: Shapes) -> int:
    """Parameters of the model: repeated embedders once, buffers never."""
    once = {
        REPEATED.sub("", key): shape
        for key, shape in shapes.items()
        if not key.endswith(BUFFERS)
    }
    return sum(map(size, once.values()))


def write(folder: Path, name: str, shapes: Shapes, config: dict[str, Any]) -> None:
    """Write NAME.txt.gz and NAME.json; the same input gives the same bytes."""
    lines = [f"{key}\t{','.join(map(str, shapes[key]))}\n" for key in sorted(shapes)]
    # The empty name and time 0 keep path and clock out of gzip's header.
    with (
        (folder / f"{name}.txt.gz").open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
    ):
        packed.write("".join(lines).encode())
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Write all lists and print a table of counts; a wrong count is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = ROOT / "tests" / "goldens" / "keys"
    parser.add_argument("folder", nargs="?", type=Path, default=here)
    parser.add_argument("--programs", nargs=2, type=Path, metavar=("SIT", "REPA"))
    asked = parser.parse_args()
    folder = asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{'checkpoint':<14}{'tensors':>8}{'parameters':>14}{'in the file':>14}")
    if asked.programs:
        sit, repa = asked.programs
        for name, (file, function, settings, expected) in OF_PROGRAMS.items():
            program = repa if name.startswith("repa") else sit
            shapes = program_shapes(program / file, function, settings)
            stored = sum(map(size, shapes.values()))
            print(f"{name:<14}{len(shapes):>8}{'':>14}{stored:>14,}")
            if stored != expected:
                sys.exit(f"{name}: {stored:,} numbers, but {expected:,} are known")
            config = json.loads((BARE / name / "transformer/config.json").read_text())
            write(folder, name, shapes, config)
        return
    for name, (config, expected) in CHECKPOINTS.items():
        package = NEEDS.get(name.partition("-")[0])
        if package and importlib.util.find_spec(package) is None:
            print(f"{name:<14} is left as it is: {package} is not installed")
            continue
        shapes = published(name, state_shapes(name, config), config)
        count, stored = parameters(shapes), sum(map(size, shapes.values()))
        print(f"{name:<14}{len(shapes):>8}{count:>14,}{stored:>14,}")
        if count != expected:
            sys.exit(f"{name}: {count:,} parameters, but {expected:,} are known")
        write(folder, name, shapes, config)


if __name__ == "__main__":
    main()
