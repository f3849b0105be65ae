"""Audits of small data sets, by a small CLIP and heads of its width."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from commands import assert_refused, invoke
from contrastive_models import GOLDEN, write_open_clip
from fuzz_saved_model import write_detector
from safetensors.numpy import save_file
from tiny_sets import picture, save, write_folder

from diffjax.baselines.clip import load_clip
from diffjax.checkpoints.heads import load_aesthetic, load_detector
from diffjax.data.images import load_image
from diffjax.evaluation import audit as auditing
from diffjax.files import read_csv, read_json
from diffjax.models.clip_image import CLIPConfig

WIDTH = 24  # of the small CLIP's features


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """A CLIP, a head and a detector."""
    folder = tmp_path_factory.mktemp("judges")
    shapes = read_json(GOLDEN)["vit"]["shapes"]
    (folder / "clip").mkdir()
    write_open_clip(folder / "clip", "vit", shapes)
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(1, WIDTH)).astype(np.float32)
    head = {"weight": weight, "bias": np.full(1, 4.5, np.float32)}
    save_file(head, folder / "head.safetensors")
    write_detector(folder / "detector.zip", WIDTH)
    return folder


def options(judges):
    return (
        *("--clip", judges / "clip", "--aesthetic-head", judges / "head.safetensors"),
        *("--detector", judges / "detector.zip", "--json"),
    )


def table(out):
    return [cells for _, cells in read_csv(out / "images.csv", ("index",))]


@pytest.fixture
def photos(tmp_path):
    folder = write_folder(tmp_path / "photos", {"cat": 3, "dog": 2})
    save(folder / "dog" / "large.png", picture(7, 90, 600))
    return folder


def test_an_audit_is_of_its_judges_figures_and_goes_on(
    judges, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(auditing, "SECONDS", 0.0)
    (photos / "cat" / "1.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    command = ("audit", photos, *options(judges), "--out", out, "--min-size", 80)
    first = invoke(*command, "--limit", 2, "--allow-errors")
    assert json.loads(first.stdout)["result"]["images"] == 2
    before = {each["id"]: each for each in table(out)}
    monkeypatch.setattr(auditing, "_judged", counting := Counting(auditing._judged))
    result = invoke(*command)
    assert_refused(result, "1 images failed", "--allow-errors")
    assert counting.indices == [k for k in range(6) if str(k) not in _indices(before)]
    found = json.loads(result.stdout)
    assert (found["result"]["images"], found["result"]["failed_images"]) == (5, 1)
    assert found == read_json(out / "audit.json")
    assert found["result"]["filters"]["size"]["filtered_out"] == 4
    rows = {each["id"]: each for each in table(out)}
    assert all(rows[name] == each for name, each in before.items())
    assert "1.png" in rows.pop("image 1")["error"]

    clip = load_clip(str(judges / "clip"))
    images = {"dog/large.png": picture(7, 90, 600)}
    images |= {f"{name}/0.png": picture(seed) for name, seed in CLASSES.items()}
    see = clip.loaded.processing
    pixels = np.stack([see(load_image(image)) for image in images.values()])
    features = clip.images(pixels)
    rng = np.random.default_rng(1)
    wanted = {
        "aesthetic": features @ rng.normal(size=WIDTH) + 4.5,
        "unsafe": load_detector(judges / "detector.zip")(features),
    }
    for name, values in wanted.items():
        ours = [float(rows[image][name]) for image in images]
        np.testing.assert_allclose(ours, values, rtol=1e-4)
    large = rows["dog/large.png"]
    assert (large["width"], large["height"], large["label"]) == ("600", "90", "dog")

    # mended, the image is judged; other limits judge none
    save(photos / "cat" / "1.png", picture(1))
    counting.indices.clear()
    assert json.loads(invoke(*command).stdout)["result"]["images"] == 6
    assert counting.indices == [1]
    result = invoke(*command, "--min-aesthetic", 99)
    assert result.exit_code == 0 and counting.indices == [1], result.stderr
    shares = json.loads(result.stdout)["result"]["filters"]
    assert shares["aesthetic"]["share"] == shares["size+aesthetic+unsafe"]["share"] == 1


CLASSES = {"cat": 0, "dog": 100}


def _indices(rows):
    return {each["index"] for each in rows.values() if not each["error"]}


class Counting:
    """Notes which images are judged."""

    def __init__(self, judged):
        self.judged, self.indices = judged, []

    def __call__(self, task, judges, indices):
        self.indices += indices
        return self.judged(task, judges, indices)


def test_sizes_need_no_models(photos, tmp_path):
    out = tmp_path / "out"
    result = invoke("audit", photos, "--filter", "size", "--out", out)
    assert result.exit_code == 0, result.output
    assert "100.0%" in result.stdout and "6 images" in result.stdout
    sizes = {(each["width"], each["height"]) for each in table(out)}
    assert sizes == {("6", "8"), ("600", "90")}
    found = read_json(out / "audit.json")["result"]
    assert list(found["filters"]) == ["size"]
    other = invoke("audit", photos, "--filter", "size", "--out", out, "--json")
    assert json.loads(other.stdout)["result"] == found


def test_judges_that_are_missing_or_do_not_fit(judges, photos, tmp_path):
    given = options(judges)
    out = ("--out", tmp_path / "out")
    none = invoke("audit", photos, *given[:4], *out, "--data-dir", tmp_path)
    assert_refused(none, tmp_path / "clip_autokeras_binary_nsfw.zip", "Fetch https://")
    wide = invoke("audit", photos, *given[:2], *out, "--filter", "aesthetic")
    assert_refused(wide, "24 features", "takes 768", "--clip ViT-L-14")
    limit = invoke("audit", photos, *out, "--filter", "size", "--max-unsafe", "nan")
    assert_refused(limit, "must be finite, not 4.5 for aesthetic and nan")
    assert not (tmp_path / "out").exists()


def test_other_features_of_as_many_numbers_are_told_of(judges):
    clip = load_clip(str(judges / "clip"))
    texts = replace(clip.loaded.config.text, projection_dim=768)
    for vision, told in ((auditing.VIT_L_14, 0), (clip.loaded.config.vision, 1)):
        config = CLIPConfig(vision=vision, text=texts)
        other = replace(clip, loaded=replace(clip.loaded, config=config))
        heads = {"aesthetic": load_aesthetic("mlp")}
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            auditing.Judges(clip=other, heads=heads).check()
        assert len(found) == told
