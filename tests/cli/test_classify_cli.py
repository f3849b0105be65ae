"""`diffjax classify` on good and bad images, labels, settings and models."""

import shutil
import struct
import zlib

import numpy as np
import pipelines
import pytest
from commands import assert_refused, classify, invoke, json_lines
from PIL import Image
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.usefixtures("no_compile_cache")


def test_json_has_what_a_record_has(folder):
    result = classify(folder, "--json")
    assert result.exit_code == 0, result.output
    (entry,) = json_lines(result.stdout)
    assert entry["image"] == str(folder / "noise.png")
    assert {entry["label"]} < {"cat", "dog", "a"}
    assert entry["label"] == entry["scores"][0]["label"]
    assert [e.get("pruned", False) for e in entry["scores"]] == [False, False, True]
    assert sum(e["score"] for e in entry["scores"]) == pytest.approx(1)
    assert entry["evaluations"] == 3 * 2 + 2 * 2
    assert entry["settings"]["strategy"]["name"] == "staged"
    assert {row["label"] for row in entry["errors"]} == {"cat", "dog", "a"}
    assert len(entry["timesteps"]) == 4
    assert set(entry) >= {"temperature", "seconds", "settings"}


def test_the_table_is_for_people(folder):
    result = classify(folder)
    assert result.exit_code == 0, result.output
    assert f"{folder / 'noise.png'} → " in result.stdout.replace("\n", "")
    for part in ("score", "Δ ×10⁻³", "samples", "pruned", "evaluations", "τ = 0.001"):
        assert part in result.stdout
    # a line an image where standard error is no terminal, and no control codes
    assert "1/1" in result.stderr
    assert "\x1b" not in result.output and "\r" not in result.output


def test_quiet_says_nothing_besides_the_result(folder):
    result = classify(folder, "--quiet", "--json")
    assert result.stderr == ""
    assert len(json_lines(result.stdout)) == 1


def test_settings_reach_the_classifier(folder):
    result = classify(
        folder,
        *("--loss", "l1", "--seed", "7", "--noise", "shared", "--temperature", "0.5"),
        *("--interpolation", "nearest", "--transform", "adm", "--resolution", "8"),
        *("--merge", "mean", "--cells", "2", "--template", "a {}", "--template", "{}"),
        "--json",
    )
    assert result.exit_code == 0, result.output
    settings = json_lines(result.stdout)[0]["settings"]
    expected = {
        "loss": "l1",
        "seed": 7,
        "noise": "shared",
        "temperature": 0.5,
        "interpolation": "nearest",
        "transform": "adm",
        "resolution": 8,
        "merge": "mean",
        "cells": 2,
    }
    assert {key: settings[key] for key in expected} == expected


def test_a_class_conditional_model_needs_no_labels(folder):
    result = classify(folder, "--json", labels=None, model="dit")
    assert result.exit_code == 0, result.output
    assert len(json_lines(result.stdout)[0]["scores"]) == 10


def test_a_class_conditional_model_tells_that_it_uses_no_template(folder):
    result = classify(
        folder, "--template", "a {}!", labels="class 1,class 3", model="dit"
    )
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr and "not used" in result.stderr
    result = classify(folder, labels="class 1,class 3", model="dit")
    assert "note: " not in result.stderr


