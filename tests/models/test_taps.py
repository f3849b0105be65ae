"""What layers put out, against hooks on diffusers' own modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
import small
import torch
from pipelines import error, hooked, normal, quick_jit, to_torch

from diffjax.checkpoints.networks import load_network
from diffjax.errors import DiffjaxError
from diffjax.models.network import Network
from diffjax.models.own import own_model
from diffjax.models.taps import (
    block_names,
    check_layers,
    layer_names,
    middle_layer,
    outputs,
)
from diffjax.models.unet import PooledCondition, TextCondition
from diffjax.schedules import Schedule
from diffjax.tracing import jit

BOUND = 1e-4
TIMES = np.array([5, 700], np.int32)
CLASSES = np.array([3, 10], np.int32)


@quick_jit
def features(network, latents, condition):
    def one(z, t, condition):
        module = network.module()
        return outputs(module, layer_names(module), z, t, condition)

    return jax.vmap(one)(latents, TIMES, condition)


def unet(height, width, **changes):
    module = pipelines.unet(**changes)
    latents, states = normal(2, height, width, 4, seed=1), normal(2, 7, 24, seed=2)
    told = {"encoder_hidden_states": torch.from_numpy(states)}
    return module, "unet", latents, TextCondition(states), told


def unet_xl():
    module = pipelines.unet(**pipelines.UNET_XL)
    latents, states = normal(2, 8, 8, 4, seed=1), normal(2, 7, 56, seed=2)
    pooled, sizes = normal(2, 20, seed=3), np.array([[64, 80, 0, 8, 64, 64]] * 2)
    added = {"text_embeds": pooled, "time_ids": sizes}
    told = {
        "encoder_hidden_states": torch.from_numpy(states),
        "added_cond_kwargs": {k: torch.from_numpy(v) for k, v in added.items()},
    }
    condition = PooledCondition(states, pooled, sizes.astype(np.int32))
    return module, "unet", latents, condition, told


def dit():
    latents = normal(2, 8, 8, 4, seed=5)
    told = {"class_labels": torch.from_numpy(CLASSES).long()}
    return pipelines.dit(num_layers=3), "transformer", latents, CLASSES, told


CASES = {
    "U-Net": lambda: unet(9, 7, attention_head_dim=[1, 4]),  # no level is halved evenly
    "XL": unet_xl,
    "DiT": dit,
}


@pytest.mark.parametrize("name", CASES)
def test_every_layer_puts_out_what_diffusers_does(tmp_path, name):
    module, part, latents, condition, told = CASES[name]()
    module.save_pretrained(tmp_path)
    network = load_network(tmp_path, part, jnp.float32)[1]
    layers = layer_names(network.module())
    with hooked(module, layers) as expected, torch.no_grad():
        module(to_torch(latents), timestep=torch.from_numpy(TIMES), **told)
    for layer, ours in zip(layers, features(network, latents, condition), strict=True):
        theirs = expected[layer]
        if theirs.ndim == 3:  # tokens
            ours = ours.reshape(len(ours), -1, ours.shape[-1])
        assert error(ours, theirs) < BOUND, layer


def test_names_of_layers():
    module = small.text_denoiser().module()
    blocks = block_names(module)
    assert blocks == (
        *("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"),
    )
    assert middle_layer(module, "it") == "mid_block"
    layers = layer_names(module)
    assert [each for each in layers if each.startswith("mid_block")] == [
        "mid_block.resnets.0",
        "mid_block.attentions.0",
        "mid_block.resnets.1",
        "mid_block",
    ]
    dit = small.random(small.DiTTransformer2DModel, small.DIT).module()
    assert layer_names(dit) == ("transformer_blocks.0", "transformer_blocks.1")


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        (["mid_blok"], "Did you mean 'mid_block'"),
        (["up_blocks.2"], "up_blocks.1"),
        (["conv_in"], "inside of them resnets, attentions"),
        (["mid_block", "mid_block"], "twice"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers, told):
    with pytest.raises(DiffjaxError, match=told):
        check_layers(small.text_denoiser().module(), layers, "it")


def test_a_denoiser_of_ones_own_has_no_layers():
    schedule, names = Schedule.named("cosine"), ["a", "b"]
    model = own_model(
        lambda z, t, c: z * c, schedule, (8, 8, 3), name="mine", class_names=names
    )
    with pytest.raises(DiffjaxError, match="mine has no layers"):
        middle_layer(model.denoiser.module(), model.name)


def flops(function, *given):
    return jit(function).lower(*given).compile().cost_analysis()["flops"]


def test_what_follows_the_layer_costs_nothing_and_tapping_changes_nothing():
    """XLA leaves out what nobody reads, and a tap is gone after its trace."""
    network = small.random(small.DiTTransformer2DModel, small.DIT)
    z, t, c = jnp.asarray(normal(8, 8, 4)), jnp.int32(5), jnp.int32(3)

    def whole(network: Network):
        return network.module()(z, t, c)

    def until(layer):
        return lambda network: outputs(network.module(), [layer], z, t, c)

    before = flops(whole, network)
    first, second = (flops(until(f"transformer_blocks.{i}"), network) for i in (0, 1))
    block = second - first
    assert first < 0.7 * before and block > 0.2 * before
    assert second < before
    assert flops(whole, network) == before
