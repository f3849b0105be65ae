"""Whole checkpoints in every format, put together from parts, and damaged."""

import gc
import re
import shutil
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
import torch
from flax.serialization import msgpack_serialize
from pipelines import decode, denoise, edit_json, encode_text, normal
from safetensors.numpy import load_file, save_file

from diffjax.checkpoints import formats, loading, mappings
from diffjax.checkpoints.loading import COMPONENTS, load_model, load_network
from diffjax.errors import DiffjaxError

STEMS = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    return folder, pipelines.stable_diffusion(folder)


@pytest.fixture
def sd(stable_diffusion, tmp_path):
    """A copy of a Stable Diffusion's folder, to be changed."""
    return shutil.copytree(stable_diffusion[0], tmp_path / "sd")


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dit")
    pipelines.dit_pipeline(folder)
    return folder


@pytest.fixture
def dit(dit_folder, tmp_path):
    return shutil.copytree(dit_folder, tmp_path / "dit")


def outputs(model):
    """What a model makes of fixed inputs: a prediction, an image, text states."""
    condition = normal(1, 5, pipelines.TEXT["hidden_size"])
    latents = normal(1, 8, 8, 4)
    return (
        denoise(model.denoiser, latents, np.int32([500]), condition),
        model.latent(normal(16, 16, 3)),
        decode(model.autoencoder, latents),
        encode_text(model.text_encoder, model.tokenize(["the cat"]).ids),
    )


@pytest.fixture(scope="module")
def expected(stable_diffusion):
    return outputs(load_model(stable_diffusion[0]))


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Formats. Our weights are float16 numbers, so a file of halves holds the same model.


def write_flax(folder, stem, tensors):
    """By Flax's names and layouts: dense [in, out], convolution [h, w, in, out]."""
    tree = {}
    for key, value in tensors.items():
        *modules, leaf = key.split(".")
        if stem == "diffusion_pytorch_model":  # diffusers joins lists, a_0; not a/0
            modules = re.sub(r"\.(\d+)", r"_\1", ".".join(modules)).split(".")
        if leaf == "weight":
            table = modules[-1] in ("token_embedding", "position_embedding")
            leaf = "embedding" if table else "scale" if value.ndim == 1 else "kernel"
        if leaf == "kernel":
            value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
        level = tree
        for module in modules:
            level = level.setdefault(module, {})
        level[leaf] = np.ascontiguousarray(value)
    name = {"diffusion_pytorch_model": "diffusion_flax_model", "model": "flax_model"}
    (folder / f"{name[stem]}.msgpack").write_bytes(msgpack_serialize(tree))


def write_bin(folder, stem, tensors):
    name = {"model": "pytorch_model"}.get(stem, stem)
    state = {key: torch.from_numpy(value) for key, value in tensors.items()}
    torch.save(state, folder / f"{name}.bin")


def write_half(folder, stem, tensors):
    halves = {key: value.astype(np.float16) for key, value in tensors.items()}
    save_file(halves, folder / f"{stem}.fp16.safetensors")


def rewrite(folder, write):
    """Put the weights of a pipeline's folder into another format."""
    for part, stem in STEMS.items():
        file = folder / part / f"{stem}.safetensors"
        if file.exists():
            tensors = load_file(file)
            file.unlink()
            write(folder / part, stem, tensors)


