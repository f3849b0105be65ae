"""The local folder that a model's name stands for.

A name is, in this order, something that exists here, one of ``catalog.MODELS``, or a
Hugging Face id. What looks like a path (``./x``, ``~/x``, ``/x``, ``a/b/c``, or ``a/b``
where a folder ``a`` is here) is never asked for at Hugging Face; a whole address,
``https://huggingface.co/owner/name``, always is. From the Hub only what is needed is
fetched: each component's config and one set of its weights, chosen by
``formats.weight_files``.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from diffjax.checkpoints import places, single_file
from diffjax.checkpoints.catalog import ASSETS, BARE, MODELS
from diffjax.checkpoints.components import COMPONENTS, STEMS, option
from diffjax.checkpoints.formats import (
    WEIGHTS,
    is_weight_file,
    weight_files,
    weight_sets,
)
from diffjax.checkpoints.hub import fetch
from diffjax.checkpoints.parts import Access
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import read_json_object


def resolve(
    name_or_path: str | Path,
    *,
    without: Collection[str] = (),
    weightless: Collection[str] = (),
    variant: str | None = None,
    **access: Unpack[Access],
) -> Path:
    """Return the local folder, in the diffusers layout, of a named model.

    Args:
        name_or_path: a folder, a name in ``MODELS``, or a Hugging Face id
            (``owner/name``); the first of these that fits.
        without: components that come from elsewhere: they are neither fetched nor
            missed.
        weightless: components of which only the config is needed.
        variant: of the weights, such as "fp16"; components without it have their
            plain weights taken, but one must have it.
        **access: how the Hub is reached; see ``Parts``. The environment variable
            ``HF_HUB_OFFLINE=1`` keeps to the cache too.

    Raises:
        DiffjaxError: if the name is unknown, the folder is not a whole pipeline, or
            the Hub refuses, does not have it or cannot be reached.
    """
    place = _local_or_hub_id(name_or_path)
    if isinstance(place, Path):
        return _whole_pipeline(place, without, weightless, variant)
    return fetch(
        place,
        select=lambda names, where: _pipeline_files(
            names, where, without, weightless, variant
        ),
        locate=lambda folder: _whole_pipeline(folder, without, weightless, variant),
        hint=places.suggestions(place),
        **access,
    )


def resolve_component(
    name_or_path: str | Path,
    component: str,
    *,
    variant: str | None = None,
    **access: Unpack[Access],
) -> Path:
    """Return the local folder of one component, such as ``"unet"`` or ``"vae"``.

    A file of a network's weights is returned as it is.

    The name may be that of a whole pipeline, which has the component as a
    subfolder, or of the component alone, with its files at the top. Arguments and
    errors are otherwise those of ``resolve``.
    """
    if component not in COMPONENTS:
        raise unknown("component", component, COMPONENTS)
    place = _local_or_hub_id(name_or_path)
    if isinstance(place, Path):
        if component in STEMS and is_weight_file(place):
            if what := single_file.foreign(place):
                raise DiffjaxError(f"{place} is no {component}'s weights. {what}")
            return place
        return _component_folder(place, component, variant)
    return fetch(
        place,
        select=lambda names, where: _lone_files(names, component, where, variant),
        locate=lambda folder: _component_folder(folder, component, variant),
        hint=places.suggestions(place),
        **access,
    )


def whole_file(name_or_path: str | Path) -> tuple[Path, single_file.Layout] | None:
    """The file that a name is, if it holds a whole model, and how."""
    path = places.existing(str(name_or_path))
    if path is None or not is_weight_file(path):
        return None
    layout = single_file.layout_of(path)
    return None if layout is None else (path, layout)


def whole_parts(
    file: Path,
    layout: single_file.Layout,
    weights: Mapping[str, Path],
    elsewhere: Mapping[str, Path],
    **asked: Any,
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files of weights and folders of all components of a model in a single file.

    Its tokenizers are those of the model that it is a copy of, which has a name.

    Args:
        file: the single file.
        layout: what it holds.
        weights: of components that are taken from other files.
        elsewhere: folders of components that are taken from there.
        **asked: as for ``resolve_component``.

    Raises:
        DiffjaxError: if a component is in none of them.
    """
    own = {
        c: file for c in layout.components if c not in weights and c not in elsewhere
    }
    weights, elsewhere = {**weights, **own}, dict(elsewhere)
    for name in _components(layout.folder / "model_index.json"):
        if name in weights or name in elsewhere or name == "scheduler":
            continue
        if name in STEMS:
            raise DiffjaxError(
                f"{file} holds {' and '.join(layout.components)} of a {layout.name}, "
                f"but no {name}. Name one with {option(name)}, for example "
                f"{layout.name}."
            )
        hub_id = MODELS[layout.name].hub_id
        assert hub_id is not None
        try:
            elsewhere[name] = resolve_component(hub_id, name, **asked)
        except DiffjaxError as error:
            raise DiffjaxError(
                f"{file} has no tokenizer, and that of {layout.name} is not at hand: "
                f"{error} Or name the folder of a CLIP tokenizer with {option(name)}."
            ) from error
    return weights, elsewhere


