"""Properties of the networks and their configs that need no reference weights."""

import dataclasses
import inspect

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from diffusers.models.embeddings import PatchEmbed, get_timestep_embedding
from flax import nnx
from pipelines import DIT, TEXT, UNET, VAE, normal, quick_jit

from diffjax.checkpoints.networks import empty_network, kind_of
from diffjax.errors import DiffjaxError
from diffjax.models.autoencoder import AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig
from diffjax.models.conditions import take
from diffjax.models.dit import DiTTransformer2DConfig, sincos_positions
from diffjax.models.layers import Make, Upsample2D, timestep_features
from diffjax.models.unet import TextCondition
from diffjax.models.unet_config import UNet2DConditionConfig

CONFIGS = {"unet": UNET, "vae": VAE, "text_encoder": TEXT, "transformer": DIT}
DRAW = np.random.default_rng(0)


def network(part, dtype=jnp.float32, **changes):
    """A network with random weights."""
    config = kind_of(part).config.from_dict(CONFIGS[part] | changes)
    graphdef, state = empty_network(config, dtype)

    def weight(leaf):
        fan_in = leaf.size / leaf.shape[-1]
        return jnp.asarray(DRAW.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return nnx.merge(graphdef, jax.tree.map(weight, state))


# part: (method, arguments of three images)
CALLS = {
    "unet": (
        "__call__",
        (normal(3, 4, 6, 4), np.int32([1, 500, 999]), TextCondition(normal(3, 5, 24))),
    ),
    "vae": ("encode", (normal(3, 8, 4, 3),)),
    "text_encoder": ("__call__", (np.int32([[5, 3, 9], [1, 2, 2], [0, 7, 7]]),)),
    "transformer": (
        "__call__",
        (normal(3, 4, 4, 4), np.int32([1, 500, 999]), np.int32([0, 3, 10])),
    ),
}


@pytest.fixture(scope="module", params=CALLS)
def function(request):
    """A network as a function of one image, and arguments of three images."""
    method, arguments = CALLS[request.param]
    call = getattr(network(request.param), method)
    return call, jax.tree.map(jnp.asarray, arguments)


def test_vmap_is_a_loop(function):
    call, arguments = function
    batch = quick_jit(jax.vmap(call))(*arguments)
    one = quick_jit(call)
    for i in range(3):
        single = one(*take(arguments, i))
        for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(batch), strict=True):
            assert a.dtype == jnp.float32
            np.testing.assert_allclose(a, b[i], rtol=1e-4, atol=1e-5)


def test_no_batch_axis(function):
    """The shape annotations refuse a batch; the package is checked in tests."""
    call, arguments = function
    with pytest.raises(Exception, match=r"[Tt]ype-?check"):
        call(*arguments)


def test_output_sizes():
    latent, t = jnp.ones((6, 10, 4)), jnp.int32(3)
    shape = jax.eval_shape(
        network("unet"), latent, t, TextCondition(jnp.ones((5, 24)))
    ).shape
    assert shape == (6, 10, 4)
    shape = jax.eval_shape(network("transformer"), latent, t, jnp.int32(3)).shape
    assert shape == (6, 10, 8)
    autoencoder = network("vae")
    mean, logvar = jax.eval_shape(autoencoder.encode, jnp.ones((12, 20, 3)))
    assert mean.shape == logvar.shape == (6, 10, 4)
    assert jax.eval_shape(autoencoder.decode, latent).shape == (12, 20, 3)


def test_text_states_do_not_see_later_tokens():
    encoder = quick_jit(network("text_encoder"))
    ids = jnp.arange(8)
    before, after = encoder(ids).states, encoder(ids.at[5].set(99)).states
    np.testing.assert_array_equal(before[:5], after[:5])
    assert (abs(before[5:] - after[5:]).max(axis=1) > 1e-3).all()


def test_text_encoder_refuses_more_tokens_than_positions():
    with pytest.raises(ValueError, match="13 tokens; the text encoder holds 12"):
        network("text_encoder")(jnp.arange(13))