@pytest.mark.parametrize("write", [write_flax, write_bin, write_half])
def test_formats(sd, expected, write):
    rewrite(sd, write)
    assert not list(sd.glob("*/*model.safetensors"))
    assert_same(outputs(load_model(sd)), expected)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards(stable_diffusion, expected, tmp_path, variant):
    _, pipeline = stable_diffusion
    if variant == "fp16":  # diffusers saves in the dtype of the module
        pipeline = pipelines.stable_diffusion(tmp_path / "whole")
        for part in ("unet", "vae", "text_encoder"):
            getattr(pipeline, part).half()
    pipeline.save_pretrained(
        tmp_path / "shards", max_shard_size="40KB", variant=variant
    )
    shards = list((tmp_path / "shards" / "unet").glob("*.safetensors"))
    assert len(shards) > 1 and all(variant in f.name for f in shards if variant)
    assert_same(outputs(load_model(tmp_path / "shards")), expected)


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("write", [None, write_flax])
def test_old_autoencoder_attention(sd, expected, convolutions, write):
    """As saved before diffusers 0.16, or as 1×1 convolutions before that."""
    file = sd / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {}
    for key, value in load_file(file).items():
        for new, old in OLD_NAMES.items():
            if f".{new}." in key:
                key = key.replace(f".{new}.", f".{old}.")
                if convolutions and value.ndim == 2:
                    value = value[:, :, None, None]
        tensors[key] = value
    assert sum("proj_attn" in key for key in tensors) == 4
    save_file(tensors, file)
    if write:
        rewrite(sd, write)
    assert_same(outputs(load_model(sd)), expected)


def test_text_encoder_as_saved_before_transformers_5(sd, expected):
    """With a prefix, a buffer of positions and, in some, the pooled projection."""
    file = sd / "text_encoder" / "model.safetensors"
    tensors = {
        f"text_model.{key.removeprefix('text_model.')}": value
        for key, value in load_file(file).items()
    }
    positions = np.arange(pipelines.LENGTH)[None]
    tensors["text_model.embeddings.position_ids"] = positions
    tensors["text_projection.weight"] = np.eye(24, dtype=np.float32)
    save_file(tensors, file)
    edit_json(
        sd / "text_encoder" / "config.json",
        architectures=["CLIPTextModelWithProjection"],
    )
    assert_same(outputs(load_model(sd)), expected)


def test_one_compilation_for_all_weights(stable_diffusion, sd):
    """Models of one configuration have equal structures, whatever their weights."""
    first, second = load_model(stable_diffusion[0]), load_model(sd)
    for part in ("denoiser", "autoencoder", "text_encoder"):
        ours, theirs = getattr(first, part), getattr(second, part)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        assert hash(ours.graphdef) == hash(theirs.graphdef)


# Parts from elsewhere.


@pytest.mark.parametrize("form", ["component", "pipeline"])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_part_from_elsewhere(stable_diffusion, expected, tmp_path, part, form):
    """A fine-tuned part beside a stock pipeline: only its own outputs change."""
    module = pipelines.randomise(getattr(pipelines, part)(), seed=99)
    place = tmp_path / "tuned"
    module.save_pretrained(place / part if form == "pipeline" else place)
    found = outputs(load_model(stable_diffusion[0], **{part: place}))
    changed = [not np.array_equal(a, b) for a, b in zip(found, expected, strict=True)]
    assert (
        changed
        == {
            "unet": [True, False, False, False],
            "vae": [False, True, True, False],
            "text_encoder": [False, False, False, True],
        }[part]
    )


def test_transformer_from_elsewhere(dit_folder, tmp_path):
    pipelines.dit(num_layers=1).save_pretrained(tmp_path)
    tuned = load_model(dit_folder, transformer=tmp_path)
    assert tuned.denoiser.parameters < load_model(dit_folder).denoiser.parameters


def test_parts_that_do_not_apply(stable_diffusion, dit_folder):
    folder = stable_diffusion[0]
    with pytest.raises(DiffjaxError, match="no transformer to replace"):
        load_model(folder, transformer=dit_folder)
    for part in ("unet", "text_encoder"):
        with pytest.raises(DiffjaxError, match=f"no {part} to replace"):
            load_model(dit_folder, **{part: folder})


# Damaged or foreign checkpoints: one message that says what and where.


def refused(match, folder, **parts):
    with pytest.raises(DiffjaxError, match=match) as caught:
        load_model(folder, **parts)
    return str(caught.value)


