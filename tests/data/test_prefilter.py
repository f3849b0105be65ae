"""Prefilters: files of candidate classes, and what they leave to a strategy."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saved_runs import tables, write_run

from diffjax.data.prefilter import Prefilter, read_prefilter
from diffjax.data.sources import Example
from diffjax.errors import DiffjaxError
from diffjax.report.compare import read_report
from diffjax.report.page import page
from diffjax.runs.metrics import summary
from diffjax.runs.rescoring import rescore
from diffjax.strategies.base import NEVER, run_on
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.shortlist import restrict, shorten

PIXELS = np.zeros((2, 2, 3), np.float32)


def example(name):
    return Example(image=np.zeros((2, 2, 3), np.uint8), label=0, id=name)


def write(path, rows):
    if path.suffix == ".csv":
        lines = [f"{name},{' '.join(map(str, classes))}" for name, classes in rows]
        path.write_text("\n".join(["id,classes", *lines]))
    else:
        names, classes = zip(*rows, strict=True)
        pq.write_table(pa.table({"classes": classes, "id": names, "p": names}), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_gives_each_image_its_classes(tmp_path, suffix):
    rows = [("b.jpg", [5, 2]), ("a, 1.jpg" if suffix == ".parquet" else "a.jpg", [7])]
    path = write(tmp_path / f"clip{suffix}", rows)
    prefilter = read_prefilter(path)
    for name, classes in rows:
        assert prefilter.choose(example(name), PIXELS) == tuple(classes)
    with pytest.raises(DiffjaxError, match=r"no candidate classes .* c\.jpg.*b\.jpg"):
        prefilter.choose(example("c.jpg"), PIXELS)
    before = prefilter.describe()
    assert before["name"] == path.name and len(before["fingerprint"]) == 16
    write(path, [("b.jpg", [5, 3])])
    assert read_prefilter(path).describe() != before


def test_a_function_is_known_by_its_name():
    def best_two(pixels):
        return [int(pixels.sum()), 1]

    prefilter = Prefilter.of(best_two)
    assert prefilter.choose(example("any"), PIXELS) == [0, 1]
    assert prefilter.describe()["name"].endswith("best_two")


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.txt", "", r"name it \.csv"),
        ("a.csv", None, "There is no file"),
        ("a.csv", "id,labels\na,1", "columns must include id and classes"),
        ("a.csv", "id,classes\na,1\nb,cat", r"line 3: .*'cat'"),
        ("a.csv", "id,classes\na,1\na,2", "line 3: .* already"),
        ("a.csv", "id,classes\na,", "line 2: .* no candidate"),
        ("a.csv", "id,classes\na", "line 2: 1 fields instead of 2"),
        ("a.csv", 'id,classes\n"a', "unexpected end"),
        ("a.parquet", "id,classes\na,1", "no parquet table"),
    ],
)
def test_malformed_files_say_where(tmp_path, name, text, match):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DiffjaxError, match=match):
        read_prefilter(tmp_path / name)


# ---- strategies


@pytest.mark.parametrize("strategy", [Exhaustive(n_samples=16), Racing(n_samples=16)])
def test_only_the_classes_that_are_left_are_evaluated(strategy):
    [errors], _ = tables(1, 8, 16)
    classidx = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    state = restrict(strategy.start(8, 16, classidx), (3, 1))

    def evaluate(state, request):
        assert set(classidx[request.classes]) <= {1, 3}
        return errors[np.ix_(request.classes, request.samples)]

    decision = strategy.decide(run_on(strategy, state, evaluate))
    assert set(classidx[decision.ranking[:4]]) == {1, 3}
    assert (decision.n_samples == 0).tolist() == [True, True, False, False] * 2


def test_a_single_class_is_decided_without_much_ado():
    state = restrict(Racing(n_samples=16).start(3, 16), [2])
    ones = lambda _, r: np.ones((1, len(r.samples)), np.float32)  # noqa: E731
    done = run_on(Racing(n_samples=16), state, ones)
    assert Racing(n_samples=16).decide(done).winner == 2
    assert done.n_evaluations == Racing().floor


def test_a_shortlist_is_made_of_what_is_left():
    state = restrict(Racing().start(4, 1000), [1, 2, 3])
    estimates = np.array([[0.0], [3.0], [1.0], [2.0]], np.float32)
    state = shorten(state, 2, estimates, 1)
    assert np.flatnonzero(state.dropped == NEVER).tolist() == [2, 3]


@pytest.mark.parametrize(("classes", "match"), [([], "no class"), ([4], "class 4")])
def test_no_class_or_an_unknown_one_is_refused(classes, match):
    with pytest.raises(DiffjaxError, match=match):
        restrict(Racing().start(4, 1000), classes)


# ---- runs


def test_a_run_tells_how_often_the_label_was_left(tmp_path):
    errors, _ = tables(4, 3, 8, gap=3)
    best = errors.mean(axis=2).argmin(axis=1)
    left = [[int(b), int(b + 1) % 3] for b in best]
    labels = [*best[:2], (best[2] + 1) % 3, (best[3] + 2) % 3]  # right, right, no, lost
    described = {"name": "clip.csv", "fingerprint": "0" * 16}
    run = write_run(
        tmp_path / "run",
        errors,
        labels,
        header={"experiment": {"prefilter": described}},
        columns={"candidates": left},
    )
    found = summary(run)["prefilter"]
    low, high = found.pop("recall_interval")
    assert 0 < low < 0.75 < high < 1
    assert found == described | {
        "recall": 0.75,
        "classes_per_image": 2.0,
        "acc1_of_these": pytest.approx(2 / 3),
    }
    # decided again, it is among the same classes
    again = rescore(run, strategy=Exhaustive(n_samples=8))
    assert [row["candidates"] for row in again.rows] == left
    assert {row["evaluations"] for row in again.rows} == {16}
    report = read_report([run.path])
    assert any("clip.csv" in note for note in report.groups[0].notes)
    text = page(report)
    assert ", prefilter clip.csv</td>" in text
    assert "left 2.0 classes an image, and the label" in text


def test_a_prefilter_and_a_shortlist_beside_each_other(tmp_path):
    errors, labels = tables(4, 3, 8, gap=3)
    costs = {"evaluation": 2e9, "prefilter": 4e9}
    described = {"name": "clip:a/b:k=2", "fingerprint": "0" * 16}
    clip = write_run(
        tmp_path / "clip",
        errors,
        labels,
        header={"experiment": {"prefilter": described}, "flops": costs},
        columns={"candidates": [[0, 1]] * 4, "evaluations": [16] * 4},
    )
    left = [[8, 8, 0], [8, 0, 8], [0, 8, 8], [8, 8, 0]]
    short = write_run(
        tmp_path / "short",
        errors,
        labels,
        header={
            "experiment": {"shortlist": {"k": 2}},
            "flops": costs | {"prefilter": 0.0},
        },
        columns={"n_samples": left, "evaluations": [22] * 4},
    )
    one, other = summary(clip), summary(short)
    assert one["flops_per_image"] == 16 * 2e9 + 4e9
    assert one["prefilter"]["flops"] == 4e9
    assert other["flops_per_image"] == 22 * 2e9
    found = other["shortlist"]
    kept = [each[label] > 0 for label, each in zip(labels, left, strict=True)]
    assert found["k"] == 2 == found["classes_per_image"]
    assert found["recall"] == sum(kept) / 4 and "flops" not in found
    report = read_report([clip.path, short.path])
    notes = " ".join(report.groups[0].notes)
    assert "the prefilter left 2.0 classes an image" in notes
    assert "3.6e+10 FLOPs an image, 11.1 % of them the prefilter's." in notes
    assert "the shortlist left 2.0 classes an image" in notes
    assert "4.4e+10 FLOPs an image." in notes
    assert "label among them %" in page(report)


def test_other_runs_say_nothing_of_prefilters(tmp_path):
    errors, labels = tables(2, 3, 8)
    run = write_run(tmp_path / "run", errors, labels)
    assert "prefilter" not in summary(run)
    assert "prefilter" not in page(read_report([run.path]))
