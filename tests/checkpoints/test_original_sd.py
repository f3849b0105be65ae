"""Stable Diffusion in single files: diffusers reads them, and so do we, to the bit."""

import gzip
import json
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import original_files
import pipelines
import published
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders import single_file_utils as theirs
from flax import nnx

from diffjax.checkpoints import original_sd, single_file
from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.mappings import torch_names
from diffjax.checkpoints.networks import empty_network, kind_of, load_network
from diffjax.errors import DiffjaxError

KINDS = ("sd-1", "sd-2", "sdxl")
KEYS = Path(__file__).parents[1] / "goldens" / "keys"


def small(folder, kind):
    """A small pipeline, and its folder."""
    if kind == "sdxl":
        return pipelines.stable_diffusion_xl(folder)
    if kind == "sd-1":
        return pipelines.stable_diffusion(folder)
    return pipelines.stable_diffusion(
        folder,
        unet=pipelines.unet(use_linear_projection=True),
        text_encoder=pipelines.text_encoder(hidden_act="gelu"),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders, pipelines and tensors of a file, by kind."""
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("configs") / kind
        pipeline = small(folder, kind)
        averaged = pipelines.randomise(pipelines.unet(), seed=9)
        tensors = original_files.tensors_of(
            pipeline, kind, averaged=averaged if kind == "sd-1" else None
        )
        made[kind] = folder, pipeline, tensors
    return made


@pytest.fixture
def configs(models, tmp_path, monkeypatch):
    """The configs of the package are the small pipelines' in place of the real ones."""
    place = tmp_path / "configs"
    for kind, (folder, _, _) in models.items():
        shutil.copytree(
            folder, place / kind, ignore=shutil.ignore_patterns("*.safetensors")
        )
    monkeypatch.setattr(single_file, "CONFIGS", place)


def tokenizers(folder, kind):
    names = ("tokenizer", "tokenizer_2") if kind == "sdxl" else ("tokenizer",)
    return {name: folder / name for name in names}


def assert_equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for key, tensor in a.items():
        assert torch.equal(tensor, b[key]), key


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, "safetensors") for kind in KINDS), ("sd-1", "ckpt")],
)
def test_a_file_is_what_its_folder_is(models, configs, tmp_path, kind, suffix):
    folder, pipeline, tensors = models[kind]
    path = original_files.save(tmp_path / f"a b.{suffix}", tensors)
    model = load_model(path, **tokenizers(folder, kind))
    expected = load_model(folder)
    assert model.describe() == expected.describe()  # all weights, and what decides
    if suffix == "ckpt":
        return
    cls = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    read = cls.from_single_file(path, config=str(folder), local_files_only=True)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(pipeline, name):
            assert_equal(getattr(read, name), getattr(pipeline, name))
    assert model.name == model.origin["model"] == str(path)


def test_parts_of_a_file(models, tmp_path):
    """From a whole file, and from a network's alone."""
    folder, _, tensors = models["sd-1"]
    path = original_files.save(tmp_path / "whole.safetensors", tensors)
    names = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
    for name, prefix in names.items():
        alone = {
            key.removeprefix(prefix): tensor
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }
        bare = original_files.save(tmp_path / f"{name}.safetensors", alone)
        expected = load_network(folder / name, name)[1].fingerprint
        for file in (path, bare):
            found = load_network(folder / name, name, weights=file, variant="non_ema")[
                1
            ]
            assert found.fingerprint == expected
        with pytest.raises(DiffjaxError, match=rf"alone\..*--model.*--{name} "):
            load_model(bare)
    other = models["sdxl"][0]
    with pytest.raises(DiffjaxError, match="does not fit"):
        load_model(other, unet=path, variant="non_ema")
    with pytest.raises(DiffjaxError, match="no text_encoder_2: it holds unet, vae"):
        load_network(other / "text_encoder_2", "text_encoder_2", weights=path)


