"""Our networks against diffusers and transformers, through the public loader.

The bound is the largest error of one element relative to the item's root mean square:
BOUND of `pipelines.error`. At the end each tensor in turn is changed, to show that the
comparison notices.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
import torch
from diffusers import DDIMScheduler
from pipelines import (
    decode,
    denoise,
    encode,
    encode_text,
    error,
    from_torch,
    normal,
    to_torch,
)

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.networks import load_network
from diffjax.models.diffusion import predict
from diffjax.models.unet import PooledCondition, TextCondition

BOUND = 1e-4
TIMESTEPS = np.array([0, 1, 500, 999, 37], np.int32)  # an odd batch

UNETS = {
    "sd1": {
        "block_out_channels": [16, 32, 32],
        "down_block_types": ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2,
    },
    "sd2": {
        "attention_head_dim": [1, 4],
        "use_linear_projection": True,
        "layers_per_block": 2,
    },
    "other order": {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": [1, 2],
        "attention_head_dim": [2, 8],
        "norm_eps": 0.03,
        "norm_num_groups": 8,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "time_embedding_dim": 24,
        "in_channels": 3,
        "out_channels": 6,
    },
    "four levels": {
        "block_out_channels": [8, 16, 16, 24],
        "down_block_types": ["DownBlock2D"] * 3 + ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"] + ["UpBlock2D"] * 3,
    },
    "one level": {
        "block_out_channels": [16],
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
    },
}


def save_and_load(module, folder, part, dtype=jnp.float32):
    """Our network from what torch saved."""
    module.save_pretrained(folder)
    return load_network(folder, part, dtype)[1]


def unet_case(module, height, width):
    """Inputs of a batch, and torch's answer to them."""
    n, c = len(TIMESTEPS), module.config.in_channels
    latents = normal(n, height, width, c, seed=1)
    states = normal(n, 7, module.config.cross_attention_dim, seed=2)
    with torch.no_grad():
        answer = module(
            to_torch(latents), torch.from_numpy(TIMESTEPS), torch.from_numpy(states)
        ).sample
    return (latents, TIMESTEPS, TextCondition(states)), from_torch(answer)


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("sd1", 8, 12),
        ("sd1", 9, 7),
        ("sd2", 8, 8),
        ("other order", 7, 9),
        ("four levels", 9, 11),
        ("one level", 5, 6),
    ],
)
def test_unet(tmp_path, name, height, width):
    module = pipelines.unet(**UNETS[name])
    network = save_and_load(module, tmp_path, "unet")
    inputs, answer = unet_case(module, height, width)
    assert error(denoise(network, *inputs), answer) < BOUND


UNETS_XL = {
    "sdxl": {},
    "other order": {
        "transformer_layers_per_block": 2,
        "use_linear_projection": False,
        "layers_per_block": [1, 2, 1],
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "addition_time_embed_dim": 7,
        "projection_class_embeddings_input_dim": 20 + 6 * 7,
    },
}


@pytest.mark.parametrize(("name", "size"), [("sdxl", 9), ("other order", 8)])
def test_unet_that_is_told_a_pooled_state_and_sizes(tmp_path, name, size):
    module = pipelines.unet(**pipelines.UNET_XL | UNETS_XL[name])
    network = save_and_load(module, tmp_path, "unet")
    n = len(TIMESTEPS)
    latents = normal(n, size, size, 4, seed=1)
    states, pooled = normal(n, 7, 56, seed=2), normal(n, 20, seed=3)
    sizes = np.array([[333, 500, 0, 7, 1024, 768]] * n, np.int32)
    sizes[0] = [1, 2048, 99, 0, 1, 1]
    told = {
        "text_embeds": torch.from_numpy(pooled),
        "time_ids": torch.from_numpy(sizes),
    }
    with torch.no_grad():
        answer = module(
            to_torch(latents),
            torch.from_numpy(TIMESTEPS),
            torch.from_numpy(states),
            added_cond_kwargs=told,
        ).sample
    condition = PooledCondition(states, pooled, sizes)
    found = denoise(network, latents, TIMESTEPS, condition)
    assert error(found, from_torch(answer)) < BOUND


