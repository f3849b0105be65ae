"""Running accuracy for Weights & Biases or TensorBoard; both optional."""

from collections.abc import Mapping
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
        """Begin a run; DiffjaxError without the package."""
        try:
            import wandb
        except ImportError:
            raise _missing("--wandb", "wandb") from None
        self._run = wandb.init(project=project, config=dict(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after ``step`` images."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """No more will come."""
        self._run.finish()


class TensorBoardTracker:
    """An event file that TensorBoard reads."""

    def __init__(self, folder: Path) -> None:
        """Begin a file in a folder; DiffjaxError without the package."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise _missing("--tensorboard", "tensorboardX") from None
        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after ``step`` images."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """No more will come."""
        self._writer.close()


def _missing(option: str, package: str) -> DiffjaxError:
    return DiffjaxError(
        f"{option} needs the package {package}, which is not installed. Install it "
        f"with: pip install {package}"
    )
