"""Files that are no network's weights in a known layout are named for what they are."""

import json
import os
import shlex
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
WHOLE = {
    "Stable Diffusion 1.x": (
        UNET,
        VAE,
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "betas",
    ),
    "Stable Diffusion 2.x": (UNET, VAE, "cond_stage_model.model.ln_final.bias"),
    "Stable Diffusion XL": (
        UNET,
        VAE,
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
    ),
    "Stable Diffusion 3": (
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
    ),
    "diffusion model": (UNET,),
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
def test_a_whole_model_in_one_file(folder, tmp_path, name, version):
    path = write(tmp_path / name, WHOLE[version])
    asked = [{"name_or_path": path}]
    if path.suffix != ".ckpt":
        asked.append({"name_or_path": folder, "unet": path})
    for arguments in asked:
        with pytest.raises(DiffjaxError) as caught:
            load_model(**arguments)
        message = str(caught.value)
        assert str(path) in message and f"a whole {version} in a single" in message
        if version[-2:] in (".x", "XL"):
            command = message[message.index("python -c") :]
            program = shlex.split(command)[2]
            compile(program, "command", "exec")
            pipeline = f"StableDiffusion{'XL' * version.endswith('XL')}Pipeline"
            for word in (
                pipeline,
                "from_single_file",
                "save_pretrained",
                repr(str(path)),
            ):
                assert word in program
            import diffusers

            assert hasattr(getattr(diffusers, pipeline), "from_single_file")
        else:
            assert f"diffjax runs {RUNS}" in message


def test_only_the_header_is_read(tmp_path):
    """64 GiB by its header, of which the disk holds a few hundred bytes."""
    size = 2**36
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps(
        {
            UNET: entry,
            "cond_stage_model.transformer.x": {
                "dtype": "F32",
                "shape": [0],
                "data_offsets": [size, size],
            },
        }
    ).encode()
    path = tmp_path / "large.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + size)
    with pytest.raises(DiffjaxError, match=r"whole Stable Diffusion 1\.x"):
        load_model(path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "a LoRA"),
        (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "a LoRA"),
        (["unet.up_blocks.1.attn1.processor.to_k.lora.up.weight"], "a LoRA"),
        (["encoder.down.0.block.0.norm1.weight"], "AutoencoderKL.from_single_file"),
        (["input_blocks.0.0.weight"], "UNet2DConditionModel.from_single_file"),
    ],
)
def test_other_layouts(folder, tmp_path, names, words):
    path = write(tmp_path / "a.safetensors", names)
    for arguments in ({"name_or_path": path}, {"name_or_path": folder, "vae": path}):
        with pytest.raises(DiffjaxError, match=words):
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
    with pytest.raises(DiffjaxError, match="--transformer"):
        load_model(tmp_path / "dit.pt")


def test_a_folder_with_a_single_file(tmp_path):
    write(tmp_path / "v1-5-pruned.ckpt", WHOLE["Stable Diffusion 1.x"])
    with pytest.raises(DiffjaxError, match=r"It has v1-5-pruned\.ckpt\. It is a whole"):
        load_model(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "pt", "txt"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}" * 50, b"\xff" * 99])
def test_anything_else_is_a_file(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    assert alone(path).startswith("A model is a folder")
    with pytest.raises(DiffjaxError, match="is a file, not a folder"):
        load_model(path)
