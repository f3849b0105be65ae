"""Every kind of file that the program reads: a sound example, and how it is read.

A kind writes a folder of sound files, of which one is damaged at a time, and reads it
as the commands do. Readers return what they have read, so that damage that passes
unseen can be told where a format has checksums.
"""

import io
import json
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_saved_model import NAME, write_detector

ROOT = Path(__file__).parents[1]
SHAPE = (4, 4, 4)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of input.

    Attributes:
        write: makes the sound files in an empty folder.
        damaged: which of them are damaged, as patterns; and by which mutations.
        read: reads the folder as the program does.
        checked: damage to bytes is seen by checksums: another value is a fault.
        heavy: reading starts JAX or takes seconds.
    """

    write: Callable[[Path], None]
    damaged: dict[str, str]
    read: Callable[[Path], Any]
    checked: bool = False
    heavy: bool = False


def picture(seed: int = 0, side: int = 24) -> Any:
    from PIL import Image

    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((side, side + 8), Image.Resampling.BICUBIC)


def _image(kind: str, **options: Any) -> Kind:
    def write(folder: Path) -> None:
        from PIL import Image

        exif = Image.Exif()
        exif[0x0112] = 6
        more = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
        picture().save(folder / "image", kind, **more, **options)

    def read(folder: Path) -> Any:
        from diffjax.data.files import load_plain
        from diffjax.data.images import load_image

        plain = load_plain(folder / "image")
        return np.asarray(load_image(folder / "image")).tobytes(), plain.tobytes()

    return Kind(
        write=write, damaged={"image": "bytes"}, read=read, checked=kind == "PNG"
    )


def _text(name: str, content: str, form: str, read: Callable[[Path], Any]) -> Kind:
    return Kind(
        write=lambda folder: _put(folder / name, content.encode()),
        damaged={name: form},
        read=lambda folder: read(folder / name),
    )


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _read_prompts(path: Path) -> Any:
    from diffjax.data.prompts import Prompts

    prompts = Prompts.read_csv(path)
    prompts.write_csv(path.with_name("again.csv"))
    assert Prompts.read_csv(path.with_name("again.csv")) == prompts
    return prompts


def _write_clip(folder: Path) -> None:
    names = {"pets": ["cat", "dög"], "cars": ["a", "b"]}
    templates = {"pets": ["a photo of {c}.", "{c}!"], "cars": {"a": ["A."], "b": ["B"]}}
    _put(folder / "names.json", json.dumps(names).encode())
    _put(folder / "templates.json", json.dumps(templates).encode())
    _put(folder / "names.txt", b"cat\ndog\n")
    _put(folder / "templates.txt", b"a photo of {}.\nsee {c}\n")


def _read_clip(folder: Path) -> Any:
    from diffjax.data.templates import read_clip_benchmark
    from diffjax.errors import DiffjaxError

    read = []
    for names, templates, key in (
        ("names.json", "templates.json", "pets"),
        ("names.json", "templates.json", "cars"),
        ("names.txt", "templates.txt", None),
    ):
        try:
            read.append(read_clip_benchmark(folder / names, folder / templates, key))
        except DiffjaxError as error:
            read.append(error)
    if errors := [each for each in read if isinstance(each, DiffjaxError)]:
        raise errors[0]
    return read


def _write_table(folder: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture().save(folder / name)
    _put(folder / "list.csv", b"path,label,id\na.png,cat,1\nb.png,dog,2\nc.png,cat,3\n")
    rows = [{"file_name": f"{n}.png", "label": i} for i, n in enumerate("abc")]
    _put(folder / "list.jsonl", "\n".join(map(json.dumps, rows)).encode())


def _read_table(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from diffjax.data.datasets import open_source
        from diffjax.evaluation.task import make_task

        source = open_source(str(folder / name))
        task = make_task(source, np.arange(len(source)))
        for example in source:
            example.id.encode()
        return task.prompts

    return read


def _read_classes(path: Path) -> Any:
    from diffjax.data.classes import read_classes

    return read_classes(path, 100)


class _Numbered:
    """A data set of 50 examples without images."""

    name, split, class_names, model_classes = "made", "test", ("a", "b"), None
    fingerprint = "0" * 16

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError

    def __iter__(self) -> Any:
        raise NotImplementedError

    def labels(self) -> Any:
        return np.arange(50, dtype=np.int32) % 2


def _array(name: str, array: Any, read: Callable[[Path], Any], **more: Any) -> Kind:
    def write(folder: Path) -> None:
        path = folder / name
        if path.suffix == ".npy":
            np.save(path, array)
        elif path.suffix == ".npz":
            np.savez_compressed(path, array)
        else:
            from safetensors.numpy import save_file

            save_file({"noise": array}, path)

    return Kind(
        write=write,
        damaged={name: "bytes"},
        read=lambda folder: read(folder / name),
        **more,
    )


def _read_subset(path: Path) -> Any:
    from diffjax.data.subsets import select

    return select(_Numbered(), path).tobytes()


def _read_noise(path: Path) -> Any:
    from diffjax.scoring.noise import read_noise

    return np.asarray(read_noise(path, SHAPE).table).tobytes()


def _read_official_labels(path: Path) -> Any:
    from diffjax.runs.official_dit import read_labels

    return read_labels(path).tolist()


def _noises() -> Any:
    return np.random.default_rng(0).standard_normal((5, *SHAPE), np.float32)


def _write_prefilter(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _put(folder / "p.csv", b"id,classes\nfirst,3 5 17\nsecond,12 3\n")
    table = pa.table({"id": ["first", "second"], "classes": [[3, 5], [12]]})
    pq.write_table(table, folder / "p.parquet")


def _read_prefilter(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from diffjax.data.prefilter import read_prefilter
        from diffjax.data.sources import Example

        pixels = np.zeros((1, 1, 3))
        example = Example(image=pixels.astype(np.uint8), label=0, id="first")
        return read_prefilter(folder / name).choose(example, pixels)

    return read


def _write_winoground(folder: Path) -> None:
    rows = []
    for i in range(2):
        for k in (0, 1):
            path = folder / "data" / "images" / f"ex_{i}_img_{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(k).save(path)
        row = {f"caption_{k}": f"a {k} and b" for k in (0, 1)}
        row |= {f"image_{k}": f"ex_{i}_img_{k}" for k in (0, 1)}
        row |= {"tag": "Noun", "secondary_tag": "", "collapsed_tag": "Object"}
        rows.append({"id": i, **row, "num_main_preds": 1})
    lines = "\n".join(map(json.dumps, rows))
    _put(folder / "data" / "examples.jsonl", lines.encode())


def _read_winoground(folder: Path) -> Any:
    from diffjax.data.images import load_image
    from diffjax.data.winoground import read_winoground

    examples = read_winoground(folder)
    for image in (image for each in examples for image in each.images):
        load_image(image)
    return [each.captions for each in examples]


def _write_drawn(folder: Path) -> None:
    drawn = _drawn(folder)
    drawn.begin()
    for label in (0, 1):
        drawn.add(label, 0, np.zeros((2, 2, 3), np.uint8))
    drawn.flush()


def _read_drawn(folder: Path) -> Any:
    from diffjax.data.folders import open_folder

    drawn = _drawn(folder)
    open_folder(folder / "drawn")
    return drawn.header["batch"], drawn.saved


def _drawn(folder: Path) -> Any:
    from diffjax.data.drawn import DrawnFolder

    header = {"format": 1, "classes": ["a"], "seed": 0, "batch": None}
    if not (folder / "drawn").exists():
        header["batch"] = 4
    names = ("a", "b/c")
    return DrawnFolder(folder / "drawn", names, lambda label, _: names[label], header)


def _write_captions(folder: Path) -> None:
    """A file each of ARO, SugarCrepe, VALSE and COLA, and a list of one's own."""
    for name in ("a.jpg", "b.jpg"):
        (folder / "images").mkdir(exist_ok=True)
        picture().save(folder / "images" / name)
    box = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 9, "bbox_h": 9}
    aro = {"image_path": "a.jpg", "true_caption": "a cat", "false_caption": "a dog"}
    votes = {"mturk": {"caption": 3, "foil": 0}, "linguistic_phenomena": "actions"}
    for name, content in {
        "aro": [
            aro | box | {"relation_name": "on"},
            aro | box | {"attributes": [1, 2]},
        ],
        "sugar": {"0": {"filename": "a.jpg", "caption": "a", "negative_caption": "b"}},
        "valse": {"x": {"image_file": "a.jpg", "caption": "a", "foil": "b", **votes}},
        "cola": [["https://a.b/a.jpg", "a cat", "https://a.b/b.jpg", "a dog"]],
    }.items():
        _put(folder / f"{name}.json", json.dumps(content).encode())
    line = json.dumps({"image": "b.jpg", "captions": ["a", "b", "c"], "tag": "x"})
    _put(folder / "mine.choices.jsonl", f"{line}\n{line}\n".encode())