def edit_tensors(folder, part, change):
    file = folder / part / f"{STEMS[part]}.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_one_error_lists_all_wrong_tensors(sd, part):
    names = {}

    def change(tensors):
        keys = sorted(key for key in tensors if tensors[key].ndim == 2)
        names["lost"], names["turned"], *_ = keys
        del tensors[names["lost"]]
        tensors[names["turned"]] = tensors[names["turned"]][:, :-1].copy()
        tensors["lora.up.weight"] = np.zeros((2, 2), np.float32)
        tensors["lora.down.weight"] = np.zeros((2, 2), np.float32)

    edit_tensors(sd, part, change)
    message = refused("does not fit its config.json", sd)
    assert str(sd / part) in message
    assert re.search(rf"missing \(1\):\s+(text_model\.)?{names['lost']}\n", message)
    assert "unexpected (2):\n    lora.down.weight\n    lora.up.weight\n" in message
    assert "of another shape or type (1):" in message
    assert re.search(rf"{names['turned']}: \[\d+, \d+\], expected", message)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.T,  # of a matrix that is not square
        lambda value: value[:1],  # which would broadcast
        lambda value: value[..., None, None].repeat(3, -1).repeat(3, -2),
        lambda value: value[None],
        lambda value: value.astype(np.int32),
    ],
)
def test_misshapen_tensor(sd, change):
    key = "time_embedding.linear_1.weight"

    def edit(tensors):
        tensors[key] = np.ascontiguousarray(change(tensors[key]))

    edit_tensors(sd, "unet", edit)
    message = refused(r"of another shape or type \(1\)", sd)
    assert key in message and "missing" not in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_no_numbers(sd, part, value):
    def spoil(tensors):
        name = sorted(tensors)[-1]
        tensors[name] = np.array(tensors[name])
        tensors[name].flat[-1] = value
        names.append(name)

    names = []
    edit_tensors(sd, part, spoil)
    refused(
        rf"{part}: (text_model\.)?{re.escape(names[0])} holds numbers that are NaN", sd
    )


def test_weights_beyond_half_precision(sd):
    def large(tensors):
        tensors["conv_in.bias"] = np.float32(70_000) + 0 * tensors["conv_in.bias"]

    edit_tensors(sd, "unet", large)
    refused(r"unet: conv_in\.bias .* too large for float16", sd, dtype="float16")
    load_model(sd, dtype="bfloat16")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16, np.float64])
def test_every_number_is_looked_at(dtype):
    array = np.full((3, 70, 11, 1000), 2, dtype).transpose(2, 3, 1, 0)
    assert mappings.all_finite(array) and mappings.all_finite(array[:0])
    for place in (0, 123_456, array.size - 1):
        for value in (np.nan, np.inf, -np.inf):
            spoilt = array.copy()
            spoilt.flat[place] = value
            assert not mappings.all_finite(spoilt)


def test_square_matrix_is_turned(sd, expected):
    """No shape can tell a transposed square matrix, but the numbers do."""
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    edit_tensors(sd, "unet", lambda t: t.update({key: t[key].T.copy()}))
    assert not np.array_equal(outputs(load_model(sd))[0], expected[0])


def test_old_and_present_name_of_one_tensor(sd):
    def change(tensors):
        key = next(key for key in tensors if ".to_q.weight" in key)
        tensors[key.replace("to_q", "query")] = tensors[key]

    edit_tensors(sd, "vae", change)
    refused(r"unexpected \(1\)", sd)


def test_unequal_repeated_embedders(dit):
    key = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias"

    def change(tensors):
        tensors[key][3] += 1

    edit_tensors(dit, "transformer", change)
    message = refused(r"repeated in every block, but not equal \(1\)", dit)
    assert key in message
    edit_tensors(dit, "transformer", lambda tensors: tensors.pop(key))
    assert key in refused(r"missing \(1\)", dit)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("unet", b""),
        ("unet", b"\xff" * 64),
        ("unet", b"{}" * 50),
        ("vae", b"\x10"),
        ("text_encoder", b"{}" * 50),
    ],
    ids=range(5),
)
def test_corrupt_safetensors(sd, part, content):
    file = sd / part / f"{STEMS[part]}.safetensors"
    file.write_bytes(content)
    assert str(file) in refused("damaged or incomplete", sd)


def test_truncated_safetensors(sd):
    file = sd / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert str(file) in refused("damaged or incomplete", sd)


