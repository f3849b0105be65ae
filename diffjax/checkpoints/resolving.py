"""The local folder that a model's name stands for.

A name is one of ``catalog.MODELS``, a folder in the diffusers layout, or a Hugging
Face id. From the Hub only what is needed is fetched: each component's config and one
set of its weights, chosen by ``formats.weight_files``.
"""

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path

from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.formats import STEMS, no_weights, weight_files
from diffjax.checkpoints.hub import fetch
from diffjax.errors import DiffjaxError, unknown

# component: files that describe it. Anything else in a pipeline, as the safety
# checker, is never fetched.
_DESCRIPTIONS = {
    "unet": re.compile(r"config\.json"),
    "transformer": re.compile(r"config\.json"),
    "vae": re.compile(r"config\.json"),
    "text_encoder": re.compile(r"config\.json"),
    "tokenizer": re.compile(r"[^/]+\.(json|txt)"),
    "scheduler": re.compile(r"scheduler_config\.json"),
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    without: Collection[str] = (),
) -> Path:
    """Return the local folder, in the diffusers layout, of a named model.

    Args:
        name_or_path: a name in ``MODELS``, a folder, or a Hugging Face id
            (``owner/name``); the first of these that fits.
        revision: branch, tag or commit on the Hub.
        cache_dir: where downloads are kept, if not in huggingface_hub's own cache.
        token: access token for the Hub; by default the one saved at login.
        local_files_only: take what is in the cache, without the network; so does
            the environment variable ``HF_HUB_OFFLINE=1``.
        without: components that come from elsewhere: they are neither fetched nor
            missed.

    Raises:
        DiffjaxError: if the name is unknown, the folder is not a whole pipeline, or
            the Hub refuses, does not have it or cannot be reached.
    """
    place = _local_or_hub_id(name_or_path)
    if isinstance(place, Path):
        return _whole_pipeline(place, without)
    return fetch(
        place,
        select=lambda names, where: _pipeline_files(names, where, without),
        locate=lambda folder: _whole_pipeline(folder, without),
        hint=_suggestions(place),
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )


def resolve_component(
    name_or_path: str | Path,
    component: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the local folder of one component, such as ``"unet"`` or ``"vae"``.

    The name may be that of a whole pipeline, which has the component as a
    subfolder, or of the component alone, with its files at the top. Arguments and
    errors are otherwise those of ``resolve``.
    """
    if component not in _DESCRIPTIONS:
        raise unknown("component", component, _DESCRIPTIONS)
    place = _local_or_hub_id(name_or_path)
    if isinstance(place, Path):
        return _component_folder(place, component)
    return fetch(
        place,
        select=lambda names, where: _lone_files(names, component, where),
        locate=lambda folder: _component_folder(folder, component),
        hint=_suggestions(place),
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )


def _local_or_hub_id(name_or_path: str | Path) -> Path | str:
    name = str(name_or_path)
    if name in MODELS:
        hub_id = MODELS[name].hub_id
        return hub_id or Path(__file__).parent.parent / "assets" / name
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if _HUB_ID.fullmatch(name):
        return name
    raise DiffjaxError(
        f"{name!r} is no folder here, no known name and no Hugging Face id "
        f"(owner/name).{_suggestions(name)} Known names: {', '.join(MODELS)}."
    )


def _suggestions(name: str) -> str:
    """Names of models close to a name that is not one, as a sentence."""
    short_names = {model.hub_id: model.name for model in MODELS.values()}
    known = [*MODELS, *filter(None, short_names)]
    close = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _pipeline_files(
    names: list[str], where: str, without: Collection[str]
) -> list[str]:
    """The needed ones among a repository's file names."""
    if "model_index.json" not in names:
        raise _not_a_pipeline(where)
    files = ["model_index.json"]
    for component in _DESCRIPTIONS:
        inside = _inside(names, component)
        if inside and component not in without:
            chosen = _component_files(inside, component, f"{where}, {component}/")
            files += [f"{component}/{name}" for name in chosen]
    return files


def _lone_files(names: list[str], component: str, where: str) -> list[str]:
    """The files of one component, from its subfolder or else from the top."""
    inside = _inside(names, component)
    if inside:
        chosen = _component_files(inside, component, f"{where}, {component}/")
        return [f"{component}/{name}" for name in chosen]
    top = [name for name in names if "/" not in name]
    return _component_files(top, component, where)


def _inside(names: list[str], folder: str) -> list[str]:
    prefix = f"{folder}/"
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _component_files(names: list[str], component: str, where: str) -> list[str]:
    """A component's own description and one set of weights, or an error."""
    describes = _DESCRIPTIONS[component]
    files = sorted(filter(describes.fullmatch, names))
    if not files:
        raise DiffjaxError(
            f"{where} is not a {component} in the diffusers layout: it has no "
            f"{describes.pattern.replace(chr(92), '')}."
        )
    if stem := STEMS.get(component):
        weights = weight_files(names, stem)
        if not weights:
            raise no_weights(where, stem)
        files += weights
    return files


def _whole_pipeline(folder: Path, without: Collection[str]) -> Path:
    """The folder itself, if it has all that its model_index.json names."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise _not_a_pipeline(str(folder))
    try:
        table = json.loads(index.read_text(encoding="utf-8"))
        parts = [name for name in _DESCRIPTIONS if (table.get(name) or [None])[0]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DiffjaxError(
            f"{index} is damaged ({error}). Download it again."
        ) from error
    for component in parts:
        if component in without:
            continue
        if not (folder / component).is_dir():
            raise DiffjaxError(
                f"{folder} lacks the folder {component}/ that its model_index.json "
                "names. Download the model again."
            )
        _component_folder(folder, component)
    return folder


def _component_folder(folder: Path, component: str) -> Path:
    """The folder of a component, in a pipeline or by itself, if it is complete."""
    inside = folder / component
    found = inside if inside.is_dir() else folder
    _component_files([entry.name for entry in found.iterdir()], component, str(found))
    return found


def _not_a_pipeline(where: str) -> DiffjaxError:
    return DiffjaxError(
        f"{where} has no model_index.json, so it is not a whole model in the "
        "diffusers layout. If it is a component alone, name it as the unet, vae or "
        "text encoder beside a whole model."
    )
