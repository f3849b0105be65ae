"""Configs as published, with what each version of diffusers or transformers wrote.

`tests/goldens/keys` holds the settings that shape the tensors; here the same models
come with the further keys of their own files and of copies saved by later versions.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from diffjax.checkpoints.schedulers import read_schedule
from diffjax.errors import DiffjaxError
from diffjax.models.autoencoder import AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig, CLIPTextWithProjectionConfig
from diffjax.models.dit import DiTTransformer2DConfig
from diffjax.models.unet_config import UNet2DConditionConfig

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
CONFIGS = {
    "sd15-unet": UNet2DConditionConfig,
    "sd2-unet": UNet2DConditionConfig,
    "sd-vae": AutoencoderKLConfig,
    "sd1-text": CLIPTextConfig,
    "sd2-text": CLIPTextConfig,
    "sdxl-unet": UNet2DConditionConfig,
    "sdxl-text-2": CLIPTextWithProjectionConfig,
    "dit-xl-2-256": DiTTransformer2DConfig,
}

# What later versions of the classes add when they save an old model again.
UNET_2023 = {
    "_diffusers_version": "0.24.0",
    "_name_or_path": "runwayml/stable-diffusion-v1-5",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1.0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
    "upcast_attention": False,
}
VAE_2024 = {
    "_diffusers_version": "0.30.0",
    "_name_or_path": "stabilityai/sd-vae-ft-mse",
    "force_upcast": True,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
DIT_2024 = {
    "_diffusers_version": "0.27.0",
    "attention_type": "default",
    "caption_channels": None,
    "double_self_attention": False,
    "interpolation_scale": None,
    "norm_eps": 1e-05,
    "use_additional_conditions": None,
}
# An old config that was written whole, with transformers' generic settings.
TEXT_WHOLE = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "add_cross_attention": False,
    "bad_words_ids": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torch_dtype": None,
    "torchscript": False,
    "transformers_version": "4.22.0.dev0",
    "typical_p": 1.0,
    "use_bfloat16": False,
}

# file: (model of tests/goldens/keys, keys that its file adds, keys that it lacks,
#        settings in which it differs from that model)
FILES = {
    "SD 1.4, unet": ("sd15-unet", {"_diffusers_version": "0.2.2"}, (), {}),
    "SD 1.5, unet": ("sd15-unet", {"_diffusers_version": "0.6.0.dev0"}, (), {}),
    "SD 1.5, unet, saved again": ("sd15-unet", UNET_2023, (), {}),
    "SD 2-base, unet": ("sd2-unet", {"_diffusers_version": "0.8.0"}, (), {}),
    "SD 2, unet": ("sd2-unet", {"sample_size": 96}, (), {"sample_size": 96}),
    "SD 2.1, unet": (
        "sd2-unet",
        {
            "_diffusers_version": "0.10.0.dev0",
            "sample_size": 96,
            "upcast_attention": True,
        },
        (),
        {"sample_size": 96},
    ),
    "SD 2.1-base, unet": (
        "sd2-unet",
        {
            "class_embed_type": None,
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "resnet_time_scale_shift": "default",
            "upcast_attention": False,
        },
        (),
        {},
    ),
    "SD 2.1, unet, saved again": (
        "sd2-unet",
        UNET_2023 | {"sample_size": 96, "upcast_attention": True},
        (),
        {"sample_size": 96},
    ),
    "SD 1.4, vae": (
        "sd-vae",
        {"_diffusers_version": "0.2.2"},
        ("norm_num_groups",),
        {},
    ),
    "SD 2.1, vae": (
        "sd-vae",
        {"_name_or_path": "hf-models/v2-768/vae", "sample_size": 768},
        (),
        {},
    ),
    "sd-vae-ft-mse": (
        "sd-vae",
        {"_diffusers_version": "0.4.2", "sample_size": 256},
        (),
        {},
    ),
    "sd-vae-ft-mse, saved again": ("sd-vae", VAE_2024, (), {}),
    "SD 1.4, text": (
        "sd1-text",
        {
            "_name_or_path": "openai/clip-vit-large-patch14",
            "torch_dtype": "float32",
            "transformers_version": "4.21.3",
        },
        # before transformers 4.24 a text config had no such key
        ("projection_dim",),
        {},
    ),
    "SD 1.5, text": (
        "sd1-text",
        {"torch_dtype": "float32", "transformers_version": "4.22.0.dev0"},
        (),
        {},
    ),
    "SD 1.5, text, written whole": ("sd1-text", TEXT_WHOLE, (), {}),
    "SD 2.1, text": (
        "sd2-text",
        {
            "_name_or_path": "hf-models/v2-base/text_encoder",
            "torch_dtype": "float32",
            "transformers_version": "4.25.0.dev0",
        },
        (),
        {},
    ),
    "SD 2.1, text, saved by transformers 5": (
        "sd2-text",
        {"dtype": "float16", "transformers_version": "5.0.0"},
        ("torch_dtype",),
        {},
    ),
    "DiT-XL/2-256": ("dit-xl-2-256", {"_diffusers_version": "0.12.0.dev0"}, (), {}),
    "DiT-XL/2-512": ("dit-xl-2-256", {"sample_size": 64}, (), {"sample_size": 64}),
    "DiT-XL/2-256, saved again": ("dit-xl-2-256", DIT_2024, (), {}),
    "DiT-XL/2-256, saved by its later class": (
        "dit-xl-2-256",
        {"_class_name": "DiTTransformer2DModel", "norm_eps": 1e-05},
        (
            "cross_attention_dim",
            "num_vector_embeds",
            "only_cross_attention",
            "use_linear_projection",
        ),
        {},
    ),
}


@pytest.mark.parametrize("file", FILES)
def test_published_config_is_read(file):
    name, added, absent, differs = FILES[file]
    proven = json.loads((KEYS / f"{name}.json").read_text())
    read = CONFIGS[name].from_dict
    published = {k: v for k, v in (proven | added).items() if k not in absent}
    assert published != proven
    assert read(published, file) == dataclasses.replace(read(proven), **differs)


def test_settings_of_stable_diffusion():
    """The numbers that tell the versions apart arrive where the network looks."""
    sd1, sd2 = (
        UNet2DConditionConfig.from_dict(json.loads((KEYS / f"{n}.json").read_text()))
        for n in ("sd15-unet", "sd2-unet")
    )
    assert (sd1.attention_head_dim, sd1.cross_attention_dim) == (8, 768)
    assert sd2.attention_head_dim == (5, 10, 20, 20)
    assert sd2.cross_attention_dim == 1024
    assert sd2.use_linear_projection and not sd1.use_linear_projection


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("SD 1.5, unet, saved again", "attention_type", "gated"),
        ("SD 1.5, unet, saved again", "mid_block_scale_factor", 0.5),
        ("SD 2.1, unet", "dual_cross_attention", True),
        ("sd-vae-ft-mse, saved again", "latents_mean", [0.1]),
        ("SD 1.5, text, written whole", "is_decoder", True),
        ("SD 1.5, text, written whole", "pruned_heads", {"0": [1]}),
        ("DiT-XL/2-256, saved again", "attention_type", "gated"),
        ("DiT-XL/2-256, saved again", "interpolation_scale", 2),
        ("DiT-XL/2-256, saved again", "caption_channels", 4096),
    ],
)
def test_a_published_key_with_another_value_is_refused(file, key, value):
    name, added, _, _ = FILES[file]
    proven = json.loads((KEYS / f"{name}.json").read_text())
    with pytest.raises(DiffjaxError, match=rf"here\.json(?s:.)*{key}="):
        CONFIGS[name].from_dict(proven | added | {key: value}, "here.json")


SCALED = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
PNDM = SCALED | {
    "_class_name": "PNDMScheduler",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
# file: (its content, prediction type, the last ᾱ)
SCHEDULERS = {
    "SD 1.4": (PNDM | {"_diffusers_version": "0.7.0.dev0"}, "epsilon", 0.0047),
    "SD 1.5": (PNDM | {"_diffusers_version": "0.6.0"}, "epsilon", 0.0047),
    "SD 2-base": (PNDM | {"prediction_type": "epsilon"}, "epsilon", 0.0047),
    "SD 2": (
        SCALED
        | {
            "_class_name": "EulerDiscreteScheduler",
            "prediction_type": "v_prediction",
            "interpolation_type": "linear",
            "use_karras_sigmas": False,
        },
        "v_prediction",
        0.0047,
    ),
    "SD 2.1": (
        PNDM | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
        "v_prediction",
        0.0047,
    ),
    "SD 2.1, saved again": (
        PNDM
        | {
            "_class_name": "DDIMScheduler",
            "clip_sample_range": 1.0,
            "dynamic_thresholding_ratio": 0.995,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": False,
            "sample_max_value": 1.0,
            "thresholding": False,
            "timestep_spacing": "leading",
        },
        "v_prediction",
        0.0047,
    ),
    "DiT-XL/2": (
        {
            "_class_name": "DDIMScheduler",
            "_diffusers_version": "0.12.0.dev0",
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "beta_start": 0.0001,
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "set_alpha_to_one": True,
            "steps_offset": 0,
            "trained_betas": None,
        },
        "epsilon",
        4.0e-5,
    ),
}


@pytest.mark.parametrize("file", SCHEDULERS)
def test_published_scheduler_is_read(file):
    config, prediction_type, last = SCHEDULERS[file]
    schedule = read_schedule(config, file)
    assert schedule.prediction_type == prediction_type
    assert schedule.n_timesteps == 1000
    np.testing.assert_allclose(schedule.posterior.alpha_bar[-1], last, rtol=0.02)
