"""Every number of a config has bounds; files that are no JSON, or no files."""

import dataclasses
import json
import math
import os
import threading
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import jax
import numpy as np
import pipelines
import pytest
from pipelines import denoise, edit_json, error, from_torch, normal, to_torch

from diffjax.baselines.own import EMBEDDED, load_classifier
from diffjax.baselines.resnet import ResNetConfig
from diffjax.checkpoints import networks
from diffjax.checkpoints.components import STEMS
from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.networks import NETWORKS, kind_of, read_json
from diffjax.checkpoints.schedulers import MOST_STEPS, read_schedule
from diffjax.errors import DiffjaxError
from diffjax.models.config import ENTRIES
from diffjax.models.layers import timestep_features
from diffjax.models.unet import TextCondition

CONFIGS = {name: kind_of(name).config for name in STEMS}
CONFIGS |= {name: kind.config for name, kind in NETWORKS.items()}
CONFIGS["resnet"] = ResNetConfig
HUGE = 10**400


def leaves(hint):
    """The types in an annotation, without unions; tuples as they are."""
    if get_origin(hint) in (Annotated, Literal, tuple) or hint in (bool, type(None)):
        return [hint]
    return [leaf for each in get_args(hint) for leaf in leaves(each)] or [hint]


def bad_values(hint):
    """Values that a field may not have, by its annotation."""
    kinds = leaves(hint)
    many = [each for each in kinds if get_origin(each) is tuple]
    numbers = [each for each in kinds if get_origin(each) is Annotated]
    values = ["8", "", {}, {"a": 1}, True, math.nan, math.inf, -math.inf, -1, HUGE]
    for base, bounds in map(get_args, numbers):
        values += [math.nextafter(bounds.most, math.inf), bounds.most * 2]
        if base is int:
            values += [0, 1.5, 2**31]
        elif bounds.least > 0:
            values += [0, bounds.least / 2]
    if any(get_args(each)[1].least < -1 for each in numbers):
        values.remove(-1)
    if type(None) not in kinds:
        values.append(None)
    if many:
        (entry,) = {get_args(each)[0] for each in many}
        good = [get_args(entry)[1].least] if get_origin(entry) is Annotated else ["x"]
        values += [[], good * (ENTRIES.most + 1), [good], [None]]
        values += [[bad] for bad in bad_values(entry)]
    elif any(get_origin(get_args(each)[0]) is tuple for each in numbers):
        values += [[1.5], [-1], [None]]  # it may be empty
    else:
        values += [[], [8]]
    return values


FIELDS = [
    (name, field.name, get_type_hints(config, include_extras=True)[field.name])
    for name, config in CONFIGS.items()
    for field in dataclasses.fields(config)
]
NUMBERS = [
    (name, field, hint)
    for name, field, hint in FIELDS
    if any(
        get_origin(each) is Annotated
        or (get_origin(each) is Literal and isinstance(get_args(each)[0], int))
        for leaf in leaves(hint)
        for each in ([get_args(leaf)[0]] if get_origin(leaf) is tuple else [leaf])
    )
]


def test_every_number_has_bounds():
    """No field is a bare int or float, in a tuple or union either."""
    for name, field, hint in FIELDS:
        for leaf in leaves(hint):
            inner = get_args(leaf)[0] if get_origin(leaf) is tuple else leaf
            assert inner not in (int, float), f"{name}: {field}"
    assert len(NUMBERS) == 183  # a new field comes here