def test_prompts_from_a_file(folder, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text(
        "prompt,classname,classidx\na cat,cat,0\nthe cat,cat,0\ndog,dog,1\n"
    )
    result = classify(folder, "--prompts", path, "--json", labels=None)
    assert result.exit_code == 0, result.output
    scores = json_lines(result.stdout)[0]["scores"]
    assert {entry["label"] for entry in scores} == {"cat", "dog"}
    assert_refused(classify(folder, "--prompts", path), "--labels")
    assert_refused(classify(folder, "--prompts", "no.csv", labels=None), "no.csv")


def test_notes_are_readable(folder, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,classname,classidx\na cat,cat,0\na cat,dog,1\nthe,a,2\n")
    result = classify(folder, "--prompts", path, labels=None)
    (line,) = [x for x in result.stderr.splitlines() if "share a prompt" in x]
    assert line.startswith(f"note: {path}")
    assert "Warning" not in result.stderr


def test_a_plot_is_written(folder, tmp_path):
    path = tmp_path / "out.png"
    result = classify(folder, "--plot", path)
    assert result.exit_code == 0, result.output
    assert str(path) in result.stderr
    with Image.open(path) as picture:
        assert picture.width > 800
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_a_plot_that_cannot_be_written_is_refused_before_the_work(folder, tmp_path):
    path = tmp_path / "nowhere" / "out.png"
    assert_refused(classify(folder, "--plot", path, model="missing"), path, "folder")


# ---- bad images


def bomb(path):
    """A PNG that claims 40,000 × 40,000 pixels and holds a few bytes."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


BAD_IMAGES = {
    "missing.png": (lambda path: None, "Check the path"),
    "truncated.jpg": (truncated, "truncated"),
    "pixel.png": (lambda p: Image.new("RGB", (1, 1)).save(p), "1×1"),
    "bomb.png": (bomb, "Scale it down"),
    "text.png": (lambda p: p.write_text("no image"), "Convert it"),
    "empty.png": (lambda p: p.touch(), "empty"),
    "folder.png": (lambda p: p.mkdir(), "folder"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_refused(folder, tmp_path, name):
    make, remedy = BAD_IMAGES[name]
    make(tmp_path / name)
    # before the model is loaded: there is none
    result = classify(folder, images=[tmp_path / name], model="missing")
    assert_refused(result, name, remedy)
    assert result.stdout == ""


def test_bad_images_do_not_lose_the_others(folder, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    good, bad = folder / "noise.png", tmp_path / "text.png"
    result = classify(
        folder, "--json", images=[bad, good, tmp_path / "missing.png", good]
    )
    assert_refused(result, "text.png", "missing.png")
    entries = json_lines(result.stdout)
    assert [entry["image"] for entry in entries] == [str(good)] * 2
    assert entries[0]["errors"] == entries[1]["errors"]


def test_a_resolution_that_the_model_cannot_take_is_refused_once(folder):
    images = [folder / "noise.png"] * 3
    result = classify(folder, "--resolution", "9", images=images)
    assert_refused(result, "9", "multiple")
    assert result.stderr.count("error: ") == 1
    assert "noise.png" not in result.stderr


def sixteen_bit(path):
    ramp = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    Image.fromarray(ramp).save(path)


def animated(path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


ODD_IMAGES = {
    "rgba.png": lambda p: Image.new("RGBA", (20, 20), (255, 0, 0, 9)).save(p),
    "cmyk.jpg": lambda p: Image.new("CMYK", (20, 20), (9, 99, 199, 0)).save(p),
    "deep.png": sixteen_bit,
    "animated.gif": animated,
}


def test_odd_images_work_and_an_animation_is_noted(folder, tmp_path):
    paths = [tmp_path / name for name in ODD_IMAGES]
    for path in paths:
        ODD_IMAGES[path.name](path)
    result = classify(folder, "--json", images=paths)
    assert result.exit_code == 0, result.output
    assert len(json_lines(result.stdout)) == len(paths)
    notes = [x for x in result.stderr.splitlines() if x.startswith("note: ")]
    assert len(notes) == 1 and "animated.gif" in notes[0] and "frame 1" in notes[0]


# ---- bad labels and settings


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--labels", ""], ["No labels", "two"]),
        (["--labels", "cat"], ["'cat'", "two"]),
        (["--labels", "cat,dog,cat"], ["'cat'", "more than once"]),
        (["--labels", "cat,,dog"], ["empty", "comma"]),
        (["--labels", "cat,dog", "--template", "a photo"], ["'a photo'", "{}"]),
        (["--labels", "cat,dog", "--template", "{} {}"], ["'{} {}'", "once"]),
        (["--labels", "cat,dog", "--strategy", "guessing"], ["guessing", "staged"]),
        (["--labels", "cat,dog", "--strategy", "staged:to_keep=2"], ["n_samples"]),
    ],
)
def test_words_that_make_no_sense_are_refused_before_the_work(folder, args, parts):
    result = invoke("classify", folder / "noise.png", *args, "--model", "missing")
    assert_refused(result, *parts)


def test_a_prompted_model_needs_labels(folder):
    assert_refused(classify(folder, labels=None), "labels")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--temperature", "0"], ["temperature"]),
        (["--cells", "0"], ["cells"]),
        (["--noise", "nowhere.npy"], ["nowhere.npy"]),
        (["--unet", "nowhere/at/all"], ["nowhere/at/all"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(folder, args, parts):
    assert_refused(classify(folder, *args), *parts)


@pytest.mark.parametrize("option", ["--loss", "--dtype", "--merge", "--transform"])
def test_unknown_choices_are_usage_errors(folder, option):
    result = classify(folder, option, "nonsense")
    assert result.exit_code == 2
    assert option in result.stderr and "nonsense" in result.stderr


def test_long_prompts_are_cut_with_a_note(folder):
    result = classify(folder, labels=f"cat,a,{'dog ' * 125}")
    assert result.exit_code == 0, result.output
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("note: ")]
    assert "1 of 3 prompts" in line and "cut" in line


# ---- bad models


def test_an_unknown_model_is_met_with_a_suggestion(folder):
    result = invoke(
        "classify", folder / "noise.png", "--labels", "a,b", "--model", "tinny"
    )
    assert_refused(result, "tinny", "Did you mean tiny or tiny-dit?")


def edited(change):
    def damage(model):
        path = model / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return damage


def corrupt(model):
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(b"\xff" * 64)


def scheduler(**changes):
    def damage(model):
        path = model / "scheduler" / "scheduler_config.json"
        pipelines.edit_json(path, **changes)

    return damage


BROKEN_MODELS = {
    "missing tensor": (edited(lambda t: t.pop("conv_in.bias")), "conv_in.bias"),
    "extra tensor": (edited(lambda t: t.update(more=np.ones(1))), "more"),
    "misshapen tensor": (
        edited(lambda t: t.update({"conv_in.bias": np.ones(3, np.float32)})),
        "conv_in.bias",
    ),
    "corrupt header": (corrupt, "diffusion_pytorch_model.safetensors"),
    "unknown scheduler": (scheduler(beta_schedule="zigzag"), "zigzag"),
    "unknown prediction": (scheduler(prediction_type="psychic"), "psychic"),
    "no index": (lambda m: (m / "model_index.json").unlink(), "model_index.json"),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_broken_checkpoint_is_refused(folder, tmp_path, name):
    damage, part = BROKEN_MODELS[name]
    model = tmp_path / "broken"
    shutil.copytree(folder / "sd", model)
    damage(model)
    assert_refused(classify(folder, model=model), part)


def test_overflow_is_reported(folder, tmp_path):
    model = tmp_path / "hot"
    shutil.copytree(folder / "sd", model)

    def heat(tensors):
        tensors["conv_out.weight"] = tensors["conv_out.weight"] * np.float32(1e30)

    edited(heat)(model)
    assert_refused(classify(folder, model=model), "noise.png", "overflow")
