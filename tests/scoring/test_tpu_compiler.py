"""What the TPU's own compiler makes of our programs; no TPU is needed, nothing is run.

Networks have few layers, of real widths, heads and lengths; Stable Diffusion as a whole
takes minutes and is compiled by ``scripts/compile_table.py``. What takes more than
half a minute is marked slow.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
import small
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import PartitionSpec

from diffjax.checkpoints.families import last_states
from diffjax.checkpoints.networks import empty_network
from diffjax.cli.ahead import ENVIRONMENT
from diffjax.models.attention import attend
from diffjax.models.autoencoder import AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig
from diffjax.models.conditioner import PROMPTS_AT_ONCE, encode_prompts
from diffjax.models.conditions import in_dtype
from diffjax.models.diffusion import _encode
from diffjax.models.dit import DiTTransformer2DConfig
from diffjax.models.flux import FluxTransformer2DConfig
from diffjax.models.layers import Attention, Make
from diffjax.models.mmdit import SD3Transformer2DConfig
from diffjax.models.network import Network
from diffjax.models.pixart import PixArtTransformer2DConfig
from diffjax.models.unet_config import UNet2DConditionConfig
from diffjax.scoring.compiling import (
    compile_for,
    compile_tile,
    placed,
    reckoned_bytes,
    topology,
)
from diffjax.scoring.gradients import _sharded_gradients
from diffjax.scoring.grid import Tile
from diffjax.scoring.noise import ImageNoise, SeededNoise
from diffjax.scoring.placement import BLOCKS, weight_specs
from diffjax.tracing import eval_shape

pytest.importorskip(
    "libtpu", reason="the TPU's compiler is the package libtpu, for x86 Linux"
)

ONE = {"v5e": "v5e:1x1", "v5p": "v5p:1x1x1", "v6e": "v6e:1x1"}
# heads, their width, and the lengths at which they occur, mostly at 512 pixels
ATTENTION = {
    "sd-1.5": [(8, 40, 4096), (8, 80, 1024), (8, 160, 256), (8, 160, 64)],
    "sd-2-base": [(5, 64, 4096), (10, 64, 1024), (20, 64, 256), (20, 64, 64)],
    "sdxl": [(10, 64, 4096), (20, 64, 1024)],  # at 1024 pixels
    "DiT": [(16, 72, 1024), (16, 72, 256)],
}
MESHES = ["v5e:1x1", "v5p:2x2x1", "v6e:2x4"]
TEXT = 77
DIT = DiTTransformer2DConfig(num_layers=2, out_channels=8, sample_size=64)
# the first level of Stable Diffusion 2, narrower
UNET = UNet2DConditionConfig(
    sample_size=64,
    block_out_channels=(64,),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    cross_attention_dim=1024,
    attention_head_dim=1,
    use_linear_projection=True,
)
# the first two levels of Stable Diffusion XL, narrower; attention has 4096 queries
XL = UNet2DConditionConfig(
    sample_size=128,
    block_out_channels=(64, 64),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2),
    cross_attention_dim=2048,
    attention_head_dim=1,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
SD3 = SD3Transformer2DConfig(
    num_layers=2,
    num_attention_heads=24,
    caption_projection_dim=1536,
    pos_embed_max_size=192,
    qk_norm="rms_norm",
    dual_attention_layers=(0,),
)
PIXART = PixArtTransformer2DConfig(num_layers=2)
FLUX = FluxTransformer2DConfig(num_layers=1, num_single_layers=1, guidance_embeds=True)
BLOCK_SPECS = [PartitionSpec(BLOCKS)] * 2
DENOISERS = {
    "U-Net": (UNET, (64, 64, 4)),
    "XL": (XL, (128, 128, 4)),
    "DiT": (DIT, (64, 64, 4)),
    "SD3": (SD3, (128, 128, 16)),
    "FLUX": (FLUX, (128, 128, 16)),
    "PixArt": (PIXART, (128, 128, 4)),
}


# The compiler's search for what to fetch ahead takes nine tenths of its time. One test
# shows that nothing that is asserted here depends on it.
EFFORT = "jax_exec_time_optimization_effort"
HAS_EFFORT = hasattr(jax.config, EFFORT)  # not in JAX 0.12
SETTINGS = {
    "jax_disable_most_optimizations": False,
    "jax_enable_compilation_cache": False,
} | ({EFFORT: -1.0} if HAS_EFFORT else {})


@pytest.fixture(autouse=True, scope="module")
def compiler():
    """With optimisations and nothing kept, unlike the rest of the tests."""
    before = {name: jax.config.values[name] for name in SETTINGS}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name, value in SETTINGS.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it is asked once whether it is there
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def network(config, dtype=jnp.bfloat16):
    return Network(*empty_network(config, dtype))


def compiled(where, function, *shapes, **options):
    found = compile_for(topology(where), function, *shapes, **options)
    assert found.memory < topology(where).accelerator.memory
    return found


def shapes(where, *arrays):
    return placed([jax.ShapeDtypeStruct(*array) for array in arrays], topology(where))


def kernels(text):
    """Shapes of what fused kernels give, the last one of each."""
    calls = re.findall(r" = (.*?) custom-call\(.*tpu_custom_call", text)
    last = (re.findall(r"\w+\[([\d,]*)\]", call)[-1] for call in calls)
    return [tuple(map(int, each.split(","))) for each in last]


def copies(text):
    """Copies of arrays within the device's memory; waits for fetched ones left out."""
    return re.findall(r"= (\S+) copy\(", text[text.index("ENTRY ") :])


