"""A checkpoint's config.json → a frozen dataclass, with nothing skipped in silence.

Every key is one of three things:

- a field of the dataclass: taken over, if it has the field's type and is within the
  bounds that stand beside it: whatever is absurd is refused before anything is built;
- fixed: the models implement one behaviour, and the key must ask for exactly that;
- ignored: it changes nothing in a forward pass, for the reason that the network's
  table gives, or ``BOOKKEEPING``.

Any other key that asks for something (is neither null nor false) is an error.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from diffjax.errors import DiffjaxError

# not Self, which is not checked at run time
Config = TypeVar("Config", bound="NetworkConfig")


@dataclass(frozen=True)
class Bounds:
    """The least and the most that a number may be; NaN is neither.

    Beside a tuple, of how many entries it has.
    """

    least: int | float
    most: int | float


ENTRIES = Bounds(1, 8)  # of a list: one for each level; published networks have 4


# The numbers of configs. Bounds are generous: far beyond all that is published.
Count = Annotated[int, Bounds(1, 1024)]  # of layers, heads, channels of an image
Width = Annotated[int, Bounds(1, 2**16)]  # features of a layer
Edge = Annotated[int, Bounds(1, 2**13)]  # cells of an image or a latent
Rows = Annotated[int, Bounds(1, 2**24)]  # of a table of tokens or classes
Epsilon = Annotated[float, Bounds(1e-12, 1.0)]  # added to a variance
Scale = Annotated[float, Bounds(1e-6, 1e6)]  # of latents or positions
Offset = Annotated[float, Bounds(-1e6, 1e6)]  # of latents
Shift = Annotated[float, Bounds(0.0, 1.0)]  # of the sinusoids' frequencies

Fixed = Mapping[str, Any]  # key: the one value that is implemented, or a tuple of them
Ignored = Mapping[str, str]  # key: why it changes nothing

_EMA = "a count or rate of the trainer that averaged the weights"
_FLAX = "how diffusers' former Flax classes computed attention"
_TRAINING = "only used in training"
# What trainers and tools leave in the config.json of any network. None of it says how
# the weights compute.
BOOKKEEPING: Ignored = {
    "decay": _EMA,
    "inv_gamma": _EMA,
    "min_decay": _EMA,
    "optimization_step": _EMA,
    "power": _EMA,
    "update_after_step": _EMA,
    "use_ema_warmup": _EMA,
    "split_head_dim": _FLAX,
    "use_memory_efficient_attention": _FLAX,
    "gradient_checkpointing": _TRAINING,
    "torch_dtype": "the caller chooses the dtype",
    "dtype": "the caller chooses the dtype",
    "transformers_version": "a note",
    "id2label": "names of classes, where a network has any, are read beside it",
    "label2id": "id2label turned round",
}

# What transformers writes into the config.json of every network.
GENERIC: dict[str, str] = dict.fromkeys(
    (
        "return_dict",
        "chunk_size_feed_forward",
        "diversity_penalty",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "repetition_penalty",
        "temperature",
        "tie_word_embeddings",
        "top_k",
        "top_p",
        "typical_p",
        "use_bfloat16",
        "use_cache",
    ),
    "a generic transformers setting that these networks do not read",
)

_REFUSED = {
    "auto_map": "names code that comes with the checkpoint, which is never run.",
    "quantization_config": "says that the weights are quantised, which is not read; "
    "take a copy in float32, float16 or bfloat16.",
}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The settings of a network that are implemented: a base of dataclasses.

    Attributes:
        fixed: keys with the value (or tuple of values) that is implemented.
        ignored: keys without effect on a forward pass, with the reason.
    """

    fixed: ClassVar[Fixed] = {}
    ignored: ClassVar[Ignored] = {}

    @classmethod
    def from_dict(
        cls: type[Config], config: Mapping[str, Any], source: str = "config.json"
    ) -> Config:
        """Read a parsed config.json; every field has a default.

        Args:
            config: the parsed JSON.
            source: the file's name, for messages.

        Raises:
            DiffjaxError: for one or more values that are not implemented, all listed.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        hints = get_type_hints(cls, include_extras=True)
        values: dict[str, Any] = {}
        problems: list[str] = []
        for key, value in config.items():
            if key.startswith("_") or key in cls.ignored or key in BOOKKEEPING:
                continue
            if key in fields:
                hint = hints[key]
                values[key] = tuple(value) if isinstance(value, list) else value
                if not fits(values[key], hint):
                    problems.append(f"{key}={_shown(value)} must be {in_words(hint)}.")
                elif value is not None and _is_float(hint):
                    many = isinstance(value, list | tuple)
                    values[key] = tuple(map(float, value)) if many else float(value)
            elif key in cls.fixed:
                allowed = cls.fixed[key]
                allowed = allowed if isinstance(allowed, tuple) else (allowed,)
                if value not in allowed:
                    names = " or ".join(repr(each) for each in allowed)
                    problems.append(
                        f"{key}={_shown(value)} is not implemented (only {names})."
                    )
            elif value is not None and value is not False:
                why = _REFUSED.get(key, "is no setting that is implemented.")
                problems.append(f"{key}={_shown(value)} {why}")
        if problems:
            kind = cls.__name__.removesuffix("Config")
            raise DiffjaxError(
                f"{source}: diffjax's {kind} cannot run this config:\n  "
                + "\n  ".join(problems)
            )
        self = cls(**values)
        self.check(source)
        return self

    def check(self, source: str) -> None:
        """Raise DiffjaxError for settings that do not fit one another."""


def differing(config: Any) -> dict[str, Any]:
    """The fields of a config that are not as by default.

    Two configs that ask for the same have the same ones, also if a later version of
    diffjax knows more fields.
    """
    fields = dataclasses.fields(config)
    values = {field.name: getattr(config, field.name) for field in fields}
    return {f.name: values[f.name] for f in fields if values[f.name] != f.default}


def _is_float(hint: Any) -> bool:
    """Whether numbers of this type are of floating point."""
    return float in get_args(hint)[:1] or any(map(_is_float, get_args(hint)))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has an annotated type and is within its bounds."""
    kind, args = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, each) for each in args)
    if kind is Annotated:
        base, bounds = args
        if get_origin(base) is tuple:  # of its number of entries
            return isinstance(value, tuple) and _each(value, base, bounds)
        return fits(value, base) and bool(bounds.least <= value <= bounds.most)
    if kind is Literal:
        return any(value == each and type(value) is type(each) for each in args)
    if kind is tuple:
        return isinstance(value, tuple) and _each(value, hint, ENTRIES)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _each(value: tuple[Any, ...], hint: Any, n: Bounds) -> bool:
    (entry, _) = get_args(hint)
    return n.least <= len(value) <= n.most and all(fits(each, entry) for each in value)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}


