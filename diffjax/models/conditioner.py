"""Prompts → conditions, by one text encoder or several.

    ids_i     = tokenizer_i(prompt)
    output_i  = encoder_i(ids_i)
    condition = combine(output_1, output_2, …)
    row       = mean of its prompts' conditions

Which encoders there are, and which of them makes which leaf of a condition, is said by
the family of models, next to the loading of its files.

Conditions can be kept for other runs, each under a digest of the encoders and the
tokens. Encoders of which nothing new is asked are then not even read.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from diffjax.errors import DiffjaxError
from diffjax.models.conditions import floating, in_dtype, is_floating, with_floating
from diffjax.models.network import Network, OnDemand, digest
from diffjax.tracing import LITTLE_EFFORT, eval_shape, jit, pinned

PROMPTS_AT_ONCE = 32  # through the text encoders; bounds their memory


class Tokens(NamedTuple):
    """Token ids of prompts, and which of them did not fit."""

    ids: Int[np.ndarray, "n l"]
    truncated: tuple[bool, ...]


class Remembered:
    """Keeps conditions in memory, the latest of them up to so many bytes."""

    def __init__(self, most: int = 2**30) -> None:
        """Keep nothing yet."""
        self._most = most
        self._bytes = 0
        self._arrays: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()

    def get(self, name: str, like: dict[str, Any]) -> dict[str, np.ndarray] | None:
        """The arrays of a name; None if they are not kept, or not any more."""
        if name in self._arrays:
            self._arrays.move_to_end(name)
        return self._arrays.get(name)

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays, and let the ones go that were asked for least lately."""
        self._arrays[name] = {key: np.array(each) for key, each in arrays.items()}
        self._bytes += _size(arrays)
        while self._bytes > self._most:
            self._bytes -= _size(self._arrays.popitem(last=False)[1])


def _size(arrays: dict[str, np.ndarray]) -> int:
    return sum(each.nbytes for each in arrays.values())


