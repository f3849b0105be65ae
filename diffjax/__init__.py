"""Classify images with a pretrained diffusion model, in JAX.

from diffjax import DiffusionClassifier

clf = DiffusionClassifier.from_pretrained("sd-2-base")
clf("cat.jpg", candidate_labels=["cat", "dog"])
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Type checkers import the public names from the stub; here they are imported on first
# use, since ``diffjax --help`` must not wait for JAX.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: home for home, name in re.findall(r"from (\S+) import (\w+) as", _STUB)}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffjax' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return [*__all__, "__version__"]
