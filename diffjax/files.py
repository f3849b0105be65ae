"""Files: written whole or not at all, and read by one reader for each format.

Every reader answers what it cannot read with a DiffjaxError that names the file, the
place in it and what to do. Each checks the size before it reads, waits for no pipe, and
takes a byte-order mark, as Windows' editors write it.
"""

import codecs
import csv
import io
import json
import math
import os
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffjax.errors import DiffjaxError

PARTIAL = ".partial"  # how names of unfinished files end

PathLike = str | os.PathLike[str]

MAX_TEXT_BYTES = 2**28  # a million prompts are a fifth of it
MAX_JSON_BYTES = 2**26  # in memory values are up to thirty times as large
MAX_NESTING = 64  # of JSON; published files have 6 levels
_LONE = re.compile("[\ud800-\udfff]")  # halves of characters


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes ``path`` when all has gone well.

    The content reaches the disk before the name does, so that not even a power cut
    leaves half a file behind. When anything goes wrong, an older file stays as it was.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file, atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def json_text(
    value: Any, *, indent: int | None = None, ascii: bool = False, sort: bool = False
) -> str:
    """JSON as the standard has it, which knows neither NaN nor infinity.

    Args:
        value: plain values; in names of files that are no text, what is no character
            becomes the mark that stands for such.
        indent: of lines; None for a single one.
        ascii: escape what is not ASCII.
        sort: by key.

    Raises:
        DiffjaxError: if a number is not finite, saying which.
    """
    try:
        text = json.dumps(
            value, indent=indent, ensure_ascii=ascii, sort_keys=sort, allow_nan=False
        )
    except ValueError:
        place, number = next(_not_finite(value, ""))
        raise DiffjaxError(
            f"{place or 'The result'} is {number}, which is no result: numbers "
            "overflowed on the way to it."
        ) from None
    return _LONE.sub("\N{REPLACEMENT CHARACTER}", text)


def write_json(path: Path, value: Any, *, indent: int = 1) -> None:
    """Write a whole JSON file as ``json_text`` has it, atomically."""
    write_text(path, json_text(value, indent=indent) + "\n")


