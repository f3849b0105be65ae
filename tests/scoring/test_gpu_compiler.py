"""What the compiler for NVIDIA's GPUs makes of whole networks; no GPU is needed.

    pip install "jax[cuda12]" and pytest -m slow tests/scoring/test_gpu_compiler.py

Ten minutes on two cores.
"""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import PartitionSpec

from diffjax.checkpoints.families import last_states
from diffjax.checkpoints.networks import empty_network
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.checkpoints.untrained import untrained
from diffjax.evaluation.bench import random_subject
from diffjax.models.attention import attend, choose, traced_for
from diffjax.models.autoencoder import AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig
from diffjax.models.conditioner import encode_prompts
from diffjax.models.conditions import in_dtype
from diffjax.models.conditions import shapes as one_shape
from diffjax.models.diffusion import _encode
from diffjax.models.network import Network
from diffjax.scoring.compiling import (
    compile_for,
    compile_tile,
    placed,
    reckoned_bytes,
    topology,
)
from diffjax.scoring.gradients import _sharded_gradients, bytes_of_gradient
from diffjax.scoring.grid import Tile
from diffjax.scoring.noise import ImageNoise, SeededNoise
from diffjax.scoring.placement import BLOCKS
from diffjax.tracing import eval_shape

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("jax_cuda12_plugin") is None,
        reason='the compiler is not installed: pip install "jax[cuda12]"',
    ),
]
SCHEDULE = read_schedule({"_class_name": "DDIMScheduler"}, "test")
# (heads, width of a head, queries, keys) of every layer that attends
LAYERS = {
    "SD 1": [
        (8, width, length, keys)
        for width, length in ((40, 4096), (80, 1024), (160, 256), (160, 64))
        for keys in (length, 77)
    ],
    "SD 2": [
        (heads, 64, length, keys)
        for heads, length in ((5, 4096), (10, 1024), (20, 256), (20, 64))
        for keys in (length, 77)
    ],
    "SDXL": [
        (heads, 64, length, keys)
        for heads, length in ((10, 4096), (20, 1024))
        for keys in (length, 77)
    ],
    "DiT": [(16, 72, length, length) for length in (256, 1024)],
    # image and text together, and an image alone
    "SD 3": [(heads, 64, n, n) for heads in (24, 38) for n in (4096, 4096 + 333)],
    "FLUX": [(24, 128, n, n) for n in (4096 + 256, 4096 + 512)],
    "PixArt": [(16, 72, 4096, 4096)],  # of its masked texts none is fused
}


@pytest.fixture(autouse=True)
def optimised():
    """As users compile, and nothing from a cache."""
    quick = jax.config.read("jax_disable_most_optimizations")
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it is asked once whether it is there
    yield
    jax.config.update("jax_disable_most_optimizations", quick)
    jax.config.update("jax_enable_compilation_cache", cached)
    compilation_cache.reset_cache()


@pytest.mark.parametrize("card", ["a100", "h100"])
@pytest.mark.parametrize("model", LAYERS)
def test_every_attention(model, card):
    """Forward and backward, of two samples; fused where ``choose`` says so."""
    where = topology(f"{card}:1x1x1")
    layers = LAYERS[model]

    def total(arrays):
        found = [
            jax.vmap(partial(attend, heads=layer[0]))(*each)
            for layer, each in zip(layers, arrays, strict=True)
        ]
        return sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in found)

    shapes = [
        [
            jax.ShapeDtypeStruct((2, n, heads * width), jnp.bfloat16)
            for n in (length, keys, keys)
        ]
        for heads, width, length, keys in layers
    ]
    program = compile_for(where, jax.jit(jax.grad(total)), placed(shapes, where))
    fused = [
        layer
        for layer in layers
        if choose("cuda", "bfloat16", *layer[1:], where.target.compute_capability)
        == "cudnn"
    ]
    # heads of 160 are for Hopper
    assert len(fused) == len(layers) - 4 * (model == "SD 1" and card == "a100")
    even = [layer for layer in fused if layer[3] % 2 == 0]
    assert program.kernels["cudnn$fmhaSoftmaxBackward"] == len(even)
    assert program.kernels["cudnn$fmhaSoftmax"] >= len(fused)


def tile_for(where, model, dtype, resolution, blocks, **options):
    subject = random_subject(model, dtype, weights=False)
    shape = subject.latent_shape(resolution)
    tile = compile_tile(
        where,
        subject.denoiser,
        subject.schedule,
        in_dtype(one_shape(subject.conditions), dtype),
        shape,
        Tile(blocks=blocks, classes=8),
        **options,
    )
    return tile, reckoned_bytes(where, subject.denoiser, shape)


