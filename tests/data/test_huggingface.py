"""Data sets of Hugging Face's library, made and saved by the library itself."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_sets import forbid_network, picture

from diffjax.data.datasets import open_source, source_of
from diffjax.errors import DiffjaxError

datasets = pytest.importorskip("datasets")

NAMES = ["cat", "dog", "fox"]
IMAGES = [Image.fromarray(np.asarray(picture(k))) for k in range(6)]


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path_factory):
    """No network, no bars, and a cache of one's own."""
    forbid_network(monkeypatch)
    datasets.disable_progress_bars()
    cache = tmp_path_factory.getbasetemp() / "hf-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


def made(label=None, labels=(0, 1, 2, 0, 1, 2), **more):
    columns = {"img": IMAGES, "kind": list(labels)} | more
    label = datasets.ClassLabel(names=NAMES) if label is None else label
    features = {"img": datasets.Image(), "kind": label}
    features |= {name: datasets.Value("string") for name in more}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def check(source, places=range(6), names=NAMES):
    """The images and labels are what the library itself says they are."""
    assert source.class_names == tuple(names) and len(source) == len(places)
    assert source.labels().tolist() == [k % 3 for k in places]
    for i, k in enumerate(places):
        example = source[i]
        np.testing.assert_array_equal(example.image, np.asarray(IMAGES[k]))
        assert example.label == k % 3
    assert len({example.id for example in source}) == len(places)


def test_what_save_to_disk_wrote(tmp_path):
    whole = made()
    whole.save_to_disk(tmp_path / "one")
    both = {"train": whole, "test": whole.select([0, 4, 5])}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "two")
    check(open_source(f"hf:{tmp_path}/one"))
    check(open_source(f"hf:{tmp_path}/two:train"))
    check(open_source(f"hf:{tmp_path}/two", "test"), [0, 4, 5])
    assert open_source(f"hf:{tmp_path}/two").split == "test"
    with pytest.raises(DiffjaxError, match=r"no split .* 'dev'"):
        open_source(f"hf:{tmp_path}/two:dev")
    with pytest.raises(DiffjaxError, match="not divided, so there is no 'test'"):
        open_source(f"hf:{tmp_path}/one:test")


def test_parquet(tmp_path):
    made().to_parquet(tmp_path / "some.parquet")
    check(open_source(f"hf:{tmp_path}/some.parquet"))
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "test"):
        made().to_parquet(folder / f"{split}-00000-of-00001.parquet")
    check(open_source(f"hf:{folder}:train"))
    check(open_source(f"hf:{folder}:test[1:]"), range(1, 6))
    assert open_source(f"hf:{folder}").split == "test"


def test_a_folder_of_images(tmp_path):
    for k, image in enumerate(IMAGES):
        place = tmp_path / "photos" / "train" / NAMES[k % 3]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{k}.png")
    source = open_source(f"hf:{tmp_path}/photos:train")
    assert source.class_names == tuple(NAMES)
    assert source.labels().tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(source[1].image, np.asarray(IMAGES[3]))


def test_an_object_and_a_dict_of_them():
    check(source_of(made()))
    check(source_of(made().select([4, 0])), [4, 0])
    check(source_of(datasets.DatasetDict({"a": made(), "test": made()}), "a"))
    check(source_of(made().with_format("numpy")))


def test_labels_may_be_texts_or_numbers():
    texts = made(datasets.Value("string"), [NAMES[k % 3] for k in range(6)])
    check(source_of(texts, label_column="kind"))
    check(source_of(texts.rename_column("kind", "label")))
    numbers = made(datasets.Value("int64"))
    check(source_of(numbers, label_column="kind"), names="012")
    check(source_of(numbers, label_column="kind", class_names=NAMES))


