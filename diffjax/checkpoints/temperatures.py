"""Temperatures of scores that a model comes with: FOLDER/calibration.json.

    {"l2": {"temperature": 0.0005, …}, "l1": {"temperature": 0.0012, …}}

By the loss that decides, each with what `diffjax calibrate RUN --save FOLDER` tells of
it. A folder without the file has none.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object, write_json

FILE = "calibration.json"
MODEL = "model_index.json"


def temperatures_in(folder: Path) -> dict[str, float]:
    """The temperatures of a model's folder by loss; {} where it has none.

    Raises:
        DiffjaxError: if its file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    found = {}
    for loss, fitted in read_json_object(file).items():
        value: Any = fitted.get("temperature") if isinstance(fitted, dict) else fitted
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value or not isfinite(value):
            raise DiffjaxError(
                f"{file}: the temperature of {loss} is {value!r}; it must be a number "
                "above 0. Remove the file; `diffjax calibrate RUN --save FOLDER` "
                "writes it again."
            )
        found[loss] = float(value)
    return found


def save_temperature(folder: Path, loss: str, fitted: Mapping[str, Any]) -> Path:
    """Add a temperature to those of a model's folder, or replace it; its file.

    Args:
        folder: of a model in the diffusers layout.
        loss: that decides.
        fitted: its "temperature", and of what.

    Raises:
        DiffjaxError: if the folder is no model's, or its file is damaged.
    """
    if not (folder / MODEL).exists():
        raise DiffjaxError(
            f"{folder} is not the folder of a model: there is no {MODEL} in it."
        )
    file = folder / FILE
    there = read_json_object(file) if file.exists() else {}
    write_json(file, there | {loss: dict(fitted)})
    return file
