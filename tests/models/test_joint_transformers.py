"""The transformers of Stable Diffusion 3, FLUX and PixArt against diffusers' classes.

Networks are small and random; the full sizes are compared by names and shapes alone.
"""

import json

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from pipelines import error, from_torch, hooked, normal, quick_jit, to_torch
from published import REAL, RUN, T5, TEXT_3, TEXT_3_2, TEXT_FLUX, VAE, VAE_FLUX

from diffjax.checkpoints import mappings, naming
from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.networks import empty_network
from diffjax.errors import DiffjaxError
from diffjax.models.autoencoder import AutoencoderKLConfig
from diffjax.models.clip import CLIPTextPooledConfig, CLIPTextWithProjectionConfig
from diffjax.models.flux import (
    FluxCondition,
    FluxTransformer2DConfig,
    FluxTransformer2DModel,
)
from diffjax.models.mmdit import (
    JointCondition,
    SD3Transformer2DConfig,
    SD3Transformer2DModel,
)
from diffjax.models.network import Network
from diffjax.models.patches import unpatch
from diffjax.models.pixart import (
    MaskedCondition,
    PixArtTransformer2DConfig,
    PixArtTransformer2DModel,
)
from diffjax.models.t5 import T5Config
from diffjax.models.taps import block_names, outputs

BOUND = 1e-4
HEIGHT, WIDTH, TEXT = 12, 16, 9  # a grid that is no square
SEEN = 6  # tokens of PixArt's text
TIMES = np.array([0, 1000, 437.25], np.float32)
GUIDANCE = 3.5

SD3 = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "joint_attention_dim": 24,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 20,
    "pos_embed_max_size": 12,
}
NORMALISED = SD3 | {"qk_norm": "rms_norm"}
DUAL = NORMALISED | {"dual_attention_layers": (0, 1)}
FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 20,
    "axes_dims_rope": (4, 6, 6),
}
PIXART = {
    "sample_size": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_layers": 2,
    "cross_attention_dim": 24,
    "caption_channels": 24,
    "norm_eps": 1e-5,
}
SIGMA = PIXART | {"interpolation_scale": 2}
ALPHA = PIXART | {"use_additional_conditions": True}
GUIDED = FLUX | {"guidance_embeds": True}
KINDS = {
    "SD3": (
        SD3Transformer2DModel,
        SD3Transformer2DConfig,
        naming.SD3,
        diffusers.SD3Transformer2DModel,
    ),
    "FLUX": (
        FluxTransformer2DModel,
        FluxTransformer2DConfig,
        naming.FLUX,
        diffusers.FluxTransformer2DModel,
    ),
    "PixArt": (
        PixArtTransformer2DModel,
        PixArtTransformer2DConfig,
        naming.PIXART,
        diffusers.PixArtTransformer2DModel,
    ),
}
CASES = {
    "SD3": ("SD3", SD3),
    "SD3.5 large": ("SD3", NORMALISED),
    "SD3.5 medium": ("SD3", DUAL),
    "FLUX schnell": ("FLUX", FLUX),
    "FLUX dev": ("FLUX", GUIDED),
    "PixArt-α": ("PixArt", ALPHA),
    "PixArt-Σ": ("PixArt", SIGMA),
}
PUBLISHED = {
    name: parts["transformer"]
    for name, parts in RUN.items()
    if parts.get("scheduler", {}).get("_class_name", "").startswith("FlowMatch")
    or "PixArt" in name
}
# bytes of the published weights in 16 bits, as their index files say
TOTAL_SIZES = {
    "stabilityai/stable-diffusion-3.5-large": 16_292_561_536,
    "black-forest-labs/FLUX.1-schnell": 23_782_357_120,
    "black-forest-labs/FLUX.1-dev": 23_802_816_640,
}


def of(name):
    owners = {"stabilityai": "SD3", "black-forest-labs": "FLUX"}
    return owners.get(name.split("/")[0], "PixArt"), PUBLISHED[name]


def as_json(config):
    return json.loads(json.dumps(config))


