"""Presets: the data sets of the paper and their relatives, with all their settings.

The first eight are the paper's, with the settings of its program. The others are ours:
settings as the paper has them for as many classes.
"""

from dataclasses import dataclass
from pathlib import Path

from diffjax.errors import unknown

ASSETS = Path(__file__).parents[1] / "assets"

TEN = "staged:to_keep=5,1:n_samples=50,500:order=official"
HUNDRED = "staged:to_keep=20,10,5,1:n_samples=20,50,100,500:order=official"
THOUSAND = "staged:to_keep=500,50,10,1:n_samples=50,100,500,1000:order=official"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """An experiment: all but the model.

    Attributes:
        name: what the preset is called.
        dataset: as ``data.datasets.open_source`` takes it.
        split: the split of the data set.
        prompts: which of the package's prompt files, see ``prompts_file``.
        strategy: as ``parse_strategy`` reads it.
        loss: "l2" or "l1".
        classes: which of the package's class lists restricts the candidates, see
            ``classes_file``; None for all classes.
        per_class: how many images of each class; None for all.
        note: what a reader should know.
    """

    name: str
    dataset: str
    split: str
    prompts: str
    strategy: str
    loss: str
    classes: str | None = None
    per_class: int | None = None
    note: str = ""


def _imagenet_variant(
    name: str, *, dataset: str = "", classes: str | None = None, note: str
) -> Preset:
    return Preset(
        name=name,
        dataset=dataset or name,
        split="test",
        prompts="imagenet",
        strategy=THOUSAND,
        loss="l2",
        classes=classes,
        note=f"{note} ImageNet's settings are our choice.",
    )


_PRESETS = (
    Preset(
        name="food101",
        dataset="food101",
        split="validation",
        prompts="food101",
        strategy=HUNDRED,
        loss="l2",
        note="Tensorflow-datasets calls the test split validation.",
    ),
    Preset(
        name="cifar10",
        dataset="cifar10",
        split="test",
        prompts="cifar10",
        strategy=TEN,
        loss="l1",
    ),
    Preset(
        name="aircraft",
        dataset="aircraft",
        split="test",
        prompts="aircraft",
        strategy=HUNDRED,
        loss="l2",
        note="The 100 variants of FGVC Aircraft.",
    ),
    Preset(
        name="pets",
        dataset="oxford_iiit_pet",
        split="test",
        prompts="pets",
        strategy="staged:to_keep=5,1:n_samples=25,250:order=official",
        loss="l1",
    ),
    Preset(
        name="flowers102",
        dataset="oxford_flowers102",
        split="test",
        prompts="flowers102",
        strategy=HUNDRED,
        loss="l1",
    ),
    Preset(
        name="stl10",
        dataset="stl10",
        split="test",
        prompts="stl10",
        strategy="staged:to_keep=5,1:n_samples=100,500:order=official",
        loss="l1",
    ),
    Preset(
        name="imagenet",
        dataset="imagenet2012",
        split="validation",
        prompts="imagenet",
        strategy=THOUSAND,
        loss="l2",
        per_class=2,
        note="Two images of each class, as in the paper; it does not say which.",
    ),
    Preset(
        name="objectnet",
        dataset="objectnet",
        split="test",
        prompts="objectnet",
        strategy="staged:to_keep=25,10,5,1:n_samples=50,100,500,1000:order=official",
        loss="l2",
        note="The 113 classes that overlap with ImageNet's.",
    ),
    Preset(
        name="cifar100",
        dataset="cifar100",
        split="test",
        prompts="cifar100",
        strategy=HUNDRED,
        loss="l2",
        note="Not in the paper: Food-101's settings and CIFAR-10's prompt are our "
        "choice.",
    ),
    Preset(
        name="mnist",
        dataset="mnist",
        split="test",
        prompts="mnist",
        strategy=TEN,
        loss="l1",
        note="Not in the paper: CIFAR-10's settings are our choice.",
    ),
    Preset(
        name="fashion_mnist",
        dataset="fashion_mnist",
        split="test",
        prompts="fashion_mnist",
        strategy=TEN,
        loss="l1",
        note="Not in the paper: CIFAR-10's settings are our choice.",
    ),
    Preset(
        name="caltech101",
        dataset="caltech101",
        split="test",
        prompts="caltech101",
        strategy=HUNDRED,
        loss="l2",
        note="Not in the paper: Food-101's settings are our choice. 102 classes: the "
        "background counts as one.",
    ),
    _imagenet_variant(
        "imagenet_v2",
        dataset="imagenet_v2/matched-frequency",
        note="The matched-frequency images; in the paper for DiT.",
    ),
    _imagenet_variant(
        "imagenet_a",
        classes="imagenet_a",
        note="Candidates are its 200 classes; in the paper for DiT.",
    ),
    _imagenet_variant(
        "imagenet_r",
        classes="imagenet_r",
        note="Candidates are its 200 classes; not in the paper.",
    ),
    _imagenet_variant("imagenet_sketch", note="Not in the paper."),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _PRESETS}


def prompts_file(name: str) -> Path:
    """Where the package's prompt file of a name lies; DiffjaxError if there is none."""
    return _asset("prompts file", "prompts", name, ".csv")


def classes_file(name: str) -> Path:
    """Where the package's class list of a name lies; DiffjaxError if there is none."""
    return _asset("class list", "classes", name, ".txt")


def _asset(what: str, folder: str, name: str, suffix: str) -> Path:
    files = {path.stem: path for path in sorted((ASSETS / folder).glob(f"*{suffix}"))}
    if name not in files:
        raise unknown(what, name, files)
    return files[name]
