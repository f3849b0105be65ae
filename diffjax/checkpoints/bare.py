"""Models whose network is published as a file alone: SiT's and REPA's.

What such a file does not say, config, scheduler and the classes' names, is in the
package (``catalog.BARE``). The file and the autoencoder come from where
``catalog.MODELS`` says, unless they are given.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from diffjax.checkpoints import places
from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.hub import fetch
from diffjax.checkpoints.resolving import resolve_component
from diffjax.errors import DiffjaxError


def bare_parts(
    name_or_path: str | Path, given: Collection[str], **access: Any
) -> dict[str, Path]:
    """The parts of a model that are not given, if it is one of those.

    Args:
        name_or_path: of the model.
        given: components that come from elsewhere.
        **access: as for ``resolving.resolve_component``.

    Returns:
        Its "transformer", a file, and its "vae"; nothing of any other model.

    Raises:
        DiffjaxError: if they cannot be fetched, or must be fetched by hand.
    """
    name = str(name_or_path)
    if name not in MODELS or places.existing(name):
        return {}
    model = MODELS[name]
    if (bare := model.bare) is None:
        return {}
    parts = {}
    if "transformer" not in given:
        if model.hub_id is None or bare.file is None:
            where = (
                f" Its authors publish it at {bare.address}." if bare.address else ""
            )
            raise DiffjaxError(
                f"The file of weights of {name} is not known to be on Hugging Face."
                f"{where} Name the file with --transformer (transformer= in Python)."
            )
        reach = {key: value for key, value in access.items() if key != "variant"}
        parts["transformer"] = _file(model.hub_id, bare.file, **reach)
    if "vae" not in given:
        parts["vae"] = resolve_component(bare.vae, "vae", **access)
    return parts


def _file(hub_id: str, file: str, **access: Any) -> Path:
    def select(names: list[str], where: str) -> list[str]:
        if file not in names:
            raise DiffjaxError(f"{where} has no {file}; it has {', '.join(names)}.")
        return [file]

    def locate(folder: Path) -> Path:
        if not (folder / file).is_file():
            raise DiffjaxError(f"{folder} has no {file}.")
        return folder / file

    return fetch(hub_id, select=select, locate=locate, **access)
