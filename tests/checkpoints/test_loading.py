"""Whole checkpoints in every format, and put together from parts."""

import gc
import re
import shutil
import weakref

import jax
import numpy as np
import pipelines
import pytest
import torch
from flax.serialization import msgpack_serialize
from loaded import STEMS, assert_same, outputs
from pipelines import edit_json
from safetensors.numpy import load_file, save_file

from diffjax.checkpoints import conditioning, formats, networks
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.networks import load_network
from diffjax.errors import DiffjaxError


# Formats. Our weights are float16 numbers, so a file of halves holds the same model.
def write_flax(folder, stem, tensors):
    """By Flax's names and layouts: dense [in, out], convolution [h, w, in, out]."""
    tree = {}
    for key, value in tensors.items():
        *modules, leaf = key.split(".")
        if stem == "diffusion_pytorch_model":  # diffusers joins lists, a_0; not a/0
            modules = re.sub(r"\.(\d+)", r"_\1", ".".join(modules)).split(".")
        if leaf == "weight":
            table = modules[-1] in ("token_embedding", "position_embedding")
            leaf = "embedding" if table else "scale" if value.ndim == 1 else "kernel"
        if leaf == "kernel":
            value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
        level = tree
        for module in modules:
            level = level.setdefault(module, {})
        level[leaf] = np.ascontiguousarray(value)
    name = {"diffusion_pytorch_model": "diffusion_flax_model", "model": "flax_model"}
    (folder / f"{name[stem]}.msgpack").write_bytes(msgpack_serialize(tree))


def write_bin(folder, stem, tensors):
    name = {"model": "pytorch_model"}.get(stem, stem)
    state = {key: torch.from_numpy(value) for key, value in tensors.items()}
    torch.save(state, folder / f"{name}.bin")


def write_half(folder, stem, tensors):
    halves = {key: value.astype(np.float16) for key, value in tensors.items()}
    save_file(halves, folder / f"{stem}.fp16.safetensors")


def rewrite(folder, write):
    """Put the weights of a pipeline's folder into another format."""
    for part, stem in STEMS.items():
        file = folder / part / f"{stem}.safetensors"
        if file.exists():
            tensors = load_file(file)
            file.unlink()
            write(folder / part, stem, tensors)


@pytest.mark.parametrize("write", [write_flax, write_bin, write_half])
def test_formats(sd, expected, write):
    rewrite(sd, write)
    assert not list(sd.glob("*/*model.safetensors"))
    assert_same(outputs(load_model(sd)), expected)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards(stable_diffusion, expected, tmp_path, variant):
    _, pipeline = stable_diffusion
    if variant == "fp16":  # diffusers saves in the dtype of the module
        pipeline = pipelines.stable_diffusion(tmp_path / "whole")
        for part in ("unet", "vae", "text_encoder"):
            getattr(pipeline, part).half()
    pipeline.save_pretrained(
        tmp_path / "shards", max_shard_size="40KB", variant=variant
    )
    shards = list((tmp_path / "shards" / "unet").glob("*.safetensors"))
    assert len(shards) > 1 and all(variant in f.name for f in shards if variant)
    assert_same(outputs(load_model(tmp_path / "shards")), expected)


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("write", [None, write_flax])
def test_old_autoencoder_attention(sd, expected, convolutions, write):
    """As saved before diffusers 0.16, or as 1×1 convolutions before that."""
    file = sd / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {}
    for key, value in load_file(file).items():
        for new, old in OLD_NAMES.items():
            if f".{new}." in key:
                key = key.replace(f".{new}.", f".{old}.")
                if convolutions and value.ndim == 2:
                    value = value[:, :, None, None]
        tensors[key] = value
    assert sum("proj_attn" in key for key in tensors) == 4
    save_file(tensors, file)
    if write:
        rewrite(sd, write)
    assert_same(outputs(load_model(sd)), expected)


