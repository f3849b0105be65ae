"""Classifiers that others trained, by their names; and what data sets make of them."""

import json
import re

import numpy as np
import pytest
import torch
from tiny_sets import IMAGENET, write_folder, write_objectnet
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from diffjax.baselines.naming import load_baseline
from diffjax.baselines.own import EMBEDDED
from diffjax.data.imagenet import are_imagenet, imagenet_names, wordnet_ids
from diffjax.errors import DiffjaxError
from diffjax.evaluation.baselines import evaluate_baseline
from diffjax.evaluation.experiment import Experiment
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import run_log_scores
from diffjax.runs.outcomes import outcomes


def save_vit(folder, n, names=None):
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        num_labels=n,
    )
    if names is not None:
        config.id2label = dict(enumerate(names))
    torch.manual_seed(0)
    module = ViTForImageClassification(config)
    with torch.no_grad():
        module.classifier.weight.normal_(0, 0.3)
    module.save_pretrained(folder)
    ViTImageProcessorPil(size=16).save_pretrained(folder)
    return module.eval()


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A classifier of 1,000 classes without names, and torch's."""
    folder = tmp_path_factory.mktemp("models") / "vit"
    return folder, save_vit(folder, 1000)


def theirs(module, task):
    """Probabilities by transformers' own classes, of a task's images."""
    images = [task.source[int(i)].image for i in task.indices]
    seen = ViTImageProcessorPil(size=16)(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        return module(seen).logits.softmax(1).numpy()


def test_a_subset_of_imagenet_decides_among_its_classes(imagenet, tmp_path):
    """As ImageNet-A and -R: the logits of their classes alone."""
    folder, module = imagenet
    names = [wordnet_ids()[i] for i in (6, 11, 999)]
    photos = write_folder(tmp_path / "imagenet-x", dict.fromkeys(names, 4))
    task = Experiment(dataset=str(photos)).task()
    model = load_baseline(f"vit:{folder}")
    evaluate_baseline(task, model, tmp_path / "run")
    wanted = theirs(module, task)[:, [6, 11, 999]]
    found = outcomes(read_run(tmp_path / "run"))
    np.testing.assert_array_equal(found.predictions, wanted.argmax(1))
    log_scores = run_log_scores(found, 1.0)
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_scores), wanted, rtol=1e-4)


def test_a_class_of_objectnet_is_several_of_imagenets(imagenet, tmp_path):
    folder, module = imagenet
    write_objectnet(tmp_path)
    task = Experiment(dataset="objectnet").task(tmp_path)
    evaluate_baseline(task, load_baseline(f"vit:{folder}"), tmp_path / "run")
    every = theirs(module, task)
    wanted = np.stack([every[:, list(ids)].sum(1) for ids in task.source.model_classes])
    assert {len(ids) for ids in task.source.model_classes} == {1, 2}
    found = outcomes(read_run(tmp_path / "run"))
    np.testing.assert_array_equal(found.predictions, wanted.argmax(0))
    assert set(np.concatenate(task.source.model_classes)) == set(IMAGENET.values())


def test_wordnet_ids_in_another_order_are_found(tmp_path):
    """A model that numbers ImageNet's classes otherwise, by their ids."""
    backwards = wordnet_ids()[::-1]
    module = save_vit(tmp_path / "vit", 1000, backwards)
    photos = write_folder(tmp_path / "x", {wordnet_ids()[0]: 2, wordnet_ids()[5]: 2})
    task = Experiment(dataset=str(photos)).task()
    evaluate_baseline(task, load_baseline(f"vit:{tmp_path / 'vit'}"), tmp_path / "run")
    wanted = theirs(module, task)[:, [999, 994]].argmax(1)
    found = outcomes(read_run(tmp_path / "run"))
    np.testing.assert_array_equal(found.predictions, wanted)


def test_names_of_the_classes(tmp_path):
    """A classifier of other classes is matched by their names, or by their number."""
    save_vit(tmp_path / "pets", 3, ("fox", "cat, house cat", "dog"))
    save_vit(tmp_path / "nameless", 3)
    photos = write_folder(tmp_path / "photos", {"cat": 1, "dog": 1})
    task = Experiment(dataset=str(photos)).task()
    named = load_baseline(f"vit:{tmp_path / 'pets'}")
    assert task.model_ids(3, named.known_names) == [(1,), (2,)]
    with pytest.raises(DiffjaxError, match="names no classes"):
        evaluate_baseline(task, load_baseline(f"vit:{tmp_path / 'nameless'}"), tmp_path)


def test_names_that_are_not_imagenets_are_told_of(tmp_path):
    published = [f"{name}, Genus species" for name in imagenet_names()]
    assert are_imagenet(published) and not are_imagenet(published[1:] + published[:1])
    assert are_imagenet(wordnet_ids()[::-1])
    save_vit(tmp_path, 1000, [f"thing {i}" for i in range(1000)])
    with pytest.warns(UserWarning, match="its names for them are not ImageNet's"):
        load_baseline(f"vit:{tmp_path}")


def test_what_is_missing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    address = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
    for name, words in {
        "resnet:resnet101": f"not here: fetch {address} into {tmp_path}/hub/check",
        "vit:nothing": "no folder or file here, no Hugging Face id",
        "vit:google/vit-base-patch16-224": "hf download google/vit-base-patch16-224",
    }.items():
        with pytest.raises(DiffjaxError, match=re.escape(words)) as told:
            load_baseline(name, local_files_only=True, cache_dir=tmp_path)
        assert "\n" not in str(told.value)


def test_files_that_do_not_belong_together(tmp_path):
    save_vit(tmp_path, 3)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    with pytest.raises(DiffjaxError, match=r"write vit:"):
        load_baseline(f"resnet:{tmp_path}")
    with pytest.raises(DiffjaxError, match=r"A classifier of transformers' is vit:"):
        load_baseline(str(tmp_path))
    with pytest.raises(DiffjaxError, match=r"goes by its folder alone"):
        load_baseline(f"resnet:{EMBEDDED['resnet']}")
    for change, message in [
        ({"image_size": 32}, "makes images of 16 pixels, but"),
        ({"num_hidden_layers": 2}, r"missing \(16\)"),
        ({"id2label": {"1": "a"}}, "id2label must name the classes"),
        ({"architectures": ["SwinForImageClassification"]}, "describes a Swin"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ]:
        path.write_text(json.dumps(raw | change))
        with pytest.raises(DiffjaxError, match=message):
            load_baseline(f"vit:{tmp_path}")
