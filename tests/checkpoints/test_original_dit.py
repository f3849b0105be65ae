"""Files that the program of DiT's paper saved, beside a pipeline."""

import argparse
import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import paper_dit
import pipelines
import pytest
import torch
from flax import nnx
from hub_server import Hub
from paper_dit import PARAMETERS_XL2, XL2, DiT
from pipelines import denoise, error, from_torch, normal, randomise
from safetensors.torch import save_file
from test_catalog import hub  # noqa: F401  a fixture

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.mappings import match
from diffjax.checkpoints.naming import ORIGINAL_DIT
from diffjax.checkpoints.networks import empty_network, kind_of
from diffjax.checkpoints.original_dit import original_config, split_attention
from diffjax.errors import DiffjaxError

BOUND = 1e-4
KEYS = Path(__file__).parents[1] / "goldens" / "keys"
# of pipelines.DIT
SMALL = {"width": 24, "depth": 2, "heads": 2, "patch": 2}
EDGE, CLASSES = 8, 10


def small(seed=7):
    model = DiT(EDGE, CLASSES, **SMALL)
    table = model.pos_embed.clone()
    randomise(model, seed)
    with torch.no_grad():
        model.pos_embed.copy_(table)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline whose own transformer has other weights."""
    folder = tmp_path_factory.mktemp("dit")
    pipelines.dit_pipeline(folder)
    return folder


@pytest.fixture(scope="module")
def model():
    return small()


INPUTS = normal(3, EDGE, EDGE, 4), np.int32([3, 500, 999]), np.int32([0, 7, 10])


def theirs(model):
    latents, timesteps, classes = INPUTS
    with torch.no_grad():
        z = pipelines.to_torch(latents)
        return from_torch(model(z, torch.tensor(timesteps), torch.tensor(classes)))


def ours(folder, file, **more):
    return np.asarray(
        denoise(load_model(folder, transformer=file, **more).denoiser, *INPUTS)
    )


def test_bare_files(folder, model, tmp_path):
    expected = theirs(model)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        assert error(ours(folder, tmp_path / name), expected) <= BOUND
    # the pipeline's own transformer is another
    own = np.asarray(denoise(load_model(folder).denoiser, *INPUTS))
    assert error(own, expected) > 0.1


def test_the_original_s_frequencies_matter(folder, model, tmp_path):
    """With those of diffusers the answers are others, as they are in its copies."""
    torch.save(model.state_dict(), tmp_path / "a.pt")
    loaded = load_model(folder, transformer=tmp_path / "a.pt")
    config = loaded.denoiser.module().config
    assert (config.freq_shift, config.norm_eps) == (0.0, 1e-6)
    assert load_model(folder).denoiser.module().config.freq_shift == 1.0
    as_diffusers = dataclasses.replace(config, freq_shift=1.0)
    graphdef, _ = empty_network(as_diffusers)
    wrong = type(loaded.denoiser)(graphdef, loaded.denoiser.state)
    assert error(np.asarray(denoise(wrong, *INPUTS)), theirs(model)) > 100 * BOUND


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_training_checkpoints(folder, model, tmp_path, prefix):
    """Averaged weights come first; the command line is no code that is run."""
    other = small(seed=8)

    def state(module):
        return {prefix + key: value for key, value in module.state_dict().items()}

    optimiser = torch.optim.AdamW(other.parameters(), lr=1e-4)
    options = argparse.Namespace(
        model="DiT-XL/2",
        image_size=256,
        results_dir="results",
        lr=1e-4,
        flags=[1, None],
    )
    content = {
        "model": state(other),
        "ema": state(model),
        "opt": optimiser.state_dict(),
        "args": options,
    }
    torch.save(content, tmp_path / "0400000.pt")
    with pytest.warns(
        UserWarning, match=r"ema .averaged weights. is taken .*not model"
    ):
        found = ours(folder, tmp_path / "0400000.pt")
    assert error(found, theirs(model)) <= BOUND
    del content["ema"]
    torch.save(content, tmp_path / "0400000.pt")
    with pytest.warns(UserWarning, match="model is taken of it, and not opt, args"):
        found = ours(folder, tmp_path / "0400000.pt")
    assert error(found, theirs(other)) <= BOUND


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_command_line_that_is_code_is_refused(folder, model, tmp_path):
    options = argparse.Namespace(evil=Evil(tmp_path / "trace"))
    torch.save({"ema": model.state_dict(), "args": options}, tmp_path / "a.pt")
    with pytest.raises(DiffjaxError, match=r"a\.pt was refused.*state_dict\(\) alone"):
        load_model(folder, transformer=tmp_path / "a.pt")
    assert not (tmp_path / "trace").exists()


def test_half_precision(folder, model, tmp_path):
    halves = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    torch.save(halves, tmp_path / "a.pt")
    rounded = small()
    rounded.load_state_dict({k: v.float() for k, v in halves.items()})
    rounded.pos_embed.data.copy_(paper_dit.positions(SMALL["width"], EDGE // 2))
    assert error(ours(folder, tmp_path / "a.pt"), theirs(rounded)) <= BOUND


def refused(folder, tmp_path, state, match):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(DiffjaxError, match=match):
        load_model(folder, transformer=tmp_path / "a.pt")


def test_other_resolutions_and_sizes_are_refused(folder, model, tmp_path):
    state = model.state_dict()
    larger = DiT(2 * EDGE, CLASSES, **SMALL).state_dict()
    refused(folder, tmp_path, larger, "edge of 16, and .* sample_size=8.*dit-512")
    learned = state | {"pos_embed": state["pos_embed"] + 0.1}
    refused(folder, tmp_path, learned, "not the table of sinusoids")
    deeper = DiT(EDGE, CLASSES, **SMALL | {"depth": 3}).state_dict()
    refused(folder, tmp_path, deeper, r"unexpected \(\d+\):\s+blocks\.2\.")
    fewer = {k: v for k, v in state.items() if "blocks.1.attn.qkv" not in k}
    refused(folder, tmp_path, fewer, r"missing \(6\):\s+blocks\.1\.attn\.to_k\.bias")
    odd = state | {"blocks.0.attn.qkv.bias": torch.zeros(71)}
    refused(folder, tmp_path, odd, r"unexpected .*qkv|missing")
    half = {"module." + k if i % 2 else k: v for i, (k, v) in enumerate(state.items())}
    refused(folder, tmp_path, half, "missing")


@pytest.mark.parametrize("key", ["t_embedder.mlp.0.weight", "final_layer.linear.bias"])
def test_each_tensor_is_needed(folder, model, tmp_path, key):
    state = {k: v for k, v in model.state_dict().items() if k != key}
    refused(folder, tmp_path, state, rf"missing \(1\):\s+{key}")


def test_any_tensor_s_change_is_noticed(folder, model, tmp_path):
    """None of the names leads to another parameter of the same shape."""
    expected = theirs(model)
    for key in model.state_dict():
        if key == "pos_embed" or key.endswith("qkv.bias"):  # key biases cancel
            continue
        changed = small()
        with torch.no_grad():
            changed.state_dict()[key].flatten()[::3].add_(1.0)
        torch.save(changed.state_dict(), tmp_path / "a.pt")
        found = ours(folder, tmp_path / "a.pt")
        assert error(found, theirs(changed)) <= BOUND, key
        assert error(found, expected) > BOUND, key


def test_full_size_names_and_shapes():
    """The published DiT-XL/2, without memory: every tensor has its parameter."""
    config = json.loads((KEYS / "dit-xl-2-256.json").read_text())
    config = original_config(kind_of("transformer").config.from_dict(config, "x"))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DiT.__new__(DiT)
        original, paper_dit.positions = (
            paper_dit.positions,
            lambda width, edge: torch.empty(1, edge * edge, width),
        )
        try:
            model.__init__(32, 1000, **XL2)
        finally:
            paper_dit.positions = original
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert sum(map(np.prod, shapes.values())) == PARAMETERS_XL2
    assert shapes["blocks.27.attn.qkv.weight"] == (3456, 1152)
    assert shapes["y_embedder.embedding_table.weight"] == (1001, 1152)
    assert shapes["final_layer.linear.weight"] == (32, 1152)
    zero = np.float32(0)
    tensors = {key: np.broadcast_to(zero, shape) for key, shape in shapes.items()}
    tensors["pos_embed"] = original(1152, 16).numpy()
    _, state = empty_network(config)
    arrays = match(state, split_attention(tensors, config, "x"), ORIGINAL_DIT, "x")
    expected = {path: leaf.shape for path, leaf in nnx.to_flat_state(state)}
    assert {path: array.shape for path, array in arrays.items()} == expected
    assert sum(map(np.prod, expected.values())) + 256 * 1152 == PARAMETERS_XL2


def test_any_network_may_be_a_file_of_weights(tmp_path):
    """In diffusers' names, with the pipeline's own config."""
    pipelines.stable_diffusion(tmp_path / "sd")
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        tuned = randomise(getattr(pipelines, part)(), seed=99)
        tuned.save_pretrained(tmp_path / part)
        file = tmp_path / f"{part}.safetensors"
        shutil.copy(tmp_path / part / f"{name}.safetensors", file)
        by_folder = load_model(tmp_path / "sd", **{part: tmp_path / part})
        by_file = load_model(tmp_path / "sd", **{part: file})
        assert by_file.fingerprint == by_folder.fingerprint
        assert by_file.fingerprint != load_model(tmp_path / "sd").fingerprint
    with pytest.raises(DiffjaxError, match="has no transformer to replace"):
        load_model(tmp_path / "sd", transformer=tmp_path / "unet.safetensors")
    with pytest.raises(DiffjaxError, match=r"unet\.safetensors does not fit"):
        load_model(tmp_path / "sd", vae=tmp_path / "unet.safetensors")
    with pytest.raises(DiffjaxError, match=r"unet\.safetensors is a file"):
        load_model(tmp_path / "sd", tokenizer=tmp_path / "unet.safetensors")


def test_beside_a_pipeline_from_the_hub(hub: Hub, folder, model, tmp_path):  # noqa: F811
    """Of the transformer there, only the config is fetched."""
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    hub.add("facebook/DiT-XL-2-256", files)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    found = ours("dit-256", tmp_path / "a.pt")
    assert error(found, theirs(model)) <= BOUND
    fetched = [name for name in hub.fetched if name.startswith("transformer/")]
    assert fetched == ["transformer/config.json"]
