"""Features in a folder, and the runs of heads that are trained on them."""

import json
from dataclasses import replace
from functools import partial

import joint_pipelines
import numpy as np
import pipelines
import pytest
from noise_runs import Made, task_of, variant

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.subsets import limited
from diffjax.errors import DiffjaxError
from diffjax.evaluation import feature_heads as heads
from diffjax.evaluation import features
from diffjax.evaluation.features import extract, wanted
from diffjax.report.compare import read_report
from diffjax.report.crosstable import cross_table
from diffjax.runs.folder import read_run

NAMES = ("cat", "dog")


class Learned(Made):
    """Other images than those of the test."""

    def __init__(self, n=16, **kwargs):
        super().__init__(NAMES, range(100, 100 + n), **kwargs)
        self.split = "train"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(features, "PART", 5)


@pytest.fixture(scope="module")
def asked(class_classifier):
    return wanted(
        class_classifier,
        ["transformer_blocks.0", "transformer_blocks.1"],
        [10, 500],
        places=4,
    )


def without_head(header):
    """As of a run that no label had a say in."""
    del header["experiment"]["trained"]
    return header


def every(maps):
    return {cell: each.take(np.arange(len(each))) for cell, each in maps.items()}


def test_features_are_computed_once_and_go_on(class_classifier, asked, tmp_path):
    source = Made(NAMES)
    first = every(extract(task_of(source), class_classifier, asked, tmp_path))
    assert set(first) == set(asked.cells)
    assert first["transformer_blocks.0", 10].shape == (12, 4, 4, 16)
    again = Made(NAMES, stop=0)  # nothing is read
    seen = extract(task_of(again), class_classifier, asked, tmp_path)
    for cell, maps in every(seen).items():
        np.testing.assert_array_equal(maps, first[cell])
    assert not again.read
    [place] = tmp_path.iterdir()
    assert json.loads((place / "about.json").read_text())["data"]["n"] == 12
    # what is gone or damaged is computed again, and nothing else
    (place / "transformer_blocks.0-10-00001.npy").unlink()
    (place / "transformer_blocks.1-500-00002.npy").write_bytes(b"\x93NUMPY no array")
    source.read.clear()
    for cell, maps in every(
        extract(task_of(source), class_classifier, asked, tmp_path)
    ).items():
        np.testing.assert_allclose(maps, first[cell], rtol=1e-5, atol=1e-5)
    assert source.read == [*range(5, 12)]
    # another timestep goes beside them, another seed elsewhere
    more = replace(asked, timesteps=(10, 20))
    extract(task_of(source), class_classifier, more, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    other = variant(class_classifier, seed=1)
    found = extract(task_of(source), other, asked, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert not np.allclose(
        every(found)["transformer_blocks.0", 500], first["transformer_blocks.0", 500]
    )


def test_a_larger_limit_adds_to_a_smaller(class_classifier, asked, tmp_path):
    def limited_to(source, n):
        indices = limited(np.arange(12), n)
        return task_of(source, indices, pool=np.arange(12))

    first, more = Made(NAMES), Made(NAMES)
    few = extract(limited_to(first, 7), class_classifier, asked, tmp_path)
    every_one = extract(limited_to(more, 12), class_classifier, asked, tmp_path)
    assert len(first.read) == 7
    assert len(more.read) == 7  # but for those of the part that was not full
    assert {*first.read, *more.read} == {*range(12)}
    whole = every(extract(task_of(Made(NAMES)), class_classifier, asked, tmp_path))
    indices = limited_to(first, 7).indices
    again = Made(NAMES, stop=0)  # nothing is read
    few_again = extract(limited_to(again, 7), class_classifier, asked, tmp_path)
    for cell, maps in every(every_one).items():
        np.testing.assert_allclose(maps, whole[cell], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(every(few_again)[cell], maps[indices])
        np.testing.assert_allclose(
            every(few)[cell], whole[cell][indices], rtol=1e-5, atol=1e-5
        )


def test_what_cannot_be_had_is_told(class_classifier, asked, tmp_path):
    with pytest.raises(DiffjaxError, match=r"image 3 is broken.*--subset"):
        extract(task_of(Made(NAMES, broken=[3])), class_classifier, asked, tmp_path)
    with pytest.raises(DiffjaxError, match="timesteps 0 to 999, and not 1000"):
        wanted(class_classifier, ["transformer_blocks.0"], [1000])
    with pytest.raises(DiffjaxError, match="no layer 'mid'"):
        wanted(class_classifier, ["mid"])
    default = wanted(class_classifier)
    assert default.cells == [("transformer_blocks.0", 100)]


FAMILIES = {
    "SDXL": (pipelines.stable_diffusion_xl, "mid_block"),  # is told sizes
    "SD3": (joint_pipelines.stable_diffusion_3, "transformer_blocks.0"),
    "FLUX": (
        partial(joint_pipelines.flux, guided=True),
        "single_transformer_blocks.0",
    ),
    "PixArt": (partial(joint_pipelines.pixart, alpha=True), "transformer_blocks.0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_features(family, tmp_path):
    save, middle = FAMILIES[family]
    save(tmp_path)
    classifier = DiffusionClassifier.from_pretrained(tmp_path, cells=4)
    asked = wanted(classifier)
    assert asked.cells == [(middle, 100)]
    task = task_of(Made(NAMES), [0, 1, 2])
    [maps] = every(extract(task, classifier, asked, tmp_path / "maps")).values()
    assert np.ptp(maps, axis=0).std() > 0.01  # images differ


def test_images_are_not_learned_from_and_tested_on():
    test, train = task_of(Made(NAMES)), task_of(Learned())
    heads.check_tasks(train, test)
    with pytest.raises(DiffjaxError, match="12 images of made test would be learned"):
        heads.check_tasks(task_of(Made(NAMES)), test)
    heads.check_tasks(task_of(Made(NAMES), [0, 1]), task_of(Made(NAMES), [2, 3]))
    with pytest.raises(DiffjaxError, match="The classes of made train"):
        heads.check_tasks(train, task_of(Made(("cat", "fox"))))


def test_a_head_is_a_run_that_is_marked_trained(
    class_classifier, asked, tmp_path, monkeypatch
):
    train, test = task_of(Learned()), task_of(Made(NAMES))
    learned, tested = (
        extract(task, class_classifier, asked, tmp_path / "maps")
        for task in (train, test)
    )
    course = heads.Course(kinds=("linear",), epochs=2)
    outcomes = heads.train_heads(train, test, learned, tested, course)
    assert [each.cell for each in outcomes] == asked.cells
    best = heads.chosen(outcomes)
    assert best.head.right == max(each.head.right for each in outcomes)
    run_of = (best, train, test, class_classifier, {"dataset": "made"}, asked, course)
    path = heads.write_run(tmp_path, *run_of)
    assert heads.write_run(tmp_path, *run_of) == path  # it is there
    run = read_run(path)
    row = best.row()
    assert run.summary["metrics"]["acc1"] == row["accuracy"] == np.mean(best.right)
    assert run.summary["task"] == "trained_classification"
    told = run.summary["few_shot"]
    assert told.startswith("trained (a linear head on features of ")
    assert "14 images of made train" in told and "trained" in repr(run)
    header = heads._header
    monkeypatch.setattr(heads, "_header", lambda *of: without_head(header(*of)))
    kept = read_run(heads.write_run(tmp_path / "zero-shot", *run_of))
    with pytest.raises(DiffjaxError, match=r"trained.*not zero-shot"):
        heads.zero_shot(run, test)
    beside = heads.zero_shot(kept, test)
    assert beside["same_images"] and beside["images"] == 12
    with pytest.raises(DiffjaxError, match="not of the images of made train"):
        heads.zero_shot(kept, train)
    groups = read_report([path]).groups
    assert any("labels had a say" in note for note in groups[0].notes)
    assert list(cross_table(groups).rows) == ["small, trained"]