def as_text(prompt: str) -> str:
    """A prompt that is Unicode text; DiffjaxError for another."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise DiffjaxError(
            f"The prompt {prompt!r} is not Unicode text: its character "
            f"{error.start + 1} is half of a pair. It was read in a wrong encoding."
        ) from error
    return prompt


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder with its tokenizer.

    Attributes:
        network: ids [l] → what it says of them, an array or a tree; let go as soon as
            prompts are encoded, unless it is to be kept.
        tokenize: prompts → ids, all padded to one length.
        config: what the network's config says.
    """

    network: OnDemand
    tokenize: Callable[[Sequence[str]], Tokens]
    config: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Kept(Protocol):
    """Where conditions are kept, as ``data.kept`` has it."""

    def get(self, name: str, like: dict[str, Any]) -> dict[str, np.ndarray] | None:
        """The arrays of a name, of these shapes and number types; None if not kept."""

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays."""


@dataclass(frozen=True, kw_only=True)
class Conditioner:
    """Makes conditions of prompts.

    Attributes:
        encoders: by their names as components: "text_encoder".
        combine: their outputs of one prompt, in order → its condition, float32.
        kept: where each prompt's condition is kept, if it is.
        empty_is_zero: whether the floating leaves of the empty prompt's are zeros,
            whatever the encoders say of it.
        settings: further ones of the pipeline; plain JSON values.
    """

    encoders: dict[str, TextEncoder]
    combine: Callable[..., Any]
    kept: Kept | None = None
    empty_is_zero: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """What the encoders' configs say, and the pipeline's settings."""
        configs = {name: each.config for name, each in self.encoders.items()}
        settings = dict(self.settings)
        if self.empty_is_zero:
            settings["force_zeros_for_empty_prompt"] = True
        return configs | ({"pipeline": settings} if settings else {})

    @property
    def fingerprints(self) -> list[str]:
        """16 hex digits of each encoder's weights."""
        return [each.network.fingerprint for each in self.encoders.values()]

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        """Ids of all tokenizers side by side; cut where one of them cut."""
        tokens = self._tokens(prompts)
        ids = np.concatenate([each.ids for each in tokens], axis=1)
        return Tokens(ids, _cut(tokens))

    @pinned()
    def shapes(self) -> Any:
        """Shapes of one prompt's condition; nothing is read."""
        ids = [tokens.ids for tokens in self._tokens([""])]
        networks = [each.network.shapes for each in self.encoders.values()]
        rows = eval_shape(partial(conditions, combine=self.combine), networks, ids)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows
        )

    @pinned()
    def encode(
        self,
        prompts: Sequence[str],
        rows: Int[np.ndarray, " n"] | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> tuple[Any, tuple[str, ...]]:
        """Conditions of prompts, a tree of rows, and the prompts that were cut to fit.

        Args:
            prompts: n of them.
            rows: in which row of the result each belongs; prompts of one row are
                averaged as they come, so that memory grows with the rows alone.
                By default each has its own.
            dtype: of floating leaves; they are computed and averaged in float32.

        Raises:
            DiffjaxError: if prompts of one row differ in a leaf that has no mean.
        """
        tokens = self._tokens(prompts)
        alone, rows = rows is None, np.arange(len(prompts)) if rows is None else rows
        share = (1 / np.bincount(rows)[rows]).astype(np.float32)
        if self.empty_is_zero:
            share[[prompt == "" for prompt in prompts]] = 0
        shapes = self.shapes()
        # ten thousand classes of Stable Diffusion 2 are 3 GB in float32
        sums = [
            jnp.zeros((rows.max() + 1, *leaf.shape), dtype if alone else jnp.float32)
            for leaf in floating(shapes)
        ]
        others: list[list[np.ndarray]] = []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            chunk = slice(start, start + PROMPTS_AT_ONCE)
            # padded to one length, with no share: one compilation for any count
            new = self._rows([each.ids[chunk] for each in tokens], shapes)
            sums = _add(
                sums, floating(new), _padded(rows[chunk]), _padded(share[chunk])
            )
            n = len(rows[chunk])
            leaves = [x for x in jax.tree.leaves(new) if not is_floating(x)]
            others.append([np.asarray(leaf)[:n] for leaf in leaves])
        self.let_go()
        rest = iter(_of_rows(others, rows, prompts))
        merged = jax.tree.map(
            lambda leaf: leaf if is_floating(leaf) else next(rest), shapes
        )
        cut = zip(prompts, _cut(tokens), strict=True)
        truncated = tuple(prompt for prompt, was in cut if was)
        return in_dtype(with_floating(merged, sums), dtype), truncated

    def _tokens(self, prompts: Sequence[str]) -> list[Tokens]:
        return [each.tokenize(prompts) for each in self.encoders.values()]

    def _rows(self, ids: list[np.ndarray], shapes: Any) -> Any:
        """Conditions of at most ``PROMPTS_AT_ONCE`` prompts, filled up to as many."""
        if self.kept is None:
            return self._encode(ids)
        leaves, structure = jax.tree.flatten(shapes)
        like = {str(i): leaf for i, leaf in enumerate(leaves)}
        configs = {name: each.config for name, each in self.encoders.items()}
        # a function is known by its name, a dataclass by what it says
        combine = getattr(self.combine, "__qualname__", None) or repr(self.combine)
        networks = self.fingerprints, configs, combine
        names = [
            digest([repr(networks), repr([each[i].tolist() for each in ids])], 32)
            for i in range(len(ids[0]))
        ]
        found = [self.kept.get(name, like) for name in names]
        missing = [i for i, each in enumerate(found) if each is None]
        if missing:
            new = self._encode([each[missing] for each in ids])
            columns = [np.asarray(leaf) for leaf in jax.tree.leaves(new)]
            for place, i in enumerate(missing):
                row = {str(k): column[place] for k, column in enumerate(columns)}
                self.kept.put(names[i], row)
                found[i] = row
        rows = [each for each in found if each is not None]
        stacked = [_padded(np.stack([row[key] for row in rows])) for key in like]
        return jax.tree.unflatten(structure, stacked)

    def _encode(self, ids: list[np.ndarray]) -> Any:
        networks = [each.network() for each in self.encoders.values()]
        return encode_prompts(networks, list(map(_padded, ids)), combine=self.combine)

    def let_go(self) -> None:
        """Free the encoders' memory, but for those that are to be kept."""
        for each in self.encoders.values():
            each.network.let_go()


def _cut(tokens: list[Tokens]) -> tuple[bool, ...]:
    """Which prompts one of the tokenizers cut."""
    return tuple(map(any, zip(*(each.truncated for each in tokens), strict=True)))


def conditions(
    networks: list[Network], ids: list[Array], *, combine: Callable[..., Any]
) -> Any:
    """Conditions of prompts, a tree of rows."""
    outputs = [
        jax.vmap(network.module())(each)
        for network, each in zip(networks, ids, strict=True)
    ]
    return jax.vmap(combine)(*outputs)


encode_prompts = jit(
    conditions, static_argnames="combine", compiler_options=LITTLE_EFFORT
)


@partial(jit, donate_argnums=0)
def _add(sums: list[Array], new: list[Array], rows: Array, share: Array) -> list[Array]:
    """Each prompt's share added to its row."""
    return [
        total.at[rows].add((jax.vmap(jnp.multiply)(share, leaf)).astype(total.dtype))
        for total, leaf in zip(sums, new, strict=True)
    ]


def _of_rows(
    chunks: list[list[np.ndarray]], rows: Int[np.ndarray, " n"], prompts: Sequence[str]
) -> list[np.ndarray]:
    """Leaves without a mean, of each row; its prompts must agree in them."""
    first = np.unique(rows, return_index=True)[1]
    found = []
    for parts in zip(*chunks, strict=True):
        leaf = np.concatenate(parts)
        unlike = (leaf != leaf[first[rows]]).reshape(len(leaf), -1).any(axis=1)
        if unlike.any():
            i = int(np.argmax(unlike))
            raise DiffjaxError(
                f"{prompts[first[rows[i]]]!r} and {prompts[i]!r} cannot be averaged: "
                "what the model is told of them differs in more than numbers that have "
                "a mean, such as which tokens count. Let the prompts of a class "
                "compete (merge)."
            )
        found.append(leaf[first])
    return found


def _padded(array: np.ndarray) -> np.ndarray:
    missing = PROMPTS_AT_ONCE - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