@pytest.mark.parametrize(
    ("model", "generation"),
    [
        *((model, each) for model in ATTENTION for each in ONE if model != "sdxl"),
        ("sdxl", "v5e"),  # heads of another model, once more
    ],
)
def test_attention_of_every_size(model, generation):
    """Forward and backward, of images and over a text."""

    def total(q, k, v, heads):
        return attend(q, k, v, heads).astype(jnp.float32).sum()

    def all_of_them(arrays):
        out = []
        for (heads, *_), (q, k, v) in zip(sizes, arrays, strict=True):
            mapped = jax.vmap(jax.grad(partial(total, heads=heads), (0, 1, 2)))
            out.append(mapped(q, k, v))
        return out

    where = ONE[generation]
    others = (TEXT,) if model != "DiT" else ()
    sizes = [
        (heads, head, q, k) for heads, head, q in ATTENTION[model] for k in (q, *others)
    ]
    arrays = [
        shapes(where, *[((2, n, heads * head), jnp.bfloat16) for n in (q, k, k)])
        for heads, head, q, k in sizes
    ]
    text = compiled(where, jax.jit(all_of_them), arrays).text
    long = sum(min(lengths) >= 512 for _, _, *lengths in sizes)
    # the forward pass again for its backward pass, and two for that
    assert len(kernels(text)) == 3 * long


@pytest.mark.parametrize(("heads", "head"), [(5, 64), (8, 40)])
def test_the_kernel_reads_what_products_leave(heads, head):
    """Queries, keys and values are not copied; what comes out is, once."""
    make = Make(rngs=None, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    layer = Network.of(Attention(heads * head, heads, make))
    where = ONE["v5e"]

    def run(layer, x):
        return jax.vmap(lambda x: layer.module()(x))(x)

    [x] = shapes(where, ((16, 4096, heads * head), jnp.bfloat16))
    text = compiled(where, jax.jit(run), placed(layer, topology(where)), x).text
    assert kernels(text) == [(16, heads, 4096, head)]
    assert len(copies(text)) == 1


@pytest.mark.parametrize("where", MESHES)
def test_a_tile_of_a_transformer(where):
    found = tile("DiT", where)
    assert len(kernels(found.program.text)) == DIT.num_layers
    assert found.program.collectives == {}
    assert found.fits and found.bound > 100


@pytest.mark.slow
@pytest.mark.skipif(not HAS_EFFORT, reason="this JAX has no such option")
def test_effort_changes_nothing_that_is_asserted():
    little = tile("DiT", "v5e:1x1").program
    jax.config.update(EFFORT, 0.0)
    try:
        full = tile("DiT", "v5e:1x1").program
    finally:
        jax.config.update(EFFORT, SETTINGS[EFFORT])
    assert kernels(full.text) == kernels(little.text)
    assert full.collectives == little.collectives
    assert full.temporaries <= little.temporaries


@pytest.mark.slow
def test_a_tile_of_a_unet():
    found = tile("U-Net", "v5e:1x1")
    assert found.program.collectives == {}
    assert found.fits and found.bound > 100
    # the first self-attention knows no class: once a block, the rest once a cell
    rows = [shape[0] for shape in kernels(found.program.text)]
    assert sorted(rows) == [2, 16, 16, 16]


@pytest.mark.slow
def test_a_tile_of_a_unet_that_is_told_a_pooled_state():
    found = tile("XL", "v5e:1x1")
    assert found.program.collectives == {}
    assert found.fits and found.bound > 10
    # two layers down, in the middle and two up: a resnet is told the class before each
    assert [shape[0] for shape in kernels(found.program.text)] == 8 * [16]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heads", "head", "text", "alone"),
    [("SD3", 24, 64, 333, 1), ("FLUX", 24, 128, 512, 0), ("PixArt", 16, 72, None, 2)],
)
def test_a_tile_in_which_image_and_text_attend(name, heads, head, text, alone):
    """Two layers over 4096 tokens of an image and those of a text, filled up."""
    found = tile(name, "v5e:1x1")
    assert found.program.collectives == {}
    assert found.fits and found.bound > 10
    lengths = [4096] * alone
    if text is not None:
        lengths += [4096 + text + (-text % 128)] * 2
    expected = [(16, heads, length, head) for length in lengths]
    if text is None:  # PixArt attends to it after itself, without a kernel
        expected[0] = (2, *expected[0][1:])
    assert sorted(kernels(found.program.text)) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DiT", "U-Net"])
