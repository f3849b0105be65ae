"""Write the prompt files of the package from lists of class names.

    python scripts/make_prompts.py [OUT]

For every NAME below, diffjax/assets/classnames/NAME.txt (one class a line, in the data
set's own numbering) and the template become OUT/NAME.csv, by default in
diffjax/assets/prompts. Where the names come from, its README says.

The templates are those of the paper's program for its data sets; CIFAR-100 takes
CIFAR-10's, Fashion-MNIST and Caltech-101 the plain one.
"""

import sys
from pathlib import Path

from diffjax.data.prompts import CIFAR10_TEMPLATE, DEFAULT_TEMPLATE, Prompts

ASSETS = Path(__file__).parents[1] / "diffjax" / "assets"

TEMPLATES = {
    "food101": "a photo of {}, a type of food.",
    "cifar10": CIFAR10_TEMPLATE,
    "aircraft": "a photo of a {}, a type of aircraft.",
    "pets": "a photo of a {}, a type of pet.",
    "flowers102": "a photo of a {}, a type of flower.",
    "stl10": DEFAULT_TEMPLATE,
    "imagenet": DEFAULT_TEMPLATE,
    "objectnet": DEFAULT_TEMPLATE,
    "cifar100": CIFAR10_TEMPLATE,
    "mnist": "a photo of the number: '{}'.",
    "fashion_mnist": DEFAULT_TEMPLATE,
    "caltech101": DEFAULT_TEMPLATE,
}


def make(name: str) -> Prompts:
    """One prompt for each class of a data set."""
    text = (ASSETS / "classnames" / f"{name}.txt").read_text(encoding="utf-8")
    names = text.splitlines()
    # Not Prompts.from_labels: it refuses the names that ImageNet has twice.
    return Prompts(
        prompts=tuple(TEMPLATES[name].replace("{}", each) for each in names),
        classidx=tuple(range(len(names))),
        class_names=tuple(names),
    )


def main(out: Path = ASSETS / "prompts") -> None:
    """Write every file."""
    out.mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        make(name).write_csv(out / f"{name}.csv")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
