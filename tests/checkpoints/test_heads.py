"""LAION's heads against torch's and TensorFlow's answers, and files that are none.

../shared/data/aesthetic has the published files; where it is not, their tests skip.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz_saved_model import LISTS, write_detector
from safetensors.numpy import save_file

from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.heads import EMBEDDED, load_aesthetic, load_detector
from diffjax.errors import DiffjaxError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "aesthetic"
FILES = {
    "mlp": "sac+logos+ava1-l14-linearMSE.pth",
    "linear": "sa_0_4_vit_l_14_linear.pth",
}
published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason=f"there are no published files in {PUBLISHED}"
)
RNG = np.random.default_rng(5)

# scores of ``drawn``, by torch with the published weights
SCORES = {
    "mlp": [4.464581, 5.480434, 5.008131, 5.676256, 5.575932, 5.619209],
    "linear": [3.99617, 2.240095, 3.634363, 3.836671, 6.898921, 4.171821],
}
# probabilities of ``drawn`` and ``ratings``, in float16, by TensorFlow 2.21
DRAWN = [1.533495e-4, 0.046322279, 0.25222808, 1.1422324e-4, 0.0067022787, 3.2342346e-6]
RATED = [
    *(6.667327e-5, 8.2582e-5, 1.2068474e-4, 1.0290305e-4, 1.5600481e-4),
    *(2.2353439e-4, 2.4787322e-4, 1.6992226e-4, 1.0119669e-4, 8.846921e-5),
]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def drawn():
    """Six images' features, as TensorFlow was asked for."""
    return unit(np.random.default_rng(0).normal(size=(6, 768)).astype(np.float32))


def ratings():
    """Means of the features of images that V1 rated k to k + 1."""
    return np.stack([np.load(PUBLISHED / f"rating{k}.npy").ravel() for k in range(10)])


@published
@pytest.mark.parametrize("name", FILES)
def test_aesthetic_heads_score_as_in_torch(name):
    torch = pytest.importorskip("torch")
    from torch import nn

    state = torch.load(PUBLISHED / FILES[name], map_location="cpu", weights_only=True)
    if name == "linear":
        model = nn.Linear(768, 1)
    else:
        widths = [(768, 1024), (1024, 128), (128, 64), (64, 16)]
        parts = [part for w in widths[:3] for part in (nn.Linear(*w), nn.Dropout())]
        model = nn.Module()
        model.layers = nn.Sequential(*parts, nn.Linear(64, 16), nn.Linear(16, 1))
        model.forward = model.layers.forward
    model.load_state_dict(state)
    features = np.concatenate([ratings(), drawn()])
    with torch.no_grad():
        wanted = model.eval().forward(torch.tensor(features)).numpy()[:, 0]
    assert (np.diff(wanted[:10]) > 0).all()  # as they were rated
    for head in (load_aesthetic(name), load_aesthetic(str(PUBLISHED / FILES[name]))):
        np.testing.assert_allclose(head(features), wanted, rtol=1e-4, atol=1e-5)


def test_what_the_package_has_is_that_of_the_published_heads():
    features = drawn()
    for name, wanted in SCORES.items():
        np.testing.assert_allclose(load_aesthetic(name)(features), wanted, atol=1e-5)
    assert EMBEDDED.stat().st_size < 2**13


@published
def test_the_detector_answers_as_in_tensorflow():
    detector = load_detector(PUBLISHED / "clip_autokeras_binary_nsfw.zip")
    np.testing.assert_allclose(detector(drawn()), DRAWN, rtol=1e-4)
    np.testing.assert_allclose(detector(ratings()), RATED, rtol=1e-4)
    lists = {c: len(numbers) for c, numbers in detector.categories.items()}
    assert lists == {180: 10425, 316: 2266, 413: 2190, 440: 2293, 644: 2241}


def test_a_detector_of_a_file_is_computed_as_its_layers_say(tmp_path):
    variables = write_detector(tmp_path / "a.zip")
    x = RNG.uniform(-1, 1, (50, 4)).astype(np.float32)
    x[::2, 1] = RNG.choice([0.5, -0.25, 0.5001], 25)  # the last is 0.5 in float16
    x[::3, 3] = 0.125
    seen = x.astype(np.float16).astype(np.float64)
    for column, texts in LISTS.items():
        for row in seen:
            text = f"{row[column]:.6f}"
            row[column] = 1 + texts.index(text) if text in texts else 0
    assert {0.0, 1.0, 2.0} == set(seen[:, 1]) and {0.0, 1.0} == set(seen[:, 3])
    v = {key.removeprefix("layer_with_weights-"): a for key, a in variables.items()}
    y = (seen - v["1/mean"]) / np.sqrt(v["1/variance"])
    for k in (2, 3):
        y = np.maximum(y @ v[f"{k}/kernel"] + v[f"{k}/bias"], 0)
    wanted = 1 / (1 + np.exp(-(y @ v["4/kernel"] + v["4/bias"])[:, 0]))
    np.testing.assert_allclose(load_detector(tmp_path / "a.zip")(x), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Dense": {"activation": "relu"}}, "has activation='relu'"),
        ({"ReLU": {"negative_slope": 0.1}}, "negative_slope=0.1"),
        ({"Activation": {"activation": "softmax"}}, "softmax"),
        ({"Custom>MultiCategoryEncoding": {"encoding": ["one_hot"] * 4}}, "encoded"),
        ({"Custom>MultiCategoryEncoding": {"encoding": ["int"] * 4}}, "is no detector"),
        ({"lists": {1: ("a", "a")}}, "not numbered from 1"),
        ({"hidden": ()}, None),
    ],
)
def test_a_model_of_other_layers_is_refused(tmp_path, changed, message):
    write_detector(tmp_path / "a.zip", **changed)
    if message is None:
        assert load_detector(tmp_path / "a.zip").width == 4
        return
    with pytest.raises(DiffjaxError, match=message):
        load_detector(tmp_path / "a.zip")


def test_files_that_are_no_heads(tmp_path):
    with pytest.raises(DiffjaxError, match=r"raw\.githubusercontent.*--detector"):
        load_detector(tmp_path / "none.zip")
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    with pytest.raises(DiffjaxError, match="damaged or incomplete"):
        load_detector(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/keras_metadata.pb", b"")
    with pytest.raises(DiffjaxError, match=r"0 files saved_model\.pb, not one"):
        load_detector(tmp_path / "a.zip")
    with pytest.raises(DiffjaxError, match="no aesthetic head of this name"):
        load_aesthetic("relu")
    tensors = read_tensors(EMBEDDED)
    weight, bias = tensors["linear.weight"], tensors["linear.bias"]
    path = tmp_path / "head.safetensors"
    save_file({"weight": np.array(weight), "bias": np.array(bias)}, path)
    assert load_aesthetic(str(path)).width == 768
    for wrong, message in (
        ({"weight": weight}, "is no aesthetic head: it has weight"),
        ({"weight": weight[0], "bias": bias}, "are no layer"),
        ({"weight": weight * np.nan, "bias": bias}, "not finite"),
        ({"weight": np.ones((2, 3)), "bias": np.ones(2)}, "more than a score"),
    ):
        save_file({key: np.array(t, np.float32) for key, t in wrong.items()}, path)
        with pytest.raises(DiffjaxError, match=message):
            load_aesthetic(str(path))
