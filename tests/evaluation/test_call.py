"""An evaluation from Python is the command's."""

import inspect
import io
import json
from pathlib import Path

import numpy as np
import pipelines
import pytest
from commands import invoke
from noise_runs import assert_same, variant
from PIL import Image
from tiny_sets import picture, write_folder

import diffjax
from diffjax import Progress, evaluate, read_run
from diffjax.data.presets import PRESETS
from diffjax.errors import DiffjaxError
from diffjax.evaluation.request import short

STRATEGY = "exhaustive:n_samples=2"
SETTINGS = {"strategy": STRATEGY, "cells": 2, "progress": False}
NAMES = ["cat", "dog"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small Stable Diffusion, and a folder of five images."""
    root = tmp_path_factory.mktemp("place")
    pipelines.stable_diffusion(root / "sd")
    write_folder(root / "photos", {"cat": 3, "dog": 2})
    return root


def command(place, *args):
    result = invoke(
        *("evaluate", "--dataset", place / "photos", "--model", place / "sd"),
        *("--strategy", STRATEGY, "--cells", "2", "--quiet", *args),
    )
    assert result.exit_code == 0, result.output


def test_one_goes_on_with_what_the_other_began(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"template": "a {}", "loss": "l1", "also": ["l2"]}
    told = ["--template", "a {}", "--loss", "l1", "--also", "l2"]
    command(place, *told)
    run = evaluate(place / "sd", place / "photos", **options, **SETTINGS)
    assert run.path == Path("runs/photos-sd")  # the command's own choice
    parts = list((run.path / "parts").iterdir())
    assert len(parts) == 1 and run.status == "complete"  # nothing was done twice
    other = evaluate(
        place / "sd", f"{place}/photos", out=tmp_path / "o", **options, **SETTINGS
    )
    assert_same(other.rows, run.rows)
    command(place, *told, "--out", tmp_path / "o")
    assert json.loads((other.path / "summary.json").read_text()) == other.summary
    for each in (run, other):
        each.header.pop("created")
    assert run.header == other.header
    with pytest.raises(DiffjaxError, match=r"another configuration:\n.*seed: 0 there"):
        evaluate(place / "sd", place / "photos", seed=1, **options, **SETTINGS)


def images(n=5):
    """As the folder has them: see ``write_folder``."""
    return [picture(k) for k in range(n)]


def test_the_same_images_in_other_containers(place, tmp_path, classifier, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets = pytest.importorskip("datasets")
    clf = variant(classifier, noise="shared")  # an image's own goes by its name
    folder = evaluate(clf, place / "photos", progress=False)
    paths = sorted((place / "photos").rglob("*.png"))
    labels = [NAMES.index(path.parent.name) for path in paths]
    pixels = [np.asarray(Image.open(path)) for path in paths]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    hub = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(each) for each in pixels], "label": labels},
        features=datasets.Features(kinds),
    )
    containers = [
        zip(paths, [path.parent.name for path in paths], strict=True),
        [{"image": image, "label": y} for image, y in zip(pixels, labels, strict=True)],
        hub,
    ]
    found = set()
    for container in containers:
        names = NAMES if isinstance(container, list) else None
        run = evaluate(clf, container, class_names=names, progress=False)
        assert_same(run.rows, folder.rows, but=("seconds", "id"))
        found.add(run.path)
    assert len(found) == 3 and all(path.parent == Path("runs") for path in found)
    again = evaluate(clf, hub, progress=False)  # the data are known by what they hold
    assert again.path in found and len(list((again.path / "parts").iterdir())) == 1
    with pytest.raises(DiffjaxError, match=r"data\.fingerprint"):
        evaluate(clf, hub.select([1, 0]), out=again.path, progress=False)


def test_what_python_has_and_a_command_can_only_name(place, tmp_path, classifier):
    whole = evaluate(classifier, place / "photos", out=tmp_path / "a", progress=False)
    prompts = diffjax.Prompts.from_names(["tabby", "pug"], ["see {}", "a {}"])
    run = evaluate(
        classifier,
        place / "photos",
        prompts=prompts,
        subset=np.array([4, 1]),
        classes=range(2),
        out=tmp_path / "b",
        progress=False,
    )
    assert run.prompts == prompts and run.class_names == ("tabby", "pug")
    assert run.rows["id"].to_pylist() == [whole.rows["id"][k].as_py() for k in (1, 4)]
    chosen = {"subset": "1,4", "classes": "0:2", "prompts": prompts}
    again = evaluate(
        classifier, place / "photos", **chosen, out=tmp_path / "c", progress=False
    )
    assert_same(again.rows, run.rows)
    for wrong, message in (
        ({"classes": [0, 2]}, "'0,2' of classes: 2 goes beyond .* last class, 1"),
        ({"classes": [0, 0]}, "class 0 is there already"),
        ({"classes": "1"}, "names 1 class"),
        ({"subset": [9]}, "holds the index 9"),
        ({"prompts": prompts, "template": "a {}"}, "exclude each other"),
    ):
        with pytest.raises(DiffjaxError, match=message):
            evaluate(classifier, place / "photos", out=tmp_path / "d", **wrong)


def test_progress_is_told_or_drawn_or_not(place, tmp_path, classifier, capsys):
    told = []
    progress = Progress(watch=lambda now: told.append((now.done, now.total)))
    evaluate(classifier, place / "photos", out=tmp_path / "a", progress=progress)
    assert told[0] == (0, 5) and told[-1] == (5, 5)
    evaluate(classifier, place / "photos", out=tmp_path / "b", progress=False)
    assert capsys.readouterr() == ("", "")
    evaluate(classifier, place / "photos", out=tmp_path / "b")
    assert "photos small: 5/5" in capsys.readouterr().err


def test_processes_share_a_run(place, tmp_path, classifier):
    share = {"process_count": 2, "out": tmp_path / "run", "progress": False}
    first = evaluate(classifier, place / "photos", process_index=1, **share)
    assert first.rows["index"].to_pylist() == [1, 3]
    assert first.status == "in progress"
    both = evaluate(classifier, place / "photos", process_index=0, **share)
    assert both.status == "complete"


def test_failed_images_are_told_of(tmp_path, classifier):
    stream = io.BytesIO()
    Image.fromarray(picture(0)).save(stream, "PNG")
    pairs = [(stream.getvalue(), "cat"), (b"no image", "dog")]
    with pytest.warns(UserWarning, match="1 of 2 images failed; the first, image 1"):
        run = evaluate(classifier, pairs, out=tmp_path / "run", progress=False)
    assert run.summary["failed_images"] == 1


def test_a_preset_by_its_name(tmp_path, classifier, monkeypatch):
    """… is the command's PRESET, and not the data set that is called alike."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        "diffjax.evaluation.experiment.open_source",
        lambda *args, **more: asked.append(args) or pytest.skip("opened"),
    )
    preset = PRESETS["pets"]
    with pytest.raises(pytest.skip.Exception):
        evaluate(classifier, "pets", data_dir="here", limit=3)
    assert asked == [(preset.dataset, preset.split, "here", None)]


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("./nowhere", {}, "no folder nowhere"),
        ("pets", {"data_dir": "nowhere"}, "oxford_iiit_pet"),
        ("cifar10", {"class_names": NAMES}, "class_names are of data sets without any"),
        ("cifar10", {"seed": 1}, "seed belongs to the classifier"),
        ([], {}, "holds no images"),
        (3, {}, "no data set"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(
    dataset, options, message, classifier, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiffjaxError, match=message):
        evaluate(classifier, dataset, **options)
    assert not list(tmp_path.iterdir())


def test_options_are_the_commands_and_a_wrong_one_is_refused(classifier):
    from diffjax.cli.commands import group

    ours = set(inspect.signature(evaluate).parameters)
    theirs = {
        option.name for option in group.commands["evaluate"].params if option.name
    }
    only_there = {
        *("presets", "allow_errors", "dry_run", "wandb", "tensorboard", "distributed"),
        *("as_json", "quiet", "help_all"),
    }
    assert theirs - only_there <= ours
    with pytest.raises(TypeError, match="limits"):
        evaluate(classifier, "cifar10", limits=3)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("hf:./some/hub:config:test[:9]", "hub-config-test[-9]"),
        ("hf:uoft-cs/cifar10:test", "uoft-cs-cifar10-test"),
        ("hf:../a/set.parquet", "set"),
        ("cifar10_c/fog/3", "cifar10_c-fog-3"),
        ("cifar10:1.0.0", "cifar10-1.0.0"),
        ("./photos/list.csv", "list"),
    ],
)
def test_what_a_folder_is_called(name, folder):
    assert short(name) == folder


def test_it_is_public():
    assert diffjax.evaluate is evaluate and diffjax.read_run is read_run
    assert {"evaluate", "read_run", "Run"} <= set(diffjax.__all__)
