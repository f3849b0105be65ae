"""Small Stable Diffusions in one file, as CompVis and Stability AI save them.

Names of U-Net and autoencoder are those of our own tables, which the tests have
diffusers read; what open_clip does differently is written out here.
"""

import torch
from flax import nnx
from safetensors.torch import save_file

from diffjax.checkpoints import original_sd
from diffjax.checkpoints.mappings import torch_names
from diffjax.checkpoints.networks import empty_network, kind_of

SCHEDULE = ("betas", "alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "lvlb_weights")


def renamed(component, config, tensors):
    """A torch network's tensors under the original programs' names."""
    kind = kind_of(component)
    parsed = kind.config.from_dict(dict(config), component)
    names = {
        "unet": original_sd.unet_names,
        "vae": original_sd.autoencoder_names,
    }[component](parsed)
    table = {
        theirs: original
        for path, _ in nnx.to_flat_state(empty_network(parsed)[1])
        for theirs, original in zip(
            torch_names(path, kind.names, 0), torch_names(path, names, 0), strict=True
        )
    }
    assert len(set(table.values())) == len(table) == len(tensors)
    return {table[key]: tensor for key, tensor in tensors.items()}


def open_clip(encoder, *, more_layers=0):
    """A text encoder of transformers under open_clip's names."""
    tensors = {
        k.removeprefix("text_model."): v for k, v in encoder.state_dict().items()
    }
    d = encoder.config.hidden_size
    found = {
        "positional_embedding": tensors["embeddings.position_embedding.weight"],
        "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
        "ln_final.weight": tensors["final_layer_norm.weight"],
        "ln_final.bias": tensors["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in tensors:
        found["text_projection"] = tensors["text_projection.weight"].T
    else:
        found["text_projection"] = torch.randn(d, d)
    n = encoder.config.num_hidden_layers
    for i in range(n + more_layers):
        ours, theirs = f"encoder.layers.{min(i, n - 1)}", f"transformer.resblocks.{i}"
        for leaf in ("weight", "bias"):
            found[f"{theirs}.attn.in_proj_{leaf}"] = torch.cat(
                [tensors[f"{ours}.self_attn.{x}_proj.{leaf}"] for x in "qkv"]
            )
            for new, old in (
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("attn.out_proj", "self_attn.out_proj"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                found[f"{theirs}.{new}.{leaf}"] = tensors[f"{ours}.{old}.{leaf}"]
    return found


def tensors_of(pipeline, kind, *, averaged=None):
    """All tensors of a file.

    Args:
        pipeline: diffusers' own.
        kind: "sd-1", "sd-2" or "sdxl".
        averaged: a U-Net whose weights are the averaged ones, besides.
    """
    unet = renamed("unet", pipeline.unet.config, pipeline.unet.state_dict())
    vae = renamed("vae", pipeline.vae.config, pipeline.vae.state_dict())
    for key in vae:  # as the original programs store the maps of attention
        if ".attn_1." in key and vae[key].ndim == 2:
            vae[key] = vae[key][:, :, None, None]
    first = {
        f"transformer.text_model.{key.removeprefix('text_model.')}": value
        for key, value in pipeline.text_encoder.state_dict().items()
    }
    ids = torch.arange(pipeline.text_encoder.config.max_position_embeddings)[None]
    first["transformer.text_model.embeddings.position_ids"] = ids
    parts = {"model.diffusion_model": unet, "first_stage_model": vae}
    if kind == "sdxl":
        parts["conditioner.embedders.0"] = first
        parts["conditioner.embedders.1.model"] = open_clip(pipeline.text_encoder_2)
    elif kind == "sd-2":
        layers = open_clip(pipeline.text_encoder, more_layers=1)
        parts["cond_stage_model.model"] = layers
    else:
        parts["cond_stage_model"] = first
    found = {
        f"{prefix}.{key}": tensor
        for prefix, tensors in parts.items()
        for key, tensor in tensors.items()
    }
    found |= {name: torch.ones(1000) for name in SCHEDULE}
    if averaged is not None:
        for key, tensor in renamed(
            "unet", averaged.config, averaged.state_dict()
        ).items():
            found[f"model_ema.diffusion_model{key.replace('.', '')}"] = tensor
        found["model_ema.decay"] = torch.tensor(0.9999)
        found["model_ema.num_updates"] = torch.tensor(470000)
    return found


def save(path, tensors):
    """Write a file, by its suffix."""
    tensors = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "global_step": 470000}, path)
    return path
