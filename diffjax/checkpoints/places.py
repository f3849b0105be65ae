"""Where a name leads: to a path that is here, or to Hugging Face; and what is there."""

import difflib
import re
from pathlib import Path

from diffjax.checkpoints import single_file
from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.components import holding, option
from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object, user_path

ADDRESS = "https://huggingface.co/"
NOT_A_PIPELINE = (
    "has no model_index.json, so it is not a whole model in the diffusers layout."
)
_SINGLE_FILES = (".safetensors", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BASELINES = ("clip:", "vit:", "resnet:")


def existing(name: str) -> Path | None:
    """The path that a name is, if something is there."""
    path = user_path(name)
    return path if name and _exists(path) else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, say
        return False


def hub_id(name: str) -> str:
    """The ``owner/name`` that a name is, which is no path here.

    Raises:
        DiffjaxError: if it is a path that leads nowhere, or neither.
    """
    known = {model.hub_id for model in MODELS.values()}
    asked = name.removeprefix(ADDRESS).removesuffix("/") if ADDRESS in name else name
    if (
        _HUB_ID.fullmatch(asked)
        and len(asked) <= 96
        and (asked != name or asked in known or not Path(name).parent.is_dir())
    ):
        return asked
    if name.startswith(_BASELINES):
        raise DiffjaxError(
            f"{name} is no diffusion model, but what they are compared with: `diffjax "
            f"baseline {name} DATASET` evaluates it."
        )
    if name.startswith(("/", ".", "~")) or re.search(r"[/\\]", name):
        raise DiffjaxError(_no_such_path(name))
    raise DiffjaxError(
        f"{name!r} is no folder here, no known name and no Hugging Face id "
        f"(owner/name).{suggestions(name, _neighbours(Path()))} Known names: "
        f"{', '.join(MODELS)}."
    )


def _no_such_path(name: str) -> str:
    """Where a path breaks off, and what is there of a name like the next."""
    path = user_path(name)
    parts = [*reversed(path.parents), path]
    missing = next((p for p in parts if str(p) != "." and not _exists(p)), path)
    here = missing.parent
    names = _neighbours(here)
    close = difflib.get_close_matches(missing.name, names, n=3, cutoff=0.5)
    rest = path.relative_to(missing)
    likely = [here / near / rest for near in close]
    text = f"There is no {name}: {_folder(here)} has no {missing.name}."
    if likely:
        text += f" Did you mean {' or '.join(map(str, likely))}?"
    elif names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        text += f" It has {shown}."
    else:
        text += " It has nothing that could be a model."
    if _HUB_ID.fullmatch(name):
        text += f" If it is a Hugging Face id, write {ADDRESS}{name}."
    return text


def _folder(path: Path) -> str:
    return "this folder" if str(path) == "." else f"the folder {path}"


def _neighbours(folder: Path) -> list[str]:
    """Names in a folder that could be of models."""
    try:
        return sorted(
            entry.name
            for entry in folder.iterdir()
            if not entry.name.startswith(".")
            and (entry.is_dir() or entry.suffix in (".safetensors", ".pt", ".bin"))
        )
    except OSError:  # a file, or a folder of somebody else's
        return []


def suggestions(name: str, more: list[str] | None = None) -> str:
    """Names of models close to a name that is not one, as a sentence."""
    short_names = {model.hub_id: model.name for model in MODELS.values()}
    known = [*MODELS, *filter(None, short_names), *(more or [])]
    # the same repository of another owner, before any that are spelt alike
    moved = [each for each in known if Path(each).name == Path(name).name != each]
    close = [*moved, *difflib.get_close_matches(name, known, n=3)]
    close = list(dict.fromkeys(close))[:3]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def is_a_file(path: Path) -> DiffjaxError:
    """Return the error for a file where a folder is asked for."""
    if not path.is_file():
        return DiffjaxError(
            f"{path} is a pipe or a device, not a folder in the diffusers layout."
        )
    return DiffjaxError(f"{path} is a file, not a folder. {single_file.alone(path)}")


def contents(folder: Path) -> str:
    """What a folder without model_index.json is instead, as a sentence."""
    config = folder / "config.json"
    if config.is_file():
        raw = read_json_object(config, "config", "Download it again.")
        architectures = raw.get("architectures")
        named = [raw.get("_class_name")]
        named += architectures if isinstance(architectures, list) else []
        for name in named:
            component = holding(str(name).removeprefix("Flax"))
            if component is not None:
                return (
                    f" It holds a {name} alone: name a whole model with --model, and "
                    f"this beside it, with {option(component)} {folder}."
                )
    inner = sorted(
        {
            str(index.parent)
            for pattern in ("*", "*/*")
            for index in folder.glob(f"{pattern}/model_index.json")
        }
    )
    if inner:
        shown = ", ".join(inner[:3]) + (", …" if len(inner) > 3 else "")
        return f" But these folders in it are: {shown}."
    for file in sorted(folder.iterdir()):
        if file.suffix in _SINGLE_FILES and file.is_file():
            if what := single_file.foreign(file):
                return f" It has {file.name}. {what}"
            if single_file.layout_of(file):
                return f" It has {file}, a whole model in a single file: name that."
            break  # one is enough to look into
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return " It is empty."
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return (
        f" It has {shown}. If it is a component alone, name it as the unet, vae or "
        "text encoder beside a whole model."
    )
