"""Checkpoints that are damaged, misfitting or unsupported are refused."""

import re
import shutil

import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
from loaded import STEMS, outputs
from pipelines import edit_json
from safetensors.numpy import load_file, save_file

from diffjax.checkpoints import mappings
from diffjax.checkpoints.components import STEMS as NETWORKS
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.networks import kind_of
from diffjax.errors import DiffjaxError


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
    ("unet", "addition_embed_type", "text_image"),
    ("unet", "dual_cross_attention", True),
    ("unet", "time_cond_proj_dim", 256),
    ("unet", "num_class_embeds", 7),
    ("unet", "encoder_hid_dim", 64),
    ("unet", "only_cross_attention", [True, False]),
    ("unet", "transformer_layers_per_block", [[1], [2]]),
    ("unet", "resnet_time_scale_shift", "scale_shift"),
    ("unet", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
    ("unet", "center_input_sample", True),
    ("unet", "act_fn", "gelu"),
    ("unet", "a_setting_of_tomorrow", "on"),
    ("vae", "act_fn", "relu"),
    ("vae", "latents_mean", [0.1, 0.2, 0.3, 0.4]),
    ("vae", "shift_factor", "0.1"),
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
        ("_class_name", "HeliosScheduler"),
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
    edit_json(dit / "transformer" / "config.json", _class_name="SanaTransformer2DModel")
    refused("describes a SanaTransformer2DModel", dit)
    edit_json(sd / "text_encoder" / "config.json", architectures=["T5EncoderModel"])
    refused("describes a T5EncoderModel", sd)


def test_the_unet_of_another_family(sd):
    """That of Stable Diffusion XL takes more than one encoder says."""
    edit_json(
        sd / "unet" / "config.json",
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        transformer_layers_per_block=[1, 2],
    )
    words = refused("model_index.json has no text_encoder_2", sd)
    assert "told what text_encoder and text_encoder_2 say" in words


@pytest.mark.parametrize(
    "labels", [{"0": "a"}, {str(i): "a" for i in range(1, 11)}, ["a"] * 10]
)
def test_class_names_that_do_not_fit(dit, labels):
    edit_json(dit / "model_index.json", id2label=labels)
    refused("id2label must name the class ids 0 to 9", dit)


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


@pytest.mark.parametrize("part", NETWORKS)
def test_bookkeeping_in_any_network_s_config(part):
    read = kind_of(part).config.from_dict
    own = {"feed_forward_proj": "gated-gelu"} if part == "text_encoder_3" else {}
    assert read(own | BOOKKEEPING, "config.json") == read(own, "config.json")


@pytest.mark.parametrize("part", NETWORKS)
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
        kind_of(part).config.from_dict(setting, "config.json")
    words = {"quantization_config": "quantised", "auto_map": "never run"}
    assert words.get(key, "no setting that is implemented") in str(caught.value)