@pytest.mark.parametrize(("name", "field", "hint"), NUMBERS)
def test_numbers_beyond_their_bounds(name, field, hint):
    read = CONFIGS[name].from_dict
    values = bad_values(hint)
    assert len(values) > 9
    for value in values:
        with pytest.raises(DiffjaxError, match=rf"the\.json(?s:.)*{field}=") as caught:
            read({field: value}, "the.json")
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 390 * "0"]
)
@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("unet", "norm_eps"),
        ("unet", "freq_shift"),
        ("unet", "layers_per_block"),
        ("vae", "scaling_factor"),
        ("vae", "norm_num_groups"),
        ("text_encoder", "layer_norm_eps"),
        ("text_encoder", "num_hidden_layers"),
    ],
)
def test_numbers_in_files_are_refused_before_anything_is_built(
    folder, monkeypatch, part, field, text
):
    def build(*_, **__):
        raise AssertionError("something is built")

    monkeypatch.setattr(networks, "empty_network", build)
    path = folder / part / "config.json"
    before = path.read_text()
    content = json.loads(before) | {field: "HERE"}
    path.write_text(json.dumps(content).replace('"HERE"', text))
    try:
        with pytest.raises(DiffjaxError, match=rf"{part}/config\.json(?s:.)*{field}="):
            load_model(folder)
    finally:
        path.write_text(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    pipelines.stable_diffusion(folder)
    return folder


SCHEDULER = {
    "num_train_timesteps": [0, -1, 1.5, True, "1000", MOST_STEPS + 1, 10**9, HUGE],
    "beta_start": [-1e-9, 1.1, math.nan, math.inf, HUGE, True, "0.1", [0.1]],
    "beta_end": [-1e-9, 1.1, math.nan, -math.inf, HUGE, True, "0.1", {}],
    "trained_betas": [[], 0.1, [math.nan], [HUGE], [0.1] * (MOST_STEPS + 1), "0.1"],
    "rescale_betas_zero_snr": ["false", 1, 0, []],
    "predict_epsilon": ["true", 1, {}],
    "use_flow_sigmas": ["no", 0],
    "prediction_type": [5, ["epsilon"], {}, "x" * 10**6],
    "beta_schedule": [5, ["linear"], {}],
    "timestep_type": [5, ["discrete"]],
    "_class_name": [[1], 5, {}, None, "x" * 10**6],
}


@pytest.mark.parametrize("key", SCHEDULER)
def test_scheduler_settings_beyond_their_bounds(key):
    for value in SCHEDULER[key]:
        config = {"_class_name": "DDIMScheduler", key: value}
        with pytest.raises(DiffjaxError, match=rf"the\.json.*{key}") as caught:
            read_schedule(config, "the.json")
        assert len(str(caught.value)) < 1500


def test_infinity_where_diffusers_writes_it(folder, tmp_path):
    """A setting of sampling that is no JSON at all, in files that diffusers saves."""
    from diffusers import DPMSolverMultistepScheduler

    DPMSolverMultistepScheduler(beta_end=0.012).save_pretrained(tmp_path)
    path = tmp_path / "scheduler_config.json"
    assert "-Infinity" in path.read_text()
    schedule = read_schedule(read_json(path), str(path))
    assert schedule.n_timesteps == 1000


@pytest.mark.parametrize("features", [4, 5, 9, 15])
@pytest.mark.parametrize("flip", [True, False])
def test_odd_sinusoids_end_with_a_zero_as_in_diffusers(features, flip):
    import torch
    from diffusers.models.embeddings import get_timestep_embedding

    expected = get_timestep_embedding(torch.tensor([501]), features, flip, 0.5)[0]
    found = timestep_features(
        jax.numpy.int32(501), features, flip_sin_to_cos=flip, freq_shift=0.5
    )
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_u_net_of_odd_width_is_diffusers_own(folder, tmp_path):
    import torch

    odd = {
        "block_out_channels": [15, 30],
        "norm_num_groups": 5,
        "attention_head_dim": 3,
    }
    module = pipelines.unet(**odd)
    module.save_pretrained(tmp_path / "unet")
    latents, text = normal(2, 8, 8, 4), normal(2, 5, 24, seed=1)
    timesteps = np.int32([3, 700])
    with torch.no_grad():
        expected = module(
            to_torch(latents), torch.tensor(timesteps), torch.from_numpy(text)
        ).sample
    ours = load_model(folder, unet=tmp_path / "unet").denoiser
    found = denoise(ours, latents, timesteps, TextCondition(text))
    assert error(np.asarray(found), from_torch(expected)) <= 1e-4


def test_a_patch_that_does_not_fit():
    read = CONFIGS["transformer"].from_dict
    with pytest.raises(DiffjaxError, match="multiple of patch_size = 5"):
        read({"patch_size": 5}, "the.json")


def test_images_too_large_to_be(folder):
    path = folder / "unet" / "config.json"
    before = path.read_text()
    edit_json(path, sample_size=8192 + 1)
    with pytest.raises(DiffjaxError, match="sample_size=8193 must be"):
        load_model(folder)
    path.write_text(before)


# JSON that is none.

TEXTS = {
    "nested": ("[" * 5000 + "]" * 5000, "nested"),
    "objects": ('{"a":' * 3000 + "1" + "}" * 3000, "nested"),
    "a list": ("[1]", "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "a number": ("3", "not a JSON object"),
    "half a character": ('{"_class_name": "\\ud800"}', "half a character"),
    "half a character as key": ('{"\\udfff": 1}', "half a character"),
    "cut": ('{"_class_name": "U', "line 1 column 17"),
    "nothing": ("", "line 1 column 1"),
    "digits": ('{"norm_eps": ' + "9" * 5000 + "}", "too large"),
}
FILES = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)


def refusal(folder, name, write):
    path = folder / name
    before = path.read_bytes()
    path.unlink()
    try:
        write(path)
        with pytest.raises(DiffjaxError) as caught:
            load_model(folder)
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(before)
    assert str(path) in str(caught.value)
    str(caught.value).encode()  # it can be printed
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", TEXTS)
def test_json_that_is_none(folder, name, text):
    content, words = TEXTS[text]
    message = refusal(folder, name, lambda path: path.write_text(content))
    assert words in message and "Download it again." in message


@pytest.mark.parametrize("name", FILES)
def test_bytes_that_are_no_text(folder, name):
    message = refusal(folder, name, lambda path: path.write_bytes(b'{"\xff": 1}'))
    assert "not UTF-8" in message


def test_a_byte_order_mark_is_no_harm(folder):
    path = folder / "unet" / "config.json"
    before = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + before)
    load_model(folder)
    path.write_bytes(before)


def within(seconds, function):
    """The DiffjaxError of a call that ends in time: a pipe is not waited for."""
    caught = []

    def call():
        try:
            function()
        except DiffjaxError as error:
            caught.append(str(error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()
    return caught[0]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize(
    "name",
    [*FILES, "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_"],
)
def test_pipes_and_devices_are_not_waited_for(tmp_path, folder, name, make):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "sd")
    (path,) = copy.glob(f"{name}*")
    path.unlink()
    make(path)
    message = within(60, lambda: load_model(copy))
    assert name in message
    assert "pipe or a device" in message or "no model_index.json" in message


@pytest.mark.parametrize("suffix", ["safetensors", "msgpack", "bin", "pt", "json"])
def test_weights_from_a_pipe(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    os.mkfifo(path)
    assert "pipe or a device" in within(60, lambda: read_tensors(path))


def test_baselines_are_read_by_the_same_rules(tmp_path):
    import shutil

    copy = shutil.copytree(EMBEDDED["resnet"], tmp_path / "resnet")
    edit_json(copy / "config.json", layers_per_block=10**9)
    with pytest.raises(DiffjaxError, match="layers_per_block="):
        load_classifier(copy)
    (copy / "config.json").write_text("[" * 5000)
    with pytest.raises(DiffjaxError, match=r"config\.json is not JSON"):
        load_classifier(copy)