VAES = {
    "sd": {},
    "three levels": {
        "block_out_channels": [8, 12, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "layers_per_block": 2,
        "norm_num_groups": 2,
        "latent_channels": 3,
    },
    "bare": {
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
}


def vae_case(module, height, width, n=3):
    """Pixels, latents, and torch's mean, log variance and decoded latents."""
    pixels = np.tanh(normal(n, height, width, 3, seed=3))
    with torch.no_grad():
        posterior = module.encode(to_torch(pixels)).latent_dist
        latents = normal(*from_torch(posterior.mean).shape, seed=4)
        decoded = module.decode(to_torch(latents)).sample
    answers = posterior.mean, posterior.logvar, decoded
    return pixels, latents, tuple(map(from_torch, answers))


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [("sd", 16, 24), ("three levels", 16, 8), ("bare", 8, 12)],
)
def test_autoencoder(tmp_path, name, height, width):
    module = pipelines.vae(**VAES[name])
    network = save_and_load(module, tmp_path, "vae")
    pixels, latents, answers = vae_case(module, height, width)
    found = *encode(network, pixels), decode(network, latents)
    for ours, theirs in zip(found, answers, strict=True):
        assert error(ours, theirs) < BOUND


def test_autoencoder_clips_the_log_variance(tmp_path):
    module = pipelines.vae(use_quant_conv=False)
    with torch.no_grad():
        module.encoder.conv_out.bias[4:] = torch.tensor([-99.0, 99.0, -25.0, 15.0])
    network = save_and_load(module, tmp_path, "vae")
    pixels, _, (mean, logvar, _) = vae_case(module, 8, 8)
    assert logvar.min() == -30 and logvar.max() == 20
    ours = encode(network, pixels)
    assert error(ours[0], mean) < BOUND and error(ours[1], logvar) < BOUND


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_text_encoder(tmp_path, activation):
    module = pipelines.text_encoder(hidden_act=activation)
    network = save_and_load(module, tmp_path, "text_encoder")
    draw = np.random.default_rng(0)
    ids = draw.integers(0, pipelines.VOCABULARY, (3, pipelines.LENGTH), np.int32)
    with torch.no_grad():
        answer = module(torch.from_numpy(ids).long())[0].numpy()
    assert error(encode_text(network, ids), answer) < BOUND


@pytest.mark.parametrize("end", [2, 7])  # a file's mistake, and a token's id
@pytest.mark.parametrize("layers", [1, 3])
def test_text_encoder_with_a_projection(tmp_path, end, layers):
    """The text ends at the largest id, or at the first of those that end it."""
    module = pipelines.text_encoder_2(eos_token_id=end, num_hidden_layers=layers)
    network = save_and_load(module, tmp_path, "text_encoder_2")
    draw = np.random.default_rng(0)
    ids = draw.integers(8, pipelines.VOCABULARY, (3, pipelines.LENGTH), np.int32)
    ids[:, 4] = ids[1, 9] = 7
    with torch.no_grad():
        answer = module(torch.from_numpy(ids).long(), output_hidden_states=True)
    found = quick_encode(network, ids)
    assert error(found.states, answer.last_hidden_state.numpy()) < BOUND
    assert error(found.penultimate, answer.hidden_states[-2].numpy()) < BOUND
    assert error(found.pooled, answer.text_embeds.numpy()) < BOUND


@pipelines.quick_jit
def quick_encode(network, ids):
    return jax.vmap(network.module())(ids)


DITS = {
    "learned sigma": {},
    "plain": {"out_channels": 4, "patch_size": 1, "num_attention_heads": 1},
    "others": {
        "patch_size": 4,
        "attention_bias": False,
        "activation_fn": "gelu",
        "norm_eps": 0.03,
        "num_layers": 1,
    },
}
CLASSES = np.array([0, 9, 10, 3, 10], np.int32)  # 10 is the unconditional class


def dit_case(module, size):
    latents = normal(len(TIMESTEPS), size, size, module.config.in_channels, seed=5)
    with torch.no_grad():
        answer = module(
            to_torch(latents),
            timestep=torch.from_numpy(TIMESTEPS),
            class_labels=torch.from_numpy(CLASSES).long(),
        ).sample
    return (latents, TIMESTEPS, CLASSES), from_torch(answer)


@pytest.mark.parametrize(
    ("name", "size"),
    [("learned sigma", 8), ("learned sigma", 12), ("plain", 8), ("others", 16)],
)
def test_dit(tmp_path, name, size):
    module = pipelines.dit(**DITS[name])
    network = save_and_load(module, tmp_path, "transformer")
    inputs, answer = dit_case(module, size)
    assert error(denoise(network, *inputs), answer) < BOUND


# Whole pipelines.

PROMPTS = [
    "a photo of a cat",
    "",
    "the dog, the cat & the naïve DOG! 狗",
    "cat " * 20,  # too long
    "  A   Dog\t",
]


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    return folder, pipelines.stable_diffusion(folder)


@pytest.fixture(scope="module")
def dit_pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dit")
    return folder, pipelines.dit_pipeline(folder)


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])  # of SD 1 and of SD 2
@pytest.mark.parametrize("length", [pipelines.LENGTH, pipelines.LENGTH - 3])
def test_prompts(stable_diffusion, tmp_path, pad, length):
    from transformers import CLIPTokenizer

    folder, pipeline = stable_diffusion
    pipelines.write_tokenizer(tmp_path / "tokenizer", pad, length)
    model = load_model(folder, tokenizer=tmp_path)
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    ids = theirs(
        PROMPTS,
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    assert ids[1, -1] == theirs.convert_tokens_to_ids(pad)
    np.testing.assert_array_equal(model.conditioner.tokenize(PROMPTS).ids, ids)
    with torch.no_grad():
        states = pipeline.text_encoder(ids)[0].numpy()
    ours, cut = model.text_conditioner.encode(PROMPTS)
    assert error(ours.states, states) < BOUND
    too_long = {12: (2, 3), 9: (0, 2, 3)}[length]
    assert cut == tuple(PROMPTS[i] for i in too_long)


def test_text_states_as_the_pipeline_has_them(stable_diffusion):
    folder, pipeline = stable_diffusion
    theirs = pipeline.encode_prompt(
        PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    model = load_model(folder)
    ours = model.conditioner.encode(PROMPTS)[0].states
    assert error(ours, theirs[0].detach().numpy()) < BOUND
    many = ["a cat"] * 40 + PROMPTS  # more than go through the encoder at once
    ours = model.conditioner.encode(many)[0].states
    assert error(ours[40:], theirs[0].detach().numpy()) < BOUND


@pytest.mark.parametrize("kind", ["sd", "dit"])
def test_latents_are_the_scaled_mean(stable_diffusion, dit_pipeline, kind):
    folder, pipeline = {"sd": stable_diffusion, "dit": dit_pipeline}[kind]
    model = load_model(folder)
    assert model.resolution == 16 and model.downscale == 2
    pixels = np.tanh(normal(16, 16, 3))
    with torch.no_grad():
        mean = pipeline.vae.encode(to_torch(pixels[None])).latent_dist.mean
        latent = from_torch(mean * pipeline.vae.config.scaling_factor)
    assert pipeline.vae.config.scaling_factor == pipelines.VAE["scaling_factor"]
    assert error(model.latent(pixels)[None] / 0.31, latent / 0.31) < BOUND


def noise_of(scheduler, output, z_t, t):
    """ε from diffusers' own conversion of a prediction to z0, by z_t = a z0 + s ε."""
    z0 = scheduler.step(output, t, z_t).pred_original_sample
    alpha_bar = scheduler.alphas_cumprod[t]
    return (z_t - alpha_bar.sqrt() * z0) / (1 - alpha_bar).sqrt()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_of_stable_diffusion(stable_diffusion, tmp_path, prediction_type):
    folder, pipeline = stable_diffusion
    scheduler = DDIMScheduler(
        **pipelines.STARTS,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction_type,
    )
    scheduler.set_timesteps(1000)
    model = load_model(copy_with_scheduler(folder, tmp_path, scheduler))
    assert model.schedule.prediction_type == prediction_type
    z_t, states = normal(1, 8, 8, 4), normal(1, pipelines.LENGTH, 24, seed=1)
    for t in (1, 500, 999):
        with torch.no_grad():
            output = pipeline.unet(to_torch(z_t), t, torch.from_numpy(states)).sample
        noise = from_torch(noise_of(scheduler, output, to_torch(z_t), t))
        ours, variance = predict_one(
            model.denoiser,
            model.schedule,
            z_t[0],
            np.int32(t),
            TextCondition(states[0]),
        )
        # z0 → ε divides by s, and with it torch's rounding errors
        s = float((1 - scheduler.alphas_cumprod[t]).sqrt())
        assert error(ours[None], noise) < BOUND / s
        assert variance is None


def test_noise_of_dit(dit_pipeline):
    """Of eight channels the first four; the classes have names."""
    folder, pipeline = dit_pipeline
    model = load_model(folder)
    assert (model.kind, model.n_classes) == ("class", 10)
    assert model.class_names == tuple(f"class {i}" for i in range(10))
    z_t = normal(1, 8, 8, 4)
    with torch.no_grad():
        output = pipeline.transformer(
            to_torch(z_t), timestep=torch.tensor([500]), class_labels=torch.tensor([7])
        ).sample
    noise, variance = predict_one(
        model.denoiser, model.schedule, z_t[0], np.int32(500), np.int32(7)
    )
    assert error(noise[None], from_torch(output)[..., :4]) < BOUND
    assert error(variance[None], from_torch(output)[..., 4:]) < BOUND


predict_one = pipelines.quick_jit(predict)


def copy_with_scheduler(folder, to, scheduler):
    """The pipeline's folder, by links, with another scheduler."""
    for place in folder.iterdir():
        if place.name != "scheduler":
            (to / place.name).symlink_to(place)
    scheduler.save_pretrained(to / "scheduler")
    return to


# Lower precision.


@pytest.mark.parametrize("part", ["unet", "transformer"])
def test_bfloat16_is_close(tmp_path, part):
    """Eight bits of mantissa through two dozen layers: within 5 % by norm."""
    if part == "unet":
        module = pipelines.unet(use_linear_projection=True)
        inputs, answer = unet_case(module, 8, 8)
    else:
        module = pipelines.dit()
        inputs, answer = dit_case(module, 8)
    network = save_and_load(module, tmp_path, part, jnp.bfloat16)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(network.state)}
    assert dtypes == {"bfloat16", "float32"}  # norms and the last layer
    ours = np.asarray(denoise(network, *inputs))
    assert ours.dtype == np.float32
    difference = np.linalg.norm(ours - answer) / np.linalg.norm(answer)
    assert 1e-4 < difference < 5e-2


# The proof that these comparisons can fail.


def case(part):
    """A torch module, and how to run our network on inputs with known answers."""
    if part == "unet":
        module = pipelines.unet()
        inputs, answer = unet_case(module, 4, 6)
        return module, lambda network: (denoise(network, *inputs),), (answer,)
    if part == "vae":
        module = pipelines.vae()
        pixels, latents, answers = vae_case(module, 8, 12, n=1)

        def run(network):
            return *encode(network, pixels), decode(network, latents)

        return module, run, answers
    if part == "text_encoder":
        module = pipelines.text_encoder()
        ids = np.arange(pipelines.LENGTH, dtype=np.int32)[None]
        with torch.no_grad():
            answer = module(torch.from_numpy(ids).long())[0].numpy()
        return module, lambda network: (encode_text(network, ids),), (answer,)
    module = pipelines.dit()
    inputs, answer = dit_case(module, 4)
    return module, lambda network: (denoise(network, *inputs),), (answer,)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "transformer"])