def test_condition_is_a_set_to_the_unet():
    """Cross-attention does not depend on the order of the text states."""
    unet = quick_jit(network("unet"))
    latent, states = jnp.asarray(normal(4, 4, 4)), jnp.asarray(normal(5, 24))
    expected = unet(latent, jnp.int32(9), TextCondition(states))
    found = unet(latent, jnp.int32(9), TextCondition(states[::-1]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    other = unet(latent, jnp.int32(9), TextCondition(2 * states))
    assert abs(other - expected).max() > 1e-3


# Layers.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", ["group", "layer"])
def test_norms_stand_a_large_mean(layer, dtype):
    """Statistics in float32 and centred: E[x²] − E[x]², or bfloat16, would fail."""
    make = Make(rngs=nnx.Rngs(0), dtype=jnp.dtype(dtype))
    norm = (
        make.group_norm(16, 4, 1e-6) if layer == "group" else make.layer_norm(16, 1e-6)
    )
    # bfloat16 holds every second integer here; x² is 2^16, in float32 known to 2^-8,
    # more than the variance
    offset, step = (256, 2**-10) if dtype == "float32" else (256, 2)
    x = offset + step * DRAW.integers(0, 64, (8, 8, 16)).astype(np.float64)
    groups = x.reshape(1, 64, 4, 4) if layer == "group" else x.reshape(64, 1, 1, 16)
    mean = groups.mean(axis=(1, 3), keepdims=True)
    sigma = np.sqrt(groups.var(axis=(1, 3), keepdims=True) + 1e-6)
    expected = ((groups - mean) / sigma).reshape(x.shape)
    given = jnp.asarray(x, dtype)
    np.testing.assert_array_equal(np.asarray(given, np.float64), x)  # exactly
    found = norm(given)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, atol=2e-2)


def equations(jaxpr):
    """All equations, also those of inner functions."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("part", ["unet", "transformer"])
def test_bfloat16_keeps_statistics_and_softmax_in_float32(part):
    _, arguments = CALLS[part]
    call = network(part, jnp.bfloat16)
    one = jax.tree.map(jnp.asarray, take(arguments, 0))
    jaxpr = jax.make_jaxpr(call)(*one).jaxpr
    assert [str(v.aval.dtype) for v in jaxpr.outvars] == ["float32"]
    seen = {}
    for equation in equations(jaxpr):
        dtypes = {str(v.aval.dtype) for v in equation.invars}
        seen.setdefault(equation.primitive.name, set()).update(dtypes)
    # sums: means and variances; exp and the maximum: softmax
    for name in ("reduce_sum", "rsqrt", "exp", "reduce_max"):
        assert seen[name] == {"float32"}, name
    products = seen["dot_general"] | seen["conv_general_dilated"]
    assert "bfloat16" in products


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_timestep_features(flip, shift):
    for t in (0, 1, 500, 999):
        ours = timestep_features(
            jnp.int32(t), 32, flip_sin_to_cos=flip, freq_shift=shift
        )
        theirs = get_timestep_embedding(
            torch.tensor([t]), 32, flip_sin_to_cos=flip, downscale_freq_shift=shift
        )
        # float32 angles up to 999 are known to about 1e-4
        np.testing.assert_allclose(ours, theirs[0], atol=2e-4)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12), (16, 6)])
def test_positions_of_another_size(height, width):
    theirs = PatchEmbed(
        height=16, width=16, patch_size=2, in_channels=4, embed_dim=24, bias=False
    )
    with torch.no_grad():
        theirs.proj.weight.zero_()
        expected = theirs(torch.zeros(1, 4, 2 * height, 2 * width))[0]
    ours = sincos_positions(24, height, width, 8)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("size", [None, (6, 10), (5, 9), (7, 11), (6, 11)])
def test_upsampling_is_the_nearest_neighbour(size):
    layer = Upsample2D(2, Make(rngs=nnx.Rngs(0)))
    layer.conv = lambda x: x
    x = normal(3, 5, 2)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(2, 0, 1)[None], size=size or (6, 10), mode="nearest"
    )
    found = layer(jnp.asarray(x), size)
    np.testing.assert_array_equal(found, expected[0].permute(1, 2, 0))


# Configs.


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (UNet2DConditionConfig, diffusers.UNet2DConditionModel),
        (AutoencoderKLConfig, diffusers.AutoencoderKL),
        (DiTTransformer2DConfig, diffusers.DiTTransformer2DModel),
        (CLIPTextConfig, transformers.CLIPTextConfig),
    ],
)
def test_absent_settings_mean_what_they_mean_to_torch(ours, theirs):
    if theirs is transformers.CLIPTextConfig:
        defaults = theirs().to_dict()
    else:
        signature = inspect.signature(theirs.__init__)
        defaults = {name: p.default for name, p in signature.parameters.items()}
    if theirs is diffusers.DiTTransformer2DModel:
        defaults["freq_shift"] = 1.0  # it has no other; tests/models/test_parity.py
    read = ours.from_dict({})
    for field in dataclasses.fields(ours):
        expected = defaults[field.name]
        expected = tuple(expected) if isinstance(expected, list) else expected
        assert getattr(read, field.name) == expected, field.name
    given = {k: v for k, v in defaults.items() if v is not inspect.Parameter.empty}
    given.pop("self", None)
    assert ours.from_dict(given) == read


@pytest.mark.parametrize("part", CONFIGS)
def test_config_of_unknown_settings(part):
    read = kind_of(part).config.from_dict
    fine = read(CONFIGS[part] | {"novelty": None, "other": False, "_note": "seen"})
    assert fine == read(CONFIGS[part])
    with pytest.raises(DiffjaxError, match=r"(?s)here\.json.*novelty=3 .*other='on'"):
        read(CONFIGS[part] | {"novelty": 3, "other": "on"}, "here.json")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "down_block_types", ["AttnDownBlock2D", "DownBlock2D"]),
        ("unet", "down_block_types", ["DownBlock2D"]),
        ("unet", "up_block_types", ["UpBlock2D", "SimpleCrossAttnUpBlock2D"]),
        ("unet", "layers_per_block", [1, 1, 1]),
        ("unet", "downsample_padding", 2),
        ("unet", "attention_head_dim", 2.5),
        ("unet", "use_linear_projection", "yes"),
        ("unet", "in_channels", True),
        ("unet", "freq_shift", None),
        ("vae", "up_block_types", ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]),
        ("vae", "down_block_types", ["DownEncoderBlock2D"]),
        ("vae", "latent_channels", -4),
        ("text_encoder", "hidden_act", "relu"),
        ("text_encoder", "hidden_size", "24"),
        ("transformer", "activation_fn", "geglu"),
        ("transformer", "norm_type", "ada_norm_single"),
        ("transformer", "norm_elementwise_affine", True),
        ("transformer", "sample_size", None),
        ("transformer", "attention_head_dim", 13),
    ],
)
def test_config_value_that_is_not_implemented(part, key, value):
    with pytest.raises(DiffjaxError, match=f"here.json.*(?s:.)*{key}"):
        kind_of(part).config.from_dict(CONFIGS[part] | {key: value}, "here.json")


@pytest.mark.parametrize(
    ("part", "key", "value", "wanted"),
    [
        (
            "unet",
            "down_block_types",
            ["AttnDownBlock2D", "DownBlock2D"],
            "a list of 1 to 8, each entry one of DownBlock2D, CrossAttnDownBlock2D",
        ),
        (
            "unet",
            "sample_size",
            "big",
            "a whole number from 1 to 8192 or a list of 1 to 8, each",
        ),
        ("unet", "downsample_padding", 2, "one of 0, 1"),
        ("unet", "norm_eps", "small", "a number"),
        ("unet", "use_linear_projection", "yes", "true or false"),
        ("unet", "time_embedding_dim", 0, "a whole number from 1 to 65536 or null"),
        (
            "vae",
            "up_block_types",
            ["Up", "Up"],
            "a list of 1 to 8, each entry UpDecoderBlock2D",
        ),
        ("text_encoder", "hidden_act", "relu", "one of gelu, gelu-approximate, "),
        ("transformer", "activation_fn", "geglu", "one of gelu, gelu-approximate"),
    ],
)
def test_message_says_what_a_setting_must_be(part, key, value, wanted):
    with pytest.raises(DiffjaxError, match=f"{key}=.* must be {wanted}"):
        kind_of(part).config.from_dict(CONFIGS[part] | {key: value})