UNSUPPORTED = [
    ("unet", "class_embed_type", "timestep"),
    ("unet", "addition_embed_type", "text_time"),
    ("unet", "dual_cross_attention", True),
    ("unet", "time_cond_proj_dim", 256),
    ("unet", "num_class_embeds", 7),
    ("unet", "encoder_hid_dim", 64),
    ("unet", "only_cross_attention", [True, False]),
    ("unet", "transformer_layers_per_block", [1, 2]),
    ("unet", "resnet_time_scale_shift", "scale_shift"),
    ("unet", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
    ("unet", "center_input_sample", True),
    ("unet", "act_fn", "gelu"),
    ("unet", "a_setting_of_tomorrow", "on"),
    ("vae", "act_fn", "relu"),
    ("vae", "latents_mean", [0.1, 0.2, 0.3, 0.4]),
    ("vae", "shift_factor", 0.1),
    ("text_encoder", "is_decoder", True),
    ("text_encoder", "hidden_act", "tanh"),
]


@pytest.mark.parametrize(("part", "key", "value"), UNSUPPORTED)
def test_unsupported_setting(sd, part, key, value):
    edit_json(sd / part / "config.json", **{key: value})
    message = refused(key, sd)
    assert str(sd / part / "config.json") in message


def test_all_unsupported_settings_at_once(sd):
    unet = {key: value for part, key, value in UNSUPPORTED if part == "unet"}
    edit_json(sd / "unet" / "config.json", **unet)
    message = refused("cannot run this config", sd)
    assert all(key in message for key in unet)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "Lumina2Scheduler"),
        ("_class_name", "FlowMatchEulerDiscreteScheduler"),
        ("prediction_type", "flow"),
        ("beta_schedule", "sigmoid"),
    ],
)
def test_unknown_scheduler(sd, key, value):
    file = sd / "scheduler" / "scheduler_config.json"
    edit_json(file, **{key: value})
    message = refused(value, sd)
    assert str(file) in message


@pytest.mark.parametrize(
    ("part", "key", "value", "match"),
    [
        ("unet", "norm_num_groups", 7, "16 channels do not divide"),
        ("unet", "attention_head_dim", 3, "do not divide into 3 heads"),
        ("unet", "attention_head_dim", [2, 2, 2], "3 entries for 2 blocks"),
        ("unet", "cross_attention_dim", [24, 24], "must be a whole number from 1 to"),
        ("unet", "norm_num_groups", 0, "must be a whole number from 1 to"),
        (
            "unet",
            "block_out_channels",
            "16",
            "must be a list of 1 to 8, each entry a whole number",
        ),
        ("vae", "down_block_types", ["DownEncoderBlock2D"], "1 entries for 2 blocks"),
        ("text_encoder", "num_attention_heads", 5, "do not divide into 5 heads"),
        ("text_encoder", "layer_norm_eps", "small", "must be a number"),
    ],
)
def test_numbers_that_do_not_fit_one_another(sd, part, key, value, match):
    edit_json(sd / part / "config.json", **{key: value})
    assert str(sd / part / "config.json") in refused(match, sd)


def test_unet_of_another_text_encoder(sd, tmp_path):
    pipelines.unet(cross_attention_dim=16).save_pretrained(tmp_path / "other")
    refused("width 16, but the text encoder's have 24", sd, unet=tmp_path / "other")


def test_unet_of_another_autoencoder(sd, tmp_path):
    pipelines.vae(latent_channels=3).save_pretrained(tmp_path / "other")
    refused("latents have 3", sd, vae=tmp_path / "other")


def test_inpainting(sd, tmp_path):
    pipelines.unet(in_channels=9).save_pretrained(tmp_path / "inpainting")
    refused("9 channels to 4.*inpainting", sd, unet=tmp_path / "inpainting")


def test_tokenizer_of_another_text_encoder(sd, tmp_path):
    pipelines.text_encoder(vocab_size=300).save_pretrained(tmp_path / "small")
    refused("the text encoder knows 300", sd, text_encoder=tmp_path / "small")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_missing_part(sd, part):
    shutil.rmtree(sd / part)
    assert str(sd) in refused(part, sd)


