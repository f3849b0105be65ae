"""What each dependency adds to an installation: packages and megabytes.

    python -m venv fresh && fresh/bin/pip install .
    fresh/bin/python scripts/measure_install.py            # of docs/install.md
    fresh/bin/pip install ".[tfds]"
    fresh/bin/python scripts/measure_install.py tfds       # with this extra's

A row counts what those above have not brought already, so that rows sum to the whole.
Bytes are those of the installed files that each package lists; what Python compiles of
them when they are imported comes on top, about a tenth.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

PROJECT = "diffjax"
LARGE = 5.0  # MB: packages that a row names
FIRST = ("jax", "flax")  # in this order, since flax brings jax


def size(found: Distribution) -> float:
    """Megabytes of a package's files."""
    paths = [found.locate_file(file) for file in found.files or []]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def needs(found: Distribution, extras: Sequence[str] = ()) -> Iterator[Requirement]:
    """The requirements that hold here: of no extra, then of the extras."""
    for extra in ("", *extras):
        for text in found.requires or []:
            one = Requirement(text)
            plain = one.marker is None or one.marker.evaluate({"extra": ""})
            asked = one.marker is None or one.marker.evaluate({"extra": extra})
            if plain if extra == "" else asked and not plain:
                yield one


def added(requirement: Requirement, known: dict[str, float]) -> dict[str, float]:
    """The packages that a requirement brings, itself first, as entered in ``known``."""
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    try:
        found = distribution(name)
    except PackageNotFoundError:
        sys.exit(f"{requirement} is not installed.")
    new = {} if name in known else {name: size(found)}
    known |= new
    if new or requirement.extras:
        for one in needs(found, sorted(requirement.extras)):
            if one.name != name:
                new |= added(one, known)
    return new


def main() -> None:
    """Print the table."""
    project = distribution(PROJECT)
    known: dict[str, float] = {PROJECT: size(project)}
    rows = [(PROJECT, dict(known))]
    wanted = {one.name: one for one in needs(project, sys.argv[1:])}
    for name in dict.fromkeys([*FIRST, *wanted]):
        if name != PROJECT and (new := added(wanted[name], known)):
            rows.append((name, new))
    print("| dependency | packages | MB | of which |\n|---|---|---|---|")
    for name, new in rows:
        large = sorted(new, key=new.__getitem__, reverse=True)
        named = ", ".join(f"{one} {new[one]:.0f}" for one in large if new[one] > LARGE)
        print(f"| {name} | {len(new)} | {sum(new.values()):.0f} | {named} |")
    print(f"| **all** | {len(known)} | {sum(known.values()):,.0f} | |")


if __name__ == "__main__":
    main()
