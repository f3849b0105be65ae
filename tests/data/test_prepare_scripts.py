"""The scripts that make tensorflow-datasets directories of downloaded archives."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import prepare_cifar10
import prepare_fashion_mnist
import prepare_quickdraw
import pytest
from tiny_sets import forbid_network, png, random_splits

from diffjax.data.tfds import open_tfds


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    forbid_network(monkeypatch)


@pytest.fixture(scope="module")
def cifar():
    return random_splits((32, 32, 3))


@pytest.fixture(scope="module")
def fashion():
    return random_splits((28, 28, 1))


def fails(script, *arguments) -> str:
    with pytest.raises(SystemExit) as exit:
        script.main([str(argument) for argument in arguments])
    return str(exit.value)


# CIFAR-10


def write_tar(path: Path, folder: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def parts(split):
    """The training split in five batches, as both archives have it."""
    images, labels = split
    return zip(np.split(images, 5), np.split(labels, 5), strict=True)


def binary_files(cifar) -> dict[str, bytes]:
    """Label byte, then the red, green and blue planes, image after image."""

    def records(images, labels):
        content = bytearray()
        for image, label in zip(images, labels, strict=True):
            content.append(label)
            for channel in range(3):
                content += image[:, :, channel].tobytes()
        return bytes(content)

    files = {
        "batches.meta.txt": "\n".join([*prepare_cifar10.CLASS_NAMES, "", ""]).encode()
    }
    for i, batch in enumerate(parts(cifar["train"]), 1):
        files[f"data_batch_{i}.bin"] = records(*batch)
    return files | {"test_batch.bin": records(*cifar["test"])}


def npm_files(cifar) -> dict[str, bytes]:
    def sheet(images):
        return png(images.reshape(len(images), 1024, 3)).getvalue()

    files = {"package.json": b"{}", "test_batch.png": sheet(cifar["test"][0])}
    for i, (images, _) in enumerate(parts(cifar["train"]), 1):
        files[f"data_batch_{i}.png"] = sheet(images)
    for split in ("train", "test"):
        labels = cifar[split][1].tolist()
        files[f"{split}_lables.json"] = json.dumps(labels).encode()
    return files


LAYOUTS = {
    "binary": ("cifar-10-batches-bin", binary_files),
    "npm": ("package", npm_files),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_archives_become_the_same_data_set(cifar, tmp_path, layout, capsys):
    folder, files = LAYOUTS[layout]
    archive = write_tar(tmp_path / "a.tgz", folder, files(cifar))
    prepare_cifar10.main([str(archive), "--any-digest", "--data-dir", str(tmp_path)])
    assert "70 train, 7 test images" in capsys.readouterr().out
    for split, (images, labels) in cifar.items():
        source = open_tfds("cifar10", split, tmp_path)
        assert len(source) == len(labels)
        for record in source:
            index = int(record.id.removeprefix(f"{split}_"))
            np.testing.assert_array_equal(record.image, images[index])
            assert record.label == labels[index]


def test_unknown_archives_are_refused(cifar, tmp_path):
    archive = write_tar(tmp_path / "a.tgz", "x", binary_files(cifar))
    assert "neither of the two known" in fails(
        prepare_cifar10, archive, "--data-dir", tmp_path
    )
    assert not (tmp_path / "cifar10").exists()
    assert "No such file" in fails(prepare_cifar10, tmp_path / "none.tgz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_batch.bin": None}, "not a CIFAR-10 archive"),
        ({"test_batch.bin": None, "test_batch": b""}, "pickled"),
        ({"data_batch_3.bin": None}, "holds no data_batch_3.bin"),
        ({"data_batch_3.bin": b"\0" * 3072}, "data_batch_3.bin is not a whole number"),
        ({"test_batch.bin": b""}, "0 images"),
        ({"test_batch.bin": b"\x0a" + b"\0" * 3072}, "labels outside 0 to 9"),
        ({"batches.meta.txt": b"cat\ndog\n"}, "names other classes"),
    ],
)
def test_damaged_archives_are_refused(cifar, tmp_path, change, message):
    files = binary_files(cifar) | change
    files = {name: content for name, content in files.items() if content is not None}
    archive = write_tar(tmp_path / "a.tgz", "x", files)
    assert message in fails(
        prepare_cifar10, archive, "--any-digest", "--data-dir", tmp_path
    )
    assert not (tmp_path / "cifar10").exists()


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "a.tgz"
    path.write_bytes(b"no archive")
    assert "prepare_cifar10: " in fails(
        prepare_cifar10, path, "--any-digest", "--data-dir", tmp_path
    )


# Fashion-MNIST


def idx_files(splits) -> dict[str, bytes]:
    """The four files: type and axes, their lengths, and the bytes; compressed."""
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for kind, array in zip(("images", "labels"), splits[split], strict=True):
            array = array.astype(np.uint8).reshape(*array.shape[:3])
            header = bytes([0, 0, 8, array.ndim])
            header += b"".join(n.to_bytes(4, "big") for n in array.shape)
            name = f"{prefix}-{kind}-idx{array.ndim}-ubyte.gz"
            files[name] = gzip.compress(header + array.tobytes())
    return files


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_four_files_become_a_data_set(fashion, tmp_path, capsys):
    folder = write_files(tmp_path / "files", idx_files(fashion))
    arguments = [str(folder), "--any-digest", "--data-dir", str(tmp_path)]
    prepare_fashion_mnist.main(arguments)
    assert "70 train, 7 test images" in capsys.readouterr().out
    for split, (images, labels) in fashion.items():
        source = open_tfds("fashion_mnist", split, tmp_path)
        assert source.class_names == tuple(prepare_fashion_mnist.CLASS_NAMES)
        found = sorted((r.image[..., 0].tobytes(), r.label) for r in source)
        pairs = zip(images, labels, strict=True)
        assert found == sorted((image.tobytes(), label) for image, label in pairs)
    assert "exists already" in fails(prepare_fashion_mnist, *arguments)


def test_files_of_another_set_are_refused(fashion, tmp_path):
    folder = write_files(tmp_path / "files", idx_files(fashion))
    message = fails(prepare_fashion_mnist, folder, "--data-dir", tmp_path)
    assert "train-images-idx3-ubyte.gz is not Fashion-MNIST's" in message
    assert not (tmp_path / "fashion_mnist").exists()


TRAIN = "train-images-idx3-ubyte.gz"
HEADER = bytes([0, 0, 8, 3, 0, 0, 0, 70, 0, 0, 0, 28, 0, 0, 0, 28])


def compressed(content):
    """The same bytes at any time: they name tests, in every process."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"no gzip", "Not a gzipped file"),
        (compressed(HEADER)[:-9], "end-of-stream"),
        (compressed(HEADER)[:10] + b"\xff" * 20, "invalid block type"),
        (compressed(b"\0\0\r" + HEADER[3:]), "not an idx file of bytes"),
        (compressed(HEADER[:-1] + b"\x1b"), "not an idx file of bytes"),
        (compressed(HEADER + b"\0"), "has 1 bytes, not 54880"),
        (compressed(HEADER[:7] + b"\0" + HEADER[8:]), "train: 0 images, 70 labels"),
        (compressed(b""), "not an idx file of bytes"),
    ],
)
def test_damaged_files_are_refused(fashion, tmp_path, content, message):
    files = idx_files(fashion)
    files.pop(TRAIN)
    folder = write_files(tmp_path / "files", files)
    if content is not None:
        (folder / TRAIN).write_bytes(content)
    arguments = (folder, "--any-digest", "--data-dir", tmp_path)
    assert message in fails(prepare_fashion_mnist, *arguments)
    assert not (tmp_path / "fashion_mnist").exists()


