"""Runs that begin from a trained model: what is carried over, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from safetensors.numpy import load_file

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.resolving import resolve
from diffjax.checkpoints.schedulers import read_schedule
from diffjax.errors import DiffjaxError
from diffjax.training.beginning import Beginning
from diffjax.training.recipes import get_recipe
from diffjax.training.runs import run_training, start_run, train
from diffjax.training.text_to_image import build_networks

TINY, TEST = get_recipe("tiny"), get_recipe("test")
TABLE = ("token_embedding", "embedding")


@pytest.fixture(scope="module")
def beginning():
    return Beginning("tiny")


def vocabulary():
    ids = json.loads((resolve("tiny") / "tokenizer" / "vocab.json").read_text())
    return sorted(ids, key=ids.get)


def leaves(module):
    return dict(nnx.to_flat_state(nnx.state(module, nnx.Param)))


def test_weights_are_those_of_the_model(beginning):
    unet, _, _ = build_networks(TINY, vocabulary(), np.random.default_rng(1))
    begun = leaves(beginning.weights(unet, "denoiser"))
    trained = leaves(load_model("tiny").denoiser.module())
    assert begun.keys() == trained.keys()
    for path, leaf in trained.items():
        np.testing.assert_array_equal(begun[path][...], leaf[...])


def test_known_tokens_keep_their_rows_and_new_ones_begin_at_random(beginning):
    words = vocabulary()
    theirs = load_model("tiny").networks()["text_encoder"].module()
    theirs = leaves(theirs)[TABLE][...]
    new = ["zyzzyva</w>", *reversed(words)]
    _, encoder, _ = build_networks(TINY, new, np.random.default_rng(1))
    random = np.array(leaves(encoder)[TABLE][...])
    table = leaves(beginning.weights(encoder, "text_encoder", new))[TABLE][...]
    np.testing.assert_array_equal(table[0], random[0])
    np.testing.assert_array_equal(table[1:], theirs[::-1])


def test_what_does_not_fit_is_named_in_one_error(beginning):
    unet, _, _ = build_networks(TEST, vocabulary(), np.random.default_rng(1))
    with pytest.raises(DiffjaxError) as caught:
        beginning.weights(unet, "denoiser")
    message = str(caught.value)
    assert "cannot begin from tiny" in message and "--init" in message
    assert "conv_in.kernel: (3, 3, 4, 32) → (3, 3, 4, 8)" in message


def test_settings_that_no_shape_shows_are_compared(beginning):
    unet, encoder, _ = build_networks(TINY, vocabulary(), np.random.default_rng(1))
    schedule = read_schedule(TINY.scheduler, "recipe")
    networks = {"denoiser": unet, "text_encoder": encoder}
    beginning.check(networks, schedule)
    other = dict(TINY.scheduler) | {"prediction_type": "v_prediction", "beta_end": 0.1}
    heads = dict(TINY.unet) | {"attention_head_dim": 8}
    changed, _, _ = build_networks(
        dataclasses.replace(TINY, unet=heads), vocabulary(), np.random.default_rng(1)
    )
    with pytest.raises(DiffjaxError) as caught:
        beginning.check(networks | {"denoiser": changed}, read_schedule(other, "other"))
    message = str(caught.value)
    assert "denoiser: attention_head_dim: " in message and "→ 8" in message
    assert "prediction_type: epsilon → v_prediction" in message
    assert "other noise levels" in message and "text encoder" not in message


def test_a_model_of_other_classes_is_no_beginning():
    dit = Beginning("tiny-dit")
    dit.check({}, class_names=dit.model.class_names)
    with pytest.raises(DiffjaxError, match=r"classes: .*Sneaker.* → a, b"):
        dit.check({}, class_names=("a", "b"))


def test_a_run_remembers_where_it_began(beginning, tmp_path):
    start_run(TINY, 0, tmp_path, beginning)
    start_run(TINY, 0, tmp_path, beginning)
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["init"] == {"model": "tiny", "weights": beginning.fingerprint}
    with pytest.raises(DiffjaxError, match="init"):
        start_run(TINY, 0, tmp_path)


def test_a_classifier_begins_at_random(tmp_path):
    with pytest.raises(DiffjaxError, match="resnet always begins at random"):
        run_training("resnet", tmp_path, tmp_path / "out", init="tiny")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # compiles a training step of the real size
def test_a_step_from_a_trained_model_is_near_it(beginning, tmp_path):
    """The autoencoder is kept to the bit, the denoiser moves, and only a little."""
    phase = dataclasses.replace(
        TINY.denoiser, steps=1, batch=2, ema_decay=0.0, learning_rate=1e-5, warmup=0
    )
    recipe = dataclasses.replace(
        TINY,
        scenes=4,
        denoiser=dataclasses.replace(phase, muon_rate=1e-5, show_every=0),
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    names = ("airplane", "automobile", "bird", "cat")
    model = train(
        recipe,
        images,
        np.arange(4, dtype=np.int32),
        names,
        tmp_path,
        seed=0,
        beginning=beginning,
        console=Console(quiet=True),
    )
    old, new = resolve("tiny"), model
    weights = "diffusion_pytorch_model.safetensors"
    for key, array in load_file(old / "vae" / weights).items():
        np.testing.assert_array_equal(load_file(new / "vae" / weights)[key], array)
    before, after = (load_file(place / "unet" / weights) for place in (old, new))
    moved = [np.abs(after[k].astype(np.float32) - before[k]).max() for k in before]
    assert 0 < max(moved) < 1e-2
    scale = [
        json.loads((place / "vae" / "config.json").read_text())["scaling_factor"]
        for place in (old, new)
    ]
    assert scale[0] == scale[1]
    card = (new / "README.md").read_text()
    assert "Autoencoder: that of `tiny`" in card and beginning.fingerprint in card
    assert "Denoiser: 1 step, of 2 images each" in card
