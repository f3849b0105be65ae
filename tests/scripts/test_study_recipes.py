"""Short trials of recipes: their settings fit, and what is measured of a model."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.cli import demo
from diffjax.data.images import load_image
from diffjax.training.recipes import get_recipe

SCRIPT = Path(__file__).parents[2] / "scripts" / "study_recipes.py"
IMAGES = {
    path: truth for path, truth in demo.examples().items() if "_" in path.stem
}  # of CIFAR-10's own


@pytest.fixture
def study(monkeypatch):
    spec = importlib.util.spec_from_file_location("study_recipes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study_recipes", module)
    spec.loader.exec_module(module)
    return module


def test_variants_differ_from_the_recipe_in_what_they_name(study):
    tiny = get_recipe("tiny")
    for name, settings in study.VARIANTS.items():
        recipe = study.variant(name)
        assert recipe.name == name
        assert recipe.crops == 1 and recipe.vae == tiny.vae
        for key, value in settings.items():
            assert getattr(recipe, key) == value
        states = recipe.text_encoder["hidden_size"]
        assert recipe.unet["cross_attention_dim"] == states
    former = study.variant("former")
    assert (former.unet, former.scheduler) == (tiny.unet, tiny.scheduler)
    assert former.scenes_logit_normal == tiny.scenes_logit_normal is not None


class Test:  # CIFAR-10's test images that are in the package, five times each
    class_names = tuple(demo.LABELS)

    def __getitem__(self, index):
        path, truth = [*IMAGES.items()][index % len(IMAGES)]
        label = self.class_names.index(truth)
        return SimpleNamespace(image=np.asarray(load_image(path)), label=label)


def test_what_is_measured_is_what_the_classifier_says(study, monkeypatch):
    monkeypatch.setattr(study, "open_tfds", lambda *_: Test())
    monkeypatch.setattr(study, "N_SAMPLES", 4)
    found = study.measure("tiny", None, len(IMAGES), 8)
    clf = DiffusionClassifier.from_pretrained("tiny", strategy="exhaustive:n_samples=4")
    records = clf.classify(list(IMAGES), demo.LABELS, "a blurry photo of a {}.")
    right = [
        r.label == truth for r, truth in zip(records, IMAGES.values(), strict=True)
    ]
    assert found.accuracy["noise"] == pytest.approx(np.mean(right))
    assert found.timesteps == records[0].samples.timesteps.tolist()
    assert len(found.gap) == len(found.scene_gap) == 4
    assert max(found.gap) > 0  # a caption helps somewhere
    # of eight pairs two differ by place alone, so four images
    assert found.place["noise"] * 4 % 1 == found.attributes["noise"] * 12 % 1 == 0
    text = study.table({"tiny": {"images": 5, **vars(found)}})
    assert text.splitlines()[2].startswith("| tiny | 5 | ")
    assert f"{100 * found.gap[0]:.2f}" in text
