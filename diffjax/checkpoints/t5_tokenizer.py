"""Prompts → T5's token ids, padded and cut to a length that the family gives.

T5's tokenizer (Raffel et al. 2020; SentencePiece's unigrams, Kudo 2018) stands whole in
tokenizer.json, which the tokenizers library reads: normalisation, pieces, and the token
that ends a text. Nothing that transformers adds to it changes an id.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.checkpoints.tokenizer_files import not_readable
from diffjax.errors import DiffjaxError
from diffjax.files import read_text
from diffjax.models.conditioner import Tokens, as_text

FILE, PIECES = "tokenizer.json", "spiece.model"
PAD, END = "<pad>", "</s>"


class T5Tokenizer:
    """The T5 tokenizer of a checkpoint, at a fixed length.

    Attributes:
        length: of every prompt's ids.
        size: one more than the largest id.
    """

    def __init__(self, folder: Path, length: int, vocab_size: int) -> None:
        """Read ``folder``.

        Args:
            folder: of the checkpoint; with tokenizer.json.
            length: of every prompt's ids, of which the last one ends the text.
            vocab_size: the text encoder's.

        Raises:
            DiffjaxError: if the file is missing or damaged, describes no T5 tokenizer,
                or numbers more tokens than the text encoder knows.
        """
        self._tokenizer = _read(folder)
        self.length = length
        self.size = max(self._tokenizer.get_vocab().values()) + 1
        if self.size > vocab_size:
            raise DiffjaxError(
                f"{folder} has {self.size} tokens, but the text encoder knows "
                f"{vocab_size}; they do not belong together."
            )
        pad, end = map(self._tokenizer.token_to_id, (PAD, END))
        if pad is None or end is None or self._tokenizer.encode("").ids != [end]:
            raise DiffjaxError(
                f"{folder / FILE} describes no T5 tokenizer: it must have the tokens "
                f"{PAD} and {END}, and end each text with {END}."
            )
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length, pad_id=pad, pad_token=PAD)

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Ids int32 [n, length], and which prompts were cut.

        Raises:
            DiffjaxError: for a prompt that is not Unicode text.
        """
        texts = [as_text(prompt) for prompt in prompts]
        found = self._tokenizer.encode_batch(texts)
        return Tokens(
            ids=np.array([each.ids for each in found], np.int32),
            truncated=tuple(bool(each.overflowing) for each in found),
        )


def _read(folder: Path) -> Any:
    from tokenizers import Tokenizer

    if not (folder / FILE).is_file():
        if (folder / PIECES).is_file():
            raise DiffjaxError(
                f"{folder} has {PIECES} but no {FILE}. Write it with transformers: "
                f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained("
                f"{str(folder)!r})"
            )
        raise DiffjaxError(f"{folder} has no {FILE}. Download it again.")
    text = read_text(folder / FILE, FILE)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain exceptions
        raise not_readable(folder, error) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
