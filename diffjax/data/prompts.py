"""Prompts: what the text encoder reads for each class.

Several prompts may stand for one class; ``classidx`` says which prompt is whose.
"""

import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any

from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, read_csv, write_text

DEFAULT_TEMPLATE = "a photo of a {}."
CIFAR10_TEMPLATE = "a blurry photo of a {}."  # the paper's, for CIFAR-10
CSV_COLUMNS = ("prompt", "classname", "classidx")


def split_template(template: str) -> tuple[str, str]:
    """What stands before and after the template's one ``{}``.

    Raises:
        DiffjaxError: if there is not exactly one, or another brace.
    """
    if template.count("{}") != 1:
        raise DiffjaxError(
            f"The template {template!r} must contain {{}} exactly once, where the "
            f"label goes, as in {DEFAULT_TEMPLATE!r}."
        )
    before, after = template.split("{}")
    if set("{}") & set(before + after):
        raise DiffjaxError(
            f"The template {template!r} has a brace besides its {{}}. Remove it."
        )
    return before, after


def split_labels(text: str) -> list[str]:
    """Labels that commas separate; double quotes hold one together that has a comma.

    As in a line of CSV: ``"ship, boat", truck``. Empty text holds no labels.

    Raises:
        DiffjaxError: if a quote is not closed, or there are several lines.
    """
    if not text.strip():
        return []
    try:
        [row] = csv.reader([text], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise DiffjaxError(
            f"The labels {text!r} cannot be told apart ({error}). Separate them by "
            'commas, and put one that has a comma in double quotes: "ship, boat",truck.'
        ) from None
    return [label.strip() for label in row]


def join_labels(labels: Iterable[str]) -> str:
    """The text of which ``split_labels`` makes these labels."""
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(labels)
    return row.getvalue()


def check_labels(labels: Iterable[Any], *, least: int = 2) -> tuple[str, ...]:
    """Labels that can be told apart: enough, none empty, none twice.

    Args:
        labels: texts, or whole numbers, which become their digits.
        least: how many there must be, 1 or 2.

    Returns:
        Plain texts.

    Raises:
        DiffjaxError: if they are others.
    """
    if isinstance(labels, str | bytes | Mapping | Set):
        raise DiffjaxError(
            f"Labels must be a list, not {labels!r:.100}. Split a text; put a set in "
            "an order."
        )
    texts = tuple(map(_label, labels))
    if not texts:
        many = "two classes" if least > 1 else "one class"
        raise DiffjaxError(f"No labels were given. Name at least {many}.")
    if any(not label.strip() for label in texts):
        raise DiffjaxError(
            f"A label is empty in {list(texts)}. Remove it, or a stray comma."
        )
    if len(texts) < least:
        raise DiffjaxError(
            f"Only one label was given ({texts[0]!r}). A classification compares "
            "classes: name at least two."
        )
    if repeated := repeated_in(label.strip() for label in texts):
        raise DiffjaxError(f"Labels are given more than once: {repeated}.")
    return texts


def _label(label: object) -> str:
    """A label as a plain text, also of numpy's kinds of text and whole numbers."""
    if isinstance(label, str):
        return str(label)
    if isinstance(label, Integral) and not isinstance(label, bool):
        return str(int(label))
    raise DiffjaxError(
        f"A label must be a text or a whole number, not {label!r:.100} "
        f"({type(label).__name__})."
    )


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompts of a classification and the classes that they stand for.

    Attributes:
        prompts: what the text encoder reads, P strings.
        classidx: the class of each prompt, P integers in [0, C); every class has one.
        class_names: how results name the classes, C strings.
    """

    prompts: tuple[str, ...]
    classidx: tuple[int, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise DiffjaxError where the three fields do not fit together."""
        if len(self.prompts) != len(self.classidx):
            raise DiffjaxError(
                f"{len(self.prompts)} prompts but {len(self.classidx)} class indices."
            )
        classes = len(self.class_names)
        if classes < 2:
            raise DiffjaxError(
                f"{classes} class(es) are given. A classification compares classes: "
                "give prompts for at least two."
            )
        if wrong := sorted(set(self.classidx) ^ set(range(classes))):
            raise DiffjaxError(
                f"{classes} classes need prompts with the class indices 0 to "
                f"{classes - 1}, each at least once; missing or out of range: "
                f"{_listed(wrong)}."
            )

    @classmethod
    def from_labels(
        cls, labels: Iterable[Any], templates: str | Sequence[str] = DEFAULT_TEMPLATE
    ) -> "Prompts":
        """Make one prompt for each label and template, label by label.

        The article stays as it is written ("a photo of a airplane."): so do the
        prompts of the paper.

        Raises:
            DiffjaxError: as ``check_labels``, or if a template is malformed or given
                twice.
        """
        return cls.from_names(check_labels(labels), templates)

    @classmethod
    def from_names(
        cls, names: Sequence[str], templates: str | Sequence[str] = DEFAULT_TEMPLATE
    ) -> "Prompts":
        """Make prompts like ``from_labels``; classes may share a name, with a warning.

        Published lists have such classes, ImageNet's two missiles for one: they cannot
        be told apart.

        Raises:
            DiffjaxError: if a name is empty, there are fewer than two, or a template
                is malformed or given twice.
        """
        templates = (templates,) if isinstance(templates, str) else tuple(templates)
        if not templates:
            raise DiffjaxError(
                f"No template was given. Use for example {DEFAULT_TEMPLATE!r}."
            )
        if repeated := repeated_in(templates):
            raise DiffjaxError(f"Templates are given more than once: {repeated}.")
        if empty := [c for c, name in enumerate(names) if not name.strip()]:
            raise DiffjaxError(f"Class {empty[0]} has an empty name. Give it one.")
        if repeated := repeated_in(names):
            warnings.warn(f"Classes share a name: {repeated}.", stacklevel=2)
        halves = [split_template(template) for template in templates]
        return cls(
            prompts=tuple(a + name + b for name in names for a, b in halves),
            classidx=tuple(c for c in range(len(names)) for _ in halves),
            class_names=tuple(names),
        )

    @classmethod
    def read_csv(cls, path: PathLike) -> "Prompts":
        """Read a UTF-8 CSV file with the columns prompt, classname and classidx.

        Class indices count from 0 without gaps; rows may come in any order, several
        for one class; further columns are not read. Classes that share a prompt or a
        name are kept, with a warning, since published prompt files have them: they
        cannot be told apart.

        Raises:
            DiffjaxError: if the file is missing or malformed, naming the line.
        """
        rows = _read_rows(Path(path))
        names: dict[int, str] = {}
        seen: set[tuple[str, int]] = set()
        for where, prompt, name, index in rows:
            if names.setdefault(index, name) != name:
                raise DiffjaxError(
                    f"{where}: class {index} is called {name!r} here and "
                    f"{names[index]!r} above. Give it one classname."
                )
            if (prompt, index) in seen:
                raise DiffjaxError(
                    f"{where}: class {index} has the prompt {prompt!r} "
                    "already. Remove the line."
                )
            seen.add((prompt, index))
        if shared := repeated_in(prompt for _, prompt, _, _ in rows):
            warnings.warn(f"{path}: classes share a prompt: {shared}.", stacklevel=2)
        if shared := repeated_in(names.values()):
            warnings.warn(f"{path}: classes share a name: {shared}.", stacklevel=2)
        try:
            return cls(
                prompts=tuple(row[1] for row in rows),
                classidx=tuple(row[3] for row in rows),
                class_names=tuple(names[index] for index in sorted(names)),
            )
        except DiffjaxError as error:
            raise DiffjaxError(f"{path}: {error}") from None

    def write_csv(self, path: PathLike) -> None:
        """Write the file that ``read_csv`` reads, whole or not at all."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for prompt, index in zip(self.prompts, self.classidx, strict=True):
            writer.writerow((prompt, self.class_names[index], index))
        write_text(Path(path), text.getvalue())

    def restricted(self, classes: Sequence[int]) -> "Prompts":
        """The prompts of some classes alone, renumbered 0, 1, 2, … in their order.

        Args:
            classes: two or more of this object's class numbers, ascending.

        Raises:
            DiffjaxError: if they are not ascending, or not among its classes.
        """
        if any(a >= b for a, b in pairwise(classes)):
            raise DiffjaxError(
                "The classes to keep must be ascending, each given once: "
                f"{_listed(classes)}."
            )
        known = range(len(self.class_names))
        if absent := [c for c in classes if c not in known]:
            raise DiffjaxError(
                f"Classes to keep that the prompts do not have: {_listed(absent)}. "
                f"Their {len(known)} classes are numbered from 0."
            )
        local = {int(c): i for i, c in enumerate(classes)}
        kept = [p for p, c in enumerate(self.classidx) if c in local]
        return Prompts(
            prompts=tuple(self.prompts[p] for p in kept),
            classidx=tuple(local[self.classidx[p]] for p in kept),
            class_names=tuple(self.class_names[c] for c in local),
        )


def _read_rows(path: Path) -> list[tuple[str, str, str, int]]:
    """(place, prompt, classname, classidx) of each row."""
    rows = []
    for where, cells in read_csv(path, CSV_COLUMNS, "prompts file"):
        prompt, name, index = (cells[column] for column in CSV_COLUMNS)
        for column in CSV_COLUMNS:
            if not cells[column].strip():
                raise DiffjaxError(f"{where}: the {column} is empty.")
        # no file has 10⁹ classes, and int() refuses thousands of digits
        if not index.strip().isdecimal() or len(index.strip()) > 9:
            raise DiffjaxError(
                f"{where}: the classidx {index!r} is not an integer from 0 upwards."
            )
        rows.append((where, prompt, name, int(index)))
    if not rows:
        raise DiffjaxError(
            f"{path} holds no prompts. It needs the columns {', '.join(CSV_COLUMNS)} "
            "and a row for each prompt."
        )
    return rows


def repeated_in(values: Iterable[str]) -> str:
    """The first of the values that are there twice, for a message; or ""."""
    return _listed([v for v, count in Counter(values).items() if count > 1])


def _listed(values: Sequence[object]) -> str:
    """The first few values, for a message of bounded length."""
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""
    return ", ".join(repr(value) for value in values[:5]) + more
