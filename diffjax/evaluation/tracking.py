"""Running accuracy for Weights & Biases or TensorBoard; both optional.

A missing package is an error at once, but nothing is begun before the first numbers:
what goes wrong until then leaves no empty runs or folders behind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffjax.errors import optional


@dataclass(kw_only=True)
class Tracker:
    """Takes numbers as they come.

    Attributes:
        begin: what makes the run or file that the numbers go to.
        write: what writes the numbers after so many images there.
        end: what closes it.
    """

    begin: Callable[[], Any]
    write: Callable[[Any, int, Mapping[str, float]], None]
    end: Callable[[Any], None]

    def __post_init__(self) -> None:
        self._begun: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after ``step`` images."""
        if self._begun is None:
            self._begun = self.begin()
        self.write(self._begun, step, values)

    def close(self) -> None:
        """No more will come."""
        if self._begun is not None:
            self.end(self._begun)


def wandb_tracker(project: str, config: Mapping[str, Any]) -> Tracker:
    """A run of Weights & Biases; DiffjaxError without the package."""
    wandb = optional("wandb", "--wandb")
    return Tracker(
        begin=partial(wandb.init, project=project, config=dict(config)),
        write=lambda run, step, values: run.log(dict(values), step=step),
        end=lambda run: run.finish(),
    )


def tensorboard_tracker(folder: Path) -> Tracker:
    """An event file that TensorBoard reads; DiffjaxError without the package."""
    board = optional("tensorboardX", "--tensorboard")

    def write(writer: Any, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return Tracker(
        begin=partial(board.SummaryWriter, str(folder)),
        write=write,
        end=lambda writer: writer.close(),
    )