def test_missing_or_damaged_tokenizer(sd):
    for file in (sd / "tokenizer").iterdir():
        file.write_text("{")
    refused("tokenizer_config.json is not JSON", sd)
    shutil.rmtree(sd / "tokenizer")
    refused("tokenizer", sd)


@pytest.mark.parametrize("text", ["", "{", "[]"])
@pytest.mark.parametrize(
    "name",
    ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json"],
)
def test_damaged_json(sd, name, text):
    (sd / name).write_text(text)
    assert str(sd / name) in refused("(not JSON|not a JSON object|damaged)", sd)


def test_no_pipeline(sd, tmp_path):
    refused("no model_index.json", sd / "unet")
    refused("has no nowhere", tmp_path / "nowhere" / "at" / "all")
    edit_json(sd / "model_index.json", unet=None, _class_name="StableCascadePipeline")
    refused("StableCascadePipeline that names no unet and no transformer", sd)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("unet", "UNet2DModel"),
        ("unet", "StableCascadeUNet"),
        ("vae", "VQModel"),
        ("vae", "AutoencoderTiny"),
    ],
)
def test_foreign_class(sd, part, name):
    edit_json(sd / part / "config.json", _class_name=name)
    assert name in refused(f"{part} diffjax runs", sd)


def test_foreign_transformer_and_text_encoder(sd, dit):
    edit_json(dit / "transformer" / "config.json", _class_name="SD3Transformer2DModel")
    refused("describes a SD3Transformer2DModel", dit)
    edit_json(sd / "text_encoder" / "config.json", architectures=["T5EncoderModel"])
    refused("describes a T5EncoderModel", sd)


def test_stable_diffusion_xl(sd):
    """Its U-Net takes more than text states, and its config says so."""
    edit_json(
        sd / "unet" / "config.json",
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        transformer_layers_per_block=[1, 2],
    )
    refused("addition_embed_type='text_time' is not implemented", sd)


@pytest.mark.parametrize(
    ("size", "resolution"), [(8, 16), ([8, 8], 16), ([8, 4], None), (None, None)]
)
def test_resolution(sd, size, resolution):
    edit_json(sd / "unet" / "config.json", sample_size=size)
    if resolution:
        assert load_model(sd).resolution == resolution
    else:
        refused("sample_size", sd)


@pytest.mark.parametrize(
    "labels", [{"0": "a"}, {str(i): "a" for i in range(1, 11)}, ["a"] * 10]
)
def test_class_names_that_do_not_fit(dit, labels):
    edit_json(dit / "model_index.json", id2label=labels)
    refused("id2label must name the class ids 0 to 9", dit)


def test_no_class_names(dit):
    edit_json(dit / "model_index.json", id2label=None)
    model = load_model(dit)
    assert model.class_names is None and model.n_classes == 10
    with pytest.raises(DiffjaxError, match="knows classes by id, not by prompt"):
        model.text_states(["a cat"])


