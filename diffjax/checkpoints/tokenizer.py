"""Prompts → token ids, padded and cut to the text encoder's length.

CLIP's tokenizer (Radford et al. 2021): text in NFC and lower case, its runs of space as
one, cut into words, single digits and runs of signs; each is bytes that are merged in
pairs, its last byte marked by ``</w>``. The tokenizers library does the work;
transformers' CLIPTokenizer, which takes seconds to import, sets it up in the same way.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import Tokens

START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL = {"unk_token": END, "bos_token": START, "eos_token": END, "pad_token": END}
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class Tokenizer:
    """The CLIP tokenizer of a checkpoint, at the fixed length of its text encoder."""

    def __init__(self, folder: Path, length: int, vocab_size: int) -> None:
        """Read ``folder`` (vocab.json and merges.txt, or tokenizer.json).

        Args:
            folder: of the checkpoint.
            length: the text encoder's positions; also prompts' padded length,
                unless the tokenizer's own maximum is smaller.
            vocab_size: the text encoder's.

        Raises:
            DiffjaxError: if the files are missing or damaged, or number more
                tokens than the text encoder knows.
        """
        try:
            settings = _settings(folder)
            special = {name: settings[name] for name in SPECIAL}
            self._tokenizer = _byte_pairs(folder, special)
            self.length = min(length, int(settings["model_max_length"] or length))
        except Exception as error:  # the library raises plain exceptions
            raise DiffjaxError(
                f"{folder}: not a readable CLIP tokenizer ({error}). It needs "
                "vocab.json and merges.txt; download it again."
            ) from error
        if (size := self._tokenizer.get_vocab_size()) > vocab_size:
            raise DiffjaxError(
                f"{folder} has {size} tokens, but the text encoder knows {vocab_size}; "
                "they do not belong together."
            )
        self._pad = self._tokenizer.token_to_id(special["pad_token"])

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Ids int32 [n, length], and which prompts were cut."""
        ids = np.full((len(prompts), self.length), self._pad, np.int32)
        cut = []
        for row, encoding in zip(
            ids, self._tokenizer.encode_batch(list(prompts)), strict=True
        ):
            tokens = encoding.ids
            cut.append(len(tokens) > self.length)
            if cut[-1]:
                tokens = [*tokens[: self.length - 1], tokens[-1]]  # its end stays
            row[: len(tokens)] = tokens
        return Tokens(ids=ids, truncated=tuple(cut))


def _settings(folder: Path) -> dict[str, Any]:
    """The special tokens, and the longest prompt or None."""
    settings: dict[str, Any] = {**SPECIAL, "model_max_length": None}
    # the older file first; in both a token is its text, or an object with it
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            read = json.loads(path.read_text(encoding="utf-8"))
            for key in settings:
                value = read.get(key)
                if value is not None:
                    settings[key] = (
                        value["content"] if isinstance(value, dict) else value
                    )
    return settings


def _byte_pairs(folder: Path, special: dict[str, str]) -> Any:
    """The tokenizer of the tokenizers library."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    vocab, merges = _vocab_and_merges(folder)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=special["unk_token"],
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokens = dict.fromkeys(special.values())
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in tokens]
    )
    start, end = special["bos_token"], special["eos_token"]
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, ids[end]),
        (start, ids[start]),
        trim_offsets=False,
        add_prefix_space=False,
    )
    return tokenizer


def _vocab_and_merges(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    whole = folder / "tokenizer.json"
    if vocab.is_file() or merges.is_file() or not whole.is_file():
        ids = json.loads(vocab.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").split("\n")
        pairs = [line for line in lines if line and not line.startswith("#version")]
    else:
        model = json.loads(whole.read_text(encoding="utf-8"))["model"]
        ids, pairs = model["vocab"], model["merges"]
    split = (p.split(" ") if isinstance(p, str) else p for p in pairs)
    return ids, [(left, right) for left, right in split]
