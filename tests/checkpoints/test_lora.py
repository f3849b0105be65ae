"""LoRA, merged at load: the weights are those that diffusers fuses, for each layout.

Names of FLUX's and Stable Diffusion 3's own programs are held against diffusers'
conversions, which have the published sizes in them.
"""

import hashlib
import json
import math

import joint_pipelines
import numpy as np
import original_files
import pipelines
import pytest
import torch
from commands import assert_refused, invoke
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux_lora_to_diffusers,
)
from diffusers.loaders.single_file_utils import (
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from PIL import Image
from safetensors.torch import save_file

from diffjax.checkpoints import mappings
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.lora import Loras, read_lora
from diffjax.checkpoints.networks import empty_network, kind_of
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.errors import DiffjaxError
from diffjax.evaluation.provenance import where_from
from diffjax.models.conditions import floating

RANK = 3
SCALE = 0.7
BOUND = 1e-5  # of a weight's largest number; rounding of float32


def matrices(module, rank=RANK, seed=0):
    """A and B for a linear map or a convolution, large enough to matter."""
    draw = torch.Generator().manual_seed(seed)
    out, inputs, *kernel = module.weight.shape
    down = torch.randn(rank, inputs, *kernel, generator=draw)
    up = torch.randn(out, rank, *(1 for _ in kernel), generator=draw)
    return down / math.sqrt(down[0].numel()), up / math.sqrt(rank)


def changed(network, only=""):
    """Modules that can have a LoRA, by their names."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        and all(part in name for part in only.split())
    }


def peft_file(networks, *, names=("lora_A", "lora_B")):
    """As diffusers saves: PREFIX.MODULE.lora_A.weight."""
    found = {}
    for prefix, network in networks.items():
        for i, (name, module) in enumerate(changed(network).items()):
            down, up = matrices(module, seed=i)
            found[f"{prefix}.{name}.{names[0]}.weight"] = down
            found[f"{prefix}.{name}.{names[1]}.weight"] = up
    return found


def kohya_file(networks, rename=lambda prefix, name: name, *, only=""):
    """As kohya's scripts save: PREFIX_MODULE.lora_down.weight, and alpha.

    Convolutions have an alpha of their own, as there; diffusers 0.42 loses others.
    """
    found = {}
    for prefix, network in networks.items():
        for i, (name, module) in enumerate(changed(network, only).items()):
            name = rename(prefix, name)
            key = f"{prefix}_{name.replace('.', '_')}"
            down, up = matrices(module, rank=2 + i % 3, seed=i)
            found[f"{key}.lora_down.weight"] = down
            found[f"{key}.lora_up.weight"] = up
            found[f"{key}.alpha"] = torch.tensor(1.0 + (down.ndim == 2))
    return found


def with_prefix(name):
    """transformers 5 has no text_model. before its names; files have it."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


def fused(pipeline, path, tmp_path, names):
    """Weights of networks as diffusers fuses them: what its folder holds, by us."""
    pytest.importorskip("peft", reason="diffusers fuses LoRA by peft")
    pipeline.load_lora_weights(path)
    pipeline.fuse_lora(lora_scale=SCALE, components=names)
    pipeline.unload_lora_weights()
    pipeline.save_pretrained(tmp_path / "fused")
    return load_model(tmp_path / "fused")


def assert_close(ours, theirs, plain, names):
    """Every weight, of each network; and each of them has changed somewhere."""
    ours, theirs, plain = (model.networks() for model in (ours, theirs, plain))
    for name in names:
        moved = 0
        triples = zip(
            ours[name].leaves(),
            theirs[name].leaves(),
            plain[name].leaves(),
            strict=True,
        )
        for (path, a), (_, b), (_, before) in triples:
            assert np.abs(a - b).max() <= BOUND * np.abs(b).max(), (name, path)
            moved += np.abs(a - before).max() > 1e-3
        assert moved > 10, name


def sd_cases(pipeline):
    unet, text = pipeline.unet, pipeline.text_encoder
    text_names = {f"text_encoder.{with_prefix('x')[:-1]}"[:-1]: text}
    new = peft_file({"unet": unet, **text_names})
    yield "peft", new
    kohya = kohya_file(
        {"lora_unet": unet, "lora_te": text},
        lambda prefix, name: name if "unet" in prefix else with_prefix(name),
    )
    yield "kohya", kohya
    old = {}
    for key, value in new.items():
        if not key.startswith("unet.") or ".attn" not in key:
            continue
        module, half = key.removesuffix(".weight").rsplit(".", 1)
        module = module.replace(".to_out.0", ".to_out")
        head, last = module.rsplit(".", 1)
        half = {"lora_A": "down", "lora_B": "up"}[half]
        old[f"{head}.processor.{last}_lora.{half}.weight"] = value
    yield "processors", old


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "sd"
    return folder, pipelines.stable_diffusion(folder), load_model(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["peft", "kohya", "processors"])
def test_stable_diffusion(sd, tmp_path, layout):
    folder, _, plain = sd
    pipeline = pipelines.stable_diffusion(tmp_path / "sd")
    tensors = dict(sd_cases(pipeline))[layout]
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    both = layout != "processors"
    parts = ["unet", "text_encoder"] if both else ["unet"]
    theirs = fused(pipeline, path, tmp_path, parts)
    ours = load_model(folder, lora=f"{path}:{SCALE}")
    names = ["denoiser", "text_encoder"] if both else ["denoiser"]
    assert_close(ours, theirs, plain, names)
    assert ours.weights != plain.weights
    if layout == "peft":
        latents = pipelines.normal(1, 8, 8, 4)
        condition = ours.conditioner.encode(["the cat"])[0]
        condition_theirs = theirs.conditioner.encode(["the cat"])[0]
        found, expected = (
            pipelines.denoise(model.denoiser, latents, np.int32([500]), each)
            for model, each in ((ours, condition), (theirs, condition_theirs))
        )
        assert pipelines.error(found, np.asarray(expected)) < 1e-4
        assert len(floating(condition)) == 1


@pytest.mark.filterwarnings("ignore")
def test_stable_diffusion_xl_as_the_original_program_names_it(tmp_path):
    folder = tmp_path / "xl"
    pipeline = pipelines.stable_diffusion_xl(folder)
    weights = pipeline.unet.state_dict()
    table = {
        key: original.removesuffix(".weight")
        for key, original in zip(
            weights,
            original_files.renamed(
                "unet", pipeline.unet.config, {key: key for key in weights}
            ),
            strict=True,
        )
    }

    def rename(prefix, name):
        return table[f"{name}.weight"] if "unet" in prefix else with_prefix(name)

    path = tmp_path / "lora.safetensors"
    tensors = kohya_file({"lora_unet": pipeline.unet}, rename)
    # diffusers has no text_projection in kohya's
    for prefix, encoder in (
        ("lora_te1", pipeline.text_encoder),
        ("lora_te2", pipeline.text_encoder_2),
    ):
        tensors |= kohya_file({prefix: encoder}, rename, only="layers")
    save_file(tensors, path)
    plain = load_model(folder)
    names = ["text_encoder", "text_encoder_2"]
    theirs = fused(pipeline, path, tmp_path, ["unet", *names])
    ours = load_model(folder, lora=[f"{path}:{SCALE}"])
    assert_close(ours, theirs, plain, ["denoiser", *names])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_transformers(tmp_path, family):
    folder = tmp_path / family
    if family == "sd3":
        pipeline = joint_pipelines.stable_diffusion_3(folder)
    else:
        pipeline = joint_pipelines.flux(folder, guided=True)
    path = tmp_path / "lora.safetensors"
    save_file(peft_file({"transformer": pipeline.transformer}), path)
    plain = load_model(folder)
    theirs = fused(pipeline, path, tmp_path, ["transformer"])
    assert_close(
        load_model(folder, lora=f"{path}:{SCALE}"), theirs, plain, ["denoiser"]
    )


def random_lora(path, shapes, style="kohya"):
    """A file of these modules, and scale · B A of each."""
    tensors, deltas = {}, {}
    for i, (name, (out, inputs)) in enumerate(shapes.items()):
        draw = torch.Generator().manual_seed(i)
        down = torch.randn(2, inputs, generator=draw)
        up = torch.randn(out, 2, generator=draw)
        if style == "kohya":
            key = f"lora_unet_{name.replace('.', '_')}"
            names = ("lora_down", "lora_up")
            tensors[f"{key}.alpha"] = torch.tensor(2.0)
        else:
            key, names = f"diffusion_model.{name}", ("lora_A", "lora_B")
        tensors[f"{key}.{names[0]}.weight"] = down
        tensors[f"{key}.{names[1]}.weight"] = up
        deltas[name] = up @ down
    save_file(tensors, path)
    return tensors, deltas


def changes_of(path, cls, config):
    kind = kind_of("transformer", cls)
    parsed = kind.config.from_dict(config, cls)
    loras = Loras([path])
    state = empty_network(parsed)[1]
    found = loras.claim("transformer", parsed, kind.names, state)
    loras.check("the model")
    return found.of


def test_flux_as_kohya_names_it(tmp_path):
    """Of the published widths; the names in published files of kohya's."""
    d = 3072
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    double = {"attn_proj": (d, d), "attn_qkv": (3 * d, d), "mlp_0": (4 * d, d)}
    double |= {"mlp_2": (d, 4 * d), "mod_lin": (6 * d, d)}
    shapes = {
        f"double_blocks_0_{stream}_{name}": shape
        for stream in ("img", "txt")
        for name, shape in double.items()
    }
    shapes |= {
        "single_blocks_0_linear1": (7 * d, d),
        "single_blocks_0_linear2": (d, 5 * d),
        "single_blocks_0_modulation_lin": (3 * d, d),
        "img_in": (d, 64),
        "txt_in": (d, 4096),
        "time_in_in_layer": (d, 256),
        "vector_in_out_layer": (d, d),
        "guidance_in_out_layer": (d, d),
    }
    tensors, _ = random_lora(tmp_path / "kohya.safetensors", shapes)
    converted = _convert_kohya_flux_lora_to_diffusers(dict(tensors))
    converted = {
        key if key.startswith("transformer.") else f"transformer.{key}": tensor
        for key, tensor in converted.items()
    }
    save_file(
        {key: tensor.contiguous().clone() for key, tensor in converted.items()},
        tmp_path / "diffusers.safetensors",
    )
    ours, theirs = (
        changes_of(tmp_path / f"{name}.safetensors", "FluxTransformer2DModel", config)
        for name in ("kohya", "diffusers")
    )
    assert ours.keys() == theirs.keys() and len(ours) == 25
    for path, [change] in ours.items():
        [other] = theirs[path]
        a, b = (c.scale * (c.up[::97] @ c.down[:, ::53]) for c in (change, other))
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_stable_diffusion_3_as_its_own_program_names_it(tmp_path):
    """Each change is where diffusers puts the weight of that name."""
    config = joint_pipelines.SD3 | {"dual_attention_layers": [0]}
    d, last = 32, 1
    shapes = {"x_embedder.proj": (d, 16), "context_embedder": (d, 64)}
    shapes |= {"t_embedder.mlp.0": (d, 256), "t_embedder.mlp.2": (d, d)}
    shapes |= {"y_embedder.mlp.0": (d, 32), "y_embedder.mlp.2": (d, d)}
    shapes |= {"final_layer.linear": (16, d)}
    one = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d)}
    one |= {"mlp.fc2": (d, 4 * d), "adaLN_modulation.1": (6 * d, d)}
    for i in range(2):
        for name, shape in one.items():
            shapes[f"joint_blocks.{i}.x_block.{name}"] = shape
            if i != last or name == "attn.qkv":
                shapes[f"joint_blocks.{i}.context_block.{name}"] = shape
    shapes["joint_blocks.0.x_block.attn2.qkv"] = (3 * d, d)
    shapes["joint_blocks.0.x_block.attn2.proj"] = (d, d)
    shapes["joint_blocks.0.x_block.adaLN_modulation.1"] = (9 * d, d)
    path = tmp_path / "lora.safetensors"
    _, deltas = random_lora(path, shapes, style="dots")
    whole = {f"{name}.weight": delta for name, delta in deltas.items()}
    whole |= {f"{name}.bias": torch.zeros(len(delta)) for name, delta in deltas.items()}
    for name in (f"joint_blocks.{last}.context_block", "final_layer"):
        for leaf, shape in (("weight", (2 * d, d)), ("bias", (2 * d,))):
            whole[f"{name}.adaLN_modulation.1.{leaf}"] = torch.zeros(shape)
    converted = convert_sd3_transformer_checkpoint_to_diffusers(
        whole | {"pos_embed": torch.zeros(1, 36, d)}
    )
    expected = {
        key: tensor.flatten(1)
        for key, tensor in converted.items()
        if key.endswith("weight") and tensor.abs().max() > 0
    }
    names = kind_of("transformer", "SD3Transformer2DModel").names
    found = {
        mappings.torch_names(place, names, 2)[0]: change()
        for place, [change] in changes_of(path, "SD3Transformer2DModel", config).items()
    }
    assert found.keys() == expected.keys()
    for key, delta in found.items():
        np.testing.assert_allclose(delta, expected[key], atol=1e-5)


