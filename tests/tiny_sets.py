"""Tiny data sets in the layouts of real ones, for tests."""

import io
import json
import socket
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def picture(seed: int, height: int = 8, width: int = 6) -> np.ndarray:
    shape = (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(pixels: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


LABELLED = {
    "image": tfds.features.Image(shape=(None, None, 3)),
    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
}


def write_tfds(data_dir, set_name, examples, features, version="1.0.0", split="test"):
    """A tensorflow-datasets directory with one split of the given examples."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version(version)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(examples)

    builder = Builder(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_path)


def write_folder(folder: Path, classes: dict[str, int]) -> Path:
    """An image folder; of each class so many images, named 0.png and so on."""
    for label, (name, count) in enumerate(classes.items()):
        for k in range(count):
            save(folder / name / f"{k}.png", picture(100 * label + k))
    return folder


AIRCRAFT = ("MD-11", "DC-9-30", "F/A-18", "Challenger 600")  # not in sorted order


def write_aircraft(data_dir: Path) -> Path:
    """Eight aircraft: number 1000 + k is of variant k mod 4; test has the last four."""
    data = data_dir / "fgvc-aircraft-2013b" / "data"
    numbers = [f"{1000 + k:07d}" for k in range(8)]
    for k, number in enumerate(numbers):
        save(data / "images" / f"{number}.jpg", np.full((30, 40, 3), 20 * k, np.uint8))
    (data / "variants.txt").write_text("".join(f"{name}\n" for name in AIRCRAFT))
    lines = [f"{n} {AIRCRAFT[k % 4]}\n" for k, n in enumerate(numbers)]
    parts = {"train": lines[:2], "val": lines[2:4], "test": lines[4:]}
    parts["trainval"] = parts["train"] + parts["val"]
    for split, part in parts.items():
        (data / f"images_variant_{split}.txt").write_text("".join(part))
    return data


OBJECTNET = {  # folder: (ObjectNet label, ImageNet labels, number of images)
    "full_sized_towel": ("Bath towel", "bath towel", 2),
    "alarm_clock": ("Alarm clock", "analog clock; digital clock", 1),
    "air_freshener": ("Air freshener", None, 1),
    "tie": ("Tie", "bow tie, bow-tie, bowtie; Windsor tie", 3),
}
# the classes of models that the ImageNet labels above are
IMAGENET = {
    "analog clock": 409,
    "bath towel": 434,
    "bow tie, bow-tie, bowtie": 457,
    "digital clock": 530,
    "Windsor tie": 906,
}


def write_objectnet(data_dir: Path) -> Path:
    """Three classes that ImageNet has, and one that it has not."""
    root = data_dir / "objectnet-1.0"
    for c, (folder, (_, _, count)) in enumerate(OBJECTNET.items()):
        for k in range(count):
            pixels = picture(10 * c + k, 12, 10)
            framed = np.full_like(pixels, (255, 0, 0))
            framed[2:-2, 2:-2] = pixels[2:-2, 2:-2]
            save(root / "images" / folder / f"{k:02d}.png", framed)
    # the lines stand in another order than the models' classes
    line_of = {i: (i * 7 + 3) % 1000 for i in range(1000)}
    lines = [""] * 1000
    for i, line in line_of.items():
        lines[line] = next((n for n, k in IMAGENET.items() if k == i), f"other {i}")
    mappings = root / "mappings"
    mappings.mkdir()
    labels = {folder: row[0] for folder, row in OBJECTNET.items()}
    overlap = {row[0]: row[1] for row in OBJECTNET.values() if row[1]}
    for name, content in [
        ("folder_to_objectnet_label.json", labels),
        ("objectnet_to_imagenet_1k.json", overlap),
        ("pytorch_to_imagenet_2012_id.json", line_of),
    ]:
        (mappings / name).write_text(json.dumps(content))
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
    return root


def write_winoground(folder: Path, n: int = 3) -> Path:
    """n examples in the layout of the hub's repository, the images unpacked."""
    data = folder / "data"
    lines = []
    for k in range(n):
        for i in range(2):
            save(data / "images" / f"ex_{k}_img_{i}.png", picture(10 * k + i))
        lines.append(
            {
                "id": k,
                "caption_0": f"a mug in grass {k}",
                "caption_1": f"grass in a mug {k}",
                "image_0": f"ex_{k}_img_0",
                "image_1": f"ex_{k}_img_1",
                "tag": "Noun",
                "secondary_tag": "",
                "num_main_preds": 1 + k % 2,
                "collapsed_tag": ("Object", "Relation", "Both")[k % 3],
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (data / "examples.jsonl").write_text(text)
    return folder


def forbid_network(monkeypatch) -> None:
    """Reading a data set must not even try."""

    def connect(*_):
        raise AssertionError("a network connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def random_splits(shape):
    """70 training and 7 test images of a shape, of ten classes."""
    rng = np.random.default_rng(0)
    return {
        split: (rng.integers(0, 256, (n, *shape), np.uint8), rng.integers(0, 10, n))
        for split, n in (("train", 70), ("test", 7))
    }
