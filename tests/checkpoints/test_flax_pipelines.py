"""Pipelines as diffusers' former Flax classes saved them, and their public revisions.

The names and settings below are those of diffusers 0.6 to 0.31 with transformers 4.23
to 4.46; what those versions save has been loaded and compared once (relative error
3.5e-5 for the U-Net, whose gelu they approximate, and 5e-7 for the others).
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pipelines
import pytest
from flax.serialization import msgpack_restore
from ml_dtypes import bfloat16
from pipelines import edit_json
from safetensors.numpy import load_file, save_file
from test_loading import OLD_NAMES, STEMS, assert_same, outputs, write_flax

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.networks import kind_of
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.errors import DiffjaxError

REAL = Path(__file__).parents[3] / "shared" / "real" / "_flax_revisions"
CLASSES = {
    "unet": "FlaxUNet2DConditionModel",
    "vae": "FlaxAutoencoderKL",
    "text_encoder": "FlaxCLIPTextModel",
    "scheduler": "FlaxPNDMScheduler",
}
# what the Flax classes write and torch's do not
UNET = {
    "split_head_dim": False,
    "use_memory_efficient_attention": True,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "transformer_layers_per_block": 1,
    "num_attention_heads": None,
}
# what torch's classes write and the Flax classes do not
NOT_IN_FLAX = ("norm_eps", "norm_num_groups", "downsample_padding", "act_fn")
# arrays of a real U-Net, autoencoder and text encoder
PATHS = {
    "unet": (
        "conv_in/kernel",
        "time_embedding/linear_1/kernel",
        "down_blocks_0/attentions_0/transformer_blocks_0/attn1/to_out_0/kernel",
        "down_blocks_0/attentions_0/transformer_blocks_0/ff/net_0/proj/kernel",
        "down_blocks_0/attentions_0/transformer_blocks_0/ff/net_2/bias",
        "down_blocks_0/attentions_0/norm/scale",
        "down_blocks_0/downsamplers_0/conv/kernel",
        "mid_block/resnets_1/time_emb_proj/kernel",
        "up_blocks_0/resnets_1/conv_shortcut/kernel",
        "conv_norm_out/scale",
    ),
    "vae": (
        "encoder/down_blocks_0/downsamplers_0/conv/kernel",
        "encoder/mid_block/attentions_0/query/kernel",
        "decoder/mid_block/attentions_0/proj_attn/bias",
        "decoder/mid_block/attentions_0/group_norm/scale",
        "post_quant_conv/kernel",
    ),
    "text_encoder": (
        "text_model/embeddings/token_embedding/embedding",
        "text_model/encoder/layers/1/self_attn/k_proj/kernel",
        "text_model/encoder/layers/0/layer_norm2/scale",
        "text_model/final_layer_norm/bias",
    ),
}


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory):
    """A Stable Diffusion with the numbers that the Flax classes have fixed."""
    folder = tmp_path_factory.mktemp("sd")
    unet = pipelines.unet(block_out_channels=[32, 64], norm_num_groups=32)
    pipelines.stable_diffusion(folder, unet=unet)
    return folder


def flax_names(part, tensors):
    """The torch names of which the Flax classes' names are made."""
    if part == "vae":
        for new, old in OLD_NAMES.items():
            tensors = {k.replace(f".{new}.", f".{old}."): t for k, t in tensors.items()}
    if part == "text_encoder":
        prefix = "text_model."
        tensors = {prefix + k.removeprefix(prefix): t for k, t in tensors.items()}
    return tensors


def to_flax(folder, dtype=np.float32):
    """Make of a torch pipeline's folder the one that the Flax classes would save."""
    index = folder / "model_index.json"
    libraries = {n: lib for n, (lib, _) in components(index).items()}
    names = {name: [libraries[name], CLASSES[name]] for name in CLASSES}
    edit_json(index, _class_name="FlaxStableDiffusionPipeline", **names)
    for part, stem in STEMS.items():
        file = folder / part / f"{stem}.safetensors"
        if file.exists():
            tensors = {k: t.astype(dtype) for k, t in load_file(file).items()}
            write_flax(folder / part, stem, flax_names(part, tensors))
            file.unlink()
    absent = dict.fromkeys(NOT_IN_FLAX)
    unet = folder / "unet" / "config.json"
    edit_json(unet, _class_name=CLASSES["unet"], **UNET | absent)
    edit_json(folder / "vae" / "config.json", _class_name=CLASSES["vae"])
    scheduler = folder / "scheduler" / "scheduler_config.json"
    edit_json(scheduler, _class_name=CLASSES["scheduler"])


def components(index):
    content = json.loads(index.read_text())
    return {k: v for k, v in content.items() if isinstance(v, list)}


def paths(tree, before=()):
    for name, branch in tree.items():
        path = (*before, name)
        yield from paths(branch, path) if isinstance(branch, dict) else ["/".join(path)]