# What trainers leave behind.


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_weights_that_diffusers_averaged(sd, part, tmp_path):
    """A folder that its EMAModel saved: averages, and its counters in the config."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.training_utils import EMAModel

    cls = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    module = getattr(pipelines, part)()
    average = EMAModel(
        module.parameters(),
        decay=0.5,
        use_ema_warmup=True,
        model_cls=cls,
        model_config=module.config,
    )
    pipelines.randomise(module, seed=99)  # a step of training
    average.step(module.parameters())
    average.copy_to(module.parameters())
    module.save_pretrained(tmp_path / "copied")
    average.save_pretrained(tmp_path / "averaged")
    config = (tmp_path / "averaged" / "config.json").read_text()
    assert '"optimization_step": 1' in config and '"inv_gamma"' in config
    found = outputs(load_model(sd, **{part: tmp_path / "averaged"}))
    assert_same(found, outputs(load_model(sd, **{part: tmp_path / "copied"})))


BOOKKEEPING = {
    "decay": 0.9999,
    "inv_gamma": 1.0,
    "min_decay": 0.0,
    "optimization_step": 20000,
    "power": 0.75,
    "update_after_step": 0,
    "use_ema_warmup": True,
    "_use_default_values": ["norm_eps"],
    "_name_or_path": "somewhere",
    "torch_dtype": "float16",
    "dtype": "bfloat16",
    "transformers_version": "5.0.0",
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "gradient_checkpointing": True,
}


@pytest.mark.parametrize("part", COMPONENTS)
def test_bookkeeping_in_any_network_s_config(part):
    read = COMPONENTS[part].config.from_dict
    assert read(BOOKKEEPING, "config.json") == read({}, "config.json")


@pytest.mark.parametrize("part", COMPONENTS)
@pytest.mark.parametrize(
    "setting",
    [
        {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}},
        {"auto_map": {"AutoModel": "code.Model"}},
        {"decays": 0.9},
    ],
)
def test_what_may_change_the_weights_is_no_bookkeeping(part, setting):
    (key,) = setting
    with pytest.raises(DiffjaxError, match=rf"config\.json(?s:.)*{key}=") as caught:
        COMPONENTS[part].config.from_dict(setting, "config.json")
    words = {"quantization_config": "quantised", "auto_map": "never run"}
    assert words.get(key, "no setting that is implemented") in str(caught.value)


# Variants.


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_variant(sd, expected, tmp_path, part):
    """Other weights beside the plain ones, for one part: the others keep theirs."""
    module = pipelines.randomise(getattr(pipelines, part)(), seed=99)
    module.save_pretrained(sd / part, variant="non_ema")
    module.save_pretrained(tmp_path / "alone")
    assert_same(outputs(load_model(sd)), expected)
    found = outputs(load_model(sd, variant="non_ema"))
    assert_same(found, outputs(load_model(sd, **{part: tmp_path / "alone"})))
    assert load_model(sd, variant="non_ema").origin["variant"] == "non_ema"
    assert "variant" not in load_model(sd).origin


def test_variant_of_a_part_from_elsewhere(sd, tmp_path):
    pipelines.unet().save_pretrained(tmp_path / "unet", variant="bf16")
    load_model(sd, unet=tmp_path / "unet", variant="bf16")
    with pytest.raises(DiffjaxError, match=r"'fp16'.*unet/diffusion_.*bf16\.safetens"):
        load_model(sd, unet=tmp_path / "unet", variant="fp16")


def test_weights_are_copied_once(sd):
    """Out of the file; JAX takes the copy as it is."""
    _, network = load_network(sd / "unet", "unet", on_host=True)
    leaves = jax.tree.leaves(network.state)
    for leaf in leaves:
        assert isinstance(leaf, np.ndarray)
        assert leaf.flags.c_contiguous
        assert not leaf.flags.writeable
    if jax.default_backend() == "cpu":
        on_device = jax.device_put(leaves, jax.devices()[0])
        for leaf, array in zip(leaves, on_device, strict=True):
            assert array.unsafe_buffer_pointer() == leaf.ctypes.data


def test_a_large_text_encoder_is_let_go_and_read_again(sd, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "LARGE_TEXT_ENCODER", 0)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    folder = shutil.copytree(sd, tmp_path / "again")
    model, kept = load_model(folder), load_model(sd)
    found = [model.text_states(["a cat"])[0] for _ in range(2)]
    expected = kept.text_states(["a cat"])[0]
    np.testing.assert_array_equal(found, [expected, expected])
    assert model.fingerprint == kept.fingerprint

    reads = []
    read = formats.read_tensors
    monkeypatch.setattr(
        loading, "read_tensors", lambda *a, **k: reads.append(a) or read(*a, **k)
    )
    encoder = weakref.ref(model.text_encoder)
    assert len(reads) == 1
    model.text_states(["a dog"])
    gc.collect()
    assert len(reads) == 1
    assert encoder() is None

    (folder / "text_encoder" / "more").touch()
    with pytest.raises(DiffjaxError, match=r"text_encoder has changed .* load the"):
        model.text_states(["a cat"])
