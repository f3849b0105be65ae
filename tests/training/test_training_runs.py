"""A recipe from images to an exported model, which loads anywhere."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from diffjax.baselines.own import load_classifier
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.errors import DiffjaxError
from diffjax.training.recipes import (
    TextToImage,
    get_recipe,
    of_length,
)
from diffjax.training.runs import run_training, start_run, train

CLASSES = ("cat", "dog", "ship")
TEST = get_recipe("test")
TEST_DIT = get_recipe("test-dit")
QUIET = Console(quiet=True)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resume_under_another_recipe_or_seed_is_refused(tmp_path):
    start_run(TEST, 0, tmp_path, data="cifar")
    said_otherwise = dataclasses.replace(TEST, summary="Other words.")
    start_run(said_otherwise, 0, tmp_path, data="cifar")
    other = dataclasses.replace(
        TEST, denoiser=dataclasses.replace(TEST.denoiser, batch=8)
    )
    with pytest.raises(DiffjaxError) as caught:
        start_run(other, 1, tmp_path, data="other images")
    assert "recipe.denoiser.batch: 4 → 8" in str(caught.value)
    assert "seed: 0 → 1" in str(caught.value)
    assert "data: 'cifar' → 'other images'" in str(caught.value)


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(
        DiffjaxError, match="no recipe 'huge'; choose one of tiny, tiny-full"
    ):
        run_training("huge", tmp_path, tmp_path / "out")
    with pytest.raises(DiffjaxError, match="no data set cifar10"):
        run_training("test", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# the phases' batches divide among different numbers of devices
SMALL = dataclasses.replace(
    TEST, scenes=6, autoencoder=dataclasses.replace(TEST.autoencoder, batch=3)
)


def train_small(out, recipe=SMALL, steps=None, n=12):
    random = np.random.default_rng(0)
    size = 28 if recipe.dataset == "fashion_mnist" else 32
    images = random.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    labels = (np.arange(n) % len(CLASSES)).astype(np.int32)
    return train(
        recipe, images, labels, CLASSES, out, seed=0, steps=steps, console=QUIET
    )


def of_three_classes(recipe):
    transformer = dict(recipe.transformer) | {"num_embeds_ada_norm": len(CLASSES)}
    return dataclasses.replace(recipe, transformer=transformer)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow  # compiles the denoiser's step twice more
def test_six_steps_are_three_and_three_more(trained, tmp_path):
    half = load_file(train_small(tmp_path, steps=3) / WEIGHTS)
    assert "3 steps of 6, stopped" in (tmp_path / "model" / "README.md").read_text()
    rest = load_file(train_small(tmp_path) / WEIGHTS)
    whole = load_file(trained / WEIGHTS)
    assert any((half[key] != whole[key]).any() for key in whole)
    for key, array in whole.items():
        np.testing.assert_array_equal(array, rest[key], err_msg=key)
    steps = [row["step"] for row in read_rows(tmp_path / "denoiser" / "loss.csv")]
    assert steps == ["3", "6"]


@pytest.mark.slow  # compiles the largest networks that are trained
@pytest.mark.parametrize("name", ["tiny-full", "tiny-dit-full"])
def test_a_recipe_for_accelerators_runs_on_a_cpu_when_cut(name, tmp_path):
    recipe = of_length(get_recipe(name), 1)
    if isinstance(recipe, TextToImage):
        recipe = dataclasses.replace(recipe, scenes=6)
    else:
        recipe = of_three_classes(recipe)
    n = recipe.denoiser.batch  # images, at least as many as a batch
    model = train_small(tmp_path, recipe, n=n)
    DiffusionClassifier.from_pretrained(model)
    card = (model / "README.md").read_text()
    assert "Denoiser: 1 step, of 256 images" in card


@pytest.mark.slow  # trains
def test_a_run_leaves_its_logs_and_curve(trained):
    out = trained.parent
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    rows = read_rows(out / "autoencoder" / "loss.csv")
    assert list(rows[0]) == ["step", "loss", "images_per_second"]
    assert [row["step"] for row in rows] == ["3", "6"]
    assert (out / "denoiser" / "samples-000006.png").exists()
    card = (trained / "README.md").read_text()
    assert "`cifar10`" in card and "- `a photo of a {}.`" in card


@pytest.mark.slow  # trains
def test_the_scaling_factor_makes_latents_of_unit_variance(trained):
    factor = json.loads((trained / "vae" / "config.json").read_text())["scaling_factor"]
    latents = np.load(trained.parent / "latents.npy")
    assert latents.shape == (2 * 12 + 6, 16, 16, 4)
    np.testing.assert_allclose((latents * factor).std(), 1, rtol=1e-4)


@pytest.mark.slow  # trains
def test_torch_reads_the_export_and_computes_the_same(trained):
    import torch
    from diffusers import StableDiffusionPipeline

    from diffjax.checkpoints.loading import load_model

    pipeline = StableDiffusionPipeline.from_pretrained(trained, dtype=torch.float32)
    ours = load_model(trained)
    prompts = ["a photo of a ship.", ""]
    ids = pipeline.tokenizer(
        prompts, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    random = np.random.default_rng(0)
    latents = random.normal(size=(2, 16, 16, 4)).astype(np.float32)
    with torch.no_grad():
        states = pipeline.text_encoder(ids).last_hidden_state
        noise = pipeline.unet(
            torch.tensor(latents).permute(0, 3, 1, 2), torch.tensor([3, 700]), states
        ).sample.permute(0, 2, 3, 1)
        image = pipeline.vae.decode(torch.tensor(latents).permute(0, 3, 1, 2)).sample
    conditions, _ = ours.conditioner.encode(prompts)
    np.testing.assert_allclose(conditions.states, states.numpy(), atol=1e-4)
    predicted = jax.vmap(ours.denoiser.module())(
        latents, jnp.array([3, 700]), conditions
    )
    np.testing.assert_allclose(predicted, noise.numpy(), atol=1e-4)
    decoded = jax.vmap(ours.autoencoder.module().decode)(latents)
    np.testing.assert_allclose(decoded, image.permute(0, 2, 3, 1).numpy(), atol=1e-4)
    assert np.abs(noise.numpy()).max() > 1e-3  # six steps moved it off zero


@pytest.mark.slow  # half a minute, most of it training
def test_torch_reads_an_exported_dit_and_computes_the_same(tmp_path):
    import torch
    from diffusers import DiTPipeline

    from diffjax.checkpoints.loading import load_model

    model = train_small(tmp_path, of_three_classes(TEST_DIT))
    pipeline = DiTPipeline.from_pretrained(model, dtype=torch.float32)
    assert pipeline.labels == {"cat": 0, "dog": 1, "ship": 2}
    ours = load_model(model)
    assert ours.class_names == CLASSES and ours.learned_variance
    latents = np.random.default_rng(0).normal(size=(2, 14, 14, 4)).astype(np.float32)
    with torch.no_grad():
        output = pipeline.transformer(
            torch.tensor(latents).permute(0, 3, 1, 2),
            torch.tensor([3, 700]),
            torch.tensor([1, 3]),
        ).sample.permute(0, 2, 3, 1)
    predicted = jax.vmap(ours.denoiser.module())(
        latents, jnp.array([3, 700]), jnp.array([1, 3])
    )
    np.testing.assert_allclose(predicted, output.numpy(), atol=1e-4)
    assert np.abs(predicted).max() > 1e-3  # six steps moved it off zero
    assert "by class; 10% of them without" in (model / "README.md").read_text()


def test_a_resnet_is_trained_by_the_same_loop(tmp_path):
    model = train_small(tmp_path, get_recipe("test-resnet"))
    classifier = load_classifier(model)
    assert classifier.class_names == CLASSES
    assert classifier.resolution == 32
    pixels = np.zeros((2, 32, 32, 3), np.float32)
    probabilities = np.exp(classifier.log_probabilities(pixels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    rows = read_rows(tmp_path / "classifier" / "loss.csv")
    assert [row["step"] for row in rows] == ["3", "6"]
    assert abs(float(rows[0]["loss"]) - np.log(3)) < 0.5  # nearly untrained
    assert (tmp_path / "loss.png").exists()
