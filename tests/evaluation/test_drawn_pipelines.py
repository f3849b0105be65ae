"""Whole pipelines of diffusers, from the same noise: the same images.

Small random pipelines that diffusers made and saved, through the public loader.
"""

import jax
import joint_pipelines
import numpy as np
import pipelines
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.dit import pipeline_dit
from pipelines import error, from_torch, to_torch

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.prompts import Prompts
from diffjax.evaluation.sampling import Sampler, usual
from diffjax.evaluation.subjects import subjects_of

BOUND = 1e-4
SEED, STEPS = 3, 4
TEXTS = Prompts(
    prompts=("a cat", "the dog! of a"), classidx=(0, 1), class_names=("cat", "dog")
)
IMAGES = [(0, 0), (1, 4)]


def ours(folder, asked, guidance, **options):
    """Images of both classes, their noise, and the sampler."""
    classifier = DiffusionClassifier.from_pretrained(folder, seed=SEED, **options)
    subjects = subjects_of(classifier.model, asked)
    sampler = Sampler(classifier, subjects, steps=STEPS, guidance=guidance, batch=2)
    noise = [
        classifier.grid.noise.draw(sampler._keys[c], k, classifier.latent_shape)
        for c, k in IMAGES
    ]
    drawn = np.asarray(jax.device_get(sampler.draw(IMAGES)))
    return drawn, to_torch(np.stack(noise)), sampler


def decoded(pipeline, latents):
    """Pixels of the latents that a pipeline ends with, not yet cut to [−1, 1]."""
    config = pipeline.vae.config
    z = latents / config.scaling_factor + (config.shift_factor or 0)
    with torch.no_grad():
        return from_torch(pipeline.vae.decode(z).sample)


def with_ddim(pipeline, folder):
    """By what the file says: in memory it is known which settings were defaults."""
    pipeline.scheduler = DDIMScheduler.from_pretrained(
        folder, subfolder="scheduler", clip_sample=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("guidance", "prediction"), [(7.5, "epsilon"), (1.0, "v_prediction")]
)
def test_stable_diffusion_draws_what_its_pipeline_draws(tmp_path, guidance, prediction):
    made = pipelines.stable_diffusion(tmp_path)
    place = tmp_path / "scheduler" / "scheduler_config.json"
    pipelines.edit_json(place, prediction_type=prediction)
    made = with_ddim(made, tmp_path)
    drawn, noise, sampler = ours(tmp_path, TEXTS, guidance)
    theirs = made(
        list(TEXTS.prompts),
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    assert error(drawn, decoded(made, theirs)) <= BOUND
    assert usual(sampler.model) == (50, 7.5)


def test_dit_draws_what_its_pipeline_draws(tmp_path, monkeypatch):
    # the pipeline knows no other class of none than 1000
    made = pipelines.dit_pipeline(
        tmp_path, transformer=pipelines.dit(num_embeds_ada_norm=1000)
    )
    pipelines.edit_json(tmp_path / "model_index.json", id2label=None)
    made.set_progress_bar_config(disable=True)
    drawn, noise, sampler = ours(tmp_path, ["7", "207"], 4.0)
    monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda **_: noise)
    theirs = made([7, 207], num_inference_steps=STEPS, output_type="np").images
    free = (theirs > 0) & (theirs < 1)
    assert free.mean() > 0.5
    assert np.abs(drawn / 2 + 0.5 - theirs)[free].max() <= BOUND
    assert usual(sampler.model) == (50, 4.0)


@pytest.mark.slow
def test_xl_draws_what_its_pipeline_draws(tmp_path):
    made = with_ddim(pipelines.stable_diffusion_xl(tmp_path), tmp_path)
    drawn, noise, sampler = ours(tmp_path, TEXTS, 5.0)
    theirs = made(
        list(TEXTS.prompts),
        latents=noise,
        num_inference_steps=STEPS,
        output_type="latent",
        height=16,
        width=16,
    ).images
    assert error(drawn, decoded(made, theirs)) <= BOUND
    assert usual(sampler.model) == (50, 5.0)


@pytest.mark.slow
def test_stable_diffusion_3_draws_what_its_pipeline_draws(tmp_path):
    made = joint_pipelines.stable_diffusion_3(tmp_path)
    made.set_progress_bar_config(disable=True)
    drawn, noise, sampler = ours(tmp_path, TEXTS, 7.0)
    theirs = made(
        list(TEXTS.prompts),
        latents=noise,
        num_inference_steps=STEPS,
        output_type="latent",
        height=16,
        width=16,
    ).images
    assert error(drawn, decoded(made, theirs)) <= BOUND
    assert usual(sampler.model) == (28, 7.0)


@pytest.mark.slow
@pytest.mark.parametrize("guided", [True, False])
def test_flux_draws_what_its_pipeline_draws(tmp_path, guided):
    made = joint_pipelines.flux(tmp_path, guided=guided)
    made.set_progress_bar_config(disable=True)
    drawn, noise, sampler = ours(
        tmp_path, TEXTS, 2.5 if guided else None, resolution=16
    )
    n, c, h, w = noise.shape
    packed = made._pack_latents(noise, n, c, h, w)
    theirs = made(
        list(TEXTS.prompts),
        latents=packed,
        num_inference_steps=STEPS,
        guidance_scale=2.5,
        max_sequence_length=512 if guided else 256,
        output_type="latent",
        height=16,
        width=16,
    ).images
    unpacked = made._unpack_latents(theirs, 16, 16, made.vae_scale_factor)
    assert error(drawn, decoded(made, unpacked)) <= BOUND
    assert usual(sampler.model) == ((28, 3.5) if guided else (4, 1.0))


@pytest.mark.slow
def test_pixart_draws_what_its_pipeline_draws(tmp_path):
    made = with_ddim(joint_pipelines.pixart(tmp_path, alpha=False), tmp_path)
    drawn, noise, sampler = ours(tmp_path, TEXTS, 4.5)
    theirs = made(
        list(TEXTS.prompts),
        latents=noise,
        num_inference_steps=STEPS,
        output_type="latent",
        height=16,
        width=16,
        use_resolution_binning=False,
        clean_caption=False,
    ).images
    assert error(drawn, decoded(made, theirs)) <= BOUND
    assert usual(sampler.model) == (20, 4.5)
