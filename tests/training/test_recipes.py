"""Every recipe, the ones for accelerators too: its networks fit, it can be cut."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from diffjax.baselines.resnet import ResNet, ResNetConfig
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
        assert found.shape == (h, w, 2 * c)  # and what is said of the variance


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
