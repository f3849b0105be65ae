"""Prompts → T5's token ids, padded and cut to a length that the family gives.

T5's tokenizer (Raffel et al. 2020): characters are mapped, words are cut into those
pieces that are likeliest together (SentencePiece's unigrams, Kudo 2018), and a token
ends the text. The tokenizers library does the work, set up as by transformers 5.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import DiffjaxError, optional
from diffjax.files import read_bytes, read_json_object
from diffjax.models.conditioner import Tokens, as_text

FILE, PIECES = "tokenizer.json", "spiece.model"
PAD, END = "<pad>", "</s>"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class T5Tokenizer:
    """The T5 tokenizer of a checkpoint, at a fixed length.

    Attributes:
        length: of every prompt's ids.
        size: one more than the largest id.
    """

    def __init__(
        self, folder: Path, length: int, vocab_size: int, *, lower: bool = False
    ) -> None:
        """Read ``folder``.

        Args:
            folder: of the checkpoint; with tokenizer.json, or else spiece.model.
            length: of every prompt's ids, of which the last one ends the text.
            vocab_size: the text encoder's.
            lower: whether to put prompts in lower case, without space around them.

        Raises:
            DiffjaxError: if the file is missing or damaged, describes no T5 tokenizer,
                or numbers more tokens than the text encoder knows.
        """
        self._tokenizer = _read(folder)
        self.length = length
        self._lower = lower
        self.size = max(self._tokenizer.get_vocab().values()) + 1
        if self.size > vocab_size:
            raise DiffjaxError(
                f"{folder} has {self.size} tokens, but the text encoder knows "
                f"{vocab_size}; they do not belong together."
            )
        pad, end = map(self._tokenizer.token_to_id, (PAD, END))
        if pad is None or end is None:
            raise DiffjaxError(
                f"{folder / FILE} describes no T5 tokenizer: it must have the tokens "
                f"{PAD} and {END}."
            )
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length, pad_id=pad, pad_token=PAD)

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Ids int32 [n, length], and which prompts were cut.

        Raises:
            DiffjaxError: for a prompt that is not Unicode text.
        """
        texts = [as_text(prompt) for prompt in prompts]
        if self._lower:
            texts = [text.lower().strip() for text in texts]
        found = self._tokenizer.encode_batch(texts)
        return Tokens(
            ids=np.array([each.ids for each in found], np.int32),
            truncated=tuple(bool(each.overflowing) for each in found),
        )


def _read(folder: Path) -> Any:
    path = folder / FILE
    if path.is_file():
        content = read_json_object(path, "tokenizer", "Download it again.")
    elif (path := folder / PIECES).is_file():
        content = _converted(read_bytes(path, "tokenizer"), folder)
    else:
        raise DiffjaxError(f"{folder} has no {FILE}. Download it again.")
    try:
        return _unigrams(content)
    except Exception as error:  # the library raises plain exceptions
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DiffjaxError:
    return DiffjaxError(
        f"{path} is no readable T5 tokenizer ({error}). Download it again."
    )


def _converted(data: bytes, folder: Path) -> dict[str, Any]:
    """What tokenizer.json would say of a SentencePiece model, where only that is."""
    messages = optional(
        "sentencepiece.sentencepiece_model_pb2",
        f"The tokenizer of {folder}, which has no {FILE},",
    )
    model = messages.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # the library's own
        raise _unreadable(folder / PIECES, error) from error
    characters = model.normalizer_spec.precompiled_charsmap
    added = {"lstrip": False, "rstrip": False, "single_word": False}
    added |= {"normalized": False, "special": True}
    return {
        "model": {
            "type": "Unigram",
            "vocab": [[piece.piece, piece.score] for piece in model.pieces],
        },
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(characters).decode(),
        }
        if characters
        else None,
        "added_tokens": [
            {"content": text, **added}
            for text in (
                PAD,
                END,
                "<unk>",
                *(f"<extra_id_{i}>" for i in reversed(range(100))),
            )
        ],
    }


def _unigrams(content: dict[str, Any]) -> Any:
    """The tokenizer of the tokenizers library, as transformers 5 sets it up.

    Of the file that is the pieces with their scores, the map of characters and the
    added tokens. Text is always split at white space, whatever the file says of it.
    """
    from tokenizers import (
        AddedToken,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    model = content["model"]
    if model.get("type") != "Unigram":
        raise ValueError(f"a model of type {model.get('type')!r}, which is not Unigram")
    pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    for step in _steps(content.get("normalizer")):
        if step.get("type") == "Precompiled":
            characters = base64.b64decode(step["precompiled_charsmap"])
            tokenizer.normalizer = normalizers.Precompiled(characters)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    for token in content["added_tokens"]:
        flags = {name: bool(token[name]) for name in FLAGS}
        tokenizer.add_tokens([AddedToken(token["content"], **flags)])
    end = tokenizer.token_to_id(END)
    if end is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, end)]
        )
    return tokenizer


def _steps(normalizer: Any) -> list[dict[str, Any]]:
    if not normalizer:
        return []
    return list(normalizer.get("normalizers", [normalizer]))
