"""KIND:NAME → a model to compare with.

resnet, FOLDER    the small ResNet of the package, or one that `diffjax train` made
vit:, resnet:     classifiers that others trained, of ``trained``
clip:             CLIP and OpenCLIP, of ``clip``
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

from diffjax.baselines.classifier import Baseline
from diffjax.baselines.clip import load_clip
from diffjax.baselines.own import load_classifier
from diffjax.baselines.trained import load_resnet, load_vit
from diffjax.checkpoints.parts import Access
from diffjax.errors import DiffjaxError

# the name, how the Hub is reached → the model, named KIND:NAME
Loader = Callable[..., Baseline]
KINDS: dict[str, Loader] = {
    "clip": load_clip,
    "vit": load_vit,
    "resnet": load_resnet,
}


def load_baseline(name: str, **access: Unpack[Access]) -> Baseline:
    """Load a model to compare with.

    Args:
        name: KIND:NAME, where NAME is a folder, a file of weights, a short name or a
            Hugging Face id; or "resnet" or a folder alone, for what `diffjax train
            resnet` makes.
        **access: how the Hub is reached; see ``Parts``.

    Raises:
        DiffjaxError: if there is no such kind or model, or its files are missing,
            damaged or do not fit; it says what to do.
    """
    kind, separator, rest = name.partition(":")
    if not separator or Path(name).exists():
        return load_classifier(name)
    if kind not in KINDS or not rest:
        known = ", ".join(f"{each}:NAME" for each in KINDS)
        raise DiffjaxError(
            f"{name!r} names no baseline: write {known}, resnet, or the folder of a "
            "model that `diffjax train resnet` made."
        )
    options: dict[str, Any] = dict(access)
    return KINDS[kind](rest, **options)