def test_alpha_is_said_in_several_places(sd, tmp_path):
    """By module, by peft's patterns, by its config; else it is the rank."""
    pipeline = sd[1]
    tensors = peft_file({"unet": pipeline.unet})
    told = {
        "unet.lora_alpha": 6,
        "unet.alpha_pattern": {"attn1.to_q": 9, "conv1": 1},
        "unet.use_rslora": False,
    }
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(told)})
    scales = {
        module: pair.scale for (_, module), pair in read_lora(f"{path}:2").pairs.items()
    }
    assert {2 * a / RANK for a in (6, 9, 1)} == set(scales.values())
    assert all((s == 6) == name.endswith("attn1.to_q") for name, s in scales.items())
    (tmp_path / "peft").mkdir()
    moved = {
        f"base_model.model.{k.removeprefix('unet.')}": v for k, v in tensors.items()
    }
    save_file(moved, tmp_path / "peft" / "adapter_model.safetensors")
    config = {"lora_alpha": 12, "use_rslora": True}
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(config))
    pairs = read_lora(tmp_path / "peft").pairs
    assert {pair.scale for pair in pairs.values()} == {12 / math.sqrt(RANK)}
    kohya = kohya_file({"lora_unet": pipeline.unet})
    save_file(kohya, path)
    for (_, module), pair in read_lora(path).pairs.items():
        alpha = kohya[f"lora_unet_{module}.alpha"]
        assert pair.scale == alpha / pair.down.shape[0]


