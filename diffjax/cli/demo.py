"""What ``diffjax demo`` shows: real images in the package, and their labels."""

from pathlib import Path

from diffjax.data.prompts import CIFAR10_TEMPLATE

LABELS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
TEMPLATE = CIFAR10_TEMPLATE
PICTURE = "diffjax-demo.png"

_FOLDER = Path(__file__).parents[1] / "assets" / "images"
_PHOTOGRAPHS = {"chelsea.jpg": "cat"}


def examples() -> dict[Path, str]:
    """List images and what they show: CIFAR-10's NUMBER_class.png, and photographs."""
    cifar = {
        path: path.stem.partition("_")[2] for path in sorted(_FOLDER.glob("*_*.png"))
    }
    return cifar | {_FOLDER / name: truth for name, truth in _PHOTOGRAPHS.items()}