def test_averaged_weights(models, configs, tmp_path):
    """--variant ema takes them; without, a note says that there is a choice."""
    folder, pipeline, tensors = models["sd-1"]
    path = original_files.save(tmp_path / "a.safetensors", tensors)
    read = theirs.convert_ldm_unet_checkpoint(
        dict(tensors), pipeline.unet.config, extract_ema=True
    )
    unet = pipelines.unet()
    unet.load_state_dict(read)
    unet.save_pretrained(tmp_path / "unet")
    expected = load_network(tmp_path / "unet", "unet")[1].fingerprint
    averaged = load_model(path, tokenizer=folder, variant="ema")
    assert averaged.denoiser.fingerprint == expected
    # of a folder that has no such variant, the file's counts
    again = load_model(folder, unet=path, variant="ema")
    assert again.weights == averaged.weights
    with pytest.warns(UserWarning, match="holds averaged weights"):
        plain = load_network(folder / "unet", "unet", weights=path)[1]
    assert plain.fingerprint != expected
    fewer = {k: v for k, v in tensors.items() if not k.endswith("blocks00weight")}
    bad = original_files.save(tmp_path / "bad.safetensors", fewer)
    with pytest.raises(DiffjaxError, match="not those of the same network"):
        load_network(folder / "unet", "unet", weights=bad, variant="ema")
    with pytest.raises(DiffjaxError, match="no weights of the variant 'fp16'"):
        load_model(path, tokenizer=folder, variant="fp16")


