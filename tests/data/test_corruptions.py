"""Images made worse."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import picture, write_folder

import diffjax
from diffjax.data.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    CorruptedSource,
    Corruption,
    parse_corruption,
)
from diffjax.data.folders import open_folder
from diffjax.data.sources import Source
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import Experiment

IMAGES = Path(diffjax.__file__).parent / "assets" / "images"


@pytest.fixture(scope="module")
def photographs():
    """Seven real ones of 32×32 pixels."""
    paths = sorted(IMAGES.glob("*.png"))
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def distance(images, corruption):
    changed = [corruption.apply(image, k) for k, image in enumerate(images)]
    return np.abs(np.array(changed, int) - np.array(images)).mean()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_more_severe_is_farther_away(kind, photographs):
    distances = [
        distance(photographs, Corruption(kind=kind, severity=severity))
        for severity in SEVERITIES
    ]
    assert 0 < distances[0] and all(np.diff(distances) > 0.2)
    assert distances[-1] < 70


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_pure_function_of_seed_and_index(kind, photographs):
    image = photographs[0]
    before = image.copy()
    corruption = Corruption(kind=kind, severity=3)
    changed = [corruption.apply(image, index) for index in range(20)]
    np.testing.assert_array_equal(corruption.apply(image, 5), changed[5])
    np.testing.assert_array_equal(image, before)
    different = len({each.tobytes() for each in changed})
    assert different == {"noise": 20, "shift": 4}.get(kind, 1)
    seeded = Corruption(kind=kind, severity=3, seed=1)
    others = [seeded.apply(image, index) for index in range(20)]
    assert np.array_equal(others, changed) == (kind not in ("noise", "shift"))


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(8, 6), (33, 47)])
def test_any_shape_and_all_of_the_range(kind, shape):
    for image in (picture(0, *shape), np.zeros((*shape, 3), np.uint8)):
        changed = Corruption(kind=kind, severity=5).apply(image, 0)
        assert changed.shape == image.shape and changed.dtype == np.uint8


def test_noise_has_the_stated_strength():
    grey = np.full((64, 64, 3), 128, np.uint8)
    changed = Corruption(kind="noise", severity=2).apply(grey, 0)
    assert np.std(changed) == pytest.approx(255 * 0.06, rel=0.03)


def test_a_constant_image_only_takes_noise():
    grey = np.full((32, 32, 3), 90, np.uint8)
    for kind in set(CORRUPTIONS) - {"noise"}:
        changed = Corruption(kind=kind, severity=5).apply(grey, 0)
        # JPEG rounds the mean of a block
        np.testing.assert_allclose(changed, grey, atol=5 if kind == "jpeg" else 0)


def test_contrast_scales_about_the_mean_colour(photographs):
    image = photographs[0].astype(float)
    changed = Corruption(kind="contrast", severity=2).apply(photographs[0], 0)
    np.testing.assert_allclose(
        changed, (image + image.mean((0, 1))) / 2, atol=0.5 + 1e-3
    )


def test_shift_moves_by_the_stated_pixels(photographs):
    image = photographs[0]
    for index in range(4):
        changed = Corruption(kind="shift", severity=4).apply(image, index)
        moved = [
            np.array_equal(part, whole)
            for part, whole in [
                (changed[4:], image[:-4]),
                (changed[:-4], image[4:]),
                (changed[:, 4:], image[:, :-4]),
                (changed[:, :-4], image[:, 4:]),
            ]
        ]
        assert sum(moved) == 1


def test_blur_and_shift_grow_with_the_image(photographs):
    image = photographs[0]
    large = image.repeat(4, 0).repeat(4, 1)
    for kind in ("blur", "shift"):
        corruption = Corruption(kind=kind, severity=5)
        small = corruption.apply(image, 0).astype(float)
        again = corruption.apply(large, 0).reshape(32, 4, 32, 4, 3).mean((1, 3))
        assert np.abs(again - small).mean() < 1.5


def test_a_corrupted_source(tmp_path):
    write_folder(tmp_path, {"cat": 2, "dog": 1})
    source = open_folder(tmp_path)
    corrupted = CorruptedSource(source, parse_corruption("contrast:5"))
    assert isinstance(corrupted, Source)
    assert len(corrupted) == 3
    np.testing.assert_array_equal(corrupted.labels(), source.labels())
    for index, (example, plain) in enumerate(zip(corrupted, source, strict=True)):
        assert (example.id, example.label) == (plain.id, plain.label)
        assert example.image.std() < 0.3 * plain.image.std()
        np.testing.assert_array_equal(example.image, corrupted[index].image)
    others = [
        CorruptedSource(source, Corruption(kind=kind, severity=severity, seed=seed))
        for kind, severity, seed in [("contrast", 4, 0), ("blur", 5, 0), ("blur", 5, 1)]
    ]
    marks = {each.fingerprint for each in (source, corrupted, *others)}
    assert len(marks) == 5
    assert corrupted.name.endswith(" contrast:5")


def test_an_experiment_with_corrupted_images(tmp_path):
    write_folder(tmp_path, {"cat": 2, "dog": 2})
    plain = Experiment(dataset=str(tmp_path)).task()
    experiment = Experiment(dataset=str(tmp_path), corrupt="noise:4")
    task = experiment.task()
    assert experiment.as_dict()["corrupt"] == "noise:4"
    assert task.describe()["fingerprint"] != plain.describe()["fingerprint"]
    assert not np.array_equal(task.source[0].image, plain.source[0].image)
    assert task.prompts == plain.prompts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blur", "as in blur:3, not as 'blur'"),
        ("blur:x", "as in blur:3"),
        ("blur:6", "severity is 1 to 5, not 6"),
        ("fog:1", "no corruption 'fog'; choose one of noise, blur"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(DiffjaxError, match=message):
        parse_corruption(text)
