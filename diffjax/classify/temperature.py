"""Temperatures that were fitted on a run's labels, read from its calibration.json."""

import os
import warnings
from math import isfinite
from typing import Any

from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object, user_path

CALIBRATION = "calibration.json"


def read_calibration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a calibration file, or that of a run; its "temperature" is above 0.

    Raises:
        DiffjaxError: If there is no calibration, or it is damaged.
    """
    file = user_path(path)
    if os.path.isdir(file):
        file /= CALIBRATION
    if not os.path.exists(file):
        raise DiffjaxError(
            f"There is no calibration {file}. `diffjax calibrate RUN` makes one."
        )
    try:
        calibration = read_json_object(file)
        temperature = calibration["temperature"]
    except (DiffjaxError, LookupError) as error:
        raise DiffjaxError(
            f"{file} is not a calibration ({error}). `diffjax calibrate RUN` makes one."
        ) from error
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 < temperature or not isfinite(temperature):
        raise DiffjaxError(
            f"{file}: the temperature is {temperature!r}; it must be a number above 0."
        )
    return dict(calibration)


def read_temperature(path: str | os.PathLike[str]) -> float:
    """Read the temperature of a calibration; raise as ``read_calibration`` does."""
    return float(read_calibration(path)["temperature"])


def warn_of_others(calibration: dict[str, Any], model: str, loss: str) -> None:
    """Warn if a temperature was fitted to another model or by another loss."""
    fitted = (
        calibration.get("model", {}).get("name", model),
        calibration.get("loss", loss),
    )
    if fitted != (model, loss):
        warnings.warn(
            f"the temperature was fitted to {fitted[0]} by {fitted[1]}, and this is "
            f"{model} by {loss}: scores will not be calibrated.",
            stacklevel=5,
        )
