"""Strategies by name, and as text and JSON.

The same names serve Python, the command line and the header of a results file:

    Staged(to_keep=(5, 1), n_samples=(25, 250))
    staged:to_keep=5,1:n_samples=25,250
    {"name": "staged", "to_keep": [5, 1], "n_samples": [25, 250], ...}
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, get_type_hints

from diffjax.errors import DiffjaxError
from diffjax.strategies.base import Strategy
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged

STRATEGIES: dict[str, type[Any]] = {
    "exhaustive": Exhaustive,
    "staged": Staged,
    "racing": Racing,
}

# The types a setting may have, and how to ask for them.
_KINDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    tuple[int, ...]: "whole numbers separated by commas",
}


def parse_strategy(text: str) -> Strategy:
    """Read ``name:setting=value:…``, the command line's form; lists take commas.

    Raises:
        DiffjaxError: if the text, the name or a setting is not understood.
    """
    name, *parts = text.strip().split(":")
    record: dict[str, Any] = {"name": name}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key in record:
            what = "appears twice" if equals else "is not of the form setting=value"
            raise DiffjaxError(
                f"Strategy {text!r}: {part!r} {what}. An example: "
                "staged:to_keep=5,1:n_samples=25,250"
            )
        values = [_number_or_word(v) for v in value.split(",")]
        record[key] = values if len(values) > 1 else values[0]
    return strategy_from_dict(record)


def strategy_to_dict(strategy: Strategy) -> dict[str, Any]:
    """The strategy as JSON holds it, with its name and every setting."""
    name = next(n for n, cls in STRATEGIES.items() if type(strategy) is cls)
    settings = asdict(strategy)  # type: ignore[call-overload]
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return {"name": name, **lists}


def strategy_to_text(strategy: Strategy) -> str:
    """The inverse of ``parse_strategy``; settings at their defaults are left out."""
    record = strategy_to_dict(strategy)
    text = str(record.pop("name"))
    for setting in fields(strategy):  # type: ignore[arg-type]
        value = record[setting.name]
        if value != setting.default:
            values = value if isinstance(value, list) else [value]
            text += f":{setting.name}={','.join(map(str, values))}"
    return text


def strategy_from_dict(record: Mapping[str, Any]) -> Strategy:
    """The inverse of ``strategy_to_dict``; settings with defaults may be absent.

    Raises:
        DiffjaxError: if a name or setting is unknown, missing, or of the wrong kind.
    """
    name = record.get("name")
    if not isinstance(name, str) or name not in STRATEGIES:
        raise DiffjaxError(
            f"There is no strategy {name!r}; choose one of {', '.join(STRATEGIES)}."
        )
    cls = STRATEGIES[name]
    kinds = get_type_hints(cls)
    required = {f.name for f in fields(cls) if f.default is MISSING}
    given = {key: value for key, value in record.items() if key != "name"}
    unknown, missing = given.keys() - kinds.keys(), required - given.keys()
    if unknown or missing:
        raise DiffjaxError(
            f"Strategy {name}: "
            + "".join(f"there is no setting {key!r}; " for key in sorted(unknown))
            + "".join(f"the setting {key!r} is missing; " for key in sorted(missing))
            + f"its settings are {', '.join(kinds)}."
        )
    settings = {key: _cast(v, kinds[key], name, key) for key, v in given.items()}
    strategy: Strategy = cls(**settings)
    return strategy


def _cast(value: Any, kind: Any, name: str, key: str) -> Any:
    """The JSON value as the type of a setting; one number may stand for a list."""
    if kind == tuple[int, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        if all(type(v) is int for v in values):
            return tuple(values)
    elif type(value) is kind:
        return value
    elif kind is float and type(value) is int:
        return float(value)
    raise DiffjaxError(f"Strategy {name}: {key} takes {_KINDS[kind]}, not {value!r}.")


def _number_or_word(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
