"""Prompts from CLIP_benchmark's files: class names in one, templates in another.

Its tables are {data set: list}. Class names may be empty (one of its sets has "" for a
middle distance), templates may be given twice, and a table of templates may hold, for a
data set, {class name: whole prompts} (CuPL, arXiv 2209.03320).
"""

import os
import warnings
from collections.abc import Mapping, Sequence

from diffjax.data.prompts import Prompts, repeated_in, split_template
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import PathLike, read_json, read_lines, user_path

EMPTY = "(empty)"  # how results name a class whose name is empty


def read_clip_benchmark(
    classnames: PathLike | Sequence[str],
    templates: PathLike,
    dataset: str | None = None,
) -> Prompts:
    """One prompt for each class name and template, class by class.

    Either file is text with an entry a line (blank lines do not count), or, when its
    name ends in .json, a list, or CLIP_benchmark's table {data set: list}.

    The place of the name in a template is ``{c}``, as CLIP_benchmark has it, or ``{}``.
    CLIP averages the text embeddings of a class's prompts; here they compete, unless
    the classifier is told to merge them by their mean.

    Args:
        classnames: the file of names, in the order of the class numbers; or the names.
        templates: the file of templates.
        dataset: the key in tables; None if neither file is one.

    Raises:
        DiffjaxError: if a file is missing or malformed, or the key is.
    """
    patterns, patterns_keyed = _read(templates, dataset)
    if isinstance(classnames, str | os.PathLike):
        names, names_keyed = _read(classnames, dataset)
        files = f"{classnames} with {templates}"
        names = _names(names, classnames)
    else:
        names, names_keyed, files = list(classnames), False, f"{templates}"
    if dataset is not None and not (names_keyed or patterns_keyed):
        raise DiffjaxError(
            f"{files}: neither is a table of data sets, so leave out the name "
            f"{dataset!r}."
        )
    if repeated := repeated_in(names):
        # kept, as in a prompts file: CLIP's own names of ImageNet have two pairs
        warnings.warn(f"{files}: classes share the name {repeated}.", stacklevel=2)
    if isinstance(patterns, Mapping):
        rows = [_whole_prompts(patterns, name, templates) for name in names]
    else:
        halves = [_halves(each, templates) for each in _once(patterns, str(templates))]
        rows = [[before + name + after for before, after in halves] for name in names]
    if empty := [prompt for row in rows for prompt in row if not prompt.strip()]:
        raise DiffjaxError(f"{files}: {len(empty)} prompt(s) would be empty.")
    try:
        return Prompts(
            prompts=tuple(prompt for row in rows for prompt in row),
            classidx=tuple(c for c, row in enumerate(rows) for _ in row),
            class_names=tuple(name if name.strip() else EMPTY for name in names),
        )
    except DiffjaxError as error:
        raise DiffjaxError(f"{files}: {error}") from None


def _read(path: PathLike, dataset: str | None) -> tuple[object, bool]:
    """The entries of a file, and whether a table was asked for them."""
    place = user_path(path)
    if place.suffix.lower() != ".json":
        return [line for line in read_lines(place) if line], False
    content = read_json(place)
    if keyed := isinstance(content, dict):
        if dataset is None:
            raise DiffjaxError(
                f"{path} is a table of data sets; name one of them: "
                f"{', '.join(content)}."
            )
        if dataset not in content:
            raise unknown(f"data set in {path}", dataset, content)
        content = content[dataset]
    return content, keyed


def _names(entries: object, path: PathLike) -> list[str]:
    if (
        isinstance(entries, list)
        and len(entries) == 2
        and all(isinstance(each, list) for each in entries)
    ):
        raise DiffjaxError(
            f"{path} names some of ImageNet's classes, by their numbers, as Babel-"
            "ImageNet does. Give a list with a name for every class of the data set."
        )
    if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
        raise DiffjaxError(f"{path} must hold a list of texts.")
    if not entries:
        raise DiffjaxError(f"{path} is empty.")
    if empty := [i for i, name in enumerate(entries) if not name.strip()]:
        warnings.warn(
            f"{path}: the name of class {empty[0]} is empty; its prompts are the "
            "templates without a name.",
            stacklevel=3,
        )
    return entries


def _halves(template: object, path: PathLike) -> tuple[str, str]:
    try:
        return split_template(str(template).replace("{c}", "{}"))
    except DiffjaxError as error:
        raise DiffjaxError(f"{path}: {error}") from None


def _whole_prompts(table: Mapping[str, object], name: str, path: PathLike) -> list[str]:
    """The prompts of a class, from a table {class name: prompts}."""
    if name not in table:
        raise DiffjaxError(
            f"{path} has no prompts for the class {name!r}; its first class is "
            f"{next(iter(table), 'none')!r}. Give the names that belong to it."
        )
    return _once(table[name], f"{path}, class {name!r}")


def _once(entries: object, where: str) -> list[str]:
    """A list of texts, those that are there twice once."""
    if not isinstance(entries, list) or not all(
        isinstance(each, str) and each.strip() for each in entries
    ):
        raise DiffjaxError(f"{where} must hold a list of texts, none of them empty.")
    if not entries:
        raise DiffjaxError(f"{where} is empty.")
    if repeated := repeated_in(entries):
        warnings.warn(f"{where} has twice, taken once: {repeated}.", stacklevel=3)
    return list(dict.fromkeys(entries))
