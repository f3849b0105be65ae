"""CIFAR-10-C and its relatives, as their archives have them, only smaller."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import forbid_network

from diffjax.data.common_corruptions import CORRUPTIONS
from diffjax.data.datasets import open_source
from diffjax.data.presets import PRESETS
from diffjax.errors import DiffjaxError
from diffjax.evaluation.request import requested

N = 4  # test images, where there are 10,000
SAVED = Path(__file__).parents[2] / "notebooks" / "saved"
WORDNET = {"n01440764": 0, "n01443537": 1, "n04008634": 744}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    forbid_network(monkeypatch)


def write_cifar(root, folder="CIFAR-10-C", n_classes=10):
    """Of image i at severity s all values are 10 s + i."""
    place = root / folder
    place.mkdir()
    values = np.add.outer(10 * np.arange(1, 6), np.arange(N)).ravel().astype(np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (5 * N, 32, 32, 3))
    np.save(place / "fog.npy", images)
    known = np.tile((3 * np.arange(N) + 1) % n_classes, 5)  # as published: five times
    np.save(place / "labels.npy", known)
    return place


def write_imagenet(root, *above):
    """Two images of each of three classes, of which severity s has the value 10 s."""
    for severity in range(1, 6):
        for wnid, k in WORDNET.items():
            place = root.joinpath("ImageNet-C", *above, "fog", str(severity), wnid)
            place.mkdir(parents=True)
            for i in range(2):
                image = Image.new("RGB", (8, 8), (10 * severity,) * 3)
                image.save(place / f"ILSVRC2012_val_{k:06d}{i:02d}.JPEG")


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_severity_is_a_block_of_the_array(tmp_path, severity):
    write_cifar(tmp_path)
    source = open_source(f"cifar10_c/fog/{severity}", data_dir=tmp_path)
    assert len(source) == N and source.split == "test"
    assert source.labels().tolist() == [1, 4, 7, 0]
    for i, example in enumerate(source):
        assert (example.image == 10 * severity + i).all()
        assert example.image.shape == (32, 32, 3)
        assert example.label == (3 * i + 1) % 10
        assert example.id == f"test_{i:05d}"  # the clean image's


def test_classes_are_numbered_as_cifars(tmp_path):
    """As the class names of a run on the clean images say."""
    write_cifar(tmp_path)
    clean = json.loads((SAVED / "tiny-cifar10" / "run.json").read_text())
    source = open_source("cifar10_c/fog/1", data_dir=tmp_path)
    assert list(source.class_names) == clean["class_names"]
    write_cifar(tmp_path, "CIFAR-100-C", 100)
    hundred = open_source("cifar100_c/fog/1", data_dir=tmp_path).class_names
    # its fine labels are numbered by the alphabet
    assert list(hundred) == sorted(hundred) and len(hundred) == 100


def test_the_fingerprint_is_of_the_images(tmp_path):
    write_cifar(tmp_path)
    prints = [
        open_source(f"cifar10_c/fog/{s}", data_dir=tmp_path).fingerprint
        for s in (1, 2, 1)
    ]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize("above", [(), ("weather",)])
def test_imagenets_folders(tmp_path, above):
    write_imagenet(tmp_path, *above)
    source = open_source("imagenet_c/fog/4", data_dir=tmp_path)
    assert source.split == "validation" and len(source) == 6
    assert source.labels().tolist() == [0, 0, 1, 1, 2, 2]
    assert source.model_classes == ((0,), (1,), (744,))
    example = source[5]
    assert example.id == "ILSVRC2012_val_00074401.JPEG"  # the clean image's
    assert abs(int(example.image[0, 0, 0]) - 40) < 3


def test_the_names_of_the_corruptions():
    """As tensorflow-datasets lists CIFAR-10-C's files."""
    known = pytest.importorskip(
        "tensorflow_datasets.image_classification.cifar10_corrupted"
    )
    files = {f"{name}.npy" for name in CORRUPTIONS}
    assert files == set(known._CORRUPTIONS_TO_FILENAMES.values())
    assert len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 19
    assert len(known.BENCHMARK_CORRUPTIONS) == 15
    benchmark = {
        known._CORRUPTIONS_TO_FILENAMES[n] for n in known.BENCHMARK_CORRUPTIONS
    }
    assert benchmark == {f"{name}.npy" for name in CORRUPTIONS[:15]}