def test_the_fingerprint_is_of_the_content():
    prints = {
        source_of(each).fingerprint
        for each in (made(), made(), made().with_format("torch"))
    }
    assert len(prints) == 1
    other = made(labels=(0, 1, 2, 0, 1, 1))
    turned = made().select([3, 1, 2, 0, 4, 5])  # labels stay
    assert len(prints | {source_of(each).fingerprint for each in (other, turned)}) == 3


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (made, {"label_column": "sort"}, "called 'sort'"),
        (made, {"image_column": "kind"}, "column kind of dataset all holds no images"),
        (made, {"label_column": "img"}, "column img of dataset all holds no labels"),
        (made, {"class_names": NAMES}, "names of their own"),
        (lambda: made(datasets.Value("float32")), {}, "no column of labels"),
        (lambda: made().remove_columns("img"), {}, "no column of images"),
        (lambda: made(labels=(0, 1, -1, 0, 1, 2)), {}, "example 2 has no label"),
        (lambda: made().select([]), {}, "holds no images"),
        (lambda: made().to_iterable_dataset(), {}, "streaming=True"),
        (lambda: datasets.DatasetDict({"a": made(), "b": made()}), {}, "one of: a, b"),
    ],
)
def test_what_cannot_be_opened(dataset, options, message):
    with pytest.raises(DiffjaxError, match=message) as told:
        source_of(dataset(), **options)
    assert "\n" not in str(told.value)


def test_several_columns_of_a_kind_must_be_named():
    twice = made().add_column(
        "coarse", [0] * 6, feature=datasets.ClassLabel(names="ab")
    )
    with pytest.raises(DiffjaxError, match=r"--label-column .*kind .*coarse"):
        source_of(twice)
    check(source_of(twice, label_column="kind"))


def test_a_broken_image_fails_alone():
    content = [b"no image", *({"bytes": png(k)} for k in range(1, 6))]
    content[0] = {"bytes": b"no image"}
    features = made().features
    broken = datasets.Dataset.from_dict(
        {"img": content, "kind": [0, 1, 2, 0, 1, 2]}, features=features
    )
    source = source_of(broken)
    with pytest.raises(DiffjaxError, match="example all_00000"):
        source[0]
    np.testing.assert_array_equal(source[1].image, np.asarray(IMAGES[1]))


def png(k):
    import io

    stream = io.BytesIO()
    IMAGES[k].save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("text", ["hf:", "hf::test", "hf:a:b:c:d", "hf:a:"])
def test_texts_that_are_not_understood(text):
    with pytest.raises(DiffjaxError, match="write hf:NAME:SPLIT"):
        open_source(text)


def test_columns_are_of_hugging_face_alone():
    with pytest.raises(DiffjaxError, match="image_column is of Hugging Face"):
        open_source("cifar10", image_column="img")


def test_without_the_library_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DiffjaxError, match=r'pip install "diffjax\[hf\]"'):
        open_source("hf:beans:test")
    monkeypatch.setitem(sys.modules, "datasets", type("", (), {"__version__": "3.6.0"}))
    with pytest.raises(DiffjaxError, match=r"of version 3\.6\.0"):
        open_source("hf:beans:test")


def test_a_name_that_is_not_in_the_cache_is_one_line_offline():
    with pytest.raises(DiffjaxError, match="network is not to be used") as told:
        open_source("hf:someone/beans:test", offline=True)
    assert "\n" not in str(told.value)


@pytest.mark.slow  # the library tries again and again
def test_before_a_download_a_warning_says_so(tmp_path):
    code = (
        "import warnings\n"
        "from diffjax.data.datasets import open_source\n"
        "from diffjax.errors import DiffjaxError\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    warnings.simplefilter('always')\n"
        "    try: open_source('hf:someone/beans:test')\n"
        "    except DiffjaxError as error: print('refused:', error)\n"
        "print(*('told: ' + str(each.message) for each in told), sep='\\n')\n"
    )
    env = os.environ | {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",  # where nobody answers
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("refused: hf:someone/beans cannot be opened (")
    assert any(
        line.startswith("told: hf:someone/beans is not in the cache of datasets")
        and "it is downloaded from the Hugging Face hub" in line
        for line in lines
    )