def user_path(path: PathLike) -> Path:
    """A path as a person types it, with ``~`` made a folder.

    Raises:
        DiffjaxError: if the user after ``~`` is unknown, or a character impossible.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise DiffjaxError(f"{text!r} is no path: it holds a null character.")
    try:
        os.fsencode(text)  # half a character of JSON, for one, has no bytes
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise DiffjaxError(
            f"{text!r} is no path: it holds half a character (a lone surrogate)."
        ) from None
    except RuntimeError:
        raise DiffjaxError(
            f"There is no home folder for {text!r}: the user after ~ is unknown. Give "
            "the whole path, or ./~… for a name that begins so."
        ) from None


def regular_file(path: PathLike, what: str = "file") -> Path:
    """The path of a file that is there and comes to an end.

    Args:
        path: as a person types it.
        what: the kind of file, for messages.

    Raises:
        DiffjaxError: if there is none, or a folder, pipe or device is there: those
            could be waited for in vain.
    """
    place = user_path(path)
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        raise DiffjaxError(f"There is no {what} {place}. Check the path.") from None
    except OSError as error:  # of which one is that a name is too long
        raise _unreadable(f"{str(place)[:200]}", error) from error
    if stat.S_ISDIR(mode):
        raise DiffjaxError(f"{place} is a folder. Name the {what} itself.")
    if not stat.S_ISREG(mode):
        raise DiffjaxError(
            f"{place} cannot be read: it is a pipe or a device, not a regular file. "
            "Save what it holds to a file."
        )
    return place


def read_bytes(path: PathLike, what: str = "file", most: int = MAX_TEXT_BYTES) -> bytes:
    """A whole file.

    Raises:
        DiffjaxError: if it is missing, not a regular file, or larger than ``most``.
    """
    place = regular_file(path, what)
    try:
        with place.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise _unreadable(place, error) from error
    if len(data) > most:
        raise DiffjaxError(
            f"{place} has {place.stat().st_size / 2**20:,.0f} MiB; a {what} may have "
            f"{most >> 20}. Check that it is the right one, or split it."
        )
    return data


def read_text(path: PathLike, what: str = "file", most: int = MAX_TEXT_BYTES) -> str:
    """A whole UTF-8 text file; a byte-order mark is left out, line ends stay.

    Raises:
        DiffjaxError: as ``read_bytes``, or if it is not UTF-8 text.
    """
    return decode_text(read_bytes(path, what, most), path)


def decode_text(data: bytes, name: PathLike) -> str:
    """The UTF-8 text of bytes; ``name`` is the file's, for messages.

    Raises:
        DiffjaxError: if it is not UTF-8 text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DiffjaxError(
            f"{name} is not UTF-8 text but UTF-16, which some editors call Unicode. "
            "Save it as UTF-8."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DiffjaxError(
            f"{name} is not UTF-8 text (line {line} has the byte "
            f"0x{data[error.start]:02x}). Save it as UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DiffjaxError(
            f"{name} is not UTF-8 text: line {line} has a null character, as in UTF-16 "
            "or in files that are not text. Save it as UTF-8."
        )
    return text


def read_lines(path: PathLike, what: str = "file") -> list[str]:
    """The lines of a UTF-8 text file, without the spaces around them.

    Raises:
        DiffjaxError: as ``read_text``.
    """
    # not splitlines(), which also ends lines at separators like U+2028
    return [line.strip() for line in read_text(path, what).split("\n")]


def read_json(path: PathLike, what: str = "file", remedy: str = "") -> Any:
    """The value of a JSON file.

    Args:
        path: of the file.
        what: the kind of file, for messages.
        remedy: a sentence for messages: what to do about a damaged one.

    Raises:
        DiffjaxError: as ``read_text``, or if it is not JSON that can be used.
    """
    where = str(user_path(path))
    return parse_json(read_text(path, what, MAX_JSON_BYTES), where, remedy)


def read_json_object(path: PathLike, what: str = "file", remedy: str = "") -> Any:
    """The object, a dict, of a JSON file.

    Raises:
        DiffjaxError: as ``read_json``, or if it holds another value.
    """
    content = read_json(path, what, remedy)
    if not isinstance(content, dict):
        raise _bad_json(str(user_path(path)), "is not a JSON object", remedy)
    return content


def read_json_lines(
    path: PathLike, what: str = "file", remedy: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", the object) of each line of a JSON lines file; blanks are none.

    Raises:
        DiffjaxError: as ``read_json``, or if a line holds another value.
    """
    for number, line in enumerate(read_text(path, what).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{user_path(path)}, line {number}"
        content = parse_json(line, where, remedy)
        if not isinstance(content, dict):
            raise _bad_json(where, f"must be an object, not {line.strip():.60}", remedy)
        yield where, content


def parse_json(text: str, where: str, remedy: str = "", *, finite: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        text: the JSON.
        where: the place it is from, for messages.
        remedy: a sentence for messages.
        finite: refuse NaN and infinity, which settings of diffusers' schedulers have.

    Raises:
        DiffjaxError: if it is not JSON, is nested too deeply, or holds what no file
            can hold: NaN, numbers beyond float64, half a character.
    """
    try:
        content = json.loads(text, parse_int=_integer, **_NUMBERS[finite])
    except RecursionError:
        raise _bad_json(where, "is not JSON (nested too deeply)", remedy) from None
    except ValueError as error:
        raise _bad_json(where, f"is not JSON ({error})", remedy) from None
    except MemoryError:
        raise _bad_json(where, "is not JSON that memory holds", remedy) from None
    # level by level, since recursion would have the limit that it is to check
    level: list[tuple[str, Any]] = [("", content)]
    for _ in range(MAX_NESTING):
        inner: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, dict):
                for name, item in value.items():
                    if _LONE.search(name):
                        raise _bad_json(
                            where, f"has the key {name!r} with half a character", remedy
                        )
                    if isinstance(item, dict | list | str):
                        inner.append((f"{key}.{name}" if key else name, item))
            elif isinstance(value, list):
                inner += [
                    (f"{key}[{i}]", item)
                    for i, item in enumerate(value)
                    if isinstance(item, dict | list | str)
                ]
            elif isinstance(value, str) and _LONE.search(value):
                raise _bad_json(
                    where, f"has half a character (a lone surrogate) at {key}", remedy
                )
        if not inner:
            return content
        level = inner
    raise _bad_json(where, f"is nested more than {MAX_NESTING} deep", remedy)


def read_csv(
    path: PathLike, columns: Sequence[str], what: str = "file", *, wanted: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """("FILE, line N", {column: text}) of each row of a CSV file with a header.

    Blank lines are left out. Columns besides the needed ones may be there.

    Args:
        path: of the file.
        columns: that are needed, each once.
        what: the kind of file, for messages.
        wanted: how messages name the needed columns; all of them by default.

    Raises:
        DiffjaxError: as ``read_text``, or if a column is missing, or a line malformed.
    """
    text, name = read_text(path, what), str(user_path(path))
    yield from parse_csv(text, name, columns, wanted=wanted)


def parse_csv(
    text: str, name: str, columns: Sequence[str], *, wanted: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """As ``read_csv``, of a text; ``name`` is the file's, for messages."""
    # newline="": the csv module finds the ends of lines itself, quoted ones too.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for fields in filter(None, reader):
            where = f"{name}, line {reader.line_num}"
            if header is None:
                header = [field.strip() for field in fields]
                if any(header.count(column) != 1 for column in columns):
                    raise _bad_header(where, header, wanted or ", ".join(columns))
            elif len(fields) != len(header):
                raise DiffjaxError(
                    f"{where}: {len(fields)} fields instead of {len(header)}. Put "
                    "double quotes around a text that contains a comma."
                )
            else:
                yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DiffjaxError(f"{name}, line {reader.line_num}: {error}.") from None


def _bad_header(where: str, header: Sequence[str], wanted: str) -> DiffjaxError:
    other = next((s for s in (";", "\t") if any(s in field for field in header)), None)
    hint = f" Commas must separate them, not {other!r}." if other else ""
    shown = ", ".join(header)
    return DiffjaxError(
        f"{where}: the columns must include {wanted}, each once, not "
        f"{shown if len(shown) <= 200 else shown[:200] + '…'}.{hint}"
    )


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"the number {text:.20} is too large")
    return number


_NUMBERS: tuple[Any, Any] = {}, {"parse_constant": _no_number, "parse_float": _finite}


def _integer(text: str) -> int:
    if len(text) > 400:  # beyond float64, and Python refuses thousands of digits
        raise ValueError(f"the number {text:.20}… is too large")
    return int(text)


def _bad_json(where: str, why: str, remedy: str) -> DiffjaxError:
    return DiffjaxError(f"{where} {why}.{f' {remedy}' if remedy else ''}")


def _unreadable(path: PathLike, error: OSError) -> DiffjaxError:
    return DiffjaxError(f"{path} cannot be read ({error.strerror or error}).")


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Where in a value numbers are not finite, as names and positions in a row."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _not_finite(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            yield from _not_finite(each, f"{place}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, value
