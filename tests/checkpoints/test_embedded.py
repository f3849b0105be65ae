"""The embedded models: small, whole, the same in torch, and of some use."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.baselines.own import EMBEDDED, load_classifier
from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.resolving import resolve
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.cli import demo
from diffjax.data.images import load_image
from diffjax.data.scenes import scenes
from diffjax.errors import DiffjaxError
from diffjax.models.conditions import take
from diffjax.schedules import add_noise
from diffjax.training.recipes import get_recipe

MEBI = 2**20
DIFFUSION = ("tiny", "tiny-dit", "tiny-flow")


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def test_they_are_small():
    folders = [*map(resolve, DIFFUSION), EMBEDDED["resnet"]]
    files = [path for folder in folders for path in folder.rglob("*")]
    assert sum(path.stat().st_size for path in files) <= 48 * MEBI


@pytest.mark.parametrize("name", DIFFUSION)
def test_the_catalogue_knows_their_sizes(name):
    entry, model = MODELS[name], load_model(name)
    assert model.denoiser.parameters == entry.denoiser_parameters
    known = [part.parameters for part in model.networks().values()]
    assert sum(known) == entry.total_parameters
    assert model.resolution == entry.resolution


@pytest.mark.parametrize("name", DIFFUSION)
def test_they_are_what_their_recipes_make(name):
    """A run of the recipe can begin from them, so names and shapes are the recipe's."""
    recipe, folder = get_recipe(name), resolve(name)
    part = "unet" if name == "tiny" else "transformer"
    wanted = recipe.unet if name == "tiny" else recipe.transformer
    assert json.loads((folder / part / "config.json").read_text()) == wanted
    vae = json.loads((folder / "vae" / "config.json").read_text())
    assert vae.pop("scaling_factor") > 0
    assert vae == recipe.vae
    scheduler = folder / "scheduler" / "scheduler_config.json"
    assert json.loads(scheduler.read_text()) == recipe.scheduler


def test_every_caption_of_a_scene_fits(tiny):
    _, sentences = scenes(300, seed=7, split="train")
    assert not any(tiny.conditioner.tokenize(sentences).truncated)


@pytest.mark.parametrize("name", ["tiny-dit", "tiny-flow"])
def test_diffusers_in_torch_loads_a_transformer_and_agrees(name):
    import torch
    from diffusers import DiTPipeline

    transformer = load_model(name)
    pipeline = DiTPipeline.from_pretrained(resolve(name), dtype=torch.float32)
    size = transformer.resolution // transformer.downscale
    latent = np.random.default_rng(0).standard_normal((1, 4, size, size), np.float32)
    with torch.no_grad():
        noise = pipeline.transformer(
            torch.from_numpy(latent),
            timestep=torch.tensor([300]),
            class_labels=torch.tensor([7]),
        ).sample
    z_t = jnp.asarray(latent[0].transpose(1, 2, 0))
    network = transformer.denoiser.module()
    predicted = network(z_t, jnp.int32(300), jnp.int32(7))
    error = np.abs(np.asarray(predicted).transpose(2, 0, 1) - noise[0].numpy()).max()
    assert error <= 1e-4 * noise.std().item()
    assert pipeline.labels[transformer.class_names[9]] == 9


