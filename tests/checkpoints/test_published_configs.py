"""The configs of every published checkpoint are read as they are, or refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import published
import pytest
from safetensors.numpy import save_file

from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.components import COMPONENTS, STEMS
from diffjax.checkpoints.loading import PIPELINES, load_model
from diffjax.checkpoints.networks import kind_of
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.checkpoints.untrained import UNTRAINED
from diffjax.errors import DiffjaxError
from diffjax.models.t5 import T5Config

T5 = "T5EncoderModel"
RUN = [(name, part) for name, parts in published.RUN.items() for part in parts]


def read(repository, part):
    config = published.RUN[repository][part]
    if part == "scheduler":
        return read_schedule(config, repository, tokens=4096)
    if config.get("model_type") == "t5":
        return T5Config.from_dict(config, repository)
    named = config.get("_class_name", config.get("architectures", [None])[0])
    named = named and named.removeprefix("Flax")
    return kind_of(part, named).config.from_dict(config, repository)


@pytest.mark.parametrize(("repository", "part"), RUN)
def test_every_part_of_what_we_run_is_read(repository, part):
    config = published.RUN[repository][part]
    found = read(repository, part)
    if part == "scheduler" and "FlowMatch" in config["_class_name"]:
        assert found.prediction_type == "flow" and found.posterior is None
        assert len(found.sigma) == 1000
        return
    if part == "scheduler":
        assert found.prediction_type == config.get("prediction_type", "epsilon")
        assert len(found.posterior.alpha_bar) == 1000
        # ᾱ of the first and of the last step: Rombach et al. 2022, or Ho et al. 2020
        ends = [0.99915, 0.0046600]
        if "PixArt" in repository:
            ends = [0.9999, 0.00004036]
        np.testing.assert_allclose(
            np.asarray(found.posterior.alpha_bar)[[0, -1]],
            ends,
            rtol=1e-4,
        )
        return
    # of FLUX's T5 the file names none
    named = config.get("_class_name", config.get("architectures", [T5])[0])
    assert named.removeprefix("Flax") in COMPONENTS[part].classes
    for field in dataclasses.fields(found):
        if field.name in config:
            value = config[field.name]
            value = tuple(value) if isinstance(value, list) else value
            assert getattr(found, field.name) == value, field.name


def test_one_family_differs_in_the_size_of_images_alone():
    """So that the key lists of one stand for all."""

    neutral = {
        "unet": {"sample_size": 64},
        "transformer": {"sample_size": 64},
        "vae": {"scaling_factor": 1.0},
        "text_encoder": {},
    }
    ones, twos, dits = (
        [name for name in published.RUN if any(part in name for part in parts)]
        for parts in [("diffusion-v1", "sd1"), ("diffusion-2", "sd2"), ("DiT",)]
    )
    assert (len(ones), len(twos), len(dits)) == (5, 5, 2)
    four = [
        name
        for name, parts in published.RUN.items()
        if parts.get("vae", {}).get("latent_channels") == 4
    ]
    groups = [
        *((ones, "unet"), (ones, "text_encoder"), (dits, "transformer")),
        *((twos, "unet"), (twos, "text_encoder"), (four, "vae")),
    ]
    for names, part in groups:
        first, *others = [
            dataclasses.replace(read(name, part), **neutral[part])
            for name in names
            if part in published.RUN[name]
        ]
        assert others and all(other == first for other in others), (names, part)


@pytest.mark.parametrize("repository", published.REFUSED)
def test_other_families_are_refused_before_their_weights_are_read(repository, tmp_path):
    """The files named weights here hold none."""
    pipeline, parts, words = published.REFUSED[repository]
    index = {"_class_name": pipeline}
    if "refiner" in repository:
        index["requires_aesthetics_score"] = True
    for part, config in parts.items():
        folder = tmp_path / part
        folder.mkdir()
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / name).write_text(json.dumps(config))
        index[part] = ["library", "class"]
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        if part != "scheduler":
            save_file({"x": np.zeros(1)}, folder / f"{stem}.safetensors")
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(DiffjaxError) as caught:
        load_model(tmp_path)
    for word in [str(tmp_path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", [n for n in UNTRAINED if "sit-" not in n])
def test_configs_of_the_package_are_the_published_ones(name):
    part, path = UNTRAINED[name]
    ours = json.loads(path.read_text(encoding="utf-8"))
    repositories = {
        "sd-1.5": "runwayml/stable-diffusion-v1-5",
        "sd-2-base": "stabilityai/stable-diffusion-2-base",
        "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
        "dit-256": "facebook/DiT-XL-2-256",
        "sd-3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
        "sd-3.5-large": "stabilityai/stable-diffusion-3.5-large",
        "flux-dev": "black-forest-labs/FLUX.1-dev",
        "sd-3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
        "pixart-sigma": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    }
    if name == "tiny":  # the package's own model
        return
    assert ours == published.RUN[repositories[name]][part]


def test_key_lists_are_of_the_published_configs():
    folder = Path(__file__).parents[1] / "goldens" / "keys"
    notes = ("torch_dtype", "transformers_version")
    for name, config in {
        "sd15-unet": published.UNET_1,
        "sd2-unet": published.UNET_2,
        "sd-vae": published.VAE,
        "sd1-text": published.without(published.TEXT_1, *notes),
        "sd2-text": published.without(published.TEXT_2, *notes),
        "sdxl-unet": published.UNET_XL,
        "sdxl-text-2": published.without(published.TEXT_XL_2, *notes),
        "dit-xl-2-256": published.DIT,
    }.items():
        listed = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        assert listed == config, name


CATALOGUE = {
    "pixart-sigma": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    "pixart-alpha": "PixArt-alpha/PixArt-XL-2-1024-MS",
    "sd-3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd-3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
    "sd-3.5-large": "stabilityai/stable-diffusion-3.5-large",
    "flux-schnell": "black-forest-labs/FLUX.1-schnell",
    "flux-dev": "black-forest-labs/FLUX.1-dev",
    "sd-1.4": "CompVis/stable-diffusion-v1-4",
    "sd-1.5": "runwayml/stable-diffusion-v1-5",
    "sd-2-base": "stabilityai/stable-diffusion-2-base",
    "sd-2.1-base": "stabilityai/stable-diffusion-2-1-base",
    "sd-2.1": "stabilityai/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sdxl-turbo": "stabilityai/sdxl-turbo",
    "dit-256": "facebook/DiT-XL-2-256",
    "dit-512": "facebook/DiT-XL-2-512",
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue_says_what_the_configs_say(name):
    """Of repositories that have moved, the name has stayed."""
    assert {*CATALOGUE} == {n for n, m in MODELS.items() if m.hub_id and not m.bare}
    model, parts = MODELS[name], published.RUN[CATALOGUE[name]]
    assert model.hub_id.split("/")[1] == CATALOGUE[name].split("/")[1]
    assert model.kind == ("class" if "DiT" in model.hub_id else "text")
    denoiser = parts.get("unet") or parts["transformer"]
    assert model.resolution == 8 * denoiser.get("sample_size", 128)
    if model.kind == "text":
        kind = parts["scheduler"].get("prediction_type", "epsilon")
        words = {"epsilon": "ε-prediction", "v_prediction": "v-prediction"}
        if "FlowMatch" in parts["scheduler"]["_class_name"]:
            words["epsilon"] = "flow"
        assert model.note.startswith(words[kind])


# -- with the published files ------------------------------------------------------

WRITERS = ("_diffusers_version", "_name_or_path")
real = pytest.mark.skipif(
    not published.REAL.is_dir(),
    reason="the published files are not beside the checkout",
)


def real_configs():
    """Repository, component and content of every file that a reader of ours reads."""
    for path in sorted(published.REAL.glob("**/*config.json")):
        folder, part = path.parts[-3:-1]
        if part in (*STEMS, "scheduler"):
            content = json.loads(path.read_text(encoding="utf-8"))
            kept = {k: v for k, v in content.items() if k not in WRITERS}
            yield folder.replace("__", "/"), part, kept


@real
def test_these_are_the_values_of_the_published_files():
    facts = published.RUN | {name: each[1] for name, each in published.REFUSED.items()}
    seen = set()
    for repository, part, content in real_configs():
        if "refiner" in repository and part == "text_encoder":
            continue  # named in no place that is read
        assert content == facts[repository][part], (repository, part)
        seen.add((repository, part))
    for name in published.ELSEWHERE:
        del facts[name]
    assert seen == {(name, part) for name, parts in facts.items() for part in parts}


@real
def test_published_pipelines_have_these_classes():
    for path in sorted(published.REAL.glob("*__*/model_index.json")):
        repository = path.parent.name.replace("__", "/")
        index = json.loads(path.read_text(encoding="utf-8"))
        if repository in published.REFUSED:
            assert index["_class_name"] == published.REFUSED[repository][0]
        else:
            denoiser = published.RUN[repository].keys() & {"unet", "transformer"}
            assert denoiser <= {*index}
            assert index["_class_name"] in PIPELINES
            for part in index.keys() & {"tokenizer", "tokenizer_2", "tokenizer_3"}:
                of_t5 = index[part.replace("tokenizer", "text_encoder")][1] == T5
                expected = "T5TokenizerFast" if of_t5 else "CLIPTokenizer"
                assert index[part] == ["transformers", expected]
