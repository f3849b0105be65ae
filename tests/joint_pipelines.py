"""Small random pipelines of Stable Diffusion 3 and FLUX.1, as diffusers saves them."""

import pipelines
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from pipelines import edit_json, randomise
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

CHANNELS = 4
T5 = {
    "vocab_size": 300,
    "d_model": 64,
    "d_kv": 8,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
CLIP = pipelines.TEXT | {"eos_token_id": 2}
PROJECTED = CLIP | {"projection_dim": 12}
SD3 = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "joint_attention_dim": 64,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 12 + 20,
    "pos_embed_max_size": 6,
    "qk_norm": "rms_norm",
}
FLUX = {
    "patch_size": 1,
    "in_channels": 4 * CHANNELS,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 24,
    "axes_dims_rope": (4, 6, 6),
}
PIXART = {
    "sample_size": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_layers": 2,
    "cross_attention_dim": 24,
    "caption_channels": 64,
    "interpolation_scale": 0.5,  # as for images of 256 pixels
}
VAE = {
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.21,
    "latent_channels": CHANNELS,
}


def t5_tokenizer(folder):
    """Of letters and a few words, in the one file that published ones have."""
    words = ["▁a", "▁the", "cat", "dog", "▁", "photo"]
    pieces = [*words, *"abcdefghijklmnopqrstuvwxyz!,."]
    scores = [(piece, -1.0 - 0.01 * i) for i, piece in enumerate(pieces)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = Tokenizer(models.Unigram([*special, *scores], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="T5TokenizerFast",
        extra_ids=0,
        model_max_length=512,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    return T5TokenizerFast.from_pretrained(folder)


def t5():
    """With a table large enough that what stands for a text does not vanish."""
    return randomise(T5EncoderModel(T5Config(**T5)), seed=7)


def clip(kind, **changes):
    return randomise(kind(CLIPTextConfig(**changes)), seed=3)


def clip_tokenizer(folder):
    pipelines.write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def stable_diffusion_3(folder, **parts):
    """One with three text encoders, saved under ``folder``."""
    modules = {
        "transformer": randomise(SD3Transformer2DModel(**SD3)),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": pipelines.vae(**VAE),
        "text_encoder": clip(CLIPTextModelWithProjection, **PROJECTED),
        "tokenizer": clip_tokenizer(folder / "tokenizer"),
        "text_encoder_2": pipelines.text_encoder_2(),
        "tokenizer_2": clip_tokenizer(folder / "tokenizer_2"),
        "text_encoder_3": t5(),
        "tokenizer_3": t5_tokenizer(folder / "tokenizer_3"),
    }
    pipeline = StableDiffusion3Pipeline(**modules | parts)
    pipeline.save_pretrained(folder)
    return pipeline


def flux(folder, *, guided, **parts):
    """FLUX.1 dev, or schnell, saved under ``folder``."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(**FLUX, guidance_embeds=guided)
    dynamic = {"shift": 3.0, "use_dynamic_shifting": True} if guided else {}
    modules = {
        "transformer": randomise(transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(**dynamic),
        "vae": pipelines.vae(**VAE),
        "text_encoder": clip(CLIPTextModel, **CLIP),
        "tokenizer": clip_tokenizer(folder / "tokenizer"),
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(folder / "tokenizer_2"),
    }
    pipeline = FluxPipeline(**modules | parts)
    pipeline.save_pretrained(folder)
    return pipeline


def pixart(folder, *, alpha):
    """PixArt-α, which is told sizes, or -Σ, saved under ``folder``."""
    transformer = PixArtTransformer2DModel(**PIXART, use_additional_conditions=alpha)
    pipeline = (PixArtAlphaPipeline if alpha else PixArtSigmaPipeline)(
        transformer=randomise(transformer),
        scheduler=DPMSolverMultistepScheduler(beta_schedule="linear"),
        vae=pipelines.vae(),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(folder / "tokenizer"),
    )
    pipeline.save_pretrained(folder)
    if alpha:  # as published: by diffusers 0.22
        place = folder / "transformer"
        edit_json(place / "config.json", _class_name="Transformer2DModel")
        weights = place / "diffusion_pytorch_model.safetensors"
        unused = {"caption_projection.y_embedding": torch.zeros(120, 64)}
        save_file(load_file(weights) | unused, weights)
    return pipeline
