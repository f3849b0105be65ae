"""Running accuracy for Weights & Biases or TensorBoard; both optional.

A missing package is an error at once, but nothing is begun before the first numbers:
what goes wrong until then leaves no empty runs or folders behind.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from diffjax.errors import DiffjaxError


class Tracker(Protocol):
    """Takes numbers as they come."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after ``step`` images."""

    def close(self) -> None:
        """No more will come."""


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        """Prepare for a run; DiffjaxError without the package."""
        try:
            import wandb
        except ImportError:
            raise _missing("--wandb", "wandb") from None
        self._begin: Callable[[], Any] = partial(
            wandb.init, project=project, config=dict(config)
        )
        self._run: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after ``step`` images."""
        if self._run is None:
            self._run = self._begin()
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """No more will come."""
        if self._run is not None:
            self._run.finish()


class TensorBoardTracker:
    """An event file that TensorBoard reads."""

    def __init__(self, folder: Path) -> None:
        """Prepare for a file in a folder; DiffjaxError without the package."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise _missing("--tensorboard", "tensorboardX") from None
        self._begin: Callable[[], Any] = partial(SummaryWriter, str(folder))
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after ``step`` images."""
        if self._writer is None:
            self._writer = self._begin()
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """No more will come."""
        if self._writer is not None:
            self._writer.close()


def _missing(option: str, package: str) -> DiffjaxError:
    return DiffjaxError(
        f"{option} needs the package {package}, which is not installed. Install it "
        f"with: pip install {package}"
    )
