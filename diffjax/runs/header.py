"""A run's header, RUN/run.json: what was asked for, and by which it goes on.

format        of the files of a run
experiment    what was asked for, as it was
model         what the model is: names, and fingerprints of all that decides
data          what the images are: names, and fingerprints of all that decides; "pool"
              is that of which a limit takes the first, and may later take more
class_names   of all classes of the data set
classes       its numbers of the candidates
spaces        where errors are saved, their factors in other spaces than noise, one a
              timestep; see ``schedules``. As the next, it decides nothing
flops         where classes were chosen first, FLOPs of an evaluation, and of the
              prefilter for an image
environment, created, …: where and when it arose, which decides nothing
"""

import base64
import warnings
import zlib
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from diffjax.errors import DiffjaxError
from diffjax.files import json_text, parse_json, read_json_object, write_json
from diffjax.runs.rows import KEPT, PARTS, intact

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
HEADER = "run.json"
# what must agree for a run to go on
DECIDING = ("format", "experiment", "model", "data", "class_names", "classes")
NAMES = {  # but for these: what they name is known by what it holds
    "experiment": (
        *("dataset", "split", "classes"),
        *("prompts", "classnames", "templates"),
        "calibrated",  # where it stands, the temperature was not asked for
    ),
    "model": ("model", "name", "revision", "elsewhere", "fingerprint"),
    "data": ("name", "pool"),
}
GROWS = {"experiment": ("limit",), "data": ("n", "indices")}  # within the same pool
TYPES: dict[str, tuple[type, ...]] = {  # of what is used
    **dict.fromkeys(("experiment", "model", "data"), (dict,)),
    **dict.fromkeys(("class_names", "classes"), (list,)),
    "experiment.loss": (str, NoneType),
    "experiment.also": (list,),
    "experiment.strategy": (dict, str, NoneType),
    "experiment.temperature": (int, float),
    "experiment.samples": (dict, NoneType),
    "model.name": (str,),
    "model.fingerprint": (str,),
    "model.n_timesteps": (int,),
    "data.name": (str,),
    "data.split": (str, NoneType),
    "data.fingerprint": (str,),
    "data.n": (int,),
}
RANGES = {
    "experiment.temperature": (1e-300, 1e300),
    "model.n_timesteps": (1, 10**6),
    "data.n": (0, 10**12),
}
# settings that shortlists had once, at what is done now
FORMER = {"base": "mean", "rounds": 1, "clusters": 8}
CLASSIFIES = (  # what a run of classifications needs of these
    *("experiment.loss", "model.name", "model.fingerprint"),
    *("data.name", "data.fingerprint", "data.n"),
)


def read_header(folder: Path) -> dict[str, Any]:
    """The header of a run.

    Raises:
        DiffjaxError: if there is none, or it is damaged.
    """
    path = folder / HEADER
    try:
        header = read_json_object(path)
    except DiffjaxError as error:
        kept = kept_header(folder)
        if kept is None:
            raise _lost(folder, error) from None
        warnings.warn(
            f"{error} What it said was found in the files of rows; the command that "
            "began the run writes it again.",
            stacklevel=3,
        )
        header = kept
    if header.get("format") != FORMAT or not set(DECIDING) <= set(header):
        raise DiffjaxError(
            f"{path} is not the header of a run of this version of diffjax."
        )
    for name, kinds in TYPES.items():
        *part, key = name.split(".")
        place = header[part[0]] if part else header
        if key not in place and part:
            continue  # not every run has it; see ``require``
        if key not in place or not isinstance(place[key], kinds):
            raise _odd(path, name, place.get(key))
    names, classes = header["class_names"], header["classes"]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise _odd(path, "class_names", wrong[0])
    known = range(len(names))
    if wrong := [c for c in classes if type(c) is not int or c not in known]:
        raise _odd(path, "classes", wrong[0])
    if len(set(classes)) < len(classes):
        raise _odd(path, "classes", classes)
    for name, (low, high) in RANGES.items():
        of, key = name.split(".")
        if not low <= header[of].get(key, high) <= high:
            raise _odd(path, name, header[of][key])
    return dict(header) | {"experiment": _of_today(header["experiment"])}