def test_every_tensor_matters(tmp_path, part):
    """Changing any single tensor breaks the bound, but for the biases of keys.

    softmax(q · (k_j + b)) = softmax(q · k_j + q · b) = softmax(q · k_j), for q · b does
    not depend on j. Those biases are compared by value.
    """
    module, run, answers = case(part)
    network = save_and_load(module, tmp_path, part)
    leaves, tree = jax.tree.flatten_with_path(network)
    values = [value for _, value in leaves]

    def layer_and_leaf(i):  # of a path such as .state['to_k']['bias'].value
        return tuple(re.findall(r"'(\w+)'", jax.tree_util.keystr(leaves[i][0]))[-2:])

    def worst(values):
        return max(map(error, run(jax.tree.unflatten(tree, values)), answers))

    unnoticed = []
    for i, value in enumerate(values):
        changed = np.asarray(value) * np.float32(1.5) + np.float32(0.1)
        if worst([*values[:i], changed, *values[i + 1 :]]) < BOUND:
            unnoticed.append(i)
    assert worst(values) < BOUND

    assert {layer_and_leaf(i) for i in unnoticed} <= set(KEY_BIASES)
    theirs = [
        value.detach().numpy()
        for name, value in sorted(module.named_parameters())
        if tuple(name.split(".")[-2:]) in KEY_BIASES
    ]
    assert len(theirs) == (0 if part == "unet" else 2)
    np.testing.assert_array_equal([values[i] for i in unnoticed], theirs)


KEY_BIASES = (("to_k", "bias"), ("k_proj", "bias"))
