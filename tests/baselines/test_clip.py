"""CLIP as a zero-shot classifier, and its runs."""

import json

import numpy as np
import pytest
from commands import assert_refused, invoke
from contrastive_models import GOLDEN, write_open_clip
from PIL import Image
from tiny_sets import write_folder

from diffjax.baselines import clip
from diffjax.baselines.clip import load_clip
from diffjax.baselines.naming import load_baseline
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.files import read_json
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import run_log_scores
from diffjax.runs.outcomes import outcomes

NAMES = ("cat", "dog", "fox")
TEMPLATES = ("a {}.", "the {} of")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    shapes = read_json(GOLDEN)["vit"]["shapes"]
    return write_open_clip(tmp_path_factory.mktemp("clip"), "vit", shapes)


@pytest.fixture(scope="module")
def model(folder):
    return load_clip(str(folder))


def images(n=5):
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (70, 90, 3), np.uint8) for _ in range(n)]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_a_class_is_the_mean_of_its_prompts(model, monkeypatch):
    prompts = Prompts.from_labels(NAMES, TEMPLATES)
    monkeypatch.setitem(clip.PROMPTS_AT_ONCE, "cpu", 4)
    classifier = model.of(prompts)
    t = np.stack([model.texts((each,))[0][0] for each in prompts.prompts])
    wanted = unit(t.reshape(3, 2, -1).mean(1))
    np.testing.assert_allclose(classifier.classes, wanted, atol=1e-6)
    pixels = np.stack([classifier.pixels(image) for image in images()])
    logits = np.exp(2) * model.images(pixels) @ wanted.T
    wanted = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    found = classifier.log_probabilities(pixels)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.std() > 1e-3 and classifier.log_probabilities(pixels[:0]).size == 0
    # in parts that end anywhere, and in any order of prompts
    monkeypatch.setattr(clip, "PROMPTS_IN_MEMORY", 5)
    again = model.of(prompts)
    np.testing.assert_allclose(again.classes, classifier.classes, atol=1e-6)


def test_a_prompt_that_is_cut_is_told_of(model):
    with pytest.warns(UserWarning, match="12 tokens of a prompt; 1 longer"):
        model.texts(("cat", "the cat of the dog of the cat of the dog of the cat"))


def test_a_run_holds_its_probabilities_and_goes_on(folder, model, tmp_path):
    photos = write_folder(tmp_path / "photos", dict.fromkeys(NAMES, 2))
    name, out = f"clip:{folder}", tmp_path / "run"
    given = [item for text in TEMPLATES for item in ("--template", text)]
    command = ("baseline", name, photos, *given, "--out", out, "--json")
    result = invoke(*command, "--limit", 4)
    assert json.loads(result.stdout)["images"] == 4, result.stderr
    result = invoke(*command)
    assert json.loads(result.stdout)["images"] == 6, result.stderr
    run = read_run(out)
    found = outcomes(run)
    classifier = model.of(Prompts.from_labels(NAMES, TEMPLATES))
    read = [np.asarray(Image.open(path)) for path in sorted(photos.rglob("*.png"))]
    pixels = [classifier.pixels(image) for image in read]
    wanted = classifier.log_probabilities(np.stack(pixels))
    np.testing.assert_allclose(run_log_scores(found, 1.0), wanted, atol=1e-5)
    described = run.header["model"]
    assert (described["kind"], described["name"]) == ("contrastive", name)
    assert run.prompts.prompts == Prompts.from_labels(NAMES, TEMPLATES).prompts
    other = invoke(*command[:3], "--template", "my {}.", *command[-3:])
    assert_refused(other, "model.prompts")
    assert invoke("report", out, "--json").exit_code == 0


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, message in (
        ("clip:nowhere", "no folder or file here.*RN50"),
        ("clip:", "names no baseline"),
        ("clop:a/b", "clip:NAME"),
    ):
        with pytest.raises(DiffjaxError, match=message):
            load_baseline(name)
    with pytest.raises(DiffjaxError, match=r"timm/resnet50_clip\.openai"):
        load_baseline("clip:RN50", local_files_only=True, cache_dir=tmp_path / "cache")
    (tmp_path / "config.json").write_text('{"architectures": ["SiglipModel"]}')
    with pytest.raises(DiffjaxError, match="describes a SiglipModel"):
        load_baseline("clip:.")