def _read_captions(folder: Path) -> Any:
    from diffjax.data.compositional import read_captions

    names = ("aro.json", "sugar.json", "valse.json", "cola.json", "mine.choices.jsonl")
    return [read_captions(folder / name) for name in names]


def _write_aircraft(folder: Path) -> None:
    data = folder / "fgvc-aircraft-2013b" / "data"
    _put(data / "variants.txt", b"707-320\n737-200\n")
    _put(data / "images_variant_test.txt", b"0000001 707-320\n0000002 737-200\n")
    (data / "images").mkdir()
    for k in (1, 2):
        picture(k).save(data / "images" / f"000000{k}.jpg")


def _read_aircraft(folder: Path) -> Any:
    from diffjax.data.datasets import open_source

    return [example.id for example in open_source("aircraft", "test", folder)]


def _write_objectnet(folder: Path) -> None:
    root = folder / "objectnet-1.0"
    mappings = {
        "folder_to_objectnet_label.json": {"chair": "Chair", "cup": "Cup", "x": "X"},
        "objectnet_to_imagenet_1k.json": {"Chair": "chair; stool", "Cup": "cup"},
        "pytorch_to_imagenet_2012_id.json": {"0": 1, "1": 0, "2": 2},
    }
    for name, table in mappings.items():
        _put(root / "mappings" / name, json.dumps(table).encode())
    _put(root / "mappings" / "imagenet_to_label_2012_v2", b"chair\nstool\ncup\n")
    for name in ("chair", "cup"):
        (root / "images" / name).mkdir(parents=True)
        picture().save(root / "images" / name / "a.png")