@pytest.mark.parametrize("name", ["tiny-dit", "tiny-flow"])
def test_a_transformer_knows_a_class_from_what_it_draws_of_it(name):
    """Latents drawn under a class have less error under that class than under most."""
    from diffjax.models.diffusion import predict
    from diffjax.models.sampling import sample

    transformer = load_model(name)
    schedule, network = transformer.schedule, transformer.denoiser
    n = transformer.n_classes
    size = transformer.resolution // transformer.downscale

    @jax.jit
    def draw(network):
        one = network.module()
        return sample(
            lambda z_t, t: jax.vmap(one, (0, None, 0))(z_t, t, jnp.arange(n))[..., :4],
            transformer.steps(10, transformer.resolution),
            jax.random.normal(jax.random.key(0), (n, size, size, 4)),
        )

    @jax.jit
    def errors(network, z0):  # [class of the picture, class asked for]
        def error(z0, condition, t, key):
            noise = jax.random.normal(key, z0.shape)
            z_t = add_noise(schedule, z0, noise, t)
            guess, _ = predict(network, schedule, z_t, t, condition)
            return jnp.mean((guess - noise) ** 2)

        t, keys = jnp.arange(50, 750, 70), jax.random.split(jax.random.key(1), 10)
        over = jax.vmap(error, (None, None, 0, 0))
        over = jax.vmap(over, (None, 0, None, None))
        return jax.vmap(over, (0, None, None, None))(z0, jnp.arange(n), t, keys).mean(
            axis=2
        )

    table = np.asarray(errors(network, draw(network)))
    assert (table.argmin(axis=1) == np.arange(n)).sum() >= n // 2


def test_the_resnet_is_right_about_most_images_of_the_demo():
    classifier = load_classifier("resnet")
    images = {
        path: truth for path, truth in demo.examples().items() if "_" in path.stem
    }
    pixels = [classifier.pixels(np.asarray(load_image(path))) for path in images]
    found = classifier.log_probabilities(np.stack(pixels)).argmax(axis=1)
    right = [
        classifier.class_names[k] == truth
        for k, truth in zip(found, images.values(), strict=True)
    ]
    assert sum(right) >= 4  # of six; chance is less than one


def test_the_resnet_is_what_its_recipe_makes():
    config = json.loads((EMBEDDED["resnet"] / "config.json").read_text())
    assert len(config.pop("id2label")) == config.pop("num_classes") == 10
    assert config.pop("sample_size") == 32
    assert config == get_recipe("resnet").network


def test_diffusers_in_torch_loads_it_and_agrees(tiny):
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(resolve("tiny"))
    prompt = "a photo of a ship."
    latent = np.random.default_rng(0).standard_normal((1, 4, 16, 16), np.float32)
    with torch.no_grad():
        ids = pipeline.tokenizer(
            [prompt],
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        states = pipeline.text_encoder(ids)[0]
        noise = pipeline.unet(torch.from_numpy(latent), 400, states).sample
    ours, truncated = tiny.text_conditioner.encode([prompt])
    assert not truncated
    np.testing.assert_allclose(
        ours.states[0], states[0], atol=1e-4 * states.std().item()
    )
    z_t = jnp.asarray(latent[0].transpose(1, 2, 0))
    predicted = tiny.denoiser.module()(z_t, jnp.int32(400), take(ours, 0))
    error = np.abs(np.asarray(predicted).transpose(2, 0, 1) - noise[0].numpy()).max()
    assert error <= 1e-4 * noise.std().item()
    # and the whole pipeline runs
    image = pipeline(prompt, num_inference_steps=1, output_type="np").images[0]
    assert image.shape == (32, 32, 3)
    assert np.isfinite(image).all()


def test_dtypes_by_name_or_type(monkeypatch):
    assert load_model("tiny").origin["dtype"] == "float32"  # on a CPU
    for dtype in ("bfloat16", jnp.bfloat16):
        assert load_model("tiny", dtype=dtype).origin["dtype"] == "bfloat16"
    for dtype in ("int8", "float33"):
        with pytest.raises(DiffjaxError, match=r"There is no dtype .* bfloat16"):
            load_model("tiny", dtype=dtype)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert load_model("tiny").origin["dtype"] == "bfloat16"
    assert load_model("tiny", dtype="float32").origin["dtype"] == "float32"


def test_it_classifies_the_images_of_the_demo():
    classifier = DiffusionClassifier.from_pretrained(
        "tiny", strategy="exhaustive:n_samples=20"
    )
    candidates = classifier.candidates(demo.LABELS, demo.TEMPLATE)
    right = [
        classifier.classify(path, candidates).label == truth
        for path, truth in demo.examples().items()
    ]
    assert sum(right) >= 4  # seven images; chance is less than one