def _of_today(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment without what a shortlist could be told to do otherwise once."""
    shortlist = experiment.get("shortlist")
    if not isinstance(shortlist, dict):
        return dict(experiment)
    kept = {name: v for name, v in shortlist.items() if FORMER.get(name) != v}
    return {**experiment, "shortlist": kept}


def require(header: Mapping[str, Any], names: Collection[str], folder: Path) -> None:
    """Raise a DiffjaxError unless a run's header says all of ``names``."""
    for name in names:
        part, key = name.split(".")
        if key not in header[part]:
            raise _odd(folder / HEADER, name, None)


def with_header(columns: "pa.Schema", header: Mapping[str, Any]) -> "pa.Schema":
    """Columns of rows whose files also say what run they belong to."""
    packed = zlib.compress(json_text(dict(header)).encode())
    return columns.with_metadata({KEPT: base64.b64encode(packed)})


def kept_header(folder: Path) -> dict[str, Any] | None:
    """The header that the latest file of rows has kept; None if none has."""
    import pyarrow.parquet as pq

    for part in sorted((folder / PARTS).glob("*.parquet"), reverse=True):
        try:
            if not intact(part):
                continue
            return _unpacked(pq.read_schema(part).metadata[KEPT])
        except Exception:  # readers raise nearly anything on damage
            continue
    return None


def same_run(header: Mapping[str, Any]) -> Callable[[bytes], bool]:
    """What tells whether a header that a file of rows has kept is of the same run."""

    @cache
    def same(kept: bytes) -> bool:
        return not differences(_unpacked(kept), header)

    return same


def _unpacked(kept: bytes) -> dict[str, Any]:
    text = zlib.decompress(base64.b64decode(kept)).decode()
    return dict(parse_json(text, "a header among rows"))


def _lost(folder: Path, error: DiffjaxError) -> DiffjaxError:
    """Return the error for a run whose header is lost."""
    if (folder / HEADER).exists():
        return DiffjaxError(
            f"{error} Nor do files of rows hold it, of this folder. Take it from a "
            "copy, or repeat the command with another folder."
        )
    if any((folder / PARTS).glob("*.parquet")):
        return DiffjaxError(
            f"{folder / HEADER} is missing, without which rows mean nothing. Take it "
            "from a copy, or repeat the command with another folder."
        )
    return DiffjaxError(
        f"{folder} holds no run: there is no {HEADER} in it. `diffjax evaluate` makes "
        "runs."
    )


def _odd(path: Path, name: str, value: Any) -> DiffjaxError:
    return DiffjaxError(
        f"{path} is damaged: {name} is {_short(value)}. Take it from a copy, or repeat "
        "the command with another folder."
    )


def write_header(folder: Path, header: Mapping[str, Any]) -> None:
    """Write RUN/run.json."""
    write_json(folder / HEADER, dict(header))


def begun_before(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether a run knows less of its model than runs do that begin now.

    Their fingerprint was that of the weights.
    """
    return "weights" in here["model"] and "weights" not in there["model"]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What decides and differs between two headers, a line for each difference."""
    model = here["model"]
    if begun_before(there, here):
        known = {key: model[key] for key in there["model"] if key in model}
        model = known | {"fingerprint": model["weights"]}
    lines = []
    for key in DECIDING:
        one, other = there[key], model if key == "model" else here[key]
        names = NAMES.get(key, ())
        if key == "experiment" and "calibrated" in other:
            names = (*names, "temperature")  # a run keeps the one that it has
        if key == "model" and "weights" not in one:  # the only one it has
            names = () if one.get("fingerprint") == "unknown" else names[:-1]
        if key == "experiment":
            one, other = _of_today(one), _of_today(other)
        if grows(there, here):
            names = (*names, *GROWS.get(key, ()))
        if isinstance(one, dict):
            one, other = (
                {name: value for name, value in each.items() if name not in names}
                for each in (one, other)
            )
        lines += _lines(key, one, other)
    return lines


def grows(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether the images of a run are the first of those that are asked for here."""
    pool = there["data"].get("pool")
    if pool is None or pool != here["data"].get("pool"):
        return False
    fewer: bool = there["data"]["n"] <= here["data"]["n"]
    return fewer


def limited_evenly(folder: Path) -> bool:
    """Whether a run there has a limit of before limits were nested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever opens the run is told
        try:
            header = read_header(folder)
        except DiffjaxError:
            return False  # there is none, or what opens the run will say more
    return "pool" not in header["data"] and bool(header["experiment"].get("limit"))


def _lines(name: str, there: Any, here: Any) -> list[str]:
    """Lines like "experiment.loss: l1 there, l2 here"."""
    if there == here:
        return []
    if isinstance(there, dict) and isinstance(here, dict):
        keys = list(there) + [key for key in here if key not in there]
        return [
            line
            for key in keys
            for line in _lines(f"{name}.{key}", there.get(key), here.get(key))
        ]
    return [f"{name}: {_short(there)} there, {_short(here)} here"]


def _short(value: Any, most: int = 80) -> str:
    text = value if isinstance(value, str) else json_text(value)
    return text if len(text) <= most else text[: most - 1] + "…"
