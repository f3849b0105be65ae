"""Winoground: which of two captions of the same words belongs to which of two images.

With e(c, i) the mean error of image i under caption c over evenly spaced timesteps, its
noise shared by both images and all captions, and s(c, i) = −e(c, i):

    text    s(c0, i0) > s(c1, i0)  and  s(c1, i1) > s(c0, i1)
    image   s(c0, i0) > s(c0, i1)  and  s(c1, i1) > s(c1, i0)
    group   both

Chance is 25 %, 25 % and 16.7 %. Some images have smaller errors under any caption,
which makes the plain image score unsound. Normalised scores take
s(c, i) = e("", i) − e(c, i), with the empty caption; the text score is the same.

Of other sets an image has a caption that fits and some that do not: then the text score
is s(c0, i) > s(c, i) for all others c, and chance is one in as many as there are. The
mean over tags counts each once, as in the tables of ARO's and SugarCrepe's authors.
COLA is matched as Winoground; what its authors report is the image score.

Sources: Thrush et al. 2022 (arXiv 2204.03162) for the scores; Li et al. 2023, section
4.2 and the appendix, for diffusion models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from diffjax.data.compositional import counts
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import SUMMARY
from diffjax.runs.header import read_header, require, same_run
from diffjax.runs.metrics import wilson
from diffjax.runs.rows import read_rows

if TYPE_CHECKING:
    import pyarrow as pa

TASK = "winoground"  # of a run's header
CHOICE = "caption_choice"  # the same, of examples with one image
TASKS = (TASK, CHOICE)
SCORES = ("text", "image", "group", "image_normalised", "group_normalised")
CHANCE = dict(zip(SCORES, (1 / 4, 1 / 4, 1 / 6, 1 / 4, 1 / 6), strict=True))
CAPTIONS = ("caption 0", "caption 1", "empty")  # rows of an example's errors


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionRun:
    """A run of captions and images as it was found on disk, complete or not.

    Attributes:
        path: its folder.
        header: run.json.
        rows: one an example, by index; see ``columns``.
        status: "complete", "in progress" or "damaged".
    """

    path: Path
    header: dict[str, Any]
    rows: list[dict[str, Any]]
    status: str

    @property
    def good(self) -> list[dict[str, Any]]:
        """The rows of examples that did not fail."""
        return [row for row in self.rows if row["error"] is None]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(example, what went wrong) of the examples that failed."""
        bad = [row for row in self.rows if row["error"] is not None]
        return [(str(row["id"]), str(row["error"])) for row in bad]

    @property
    def shortfall(self) -> str | None:
        """What to say wherever this run's results are shown; None if it is complete."""
        if self.status == "complete":
            return None
        return (
            f"{self.path} is {self.status}: {len(self.rows):,} examples are there. The "
            "command that began it does the others."
        )


def read_caption_run(path: Path) -> CaptionRun:
    """Read a run of captions and images; it may still be going on.

    Raises:
        DiffjaxError: if there is none, or a file of it is damaged.
    """
    header = read_header(path)
    task = header["experiment"].get("task")
    if task not in TASKS:
        raise DiffjaxError(f"{path} is not a run of `diffjax winoground`.")
    require(header, ("model.name", "data.name"), path)
    rows, damaged = read_rows(path, columns(str(task)), ours=same_run(header))
    status = "damaged" if damaged else "in progress"
    # the number of examples is not in the header: a summary tells that all are there
    if (path / SUMMARY).exists():
        status = "complete"
    return CaptionRun(path=path, header=header, rows=rows.to_pylist(), status=status)


def winoground_scores(
    errors: Float[np.ndarray, "n 2 2"], empty: Float[np.ndarray, "n 2"]
) -> dict[str, Bool[np.ndarray, " n"]]:
    """The five scores of each example; a tie counts as wrong.

    Args:
        errors: e of caption c on image i at [c, i].
        empty: e of the empty caption on each image.
    """

    def image(s: Float[np.ndarray, "n 2 2"]) -> Bool[np.ndarray, " n"]:
        return (s[:, 0, 0] > s[:, 0, 1]) & (s[:, 1, 1] > s[:, 1, 0])

    s = -errors
    text = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
    plain, normalised = image(s), image(empty[:, None, :] - errors)
    return {
        "text": text,
        "image": plain,
        "group": text & plain,
        "image_normalised": normalised,
        "group_normalised": text & normalised,
    }


def columns(task: str = TASK) -> "pa.Schema":
    """Of a run's rows: one an example."""
    import pyarrow as pa

    texts = ("id", "tag", "secondary_tag", "collapsed_tag", "error")
    both: dict[str, Any] = {
        **{"index": pa.int64(), "seconds": pa.float32(), "evaluations": pa.int32()},
        **{name: pa.string() for name in texts},
    }
    if task == CHOICE:  # errors by caption, the right one first
        errors = pa.list_(pa.float32())
        return pa.schema(both | {"caption_errors": errors, "text": pa.bool_()})
    return pa.schema(
        both
        | {name: pa.float32() for name in cells()}
        | {score: pa.bool_() for score in SCORES}
    )


def cells() -> list[str]:
    """Names of an example's mean errors, row by row."""
    return [f"{c.replace(' ', '_')}_image_{i}" for c in CAPTIONS for i in (0, 1)]


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores over all examples, by collapsed tag and by tag.

    Args:
        rows: of a run, as dictionaries.

    Returns:
        "overall", and "by_collapsed_tag" and "by_tag" by their names: the number of
        examples "n", and each of ``SCORES`` that there is as a proportion with its 95 %
        interval (Wilson). Of choices, "mean_over_tags" by collapsed tag: the mean of
        the text scores of its tags, and how many of these count, and "chance". Rows
        that failed count in "failed_examples" alone.
    """
    good = [row for row in rows if row["error"] is None]
    found = {
        "overall": _proportions(good),
        "by_collapsed_tag": _by(good, "collapsed_tag"),
        "by_tag": _by(good, "tag"),
        "examples": len(good),
        "failed_examples": len(rows) - len(good),
    }
    if good and "caption_errors" in good[0]:
        chances = [1 / len(row["caption_errors"]) for row in good]
        found["chance"] = sum(chances) / len(good)
        found["mean_over_tags"] = _means(good)
    return found


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over the tags that count, by collapsed tag, where there are several."""
    right: dict[str, dict[str, list[bool]]] = {}
    for row in rows:
        tags = right.setdefault(row["collapsed_tag"], {})
        tags.setdefault(row["tag"], []).append(bool(row["text"]))
    found = {}
    for name, tags in right.items():
        scores = [
            sum(each) / len(each)
            for tag, each in tags.items()
            if counts(name, tag, len(each))
        ]
        if len(tags) > 1 and scores:
            found[name] = {"score": sum(scores) / len(scores), "tags": len(scores)}
    return found


def _by(rows: Sequence[Mapping[str, Any]], tag: str) -> dict[str, Any]:
    tags = sorted({row[tag] for row in rows} - {""})
    return {t: _proportions([row for row in rows if row[tag] == t]) for t in tags}


def _proportions(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    n = len(rows)
    if not n:
        return {"n": 0}
    known = [score for score in SCORES if score in rows[0]]
    right = {score: sum(bool(row[score]) for row in rows) for score in known}
    return {"n": n} | {
        score: {"score": k / n, "interval": list(wilson(k, n))}
        for score, k in right.items()
    }
