"""A classifier of one's own image folder, and its classes in a data set's order."""

import json

import numpy as np
import pytest
from PIL import Image

from diffjax.baselines.own import load_classifier
from diffjax.data.folders import open_folder
from diffjax.data.pairs import PairSource
from diffjax.errors import DiffjaxError
from diffjax.evaluation.baselines import evaluate_baseline
from diffjax.evaluation.task import make_task
from diffjax.runs.folder import read_run
from diffjax.training.images import REMEDY, square_arrays
from diffjax.training.runs import run_training

COLOURS = {"dog": (220, 30, 30), "a cat": (30, 30, 220), "ship": (30, 220, 30)}
# what the other tests train on, so that nothing new is compiled
SIZE = (32, 32)


def folder_of(path, sizes, per_class=2):
    """Images of one colour a class, of these sizes in turn."""
    for name, colour in COLOURS.items():
        (path / name).mkdir(parents=True)
        for k in range(per_class):
            image = Image.new("RGB", sizes[k % len(sizes)], colour)
            image.save(path / name / f"{k:05d}.png")
    return path


def test_a_folder_trains_a_classifier_that_knows_its_classes_by_name(tmp_path):
    data = folder_of(tmp_path / "data", [SIZE])
    model = run_training("test-resnet", None, tmp_path / "out", data=data)
    trained = load_classifier(model)
    assert trained.class_names == ("a cat", "dog", "ship")
    assert trained.resolution == 32
    # another set has them in another order
    names = ("ship", "dog", "a cat")
    examples = [(np.full((32, 32, 3), c, np.uint8), n) for n, c in COLOURS.items()]
    source = PairSource(examples, names)
    run = tmp_path / "run"
    evaluate_baseline(make_task(source, np.arange(3)), trained, run)
    rows = read_run(run, errors=False).rows.sort_by("index")
    seen = np.stack([trained.pixels(image) for image, _ in examples])
    own = trained.log_probabilities(seen).argmax(axis=1)
    assert [names[c] for c in rows["prediction"].to_pylist()] == [
        trained.class_names[c] for c in own
    ]


def test_a_run_is_of_the_images_themselves(tmp_path):
    data, out = folder_of(tmp_path / "data", [SIZE]), tmp_path / "out"
    run_training("test-resnet", None, out, data=data, steps=3)
    Image.new("RGB", SIZE, "green").save(data / "dog" / "00001.png")
    with pytest.raises(DiffjaxError, match=r"holds another run[\s\S]*data: "):
        run_training("test-resnet", None, out, data=data)
    with pytest.raises(DiffjaxError, match="resize: None → 8"):
        run_training("test-resnet", None, out, data=data, resize=8)


def test_sizes_are_taken_as_they_are_or_resized_when_asked(tmp_path):
    source = open_folder(folder_of(tmp_path / "uneven", [(20, 12), (16, 16)]))
    with pytest.raises(DiffjaxError, match="differ in size") as caught:
        square_arrays(source)
    assert REMEDY in str(caught.value)
    images, labels = square_arrays(source, 8)
    assert images.shape == (6, 8, 8, 3) and labels.tolist() == [0, 0, 1, 1, 2, 2]
    # one colour stays itself
    assert np.abs(images.astype(int) - images[:, :1, :1]).max() <= 1
    np.testing.assert_array_equal(images[3, 0, 0], [220, 30, 30])
    oblong = open_folder(folder_of(tmp_path / "oblong", [(20, 12)]))
    with pytest.raises(DiffjaxError, match="20×12 pixels, and must be squares"):
        square_arrays(oblong)


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("test", {}, "made for cifar10; --data takes the place of a classifier's"),
        ("resnet", {}, "has 6 images, with mirror images 12, and a step of resnet"),
        ("test-resnet", {"data": None, "resize": 8}, "--resize is of the images of"),
        ("test-resnet", {"data": "one"}, "has one class, 'dog'"),
        ("test-resnet", {"data": "nowhere"}, "There is no folder"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    tmp_path, cifar_like, recipe, settings, message
):
    folder_of(tmp_path / "data", [SIZE])
    (tmp_path / "one" / "dog").mkdir(parents=True)
    for k in range(4):
        Image.new("RGB", SIZE).save(tmp_path / "one" / "dog" / f"{k}.png")
    asked = {"data": "data"} | settings
    data = None if asked["data"] is None else tmp_path / asked["data"]
    out = tmp_path / "out"
    with pytest.raises(DiffjaxError, match=message):
        run_training(recipe, cifar_like, out, data=data, resize=asked.get("resize"))
    assert not out.exists()


@pytest.fixture
def cifar_like(tmp_path, monkeypatch):
    """A folder of data sets, whose cifar10 is the folder of one's own."""
    monkeypatch.setattr(
        "diffjax.training.runs.open_tfds",
        lambda *_: open_folder(tmp_path / "data"),
    )
    return tmp_path


def test_the_header_of_a_run_of_the_recipes_data_has_no_resize(tmp_path, cifar_like):
    folder_of(tmp_path / "data", [SIZE])
    run_training("test-resnet", cifar_like, tmp_path / "out", steps=3)
    header = json.loads((tmp_path / "out" / "run.json").read_text())
    assert header["data"] == open_folder(tmp_path / "data").fingerprint
    assert "resize" not in header