def empty(kind, config, dtype=jnp.float32):
    make, read, *_ = KINDS[kind]
    types = {"dtype": dtype, "param_dtype": dtype}
    return nnx.split(make(read.from_dict(as_json(config)), rngs=None, **types))


def torch_model(kind, config):
    """With random weights, all of which matter."""
    model = KINDS[kind][3](**config).eval()
    drawn = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        values = torch.randn(tensor.shape, generator=drawn)
        matrix = tensor.ndim > 1 and name != "pos_embed.pos_embed"
        tensor.copy_(0.2 * values if matrix else 0.3 * values + 1)
    return model


def ours_of(kind, config, model, dtype=jnp.float32):
    graphdef, state = empty(kind, config, dtype)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return Network(graphdef, mappings.fill(state, tensors, KINDS[kind][2], kind))


def condition_of(module, states, pooled, guidance):
    if isinstance(module, SD3Transformer2DModel):
        return JointCondition(states, pooled)
    if isinstance(module, PixArtTransformer2DModel):
        return MaskedCondition(states, jnp.arange(TEXT) < SEEN)
    return FluxCondition(states, pooled, guidance)


@quick_jit
def run(network, latents, times, states, pooled, guidance):
    def one(z, t, *told):
        module = network.module()
        return module(z, t, condition_of(module, *told, guidance))

    return jax.vmap(one)(latents, times, states, pooled)


@quick_jit
def features(network, latents, times, states, pooled, guidance):
    def one(z, t, *told):
        module = network.module()
        names = block_names(module)
        return outputs(module, names, z, t, condition_of(module, *told, guidance))

    return jax.vmap(one)(latents, times, states, pooled)


def inputs(config):
    n = len(TIMES)
    channels = 4
    return (
        normal(n, HEIGHT, WIDTH, channels),
        TIMES,
        normal(n, TEXT, config.get("joint_attention_dim", 24), seed=1),
        normal(n, config.get("pooled_projection_dim", 1), seed=2),
    )


@torch.no_grad()
def theirs(kind, config, model):
    z, *others = inputs(config)
    given = [to_torch(z), *map(torch.from_numpy, others)]
    z, t, states, pooled = (each.to(model.dtype) for each in given)
    if kind == "SD3":
        return from_torch(model(z, states, pooled, t).sample)
    if kind == "PixArt":
        told = {"resolution": None, "aspect_ratio": None}
        if "use_additional_conditions" in config:
            sizes = torch.tensor([[8.0 * HEIGHT, 8.0 * WIDTH]] * len(t))
            told = {"resolution": sizes, "aspect_ratio": sizes[:, :1] / sizes[:, 1:]}
        mask = (torch.arange(TEXT) < SEEN).repeat(len(t), 1)
        out = model(z, states, t, told, encoder_attention_mask=mask.to(z.dtype))
        return from_torch(out.sample)
    pipeline, n = diffusers.FluxPipeline, len(t)
    height, width = HEIGHT // 2, WIDTH // 2
    ids = pipeline._prepare_latent_image_ids(n, height, width, "cpu", torch.float32)
    guidance = torch.full((n,), GUIDANCE) if "guidance_embeds" in config else None
    packed = pipeline._pack_latents(z, n, z.shape[1], HEIGHT, WIDTH)
    out = model(
        packed, states, pooled, t / 1000, ids, torch.zeros(TEXT, 3), guidance
    ).sample
    return from_torch(pipeline._unpack_latents(out, 8 * HEIGHT, 8 * WIDTH, 8))


@pytest.mark.parametrize("name", ["SD3.5 medium", "FLUX dev", "PixArt-α"])
def test_bfloat16_is_as_near_as_diffusers_own(name):
    kind, config = CASES[name]
    model = torch_model(kind, config)
    exact = theirs(kind, config, model)

    def away(found):
        return np.linalg.norm(np.asarray(found) - exact) / np.linalg.norm(exact)

    half = away(theirs(kind, config, model.bfloat16()))
    network = ours_of(kind, config, model.float(), jnp.bfloat16)
    ours = away(run(network, *inputs(config), np.float32(GUIDANCE)))
    assert 1e-4 < ours < 1.5 * half


