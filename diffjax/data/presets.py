"""Presets: the data sets of the paper and their relatives, with all their settings.

The first eight are the paper's, with the settings of its program. The others are ours:
settings as the paper has them for as many classes. Classes are raced, on as many
samples as the paper's last stage has; its own strategy and loss are there to be asked
for.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffjax.choices import N_SAMPLES, STAGES, STRATEGY
from diffjax.errors import DiffjaxError, unknown

ASSETS = Path(__file__).parents[1] / "assets"

TEN, HUNDRED, THOUSAND = STAGES.values()
Stages = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """An experiment: all but the model.

    Attributes:
        name: what the preset is called.
        dataset: as ``data.datasets.open_source`` takes it.
        split: the split of the data set.
        prompts: which of the package's prompt files, see ``prompts_file``.
        stages: the paper's: classes that are kept after each, and samples that these
            have seen by then.
        loss: the paper's: "l2" or "l1".
        classes: which of the package's class lists restricts the candidates, see
            ``classes_file``; None for all classes.
        per_class: how many images of each class; None for all.
        note: what a reader should know.
    """

    name: str
    dataset: str
    split: str
    prompts: str
    stages: Stages
    loss: str
    classes: str | None = None
    per_class: int | None = None
    note: str = ""

    @property
    def n_samples(self) -> int:
        """What a class sees at most."""
        return self.stages[1][-1]

    @property
    def strategy(self) -> str:
        """A race on as many samples, as ``parse_strategy`` reads it."""
        return STRATEGY.replace(f"={N_SAMPLES}:", f"={self.n_samples}:")

    @property
    def paper(self) -> str:
        """The paper's strategy, as ``parse_strategy`` reads it."""
        keep, seen = (",".join(map(str, numbers)) for numbers in self.stages)
        return f"staged:to_keep={keep}:n_samples={seen}:order=official"


def _preset(
    name: str, stages: Stages, loss: str, note: str = "", **others: Any
) -> Preset:
    """A preset; by default of the test split, data set and prompts called alike."""
    usual: dict[str, Any] = {"dataset": name, "split": "test", "prompts": name}
    return Preset(name=name, stages=stages, loss=loss, note=note, **usual | others)


def _imagenet_variant(name: str, note: str, **others: Any) -> Preset:
    note += " ImageNet's settings are our choice."
    return _preset(name, THOUSAND, "l2", note, prompts="imagenet", **others)


_PRESETS = (
    _preset(
        "food101",
        HUNDRED,
        "l2",
        "Tensorflow-datasets calls the test split validation.",
        split="validation",
    ),
    _preset("cifar10", TEN, "l1"),
    _preset("aircraft", HUNDRED, "l2", "The 100 variants of FGVC Aircraft."),
    _preset(
        "pets",
        ((5, 1), (25, 250)),
        "l1",
        dataset="oxford_iiit_pet",
    ),
    _preset("flowers102", HUNDRED, "l1", dataset="oxford_flowers102"),
    _preset("stl10", ((5, 1), (100, 500)), "l1"),
    _preset(
        "imagenet",
        THOUSAND,
        "l2",
        "Two images of each class, as in the paper; it does not say which.",
        dataset="imagenet2012",
        split="validation",
        per_class=2,
    ),
    _preset(
        "objectnet",
        ((25, 10, 5, 1), (50, 100, 500, 1000)),
        "l2",
        "The 113 classes that overlap with ImageNet's.",
    ),
    _preset(
        "cifar100",
        HUNDRED,
        "l2",
        "Not in the paper: Food-101's settings and CIFAR-10's prompt are our choice.",
    ),
    _preset(
        "mnist", TEN, "l1", "Not in the paper: CIFAR-10's settings are our choice."
    ),
    _preset(
        "fashion_mnist",
        TEN,
        "l1",
        "Not in the paper: CIFAR-10's settings are our choice.",
    ),
    _preset(
        "caltech101",
        HUNDRED,
        "l2",
        "Not in the paper: Food-101's settings are our choice. 102 classes: the "
        "background counts as one.",
    ),
    _imagenet_variant(
        "imagenet_v2",
        "The matched-frequency images; in the paper for DiT.",
        dataset="imagenet_v2/matched-frequency",
    ),
    _imagenet_variant(
        "imagenet_a",
        "Candidates are its 200 classes; in the paper for DiT.",
        classes="imagenet_a",
    ),
    _imagenet_variant(
        "imagenet_r",
        "Candidates are its 200 classes; not in the paper.",
        classes="imagenet_r",
    ),
    _imagenet_variant("imagenet_sketch", "Not in the paper."),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _PRESETS}
# published corruptions of a preset's data set, by the beginning of their names
WORSE = {"cifar10_c": "cifar10", "cifar100_c": "cifar100", "imagenet_c": "imagenet"}


def find_preset(name: str) -> Preset:
    """The preset of a name; of cifar10_c/fog/3, say, CIFAR-10's with other images.

    Raises:
        DiffjaxError: if there is none.
    """
    if (clean := clean_preset(name)) is not None:
        return replace(PRESETS[clean], name=name, dataset=name)
    if name not in PRESETS:
        raise DiffjaxError(
            f"{unknown('preset', name, PRESETS)} Other data sets, folders and tables "
            "are given by --dataset, as in --dataset ./photos."
        )
    return PRESETS[name]


def clean_preset(dataset: str) -> str | None:
    """The preset of which a data set has the images made worse; None for others."""
    of, separator, _ = dataset.partition("/")
    return WORSE.get(of) if separator else None


def is_preset(name: str) -> bool:
    """Whether there is a preset of a name."""
    return name in PRESETS or clean_preset(name) is not None


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
