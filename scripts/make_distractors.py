"""Write prompts for CIFAR-10 with many further classes that none of its images shows.

    python scripts/make_distractors.py distractors.csv --classes 1000

The first ten are CIFAR-10's, in its numbering; the others are the package's names of
CIFAR-100's classes, then of ImageNet's, Food-101's, Flowers-102's, Caltech-101's and
ObjectNet's, without those that CIFAR-10's classes might be taken for. `diffjax evaluate
cifar10 --prompts distractors.csv` then chooses among all of them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from diffjax.data.prompts import CIFAR10_TEMPLATE, Prompts

NAMES = Path(__file__).parents[1] / "diffjax" / "assets" / "classnames"
SOURCES = ("cifar100", "imagenet", "food101", "flowers102", "caltech101", "objectnet")
WORDS = (
    *("airplane", "automobile", "car", "bird", "cat", "deer", "dog", "frog", "horse"),
    *("ship", "truck", "boat", "bus", "van", "plane", "ferry", "ketch", "schooner"),
    *("helicopter", "rooster", "emu", "flamingo", "ibis", "pigeon", "dalmatian"),
)
# ImageNet's birds, frogs, dogs and their kin, cats, horses and antelopes; vehicles
BEASTS = (
    *range(7, 25),
    *range(30, 33),
    *range(80, 101),
    *range(127, 147),
    *range(151, 294),
    *(339, 340, *range(350, 354)),
)
VEHICLES = (
    *(403, 404, 405, 407, 408, 436, 468, 472, 475, 479, 484, 510, 511, 536, 537),
    *(554, 555, 565, 569, 573, 575, 576, 586, 603, 609, 625, 627, 628, 654, 656, 661),
    *(675, 705, 717, 724, 726, 734, 751, 779, 780, 814, 817, 829, 833, 847, 864, 866),
    *(867, 871, 895, 908, 913, 914),
)


def names(source: str) -> list[str]:
    """The class names of a data set."""
    return (NAMES / f"{source}.txt").read_text(encoding="utf-8").splitlines()


def distractors() -> Iterator[str]:
    """Names, none twice, that CIFAR-10's classes are not taken for."""
    seen = set()
    for source in SOURCES:
        for number, name in enumerate(names(source)):
            if source == "imagenet" and number in (*BEASTS, *VEHICLES):
                continue
            words = name.lower().replace("-", " ").split()
            if name.lower() not in seen and not set(words) & set(WORDS):
                seen.add(name.lower())
                yield name


def make(n_classes: int) -> Prompts:
    """CIFAR-10's classes, and as many others as make ``n_classes``.

    Raises:
        SystemExit: if there are not so many.
    """
    own, others = names("cifar10"), list(distractors())
    if not len(own) <= n_classes <= len(own) + len(others):
        raise SystemExit(f"error: there are 10 to {len(own) + len(others):,} classes")
    return Prompts.from_labels(
        [*own, *others[: n_classes - len(own)]], CIFAR10_TEMPLATE
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", type=int, default=1000)
    args = parser.parse_args()
    make(args.classes).write_csv(args.out)


if __name__ == "__main__":
    main()
