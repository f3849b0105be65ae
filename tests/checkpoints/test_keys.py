"""The name tables against the key lists of the public checkpoints, without weights.

The lists were made from torch's own classes by scripts/make_key_lists.py. Zero-stride
arrays stand for the tensors and `nnx.eval_shape` for our networks, so the full-size
models take no memory.
"""

import gzip
import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.mappings import match
from diffjax.checkpoints.naming import OPEN_CLIP
from diffjax.checkpoints.networks import NETWORKS, empty_network, kind_of
from diffjax.checkpoints.open_clip import open_clip_config, unfused
from diffjax.checkpoints.torchvision import is_torchvision, torchvision_network
from diffjax.errors import DiffjaxError
from diffjax.models.clip_image import CLIP

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
PARTS = {
    "sd15-unet": "unet",
    "sd2-unet": "unet",
    "sd-vae": "vae",
    "sd1-text": "text_encoder",
    "sd2-text": "text_encoder",
    "sdxl-unet": "unet",
    "sdxl-text-2": "text_encoder_2",
    "dit-xl-2-256": "transformer",
    # classifiers, by the class of networks
    "vit-b-16": "ViTForImageClassification",
    "vit-l-32-384": "ViTForImageClassification",
    "resnet-101": "ResNetForImageClassification",
    "torchvision-resnet101": "ResNetForImageClassification",
    "torchvision-vit_l_32": "ViTForImageClassification",
}
TOWERS = ("clip-rn50", "clip-vit-h-14")  # of OpenCLIP, both in one file


def weightless(name):
    """Tensors of a public checkpoint, as arrays without memory."""
    lines = gzip.decompress((KEYS / f"{name}.txt.gz").read_bytes()).decode()
    pairs = (line.split("\t") for line in lines.splitlines())
    zero = np.float32(0)
    return {
        key: np.broadcast_to(zero, tuple(map(int, filter(None, shape.split(",")))))
        for key, shape in pairs
    }


@pytest.fixture(scope="module", params=[*PARTS, *TOWERS])
def checkpoint(request):
    """A checkpoint's name, tensors, names, and our empty network for its config."""
    name = request.param
    tensors = weightless(name)
    if name in TOWERS:
        raw = json.loads((KEYS / f"{name}.json").read_text())
        _, state = nnx.split(CLIP(open_clip_config(raw, name), rngs=None))
        return name, unfused(tensors), OPEN_CLIP, state
    if is_torchvision(tensors):
        config, tensors, names = torchvision_network(tensors, name)
        assert type(config) is NETWORKS[PARTS[name]].config
    else:
        part = PARTS[name]
        kind = NETWORKS[part] if part in NETWORKS else kind_of(part)
        raw = json.loads((KEYS / f"{name}.json").read_text())
        config, names = kind.config.from_dict(raw, name), kind.names
    _, state = empty_network(config)
    return name, tensors, names, state


def test_every_list_is_tested():
    of_programs = {"sit-s-2-256", "sit-xl-2-256", "repa-xl-2-256"}  # in test_sit.py
    listed = {path.name.split(".")[0] for path in KEYS.iterdir()}
    assert listed == {*PARTS, *TOWERS} | of_programs


def test_public_checkpoint_fits(checkpoint):
    name, tensors, names, state = checkpoint
    arrays = match(state, tensors, names, name)
    expected = {path: leaf.shape for path, leaf in nnx.to_flat_state(state)}
    assert {path: array.shape for path, array in arrays.items()} == expected
    total = sum(
        prod(shape)
        for path, shape in expected.items()
        if path[-1] not in ("mean", "var")  # of batch norms, which nobody counts
    )
    counted = {
        "sd15-unet": MODELS["sd-1.5"].denoiser_parameters,
        "sd2-unet": MODELS["sd-2-base"].denoiser_parameters,
        "sd-vae": 83_653_863,
        "sd1-text": 123_060_480,
        "sd2-text": 340_387_840,
        "sdxl-unet": MODELS["sdxl"].denoiser_parameters,
        "sdxl-text-2": 694_659_840,
        "dit-xl-2-256": MODELS["dit-256"].denoiser_parameters,
        "vit-b-16": 86_567_656,
        "vit-l-32-384": 306_632_680,
        "resnet-101": 44_549_160,
        "torchvision-resnet101": 44_549_160,
        "torchvision-vit_l_32": 306_535_400,
        # in millions 102.01 and 986.11, as OpenCLIP publishes them
        "clip-rn50": 102_007_137,
        "clip-vit-h-14": 986_109_441,
    }
    assert total == counted[name]


def test_any_difference_is_noticed(checkpoint):
    """One error names what is missing, what is new, and what has another shape."""
    _, tensors, names, state = checkpoint
    keys = sorted(key for key in tensors if key.endswith("weight"))
    lost, changed = keys[0], keys[-1]
    damaged = tensors | {"more.weight": np.zeros(3, np.float32)}
    del damaged[lost]
    shape = tensors[changed].shape
    damaged[changed] = np.broadcast_to(np.float32(0), (shape[0] + 1, *shape[1:]))
    with pytest.raises(DiffjaxError) as caught:
        match(state, damaged, names, "the file")
    message = str(caught.value)
    assert "the file" in message and "more.weight" in message
    assert lost in message
    assert f"{changed}: {list(damaged[changed].shape)}, expected {list(shape)}" in (
        message
    )
    for title in ("missing (1)", "unexpected (1)", "of another shape or type (1)"):
        assert title in message


def test_each_tensor_is_needed(checkpoint):
    """A file without a certain tensor never passes, whichever it is."""
    name, tensors, names, state = checkpoint
    for key in list(tensors)[:: max(1, len(tensors) // 15)]:
        if not key.endswith(("position_ids", "num_batches_tracked")):
            fewer = {k: v for k, v in tensors.items() if k != key}
            with pytest.raises(DiffjaxError, match=r"missing \(1\)"):
                match(state, fewer, names, name)
