"""The embedded model: small, whole, the same in torch, and of some use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.resolving import resolve
from diffjax.classifier import DiffusionClassifier
from diffjax.cli import demo
from diffjax.errors import DiffjaxError

MEBI = 2**20


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def test_it_is_small():
    folder = resolve("tiny")
    assert sum(p.stat().st_size for p in folder.rglob("*")) <= 16 * MEBI


def test_the_catalogue_knows_its_size(tiny):
    entry = MODELS["tiny"]
    parts = (tiny.denoiser, tiny.autoencoder, tiny.text_encoder)
    assert tiny.denoiser.parameters == entry.denoiser_parameters
    assert sum(part.parameters for part in parts) == entry.total_parameters
    assert tiny.resolution == entry.resolution


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
    ours, truncated = tiny.text_states([prompt])
    assert not truncated
    np.testing.assert_allclose(ours[0], states[0], atol=1e-4 * states.std().item())
    z_t = jnp.asarray(latent[0].transpose(1, 2, 0))
    predicted = tiny.denoiser.module()(z_t, jnp.int32(400), ours[0])
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