# QuickDraw


@pytest.fixture
def few_classes(monkeypatch):
    monkeypatch.setattr(prepare_quickdraw, "N_CLASSES", 20)


def drawing_files(n_classes=20):
    """The lists of two drawings a class, in numbers that are no multiples of 1/255."""
    rng = np.random.default_rng(0)
    drawings = rng.integers(0, 1001, (100, 28 * 28)) / 1000
    files = {}
    for c in range(n_classes):
        lines = [json.dumps(row) for row in np.roll(drawings, c).tolist()[:2]]
        text = "\r\n".join(lines * 50) + "\r\n"
        files[f"{'Zz'[c % 2]}{c:03d} thing.ndjson.gz"] = compressed(text.encode())
    return drawings, files


def write_drawings(path, files):
    return write_tar(path, "package/src/drawings", files)


def test_the_drawings_of_a_package_become_a_data_set(few_classes, tmp_path, capsys):
    drawings, files = drawing_files()
    archive = write_drawings(tmp_path / "package.tgz", files)
    prepare_quickdraw.main([str(archive), "--any-digest", "--data-dir", str(tmp_path)])
    assert "1700 train, 300 test images" in capsys.readouterr().out
    source = open_tfds("quickdraw", "test", tmp_path)
    names = [name.removesuffix(".ndjson.gz") for name in files]
    assert source.class_names == tuple(sorted(names, key=str.casefold))
    for example in source:
        c = int(source.class_names[example.label][1:4])
        expected = [np.roll(drawings, c)[i].reshape(28, 28) for i in (0, 1)]
        close = [np.abs(example.image[..., 0] / 255 - each).max() for each in expected]
        assert min(close) <= 0.5 / 255 + 1e-6
        assert np.ptp(example.image, axis=-1).max() == 0
    assert (np.bincount([example.label for example in source]) == 15).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict.popitem, "holds 19 classes, not 20"),
        (lambda f: f.update({next(iter(f)): compressed(b"[1, 2]\r\n")}), "not 100"),
        (lambda f: f.update({next(iter(f)): compressed(b"[1,")}), "not lists of"),
        (lambda f: f.update({next(iter(f)): b"damaged"}), "incorrect header"),
    ],
)
def test_other_drawings_are_refused(few_classes, tmp_path, change, message):
    _, files = drawing_files()
    change(files)
    archive = write_drawings(tmp_path / "package.tgz", files)
    arguments = (prepare_quickdraw, archive, "--data-dir", tmp_path)
    assert "not the package's version 1.0.6" in fails(*arguments)
    assert message in fails(*arguments, "--any-digest")
    assert not (tmp_path / "quickdraw").exists()
