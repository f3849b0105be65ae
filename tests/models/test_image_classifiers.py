"""ViT and ResNet against transformers' own, by files that these save."""

import re

import jax
import pytest
import torch
from pipelines import error, normal, quick_jit, to_torch
from safetensors.torch import save_file
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.convnext.image_processing_pil_convnext import (
    ConvNextImageProcessorPil,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from diffjax.checkpoints.image_classifiers import load_image_classifier

BOUND = 1e-4
VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 34,
    "patch_size": 8,
}
RESNET = {"embedding_size": 6, "hidden_sizes": [8, 12, 16], "depths": [2, 1, 3]}
CASES = {
    "vit": ("vit", VIT),
    "no bias": ("vit", VIT | {"qkv_bias": False, "hidden_act": "quick_gelu"}),
    "resnet": ("resnet", RESNET),
    "basic": ("resnet", RESNET | {"layer_type": "basic"}),
    "v1": (
        "resnet",
        RESNET | {"downsample_in_bottleneck": True, "downsample_in_first_stage": True},
    ),
}


def drawn(module, seed=0):
    """With random numbers in every tensor that is read, running statistics too."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.dtype.is_floating_point:
                tensor += torch.randn(tensor.shape, generator=draw) / 5
                if key.endswith("running_var"):
                    tensor.copy_(tensor.abs() + 0.5)
    return module.eval()


def module_of(kind, numbers):
    if kind == "vit":
        return drawn(ViTForImageClassification(ViTConfig(num_labels=7, **numbers)))
    return drawn(ResNetForImageClassification(ResNetConfig(num_labels=7, **numbers)))


def save(module, folder):
    module.save_pretrained(folder)
    edge = getattr(module.config, "image_size", 33)
    if isinstance(module, ViTForImageClassification):
        ViTImageProcessorPil(size=edge).save_pretrained(folder)
    else:
        ConvNextImageProcessorPil(size=edge).save_pretrained(folder)
    return folder


@quick_jit
def logits(network, pixels):
    return jax.vmap(network.module())(pixels)


@pytest.mark.parametrize("name", CASES)
def test_logits(tmp_path, name):
    kind, numbers = CASES[name]
    module = module_of(kind, numbers)
    found = load_image_classifier(save(module, tmp_path))
    edge = found.processing.resolution
    assert edge == (34 if kind == "vit" else 33) and len(found.class_names) == 7
    pixels = normal(3, edge, edge, 3)
    with torch.no_grad():
        answer = module(to_torch(pixels)).logits.numpy()
    assert error(logits(found.network, pixels), answer) < BOUND
    if name not in ("vit", "v1"):
        return
    # a tensor that is another is noticed, whichever, but for the biases of keys
    state = module.state_dict()
    keys = [k for k, t in state.items() if t.dtype.is_floating_point]
    for key in keys[:: max(1, len(keys) // 14)]:
        changed = dict(state)
        ramp = torch.linspace(0.3, 1.3, state[key].numel()).reshape(state[key].shape)
        changed[key] = state[key] + ramp
        save_file(
            {k: t.contiguous() for k, t in changed.items()},
            tmp_path / "model.safetensors",
        )
        other = logits(load_image_classifier(tmp_path).network, pixels)
        noticed = error(other, answer) > BOUND
        assert noticed or re.search(r"k_proj\.bias", key), key


def with_names_of_torchvision(state):
    """transformers' tensors of a ViT, as torchvision names and fuses them."""
    state = {k: t for k, t in state.items() if not re.search(r"\.[qkv]_proj\.", k)} | {
        f"vit.layers.{i}.self_attention.in_proj_{leaf}": torch.cat(
            [state[f"vit.layers.{i}.attention.{p}_proj.{leaf}"] for p in "qkv"]
        )
        for i in range(VIT["num_hidden_layers"])
        for leaf in ("weight", "bias")
    }
    for ours, theirs in {
        r"^vit\.embeddings\.cls_token": "class_token",
        r"^vit\.embeddings\.position_embeddings": "encoder.pos_embedding",
        r"^vit\.embeddings\.patch_embeddings\.projection": "conv_proj",
        r"^vit\.layers\.(\d+)": r"encoder.layers.encoder_layer_\1",
        r"attention\.o_proj": "self_attention.out_proj",
        "layernorm_before": "ln_1",
        "layernorm_after": "ln_2",
        r"mlp\.fc1": "mlp.linear_1",
        r"mlp\.fc2": "mlp.linear_2",
        r"^vit\.layernorm": "encoder.ln",
        "^classifier": "heads.head",
    }.items():
        state = {re.sub(ours, theirs, key): tensor for key, tensor in state.items()}
    return state


def with_names_of_a_torchvision_resnet(state):
    state = dict(state)
    for ours, theirs in {
        r"^resnet\.embedder\.embedder\.convolution": "conv1",
        r"^resnet\.embedder\.embedder\.normalization": "bn1",
        r"^resnet\.encoder\.stages\.(\d+)\.layers": lambda m: f"layer{int(m[1]) + 1}",
        r"shortcut\.convolution": "downsample.0",
        r"shortcut\.normalization": "downsample.1",
        r"\blayer\.(\d)\.convolution": lambda m: f"conv{int(m[1]) + 1}",
        r"\blayer\.(\d)\.normalization": lambda m: f"bn{int(m[1]) + 1}",
        r"^classifier\.1": "fc",
    }.items():
        state = {re.sub(ours, theirs, key): tensor for key, tensor in state.items()}
    return state


@pytest.mark.parametrize("name", ["vit", "resnet", "basic"])
def test_the_same_in_a_file_of_torchvision(tmp_path, name):
    """The names of real files are those of the golden lists: ``test_keys``."""
    kind, numbers = CASES[name]
    if kind == "vit":  # 64 features a head, as torchvision's, and its ε
        numbers = {**numbers, "hidden_size": 128, "num_attention_heads": 2}
        numbers |= {"layer_norm_eps": 1e-6, "image_size": 40}
    module = module_of(kind, numbers)
    rename = with_names_of_torchvision
    if kind == "resnet":
        rename = with_names_of_a_torchvision_resnet
    torch.save(rename(module.state_dict()), tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match="not called as torchvision's published files"):
        found = load_image_classifier(tmp_path / "mine.pth")
    edge = found.processing.resolution
    assert edge == (40 if kind == "vit" else 224)
    pixels = normal(2, 40, 40, 3)
    with torch.no_grad():
        answer = module(to_torch(pixels)).logits.numpy()
    assert error(logits(found.network, pixels), answer) < BOUND
