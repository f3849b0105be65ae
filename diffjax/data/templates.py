"""Prompts from CLIP_benchmark's files: class names in one, templates in another."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from diffjax.data.prompts import Prompts, split_template
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import read_json, read_lines


def read_clip_benchmark(
    classnames: str | os.PathLike[str],
    templates: str | os.PathLike[str],
    dataset: str | None = None,
) -> Prompts:
    """One prompt for each class name and template, class by class.

    Either file is text with an entry a line (blank lines do not count), or, when its
    name ends in .json, a list, or CLIP_benchmark's table {data set: list}.

    The place of the name in a template is ``{c}``, as CLIP_benchmark has it, or ``{}``.
    CLIP averages the text embeddings of a class's prompts; here they compete, unless
    the classifier is told to merge them by their mean.

    Args:
        classnames: the file of names, in the order of the class numbers.
        templates: the file of templates.
        dataset: the key in tables; None if neither file is one.

    Raises:
        DiffjaxError: if a file is missing or malformed, or the key is.
    """
    names, names_keyed = _read(Path(classnames), dataset)
    patterns, patterns_keyed = _read(Path(templates), dataset)
    if dataset is not None and not (names_keyed or patterns_keyed):
        raise DiffjaxError(
            f"Neither {classnames} nor {templates} is a table of data sets, so leave "
            f"out the name {dataset!r}."
        )
    if repeated := _repeated(patterns):
        raise DiffjaxError(f"{templates} has the template {repeated!r} twice.")
    if repeated := _repeated(names):
        # kept, as in a prompts file: CLIP's own names of ImageNet have two pairs
        warnings.warn(
            f"{classnames}: classes share the name {repeated!r}.", stacklevel=2
        )
    try:
        halves = [split_template(each.replace("{c}", "{}")) for each in patterns]
        return Prompts(
            prompts=tuple(a + name + b for name in names for a, b in halves),
            classidx=tuple(c for c in range(len(names)) for _ in halves),
            class_names=tuple(names),
        )
    except DiffjaxError as error:
        raise DiffjaxError(f"{classnames} with {templates}: {error}") from None


def _read(path: Path, dataset: str | None) -> tuple[list[str], bool]:
    """The entries of a file, and whether a table was asked for them."""
    if path.suffix.lower() != ".json":
        return _checked([line for line in read_lines(path) if line], path), False
    content = read_json(path)
    if keyed := isinstance(content, dict):
        if dataset is None:
            raise DiffjaxError(
                f"{path} is a table of data sets; name one of them: "
                f"{', '.join(content)}."
            )
        if dataset not in content:
            raise unknown(f"data set in {path}", dataset, content)
        content = content[dataset]
    return _checked(content, path), keyed


def _checked(entries: object, path: Path) -> list[str]:
    if not isinstance(entries, list) or not all(
        isinstance(each, str) and each.strip() for each in entries
    ):
        raise DiffjaxError(f"{path} must hold a list of texts, none of them empty.")
    if not entries:
        raise DiffjaxError(f"{path} is empty.")
    return entries


def _repeated(values: Sequence[str]) -> str | None:
    """The first value that is there twice."""
    return next((v for i, v in enumerate(values) if v in values[:i]), None)
