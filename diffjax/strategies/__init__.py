"""Strategies by name, and as text and JSON.

The same names serve Python, the command line and the header of a results file:

    Staged(to_keep=(5, 1), n_samples=(25, 250))
    staged:to_keep=5,1:n_samples=25,250
    {"name": "staged", "to_keep": [5, 1], "n_samples": [25, 250], ...}

and a shortlist, which has no name:

    Shortlist(k=50, n_samples=64)
    k=50:n_samples=64
    {"k": 50, "n_samples": 64, ...}

or, where it finds its k by itself,

    Shortlist(risk=0.001)
    auto:risk=0.001
    {"k": null, "risk": 0.001, ...}
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from diffjax.errors import DiffjaxError, nearest, unknown
from diffjax.strategies.base import Strategy
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.shortlist import Shortlist
from diffjax.strategies.staged import Staged

STRATEGIES: dict[str, type[Strategy]] = {
    "exhaustive": Exhaustive,
    "staged": Staged,
    "racing": Racing,
}

AUTO = "auto"  # a shortlist without a k

T = TypeVar("T")

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
    settings = _read(parts, f"Strategy {text!r}", "staged:to_keep=5,1:n_samples=25,250")
    return strategy_from_dict(settings | {"name": name})


def parse_shortlist(text: str) -> Shortlist:
    """Read ``k=50:setting=value:…`` or ``auto:setting=value:…``.

    Raises:
        DiffjaxError: if the text or a setting is not understood.
    """
    first, *others = parts = text.strip().split(":")
    auto = first == AUTO
    what, example = f"Shortlist {text!r}", f"k=50:n_samples=64, or {AUTO}:risk=0.01"
    settings = _read(others if auto else parts, what, example)
    shortlist = _build(Shortlist, settings, "Shortlist")
    if ("k" in settings) == auto:
        fault = f"{AUTO} finds k itself" if auto else "the setting 'k' is missing"
        raise DiffjaxError(f"{what}: {fault}. An example: {example}")
    return shortlist


def within(strategy: Strategy, budget: int) -> Strategy:
    """The strategy with a budget of evaluations for each image.

    Raises:
        DiffjaxError: unless it races, or the budget makes no sense.
    """
    if budget < 1:
        raise DiffjaxError(f"A budget is at least 1 evaluation an image, not {budget}.")
    if not isinstance(strategy, Racing):
        raise DiffjaxError(
            f"A budget stops a race; {strategy_to_text(strategy)} takes what its "
            "settings say. Give it fewer n_samples, or take the strategy racing."
        )
    return replace(strategy, budget=budget)


def strategy_to_dict(strategy: Strategy) -> dict[str, Any]:
    """The strategy as JSON holds it: its name, every setting, and its facts."""
    name = next(n for n, cls in STRATEGIES.items() if type(strategy) is cls)
    settings = asdict(strategy)  # type: ignore[call-overload]
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return {"name": name, **lists, **strategy.facts}


def strategy_to_text(strategy: Strategy) -> str:
    """The inverse of ``parse_strategy``; settings at their defaults are left out."""
    name = strategy_to_dict(strategy)["name"]
    return ":".join([name, *_written(strategy, _defaults(strategy))])


def shortlist_to_text(shortlist: Shortlist) -> str:
    """The inverse of ``parse_shortlist``."""
    k = shortlist.k
    first = AUTO if k is None else f"k={k}"
    return ":".join([first, *_written(shortlist, asdict(Shortlist(k=k)))])


def strategy_from_dict(record: Mapping[str, Any]) -> Strategy:
    """The inverse of ``strategy_to_dict``; settings with defaults may be absent.

    Raises:
        DiffjaxError: if a name or setting is unknown, missing, or of the wrong kind.
    """
    name = record.get("name")
    if not isinstance(name, str) or name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    told = {"name": name, **STRATEGIES[name].facts}
    given = {key: value for key, value in record.items() if told.get(key) != value}
    return _build(STRATEGIES[name], given, f"Strategy {name}")


def shortlist_from_dict(record: Mapping[str, Any]) -> Shortlist:
    """From what JSON holds; settings with defaults may be absent.

    Raises:
        DiffjaxError: if a setting is unknown, missing, or of the wrong kind.
    """
    return _build(Shortlist, record, "Shortlist")


def _read(parts: Sequence[str], what: str, example: str) -> dict[str, Any]:
    """The settings of ``setting=value`` texts."""
    settings: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key in settings or key == "name":
            fault = "appears twice" if equals else "is not of the form setting=value"
            raise DiffjaxError(f"{what}: {part!r} {fault}. An example: {example}")
        values = [_number_or_word(v) for v in value.split(",")]
        settings[key] = values if len(values) > 1 else values[0]
    return settings


def _defaults(settings: Any) -> dict[str, Any]:
    return {setting.name: setting.default for setting in fields(settings)}


def _written(settings: Any, defaults: Mapping[str, Any]) -> list[str]:
    """The inverse of ``_read`` and ``_build``, without what is at its default."""
    texts = []
    for name, default in defaults.items():
        value = getattr(settings, name)
        if value != default:
            values = value if isinstance(value, tuple) else [value]
            texts.append(f"{name}={','.join(map(str, values))}")
    return texts


def _build(cls: type[T], given: Mapping[str, Any], what: str) -> T:
    """The dataclass with these settings."""
    kinds = get_type_hints(cls)
    settings = fields(cls)  # type: ignore[arg-type]
    required = {f.name for f in settings if f.default is MISSING}
    strange, missing = given.keys() - kinds.keys(), required - given.keys()
    if strange or missing:
        raise DiffjaxError(
            f"{what}: "
            + "".join(f"there is no setting {key!r}; " for key in sorted(strange))
            + "".join(f"the setting {key!r} is missing; " for key in sorted(missing))
            + f"its settings are {', '.join(kinds)}."
            + "".join(nearest(key, kinds) for key in sorted(strange))
        )
    return cls(**{key: _cast(v, kinds[key], what, key) for key, v in given.items()})


def _cast(value: Any, kind: Any, what: str, key: str) -> Any:
    """The JSON value as the type of a setting; one number may stand for a list."""
    if isinstance(kind, UnionType):
        if value is None:
            return None
        [kind] = (each for each in get_args(kind) if each is not NoneType)
    if kind == tuple[int, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        if all(type(v) is int for v in values):
            return tuple(values)
    elif type(value) is kind:
        return value
    elif kind is float and type(value) is int:
        return float(value)
    raise DiffjaxError(f"{what}: {key} takes {_KINDS[kind]}, not {value!r}.")


def _number_or_word(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
