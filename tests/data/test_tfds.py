"""Reading tensorflow-datasets directories."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from prepare_cifar10 import CLASS_NAMES, VERSION
from tfds_writer import write_arrays
from tiny_sets import (
    LABELLED,
    forbid_network,
    picture,
    png,
    random_splits,
    write_tfds,
)

from diffjax.data.sources import Source
from diffjax.data.tfds import open_tfds
from diffjax.errors import DiffjaxError


@pytest.fixture(scope="module")
def cifar():
    return random_splits((32, 32, 3))


@pytest.fixture(scope="module")
def data_dir(cifar, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_arrays(
        cifar,
        folder,
        dataset="cifar10",
        version=VERSION,
        class_names=CLASS_NAMES,
        ids=True,
    )
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    forbid_network(monkeypatch)


def test_records(data_dir, cifar):
    source = open_tfds("cifar10", "train", data_dir)
    assert isinstance(source, Source)
    assert len(source) == 70
    assert source.class_names == tuple(CLASS_NAMES)
    records = list(source)
    assert sorted(r.id for r in records) == [f"train_{i:05d}" for i in range(70)]
    for record in records:
        index = int(record.id[-5:])
        np.testing.assert_array_equal(record.image, cifar["train"][0][index])
        assert record.label == cifar["train"][1][index]


def test_index_and_iteration_agree(data_dir):
    source = open_tfds("cifar10", "train", data_dir)
    for index, record in enumerate(source):
        again = source[index]
        assert (again.id, again.label) == (record.id, record.label)
        np.testing.assert_array_equal(again.image, record.image)
    assert index == 69
    for outside in (-1, 70):
        with pytest.raises(IndexError):
            source[outside]


def test_slices(data_dir):
    everything = [r.id for r in open_tfds("cifar10", "train", data_dir)]
    part = [r.id for r in open_tfds("cifar10", "train[10:20]", data_dir)]
    assert part == everything[10:20]


def test_sizes_and_modes_may_differ(tmp_path):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    colour = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    large = np.zeros((6, 6, 3), np.uint8)
    examples = [
        {"image": png(image), "label": 0, "file_name": f"{k}.png"}
        for k, image in enumerate([grey, colour, large])
    ]
    features = LABELLED | {"file_name": tfds.features.Text()}
    write_tfds(tmp_path, "mixed", examples, features)
    records = {r.id: r for r in open_tfds("mixed", "test", tmp_path)}
    for channel in range(3):
        np.testing.assert_array_equal(records["0.png"].image[..., channel], grey)
    np.testing.assert_array_equal(records["1.png"].image, colour)


def test_images_without_a_name_get_one_and_no_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, "PNG", exif=exif)
    buffer.seek(0)
    write_tfds(tmp_path, "plain", [{"image": buffer, "label": 1}], LABELLED)
    [record] = open_tfds("plain", "test", tmp_path)
    assert record.image.shape == (4, 8, 3)
    assert (record.label, record.id) == (1, "test_00000")


def test_newest_version_unless_named(tmp_path):
    for version, size in [("1.9.0", 2), ("1.10.0", 3)]:
        example = {"image": png(np.zeros((size, size, 3), np.uint8)), "label": 0}
        write_tfds(tmp_path, "two", [example], LABELLED, version)
    assert open_tfds("two", "test", tmp_path)[0].image.shape == (3, 3, 3)
    assert open_tfds("two:1.9.0", "test", tmp_path)[0].image.shape == (2, 2, 3)
    with pytest.raises(DiffjaxError, match=r"Versions on disk: 1\.9\.0, 1\.10\.0"):
        open_tfds("two:2.0.0", "test", tmp_path)


def test_data_dir_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert len(open_tfds("cifar10", "test")) == 7


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cifar10", r"scripts/prepare_cifar10\.py ARCHIVE --data-dir DIR"),
        ("fashion_mnist", r"scripts/prepare_fashion_mnist\.py FOLDER --data-dir DIR"),
        ("quickdraw", r"scripts/prepare_quickdraw\.py ARCHIVE --data-dir DIR"),
        ("food101", "tfds build food101 --file_format array_record --data_dir DIR"),
        (
            "imagenet_v2",
            "matched-frequency, threshold-0.7, topimages. "
            "Prepare it with: tfds build imagenet_v2/matched-frequency --file",
        ),
        ("imagenet_v2/topimages", "tfds build imagenet_v2/topimages --file_format"),
        ("food101:2.0.0", "tfds build food101:2.0.0 --file_format"),
        (
            "imagenet2012",
            "ILSVRC2012_img_val.tar. .* register on https://image-net.org.*"
            "manual_dir is DIR/downloads/manual",
        ),
        ("oxford_iit_pet", r"did you mean oxford_iiit_pet.*\./photos or list\.csv"),
    ],
)
def test_missing_set_says_how_to_prepare_it(tmp_path, name, advice):
    expected = rf"no data set {name} in .*{advice}".replace("DIR/", f"{tmp_path}/")
    expected = expected.replace("DIR", str(tmp_path))
    with pytest.raises(DiffjaxError, match=expected):
        open_tfds(name, "test", tmp_path)


def test_configurations_are_listed(tmp_path, data_dir):
    version = data_dir / "cifar10" / "3.0.2"
    for config in ("small", "large"):
        (tmp_path / "many" / config).mkdir(parents=True)
        (tmp_path / "many" / config / "3.0.2").symlink_to(version)
    with pytest.raises(DiffjaxError, match="many/large, many/small"):
        open_tfds("many", "test", tmp_path)
    assert len(open_tfds("many/small", "test", tmp_path)) == 7


@pytest.mark.parametrize("split", ["validation", "test[3", "test[:0]", ""])
def test_wrong_splits(data_dir, split):
    with pytest.raises(DiffjaxError, match="Its splits are: train, test"):
        open_tfds("cifar10", split, data_dir)


def copy_set(data_dir: Path, folder: Path) -> Path:
    target = folder / "cifar10" / "3.0.2"
    target.mkdir(parents=True)
    for file in (data_dir / "cifar10" / "3.0.2").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_tfrecord_is_refused_before_it_is_opened(data_dir, tmp_path):
    info = copy_set(data_dir, tmp_path) / "dataset_info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps(content | {"fileFormat": "tfrecord"}))
    with pytest.raises(DiffjaxError, match=r"stored as tfrecord.*Prepare it once more"):
        open_tfds("cifar10", "test", tmp_path)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_damaged_description(data_dir, tmp_path, file, content):
    (copy_set(data_dir, tmp_path) / file).write_bytes(content)
    with pytest.raises(DiffjaxError, match="Prepare the data set again"):
        open_tfds("cifar10", "test", tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"not records"])
def test_missing_or_damaged_record_file(data_dir, tmp_path, content):
    [shard] = copy_set(data_dir, tmp_path).glob("*test*")
    if content is None:
        shard.unlink()
    else:
        shard.write_bytes(content)
    with pytest.raises(DiffjaxError, match=r"cifar10"):
        open_tfds("cifar10", "test", tmp_path)[0]


def test_damaged_image(tmp_path):
    half = io.BytesIO(png(picture(0, 32, 32)).getvalue()[:60])
    examples = [{"image": png(picture(1)), "label": 1} for _ in range(4)]
    examples[1] = {"image": half, "label": 0}
    write_tfds(tmp_path, "torn", examples, LABELLED)
    source = open_tfds("torn", "test", tmp_path)
    [broken] = np.flatnonzero(source.labels() == 0)
    for index in set(range(4)) - {broken}:  # the others are not hindered
        np.testing.assert_array_equal(source[index].image, picture(1))
    expected = rf"torn test: example {broken} \(test_0000{broken}\) cannot be read"
    with pytest.raises(DiffjaxError, match=expected):
        source[int(broken)]
    with pytest.raises(DiffjaxError, match=expected):
        list(source)


def test_a_set_without_labels_is_refused(tmp_path):
    features = {"image": tfds.features.Image(shape=(None, None, 3))}
    image = np.zeros((2, 2, 3), np.uint8)
    write_tfds(tmp_path, "bare", [{"image": png(image)}], features)
    with pytest.raises(DiffjaxError, match="features image, and needs image and label"):
        open_tfds("bare", "test", tmp_path)


def test_labels_need_no_decoding(tmp_path, monkeypatch):
    examples = [{"image": png(picture(k)), "label": k % 2} for k in range(70)]
    write_tfds(tmp_path, "many", examples, LABELLED)
    source = open_tfds("many", "test", tmp_path)
    expected = [example.label for example in source]
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded"))
    labels = source.labels()
    assert labels.dtype == np.int32
    assert labels.tolist() == expected


def test_an_unlabelled_split_is_noticed(tmp_path):
    examples = [{"image": png(picture(0)), "label": -1}]
    write_tfds(tmp_path, "hidden", examples, LABELLED)
    source = open_tfds("hidden", "test", tmp_path)
    for read in (source.labels, lambda: source[0]):
        with pytest.raises(DiffjaxError, match="example 0 has no label"):
            read()


def test_the_default_split(tmp_path, data_dir):
    assert open_tfds("cifar10", None, data_dir).split == "test"
    example = [{"image": png(picture(0)), "label": 1}]
    write_tfds(tmp_path, "half", example, LABELLED, split="validation")
    assert open_tfds("half", data_dir=tmp_path).split == "validation"
    # its test images have no labels
    write_tfds(tmp_path, "imagenet2012", example, LABELLED)
    for name, split in [("imagenet2012", "test"), ("whole", "train")]:
        write_tfds(tmp_path, name, example, LABELLED, "2.0.0", split)
        with pytest.raises(DiffjaxError, match=f"Name one of: {split}"):
            open_tfds(name, data_dir=tmp_path)


def test_other_features_are_left_alone(tmp_path):
    """Masks as in Oxford-IIIT Pets, boxes, and keys that only look like names."""
    features = LABELLED | {
        "image/file_name": tfds.features.Text(),
        "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
        "boxes": tfds.features.Sequence({"box": tfds.features.BBoxFeature()}),
    }
    example = {
        "image": png(picture(5)),
        "label": 1,
        "image/file_name": "a.jpg",
        "segmentation_mask": io.BytesIO(b"no image"),
        "boxes": [],
    }
    write_tfds(tmp_path, "rich", [example], features)
    [record] = open_tfds("rich", "test", tmp_path)
    np.testing.assert_array_equal(record.image, picture(5))
    assert (record.label, record.id) == (1, "test_00000")


def test_the_fingerprint_follows_the_stored_data(tmp_path):
    def stored(folder, seeds, names=("cat", "dog")):
        examples = [
            # uncompressed, so that the sizes tell nothing
            {"image": io.BytesIO(bmp(picture(seed))), "label": 0}
            for seed in seeds
        ]
        label = {"label": tfds.features.ClassLabel(names=names)}
        write_tfds(tmp_path / folder, "some", examples, LABELLED | label)
        return open_tfds("some", "test", tmp_path / folder).fingerprint

    def bmp(pixels):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "BMP")
        return buffer.getvalue()

    first = stored("a", [1, 2])
    assert len(first) == 16 and int(first, 16) >= 0
    assert stored("b", [1, 2]) == first
    others = [
        stored("c", [1, 3]),
        stored("d", [1, 2, 2]),
        stored("e", [1, 2], ("cow", "dog")),
    ]
    assert len({first, *others}) == 4


def test_the_classes_of_imagenet(tmp_path, data_dir):
    names = ["n02119789", "n01440764"]  # kit fox 278, tench 0
    features = LABELLED | {"label": tfds.features.ClassLabel(names=names)}
    write_tfds(tmp_path, "few", [{"image": png(picture(0)), "label": 1}], features)
    assert open_tfds("few", "test", tmp_path).model_classes == ((278,), (0,))
    assert open_tfds("cifar10", "test", data_dir).model_classes is None


def test_a_set_of_the_catalogue(tmp_path):
    """MNIST as the catalogue describes it, with examples of ours.

    mock_data's own examples are arrays, which only tensorflow can encode as a stored
    set has them, so it is given encoded ones.
    """
    builder = tfds.builder("mnist", data_dir=tmp_path, file_format="array_record")
    folder = tmp_path / "mnist" / str(builder.version)
    folder.mkdir(parents=True)
    builder.info.write_to_directory(folder)
    grey = [picture(k, 28, 28)[..., 0] for k in range(5)]

    class Records(list):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    def as_data_source(self, split, **_):
        encode = self.info.features.serialize_example
        return Records(
            encode({"image": png(pixels), "label": 2 * k})
            for k, pixels in enumerate(grey)
        )

    with tfds.testing.mock_data(as_data_source_fn=as_data_source, data_dir=str(folder)):
        source = open_tfds("mnist", "test", tmp_path)
        assert source.class_names == tuple("0123456789")
        assert source.labels().tolist() == [0, 2, 4, 6, 8]
        for k, record in enumerate(source):
            for channel in range(3):
                np.testing.assert_array_equal(record.image[..., channel], grey[k])