def test_flux_overflows_in_float16_as_diffusers_does():
    """Sums over its blocks are cut off, of texts and, later, of both together."""
    kind, config = "FLUX", GUIDED | {"num_layers": 1}
    model = torch_model(kind, config)
    tensors = model.state_dict()
    tensors["transformer_blocks.0.ff_context.net.2.weight"].mul_(1e4)
    tensors["single_transformer_blocks.0.proj_out.weight"].mul_(1e4)
    expected = theirs(kind, config, model.half())
    network = ours_of(kind, config, model.float(), jnp.float16)
    found = run(network, *inputs(config), np.float32(GUIDANCE))
    assert np.isfinite(expected).all()
    assert error(found, expected) < 0.1
    exact = theirs(kind, config, model.float())
    assert error(exact, expected) > 0.5  # so it did matter


@pytest.mark.parametrize("name", ["SD3.5 medium", "FLUX dev", "PixArt-α"])
def test_what_blocks_put_out_is_diffusers(name):
    """Of the image's tokens, on their grid: a FLUX block has those of the text too."""
    kind, config = CASES[name]
    model = torch_model(kind, config)
    network = ours_of(kind, config, model)
    blocks = block_names(network.module())
    assert len(blocks) == config["num_layers"] + config.get("num_single_layers", 0)
    with hooked(model, blocks) as expected:
        theirs(kind, config, model)
    found = features(network, *inputs(config), np.float32(GUIDANCE))
    for block, ours in zip(blocks, found, strict=True):
        assert ours.shape[1:3] == (HEIGHT // 2, WIDTH // 2)
        tokens = ours.reshape(len(ours), -1, ours.shape[-1])
        assert error(tokens, expected[block]) < BOUND, block


@pytest.fixture(scope="module", params=CASES)
def case(request):
    kind, config = CASES[request.param]
    model = torch_model(kind, config)
    network = ours_of(kind, config, model)
    return network, inputs(config), theirs(kind, config, model)


def test_predictions_are_diffusers(case):
    network, given, expected = case
    assert error(run(network, *given, np.float32(GUIDANCE)), expected) < BOUND


def test_every_tensor_matters(case):
    """But for queries of the texts in the last block, and biases that cancel out."""
    network, given, expected = case
    leaves, tree = jax.tree.flatten_with_path(network)
    values = [leaf for _, leaf in leaves]
    unnoticed = []
    for i, (path, leaf) in enumerate(leaves):
        changed = leaf * np.float32(1.5) + np.float32(0.1)
        other = jax.tree.unflatten(tree, [*values[:i], changed, *values[i + 1 :]])
        if error(run(other, *given, np.float32(GUIDANCE)), expected) < BOUND:
            unnoticed.append(jax.tree_util.keystr(path))
    config = network.module().config
    if isinstance(config, PixArtTransformer2DConfig):
        # softmax(q · (k_j + b)) does not depend on b: see test_parity.py
        assert len(unnoticed) == 2 * config.num_layers
        assert all("['to_k']['bias']" in path for path in unnoticed)
        return
    last = "['transformer_blocks'][2]['text']['attention']"
    assert all(last in path and "q']" in path for path in unnoticed)
    normalised = getattr(config, "qk_norm", None) is not None
    only_reads = isinstance(config, SD3Transformer2DConfig)
    assert len(unnoticed) == (2 + normalised if only_reads else 0)


def test_time_guidance_and_the_pooled_state_reach_the_network(case):
    network, (z, t, states, pooled), expected = case
    changed = [
        (z, t + 1, states, pooled, GUIDANCE),
        (z, t, states + np.float32(0.1), pooled, GUIDANCE),
    ]
    if not isinstance(network.module(), PixArtTransformer2DModel):
        changed.append((z, t, states, pooled + np.float32(0.1), GUIDANCE))
    if network.module().condition_shapes()[2:] and network.module().config == (
        FluxTransformer2DConfig(**GUIDED)
    ):
        changed.append((z, t, states, pooled, GUIDANCE + 1))
    for given in changed:
        found = run(network, *given[:-1], np.float32(given[-1]))
        assert error(found, expected) > BOUND


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_keys_and_shapes(name):
    """Those of torch's class under the published config, which takes no memory."""
    kind, config = of(name)
    with torch.device("meta"):
        model = KINDS[kind][3].from_config(config)
    zero = np.float32(0)
    tensors = {
        key: np.broadcast_to(zero, tuple(tensor.shape))
        for key, tensor in model.state_dict().items()
    }
    graphdef, state = empty(kind, config)
    arrays = mappings.match(state, tensors, KINDS[kind][2], name)
    network = Network(graphdef, state)
    assert sum(array.size for array in arrays.values()) == network.parameters
    if name in TOTAL_SIZES:
        assert 2 * network.parameters == TOTAL_SIZES[name]


def parameters(config):
    return Network(*empty_network(config)).parameters


@pytest.mark.parametrize("model", [m for m in MODELS.values() if m.hub_id in PUBLISHED])
def test_parameter_counts_of_the_catalogue(model):
    kind, config = of(model.hub_id)
    denoiser = parameters(KINDS[kind][1].from_dict(config))
    assert model.denoiser_parameters == denoiser
    clip = CLIPTextWithProjectionConfig.from_dict
    texts = {
        "SD3": [clip(TEXT_3), clip(TEXT_3_2)],
        "FLUX": [CLIPTextPooledConfig.from_dict(TEXT_FLUX)],
        "PixArt": [],
    }[kind]
    vae = VAE if kind == "PixArt" else VAE_FLUX
    others = [AutoencoderKLConfig.from_dict(vae), T5Config.from_dict(T5), *texts]
    assert model.total_parameters == denoiser + sum(map(parameters, others))


@pytest.mark.parametrize("name", TOTAL_SIZES)
def test_keys_are_those_of_the_published_index(name):
    file = "transformer/diffusion_pytorch_model.safetensors.index.json"
    path = REAL / name.replace("/", "__") / file
    if not path.exists():
        pytest.skip("the index files of published checkpoints are not here")
    index = json.loads(path.read_text())
    assert index["metadata"]["total_size"] == TOTAL_SIZES[name]
    kind, config = of(name)
    _, state = empty(kind, config)
    flat = nnx.to_flat_state(state)
    ours = [mappings.torch_names(path, KINDS[kind][2], 0) for path, _ in flat]
    assert {key for keys in ours for key in keys} == set(index["weight_map"])


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        ("SD3", {"caption_projection_dim": 64}, "caption_projection_dim=64"),
        ("SD3", {"dual_attention_layers": [3]}, "layer 3 of 3"),
        ("SD3", {"qk_norm": "layer_norm"}, "qk_norm"),
        ("SD3", {"sample_size": 15}, "sample_size = 15"),
        ("FLUX", {"axes_dims_rope": [4, 6, 8]}, "axes_dims_rope"),
        ("FLUX", {"axes_dims_rope": [10, 6]}, "axes_dims_rope"),
        ("FLUX", {"axes_dims_rope": [5, 5, 6]}, "axes_dims_rope"),
        ("FLUX", {"in_channels": 6}, "in_channels=6"),
        ("FLUX", {"patch_size": 2}, "patch_size"),
    ],
)
def test_what_does_not_fit_is_refused(kind, wrong, named):
    config = as_json({"SD3": SD3, "FLUX": FLUX}[kind] | wrong)
    with pytest.raises(DiffjaxError, match=named):
        KINDS[kind][1].from_dict(config)


def test_more_patches_than_positions():
    model = torch_model("SD3", SD3)
    network = ours_of("SD3", SD3, model)
    _, t, states, pooled = map(jnp.asarray, inputs(SD3))
    wide = jnp.zeros((2, 26, 4))
    with pytest.raises(ValueError, match="1 × 13 patches; there are 12 × 12"):
        network.module()(wide, t[0], JointCondition(states[0], pooled[0]))


def test_patches_go_where_they_came_from():
    pixels = normal(4, 6, 3)
    squares = pixels.reshape(2, 2, 3, 2, 3).transpose(0, 2, 1, 3, 4).reshape(6, 12)
    np.testing.assert_array_equal(unpatch(jnp.asarray(squares), 2, 3, 2), pixels)
