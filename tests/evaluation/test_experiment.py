"""Experiments: what is named on the command line becomes a task, without a model."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_sets import write_folder

from diffjax.data.presets import PRESETS
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import Experiment, overridden, preset_experiment


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "photos", {"cat": 4, "dog": 4, "fox": 4})
    return tmp_path


def experiment(folder, **kwargs):
    return Experiment(dataset=str(folder / "photos"), **kwargs)


def clip_files(folder, tables):
    names, templates = ["kitten", "puppy", "vixen"], ["{c}!", "a {c}"]
    suffix = ".json" if tables else ".txt"
    paths = [folder / f"names{suffix}", folder / f"templates{suffix}"]
    for path, lines in zip(paths, (names, templates), strict=True):
        text = json.dumps({"beasts": lines}) if tables else "\n".join(lines)
        path.write_text(text)
    return {"classnames": str(paths[0]), "templates": str(paths[1])}


@pytest.mark.parametrize("tables", [False, True])
def test_names_and_templates_of_clip_benchmark(folder, tables):
    asked = clip_files(folder, tables) | ({"clip_name": "beasts"} if tables else {})
    task = experiment(folder, **asked).task()
    assert task.prompts.prompts[:2] == ("kitten!", "a kitten")
    assert task.class_names == ("kitten", "puppy", "vixen")


def test_ways_to_give_prompts_exclude_each_other(folder):
    asked = clip_files(folder, tables=False)
    with pytest.raises(DiffjaxError, match="exclude each other"):
        experiment(folder, template=("a {}",), **asked).task()
    with pytest.raises(DiffjaxError, match="together"):
        experiment(folder, classnames=asked["classnames"]).task()


def test_templates_alone_take_the_data_sets_own_names(folder):
    asked = clip_files(folder, tables=True)
    task = experiment(folder, templates=asked["templates"], clip_name="beasts").task()
    assert task.prompts.prompts[:3] == ("cat!", "a cat", "dog!")
    assert task.class_names == ("cat", "dog", "fox")


def imagenet_folder(tmp_path):
    write_folder(tmp_path / "some", {"n02119789": 1, "n01440764": 1, "n04008634": 1})
    return Experiment(dataset=str(tmp_path / "some"))


def test_folders_of_wordnet_ids_have_imagenets_names_and_class_ids(tmp_path):
    task = imagenet_folder(tmp_path).task()
    assert task.class_names == ("tench", "kit fox", "missile")
    assert task.prompts.prompts[1] == "a photo of a kit fox."
    asked = replace(Experiment(dataset=task.source.name), template=("see {}",))
    assert asked.task().prompts.prompts[1] == "see kit fox"
    assert task.model_ids(1000, None) == [(0,), (278,), (744,)]


def test_prompts_of_imagenet_are_restricted_to_the_folders_present(tmp_path):
    asked = replace(imagenet_folder(tmp_path), prompts="imagenet")
    with pytest.warns(UserWarning, match="Of the prompts' 1,000 classes the 3 of"):
        task = asked.task()
    assert task.class_names == ("tench", "kit fox", "missile")
    assert task.classes == (0, 1, 2)
    names = json.dumps({"imagenet1k": [f"name {i}" for i in range(1000)]})
    (tmp_path / "names.json").write_text(names)
    (tmp_path / "templates.txt").write_text("{c}")
    asked = replace(
        asked,
        prompts=None,
        classnames=str(tmp_path / "names.json"),
        templates=str(tmp_path / "templates.txt"),
        clip_name="imagenet1k",
    )
    assert asked.task().class_names == ("name 0", "name 278", "name 744")


def test_further_prompts_are_distractors_if_the_first_go_by_the_sets_names(folder):
    file = folder / "prompts.csv"
    rows = ["prompt,classname,classidx"]
    rows += [f"a {name},{name},{i}" for i, name in enumerate(["Cat", "dog", "fox"])]
    file.write_text("\n".join([*rows, "a tench,tench,3", "a hen,hen,4"]))
    task = experiment(folder, prompts=str(file)).task()
    assert task.classes == (0, 1, 2, 3, 4)
    assert task.class_names[3:] == ("tench", "hen")
    assert len(task.indices) == 12
    file.write_text("\n".join([*rows, "a hen,hen,3"]).replace("fox", "hawk"))
    with pytest.raises(DiffjaxError, match=r"for 4 classes, but .*photos has 3"):
        experiment(folder, prompts=str(file)).task()


def test_prompts_that_number_the_set_s_names_otherwise_are_refused(folder):
    """Else each image of a class would be wrong where the model is right."""
    file = folder / "prompts.csv"

    def task(*names):
        rows = [f"a {name},{name},{i}" for i, name in enumerate(names)]
        file.write_text("\n".join(["prompt,classname,classidx", *rows]))
        return experiment(folder, prompts=str(file)).task()

    told = r"Class 0 is 'dog' in the prompts, but 'cat' in .*, where 'dog' is class 1"
    with pytest.raises(DiffjaxError, match=told):
        task("Dog", "cat", "fox")
    with pytest.raises(DiffjaxError, match=r"Class 0 is 'fox'.* class 2"):
        task("fox", "cat", "dog")
    # names of one's own, also such as another class has here, or all of them others
    for names in (("kitten", "Dog", "fox"), ("kitten", "dog", "cat"), ("a", "b", "c")):
        assert task(*names).class_names == names


def test_wordnet_ids_have_an_order_too(tmp_path):
    write_folder(tmp_path / "photos", {"n01440764": 1, "n01443537": 1})
    file = tmp_path / "prompts.csv"
    file.write_text("prompt,classname,classidx\na,goldfish,0\nb,tench,1\n")
    with pytest.raises(DiffjaxError, match=r"'tench' in .*'goldfish' is class 1"):
        experiment(tmp_path, prompts=str(file)).task()


def test_classes_restrict_before_the_limit(folder):
    chosen = folder / "two.txt"
    chosen.write_text("0 2")
    task = experiment(folder, classes=str(chosen), limit=4).task()
    labels = task.source.labels()[task.indices]
    np.testing.assert_array_equal(labels, [0, 0, 2, 2])
    assert task.classes == (0, 2) and task.prompts.class_names == ("cat", "fox")


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_given_takes_the_place_of_the_preset(name):
    preset = preset_experiment(name)
    assert overridden(preset, {"limit": 3, "template": ()}).limit == 3
    own = overridden(preset, {"template": ("a {}",)})
    assert own.template == ("a {}",) and own.prompts is None
    assert own.dataset == preset.dataset
    other = overridden(preset, {"dataset": "./elsewhere"})
    assert other == Experiment(dataset="./elsewhere")
