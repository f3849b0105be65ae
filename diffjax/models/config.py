"""A checkpoint's config.json → a frozen dataclass, with nothing skipped in silence.

Every key is one of three things:

- a field of the dataclass: taken over;
- fixed: the models implement one behaviour, and the key must ask for exactly that;
- ignored: it changes nothing in a forward pass, for the reason that the table gives.

Any other key that asks for something (is neither null nor false) is an error.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from diffjax.errors import DiffjaxError

Config = TypeVar("Config")

Fixed = Mapping[str, Any]  # key: the one value that is implemented, or a tuple of them
Ignored = Mapping[str, str]  # key: why it changes nothing


def read_config(
    cls: type[Config],
    config: Mapping[str, Any],
    *,
    fixed: Fixed,
    ignored: Ignored,
    source: str,
) -> Config:
    """Build ``cls`` from a config.json's content.

    Args:
        cls: a frozen dataclass; fields without a default must be in ``config``.
        config: the parsed JSON.
        fixed: keys with the value (or tuple of values) that is implemented.
        ignored: keys without effect on a forward pass, with the reason.
        source: the file's name, for messages.

    Raises:
        DiffjaxError: for one or more values that are not implemented, all listed.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in config.items():
        if key.startswith("_") or key in ignored:
            continue
        if key in fields:
            values[key] = tuple(value) if isinstance(value, list) else value
        elif key in fixed:
            allowed = fixed[key] if isinstance(fixed[key], tuple) else (fixed[key],)
            if value not in allowed:
                names = " or ".join(repr(each) for each in allowed)
                problems.append(f"{key}={value!r} is not implemented (only {names})")
        elif value is not None and value is not False:
            problems.append(f"{key}={value!r} is not a known setting of this model")
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            problems.append(f"{name} is missing")
    if problems:
        kind = cls.__name__.removesuffix("Config")
        raise DiffjaxError(
            f"{source}: diffjax's {kind} cannot run this config:\n  "
            + "\n  ".join(problems)
        )
    return cls(**values)


def per_block(value: Any, n: int, name: str) -> tuple[Any, ...]:
    """A setting given once, or once a block, as one value a block."""
    if not isinstance(value, tuple):
        return (value,) * n
    if len(value) != n:
        raise DiffjaxError(f"{name} has {len(value)} entries for {n} blocks: {value}")
    return value
