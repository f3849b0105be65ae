"""Files that are no network's weights in a known layout are named for what they are.

Single files of Stable Diffusion that are read: ``test_original_sd.py``.
"""

import json
import os
import struct

import numpy as np
import pipelines
import pytest
import torch
from paper_dit import DiT
from safetensors.numpy import load_file, save_file

from diffjax.checkpoints.components import RUNS
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.single_file import alone
from diffjax.errors import DiffjaxError

UNET = "model.diffusion_model.input_blocks.0.0.weight"
VAE = "first_stage_model.encoder.down.0.block.0.conv1.weight"
# names of published files: the first ones of each part
SD_1 = (UNET, VAE, "cond_stage_model.transformer.text_model.embeddings.position_ids")
WHOLE = {
    "Stable Diffusion 3": (
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
    ),
    "FLUX": ("double_blocks.0.img_attn.qkv.weight",),
    "refiner of Stable Diffusion XL": (
        UNET,
        "conditioner.embedders.0.model.ln_final.weight",
    ),
    "CosXL": (UNET, "conditioner.embedders.1.model.x", "edm_vpred.sigma_max"),
}


def write(path, names):
    if path.suffix == ".safetensors":
        save_file({name: np.zeros(1, np.float32) for name in names}, path)
    else:
        old = path.name.startswith("old")
        state = {name: torch.zeros(1) for name in names}
        torch.save(
            {"state_dict": state, "global_step": 470000},
            path,
            _use_new_zipfile_serialization=not old,
        )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    pipelines.stable_diffusion(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "v1-5-pruned-emaonly.safetensors",
        'it\'s "new" é.ckpt',
        "old.ckpt",
        "a.pt",
        "a.bin",
    ],
)
@pytest.mark.parametrize("version", WHOLE)
def test_whole_models_that_no_code_reads(folder, tmp_path, name, version):
    path = write(tmp_path / name, WHOLE[version])
    for arguments in ({"name_or_path": path}, {"name_or_path": folder, "unet": path}):
        with pytest.raises(DiffjaxError) as caught:
            load_model(**arguments)
        message = str(caught.value)
        assert str(path) in message and f"a {version} in a single file" in message
        assert f"it runs {RUNS}" in message


def test_only_the_header_is_read(tmp_path):
    """64 GiB by its header, of which the disk holds a few hundred bytes."""
    size = 2**36
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [size, size]}
    header = {UNET: entry, "conditioner.embedders.0.model.x": empty}
    header = json.dumps(header).encode()
    path = tmp_path / "large.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + size)
    with pytest.raises(DiffjaxError, match=r"refiner of Stable Diffusion XL"):
        load_model(path)


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
        "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight",
        "unet.up_blocks.1.attn1.processor.to_k.lora.up.weight",
        "transformer.transformer_blocks.0.attn.to_k.lora_B.weight",
        "double_blocks.0.img_attn.qkv.lora_A.weight",
    ],
)
def test_a_lora_is_no_weights(folder, tmp_path, name):
    path = write(tmp_path / "a.safetensors", [name])
    for arguments in ({"name_or_path": path}, {"name_or_path": folder, "vae": path}):
        with pytest.raises(DiffjaxError, match=f"It is a LoRA.*--lora {path}"):
            load_model(**arguments)


def test_a_part_s_weights_in_place_of_a_model(folder, tmp_path):
    """Named for what they are; where they are a part's, they are taken."""
    for part, option in (
        ("unet", "unet"),
        ("vae", "vae"),
        ("text_encoder", "text-encoder"),
    ):
        (stored,) = (folder / part).glob("*.safetensors")
        path = tmp_path / f"{part}.safetensors"
        tensors = load_file(stored)
        if part == "text_encoder":
            tensors = {
                f"text_model.{k.removeprefix('text_model.')}": t
                for k, t in tensors.items()
            }
        save_file(tensors, path)
        with pytest.raises(DiffjaxError, match=f"alone.*--model.*--{option} {path}"):
            load_model(path)
        load_model(folder, **{part: path})
    dit = DiT(8, 10, width=24, depth=1, heads=2, patch=2)
    torch.save({"ema": dit.state_dict()}, tmp_path / "dit.pt")
    with pytest.raises(
        DiffjaxError, match=r"a SiT alone.*sit-xl-2-256, and .*--transformer"
    ):
        load_model(tmp_path / "dit.pt")


def test_a_folder_with_a_single_file(tmp_path):
    path = write(tmp_path / "v1-5-pruned.ckpt", SD_1)
    with pytest.raises(DiffjaxError, match=f"It has {path}, a whole .*: name that"):
        load_model(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "pt", "txt"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}" * 50, b"\xff" * 99])
def test_anything_else_is_a_file(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    begins = "It is damaged" if suffix == "safetensors" else "A model is a folder"
    assert alone(path).startswith(begins)
    with pytest.raises(DiffjaxError, match="is a file, not a folder"):
        load_model(path)
