"""Runs of captions and images: choices, and CLIP in a diffusion model's place."""

import json
import math

import caption_sets
import numpy as np
import pytest
from commands import assert_refused, invoke
from contrastive_models import GOLDEN, write_open_clip
from PIL import Image
from small import text_model
from tiny_sets import write_winoground

from diffjax.baselines.clip import load_clip
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.data.compositional import read_captions
from diffjax.evaluation.winoground import evaluate_winoground
from diffjax.files import read_json
from diffjax.runs.rows import read_rows
from diffjax.runs.winoground import (
    CHOICE,
    columns,
    read_caption_run,
    summarise,
    winoground_scores,
)
from diffjax.strategies.exhaustive import Exhaustive


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    shapes = read_json(GOLDEN)["vit"]["shapes"]
    return write_open_clip(tmp_path_factory.mktemp("clip"), "vit", shapes)


@pytest.mark.slow
def test_choices_of_a_diffusion_model(tmp_path):
    """The errors are those of a classification of the part of the image."""
    settings = Settings(strategy=Exhaustive(n_samples=3), noise="shared", cells=6)
    classifier = DiffusionClassifier(text_model(), settings)
    examples = read_captions(caption_sets.write_aro(tmp_path / "aro"))[:4]
    summary = evaluate_winoground(examples, classifier, tmp_path / "run", name="aro")
    run = read_caption_run(tmp_path / "run")
    assert run.header["experiment"]["task"] == CHOICE and run.status == "complete"
    for row, example in zip(run.rows, examples, strict=True):
        right, wrong = row["caption_errors"]
        assert row["text"] == (right < wrong) and row["evaluations"] == 2 * 3
        part = Image.open(example.images[0]).crop(example.box)
        record = classifier.classify(
            np.asarray(part), list(example.captions), template="{}"
        )
        means = [record.errors[c].mean() for c in (0, 1)]
        np.testing.assert_allclose([right, wrong], means, rtol=1e-5)
    assert summary["chance"] == 0.5 and summary["by_tag"].keys() == {
        *("riding", "near", "behind")
    }
    again = evaluate_winoground(examples, classifier, tmp_path / "run", name="aro")
    assert again == summary


def row(tag, text, collapsed="VG-Relation", captions=2):
    return {
        "error": None,
        "tag": tag,
        "collapsed_tag": collapsed,
        "text": text,
        "caption_errors": [0.0] * captions,
    }


def test_the_mean_over_tags_is_the_authors():
    """Each relation once, those that hold both ways not at all."""
    rows = [row("riding", True)] * 3 + [row("riding", False), row("behind", False)]
    rows += [row("near", False)] * 9
    rows += [row("a_b", True, "VG-Attribution")] * 25
    rows += [row("c_d", False, "VG-Attribution")] * 24
    rows += [row("coco-order", True, "coco-order", captions=5)]
    found = summarise(rows)
    assert found["mean_over_tags"] == {
        "VG-Relation": {"score": (0.75 + 0) / 2, "tags": 2},
        "VG-Attribution": {"score": 1.0, "tags": 1},
    }
    assert math.isclose(found["chance"], (63 / 2 + 1 / 5) / 64)
    assert found["overall"]["text"]["score"] == (3 + 25 + 1) / 64


def test_winoground_and_cola_of_clip(clip, tmp_path):
    """Scores are cosines of unit vectors; the run is of the form of any other."""
    folder = write_winoground(tmp_path / "set", 3)
    name, out = f"clip:{clip}", tmp_path / "run"
    result = invoke("winoground", folder, "--model", name, "--out", out, "--json")
    assert json.loads(result.stdout)["status"] == "complete", result.stderr
    model = load_clip(str(clip))
    rows = read_rows(out, columns())[0].to_pylist()
    for found, example in zip(rows, read_captions(folder), strict=True):
        see = model.loaded.processing
        i = model.images(np.stack([see(Image.open(p)) for p in example.images]))
        t = model.texts((*example.captions, ""))[0]
        errors = -(t @ i.T)
        cells = [found[f"caption_{c}_image_{k}"] for c in (0, 1) for k in (0, 1)]
        np.testing.assert_allclose(cells, errors[:2].ravel(), atol=1e-6)
        scores = winoground_scores(errors[None, :2], errors[None, 2])
        assert {s: found[s] for s in scores} == {
            s: bool(v[0]) for s, v in scores.items()
        }
    assert invoke("report", out).exit_code == 0
    result = invoke(
        *("winoground", caption_sets.write_cola(tmp_path / "cola"), "--model", name),
        *("--out", tmp_path / "cola-run", "--json"),
    )
    overall = json.loads(result.stdout)["overall"]
    assert overall["n"] == 1 and "image" in overall


def test_choices_of_clip_by_the_command_and_their_report(clip, tmp_path):
    root = caption_sets.write_sugar_crepe(tmp_path / "sugar")
    (root / "val2017" / "000000222235.jpg").write_bytes(b"no image")
    command = ("winoground", root, "--images", root / "val2017", "--model")
    command = (*command, f"clip:{clip}", "--out", tmp_path / "run", "--json")
    result = invoke(*command, "--allow-errors")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["examples"], found["failed_examples"]) == (1, 1)
    assert set(found["by_tag"]) == {"replace_att"} and found["chance"] == 0.5
    table = invoke(*command[:-1], "--allow-errors").stdout
    assert "replace_att" in table and "chance: 50" in table
    page = tmp_path / "page.html"
    result = invoke("report", tmp_path / "run", "--html", page)
    assert "finds the right caption in" in result.stdout, result.stderr
    text = page.read_text().replace("<wbr>", "")
    assert "a caption that fits it, and others that do not" in text
    assert "image, norm." not in text and "replace_att" in text


def test_what_does_not_fit_is_refused(clip, tmp_path):
    folder = write_winoground(tmp_path / "set", 1)
    command = ("winoground", folder, "--out", tmp_path / "run", "--model")
    loss = invoke(*command, f"clip:{clip}", "--loss", "l1", "--n-samples", 3)
    assert_refused(loss, "Only diffusion models take --n-samples, --loss")
    other = invoke(*command, "vit:vit_b_16")  # and its weights are not asked for
    assert_refused(other, "vit:vit_b_16 knows its own classes and no captions")
