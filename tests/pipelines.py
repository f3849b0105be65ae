"""Small checkpoints with random weights, built and saved by diffusers and transformers.

Every weight is drawn large enough to matter, also those that torch starts at zero,
and is a float16 number, so that files of half precision hold the same model.
"""

import json
from contextlib import contextmanager
from functools import partial

import jax
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

torch.set_num_threads(1)  # for networks this small, more threads only wait

LENGTH = 12  # tokens of a prompt
VOCABULARY = 530  # a few more rows than tokens, as in published text encoders
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "d o", "do g</w>", "o f</w>"]
STARTS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}

UNET = {
    "sample_size": 8,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
}
VAE = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.31,
}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "hidden_act": "quick_gelu",
}
# three levels and two text encoders, as Stable Diffusion XL has them
UNET_XL = {
    "sample_size": 8,
    "block_out_channels": [8, 16, 24],
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 24 + 32,
    "attention_head_dim": [1, 2, 3],
    "transformer_layers_per_block": [1, 2, 3],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 6,
    "projection_class_embeddings_input_dim": 20 + 6 * 6,
}
TEXT_XL = TEXT | {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "hidden_act": "gelu",
    "projection_dim": 20,
    "eos_token_id": 2,  # as published ones have it
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 10,
}


@torch.no_grad()
def randomise(module, seed=0):
    """The module, every parameter drawn anew."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        if parameter.ndim > 1:
            noise /= np.sqrt(parameter[0].numel())  # the fan-in
        else:
            noise *= 0.3
            if "norm" in name and name.endswith("weight"):
                noise += 1
        parameter.copy_(noise.half().float())
    return module.eval()


def unet(**changes):
    return randomise(UNet2DConditionModel(**UNET | changes), seed=1)


def vae(**changes):
    return randomise(AutoencoderKL(**VAE | changes), seed=2)


def text_encoder(**changes):
    return randomise(CLIPTextModel(CLIPTextConfig(**TEXT | changes)), seed=3)


def text_encoder_2(**changes):
    config = CLIPTextConfig(**TEXT_XL | changes)
    return randomise(CLIPTextModelWithProjection(config), seed=5)


def dit(**changes):
    model = randomise(DiTTransformer2DModel(**DIT | changes), seed=4)
    shared = model.transformer_blocks[0].norm1.emb.state_dict()
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(shared)
    return model


def write_tokenizer(folder, pad="<|endoftext|>", length=LENGTH):
    """A small CLIP tokenizer in the layout of the published checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    tokens = letters + [f"{letter}</w>" for letter in letters]
    tokens += ["".join(merge.split()) for merge in MERGES]
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def stable_diffusion(folder, **parts):
    """A Stable Diffusion saved under ``folder``; ``parts`` replaces torch modules."""
    write_tokenizer(folder / "tokenizer")
    scheduler = PNDMScheduler(
        **STARTS, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    modules = {
        "unet": unet(),
        "vae": vae(),
        "text_encoder": text_encoder(),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "scheduler": scheduler,
    }
    pipeline = StableDiffusionPipeline(
        **modules | parts,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return pipeline


def stable_diffusion_xl(folder, *, zeros=True, **parts):
    """A Stable Diffusion XL saved under ``folder``."""
    write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2", "!")
    modules = {
        "unet": unet(**UNET_XL),
        "vae": vae(force_upcast=True),
        "text_encoder": text_encoder(),
        "text_encoder_2": text_encoder_2(),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "tokenizer_2": CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        "scheduler": EulerDiscreteScheduler(
            **STARTS, beta_schedule="scaled_linear", steps_offset=1
        ),
    }
    pipeline = StableDiffusionXLPipeline(
        **modules | parts,
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return pipeline


def dit_pipeline(folder, **parts):
    """A DiT saved under ``folder``, with the class names where published ones are."""
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
    )
    modules = {"transformer": dit(), "vae": vae(), "scheduler": scheduler}
    pipeline = DiTPipeline(**modules | parts)
    pipeline.save_pretrained(folder)
    labels = {str(i): f"class {i}" for i in range(DIT["num_embeds_ada_norm"])}
    edit_json(folder / "model_index.json", id2label=labels)
    return pipeline


def edit_json(path, **changes):
    """Set entries of a JSON file; None takes them out."""
    content = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def to_torch(x):
    """[n, h, w, c] → [n, c, h, w]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def from_torch(x):
    """[n, c, h, w] → [n, h, w, c]."""
    return np.moveaxis(x.detach().float().numpy(), 1, -1)


def error(ours, theirs):
    """The largest error of any element, relative to the root mean square of its item.

    It bounds the relative error by norm from above.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    items = tuple(range(1, ours.ndim))
    rms = np.sqrt(np.mean(np.square(theirs, dtype=np.float64), axis=items))
    assert rms.min() > 0.1, "the reference is too small to be compared with"
    if not np.isfinite(ours).all():
        return np.inf
    return float((np.abs(ours - theirs).max(axis=items) / rms).max())


# little optimisation, for compilation takes most of the time here
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@quick_jit
def denoise(network, latents, timesteps, conditions):
    return jax.vmap(network.module())(latents, timesteps, conditions)


@quick_jit
def encode_text(network, ids):
    return jax.vmap(network.module())(ids).states


@quick_jit
def encode(network, pixels):
    return jax.vmap(network.module().encode)(pixels)


@quick_jit
def decode(network, latents):
    return jax.vmap(network.module().decode)(latents)


@contextmanager
def hooked(module, names):
    """A dict that a forward pass fills with what layers put out, by their names."""
    kept = {}

    def keep(name, output):
        if isinstance(output, tuple):  # (hidden, skips), (hidden,) or (text, image)
            several = len(output) == 2 and not isinstance(output[1], tuple)
            output = output[1] if several else output[0]
        kept[name] = from_torch(output) if output.ndim == 4 else output.float().numpy()

    layers = dict(module.named_modules())
    hooks = [
        layers[name].register_forward_hook(
            lambda module, given, output, name=name: keep(name, output)
        )
        for name in names
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
