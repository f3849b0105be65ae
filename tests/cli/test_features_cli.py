"""The command features."""

import json
from dataclasses import fields

import pytest
from commands import assert_only_refused, assert_refused, invoke
from tiny_sets import write_folder

from diffjax.cli.features import _experiments
from diffjax.evaluation.experiment import Experiment

pytestmark = pytest.mark.usefixtures("no_compile_cache")

LAYERS = ("transformer_blocks.0", "transformer_blocks.1")


@pytest.fixture
def pictures(tmp_path):
    for split, n in (("train", 6), ("test", 3)):
        write_folder(tmp_path / "set" / split, {"cat": n, "dog": n})
    return tmp_path / "set"


def features(folder, pictures, *args):
    place = "--out", pictures.parent / "out"
    return invoke("features", pictures, "--model", folder / "dit", *place, *args)


def test_heads_by_layer_and_timestep_are_a_table_and_a_picture(folder, pictures):
    picture = pictures.parent / "features.png"
    layers = ",".join(LAYERS)
    args = "--layers", layers, "--timesteps", "10,700"
    args = *args, "--heads", "linear", "--split", "test", "--plot", picture
    done = features(folder, pictures, *args)
    assert done.exit_code == 0, done.output
    assert "NOT zero-shot" in " ".join(done.stdout.split())
    assert picture.read_bytes().startswith(b"\x89PNG")
    out = pictures.parent / "out"
    [run] = (path for path in out.iterdir() if path.name != "maps")
    found = json.loads((run / "features.json").read_text())
    assert found["run"] == str(run)
    assert found["zero_shot"] is False and found["chosen"] in found["rows"]
    assert {(row["layer"], row["timestep"]) for row in found["rows"]} == {
        (layer, t) for layer in LAYERS for t in (10, 700)
    }
    assert all(row["images"] == 6 for row in found["rows"])
    assert len((run / "features.csv").read_text().splitlines()) == 1 + 4
    again = features(folder, pictures, *args, "--json", "--quiet")
    assert json.loads(again.stdout) == found


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--layers", "mid"], "has no layer 'mid'"),
        (["--timesteps", "1000"], "has timesteps 0 to 999"),
        (["--train-split", "test"], "would be learned from and tested on"),
        (["--train-split", "nowhere"], "nowhere"),
        (["--zero-shot", "nowhere"], "nowhere"),
        (["--plot", "a.doc"], "a.doc"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(folder, pictures, args, told):
    done = features(folder, pictures, "--split", "test", "--quiet", *args)
    assert_only_refused(done, told)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--heads", "tree"], "no head 'tree'"),
        (["--timesteps", "1,x"], "whole numbers"),
        (["--layers", "a,a"], "twice"),
    ],
)
def test_lists_that_are_none_are_refused(args, told):
    done = invoke("features", "cifar10", *args)
    assert done.exit_code == 2 and told in done.stderr


def experiments(dataset, **given):
    options = {field.name: None for field in fields(Experiment)}
    del options["dataset"]
    parts = ("dataset", "split", "limit", "subset")
    options |= {f"train_{part}": None for part in parts} | {"template": ()}
    return _experiments(dataset, options | given)


def test_a_preset_s_images_of_each_class_are_those_to_test_on():
    learned, tested = experiments("imagenet")
    assert (learned.split, learned.per_class) == ("train", None)
    assert (tested.split, tested.per_class) == ("validation", 2)


@pytest.mark.parametrize(
    ("other", "split"),
    [
        (None, "train"),
        ("cifar10", "train"),  # though the preset is of its test split
        ("./set", "train"),
        ("./set/test", None),
        ("images.csv", None),
        ("hf:somebody/set:train", None),
    ],
)
def test_another_data_set_is_learned_from_by_its_train_split(
    other, split, pictures, monkeypatch
):
    monkeypatch.chdir(pictures.parent)
    learned, tested = experiments("cifar10", train_dataset=other)
    assert (learned.dataset, learned.split) == (other or "cifar10", split)
    assert tested.split == "test"


def test_missing_weights_are_told():
    assert_refused(invoke("features", "x.csv", "--model", "sd-2-base"), "x.csv")
