"""Textual inversion: words that were learned, as rows of a text encoder's table.

    {"<toy>": [n, d]}                         diffusers: .bin or .safetensors
    {"name": …, "string_to_param": {"*": …}}  AUTOMATIC1111: .pt
    {"emb_params": [n, d]}                    the same as .safetensors
    {"clip_l": [n, d], "clip_g": [n, e]}      of Stable Diffusion XL's two encoders

Gal et al. 2022 (arXiv 2208.01618). The first of a word's n vectors is the token itself,
the further ones <toy>_1, <toy>_2, …, as diffusers names them; a prompt says the first
alone. A file without a word has its own name as the word, as in AUTOMATIC1111, or what
is named with it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from diffjax.checkpoints.families import STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from diffjax.checkpoints.formats import read_tensors, torch_array
from diffjax.checkpoints.networks import empty_network
from diffjax.checkpoints.torch_files import load_torch
from diffjax.errors import DiffjaxError
from diffjax.files import user_path
from diffjax.models.network import Network

FAMILIES = (STABLE_DIFFUSION, STABLE_DIFFUSION_XL)
_ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_NAMELESS = ("emb_params", *_ENCODERS)
_MOST = 1000  # vectors of a word; a prompt has 75


@dataclass(frozen=True, kw_only=True)
class Word:
    """A learned word.

    Attributes:
        path: of its file.
        digest: 16 hex digits of the file.
        text: the word.
        vectors: by text encoder, [n, d].
    """

    path: Path
    digest: str
    text: str
    vectors: Mapping[str, Float[np.ndarray, "n d"]]

    def record(self) -> dict[str, Any]:
        """For a run's header; plain JSON values."""
        return {"file": str(self.path), "sha256": self.digest, "word": self.text}


@dataclass(frozen=True)
class Learned:
    """What is added to one text encoder.

    Attributes:
        tokens: in the order of their rows.
        rows: of the table, [n, d] or None.
        files: they come from.
        identity: a text that differs if they do.
    """

    tokens: tuple[str, ...] = ()
    rows: np.ndarray | None = None
    files: tuple[Path, ...] = ()
    identity: str = ""

    def added(self, network: Network, config: Any, first: int) -> Network:
        """The text encoder with the rows in its table, from row ``first`` on.

        Args:
            network: on the host, without them.
            config: whose vocabulary has them.
            first: id of the first token.
        """
        assert self.rows is not None
        graphdef, _ = empty_network(config)
        flat = dict(nnx.to_flat_state(network.state))
        place = ("token_embedding", "embedding")
        leaf = flat[place]
        table = np.zeros((config.vocab_size, self.rows.shape[1]), leaf.dtype)
        table[: len(leaf[...])] = leaf[...]
        table[first : first + len(self.rows)] = self.rows
        flat[place] = leaf.replace(table)
        return Network(graphdef, nnx.from_flat_state(flat.items()))


def read_words(asked: Sequence[str | Path]) -> list[Word]:
    """Words, each of a file that may have the word after a colon.

    Raises:
        DiffjaxError: if one is missing, damaged or no textual inversion, or two are
            the same.
    """
    words = [_read_word(each) for each in asked]
    texts = [word.text for word in words]
    for word in words:
        if texts.count(word.text) > 1:
            raise DiffjaxError(
                f"{word.path} and another file both teach {word.text!r}. Name another "
                f"word for one of them: {word.path}:WORD."
            )
    return words


def learned(
    words: Sequence[Word], encoders: Sequence[str], family: object, model: object
) -> dict[str, Learned]:
    """What is added to each text encoder.

    Args:
        words: that were read.
        encoders: of the model.
        family: of its text encoders.
        model: its name, for messages.

    Raises:
        DiffjaxError: if a word is for other encoders than the model's.
    """
    if not words:
        return {}
    if family not in FAMILIES:
        raise DiffjaxError(
            f"{model} takes no textual inversion; Stable Diffusion 1, 2 and XL do."
        )
    for word in words:
        if set(word.vectors) != set(encoders):
            raise DiffjaxError(
                f"{word.path} has vectors for {' and '.join(word.vectors)}, but "
                f"{model} has {' and '.join(encoders)}. It was trained for another "
                "family of models."
            )
    found = {}
    for name in encoders:
        tokens: list[str] = []
        for word in words:
            n = len(word.vectors[name])
            tokens += [word.text, *(f"{word.text}_{i}" for i in range(1, n))]
        tables = [word.vectors[name] for word in words]
        if len({table.shape[1] for table in tables}) > 1:
            raise DiffjaxError(
                f"{', '.join(str(word.path) for word in words)} have vectors of "
                "different widths: they were trained for different models."
            )
        identity = repr([(word.digest, word.text) for word in words])
        files = tuple(word.path for word in words)
        found[name] = Learned(tuple(tokens), np.concatenate(tables), files, identity)
    return found


def _read_word(asked: str | Path) -> Word:
    path, text = user_path(str(asked)), ""
    if not path.exists():
        name, _, text = str(asked).rpartition(":")
        path = user_path(name or str(asked))
    if not path.is_file():
        raise DiffjaxError(
            f"There is no textual inversion {asked}. It is FILE or FILE:WORD, as "
            "cat-toy.safetensors:<cat-toy>."
        )
    if path.suffix == ".safetensors":
        content: Mapping[str, Any] = read_tensors(path)
        own = ""
    else:
        content, own = _of_torch(path)
    known = {key for key in content if key in _NAMELESS}
    if known == set(_ENCODERS):
        vectors = {_ENCODERS[key]: content[key] for key in _ENCODERS}
    elif len(content) == 1:
        [(key, table)] = content.items()
        vectors = {"text_encoder": table}
        own = own or ("" if known or key == "*" else key)
    else:
        raise DiffjaxError(
            f"{path} is no textual inversion: it has {', '.join([*content][:4])}, "
            "where one has the vectors of one word."
        )
    text = text or own or path.stem
    if not text.strip() or any(each.isspace() for each in text):
        raise DiffjaxError(
            f"{path}: the word {text!r} has space in it, or nothing. Name another: "
            f"{path}:WORD."
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return Word(
        path=path,
        digest=digest,
        text=text,
        vectors={name: _table(path, table) for name, table in vectors.items()},
    )


def _of_torch(path: Path) -> tuple[dict[str, Any], str]:
    """Tables by name, and the word, of a file that torch saved."""
    instead = "Download it again, or take a .safetensors copy of it."
    content, own = load_torch(path, instead=instead), ""
    if isinstance(content, dict) and isinstance(content.get("string_to_param"), dict):
        own, content = str(content.get("name") or ""), content["string_to_param"]
    if not isinstance(content, dict) or not all(
        hasattr(value, "detach") for value in content.values()
    ):
        raise DiffjaxError(
            f"{path} is no textual inversion: it is not a table of a word's vectors."
        )
    return {str(key): torch_array(value) for key, value in content.items()}, own


def _table(path: Path, table: np.ndarray) -> Float[np.ndarray, "n d"]:
    """Vectors as rows, float32."""
    rows = table[None] if table.ndim == 1 else table
    fits = rows.ndim == 2 and 0 < len(rows) <= _MOST and rows.shape[1]
    if not fits or rows.dtype.kind not in "fV":
        raise DiffjaxError(
            f"{path} is no textual inversion: its table is {table.dtype} of the shape "
            f"{list(table.shape)}, where vectors of a word are expected."
        )
    found: np.ndarray = rows.astype(np.float32)
    if not np.isfinite(found).all():
        raise DiffjaxError(
            f"{path} holds numbers that are NaN or infinite. Download it again."
        )
    return found