def test_tiles_in_float32_have_no_kernels(name):
    found = tile(name, "v5e:1x1", "float32")
    assert kernels(found.program.text) == []
    assert found.program.collectives == {}
    assert found.fits and found.bound > 100


def tile(name, where, dtype="bfloat16", **options):
    config, latent = DENOISERS[name]
    to = topology(where)
    denoiser = network(config, dtype)
    found = compile_tile(
        to,
        denoiser,
        small.SCHEDULE,
        in_dtype(denoiser.module().condition_shapes(), jnp.dtype(dtype)),
        latent,
        Tile(blocks=2 * to.mesh.size, classes=8),
        **options,
    )
    # what is split is gathered besides
    if dtype == "bfloat16" and not options:
        reckoned = 16 * reckoned_bytes(to, denoiser, latent)
        assert found.program.temporaries <= reckoned
    return found


def test_a_mesh_over_machines_exchanges_errors_alone():
    to = topology("v5e:4x4")
    assert to.mesh.is_multi_process
    found = tile("DiT", "v5e:4x4")
    assert sum(found.program.collectives.values()) == 1
    gathered = re.findall(r"= \(?(.*?) all-gather(?:-start)?\(", found.program.text)
    assert len(gathered) == 1 and "f32" in gathered[0] and "bf16" not in gathered[0]


@pytest.mark.slow
def test_split_weights_are_gathered_one_after_the_other():
    whole, split = (tile("DiT", "v5e:2x2", sharded=each) for each in (False, True))
    assert whole.program.collectives == {}
    assert set(split.program.collectives) == {"all-gather"}
    assert split.program.arguments < 0.3 * whole.program.arguments
    # never all of them at once
    extra = split.program.temporaries - whole.program.temporaries
    assert extra < 0.8 * whole.program.arguments


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DiT", "U-Net"])
def test_the_gradients_of_a_shortlist(name):
    where, to = "v5e:2x2", topology("v5e:2x2")
    config, latent = DENOISERS[name]
    denoiser = network(config)
    told = denoiser.module().condition_shapes()
    base = eval_shape(lambda network, c: network.module().vectors(c), denoiser, told)
    copied = placed(
        (
            small.SCHEDULE,
            ImageNoise(SeededNoise.of(0), jnp.uint32(0)),
            jax.ShapeDtypeStruct(latent, jnp.float32),
            in_dtype(base, jnp.float32),
        ),
        to,
    )
    samples = placed([jax.ShapeDtypeStruct((8,), jnp.int32)] * 2, to, BLOCK_SPECS)
    found = compiled(
        where,
        _sharded_gradients,
        placed(denoiser, to, weight_specs(denoiser, to.mesh, sharded=False)),
        *copied,
        *samples,
        loss="l2",
        mesh=to.mesh,
        sharded=False,
    )
    assert found.collectives == {}


@pytest.mark.slow
def test_the_text_encoder():
    config = CLIPTextConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=2,
        num_attention_heads=16,
        hidden_act="gelu",
    )
    n = PROMPTS_AT_ONCE
    arguments = placed(
        (
            [network(config, jnp.float32)],
            [jax.ShapeDtypeStruct((n, TEXT), jnp.int32)],
        ),
        topology("v5e:1x1"),
    )
    compiled("v5e:1x1", encode_prompts, *arguments, combine=last_states)


@pytest.mark.slow
def test_the_autoencoder_at_512_pixels():
    config = AutoencoderKLConfig(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )
    arguments = placed(
        (
            network(config, jnp.float32),
            jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32),
            jax.ShapeDtypeStruct((), jnp.float32),
        ),
        topology("v5e:1x1"),
    )
    found = compiled("v5e:1x1", _encode, *arguments)
    assert found.temporaries < 10**9
