"""Prompts → token ids, padded and cut to the text encoder's length.

CLIP's tokenizer (Radford et al. 2021): text in NFC and lower case, its runs of space as
one, cut into words, single digits and runs of signs; each is bytes that are merged in
pairs, its last byte marked by ``</w>``. Added tokens, such as those of textual
inversion, are found first and never cut. The tokenizers library does the work;
transformers' CLIPTokenizer, which takes seconds to import, sets it up in the same way.

OpenCLIP's is the same but for what it does with a text before: it mends what looks
wrongly decoded (ftfy), resolves entities of HTML, and reads ``<|endoftext|>`` as text.
"""

import html
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.checkpoints.tokenizer_files import (
    TokenizerFiles,
    not_readable,
    read_tokenizer_files,
)
from diffjax.errors import DiffjaxError, optional
from diffjax.models.conditioner import Tokens, as_text

OPEN_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
WORDS = rf"<\|startoftext\|>|<\|endoftext\|>|{OPEN_WORDS}"


class Tokenizer:
    """The CLIP tokenizer of a checkpoint, at the fixed length of its text encoder.

    Attributes:
        length: of every prompt's ids.
        size: one more than the largest id.
    """

    def __init__(
        self,
        folder: Path,
        length: int,
        vocab_size: int,
        more: Sequence[str] = (),
    ) -> None:
        """Read ``folder`` (vocab.json and merges.txt, or tokenizer.json).

        Args:
            folder: of the checkpoint.
            length: the text encoder's positions; also prompts' padded length,
                unless the tokenizer's own maximum is smaller.
            vocab_size: the text encoder's.
            more: tokens that get the ids behind all others and are never split.

        Raises:
            DiffjaxError: if the files are missing or damaged, describe no CLIP
                tokenizer, number more tokens than the text encoder knows, or have one
                of ``more`` already.
        """
        files = read_tokenizer_files(folder)
        try:
            self._tokenizer = self._made(files)
            known = self._tokenizer.get_vocab().keys() & set(more)
            self._tokenizer.add_tokens([*more])
        except Exception as error:  # the library raises plain exceptions
            raise not_readable(folder, error) from error
        if known:
            raise DiffjaxError(
                f"{folder} has the token {min(known)!r} already. Name another word for "
                "the textual inversion: FILE:WORD."
            )
        ids = self._tokenizer.get_vocab()
        self.size = max(ids.values()) + 1
        if self.size > vocab_size:
            raise DiffjaxError(
                f"{folder} has {self.size} tokens, but the text encoder knows "
                f"{vocab_size}; they do not belong together."
            )
        for text, index in files.added_ids.items():
            if ids[text] != index:
                raise DiffjaxError(
                    f"{folder}: the files give the added token {text!r} the id "
                    f"{index}, but by its place it gets {ids[text]}; number added "
                    "tokens from the vocabulary's size on, without gaps."
                )
        longest = length if files.max_length is None else files.max_length
        self.length = min(length, longest)
        if self.length < 3:
            raise DiffjaxError(
                f"{folder}: model_max_length={files.max_length} leaves no room for a "
                "prompt between its start and its end."
            )
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._vectors = _vectors({token.content for token in added})
        self._pad = ids[files.special["pad_token"]]
        self._pad_right = files.padding_side == "right"
        self._cut_right = files.truncation_side == "right"

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Ids int32 [n, length], and which prompts were cut.

        Raises:
            DiffjaxError: for a prompt that is not Unicode text.
        """
        ids = np.full((len(prompts), self.length), self._pad, np.int32)
        cut = []
        texts = [self._prepared(prompt) for prompt in prompts]
        for row, encoding in zip(ids, self._tokenizer.encode_batch(texts), strict=True):
            tokens = encoding.ids
            cut.append(len(tokens) > self.length)
            if cut[-1]:  # start and end stay
                inside = self.length - 2
                kept = tokens[1:-1]
                kept = kept[:inside] if self._cut_right else kept[-inside:]
                tokens = [tokens[0], *kept, tokens[-1]]
            if self._pad_right:
                row[: len(tokens)] = tokens
            else:
                row[-len(tokens) :] = tokens
        return Tokens(ids=ids, truncated=tuple(cut))

    def _made(self, files: TokenizerFiles) -> Any:
        """The tokenizer of the tokenizers library."""
        return _byte_pairs(files)

    def _prepared(self, prompt: str) -> str:
        """A prompt in which a concept's first token stands for all its tokens."""
        prompt = as_text(prompt)
        if not self._vectors:
            return prompt
        found = self._tokenizer.encode(prompt, add_special_tokens=False).tokens
        for text in sorted(self._vectors.keys() & set(found)):
            prompt = prompt.replace(text, self._vectors[text])
        return prompt


class OpenCLIPTokenizer(Tokenizer):
    """The same as OpenCLIP's program has it: padded with 0, by texts made clean."""

    def __init__(self, folder: Path, length: int, vocab_size: int) -> None:
        """Arguments and errors are those of ``Tokenizer``."""
        super().__init__(folder, length, vocab_size)
        self._pad, self._pad_right, self._cut_right = 0, True, True

    def _made(self, files: TokenizerFiles) -> Any:
        from tokenizers import Regex, normalizers, pre_tokenizers

        tokenizer = _byte_pairs(files)
        tokenizer.normalizer = normalizers.Sequence([])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(OPEN_WORDS), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _prepared(self, prompt: str) -> str:
        """A prompt made clean.

        Raises:
            DiffjaxError: if one that is not printable ASCII needs ftfy, which is not
                installed.
        """
        text = as_text(prompt)
        if not (text.isascii() and text.isprintable()):
            what = "A prompt of other than printable ASCII characters, read as OpenCLIP"
            text = optional("ftfy", f"{what} does,").fix_text(text)
        text = html.unescape(html.unescape(text))
        return " ".join(text.split()).lower()


def _vectors(added: Collection[str]) -> dict[str, str]:
    """Tokens of several vectors → all their tokens.

    Textual inversion calls the further vectors of ``<x>`` ``<x>_1``, ``<x>_2``, …;
    diffusers' pipelines put them in where a prompt has the first.
    """
    whole = {}
    for text in added:
        names = [text]
        while (name := f"{text}_{len(names)}") in added:
            names.append(name)
        if len(names) > 1:
            whole[text] = " ".join(names)
    return whole


def _byte_pairs(files: TokenizerFiles) -> Any:
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

    tokenizer = Tokenizer(
        models.BPE(
            vocab=files.vocabulary,
            merges=files.merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=files.special["unk_token"],
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
    tokenizer.add_tokens(
        [
            AddedToken(token, special=True) if isinstance(token, str) else token
            for token in files.added
        ]
    )
    tokenizer.encode_special_tokens = files.split_special_tokens
    start, end = files.special["bos_token"], files.special["eos_token"]
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, ids[end]),
        (start, ids[start]),
        trim_offsets=False,
        add_prefix_space=False,
    )
    return tokenizer