def test_a_model_with_a_lora_is_another_model(sd, tmp_path):
    """In a run's header, and for prompts that are kept."""
    folder, pipeline, plain = sd
    path = tmp_path / "a.safetensors"
    text = {"text_encoder.text_model": pipeline.text_encoder}
    save_file(peft_file(text), path)
    cache = tmp_path / "cache"
    found = {}
    for lora in (f"{path}:0.5", path, None, path):
        model = load_model(folder, lora=lora, prompt_cache=cache)
        states = model.conditioner.encode(["the cat"])[0].states
        found.setdefault(lora, []).append((model.weights, np.asarray(states)))
    assert found[None][0][0] == plain.weights
    assert len({each[0][0] for each in found.values()}) == 3
    (first, kept), (again, read) = found[path]
    assert first == again
    np.testing.assert_array_equal(kept, read)
    assert np.abs(kept - found[None][0][1]).max() > 0.01
    model = load_model(folder, lora=[path, f"{path}:0.5"])  # they add up
    twice = load_model(folder, lora=f"{path}:1.5")
    assert_close(model, twice, plain, ["text_encoder"])
    header = where_from(DiffusionClassifier(model), "")["model"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert header["lora"] == [
        {"file": str(path), "sha256": digest, "scale": scale} for scale in (1.0, 0.5)
    ]
    assert "lora" not in plain.origin


def broken(tensors, kind):
    key = next(iter(tensors))
    if kind == "half":
        return {k: v for k, v in tensors.items() if k != key}
    if kind == "shapes":
        return tensors | {key: torch.zeros(RANK + 1, 5)}
    if kind == "alpha":
        module = key.removesuffix(".lora_A.weight")
        return tensors | {f"{module}.alpha": torch.tensor(math.nan)}
    if kind == "other model":
        return {
            k: torch.cat([v, v], dim=1) if "lora_A" in k else v
            for k, v in tensors.items()
        }
    more = {
        "foreign": "unet.conv_in.weight",
        "elsewhere": "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
        "a LoHa": "lora_unet_conv_in.hada_w1_a",
        "a LoKr": "lora_unet_conv_in.lokr_w1",
        "a DoRA": "lora_unet_conv_in.dora_scale",
        "Tucker": "lora_unet_conv_in.lora_mid.weight",
        "differences": "lora_unet_conv_in.diff",
        "biases": "unet.conv_in.lora_B.bias",
    }[kind]
    also = {}
    if kind == "elsewhere":
        also = {more.replace("lora_A", "lora_B"): torch.zeros(3, RANK)}
    return tensors | {more: torch.zeros(RANK, 3)} | also


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("half", ["is incomplete", "lacks the first"]),
        ("shapes", ["do not go together"]),
        ("alpha", ["alpha", "not a number"]),
        ("other model", ["does not fit the model", "another model"]),
        ("foreign", ["is no LoRA", "unet.conv_in.weight"]),
        ("elsewhere", ["which lacks 1 of the", "text_encoder_2", "another family"]),
        *((kind, [kind, "not supported"]) for kind in ("a LoHa", "a LoKr", "a DoRA")),
        *((kind, [kind]) for kind in ("Tucker", "differences", "biases")),
    ],
)
def test_what_does_not_fit(sd, tmp_path, kind, words):
    path = tmp_path / "a.safetensors"
    tensors = broken(peft_file({"unet": sd[1].unet}), kind)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    with pytest.raises(DiffjaxError) as caught:
        load_model(sd[0], lora=path)
    for word in (str(path), *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ("absent.safetensors", "There is no LoRA"),
        ("absent.safetensors:0.5", "There is no LoRA absent.safetensors"),
        ("a.safetensors:nan", "must be a number"),
        ("a.safetensors:x", "There is no LoRA"),
        ("damaged.safetensors", "is damaged or incomplete"),
        ("empty", "has no LoRA"),
        ("unet.safetensors", "is no LoRA"),
    ],
)
def test_files_that_are_none(sd, tmp_path, monkeypatch, lora, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.safetensors").write_bytes(b"x" * 99)
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "unet.safetensors")
    save_file({"a.lora_A.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    Image.new("RGB", (32, 32)).save("a.png")
    result = invoke("classify", "a.png", "--labels", "a,b", "--lora", lora)
    assert_refused(result, words)


@pytest.mark.parametrize("lora", [3, [3], {"a": 1.0}])
def test_what_names_no_file(sd, lora):
    with pytest.raises(DiffjaxError, match="neither the name of a file"):
        load_model(sd[0], lora=lora)
