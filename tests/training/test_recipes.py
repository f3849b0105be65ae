"""Every recipe, the ones for accelerators too: its networks fit, it can be cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit
from scipy.stats import norm

from diffjax.baselines.resnet import ResNet, ResNetConfig
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
from diffjax.models.dit import DiTTransformer2DConfig, DiTTransformer2DModel
from diffjax.models.unet import TextCondition, UNet2DConditionModel
from diffjax.models.unet_config import UNet2DConditionConfig
from diffjax.training.optimiser import make_optimiser
from diffjax.training.recipes import (
    RECIPES,
    Diffusion,
    Discriminative,
    TextToImage,
    get_recipe,
    of_length,
)

SIDES = {"cifar10": 32, "fashion_mnist": 28}
PHASES = {"autoencoder", "denoiser", "classifier"}
LAST = {
    name: "classifier" if isinstance(recipe, Discriminative) else "denoiser"
    for name, recipe in RECIPES.items()
}


def shape_of(kind, config, *inputs, method="__call__"):
    """What a network of these settings makes of inputs of these shapes and types."""
    module = nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0)))
    inputs = [
        each if isinstance(each, TextCondition) else jax.ShapeDtypeStruct(*each)
        for each in inputs
    ]
    return nnx.eval_shape(lambda m, *x: getattr(m, method)(*x), module, *inputs)


def of(kind):
    return [r for r in RECIPES.values() if isinstance(r, kind)]


@pytest.mark.parametrize("recipe", of(Diffusion), ids=lambda r: r.name)
def test_a_denoiser_fits_the_latents_of_its_data(recipe):
    side = SIDES[recipe.dataset]
    vae = AutoencoderKLConfig.from_dict(recipe.vae)
    pixels = ((side, side, 3), jnp.float32)
    latent, _ = shape_of(AutoencoderKL, vae, pixels, method="encode")
    z, t = (latent.shape, jnp.float32), ((), jnp.int32)
    if isinstance(recipe, TextToImage):
        text = CLIPTextConfig.from_dict(
            dict(recipe.text_encoder) | {"vocab_size": recipe.vocabulary}
        )
        ids = ((text.max_position_embeddings,), jnp.int32)
        states = shape_of(CLIPTextModel, text, ids).states
        unet = UNet2DConditionConfig.from_dict(recipe.unet)
        assert unet.sample_size == latent.shape[0]
        condition = TextCondition(states)
        found = shape_of(UNet2DConditionModel, unet, z, t, condition)
        assert found.shape == latent.shape
    else:
        dit = DiTTransformer2DConfig.from_dict(recipe.transformer)
        assert dit.sample_size == latent.shape[0]
        found = shape_of(DiTTransformer2DModel, dit, z, t, t)
        h, w, c = latent.shape
        flow = "Flow" in recipe.scheduler["_class_name"]
        # and what is said of the variance, which a flow's steps have none of
        assert found.shape == (h, w, c if flow else 2 * c)


def test_the_flow_is_trained_as_tiny_dit_is():
    """So that nothing but the process tells them apart, and the variance it lacks."""
    dit, flow = get_recipe("tiny-dit"), get_recipe("tiny-flow")
    same = {"name", "summary", "scheduler", "transformer", "logit_normal"}
    assert {f.name for f in dataclasses.fields(dit)} - same == {
        f.name
        for f in dataclasses.fields(dit)
        if getattr(dit, f.name) == getattr(flow, f.name)
    }
    assert flow.transformer == dict(dit.transformer) | {"out_channels": 4}
    # the signal-to-noise ratios that are trained on: their mean, spread and middle
    q = (np.arange(2000) + 0.5) / 2000

    def log_ratios(recipe):
        schedule = read_schedule(recipe.scheduler, recipe.name)
        t = 1000 * expit(norm.ppf(q, *recipe.logit_normal))
        a, s = (np.asarray(x)[t.astype(int)] for x in (schedule.signal, schedule.sigma))
        return np.log(np.maximum(a, 1e-6) / s)

    ours, theirs = log_ratios(flow), log_ratios(dit)
    assert abs(ours.mean() - theirs.mean()) < 0.05
    assert abs(ours.std() - theirs.std()) < 0.05


@pytest.mark.parametrize("recipe", of(Discriminative), ids=lambda r: r.name)
def test_a_classifier_has_a_logit_a_class(recipe):
    side = SIDES[recipe.dataset]
    config = ResNetConfig.from_dict(dict(recipe.network), recipe.name)
    logits = shape_of(ResNet, config, ((side, side, 3), jnp.float32))
    assert logits.shape == (config.num_classes,)


@pytest.mark.parametrize(("name", "last"), LAST.items())
@pytest.mark.parametrize("steps", [1, 7, 100_000])
def test_a_recipe_of_another_length_differs_in_its_phases_alone(name, last, steps):
    recipe = get_recipe(name)
    other = of_length(recipe, steps)
    assert getattr(other, last).steps == steps
    for phase in PHASES & vars(recipe).keys():
        own, new = getattr(recipe, phase), getattr(other, phase)
        assert phase == last or new.steps == min(own.steps, steps)
        assert new.warmup <= steps / 2
        make_optimiser(new, {"a.kernel": jnp.ones((2, 3))})  # which optax accepts
        back = dataclasses.replace(new, steps=own.steps, warmup=own.warmup)
        assert back == own
        other = dataclasses.replace(other, **{phase: own})
    assert other == recipe
