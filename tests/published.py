"""Facts about published checkpoints: their configs, and the sizes of their files.

The values of each repository's config files, without the entries that say which program
wrote them and where (``_diffusers_version``, ``_name_or_path``). Where the folder
../shared/real has the files themselves, tests compare.
"""

from pathlib import Path

REAL = Path(__file__).parents[2] / "shared" / "real"


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


UNET_1 = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
UNET_2 = UNET_1 | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "use_linear_projection": True,
}
# what later versions of the class wrote, with values that change nothing
LATER = {"num_class_embeds": None, "only_cross_attention": False}
UNET_XL = (
    UNET_2
    | LATER
    | {
        "addition_embed_type": "text_time",
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "class_embed_type": None,
        "class_embeddings_concat": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_dim": 2048,
        "cross_attention_norm": None,
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "mid_block_only_cross_attention": None,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "num_attention_heads": None,
        "projection_class_embeddings_input_dim": 2816,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "sample_size": 128,
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "upcast_attention": None,
    }
)
UNET_XL_REFINER = UNET_XL | {
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": [
        *("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "DownBlock2D",
    ],
    "projection_class_embeddings_input_dim": 2560,
    "transformer_layers_per_block": 4,
    "up_block_types": [
        *("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "UpBlock2D",
    ],
}
VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
VAE_XL = VAE | {"sample_size": 1024, "scaling_factor": 0.13025}
VAE_3 = VAE | {  # of 16 channels, shifted
    "force_upcast": True,
    "latent_channels": 16,
    "latents_mean": None,
    "latents_std": None,
    "sample_size": 1024,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
VAE_35 = VAE_3 | {"mid_block_add_attention": True}
VAE_FLUX = VAE_35 | {"scaling_factor": 0.3611, "shift_factor": 0.1159}
TEXT_1 = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}
TEXT_2 = TEXT_1 | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
    "transformers_version": "4.25.0.dev0",
}
TEXT_XL = TEXT_1 | {"torch_dtype": "float16", "transformers_version": "4.32.0.dev0"}
TEXT_XL_2 = TEXT_XL | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
TEXT_3 = TEXT_1 | {
    "architectures": ["CLIPTextModelWithProjection"],
    "torch_dtype": "float16",
    "transformers_version": "4.41.2",
}
TEXT_3_2 = TEXT_XL_2 | {"transformers_version": "4.41.2"}
T5 = {
    "architectures": ["T5EncoderModel"],
    "classifier_dropout": 0.0,
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 24,
    "num_heads": 64,
    "num_layers": 24,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "vocab_size": 32128,
}
# the same network; of the file that ../shared/real has
T5_FLUX = without(
    T5,
    *("architectures", "classifier_dropout", "feed_forward_proj", "torch_dtype"),
    *("relative_attention_max_distance", "transformers_version", "use_cache"),
) | {"dense_act_fn": "gelu_pytorch_tanh"}
TEXT_FLUX = TEXT_1 | {"torch_dtype": "bfloat16", "transformers_version": "4.43.3"}
DIT = {
    "_class_name": "Transformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "cross_attention_dim": None,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 32,
    "upcast_attention": False,
    "use_linear_projection": False,
}
SD3 = {
    "_class_name": "SD3Transformer2DModel",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "sample_size": 128,
}
SD3_LARGE = SD3 | {
    "caption_projection_dim": 2432,
    "num_attention_heads": 38,
    "num_layers": 38,
    "qk_norm": "rms_norm",
}
# of Σ at 1024 pixels; α's, which is told sizes, differs in these
PIXART = {
    "_class_name": "PixArtTransformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "attention_type": "default",
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
    "dropout": 0.0,
    "in_channels": 4,
    "interpolation_scale": 2,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 128,
    "upcast_attention": False,
    "use_additional_conditions": False,
}
PIXART_ALPHA = PIXART | {"use_additional_conditions": True}
FLUX = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}
UNET_XL_TURBO = (
    UNET_XL
    | LATER
    | {
        "attention_type": "default",
        "dropout": 0.0,
        "reverse_transformer_layers_per_block": None,
        "sample_size": 64,
    }
)
PNDM = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
DDIM = PNDM | {"_class_name": "DDIMScheduler"}
EULER_XL = PNDM | {
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
EULER_XL_TURBO = without(EULER_XL, "use_karras_sigmas") | {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "timestep_spacing": "trailing",
}
DPM = {  # of PixArt: DDPM's linear betas
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "solver_order": 2,
    "thresholding": False,
    "trained_betas": None,
}
FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
FLOW_FLUX = FLOW | {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "use_dynamic_shifting": True,
}


# repository: its components that are read
RUN = {
    "CompVis/stable-diffusion-v1-4": {
        "unet": UNET_1,
        "vae": without(VAE, "norm_num_groups") | {"scaling_factor": 0.18215},
        "text_encoder": without(TEXT_1, "projection_dim")
        | {"transformers_version": "4.21.0.dev0"},
        "scheduler": PNDM,
    },
    "runwayml/stable-diffusion-v1-5": {
        "unet": UNET_1,
        "vae": VAE,
        "text_encoder": TEXT_1,
        "scheduler": PNDM,
    },
    "stabilityai/stable-diffusion-2-base": {
        "unet": UNET_2,
        "vae": VAE,
        "text_encoder": TEXT_2,
        "scheduler": DDIM,
    },
    "stabilityai/stable-diffusion-2": {
        "unet": UNET_2 | {"sample_size": 96},
        "vae": VAE | {"sample_size": 768},
    },
    "stabilityai/stable-diffusion-2-1-base": {
        "unet": UNET_2 | LATER,
        "vae": VAE | {"sample_size": 768},
        "text_encoder": TEXT_2,
        "scheduler": PNDM | {"prediction_type": "epsilon"},
    },
    "stabilityai/stable-diffusion-2-1": {
        "unet": UNET_2 | LATER | {"sample_size": 96, "upcast_attention": True},
        "vae": VAE | {"sample_size": 768},
        "text_encoder": TEXT_2,
        "scheduler": DDIM | {"prediction_type": "v_prediction"},
    },
    "stabilityai/sd-vae-ft-mse": {"vae": VAE | {"sample_size": 256}},
    "stabilityai/sdxl-vae": {"vae": VAE_XL},
    "stabilityai/stable-diffusion-xl-base-1.0": {
        "unet": UNET_XL,
        "vae": VAE_XL | {"force_upcast": True},
        "text_encoder": TEXT_XL,
        "text_encoder_2": TEXT_XL_2,
        "scheduler": EULER_XL,
    },
    "stabilityai/sdxl-turbo": {
        "unet": UNET_XL_TURBO,
        "vae": VAE_XL | {"force_upcast": True},
        "scheduler": EULER_XL_TURBO,
    },
    "stabilityai/stable-diffusion-3-medium-diffusers": {
        "transformer": SD3,
        "vae": VAE_3,
        "text_encoder": TEXT_3,
        "text_encoder_2": TEXT_3_2,
        "text_encoder_3": T5,
        "scheduler": FLOW,
    },
    "stabilityai/stable-diffusion-3.5-medium": {
        "transformer": SD3
        | {
            "dual_attention_layers": [*range(13)],
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
        },
        "vae": VAE_35,
        "text_encoder": TEXT_3,
        "scheduler": FLOW,
    },
    "stabilityai/stable-diffusion-3.5-large": {
        "transformer": SD3_LARGE,
        "vae": VAE_35,
        "text_encoder": TEXT_3,
        "text_encoder_2": TEXT_3_2,
        "text_encoder_3": T5,
        "scheduler": FLOW,
    },
    "black-forest-labs/FLUX.1-dev": {
        "transformer": FLUX,
        "vae": VAE_FLUX,
        "text_encoder": TEXT_FLUX,
        "text_encoder_2": T5_FLUX,
        "scheduler": FLOW_FLUX,
    },
    "black-forest-labs/FLUX.1-schnell": {
        "transformer": FLUX | {"guidance_embeds": False},
        "vae": VAE_FLUX,
        "text_encoder": TEXT_FLUX,
        "text_encoder_2": T5_FLUX,
        "scheduler": FLOW_FLUX | {"shift": 1.0, "use_dynamic_shifting": False},
    },
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": {
        "transformer": PIXART,
        "vae": VAE_XL,
        "scheduler": DPM,
    },
    "PixArt-alpha/PixArt-XL-2-1024-MS": {
        "transformer": PIXART_ALPHA,
        "vae": VAE,
        "scheduler": DPM,
    },
    "facebook/DiT-XL-2-256": {"transformer": DIT},
    "facebook/DiT-XL-2-512": {"transformer": DIT | {"sample_size": 64}},
}
# of these ../shared/real has no files
ELSEWHERE = (
    "stabilityai/sdxl-turbo",
    "stabilityai/stable-diffusion-3.5-medium",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    "PixArt-alpha/PixArt-XL-2-1024-MS",
)
# revisions in the layout of the former Flax classes
_FLAX_1 = {
    "unet": without(
        UNET_1,
        *("act_fn", "center_input_sample", "downsample_padding", "flip_sin_to_cos"),
        *("mid_block_scale_factor", "norm_eps", "norm_num_groups"),
    )
    | {"_class_name": "FlaxUNet2DConditionModel", "dropout": 0.0},
    "vae": VAE | {"_class_name": "FlaxAutoencoderKL", "sample_size": 256},
    "text_encoder": TEXT_1 | {"transformers_version": "4.23.0.dev0"},
    "scheduler": without(PNDM, "clip_sample") | {"_class_name": "FlaxPNDMScheduler"},
}
FLAX = {
    "sd14-flax": {
        "unet": UNET_1,
        "vae": without(VAE, "norm_num_groups"),
        "text_encoder": without(TEXT_1, "projection_dim")
        | {"transformers_version": "4.21.0.dev0"},
        "scheduler": without(PNDM, "set_alpha_to_one", "trained_betas", "clip_sample"),
    },
    "sd15-flax": _FLAX_1,
    "sd15-bf16": _FLAX_1,
    "sd21-bf16": {
        "unet": UNET_2
        | LATER
        | {
            "_class_name": "FlaxUNet2DConditionModel",
            "dropout": 0.0,
            "sample_size": 96,
        },
        "vae": VAE | {"_class_name": "FlaxAutoencoderKL", "sample_size": 768},
        "text_encoder": TEXT_2,
        "scheduler": DDIM
        | {"_class_name": "FlaxDDIMScheduler", "prediction_type": "v_prediction"},
    },
}
RUN |= FLAX
# repository: its pipeline's class, its components, and words of the refusal
REFUSED = {
    "runwayml/stable-diffusion-inpainting": (
        "StableDiffusionInpaintPipeline",
        {
            "unet": UNET_1 | {"in_channels": 9},
            "vae": VAE | {"sample_size": 256},
            "text_encoder": TEXT_1,
            "scheduler": DDIM,
        },
        ("maps 9 channels to 4", "inpainting"),
    ),
    "stabilityai/stable-diffusion-2-inpainting": (
        "StableDiffusionInpaintPipeline",
        {
            "unet": UNET_2 | {"in_channels": 9},
            "vae": VAE,
            "text_encoder": TEXT_2,
            "scheduler": PNDM,
        },
        ("maps 9 channels to 4", "inpainting"),
    ),
    "stabilityai/stable-diffusion-xl-refiner-1.0": (
        "StableDiffusionXLImg2ImgPipeline",
        {
            "unet": UNET_XL_REFINER,
            "vae": VAE_XL | {"force_upcast": True},
            "scheduler": EULER_XL,
        },
        ("StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score"),
    ),
}
