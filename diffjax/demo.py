"""What ``diffjax demo`` shows: real images in the package, and their labels."""

from pathlib import Path
from typing import NamedTuple

from diffjax.data.prompts import CIFAR10_TEMPLATE

LABELS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
TEMPLATE = CIFAR10_TEMPLATE
# keeping five of ten, all rounds have tiles of one shape: one compilation
STRATEGY = "staged:to_keep=5,1:n_samples=25,100:order=nested"
PICTURE = "diffjax-demo.png"

_FOLDER = Path(__file__).parent / "assets" / "images"
_PHOTOGRAPHS = {"chelsea.jpg": "cat"}


class Example(NamedTuple):
    """An image and what it shows."""

    path: Path
    truth: str


def examples() -> list[Example]:
    """CIFAR-10 test images, named NUMBER_class.png, and photographs."""
    cifar = [
        Example(path, path.stem.partition("_")[2])
        for path in sorted(_FOLDER.glob("*_*.png"))
    ]
    return cifar + [Example(_FOLDER / name, t) for name, t in _PHOTOGRAPHS.items()]