def _read_objectnet(folder: Path) -> Any:
    from diffjax.data.datasets import open_source

    source = open_source("objectnet", "test", folder)
    return [example.label for example in source]


def _write_cifar_c(folder: Path) -> None:
    place = folder / "CIFAR-10-C"
    place.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)
    np.save(place / "fog.npy", images)
    np.save(place / "labels.npy", np.arange(10))


def _read_cifar_c(folder: Path) -> Any:
    from diffjax.data.datasets import open_source

    return [e.label for e in open_source("cifar10_c/fog/2", data_dir=folder)]


def _write_hugging_face(folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    made = datasets.Dataset.from_dict(
        {"image": [picture(k) for k in range(4)], "label": [0, 1, 1, 0]},
        features=datasets.Features(kinds),
    )
    made.save_to_disk(folder / "set")
    made.to_parquet(folder / "set.parquet")


def _read_hugging_face(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        import datasets

        from diffjax.data.datasets import open_source

        datasets.disable_progress_bars()
        datasets.config.HF_DATASETS_CACHE = folder / "cache"
        return [e.image.tobytes() for e in open_source(f"hf:{folder}/{name}")]

    return read


def _write_folder(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        picture().save(folder / name / "a.png")
        picture().save(folder / name / "b.jpg")


def _read_folder(folder: Path) -> Any:
    from diffjax.data.folders import open_folder

    return [example.id for example in open_folder(folder)]


@cache
def _tensors() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "conv_in.weight": rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "conv_in.bias": rng.normal(size=3).astype(np.float16),
    }


def _write_weights(suffix: str) -> Callable[[Path], None]:
    stem = "diffusion_pytorch_model"

    def write(folder: Path) -> None:
        tensors = _tensors()
        if suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(tensors, folder / f"{stem}.safetensors")
        elif suffix == ".index.json":
            from safetensors.numpy import save_file

            names = [f"{stem}-0000{k}-of-00002.safetensors" for k in (1, 2)]
            where = dict(zip(tensors, names, strict=True))
            for key, name in where.items():
                save_file({key: tensors[key]}, folder / name)
            index = {"metadata": {"total_size": 222}, "weight_map": where}
            _put(folder / f"{stem}.safetensors.index.json", json.dumps(index).encode())
        elif suffix == ".msgpack":
            from flax.serialization import msgpack_serialize

            tree = {"conv_in": {"kernel": np.ones((3, 3, 2, 3), np.float32)}}
            _put(folder / "diffusion_flax_model.msgpack", msgpack_serialize(tree))
        else:
            import torch

            state = {key: torch.from_numpy(value) for key, value in tensors.items()}
            new = suffix != ".legacy"
            path = folder / f"{stem}.bin"
            torch.save(state, path, _use_new_zipfile_serialization=new)

    return write


def _read_weights(folder: Path) -> Any:
    from diffjax.checkpoints.formats import read_tensors

    tensors = read_tensors(folder)
    return {key: np.asarray(value).tobytes() for key, value in tensors.items()}


def _write_checkpoint(folder: Path) -> None:
    shutil.copytree(ROOT / "diffjax" / "assets" / "tiny", folder, dirs_exist_ok=True)


def _read_checkpoint(folder: Path) -> Any:
    from diffjax.checkpoints.loading import load_model

    model = load_model(folder)
    assert model.conditioner is not None
    return model.conditioner.tokenize(["a photo of a ship."]).ids.tolist()


def _write_classifier(folder: Path) -> None:
    """A vision transformer as transformers saves it."""
    from flax import nnx
    from safetensors.numpy import save_file

    from diffjax.checkpoints.mappings import to_torch
    from diffjax.checkpoints.naming import VIT_CLASSIFIER
    from diffjax.models.vit import (
        ViTForImageClassification,
        ViTForImageClassificationConfig,
    )

    numbers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    numbers |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = ViTForImageClassificationConfig(num_labels=2, **numbers)
    state = nnx.state(ViTForImageClassification(config, rngs=nnx.Rngs(0)))
    tensors = to_torch(state, VIT_CLASSIFIER)
    for key in ("cls_token", "position_embeddings"):
        tensors[f"vit.embeddings.{key}"] = tensors[f"vit.embeddings.{key}"][None]
    save_file(
        {key: np.ascontiguousarray(t) for key, t in tensors.items()},
        folder / "model.safetensors",
    )
    named = {"architectures": ["ViTForImageClassification"], "model_type": "vit"}
    labels = {"id2label": {"0": "cat", "1": "dog"}}
    _put(folder / "config.json", json.dumps(named | numbers | labels).encode())
    seen = {"size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    _put(folder / "preprocessor_config.json", json.dumps(seen).encode())


def _read_classifier(folder: Path) -> Any:
    from diffjax.checkpoints.image_classifiers import load_image_classifier

    found = load_image_classifier(folder)
    return found.class_names, found.processing(picture()).shape


def _write_parts_of_a_model(folder: Path) -> None:
    tiny = ROOT / "diffjax" / "assets" / "tiny"
    name = "diffusion_pytorch_model.safetensors"
    shutil.copytree(tiny / "vae", folder / "vae")
    shutil.copy(folder / "vae" / name, folder / "vae.safetensors")


def _read_parts_of_a_model(folder: Path) -> Any:
    from diffjax.checkpoints.loading import load_model

    load_model("tiny", vae=folder / "vae")
    return load_model("tiny", vae=folder / "vae.safetensors").scaling_factor


def _write_single_file(folder: Path) -> None:
    """A U-Net as the original programs name it, with what makes the file a whole."""
    from safetensors.numpy import save_file

    from diffjax.checkpoints.mappings import to_torch
    from diffjax.checkpoints.original_sd import unet_names
    from diffjax.checkpoints.untrained import random_network
    from diffjax.models.unet_config import UNet2DConditionConfig

    numbers: dict[str, Any] = {"sample_size": 8, "block_out_channels": [4, 4]}
    numbers |= {"norm_num_groups": 2, "cross_attention_dim": 4, "layers_per_block": 1}
    numbers |= {"attention_head_dim": 2, "in_channels": 4, "out_channels": 4}
    numbers |= {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]}
    numbers |= {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
    _put(folder / "unet" / "config.json", json.dumps(numbers).encode())
    config = UNet2DConditionConfig.from_dict(numbers, "config")
    tensors = to_torch(random_network(config).state, unet_names(config))
    unet = {f"model.diffusion_model.{key}": t for key, t in tensors.items()}
    averaged = {
        f"model_ema.diffusion_model{key.replace('.', '')}": t
        for key, t in tensors.items()
    }
    names = ("cond_stage_model.transformer.x", "first_stage_model.x", "betas")
    others = {name: np.ones(1, np.float32) for name in names}
    whole = {k: np.ascontiguousarray(t) for k, t in (unet | averaged | others).items()}
    save_file(whole, folder / "whole.safetensors")


def _read_single_file(folder: Path) -> Any:
    from diffjax.checkpoints.networks import load_network
    from diffjax.checkpoints.single_file import layout_of

    path = folder / "whole.safetensors"
    found: list[Any] = [layout_of(path)]
    for variant in ("ema", "non_ema"):
        _, network = load_network(
            folder / "unet", "unet", weights=path, variant=variant, on_host=True
        )
        found.append(network.fingerprint)
    return found


def _write_contrastive(folder: Path) -> None:
    """CLIP in OpenCLIP's layout, with the tokenizer of tiny."""
    from flax import nnx
    from safetensors.numpy import save_file

    from diffjax.checkpoints.catalog import ASSETS
    from diffjax.checkpoints.mappings import to_torch
    from diffjax.checkpoints.naming import OPEN_CLIP
    from diffjax.checkpoints.open_clip import open_clip_config
    from diffjax.models.clip_image import CLIP

    images = {"image_size": 16, "patch_size": 8, "width": 8, "head_width": 4}
    texts = {"context_length": 32, "vocab_size": 1208, "width": 8, "heads": 2}
    model = {"embed_dim": 4, "vision_cfg": images | {"layers": 1}}
    model |= {"text_cfg": texts | {"layers": 1}}
    network = CLIP(open_clip_config(model, "a config"), rngs=nnx.Rngs(0))
    tensors = to_torch(nnx.state(network), OPEN_CLIP)
    save_file(
        {key: np.array(t, order="C") for key, t in tensors.items()},
        folder / "open_clip_model.safetensors",
    )
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3}}
    _put(folder / "open_clip_config.json", json.dumps(config).encode())
    for file in (ASSETS / "tiny" / "tokenizer").iterdir():
        _put(folder / file.name, file.read_bytes())


def _read_contrastive(folder: Path) -> Any:
    from diffjax.checkpoints.contrastive import load_contrastive

    found = load_contrastive(folder)
    ids = found.tokenize(["a photo of a ship."]).ids.tolist()
    return found.fingerprint, found.processing(picture()).shape, ids


def _write_heads(folder: Path) -> None:
    """LAION's heads in small: the detector, also unpacked, and an aesthetic one."""
    import zipfile

    from safetensors.numpy import save_file

    write_detector(folder / "detector.zip")
    with zipfile.ZipFile(folder / "detector.zip") as archive:
        archive.extractall(folder)
    tensors = {"weight": np.ones((1, 4), np.float32), "bias": np.ones(1, np.float32)}
    save_file(tensors, folder / "head.safetensors")


def _read_detector(path: Path) -> Any:
    from diffjax.checkpoints.heads import load_detector

    detector = load_detector(path)
    return repr(vars(detector)), detector(np.full((2, 4), 0.5, np.float32)).tolist()


def _read_unpacked_detector(folder: Path) -> Any:
    again = shutil.make_archive(str(folder / "again"), "zip", folder, NAME)
    return _read_detector(Path(again))


def _read_head(folder: Path) -> Any:
    from diffjax.checkpoints.heads import load_aesthetic

    head = load_aesthetic(str(folder / "head.safetensors"))
    return head(np.ones((2, head.width), np.float32)).tolist()


def _audit(path: Path) -> Any:
    from diffjax.runs.audit import open_audit

    return open_audit(path, {"data": {"name": "a"}, "models": {"aesthetic": "1f"}})


def _write_audit(folder: Path) -> None:
    audit = _audit(folder / "audit")
    for index in range(3):
        row = {"index": index, "id": f"{index}.png", "label": "=cat"}
        size = {"width": 600, "height": 500 + 20 * index, "aesthetic": 4.25 + index}
        audit.add(row | (size if index else {"error": "it is damaged,\nat its end"}))
    audit.flush()


def _read_audit(folder: Path) -> Any:
    from diffjax.runs.audit import Limits

    audit = _audit(folder / "audit")
    return audit.finish(sorted(audit.rows), ("size", "aesthetic"), Limits())


def _write_lora(folder: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors = {}
    for name in ("attn1.to_q", "conv1"):
        kernel = (3, 3) if name == "conv1" else ()
        down, up = (2, 4, *kernel), (4, 2, *((1, 1) if kernel else ()))
        key = f"unet.{name}"
        tensors[f"{key}.lora_A.weight"] = rng.normal(size=down).astype(np.float32)
        tensors[f"{key}.lora_B.weight"] = rng.normal(size=up).astype(np.float16)
        tensors[f"{key}.alpha"] = np.array(4, np.float32)
    del tensors["unet.attn1.to_q.alpha"]
    told = json.dumps({"unet.lora_alpha": 3, "unet.alpha_pattern": {"conv1": 2}})
    metadata = {"lora_adapter_metadata": told}
    save_file(tensors, folder / "pytorch_lora_weights.safetensors", metadata)
    (folder / "peft").mkdir()
    save_file(tensors, folder / "peft" / "adapter_model.safetensors")
    settings = b'{"lora_alpha": 8, "use_rslora": true, "alpha_pattern": {"to_q": 2}}'
    _put(folder / "peft" / "adapter_config.json", settings)


def _read_lora(folder: Path) -> Any:
    from diffjax.checkpoints.lora import Change, read_lora

    return [
        Change(pair.down, pair.up, pair.scale)().tobytes()
        for place in (folder, folder / "peft")
        for pair in read_lora(place).pairs.values()
    ]


def _write_words(folder: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    table = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    save_file({"emb_params": table}, folder / "toy.safetensors")
    torch.save({"<toy>": torch.from_numpy(table)}, folder / "toy.bin")
    content = {"string_to_param": {"*": torch.from_numpy(table)}, "name": "toy", "x": 1}
    torch.save(content, folder / "toy.pt")


def _read_words(folder: Path) -> Any:
    from diffjax.checkpoints.textual_inversion import read_words

    names = ("toy.safetensors", "toy.bin", "toy.pt")
    words = [read_words([folder / name])[0] for name in names]
    return [(w.text, {k: t.tobytes() for k, t in w.vectors.items()}) for w in words]


def _read_latents(path: Path) -> Any:
    from diffjax.training.latents import read_latents

    latents, factor = read_latents(path)
    return latents.tobytes(), factor


def _read_tokenizer(folder: Path) -> Any:
    from diffjax.checkpoints.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder / "tokenizer", length=32, vocab_size=1208)
    return tokenizer(["a photo of a ship.", "Ünïcode 😀"]).ids.tolist()


def _write_run(folder: Path) -> None:
    shutil.copytree(ROOT / "notebooks" / "saved" / "study", folder / "run")
    _put(folder / "run" / "calibration.json", b'{"temperature": 0.01, "loss": "l2"}')


def _read_run(folder: Path) -> Any:
    from diffjax.classify.temperature import read_temperature
    from diffjax.report.compare import read_report
    from diffjax.runs.folder import read_run
    from diffjax.runs.spreadsheets import csv_text

    read_temperature(folder / "run")
    run = read_run(folder / "run")
    run.rows.to_pydict()
    return csv_text(read_report([folder / "run"]).rows)


def _rescore(folder: Path) -> Any:
    from diffjax.runs.calibration import calibrate
    from diffjax.runs.folder import read_run
    from diffjax.runs.rescoring import rescore

    run = read_run(folder / "run")
    calibrate(run)
    return [row["prediction"] for row in rescore(run).rows]


def _commands(*commands: tuple[str, ...]) -> Callable[[Path], Any]:
    """Runs commands on a folder: an exit code of 2 is a refusal, another a fault."""

    def read(folder: Path) -> Any:
        from click.testing import CliRunner

        from diffjax.cli.commands import group
        from diffjax.errors import DiffjaxError

        said = []
        for command in commands:
            result = CliRunner().invoke(
                group, [each.format(folder) for each in command]
            )
            if isinstance(result.exception, Exception):
                raise result.exception
            if result.exit_code not in (0, 2) or "Traceback" in result.output:
                raise AssertionError(f"exit code {result.exit_code}: {result.output}")
            if result.exit_code == 2:
                raise DiffjaxError(result.stderr)
            said.append(result.stdout)
        return said

    return read


def _read_points(path: Path) -> Any:
    from diffjax.runs.robustness import read_points

    return read_points(path)


def _read_losses(path: Path) -> Any:
    from diffjax.training.log import read_losses

    return read_losses(path)


OFFICIAL = "v2-0_1trials_3_1keep_4_10samples_l1"


def _write_official(folder: Path) -> None:
    import torch

    from diffjax.strategies.staged import official

    rng = np.random.default_rng(0)
    place = folder / "pets" / OFFICIAL
    place.mkdir(parents=True)
    stages = official((4, 10), 1000)
    for i in range(2):
        living, data = list(range(4)), {}
        for timesteps, keep in zip(stages, (3, 1), strict=True):
            for p in living:
                seen = data.setdefault(p, {"t": [], "pred_errors": []})
                seen["t"] += timesteps.tolist()
                seen["pred_errors"] += rng.random(len(timesteps)).tolist()
            living.sort(key=lambda p: float(np.mean(data[p]["pred_errors"])))
            living = living[:keep]
        errors = {
            p: {
                "t": torch.tensor(d["t"]),
                "pred_errors": torch.tensor(d["pred_errors"]),
            }
            for p, d in data.items()
        }
        torch.save(
            {"errors": errors, "pred": living[0], "label": 1}, place / f"{i:04d}.pt"
        )
    _put(
        folder / "prompts.csv",
        b"prompt,classname,classidx\na,A,0\nb,B,1\nc,C,2\nd,D,3\n",
    )


def _read_official(folder: Path) -> Any:
    from diffjax.data.prompts import Prompts
    from diffjax.runs.official import import_results

    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    prompts = Prompts.read_csv(folder / "prompts.csv")
    run = import_results(folder / "pets" / OFFICIAL, out, prompts)
    return run.rows["prediction"].to_pylist()


def _write_answer(folder: Path) -> None:
    data = io.BytesIO()
    picture().save(data, "PNG")
    body = data.getvalue()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {len(body)}"
    _put(folder / "answer", head.encode() + b"\r\nConnection: close\r\n\r\n" + body)


def _read_answer(folder: Path) -> Any:
    """An image from an address whose server answers with these bytes."""
    from diffjax.data import downloads
    from diffjax.data.images import load_image

    answer = (folder / "answer").read_bytes()
    downloads.DOWNLOAD_SECONDS = 3.0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)
            except OSError:
                pass  # closed

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        image = load_image(f"http://127.0.0.1:{port}/image.png")
    return np.asarray(image).tobytes()


def _write_tfds(folder: Path) -> None:
    from tfds_writer import write_arrays

    images = np.zeros((4, 8, 8, 3), np.uint8)
    write_arrays(
        {"test": (images, np.arange(4) % 2)},
        folder,
        dataset="made",
        version="1.0.0",
        class_names=["cat", "dog"],
    )


def _read_tfds(folder: Path) -> Any:
    from diffjax.data.datasets import open_source

    source = open_source("made", "test", folder)
    return [example.label for example in source]


_CONFIGS = ("unet", "vae", "text_encoder")
KINDS: dict[str, Kind] = {
    **{
        f"image-{kind.lower()}": _image(kind, **options)
        for kind, options in {
            "JPEG": {"quality": 90},
            "PNG": {},
            "WEBP": {},
            "GIF": {},
            "BMP": {},
            "TIFF": {"compression": "tiff_lzw"},
            "PPM": {},
            "JPEG2000": {},
            "AVIF": {},
            "MPO": {},
        }.items()
    },
    "prompts": _text(
        "prompts.csv",
        'prompt,classname,classidx\na cat,cat,0\n"a dög, old",dög,1\nhi,cat,0\n',
        "csv",
        _read_prompts,
    ),
    "clip-tables": Kind(
        write=_write_clip, damaged={"*.json": "json", "*.txt": "text"}, read=_read_clip
    ),
    "table-csv": Kind(
        write=_write_table, damaged={"list.csv": "csv"}, read=_read_table("list.csv")
    ),
    "table-jsonl": Kind(
        write=_write_table,
        damaged={"list.jsonl": "json"},
        read=_read_table("list.jsonl"),
    ),
    "folder": Kind(write=_write_folder, damaged={"*/*.*": "bytes"}, read=_read_folder),
    "classes": _text("classes.txt", "0:10 # some\n20, 33\n", "text", _read_classes),
    "subset": _array("subset.npy", np.arange(20), _read_subset),
    "labels-npy": _array("labels.npy", np.arange(9), _read_official_labels),
    "prefilter-csv": Kind(
        write=_write_prefilter, damaged={"p.csv": "csv"}, read=_read_prefilter("p.csv")
    ),
    "prefilter-parquet": Kind(
        write=_write_prefilter,
        damaged={"p.parquet": "bytes"},
        read=_read_prefilter("p.parquet"),
    ),
    "noise-npy": _array("noise.npy", _noises(), _read_noise, heavy=True),
    "noise-npz": _array("noise.npz", _noises(), _read_noise, heavy=True, checked=True),
    "noise-safetensors": _array(
        "noise.safetensors", _noises(), _read_noise, heavy=True
    ),
    "winoground": Kind(
        write=_write_winoground,
        damaged={"data/examples.jsonl": "json"},
        read=_read_winoground,
    ),
    "drawn": Kind(
        write=_write_drawn,
        damaged={"drawn/sample.json": "json"},
        read=_read_drawn,
    ),
    "captions": Kind(
        write=_write_captions,
        damaged={"*.json": "json", "*.jsonl": "json"},
        read=_read_captions,
    ),
    "aircraft": Kind(
        write=_write_aircraft,
        damaged={"fgvc-aircraft-2013b/data/*.txt": "text"},
        read=_read_aircraft,
    ),
    "cifar-c": Kind(
        write=_write_cifar_c,
        damaged={"CIFAR-10-C/*": "bytes"},
        read=_read_cifar_c,
    ),
    "hf-disk": Kind(
        write=_write_hugging_face,
        damaged={"set/*.json": "json", "set/*.arrow": "bytes"},
        read=_read_hugging_face("set"),
        heavy=True,
    ),
    "hf-parquet": Kind(
        write=_write_hugging_face,
        damaged={"set.parquet": "bytes"},
        read=_read_hugging_face("set.parquet"),
        heavy=True,
    ),
    "objectnet": Kind(
        write=_write_objectnet,
        damaged={"objectnet-1.0/mappings/*": "json"},
        read=_read_objectnet,
    ),
    "tfds": Kind(
        write=_write_tfds,
        damaged={"made/1.0.0/*.json": "json", "made/1.0.0/*.array_record*": "bytes"},
        read=_read_tfds,
        heavy=True,
    ),
    **{
        f"weights{suffix.replace('.', '-')}": Kind(
            write=_write_weights(suffix),
            damaged={pattern: form},
            read=_read_weights,
            checked=suffix == ".bin",
            heavy=True,
        )
        for suffix, pattern, form in (
            (".safetensors", "*.safetensors", "bytes"),
            (".index.json", "*.index.json", "json"),
            (".msgpack", "*.msgpack", "bytes"),
            (".bin", "*.bin", "bytes"),
            (".legacy", "*.bin", "bytes"),
        )
    },
    "model-index": Kind(
        write=_write_checkpoint,
        damaged={"model_index.json": "json"},
        read=_read_checkpoint,
        heavy=True,
    ),
    "single-file": Kind(
        write=_write_single_file,
        damaged={"whole.safetensors": "bytes"},
        read=_read_single_file,
        heavy=True,
    ),
    "textual-inversion": Kind(
        write=_write_words, damaged={"toy.*": "bytes"}, read=_read_words, heavy=True
    ),
    "contrastive": Kind(
        write=_write_contrastive,
        damaged={"open_clip_config.json": "json", "*.safetensors": "bytes"},
        read=_read_contrastive,
        heavy=True,
    ),
    "detector": Kind(
        write=_write_heads,
        damaged={"detector.zip": "bytes"},
        read=lambda folder: _read_detector(folder / "detector.zip"),
        checked=True,
    ),
    "detector-files": Kind(
        write=_write_heads,
        damaged={f"{NAME}/*.pb": "bytes", f"{NAME}/variables/*": "bytes"},
        read=_read_unpacked_detector,
    ),
    "aesthetic-head": Kind(
        write=_write_heads,
        damaged={"head.safetensors": "bytes"},
        read=_read_head,
    ),
    "audit": Kind(
        write=_write_audit,
        damaged={"audit/audit.json": "json", "audit/images.csv": "csv"},
        read=_read_audit,
    ),
    "lora": Kind(
        write=_write_lora,
        damaged={"*.safetensors": "bytes", "peft/*.json": "json"},
        read=_read_lora,
        heavy=True,
    ),
    "parts-of-a-model": Kind(
        write=_write_parts_of_a_model,
        damaged={"*.safetensors": "bytes", "vae/*.safetensors": "bytes"},
        read=_read_parts_of_a_model,
        heavy=True,
    ),
    "classifier": Kind(
        write=_write_classifier,
        damaged={"*.json": "json", "*.safetensors": "bytes"},
        read=_read_classifier,
        heavy=True,
    ),
    "latents": _array("latents.npy", _noises(), _read_latents, heavy=True),
    "configs": Kind(
        write=_write_checkpoint,
        damaged={f"{name}/config.json": "json" for name in _CONFIGS},
        read=_read_checkpoint,
        heavy=True,
    ),
    "scheduler": Kind(
        write=_write_checkpoint,
        damaged={"scheduler/*.json": "json"},
        read=_read_checkpoint,
        heavy=True,
    ),
    "tokenizer": Kind(
        write=_write_checkpoint,
        damaged={"tokenizer/*.json": "json", "tokenizer/merges.txt": "text"},
        read=_read_tokenizer,
        heavy=True,
    ),
    "run": Kind(
        write=_write_run,
        damaged={"run/*.json": "json", "run/prompts.csv": "csv"},
        read=_read_run,
    ),
    "parts": Kind(
        write=_write_run, damaged={"run/parts/*": "bytes"}, read=_read_run, checked=True
    ),
    "rescore": Kind(
        write=_write_run,
        damaged={"run/run.json": "json", "run/parts/*": "bytes"},
        read=_rescore,
    ),
    "commands": Kind(
        write=_write_run,
        damaged={
            "run/*.json": "json",
            "run/parts/*": "bytes",
            "run/prompts.csv": "csv",
        },
        read=_commands(
            ("report", "{}/run", "--json"),
            ("rescore", "{}/run", "--json"),
            ("calibrate", "{}/run"),
            ("study", "variance", "{}/run", "--out", "{}/out"),
        ),
        heavy=True,
    ),
    "robustness": _text(
        "points.csv",
        (ROOT / "notebooks" / "saved" / "robustness.csv").read_text(encoding="utf-8"),
        "csv",
        _read_points,
    ),
    "loss": _text(
        "loss.csv",
        "step,loss,images_per_second\n10,0.5,100.0\n20,0.25,99.5\n",
        "csv",
        _read_losses,
    ),
    "official": Kind(
        write=_write_official,
        damaged={f"pets/{OFFICIAL}/*.pt": "bytes", "prompts.csv": "csv"},
        read=_read_official,
        heavy=True,
    ),
    "url": Kind(write=_write_answer, damaged={"answer": "bytes"}, read=_read_answer),
}
