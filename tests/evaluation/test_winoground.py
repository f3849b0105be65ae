"""Winoground's scores: by hand, on disk, and from the command line."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from small import class_model, text_model
from tiny_sets import write_winoground

from diffjax.checkpoints import conditioning
from diffjax.checkpoints.loading import load_model
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.cli.commands import group
from diffjax.data.winoground import read_winoground
from diffjax.errors import DiffjaxError
from diffjax.evaluation.winoground import evaluate_winoground
from diffjax.models.limits import Limits
from diffjax.runs.folder import read_run
from diffjax.runs.rows import read_rows
from diffjax.runs.sharing import Share
from diffjax.runs.winoground import (
    SCORES,
    cells,
    columns,
    summarise,
    winoground_scores,
)
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.staged import Staged

# errors e[caption][image], errors of the empty caption, and the five scores
BY_HAND = {
    "all right": ([[1, 3], [2, 1]], [2, 2], "text image group ni ng"),
    # image 1 is easy under any caption, which only the plain image score minds
    "easy image": ([[5, 3], [6, 1]], [7, 3], "text ni ng"),
    "captions alike": ([[1, 3], [1, 2]], [2, 3], ""),  # a tie is wrong
    "caption 0 always": ([[1, 1], [2, 2]], [2, 2], ""),
    "all swapped": ([[3, 1], [1, 3]], [2, 2], ""),
    "one text right": ([[1, 2], [2, 3]], [2, 3], ""),
    # plain right, normalised wrong: image 0 is easy, its caption does not help it
    "image by ease": ([[1, 4], [1.5, 1.4]], [1, 5], "text image group"),
}
SHORT = {"image_normalised": "ni", "group_normalised": "ng"}


@pytest.mark.parametrize("case", BY_HAND)
def test_scores_by_hand(case):
    errors, empty, right = BY_HAND[case]
    scores = winoground_scores(np.array([errors], float), np.array([empty], float))
    found = {SHORT.get(name, name) for name, value in scores.items() if value[0]}
    assert found == set(right.split())


def test_chance_is_what_the_docstring_says():
    rng = np.random.default_rng(0)
    scores = winoground_scores(rng.random((60_000, 2, 2)), rng.random((60_000, 2)))
    shares = [scores[name].mean() for name in ("text", "image", "group")]
    np.testing.assert_allclose(shares, [1 / 4, 1 / 4, 1 / 6], atol=0.01)


def test_normalising_ignores_how_easy_an_image_is():
    rng = np.random.default_rng(1)
    errors, empty = rng.random((500, 2, 2)), rng.random((500, 2))
    shift = rng.random((500, 2)) * 10
    before = winoground_scores(errors, empty)
    after = winoground_scores(errors + shift[:, None], empty + shift)
    for name in ("text", "image_normalised", "group_normalised"):
        np.testing.assert_array_equal(before[name], after[name])
    assert (before["image"] != after["image"]).any()


def test_proportions_by_tag():
    def row(tag, text, **more):
        scores = dict.fromkeys(SCORES, False) | {"text": text}
        return {
            "error": None,
            "collapsed_tag": tag,
            "tag": f"{tag} fine",
            **scores,
        } | more

    rows = [row("Object", True), row("Object", False), row("Relation", True)]
    rows.append(row("Both", True, error="unreadable"))
    summary = summarise(rows)
    assert summary["examples"] == 3
    assert summary["failed_examples"] == 1
    assert summary["overall"]["text"]["score"] == pytest.approx(2 / 3)
    low, high = summary["overall"]["text"]["interval"]
    assert 0 < low < 2 / 3 < high < 1
    tags = summary["by_collapsed_tag"]
    assert {t: (e["n"], e["text"]["score"]) for t, e in tags.items()} == {
        "Object": (2, 0.5),
        "Relation": (1, 1.0),
    }
    assert set(summary["by_tag"]) == {"Object fine", "Relation fine"}
    assert summarise([])["overall"] == {"n": 0}


@pytest.fixture(scope="module")
def classifier():
    strategy = Exhaustive(n_samples=4)
    return DiffusionClassifier(text_model(), Settings(strategy=strategy, cells=12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_winoground(tmp_path_factory.mktemp("sets"))


def test_a_run_is_scored_and_goes_on(classifier, folder, tmp_path, monkeypatch):
    examples = read_winoground(folder)
    summary = evaluate_winoground(examples, classifier, tmp_path / "run")
    rows = read_rows(tmp_path / "run", columns(), errors=True)[0].to_pylist()
    assert [row["id"] for row in rows] == [example.id for example in examples]
    assert {row["evaluations"] for row in rows} == {2 * 3 * 4}
    for row in rows:
        cells = [[row[f"caption_{c}_image_{i}"] for i in (0, 1)] for c in (0, 1)]
        empty = [row["empty_image_0"], row["empty_image_1"]]
        expected = winoground_scores(np.array([cells]), np.array([empty]))
        assert {s: row[s] for s in SCORES} == {
            s: bool(v[0]) for s, v in expected.items()
        }
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary

    monkeypatch.setattr(classifier, "score", None)  # no example is done again
    again = evaluate_winoground(examples, classifier, tmp_path / "run")
    assert again == summary
    with pytest.raises(DiffjaxError, match="not a run of classifications"):
        read_run(tmp_path / "run")


def test_a_large_text_encoder_is_read_once(folder, tmp_path, monkeypatch):
    """Not once an example, though it is let go; and the errors are the same."""
    examples = read_winoground(folder)
    settings = Settings(strategy=Exhaustive(n_samples=1))

    def run(name):
        classifier = DiffusionClassifier(load_model("tiny"), settings)
        evaluate_winoground(examples, classifier, tmp_path / name)
        return read_rows(tmp_path / name, columns(), errors=True)[0].to_pylist()

    def errors(rows):
        return [[row[cell] for cell in cells()] for row in rows]

    kept = run("kept")
    monkeypatch.setattr(conditioning, "LARGE_TEXT_ENCODER", {"cpu": 0})
    read, found = conditioning.load_network, []

    def counted(folder, name, *args, **kwargs):
        found.append(name)
        return read(folder, name, *args, **kwargs)

    monkeypatch.setattr(conditioning, "load_network", counted)
    let_go = run("let go")
    # once for the run's header, which has its fingerprint, and once for all captions
    assert len(found) <= 2 < len(examples)
    assert errors(let_go) == errors(kept)


def test_both_images_share_their_noise(classifier, folder, tmp_path):
    """The same picture twice has the same errors twice."""
    example = read_winoground(folder)[0]
    same = dataclasses.replace(example, images=(example.images[0],) * 2)
    evaluate_winoground([same], classifier, tmp_path / "run")
    [row] = read_rows(tmp_path / "run", columns(), errors=True)[0].to_pylist()
    for caption in ("caption_0", "caption_1", "empty"):
        assert row[f"{caption}_image_0"] == row[f"{caption}_image_1"]
    assert not row["text"] and not row["image"]


def test_a_broken_image_is_counted(classifier, folder, tmp_path):
    first, *others = read_winoground(folder)
    image = tmp_path / "image.png"
    image.write_bytes(b"nothing")
    examples = [dataclasses.replace(first, images=(image, first.images[1])), *others]
    summary = evaluate_winoground(examples, classifier, tmp_path / "run")
    assert summary["failed_examples"] == 1
    assert summary["examples"] == len(others)
    image.write_bytes(first.images[0].read_bytes())
    healed = evaluate_winoground(examples, classifier, tmp_path / "run")
    assert healed["failed_examples"] == 0
    with pytest.raises(DiffjaxError, match="another configuration"):
        evaluate_winoground([first, *others], classifier, tmp_path / "run")


def test_what_cannot_be_compared_is_refused(folder, tmp_path):
    examples = read_winoground(folder)
    staged = Settings(strategy=Staged(to_keep=(2, 1), n_samples=(2, 4)))
    with pytest.raises(DiffjaxError, match="exhaustive"):
        evaluate_winoground(
            examples, DiffusionClassifier(text_model(), staged), tmp_path / "run"
        )
    with pytest.raises(DiffjaxError, match="need a text model"):
        evaluate_winoground(examples, DiffusionClassifier(class_model()), tmp_path)


def test_processes_share_the_examples(folder, classifier, tmp_path):
    examples = read_winoground(folder)
    alone = evaluate_winoground(examples, classifier, tmp_path / "alone")
    counts = []
    for index in (1, 0):
        share = Share(index, 2)
        found = evaluate_winoground(examples, classifier, tmp_path / "run", share=share)
        counts.append((found["examples"], found["status"]))
    n = len(examples)
    assert counts == [(n // 2, "in progress"), (n, "complete")]
    assert found == alone and (tmp_path / "run" / "summary.json").exists()


def test_the_command_without_a_set(tmp_path):
    result = CliRunner().invoke(group, ["winoground", str(tmp_path)])
    assert result.exit_code == 2
    assert "examples.jsonl" in result.stderr


def test_the_command_prints_every_tag_and_names_the_run_by_the_set(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = ["--model", "tiny", "--n-samples", "1", "--quiet"]
    result = CliRunner().invoke(group, ["winoground", str(folder), *options])
    assert result.exit_code == 0, result.stderr
    lines = [each for each in result.stdout.splitlines() if each[:1] != " "]
    assert [line.split()[0] for line in lines[:6]] == [
        "examples",
        "all",
        "Both",
        "Object",
        "Relation",
        "Noun",
    ]
    run = tmp_path / "runs" / f"{folder.name}-tiny"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["dataset"] == folder.name
    assert json.loads((run / "run.json").read_text())["data"]["name"] == folder.name
    small = [*options, "--max-pixels", "1", "--out", str(tmp_path / "small")]
    result = CliRunner().invoke(group, ["winoground", str(folder), *small])
    failed = f"{summary['examples']} of {summary['examples']} examples failed"
    assert result.exit_code == 2 and failed in result.stderr


def test_captions_that_a_small_model_never_saw_are_told_of_once(folder, tmp_path):
    def told(*words):
        limits = Limits(trained_on="mugs", instead="more", words=frozenset(words))
        model = dataclasses.replace(text_model(), limits=limits)
        small = DiffusionClassifier(
            model, Settings(strategy=Exhaustive(n_samples=1), cells=12)
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluate_winoground(read_winoground(folder), small, tmp_path / words[0])
        return [line for each in caught if "never saw" in (line := str(each.message))]

    assert not told("a", "mug", "in", "grass", "0", "1", "2")
    [line] = told("grass", "in", "a", "mug", "2")
    assert "'a mug in grass 0', 'grass in a mug 0'" in line and "1 more" in line