def in_words(hint: Any) -> str:
    """What a JSON value of an annotated type is, for messages."""
    kind, args = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(map(in_words, args))
    if kind is Annotated:
        base, bounds = args
        if get_origin(base) is tuple:
            return _list_in_words(base, bounds)
        return f"{_WORDS[base]} from {bounds.least:.8g} to {bounds.most:.8g}"
    if kind is Literal:
        choices = [str(each) for each in args]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if kind is tuple:
        return _list_in_words(hint, ENTRIES)
    return "null" if hint is NoneType else _WORDS[hint]


def _list_in_words(hint: Any, n: Bounds) -> str:
    entry = in_words(get_args(hint)[0])
    return f"a list of {n.least} to {n.most}, each entry {entry}"


def _shown(value: Any) -> str:
    """A value for a message, which may come from afar and be of any size."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def per_block(value: Any, n: int, name: str) -> tuple[Any, ...]:
    """A setting given once, or once a block, as one value a block.

    Raises:
        DiffjaxError: for another number of values, naming ``name``.
    """
    if not isinstance(value, tuple):
        return (value,) * n
    if len(value) != n:
        listed = ", ".join(map(str, value))
        raise DiffjaxError(f"{name} has {len(value)} entries for {n} blocks: {listed}.")
    return value
