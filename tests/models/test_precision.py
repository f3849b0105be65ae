"""Float32 is multiplied in all its digits, and other number types as they are.

TPUs and GPUs would by default multiply float32 in fewer digits. The programs are
lowered for both, and every product in them is looked at; none is run.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from flax import nnx
from jax.extend.mlir import ir
from small_resnet import SMALL

from diffjax.baselines.resnet import ResNet, resnet_loss
from diffjax.checkpoints.families import last_states
from diffjax.models import attention, diffusion
from diffjax.models.attention import precision
from diffjax.models.autoencoder import AutoencoderKL
from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
from diffjax.models.conditioner import conditions
from diffjax.models.conditions import take
from diffjax.models.dit import DiTTransformer2DModel
from diffjax.models.unet import TextCondition, UNet2DConditionModel
from diffjax.scoring.gradients import error_gradients
from diffjax.scoring.grid import Blocks, block_errors
from diffjax.scoring.noise import ImageNoise, SeededNoise
from diffjax.scoring.placement import block_mesh
from diffjax.scoring.speed import _products
from diffjax.training.objective import autoencoder_loss, denoiser_loss

CLIP = CLIPTextConfig(
    vocab_size=9,
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
)
PLATFORMS = ("tpu", "cuda")
DTYPES = ("float32", "bfloat16")
STATES = TextCondition(jnp.ones((1, small.TOKENS, small.WIDTH)))
ID = jnp.zeros(1, jnp.int32)
NOISE, KEY = SeededNoise.of(0), jax.random.key(0)
Z0 = jnp.ones((1, 8, 8, 4))


def tile(kind, config, condition, dtype):
    network = small.random(kind, config, dtype=dtype, param_dtype=dtype)
    blocks = Blocks(
        keys=jnp.zeros(1, jnp.uint32),
        z0=Z0,
        timesteps=ID,
        noises=ID,
        classes=ID[:1, None],
    )
    errors = partial(block_errors, losses=("l2",))
    return errors, (network, small.SCHEDULE, NOISE, condition, blocks)


def gradients(kind, config, base, dtype):
    network = small.random(kind, config, dtype=dtype, param_dtype=dtype)
    noise = ImageNoise(NOISE, jnp.uint32(0))
    slopes = partial(error_gradients, loss="l2")
    return slopes, (network, small.SCHEDULE, noise, Z0[0], base, ID, ID)


def training(loss, kind, config, arguments, dtype):
    graphdef, state = nnx.split(kind(config, rngs=None, dtype=dtype))

    def total(state, *rest):
        return loss(nnx.merge(graphdef, state), *rest)

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    return jax.grad(total), (shapes, *arguments)


UNET = UNet2DConditionModel, small.UNET
DIT = DiTTransformer2DModel, small.DIT
DENOISER = (small.SCHEDULE, Z0)
PROGRAMS = {
    "U-Net": partial(tile, *UNET, STATES),
    "DiT": partial(tile, *DIT, ID),
    "U-Net's gradients": partial(gradients, *UNET, take(STATES, 0)),
    "DiT's gradients": partial(gradients, *DIT, jnp.ones(16)),
    "training a U-Net": partial(
        training, denoiser_loss, *UNET, (*DENOISER, STATES, ID, KEY)
    ),
    "training a DiT": partial(training, denoiser_loss, *DIT, (*DENOISER, ID, ID, KEY)),
    "training an autoencoder": partial(
        training,
        autoencoder_loss,
        AutoencoderKL,
        small.VAE,
        (jnp.ones((1, 8, 8, 3)), KEY, 0.1),
    ),
    "training a ResNet": partial(
        training, resnet_loss, ResNet, SMALL, (jnp.ones((1, 8, 8, 3)), ID)
    ),
}


def products(function, arguments, platform):
    """Number types of each product's operands, and how they are to be multiplied."""
    traced = jax.jit(function).trace(*arguments)
    module = traced.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    found = []

    def visit(operation):
        if operation.name in ("stablehlo.dot_general", "stablehlo.convolution"):
            types = [str(x.type.element_type) for x in operation.operands]
            given = operation.attributes["precision_config"]
            found.append((types, [str(each).split()[-1][:-1] for each in given]))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def check(found):
    for types, given in found:
        exact = types == ["f32", "f32"]
        assert given == [("HIGHEST" if exact else "DEFAULT")] * 2, types
    return [types for types, _ in found]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_product_of_a_network(program, dtype, platform):
    function, arguments = PROGRAMS[program](dtype=jnp.dtype(dtype))
    types = check(products(function, arguments, platform))
    assert (["bf16", "bf16"] in types) == (dtype == "bfloat16")
    if program in ("U-Net", "DiT"):  # and the last layer, whatever the number type
        assert ["f32", "f32"] in types


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_runs_once_is_in_float32(platform):
    vae = small.random(AutoencoderKL, small.VAE)
    pixels = jnp.ones((1, 16, 16, 3))
    for function, arguments in (
        (diffusion._encode, (vae, pixels, 0.5)),
        (jax.vmap(vae.module().decode), (Z0,)),
        (
            partial(conditions, combine=last_states),
            (
                [small.random(CLIPTextModel, CLIP)],
                [jnp.zeros((1, small.TOKENS), jnp.int32)],
            ),
        ),
        (jax.vmap(small.random(ResNet, SMALL).module()), (pixels,)),
    ):
        types = check(products(function, arguments, platform))
        assert types and all(each == ["f32", "f32"] for each in types)


@pytest.mark.parametrize("dtype", DTYPES)
def test_peaks_are_measured_as_networks_multiply(dtype):
    mesh = block_mesh(jax.local_devices()[:1])
    matrix = jnp.ones((1, 4, 4), dtype)
    check(products(partial(_products, mesh=mesh), (matrix,), "tpu"))


def test_kernels_do_not_hear_of_it():
    """TPUs refuse the product of bfloat16 that is to be exact: "Bad lhs type"."""

    def slope(q):
        return jax.grad(lambda q: attention.FUSED["pallas"](q, q, q).sum())(q)

    def text():
        q = jax.ShapeDtypeStruct((1024, 2, 64), jnp.bfloat16)
        traced = jax.jit(lambda q: slope(q)).trace(q)
        return traced.lower(lowering_platforms=("tpu",)).as_text()

    plain = text()
    assert plain.count("tpu_custom_call") == 3
    for wish in ("float32", "tensorfloat32"):
        with jax.default_matmul_precision(wish):
            assert text() == plain


def test_the_rule():
    assert precision("float32") == precision(np.float32) == "float32"
    assert precision(jnp.bfloat16) is precision("float16") is None