@pytest.mark.parametrize(
    ("devices", "model", "dtype", "resolution", "blocks", "fused"),
    [
        ("h100:1x1x1", "sd-2-base", "bfloat16", 512, 4, 32),
        ("a100:1x1x1", "sd-1.5", "bfloat16", 512, 4, 20),
        ("h100:1x1x1", "sd-2-base", "float32", 512, 2, 0),
        ("h100:1x1x1", "sd-3-medium", "bfloat16", 1024, 2, 24),
        ("h200:1x1x4", "dit-256", "bfloat16", 256, 64, 28),
        ("a100:1x1x1", "dit-256", "bfloat16", 512, 16, 28),
    ],
)
def test_tiles(devices, model, dtype, resolution, blocks, fused):
    where = topology(devices)
    tile, reckoned = tile_for(where, model, dtype, resolution, blocks)
    assert tile.fits and tile.program.collectives == {}
    assert tile.program.kernels.get("cudnn$fmhaSoftmax", 0) == fused
    # what the planner reckons, and its margin
    told = tile.program.temporaries / (tile.tile.cells / where.mesh.size)
    assert 1 <= reckoned / told <= 1.6
    # the fastest is slower than the bound, and the bound is one of either peak
    assert tile.bound == min(tile.most_by_flops, tile.most_by_bytes)


def test_split_weights_are_gathered_and_nothing_else_is_said():
    where = topology("h100:1x1x4")
    whole, _ = tile_for(where, "dit-256", "bfloat16", 256, 8)
    split, _ = tile_for(where, "dit-256", "bfloat16", 256, 8, sharded=True)
    assert set(split.program.collectives) == {"all-gather"}
    assert split.program.arguments < 0.3 * whole.program.arguments
    assert split.fits


def test_a_mesh_over_machines_exchanges_the_errors_alone():
    where = topology("h100:1x2x2")
    assert where.mesh.is_multi_process
    tile, _ = tile_for(where, "dit-256", "bfloat16", 256, 8)
    assert sum(tile.program.collectives.values()) == 1


@pytest.mark.parametrize(
    ("devices", "model", "samples"),
    [("h100:1x1x1", "sd-2-base", 8), ("h100:1x1x4", "dit-256", 16)],
)
def test_gradients_of_a_shortlist(devices, model, samples):
    where = topology(devices)
    found = untrained(model, "bfloat16", weights=False)
    told = found.network.module().condition_shapes()
    vectors = eval_shape(lambda net, c: net.module().vectors(c), found.network, told)
    base = in_dtype(vectors, jnp.float32)
    edge = found.config.sample_size
    copies = (
        found.network,
        SCHEDULE,
        ImageNoise(SeededNoise.of(0), jnp.uint32(0)),
        jax.ShapeDtypeStruct((edge, edge, 4), jnp.float32),
        base,
    )
    each = jax.ShapeDtypeStruct((samples * where.mesh.size,), jnp.int32)
    split = placed(each, where, PartitionSpec(BLOCKS))
    program = compile_for(
        where,
        _sharded_gradients,
        *(placed(copy, where) for copy in copies),
        split,
        split,
        loss="l2",
        mesh=where.mesh,
        sharded=False,
    )
    assert program.collectives == {}
    assert program.memory < 10e9 < where.accelerator.memory
    assert program.kernels["cudnn$fmhaSoftmaxBackward"] >= 15
    with traced_for(where.target):
        reckoned = bytes_of_gradient(
            found.network, SCHEDULE, (edge, edge, 4), base, "l2"
        )
    assert 1 <= reckoned / (program.temporaries / samples) <= 1.6


def test_autoencoder_and_text_encoder():
    where = topology("h100:1x1x1")
    autoencoder = AutoencoderKLConfig(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    text = CLIPTextConfig(  # of SD 2
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        hidden_act="gelu",
    )
    image = jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32)
    program = compile_for(
        where,
        _encode,
        placed(Network(*empty_network(autoencoder)), where),
        placed(image, where),
        placed(jax.ShapeDtypeStruct((), jnp.float32), where),
    )
    assert program.memory < 3e9 and program.collectives == {}
    shapes = (
        [Network(*empty_network(text))],
        [jax.ShapeDtypeStruct((32, 77), jnp.int32)],
    )
    program = compile_for(
        where, encode_prompts, *placed(shapes, where), combine=last_states
    )
    assert program.memory < 3e9 and program.collectives == {}
