"""A family made up for tests: two text encoders, and conditions of four leaves.

Two small CLIP text encoders make the states together, side by side. The second also
says which tokens count (a mask of booleans), and how many (an integer). The U-Net is
told the last state besides, as others are told a pooled output.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import small
from flax import nnx

from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
from diffjax.models.conditioner import Conditioner, TextEncoder, Tokens
from diffjax.models.diffusion import DiffusionModel
from diffjax.models.network import Network
from diffjax.models.unet import TextCondition, UNet2DConditionModel


class Told(NamedTuple):
    """States [l, d], the last one [d], tokens that count [l], and their number []."""

    states: jax.Array
    pooled: jax.Array
    mask: jax.Array
    length: jax.Array


class ToldUNet(nnx.Module):
    """A U-Net whose states are masked, and moved by the other two leaves."""

    def __init__(self, config=small.ONE_LEVEL) -> None:
        unet = small.random(UNet2DConditionModel, config)
        self.unet = unet.module()
        self.dtype = self.unet.dtype
        self.pooled = nnx.Param(small.jax_random(small.WIDTH, small.WIDTH, seed=7))
        self.lengths = nnx.Param(small.jax_random(small.TOKENS + 1, small.WIDTH))

    def vectors(self, condition):
        return condition

    def memory(self, height, width):
        return self.unet.memory(height, width)

    def __call__(self, latent, timestep, condition):
        more = condition.pooled @ self.pooled[...] + self.lengths[...][condition.length]
        states = jnp.where(condition.mask[:, None], condition.states, 0) + more
        return self.unet(latent, timestep, TextCondition(states))


class Counting(nnx.Module):
    """A text encoder that also says which of its tokens count."""

    def __init__(self, clip) -> None:
        self.clip = clip

    def __call__(self, ids):
        return self.clip(ids).states, ids != 0


def combine(text, counting):
    """What the two encoders give of a prompt → its condition."""
    more, mask = counting
    both = jnp.concatenate([text.states, more], axis=-1)
    return Told(both, both[-1], mask, mask.sum(dtype=jnp.int32))


def backwards(prompts):
    """Another tokenizer: the letters from the end."""
    ids, cut = small.tokenize(prompts)
    return Tokens(ids[:, ::-1].copy(), cut)


def clip(seed: int) -> Network:
    config = CLIPTextConfig(
        vocab_size=128,
        hidden_size=small.WIDTH // 2,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=small.TOKENS,
    )
    network = small.random(CLIPTextModel, config)
    return jax.tree.map(lambda leaf: leaf * (1 + seed), network)


def encoders() -> list[Network]:
    return [clip(0), Network.of(Counting(clip(1).module()))]


def denoiser() -> Network:
    return Network.of(ToldUNet())


def conditioner(networks: list[Network] | None = None) -> Conditioner:
    first, second = map(small.loaded, networks or encoders())
    return Conditioner(
        encoders={
            "text_encoder": TextEncoder(network=first, tokenize=small.tokenize),
            "text_encoder_2": TextEncoder(network=second, tokenize=backwards),
        },
        combine=combine,
    )


def model(**kwargs: object) -> DiffusionModel:
    defaults = {"denoiser": denoiser(), "conditioner": conditioner()}
    return small.text_model(**(defaults | kwargs))


def conditions(n: int, seed: int = 2) -> Told:
    """Rows of n classes, which differ in every leaf."""
    lengths = np.arange(n) % small.TOKENS + 1
    return Told(
        states=small.jax_random(n, small.TOKENS, small.WIDTH, seed=seed),
        pooled=small.jax_random(n, small.WIDTH, seed=seed + 1),
        mask=jnp.arange(small.TOKENS) < lengths[:, None],
        length=jnp.asarray(lengths, jnp.int32),
    )