@pytest.mark.parametrize("how", ["preset", "dataset"])
def test_the_clean_sets_preset_has_the_prompts(tmp_path, how):
    write_cifar(tmp_path)
    options = {"limit": 2}
    name = "cifar10_c/fog/2"
    if how == "dataset":
        options["dataset"] = name
    asked = requested(name if how == "preset" else "cifar10", options)
    preset = PRESETS["cifar10"]
    assert options == {"strategy": preset.strategy}
    task = asked.experiment.task(tmp_path)
    assert task.prompts.prompts[0] == "a blurry photo of a airplane."
    assert len(task.indices) == 2 and task.source.name == name
    assert str(asked.folder("tiny")) == "runs/cifar10_c-fog-2-tiny"


def test_imagenets_preset_takes_the_prompts_of_the_classes_present(tmp_path):
    write_imagenet(tmp_path)
    asked = requested("imagenet_c/fog/2", {})
    with pytest.warns(UserWarning, match="Of the prompts' 1,000 classes the 3"):
        task = asked.experiment.task(tmp_path)
    assert task.class_names == ("tench", "goldfish", "missile")
    assert task.model_ids(1000, None) == [(0,), (1,), (744,)]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        (
            "cifar10_c",
            None,
            r"write cifar10_c/CORRUPTION/SEVERITY.*gaussian_noise, shot",
        ),
        ("cifar10_c/fog", None, "write cifar10_c/CORRUPTION"),
        ("cifar10_c/fog/6", None, "1 to 5 for the severity"),
        ("cifar10_c/mist/1", None, "names no corruption"),
        ("cifar10_c/fog/1/2", None, "names no corruption"),
        (
            "cifar10_c/fog/1",
            "train",
            "no split of cifar10_c 'train'; choose one of test",
        ),
        (
            "cifar10_c/snow/1",
            None,
            r"snow\.npy is missing.* CIFAR-10-C\.tar from https",
        ),
        ("cifar100_c/fog/1", None, r"CIFAR-100-C/fog\.npy is missing"),
        ("imagenet_c/fog/1", None, r"ImageNet-C/fog/1 is missing\. Fetch blur\.tar"),
    ],
)
def test_what_is_not_there(tmp_path, name, split, message):
    write_cifar(tmp_path)
    with pytest.raises(DiffjaxError, match=message):
        open_source(name, split, tmp_path)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("fog.npy", np.zeros((20, 32, 32, 3), np.float32), "holds float32"),
        ("fog.npy", np.zeros((21, 32, 32, 3), np.uint8), r"of shape \(21, 32, 32, 3\)"),
        ("fog.npy", np.zeros((20, 3, 32, 32), np.uint8), r"of shape \(20, 3, 32, 32\)"),
        ("labels.npy", np.zeros(4, int), r"labels\.npy int64 of shape \(4,\)"),
        ("labels.npy", np.full(20, 10), "labels from 10 to 10; the classes are 0 to 9"),
        ("labels.npy", np.zeros(20), "float64"),
    ],
)
def test_damaged_files(tmp_path, file, array, message):
    np.save(write_cifar(tmp_path) / file, array)
    with pytest.raises(DiffjaxError, match=message):
        open_source("cifar10_c/fog/1", data_dir=tmp_path)


def test_folders_that_are_no_wordnet_ids(tmp_path):
    place = tmp_path / "ImageNet-C" / "fog" / "1" / "tench"
    place.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place / "1.JPEG")
    with pytest.raises(DiffjaxError, match=r"WordNet ids \(tench, for one\)"):
        open_source("imagenet_c/fog/1", data_dir=tmp_path)