def _local_or_hub_id(name_or_path: str | Path) -> Path | str:
    name = str(name_or_path)
    if path := places.existing(name):
        if name in MODELS:
            warnings.warn(
                f"{name} is taken from {path.absolute()}, which has the name of a "
                "known model; that one is meant where no such path is.",
                stacklevel=3,
            )
        return path
    if name in MODELS:
        model = MODELS[name]
        if model.bare is not None:
            return BARE / name
        return model.hub_id or ASSETS / name
    return places.hub_id(name)


def _pipeline_files(
    names: list[str],
    where: str,
    without: Collection[str],
    weightless: Collection[str],
    variant: str | None,
) -> list[str]:
    """The needed ones among a repository's file names."""
    if "model_index.json" not in names:
        raise DiffjaxError(f"{where} {places.NOT_A_PIPELINE}")
    files = ["model_index.json"]
    parts = {
        component: inside
        for component in COMPONENTS
        if component not in without and (inside := _inside(names, component))
    }
    if not without:  # which may have it
        require_variant(
            where, variant, {n: p for n, p in parts.items() if n not in weightless}
        )
    for component, inside in parts.items():
        place = f"{where}, {component}/"
        whole = component not in weightless
        chosen = _component_files(inside, component, place, variant, weights=whole)
        files += [f"{component}/{name}" for name in chosen]
    return files


def require_variant(
    where: str, variant: str | None, parts: Mapping[str, Iterable[str]]
) -> None:
    """One of the components, each with its files' names, has to have the variant.

    Raises:
        DiffjaxError: if none has it, with the weight files that there are.
    """
    files = [(part, name) for part in STEMS for name in parts.get(part, ())]
    if variant is not None and not any(
        variant in weight_sets([name], STEMS[part]) for part, name in files
    ):
        weights = filter(WEIGHTS.fullmatch, sorted(map("/".join, files)))
        raise DiffjaxError(
            f"{where} has no weights of the variant {variant!r}. Found: "
            f"{', '.join(weights) or 'one file'}. Leave --variant (variant= in Python) "
            "away, or name one of those."
        )


def _lone_files(
    names: list[str], component: str, where: str, variant: str | None
) -> list[str]:
    """The files of one component, from its subfolder or else from the top."""
    inside = _inside(names, component)
    if inside:
        place = f"{where}, {component}/"
        chosen = _component_files(inside, component, place, variant)
        return [f"{component}/{name}" for name in chosen]
    top = [name for name in names if "/" not in name]
    return _component_files(top, component, where, variant)


def _inside(names: list[str], folder: str) -> list[str]:
    prefix = f"{folder}/"
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _component_files(
    names: list[str],
    component: str,
    where: str,
    variant: str | None,
    *,
    weights: bool = True,
) -> list[str]:
    """A component's own description and one set of weights, or an error."""
    describes = COMPONENTS[component].files
    files = sorted(filter(describes.fullmatch, names))
    if not files:
        raise DiffjaxError(
            f"{where} is not a {component} in the diffusers layout: it has no "
            f"{describes.pattern.replace(chr(92), '')}."
        )
    if weights and (stem := STEMS.get(component)):
        files += weight_files(names, stem, where=where, variant=variant)[1]
    return files


def _whole_pipeline(
    folder: Path,
    without: Collection[str],
    weightless: Collection[str],
    variant: str | None,
) -> Path:
    """The folder itself, if it has all that its model_index.json names."""
    if not folder.is_dir():
        raise places.is_a_file(folder)
    index = folder / "model_index.json"
    if not index.is_file():
        raise DiffjaxError(f"{folder} {places.NOT_A_PIPELINE}{places.contents(folder)}")
    parts: dict[str, Iterable[str]] = {}
    for component in _components(index):
        if component in without:
            continue
        if not (folder / component).is_dir():
            raise DiffjaxError(
                f"{folder} lacks the folder {component}/ that its model_index.json "
                "names. Download the model again."
            )
        whole = component not in weightless
        _component_folder(folder, component, variant, weights=whole)
        if not whole:
            continue
        parts[component] = [entry.name for entry in (folder / component).iterdir()]
    if not without:
        require_variant(str(folder), variant, parts)
    return folder


def _components(index: Path) -> list[str]:
    """The components that a model_index.json names and a pipeline has to have."""
    table: dict[str, Any] = read_json_object(index, "list", "Download it again.")
    found = []
    for name in COMPONENTS:
        entry = table.get(name)  # [library, class], or nulls where there is none
        if entry and not isinstance(entry, list):
            raise DiffjaxError(
                f"{index} is damaged: {name} must be a library and a class, not "
                f"{entry!r}. Download it again."
            )
        if entry and entry[0]:
            found.append(name)
    return found


def _component_folder(
    folder: Path, component: str, variant: str | None, *, weights: bool = True
) -> Path:
    """The folder of a component, in a pipeline or by itself, if it is complete."""
    if not folder.is_dir():
        raise places.is_a_file(folder)
    inside = folder / component
    found = inside if inside.is_dir() else folder
    names = [entry.name for entry in found.iterdir()]
    _component_files(names, component, str(found), variant, weights=weights)
    return found