def test_text_encoder_as_saved_before_transformers_5(sd, expected):
    """With a prefix, a buffer of positions and, in some, the pooled projection."""
    file = sd / "text_encoder" / "model.safetensors"
    tensors = {
        f"text_model.{key.removeprefix('text_model.')}": value
        for key, value in load_file(file).items()
    }
    positions = np.arange(pipelines.LENGTH)[None]
    tensors["text_model.embeddings.position_ids"] = positions
    tensors["text_projection.weight"] = np.eye(24, dtype=np.float32)
    save_file(tensors, file)
    edit_json(
        sd / "text_encoder" / "config.json",
        architectures=["CLIPTextModelWithProjection"],
    )
    assert_same(outputs(load_model(sd)), expected)


def test_one_compilation_for_all_weights(stable_diffusion, sd):
    """Models of one configuration have equal structures, whatever their weights."""
    first, second = load_model(stable_diffusion[0]), load_model(sd)
    for part in ("denoiser", "autoencoder", "text_encoder"):
        ours, theirs = first.networks()[part], second.networks()[part]
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        assert hash(ours.graphdef) == hash(theirs.graphdef)


# Parts from elsewhere.
@pytest.mark.parametrize("form", ["component", "pipeline"])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_part_from_elsewhere(stable_diffusion, expected, tmp_path, part, form):
    """A fine-tuned part beside a stock pipeline: only its own outputs change."""
    module = pipelines.randomise(getattr(pipelines, part)(), seed=99)
    place = tmp_path / "tuned"
    module.save_pretrained(place / part if form == "pipeline" else place)
    found = outputs(load_model(stable_diffusion[0], **{part: place}))
    changed = [not np.array_equal(a, b) for a, b in zip(found, expected, strict=True)]
    assert (
        changed
        == {
            "unet": [True, False, False, False],
            "vae": [False, True, True, False],
            "text_encoder": [False, False, False, True],
        }[part]
    )


def test_transformer_from_elsewhere(dit_folder, tmp_path):
    pipelines.dit(num_layers=1).save_pretrained(tmp_path)
    tuned = load_model(dit_folder, transformer=tmp_path)
    assert tuned.denoiser.parameters < load_model(dit_folder).denoiser.parameters


def test_parts_that_do_not_apply(stable_diffusion, dit_folder):
    folder = stable_diffusion[0]
    with pytest.raises(DiffjaxError, match="no transformer to replace"):
        load_model(folder, transformer=dit_folder)
    for part in ("unet", "text_encoder"):
        with pytest.raises(DiffjaxError, match=f"no {part} to replace"):
            load_model(dit_folder, **{part: folder})


# Damaged or foreign checkpoints: one message that says what and where.
def refused(match, folder, **parts):
    with pytest.raises(DiffjaxError, match=match) as caught:
        load_model(folder, **parts)
    return str(caught.value)


@pytest.mark.parametrize(
    ("size", "resolution"), [(8, 16), ([8, 8], 16), ([8, 4], None), (None, None)]
)
def test_resolution(sd, size, resolution):
    edit_json(sd / "unet" / "config.json", sample_size=size)
    if resolution:
        assert load_model(sd).resolution == resolution
    else:
        refused("sample_size", sd)


def test_no_class_names(dit):
    edit_json(dit / "model_index.json", id2label=None)
    model = load_model(dit)
    assert model.class_names is None and model.n_classes == 10
    with pytest.raises(DiffjaxError, match="knows classes by id, not by prompt"):
        model.text_conditioner.encode(["a cat"])


