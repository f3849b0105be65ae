import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import fields

import click
import numpy as np
import pipelines
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file, save_file

import diffjax
from diffjax import choices
from diffjax.checkpoints.catalog import MODELS, Model
from diffjax.classify.settings import Settings
from diffjax.cli import demo
from diffjax.cli.classify import classify as classify_command
from diffjax.cli.commands import group
from diffjax.cli.progress import BatchProgress
from diffjax.training.recipes import RECIPES

# Three classes in nearly every test: other shapes would be compiled anew.
LABELS = "cat,dog,a"  # short enough for the small tokenizer
STRATEGY = "staged:to_keep=2,1:n_samples=2,4:order=nested"
HEAVY = ("jax", "flax", "transformers", "matplotlib", "torch", "tensorflow_datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Stable Diffusion and a DiT with random weights, and an image."""
    root = tmp_path_factory.mktemp("models")
    pipelines.stable_diffusion(root / "sd")
    pipelines.dit_pipeline(root / "dit")
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(root / "noise.png")
    return root


@pytest.fixture(autouse=True)
def no_compile_cache(monkeypatch, tmp_path):
    """JAX is already imported here, and its folder is not ours to set."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))


def invoke(*args):
    return CliRunner().invoke(group, [str(arg) for arg in args])


def classify(folder, *args, images=None, labels=LABELS, model="sd"):
    images = [folder / "noise.png"] if images is None else images
    chosen = ["--labels", labels] if labels is not None else []
    return invoke(
        *("classify", *images, *chosen, "--strategy", STRATEGY),
        # two cells a tile: all rounds have tiles of one shape, compiled once
        *("--cells", "2", "--model", folder / model, *args),
    )


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def assert_refused(result, *parts):
    """Exit code 2 and one message; no traceback, nothing on standard output."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert "error: " in result.stderr
    for part in parts:
        assert str(part) in result.stderr, (part, result.stderr)


def test_json_has_what_a_record_has(folder):
    result = classify(folder, "--json")
    assert result.exit_code == 0, result.output
    (entry,) = json_lines(result.stdout)
    assert entry["image"] == str(folder / "noise.png")
    assert {entry["label"]} < {"cat", "dog", "a"}
    assert entry["label"] == entry["scores"][0]["label"]
    assert [e.get("pruned", False) for e in entry["scores"]] == [False, False, True]
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


# ---- the other commands


@pytest.fixture
def few_examples(monkeypatch):
    examples = dict(list(demo.examples().items())[-2:])
    monkeypatch.setattr(demo, "examples", lambda: examples)
    return examples


def run_demo(folder, path, *args):
    strategy = demo.STRATEGY.replace("25,100", "2,4")
    return invoke(
        *("demo", "--model", folder / "sd", "--strategy", strategy, "--out", path),
        *args,
    )


def test_the_demo_classifies_its_images_and_draws_them(folder, tmp_path, few_examples):
    path = tmp_path / "demo.png"
    result = run_demo(folder, path)
    assert result.exit_code == 0, result.output
    for example in few_examples:
        assert example.stem in result.stdout
    assert "of 2 right" in result.stdout
    assert str(path) in result.stderr
    with Image.open(path) as picture:
        assert picture.width > 800 and picture.height > 2 * 200


def test_the_demo_in_json(folder, tmp_path, few_examples):
    result = run_demo(folder, tmp_path / "demo.png", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    entries = json_lines(result.stdout)
    assert [e["truth"] for e in entries] == list(few_examples.values())
    assert {score["label"] for score in entries[0]["scores"]} == set(demo.LABELS)


def test_the_demo_has_real_images_of_its_labels():
    examples = demo.examples()
    assert len(examples) >= 5
    assert set(examples.values()) <= set(demo.LABELS)
    assert all(path.is_file() for path in examples)


def test_the_demo_refuses_a_picture_that_cannot_be_written(tmp_path):
    assert_refused(invoke("demo", "--out", tmp_path / "no" / "a.png"), "a.png")


def test_models_lists_the_catalogue():
    result = invoke("models")
    assert result.exit_code == 0
    for name in MODELS:
        assert name in result.stdout
    entries = json.loads(invoke("models", "--json").stdout)
    assert [entry["name"] for entry in entries] == list(MODELS)
    assert set(entries[0]) == {field.name for field in fields(Model)}


def test_train_names_its_recipes():
    text = invoke("train", "--help").stdout
    for name, recipe in RECIPES.items():
        assert f"{name}: {recipe.summary}" in text
    result = invoke("train", "nonsense", "--out", "run")
    assert result.exit_code == 2
    assert "nonsense" in result.stderr and "tiny" in result.stderr


def test_train_hands_its_options_on(monkeypatch, tmp_path):
    calls = []

    def run_training(*args, **kwargs):
        calls.append((args, kwargs))
        return tmp_path / "model"

    monkeypatch.setattr("diffjax.training.runs.run_training", run_training)
    result = invoke(
        *("train", "test", "--data-dir", "data", "--out", tmp_path),
        *("--steps", "3", "--seed", "5", "--init", "tiny", "--length", "9"),
    )
    assert result.exit_code == 0, result.output
    asked = {"length": 9, "steps": 3, "seed": 5, "init": "tiny"}
    assert calls == [(("test", "data", str(tmp_path)), asked)]
    assert result.stdout.strip() == str(tmp_path / "model")


def test_train_without_data_is_refused(tmp_path):
    result = invoke(
        "train", "test", "--data-dir", tmp_path / "none", "--out", tmp_path / "run"
    )
    assert_refused(result, "cifar10", "prepare")


# ---- the face itself

HELP = {
    "baseline": (
        *("--split", "--data-dir", "--limit", "--corrupt", "--out", "--json"),
        *("--quiet", "--help"),
    ),
    "bench": (
        *("--model", "--random", "--blocks", "--classes", "--dtype", "--resolution"),
        *("--compile-for", "--json", "--quiet", "--help"),
    ),
    "calibrate": ("--json", "--allow-partial", "--help"),
    "classify": (
        *("--labels", "--template", "--prompts", "--merge", "--strategy", "--loss"),
        *("--dtype", "--seed", "--noise", "--temperature", "--cells", "--resolution"),
        *("--transform", "--interpolation", "--model", "--unet", "--transformer"),
        *("--vae", "--text-encoder", "--tokenizer", "--revision", "--cache-dir"),
        *("--offline", "--variant", "--top", "--plot", "--json", "--quiet", "--help"),
        "--max-pixels",
        *("--shortlist", "--shard-weights", "--global-mesh", "--coordinator"),
        *("--process-index", "--process-count"),
    ),
    "demo": (
        *("--model", "--strategy", "--loss", "--dtype", "--seed", "--out", "--json"),
        *("--quiet", "--help"),
    ),
    "evaluate": (
        *("--dataset", "--split", "--data-dir", "--subset", "--per-class"),
        *("--subset-seed", "--limit", "--classes", "--prompts", "--classnames"),
        *("--corrupt", "--max-pixels"),
        *(
            "--templates",
            "--clip-name",
            "--template",
            "--prefilter",
            "--merge",
            "--strategy",
            "--loss",
            "--dtype",
        ),
        *("--seed", "--also", "--noise", "--temperature", "--cells", "--resolution"),
        "--shortlist",
        *("--transform", "--interpolation", "--model", "--unet", "--transformer"),
        *("--vae", "--text-encoder", "--tokenizer", "--revision", "--cache-dir"),
        *("--offline", "--out", "--save-errors", "--latent-cache", "--allow-errors"),
        "--variant",
        *(
            "--dry-run",
            "--process-index",
            "--process-count",
            "--distributed",
            "--shard-weights",
            "--wandb",
            "--tensorboard",
            "--json",
            "--quiet",
            "--help",
        ),
    ),
    "import": (
        *("--out", "--prompts", "--labels", "--dataset", "--split", "--allow-errors"),
        *("--json", "--help"),
    ),
    "explain": (
        *("--labels", "--template", "--n-samples", "--bands", "--out", "--loss"),
        *("--dtype", "--seed", "--resolution", "--transform", "--interpolation"),
        *("--model", "--unet", "--transformer", "--vae", "--text-encoder"),
        *("--tokenizer", "--revision", "--cache-dir", "--offline", "--json"),
        *("--variant", "--max-pixels", "--quiet", "--help"),
    ),
    "models": ("--json", "--help"),
    "report": ("--html", "--csv", "--json", "--allow-partial", "--help"),
    "rescore": (
        "--allow-partial",
        *("--loss", "--weights", "--strategy", "--folds", "--bins", "--out", "--json"),
        "--help",
    ),
    "robustness": ("--plot", "--csv", "--json", "--help"),
    "study": ("--out", "--json", "--allow-partial", "--help"),
    "train": (
        "--data-dir",
        "--out",
        "--length",
        "--steps",
        "--init",
        "--seed",
        "--help",
    ),
    "winoground": (
        *("--n-samples", "--limit", "--loss", "--dtype", "--seed", "--resolution"),
        *("--transform", "--interpolation", "--model", "--unet", "--transformer"),
        *("--vae", "--text-encoder", "--tokenizer", "--revision", "--cache-dir"),
        *("--offline", "--cells", "--out", "--allow-errors", "--json", "--quiet"),
        "--variant",
        "--help",
    ),
}


def test_every_command_is_in_the_help():
    text = invoke("--help").stdout
    assert set(group.commands) == set(HELP)
    for name in HELP:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("command", HELP)
def test_the_help_names_every_option(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    names = {
        name
        for parameter in group.commands[command].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    assert names | {"--help"} == set(HELP[command])
    for name in HELP[command]:
        assert name in result.stdout
    for parameter in group.commands[command].params:
        assert not isinstance(parameter, click.Option) or parameter.help
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "strategy"),
    [("classify", choices.STRATEGY), ("demo", demo.STRATEGY)],
)
def test_the_help_has_strategies_to_copy(command, strategy):
    lines = [line.strip() for line in invoke(command, "--help").stdout.splitlines()]
    assert "exhaustive:n_samples=250" in lines
    assert f"{strategy}  [default]" in lines


@pytest.mark.parametrize(
    "command", [("classify", "cat.jpg", "--labels", "a,b"), ("evaluate", "cifar10")]
)
def test_a_shortlist_is_read_before_anything_else(command):
    result = invoke(*command, "--shortlist", "k=50:base=median")
    assert_refused(result, "base 'median'", "mean, unconditional, clusters")
    result = invoke(*command, "--shortlist", "50")
    assert_refused(result, "An example: k=50:rounds=2")


@pytest.mark.parametrize(
    "name", ["loss", "seed", "noise", "interpolation", "merge", "temperature"]
)
def test_defaults_are_those_of_the_package(name):
    (option,) = (p for p in classify_command.params if p.name == name)
    assert option.default == getattr(Settings(), name)


def run(*args, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, **kwargs
    )


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["classify", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(args):
    code = (
        "import sys\n"
        "from diffjax.cli.commands import group\n"
        f"try: group({args})\n"
        "except SystemExit: pass\n"
        f"print([m for m in {(*HEAVY, 'numpy')} if m in sys.modules], file=sys.stderr)"
    )
    assert run("-c", code).stderr.splitlines()[-1] == "[]"


def test_as_a_module():
    done = run("-m", "diffjax", "--version")
    assert done.returncode == 0
    assert diffjax.__version__ in done.stdout


def test_standard_error_is_free_of_other_libraries_noise(folder, tmp_path):
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = run(
        *("-m", "diffjax", "classify", folder / "noise.png", "--labels", "cat,dog"),
        *("--model", folder / "sd", "--strategy", "exhaustive:n_samples=2", "--json"),
        *("--cells", "2"),
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert len(json_lines(done.stdout)) == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("1/1 ")
    # and what was compiled has been kept
    assert list((tmp_path / "cache" / "diffjax" / "jax").iterdir())


def test_an_unwritable_compile_cache_is_noted(monkeypatch, tmp_path, folder):
    (tmp_path / "file").touch()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = classify(folder, images=["missing.png"])
    assert_refused(result, "missing.png")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert result.stderr.startswith("note: ")
    assert "JAX_COMPILATION_CACHE_DIR" in result.stderr.splitlines()[0]


def test_an_interruption_ends_with_130_and_no_traceback(monkeypatch, folder):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffjax.cli.batch.load_image", interrupt)
    result = classify(folder)
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_signal_interrupts():
    code = (
        "import signal, sys, time\nimport diffjax.cli, diffjax.checkpoints.catalog\n"
        # a shell's background job is started with the signal ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Slow(dict):\n"
        "    def values(self): print('ready', flush=True); time.sleep(600)\n"
        "diffjax.checkpoints.catalog.MODELS = Slow()\n"
        "sys.argv = ['diffjax', 'models', '--json']\n"
        "diffjax.cli.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "interrupted"


class FakeTerminal(Console):
    """A console that believes in a terminal and keeps what it is sent."""

    def __init__(self):
        super().__init__(
            file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False
        )


def test_a_terminal_gets_a_bar_that_counts_all_images():
    console = FakeTerminal()
    with BatchProgress(console, 3) as bar:
        task = bar._bar.tasks[0]
        bar.begin("a/b/cat.png")
        bar.stage("compiling")
        assert task.fields["count"] == "compiling"
        bar.update(10, 90, 5)
        assert (task.completed, task.total) == (10, 300)
        bar.update(80, 0, 2)  # fewer than expected
        bar.finish("cat")
        bar.begin("a/b/dog.png")
        bar.update(20, 80, 5)  # the last image will need as many as the first did
        assert (task.completed, task.total) == (100, 80 + 100 + 80)
        assert "2/3 dog.png" in task.description
        with bar.hidden():
            console.print("result")
    text = console.file.getvalue()
    assert "2/3 dog.png" in text and "100/260 · 5 alive" in text
    assert "result" in text


@pytest.mark.parametrize("quiet", [False, True])
def test_elsewhere_there_is_a_line_an_image_or_nothing(quiet):
    console = Console(file=io.StringIO())
    with BatchProgress(console, 1, quiet=quiet) as bar:
        bar.begin("cat.png")
        bar.update(10, 0, 1)
        bar.finish("cat, 10 evaluations")
    expected = "" if quiet else "1/1 cat.png: cat, 10 evaluations\n"
    assert console.file.getvalue() == expected