@pytest.mark.parametrize("dtype", [np.float32, bfloat16])
def test_a_pipeline_of_the_flax_classes_is_the_torch_one(torch_folder, tmp_path, dtype):
    theirs = shutil.copytree(torch_folder, tmp_path / "torch")
    for file in theirs.glob("*/*.safetensors"):  # bfloat16 rounds
        tensors = {k: t.astype(dtype) for k, t in load_file(file).items()}
        save_file(tensors, file)
    ours = shutil.copytree(torch_folder, tmp_path / "flax")
    to_flax(ours, dtype)
    assert not list(ours.glob("*/*.safetensors"))
    for part, expected in PATHS.items():
        (file,) = (ours / part).glob("*.msgpack")
        assert set(expected) <= set(paths(msgpack_restore(file.read_bytes())))
    expected, found = load_model(theirs), load_model(ours)
    assert_same(outputs(found), outputs(expected))
    np.testing.assert_array_equal(
        found.schedule.posterior.alpha_bar, expected.schedule.posterior.alpha_bar
    )
    assert found.scaling_factor == expected.scaling_factor


def test_flax_weights_beside_a_torch_config(torch_folder, tmp_path):
    """As in the repositories that hold both: the config is torch's."""
    ours = shutil.copytree(torch_folder, tmp_path / "flax")
    kept = [ours / part / "config.json" for part in ("unet", "vae", "text_encoder")]
    before = {path: path.read_text() for path in kept}
    to_flax(ours)
    for path, text in before.items():
        path.write_text(text)
    assert_same(outputs(load_model(ours)), outputs(load_model(torch_folder)))


@pytest.mark.parametrize(
    ("part", "change", "match"),
    [
        ("unet", {"_class_name": "FlaxControlNetModel"}, "FlaxControlNetModel"),
        ("vae", {"_class_name": "FlaxUNet2DConditionModel"}, "as vae diffjax runs"),
        ("vae", {"_class_name": [1]}, "name classes, which .1. is not"),
        ("unet", {"_class_name": {"a": "b"}}, "name classes"),
        ("text_encoder", {"architectures": 5}, "name classes, which 5 is not"),
        ("text_encoder", {"architectures": [["CLIPTextModel"]]}, "name classes"),
    ],
)
def test_other_classes_are_refused(torch_folder, tmp_path, part, change, match):
    folder = shutil.copytree(torch_folder, tmp_path / "sd")
    to_flax(folder)
    edit_json(folder / part / "config.json", **change)
    with pytest.raises(DiffjaxError, match=rf"{part}/config\.json.*{match}"):
        load_model(folder)


# The public revisions: the settings of their files that are ours to read.
SD1 = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "dropout": 0.0,
    "freq_shift": 0,
    "layers_per_block": 2,
    "sample_size": 64,
}
SD21 = SD1 | {
    "act_fn": "silu",
    "attention_head_dim": [5, 10, 20, 20],
    "center_input_sample": False,
    "cross_attention_dim": 1024,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "sample_size": 96,
    "use_linear_projection": True,
}
SCALED = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
REVISIONS = {  # the U-Net, the torch model whose it is, the scheduler, what it predicts
    "sd14-flax": (SD1, "sd15-unet", ("PNDMScheduler", SCALED), "epsilon"),
    "sd15-bf16": (SD1, "sd15-unet", ("FlaxPNDMScheduler", SCALED), "epsilon"),
    "sd21-bf16": (
        SD21,
        "sd2-unet",
        ("FlaxDDIMScheduler", SCALED | {"prediction_type": "v_prediction"}),
        "v_prediction",
    ),
}
KEYS = Path(__file__).parents[1] / "goldens" / "keys"


@pytest.mark.parametrize("revision", REVISIONS)
def test_published_flax_configs(revision):
    unet, torch, (scheduler, settings), prediction = REVISIONS[revision]
    read = kind_of("unet").config.from_dict
    proven = json.loads((KEYS / f"{torch}.json").read_text())
    assert read(unet) == read(proven | {"sample_size": unet["sample_size"]})
    schedule = read_schedule(settings | {"_class_name": scheduler}, "x")
    assert schedule.prediction_type == prediction
    np.testing.assert_allclose(schedule.posterior.alpha_bar[-1], 0.0046601, rtol=1e-4)


@pytest.mark.parametrize(
    "revision", ["sd14-flax", "sd15-flax", "sd15-bf16", "sd21-bf16"]
)
def test_real_flax_revisions(revision, tmp_path):
    """The published files themselves, up to the weights, which are not at hand."""
    if not (REAL / revision).is_dir():
        pytest.skip(f"{REAL / revision} is not here")
    folder = shutil.copytree(REAL / revision, tmp_path / revision)
    for part in ("unet", "vae", "text_encoder"):
        flax = "flax_model" if part == "text_encoder" else "diffusion_flax_model"
        (folder / part / f"{flax}.msgpack").write_bytes(b"no weights")
    with pytest.raises(DiffjaxError, match=r"unet/diffusion_flax_model\.msgpack is"):
        load_model(folder)
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    predicted = read_schedule(scheduler, revision).prediction_type
    assert predicted == ("v_prediction" if revision == "sd21-bf16" else "epsilon")
    for part in ("vae", "text_encoder"):
        config = json.loads((folder / part / "config.json").read_text())
        kind_of(part).config.from_dict(config, part)
