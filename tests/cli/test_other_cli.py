"""The commands demo, models and train."""

import json
from dataclasses import fields

import pytest
from commands import assert_refused, invoke, json_lines
from PIL import Image

from diffjax.checkpoints.catalog import MODELS, Model
from diffjax.cli import demo
from diffjax.training.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("no_compile_cache")


@pytest.fixture
def few_examples(monkeypatch):
    examples = dict(list(demo.examples().items())[-2:])
    monkeypatch.setattr(demo, "examples", lambda: examples)
    return examples


def run_demo(folder, path, *args):
    decide = "--strategy", "racing:n_samples=4:floor=2:chunk=1"
    return invoke(
        *("demo", "--model", folder / "sd", *decide, "--out", path),
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
    asked |= {"data": None, "resize": None}
    assert calls == [(("test", "data", str(tmp_path)), asked)]
    assert result.stdout.strip() == str(tmp_path / "model")


def test_train_without_data_is_refused(tmp_path):
    result = invoke(
        "train", "test", "--data-dir", tmp_path / "none", "--out", tmp_path / "run"
    )
    assert_refused(result, "cifar10", "prepare")
