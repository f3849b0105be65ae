"""Networks small enough to compile in a second, with weights that matter."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffjax.checkpoints.schedulers import read_schedule
from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.models.conditioner import Conditioner, TextEncoder, Tokens
from diffjax.models.diffusion import DiffusionModel
from diffjax.models.dit import DiTTransformer2DConfig, DiTTransformer2DModel
from diffjax.models.network import Network, OnDemand
from diffjax.models.unet import TextCondition, UNet2DConditionModel
from diffjax.models.unet_config import UNet2DConditionConfig

TOKENS = 6
WIDTH = 8  # of text states

UNET = UNet2DConditionConfig(
    sample_size=8,
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
    cross_attention_dim=WIDTH,
    attention_head_dim=2,
    use_linear_projection=True,
)
ONE_LEVEL = replace(  # its gradient compiles in half the time
    UNET,
    block_out_channels=(8,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
)
DIT = DiTTransformer2DConfig(
    num_attention_heads=2,
    attention_head_dim=8,
    out_channels=8,
    num_layers=2,
    sample_size=8,
    num_embeds_ada_norm=10,
)
VAE = AutoencoderKLConfig(
    block_out_channels=(8, 8),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    norm_num_groups=4,
)
SCHEDULE = read_schedule(
    {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
    },
    "test",
)


def random(kind: type[nnx.Module], config: object, **dtypes: object) -> Network:
    """A network whose every parameter matters, without compiling initialisers."""
    graphdef, state = nnx.split(kind(config, rngs=None, **dtypes))
    rng = np.random.default_rng(0)

    def draw(path: tuple[object, ...], leaf: object) -> object:
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        scale = 1 / np.sqrt(fan_in) if path[-1] == "kernel" else 0.3
        value = scale * rng.standard_normal(leaf.shape) + (path[-1] == "scale")
        return leaf.replace(jnp.asarray(value, leaf.dtype))

    flat = nnx.to_flat_state(state)
    filled = nnx.from_flat_state((path, draw(path, leaf)) for path, leaf in flat)
    return Network(graphdef, filled)


def text_denoiser(**dtypes: object) -> Network:
    return random(UNet2DConditionModel, UNET, **dtypes)


def one_level_denoiser() -> Network:
    return random(UNet2DConditionModel, ONE_LEVEL)


def class_denoiser() -> Network:
    return random(DiTTransformer2DModel, DIT)


class Glance(nnx.Module):
    """A denoiser that compiles in a blink: every cell looks at its neighbour and at the
    prompt once. What is proved of whole models by whole networks is in other files.
    """

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.look = nnx.Linear(4 + 4 + 2, WIDTH, rngs=rngs)
        self.say = nnx.Linear(2 * WIDTH, 4, rngs=rngs)

    def memory(self, height: int, width: int) -> int:
        return 4 * height * width * 4 * WIDTH

    def vectors(self, condition: TextCondition) -> TextCondition:
        return condition

    def condition_shapes(self) -> TextCondition:
        return TextCondition(jax.ShapeDtypeStruct((TOKENS, WIDTH), jnp.float32))

    def __call__(
        self, z_t: jax.Array, t: jax.Array, condition: TextCondition
    ) -> jax.Array:
        time = jnp.stack([jnp.sin(t / 100), jnp.cos(t / 100)])
        time = jnp.broadcast_to(time, (*z_t.shape[:2], 2)).astype(z_t.dtype)
        query = self.look(jnp.concatenate([z_t, jnp.roll(z_t, 1, (0, 1)), time], -1))
        states = condition.states
        # classes differ by little, as under large networks
        read = jax.nn.softmax(query @ states.T, axis=-1) @ states / 4
        said: jax.Array = self.say(jnp.tanh(jnp.concatenate([query, read], -1)))
        return said


def glance() -> Network:
    return Network.of(Glance())


class Words(nnx.Module):
    """A text encoder that is a table: states of a prompt are its letters' rows."""

    def __init__(self) -> None:
        self.table = nnx.Embed(128, WIDTH, rngs=nnx.Rngs(0))

    def __call__(self, ids: jax.Array) -> jax.Array:
        return 3 * self.table(ids)


def tokenize(prompts: object) -> Tokens:
    ids = np.zeros((len(prompts), TOKENS), np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        letters = [ord(letter) % 128 for letter in prompt[-TOKENS:]]
        row[: len(letters)] = letters
    return Tokens(ids, tuple(len(prompt) > 60 for prompt in prompts))


def loaded(network: Network) -> OnDemand:
    return OnDemand(lambda: network, network, keep=True)


def conditioner(tokenize: object = tokenize) -> Conditioner:
    encoder = TextEncoder(network=loaded(Network.of(Words())), tokenize=tokenize)
    return Conditioner(encoders={"text_encoder": encoder}, combine=TextCondition)


def text_model(**kwargs: object) -> DiffusionModel:
    defaults: dict[str, object] = {
        "name": "small",
        "origin": {"model": "small"},
        "kind": "text",
        "denoiser": text_denoiser(),
        "autoencoder": random(AutoencoderKL, VAE),
        "scaling_factor": 0.5,
        "schedule": SCHEDULE,
        "resolution": 16,
        "downscale": 2,
        "multiple": 2,
        "latent_channels": 4,
        "conditioner": conditioner(),
    }
    return DiffusionModel(**(defaults | kwargs))


def class_model(**kwargs: object) -> DiffusionModel:
    defaults: dict[str, object] = {
        "kind": "class",
        "multiple": 4,
        "denoiser": class_denoiser(),
        "learned_variance": True,
        "conditioner": None,
        "n_classes": 10,
        "class_names": tuple(f"class {i}, c{i}" for i in range(10)),
    }
    return text_model(**(defaults | kwargs))


def images(n: int, size: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return list(rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8))


def jax_random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)
