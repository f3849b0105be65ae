"""Small CLIPs in the layouts of published ones, with weights that are drawn by name."""

import json
import zlib
from pathlib import Path

import numpy as np
from pipelines import LENGTH, write_tokenizer
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "goldens" / "open_clip.json"
SIDE = 64
TEXTS = {"context_length": LENGTH, "vocab_size": 1000, "width": 32, "heads": 4}
MODELS = {
    "vit": {
        "embed_dim": 24,
        "vision_cfg": {
            **{"layers": 2, "width": 32, "head_width": 8, "patch_size": 16},
            "image_size": SIDE,
        },
        "text_cfg": {**TEXTS, "layers": 2},
    },
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {
            **{"layers": [2, 1, 1, 1], "width": 16, "patch_size": None},
            "image_size": SIDE,
        },
        "text_cfg": {**TEXTS, "layers": 1},
        "quick_gelu": True,
    },
}
SEEN = {"mean": [0.48, 0.45, 0.4], "std": [0.27, 0.26, 0.28], "resize_mode": "shortest"}


def drawn(key, shape):
    """The weights of a name."""
    random = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key == "logit_scale":
        return np.full(shape, 2.0, np.float32)
    if key.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    plain = len(shape) == 1 and key.endswith(".weight")  # of a norm
    scale = 0.2 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5
    return (plain + scale * random.normal(size=shape)).astype(np.float32)


def pixels(n=2):
    return np.random.default_rng(0).normal(size=(n, SIDE, SIDE, 3)).astype(np.float32)


def token_ids(n=3):
    """A start, some tokens, the end, which is the largest, and zeros."""
    ids = np.zeros((n, LENGTH), np.int64)
    for k, row in enumerate(ids):
        row[: 3 + k] = [998, *range(5 + k, 6 + 2 * k), 999]
    return ids


def write_open_clip(folder, name, shapes, **seen):
    """A folder as OpenCLIP writes it, of the tensors of these shapes."""
    write_tokenizer(folder, length=LENGTH)
    tensors = {key: drawn(key, shape) for key, shape in shapes.items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODELS[name], "preprocess_cfg": SEEN | seen}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
