"""Classify images with a pretrained diffusion model, in JAX.

from diffjax import DiffusionClassifier

clf = DiffusionClassifier.from_pretrained("sd-2-base")
clf("cat.jpg", candidate_labels=["cat", "dog"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffjax.checkpoints.loading import load_model
    from diffjax.classify.classifier import DiffusionClassifier
    from diffjax.classify.explanation import explain
    from diffjax.classify.record import Record
    from diffjax.classify.settings import Settings
    from diffjax.data.prompts import Prompts
    from diffjax.errors import DiffjaxError
    from diffjax.strategies.exhaustive import Exhaustive
    from diffjax.strategies.racing import Racing
    from diffjax.strategies.shortlist import Shortlist
    from diffjax.strategies.staged import Staged

__version__ = "0.1.0"

__all__ = [
    "DiffjaxError",
    "DiffusionClassifier",
    "Exhaustive",
    "Prompts",
    "Racing",
    "Record",
    "Settings",
    "Shortlist",
    "Staged",
    "explain",
    "load_model",
]

_HOMES = {
    "DiffjaxError": "diffjax.errors",
    "DiffusionClassifier": "diffjax.classify.classifier",
    "Exhaustive": "diffjax.strategies.exhaustive",
    "Prompts": "diffjax.data.prompts",
    "Racing": "diffjax.strategies.racing",
    "Record": "diffjax.classify.record",
    "Settings": "diffjax.classify.settings",
    "Shortlist": "diffjax.strategies.shortlist",
    "Staged": "diffjax.strategies.staged",
    "explain": "diffjax.classify.explanation",
    "load_model": "diffjax.checkpoints.loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: ``diffjax --help`` must not wait for JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffjax' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return [*__all__, "__version__"]
