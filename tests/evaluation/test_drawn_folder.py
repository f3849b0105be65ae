"""Images drawn into a folder: whatever the batch, the devices, and interruptions."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from small import class_model, glance, text_model

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.settings import Settings
from diffjax.data.drawn import DrawnFolder
from diffjax.data.folders import open_folder
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.evaluation.sampling import Sampler, batches, draw_folder
from diffjax.evaluation.subjects import asked_prompts, subjects_of
from diffjax.models.sampling import DDIM
from diffjax.scoring import placement
from diffjax.scoring.noise import SeededNoise
from diffjax.scoring.placement import block_mesh, place_weights, replicate

NAMES, TEMPLATES = ["cat", "dog", "F-16A/B"], ("a {}.", "the {}!")


def classifier_of(model, **settings):
    model = replace(model, sampling_at=lambda resolution: DDIM(offset=1))
    return DiffusionClassifier(model, Settings(cells=4, **settings))


@pytest.fixture(scope="module")
def classifier():
    return classifier_of(text_model(denoiser=glance()))


def sampler_of(classifier, **settings):
    subjects = subjects_of(classifier.model, NAMES, TEMPLATES)
    return Sampler(classifier, subjects, **{"steps": 3, "guidance": 2.0} | settings)


def drawn(classifier, path, per_class=3, **settings):
    sampler = sampler_of(classifier, **settings)
    folder = sampler.open(path)
    draw_folder(sampler, folder, per_class, Progress())
    return folder


def contents(path):
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "sample.json"
    }


def pixels(path):
    files = sorted(path.rglob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


@pytest.fixture(scope="module")
def whole(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "whole"
    drawn(classifier, path)
    return path


def test_a_folder_of_classes_and_a_table_of_its_prompts(whole):
    with (whole / "prompts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 == len(list(whole.rglob("*.png")))
    assert rows[1] == {
        "file": "cat/00001.png",
        "class": "cat",
        "prompt": "the cat!",
        "seed": "0",
    }
    assert (
        rows[8]["file"] == "F-16A%2FB/00002.png" and rows[8]["prompt"] == "a F-16A/B."
    )
    assert all((whole / row["file"]).is_file() for row in rows)
    assert len({image.tobytes() for image in pixels(whole)}) == 9


@pytest.mark.filterwarnings("error")
def test_the_folder_is_a_data_set_whose_classes_are_called_as_they_are(whole):
    source = open_folder(whole)
    assert source.class_names == ("F-16A/B", "cat", "dog") and len(source) == 9


@pytest.mark.parametrize("batch", [2, 6])
def test_an_image_does_not_depend_on_those_beside_it(
    classifier, whole, tmp_path, batch
):
    drawn(classifier, tmp_path / "other", batch=batch)
    assert np.abs(pixels(tmp_path / "other") - pixels(whole)).max() <= 1


def test_nor_on_the_number_of_devices(classifier, whole, tmp_path):
    assert classifier.grid.devices == 2
    alone = classifier_of(text_model(denoiser=glance()))
    one = block_mesh(jax.devices()[:1])
    grid = replace(
        alone.grid,
        mesh=one,
        denoiser=place_weights(alone.model.denoiser, one, sharded=False),
        noise=replicate(SeededNoise.of(0), one),
    )
    alone.grid = grid
    drawn(alone, tmp_path / "one", batch=3)
    assert np.abs(pixels(tmp_path / "one") - pixels(whole)).max() <= 1


def test_nor_on_where_the_weights_are(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "SMALLEST_SPLIT", 1)
    split = classifier_of(text_model(denoiser=glance()), shard_weights="always")
    leaves = jax.tree.leaves(split.grid.denoiser)
    assert any(not leaf.sharding.is_fully_replicated for leaf in leaves)
    drawn(split, tmp_path / "split")
    assert np.abs(pixels(tmp_path / "split") - pixels(whole)).max() <= 1


def test_a_class_is_drawn_alike_beside_other_classes(classifier, whole, tmp_path):
    subjects = subjects_of(classifier.model, ["dog"], TEMPLATES)
    sampler = Sampler(classifier, subjects, steps=3, guidance=2.0)
    draw_folder(sampler, sampler.open(tmp_path / "dog"), 3, Progress())
    ours, theirs = pixels(tmp_path / "dog" / "dog"), pixels(whole / "dog")
    assert np.abs(ours - theirs).max() <= 1


def test_what_was_interrupted_goes_on_to_the_same_bytes(
    classifier, whole, tmp_path, monkeypatch
):
    path, add = tmp_path / "killed", DrawnFolder.add

    def killed(folder, label, number, *rest):
        if number == 1 and label == 1:
            raise KeyboardInterrupt
        add(folder, label, number, *rest)

    monkeypatch.setattr(DrawnFolder, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        drawn(classifier, path)
    assert len((path / "prompts.csv").read_text().splitlines()) == 1 + 4
    (path / "cat" / ".00001.png.abc.partial").write_bytes(b"half")
    monkeypatch.setattr(DrawnFolder, "add", add)
    drawn(classifier, path)
    assert contents(path) == contents(whole)


def test_more_of_a_class_are_added(classifier, whole, tmp_path):
    path = tmp_path / "grown"
    drawn(classifier, path, per_class=1, batch=2)
    before = contents(path)
    folder = drawn(classifier, path)  # in batches as it began
    assert folder.header["batch"] == 2
    after = contents(path)
    assert after.keys() == contents(whole).keys()
    assert all(after[name] == before[name] for name in before if name != "prompts.csv")
    drawn(classifier, path, per_class=1)  # all of them stay in the table
    assert contents(path) == after


def test_images_come_number_by_number():
    assert list(batches(2, 2, 3)) == [[(0, 0), (1, 0), (0, 1)], [(1, 1)]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 4}, "steps: 3 → 4"),
        ({"guidance": 1.0}, "guidance: 2.0 → 1.0"),
    ],
)
def test_what_was_drawn_otherwise_is_refused(classifier, whole, settings, message):
    with pytest.raises(DiffjaxError, match=message):
        sampler_of(classifier, **settings).open(whole)


def test_a_folder_of_something_else_is_left_alone(classifier, whole, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DiffjaxError, match="holds something else than drawn images"):
        sampler_of(classifier).open(tmp_path)
    other = tmp_path / "damaged"
    shutil.copytree(whole, other)
    (other / "sample.json").write_text("{")
    with pytest.raises(DiffjaxError, match=r"sample\.json is not JSON"):
        sampler_of(classifier).open(other)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([".git"], "No folder can be called"),
        (["sample.json"], "No folder can be called"),
        (["x" * 201], "No folder can be called"),
        (["Cat", "cat"], "differ by capitals alone"),
        ([], "Name at least one class"),
    ],
)
def test_classes_without_a_folder_of_their_own_are_refused(
    classifier, tmp_path, names, message
):
    with pytest.raises(DiffjaxError, match=message):
        subjects = subjects_of(classifier.model, names)
        Sampler(classifier, subjects, steps=3).open(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_prompts_of_a_preset_and_of_its_classes():
    subjects = subjects_of(
        text_model(denoiser=glance()), asked_prompts("imagenet_a", None)
    )
    assert len(subjects.names) == 200
    assert subjects.rows[subjects.row(7, 3)] == subjects.prompt(7, 3)
    with pytest.raises(DiffjaxError, match="PRESET or --prompts"):
        asked_prompts("pets", "pets")


def test_classes_are_ids_where_the_model_takes_these():
    model = class_model(class_names=("crane", "bird", "crane", *"abcdefg"))
    assert subjects_of(model, None).names[:3] == ("crane 0", "bird", "crane 2")
    assert subjects_of(model, ["bird"]).ids == (1,)
    named = Prompts.from_labels(["bird", "a"])
    assert subjects_of(model, named).ids == (1, 3)
    with pytest.raises(DiffjaxError, match="does not know the class 'dog'"):
        subjects_of(model, ["dog"])


def test_a_model_that_nobody_samples_says_so(classifier):
    model = replace(classifier.model, sampling_at=None)
    with pytest.raises(DiffjaxError, match="Nobody says how small is sampled"):
        model.steps(3, 16)


def test_the_sheet_shows_the_first_images(whole):
    from diffjax.data.sheets import named_sheet

    images = [Image.open(file) for file in sorted(Path(whole / "cat").glob("*.png"))]
    sheet = np.asarray(named_sheet([("cat", images), ("a class", images[:1])]))
    # 16 pixels are enlarged four times; the name stands to the left
    first = np.asarray(images[0])
    left = sheet.shape[1] - 3 * 66
    assert sheet.shape[0] == 2 * 66 and left > 10
    np.testing.assert_array_equal(sheet[:64:4, left : left + 64 : 4], first)
    assert (sheet[:64, :left] < 128).any() and (sheet[66:, left + 66 :] == 255).all()