# What trainers leave behind.
@pytest.mark.parametrize("part", ["unet", "vae"])
def test_weights_that_diffusers_averaged(sd, part, tmp_path):
    """A folder that its EMAModel saved: averages, and its counters in the config."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.training_utils import EMAModel

    cls = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    module = getattr(pipelines, part)()
    average = EMAModel(
        module.parameters(),
        decay=0.5,
        use_ema_warmup=True,
        model_cls=cls,
        model_config=module.config,
    )
    pipelines.randomise(module, seed=99)  # a step of training
    average.step(module.parameters())
    average.copy_to(module.parameters())
    module.save_pretrained(tmp_path / "copied")
    average.save_pretrained(tmp_path / "averaged")
    config = (tmp_path / "averaged" / "config.json").read_text()
    assert '"optimization_step": 1' in config and '"inv_gamma"' in config
    found = outputs(load_model(sd, **{part: tmp_path / "averaged"}))
    assert_same(found, outputs(load_model(sd, **{part: tmp_path / "copied"})))


# Variants.
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_variant(sd, expected, tmp_path, part):
    """Other weights beside the plain ones, for one part: the others keep theirs."""
    module = pipelines.randomise(getattr(pipelines, part)(), seed=99)
    module.save_pretrained(sd / part, variant="non_ema")
    module.save_pretrained(tmp_path / "alone")
    assert_same(outputs(load_model(sd)), expected)
    found = outputs(load_model(sd, variant="non_ema"))
    assert_same(found, outputs(load_model(sd, **{part: tmp_path / "alone"})))
    assert load_model(sd, variant="non_ema").origin["variant"] == "non_ema"
    assert "variant" not in load_model(sd).origin


def test_variant_of_a_part_from_elsewhere(sd, tmp_path):
    pipelines.unet().save_pretrained(tmp_path / "unet", variant="bf16")
    load_model(sd, unet=tmp_path / "unet", variant="bf16")
    with pytest.raises(DiffjaxError, match=r"'fp16'.*unet/diffusion_.*bf16\.safetens"):
        load_model(sd, unet=tmp_path / "unet", variant="fp16")


def test_weights_are_copied_once(sd):
    """Out of the file; JAX takes the copy as it is."""
    _, network = load_network(sd / "unet", "unet", on_host=True)
    leaves = jax.tree.leaves(network.state)
    for leaf in leaves:
        assert isinstance(leaf, np.ndarray)
        assert leaf.flags.c_contiguous
        assert not leaf.flags.writeable
    if jax.default_backend() == "cpu":
        on_device = jax.device_put(leaves, jax.devices()[0])
        for leaf, array in zip(leaves, on_device, strict=True):
            assert array.unsafe_buffer_pointer() == leaf.ctypes.data


def test_a_large_text_encoder_is_let_go_and_read_again(sd, tmp_path, monkeypatch):
    monkeypatch.setattr(conditioning, "LARGE_TEXT_ENCODER", {"cpu": 0})
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    folder = shutil.copytree(sd, tmp_path / "again")
    model, kept = load_model(folder), load_model(sd)
    found = [model.text_conditioner.encode(["a cat"])[0] for _ in range(2)]
    expected = kept.text_conditioner.encode(["a cat"])[0]
    np.testing.assert_array_equal(
        [each.states for each in found], [expected.states] * 2
    )
    assert model.fingerprint == kept.fingerprint

    reads = []
    read = formats.read_tensors
    monkeypatch.setattr(
        networks, "read_tensors", lambda *a, **k: reads.append(a) or read(*a, **k)
    )
    encoder = weakref.ref(model.networks()["text_encoder"])
    assert len(reads) == 1
    model.text_conditioner.encode(["a dog"])
    gc.collect()
    assert len(reads) == 1
    assert encoder() is None

    (folder / "text_encoder" / "more").touch()
    with pytest.raises(DiffjaxError, match=r"text_encoder has changed .* load the"):
        model.text_conditioner.encode(["a fish"])
    model.text_conditioner.encode(["a cat"])  # which it has answered


def test_a_text_encoder_whose_prompts_are_kept_is_not_read(sd, tmp_path, monkeypatch):
    prompts, cache = ["a cat", "a dog"], tmp_path / "cache"
    plain = load_model(sd)
    expected, _ = plain.conditioner.encode(prompts)
    load_model(sd, prompt_cache=cache).conditioner.encode(prompts)
    read = formats.read_tensors

    def refuse(place, **kwargs):
        assert place.name != "text_encoder", "it is read"
        return read(place, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(networks, "read_tensors", refuse)
        again = load_model(sd, prompt_cache=cache)
        found, _ = again.conditioner.encode(prompts)
        np.testing.assert_array_equal(found.states, expected.states)
        assert again.fingerprint == plain.fingerprint
        with pytest.raises(AssertionError, match="it is read"):
            again.conditioner.encode(["a bird"])
        # other files may hold another one
        (sd / "text_encoder" / "model.safetensors").touch()
        with pytest.raises(AssertionError, match="it is read"):
            load_model(sd, prompt_cache=cache)
