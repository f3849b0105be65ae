"""T5's encoder against transformers' class, and the published one by its keys."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from pipelines import error, quick_jit
from published import REAL, T5
from transformers.models.t5.modeling_t5 import T5Attention

from diffjax.checkpoints import mappings, naming
from diffjax.errors import DiffjaxError
from diffjax.models.network import Network
from diffjax.models.t5 import T5Config, T5EncoderModel, buckets

BOUND = 1e-4
SMALL = {
    "vocab_size": 200,
    "d_model": 48,
    "d_kv": 8,
    "d_ff": 96,
    "num_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
TOTAL_SIZE = 9_524_621_312  # bytes of it in 16 bits, as index files say
LENGTH = 300  # beyond the farthest bucket


@pytest.fixture(scope="module")
def case():
    model = transformers.T5EncoderModel(transformers.T5Config(**SMALL)).eval()
    drawn = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=drawn)
    config = T5Config.from_dict(model.config.to_dict())
    graphdef, state = nnx.split(T5EncoderModel(config, rngs=None))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    state = mappings.fill(state, tensors, naming.T5_ENCODER, "here")
    ids = np.random.default_rng(0).integers(0, SMALL["vocab_size"], (2, LENGTH))
    return model, Network(graphdef, state), ids


@quick_jit
def run(network, ids, mask=None):
    return jax.vmap(network.module())(ids, mask)


@torch.no_grad()
def theirs(model, ids, mask=None):
    given = None if mask is None else torch.from_numpy(mask).long()
    return model(torch.from_numpy(ids), attention_mask=given)[0].numpy()


def test_states_are_transformers(case):
    model, network, ids = case
    assert error(run(network, ids), theirs(model, ids)) < BOUND


def test_a_mask_hides_tokens(case):
    model, network, ids = case
    mask = np.arange(LENGTH) < np.array([[170], [3]])
    found = run(network, ids, mask)
    assert error(found, theirs(model, ids, mask)) < BOUND
    other = np.where(mask, ids, 7)
    seen = np.asarray(run(network, other, mask))
    np.testing.assert_allclose(seen[1, :3], np.asarray(found)[1, :3], atol=1e-5)


def test_every_tensor_matters(case):
    model, network, ids = case
    leaves, tree = jax.tree.flatten(network)
    expected = theirs(model, ids)
    for i, leaf in enumerate(leaves):
        changed = leaf * np.float32(1.5) + np.float32(0.1)
        other = jax.tree.unflatten(tree, [*leaves[:i], changed, *leaves[i + 1 :]])
        assert error(run(other, ids), expected) > BOUND, i


@pytest.mark.parametrize(("n", "farthest"), [(32, 128), (8, 20), (64, 256)])
def test_buckets_are_transformers(n, farthest):
    apart = torch.arange(600)[None] - torch.arange(600)[:, None]
    expected = T5Attention._relative_position_bucket(apart, True, n, farthest)
    np.testing.assert_array_equal(buckets(600, n, farthest), expected)


def test_full_size_keys_and_shapes():
    with torch.device("meta"):
        model = transformers.T5EncoderModel(transformers.T5Config.from_dict(T5))
    zero = np.float32(0)
    tensors = {
        key: np.broadcast_to(zero, tuple(tensor.shape))
        for key, tensor in model.state_dict().items()
    }
    graphdef, state = nnx.split(T5EncoderModel(T5Config.from_dict(T5), rngs=None))
    mappings.match(state, tensors, naming.T5_ENCODER, "XXL")
    assert 2 * Network(graphdef, state).parameters == TOTAL_SIZE


INDEX = "model.safetensors.index.json"
REPOSITORIES = {
    "stabilityai__stable-diffusion-3-medium-diffusers": "text_encoder_3",
    "stabilityai__stable-diffusion-3.5-large": "text_encoder_3",
    "black-forest-labs__FLUX.1-schnell": "text_encoder_2",
    "black-forest-labs__FLUX.1-dev": "text_encoder_2",
}


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_keys_are_those_of_the_published_index(repository):
    folder = REAL / repository / REPOSITORIES[repository]
    if not folder.exists():
        pytest.skip("the index files of published checkpoints are not here")
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"]["total_size"] == TOTAL_SIZE
    config = T5Config.from_dict(json.loads((folder / "config.json").read_text()))
    graphdef, state = nnx.split(T5EncoderModel(config, rngs=None))
    flat = nnx.to_flat_state(state)
    ours = [mappings.torch_names(path, naming.T5_ENCODER, 0) for path, _ in flat]
    assert {key for keys in ours for key in keys} == set(index["weight_map"])
    assert 2 * Network(graphdef, state).parameters == TOTAL_SIZE


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"feed_forward_proj": "relu"}, "asks for relu"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj"),
        ({"is_gated_act": False}, "asks for gelu_new"),
        ({"dense_act_fn": "silu"}, "asks for a gated silu"),
        ({"relative_attention_num_buckets": 30}, "multiple of 4"),
        ({"relative_attention_max_distance": 8}, "relative_attention_max_distance=8"),
        ({"model_type": "mt5"}, "model_type"),
    ],
)
def test_other_encoders_are_refused(wrong, named):
    with pytest.raises(DiffjaxError, match=named):
        T5Config.from_dict(SMALL | wrong)


def test_float_types(case):
    """In bfloat16 states are as near as transformers' own in bfloat16, and float32."""
    model, network, ids = case
    graphdef, state = nnx.split(
        T5EncoderModel(
            network.module().config,
            rngs=None,
            dtype=jnp.bfloat16,
            param_dtype=jnp.bfloat16,
        )
    )
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    state = mappings.fill(state, tensors, naming.T5_ENCODER, "here")
    half = np.asarray(run(Network(graphdef, state), ids))
    expected = theirs(model, ids)
    in_half = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        their_half = in_half(torch.from_numpy(ids))[0].float().numpy()
    assert half.dtype == np.float32

    def away(found):
        return np.linalg.norm(found - expected)

    assert away(half) < 1.5 * away(their_half)