def test_what_lightning_leaves_in_a_file(tmp_path, monkeypatch):
    """A class as a key, in a published file; nothing of it is imported."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    content = {
        "state_dict": {"a": torch.ones(2)},
        "callbacks": {module.ModelCheckpoint: {"best_model_path": ""}},
    }
    for part in (name, "pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, module)
    torch.save(content, tmp_path / "a.ckpt")
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="state_dict is taken of it"):
        assert [*read_tensors(tmp_path / "a.ckpt")] == ["a"]


def change(tensors, *, without="", **more):
    kept = {k: v for k, v in tensors.items() if not (without and k.startswith(without))}
    return kept | {key.replace("/", "."): value for key, value in more.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("sd-1", {"new/weight": torch.zeros(1)}, ["new.weight", "another kind"]),
        (
            "sd-1",
            {"without": "first_stage_model."},
            ["no vae", "--vae", "sd-1.5"],
        ),
        (
            "sd-1",
            {"model/diffusion_model/more/bias": torch.zeros(2)},
            ["unexpected (1)", "more.bias"],
        ),
        (
            "sdxl",
            {"without": "model.diffusion_model.output_blocks.0.0."},
            ["missing", "output_blocks.0.0.in_layers.0.weight"],
        ),
        (
            "sd-2",
            {"model/diffusion_model/input_blocks/0/0/weight": torch.zeros(16, 9, 3, 3)},
            ["9 input channels", "inpainting"],
        ),
        (
            "sdxl",
            {"without": "conditioner.embedders.1"},
            ["holds what no Stable Diffusion", "is a file, not a folder"][1:],
        ),
    ],
)
def test_files_that_do_not_fit(models, configs, tmp_path, kind, changes, words):
    folder, _, tensors = models[kind]
    path = original_files.save(tmp_path / "a.safetensors", change(tensors, **changes))
    with pytest.raises(DiffjaxError) as caught:
        load_model(path, **tokenizers(folder, kind))
    for word in (str(path), *words):
        assert word in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_file_that_breaks_off(models, configs, tmp_path, suffix):
    folder, _, tensors = models["sd-1"]
    path = original_files.save(tmp_path / f"a.{suffix}", tensors)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DiffjaxError, match="damaged"):
        load_model(path, tokenizer=folder)


@pytest.mark.filterwarnings("ignore")
def test_what_a_file_says_of_its_schedule(models, configs, tmp_path):
    folder, _, tensors = models["sdxl"]
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    path = original_files.save(tmp_path / "v.safetensors", tensors | marks)
    model = load_model(path, **tokenizers(folder, "sdxl"))
    assert model.schedule.prediction_type == "v_prediction"
    assert model.schedule.signal[-1] < 1e-6
    # of Stable Diffusion 2 it says nothing, and that is said
    path = original_files.save(tmp_path / "2.safetensors", models["sd-2"][2])
    with pytest.warns(UserWarning, match=r"768 pixels and v-pred.*--unet .*2\.safe"):
        assert single_file.layout_of(path).name == "sd-2.1"


def test_a_tokenizer_that_is_not_at_hand(models, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    path = original_files.save(tmp_path / "a.safetensors", models["sd-1"][2])
    with pytest.raises(DiffjaxError, match=r"no tokenizer.*sd-1\.5.*--tokenizer"):
        load_model(path, local_files_only=True, cache_dir=tmp_path / "none")


FULL = {
    "sd15-unet": "unet",
    "sd2-unet": "unet",
    "sdxl-unet": "unet",
    "sd-vae": "vae",
    "sd2-text": "text_encoder",
    "sdxl-text-2": "text_encoder_2",
}


@pytest.mark.parametrize("name", FULL)
def test_names_of_the_full_size(name):
    """diffusers makes of our names those of the published folders, with their shapes.

    Tensors without memory.
    """
    component = FULL[name]
    raw = json.loads((KEYS / f"{name}.json").read_text())
    config = kind_of(component).config.from_dict(raw, name)
    lines = gzip.decompress((KEYS / f"{name}.txt.gz").read_bytes()).decode()
    listed = {
        key: tuple(map(int, shape.split(",")))
        for key, shape in (line.split("\t") for line in lines.splitlines())
    }
    listed = {k: v for k, v in listed.items() if not k.endswith("position_ids")}
    for old, new in kind_of(component).names.aliases:
        listed = {re.sub(old, new, key): shape for key, shape in listed.items()}
    if component.startswith("text"):
        model_config = pipelines.CLIPTextConfig(**raw)
        with torch.device("meta"):
            cls = pipelines.CLIPTextModel
            cls = pipelines.CLIPTextModelWithProjection if "2" in component else cls
            encoder = cls(model_config)
        original = original_files.open_clip(encoder)
        read = theirs.convert_open_clip_checkpoint(encoder, original, prefix="")
        found, names = original_sd.part(
            component,
            {k: np.broadcast_to(np.float32(0), v.shape) for k, v in original.items()},
            config,
            name,
        )
        known = set(found) - {"logit_scale"}
        if component == "text_encoder":  # SD 2's pooled output is not used
            known -= {"text_projection.weight"}
            read.pop("text_projection.weight")
    else:
        meta = {key: torch.empty(shape, device="meta") for key, shape in listed.items()}
        original = original_files.renamed(component, raw, meta)
        convert = {
            "unet": theirs.convert_ldm_unet_checkpoint,
            "vae": theirs.convert_ldm_vae_checkpoint,
        }[component]
        prefix = original_sd.PREFIXES[component][0]
        read = convert({prefix + key: t for key, t in original.items()}, raw)
        names = {
            "unet": original_sd.unet_names,
            "vae": original_sd.autoencoder_names,
        }[component](config)
        known = set(original)
    assert {k: tuple(v.shape) for k, v in read.items()} == listed
    state = empty_network(config)[1]
    ours = {torch_names(path, names, 0)[0] for path, _ in nnx.to_flat_state(state)}
    assert ours == known


def test_configs_of_the_package_are_the_published_ones():
    repositories = {
        "sd-1": "runwayml/stable-diffusion-v1-5",
        "sd-2": "stabilityai/stable-diffusion-2-1",
        "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    }
    notes = ("torch_dtype", "transformers_version")
    for kind, repository in repositories.items():
        folder = single_file.CONFIGS / kind
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        compared = 0
        for part, config in published.RUN[repository].items():
            file = "scheduler_config" if part == "scheduler" else "config"
            path = folder / part / f"{file}.json"
            if not path.exists():
                continue
            ours = json.loads(path.read_text(encoding="utf-8"))
            assert published.without(ours, *notes) == published.without(config, *notes)
            assert part in index
            compared += 1
        assert compared == 4 + (kind == "sdxl"), kind
