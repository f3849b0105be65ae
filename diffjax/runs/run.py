"""A run as it was found on disk; ``folder.read_run`` reads it."""

import html
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from diffjax.classify.samples import few_shot
from diffjax.data.files import ALL
from diffjax.data.prompts import Prompts
from diffjax.errors import optional
from diffjax.files import json_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NAMED = ("label", "prediction")  # columns beside which the classes' names stand


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Run:
    """A run as it was found on disk, complete or not.

    Attributes:
        path: The folder of the run.
        header: What run.json holds: all that was asked for, model, data and machine.
        prompts: The P rows of the error tables and their classes.
        rows: A pyarrow table of one row an image, by index; ``runs.rows.schema`` says
            what the columns are. Beside the numbers label and prediction stand their
            names, label_name and prediction_name. Images that failed say why in the
            column error, which is null for all others.
        damaged: Parts whose rows are not among them.
    """

    path: Path
    header: dict[str, Any]
    prompts: Prompts
    rows: "pa.Table"
    damaged: tuple[Path, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes of the data set."""
        return tuple(self.header["class_names"])

    @property
    def classes(self) -> Int[np.ndarray, "C"]:
        """The data set's number of each of the C candidates."""
        return np.asarray(self.header["classes"], np.int64)

    @property
    def losses(self) -> tuple[str, ...]:
        """Losses evaluated besides the one that decided."""
        return tuple(self.header["experiment"].get("also", ()))

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for: data set, images, prompts, strategy, loss and so on."""
        return dict(self.header["experiment"])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds of a complete run: accuracy, intervals and cost.

        Of a run that is not complete it is of the images that are there, and
        summary["status"] says so.
        """
        from diffjax.runs.metrics import summary  # which is about runs

        found: dict[str, Any] = json.loads(json_text(summary(self)))  # no tuples
        return found

    @property
    def status(self) -> str:
        """ "complete", "in progress" or "damaged"."""
        if len(self.rows) >= self.header["data"]["n"]:
            return "complete"  # what was damaged has been done again
        return "damaged" if self.damaged else "in progress"

    @property
    def shortfall(self) -> str | None:
        """What to say wherever this run's results are shown; None if it is complete."""
        if self.status == "complete":
            return None
        return (
            f"{self.path} is {self.status}: {len(self.rows):,} of "
            f"{self.header['data']['n']:,} images are there. The command that began it "
            "does the others."
        )

    @property
    def good(self) -> "pa.Table":
        """The rows of images that did not fail."""
        return self.rows.filter(self.rows["error"].is_null())

    @property
    def has_errors(self) -> bool:
        """Whether the tables of errors were saved, and read."""
        return "errors" in self.rows.column_names

    def to_pandas(self) -> "pd.DataFrame":
        """Return the rows as a pandas DataFrame, by index.

        Raises:
            DiffjaxError: If pandas is not installed.
        """
        instead = (
            "Without it, rows is a pyarrow table, and rows.to_pylist() has a dict for "
            "each image."
        )
        optional("pandas", "A DataFrame", instead)
        return self.rows.to_pandas().set_index("index")

    def __repr__(self) -> str:
        """One line: model, data, images, accuracy, folder."""
        facts = self._facts()
        facts["images"] += " images"
        return f"<Run of {', '.join(facts.values())}>"

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        lines = "".join(
            f"<tr><th style='text-align:left'>{name}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table>{lines}</table>"

    def _facts(self) -> dict[str, str]:
        """What identifies the run, and how it went."""
        data, metrics = self.header["data"], self.summary
        split = data.get("split")
        images = f"{len(self.rows):,}"
        if failed := metrics["failed_images"]:
            images += f" ({failed:,} failed)"
        if self.status != "complete":
            images += f" of {data['n']:,} ({self.status})"
        facts = {
            "model": str(self.header["model"]["name"]),
            "data": str(data["name"])
            + (f" {split}" if split not in (None, ALL) else ""),
            "images": images,
        }
        if seen := few_shot(self.config, data["fingerprint"]):
            facts["learned"] = seen
        if (accuracy := metrics["metrics"].get("acc1")) is not None:
            low, high = metrics["intervals"]["acc1"]
            facts["accuracy"] = (
                f"{100 * accuracy:.1f} % right ({100 * low:.1f} to {100 * high:.1f})"
            )
        return facts | {"folder": str(self.path)}


def with_names(rows: "pa.Table", class_names: tuple[str, ...]) -> "pa.Table":
    """Rows with the names of their labels and predictions beside the numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(class_names, pa.string())
    for column in NAMED:
        number = rows[column]
        # of an image that failed it may be anything
        known = pc.is_in(number, pa.array(range(len(names)), number.type))
        found = names.take(pc.if_else(known, number, None).combine_chunks())
        place = rows.column_names.index(column) + 1
        rows = rows.add_column(place, f"{column}_name", found)
    return rows
