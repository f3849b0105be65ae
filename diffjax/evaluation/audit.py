"""Judges the images of a data set as the filters of a training set would.

size        shorter side of the image as it is stored
aesthetic   head(i),  unsafe   detector(i),   i = CLIP's features of length 1
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.baselines.classifier import batch_of
from diffjax.baselines.clip import Clip, described
from diffjax.choices import FILTERS
from diffjax.classify.progress import Progress
from diffjax.data.images import load_image
from diffjax.data.sources import digest
from diffjax.errors import DiffjaxError, overflowed
from diffjax.evaluation.task import Task
from diffjax.models.clip_image import CLIPVisionConfig
from diffjax.models.heads import AestheticHead, Detector
from diffjax.runs.audit import Audit, Limits, open_audit

SIZES = 256  # images at once, where there are no heads
SECONDS = 10.0  # between which the table is written
# OpenAI's, whose features LAION's heads were trained on
VIT_L_14 = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    patch_size=14,
    projection_dim=768,
)

Head = AestheticHead | Detector


@dataclass(frozen=True, kw_only=True)
class Judges:
    """What judges images besides their size.

    Attributes:
        clip: gives the features; None where there are no heads.
        heads: by "aesthetic" and "unsafe".
    """

    clip: Clip | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)

    def check(self) -> None:
        """Raise DiffjaxError if a head takes more or fewer features than CLIP gives.

        Of as many by another network a line tells.
        """
        if self.clip is None:
            return
        vision = self.clip.loaded.config.vision
        width = self.clip.loaded.config.text.projection_dim
        for name, head in self.heads.items():
            if head.width != width:
                raise DiffjaxError(
                    f"{self.clip.name} gives {width} features of an image, but the "
                    f"head of {name} takes {head.width}. LAION's take the 768 of "
                    "OpenAI's ViT-L-14: --clip ViT-L-14."
                )
        if width == VIT_L_14.projection_dim and vision != VIT_L_14:
            warnings.warn(
                f"{self.clip.name} is another network than OpenAI's ViT-L-14 at 224 "
                "pixels, whose features LAION's heads judge: their figures mean "
                "nothing here.",
                stacklevel=2,
            )

    def describe(self) -> dict[str, str]:
        """Fingerprints of all that decides the figures."""
        if self.clip is None:
            return {}
        clip = digest([repr(described(self.clip.loaded))])
        return {"clip": clip} | {
            name: digest(_parts(head)) for name, head in self.heads.items()
        }


def audit(
    task: Task,
    judges: Judges,
    path: Path,
    *,
    filters: Sequence[str] = FILTERS,
    limits: Limits | None = None,
    progress: Progress | None = None,
    opened: Callable[[Audit], None] = lambda table: None,
) -> dict[str, Any]:
    """Judge the images of a task, or those that are missing in the table at ``path``.

    Args:
        task: whose classes do not matter.
        judges: of the images.
        path: the folder of the table; one of the same data and judges goes on.
        filters: that are counted; the judges have to know them.
        limits: of the filters; Stable Diffusion 2's by default.
        progress: is told of every image.
        opened: is called with the table once it is open.

    Returns:
        What audit.json holds.

    Raises:
        DiffjaxError: if the folder holds something else, or no image can be read.
    """
    judges.check()
    source = task.source
    header = {
        "data": {
            "name": source.name,
            "split": source.split,
            "fingerprint": source.fingerprint,
        },
        "models": judges.describe(),
        "names": {"clip": judges.clip.name} if judges.clip else {},
    }
    table = open_audit(path, header)
    opened(table)
    done = {index for index, row in table.rows.items() if row["error"] is None}
    todo = [int(index) for index in task.indices if int(index) not in done]
    progress = progress or Progress()
    progress.total = len(task.indices)
    progress.before = progress.done = progress.total - len(todo)
    progress.watch(progress)
    clip = judges.clip
    chunk = SIZES if clip is None else batch_of(clip.loaded.processing.resolution)
    written = time.monotonic()
    for start in range(0, len(todo), chunk):
        for row in _judged(task, judges, todo[start : start + chunk]):
            table.add(row)
            progress.count(failed=row.get("error") is not None)
        if time.monotonic() - written > SECONDS:
            table.flush()
            written = time.monotonic()
    table.flush()
    return table.finish(task.indices.tolist(), filters, limits or Limits())


def _judged(
    task: Task, judges: Judges, indices: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A row for each image."""
    seen: list[tuple[dict[str, Any], np.ndarray]] = []
    for index in indices:
        row: dict[str, Any] = {"index": index, "id": f"image {index}"}
        try:
            example = task.source[index]
            height, width, _ = example.image.shape
            row |= {"id": example.id, "width": width, "height": height}
            row["label"] = task.source.class_names[example.label]
            if judges.clip is not None:
                see = judges.clip.loaded.processing
                seen.append((row, see(load_image(example.image))))
                continue
        except DiffjaxError as error:
            row["error"] = str(error)
        yield row
    if not seen or judges.clip is None:
        return
    features = judges.clip.images(np.stack([pixels for _, pixels in seen]))
    scores = {name: head(features) for name, head in judges.heads.items()}
    for k, (row, _) in enumerate(seen):
        found = {name: float(each[k]) for name, each in scores.items()}
        if np.isfinite(list(found.values())).all():
            yield row | found
        else:
            yield row | {"error": str(overflowed("A score is not finite"))}


def _parts(head: Head) -> Iterator[str | bytes]:
    """All that decides a head's scores."""
    yield type(head).__name__
    arrays = [array for layer in head.layers for array in layer]
    if isinstance(head, Detector):
        yield repr({c: list(numbers) for c, numbers in head.categories.items()})
        arrays += [head.mean, head.variance]
    yield from (array.tobytes() for array in arrays)
