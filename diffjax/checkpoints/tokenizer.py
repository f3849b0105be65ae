"""Prompts → token ids, padded and cut to the text encoder's length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import Tokens


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
        from transformers import CLIPTokenizer  # three seconds to import

        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(str(folder))
        except Exception as error:  # the library raises many kinds
            raise DiffjaxError(
                f"{folder}: not a readable CLIP tokenizer ({error}). It needs "
                "vocab.json and merges.txt; download it again."
            ) from error
        if len(self._tokenizer) > vocab_size:
            raise DiffjaxError(
                f"{folder} has {len(self._tokenizer)} tokens, but the text encoder "
                f"knows {vocab_size}; they do not belong together."
            )
        self.length = min(length, self._tokenizer.model_max_length)

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Ids int32 [n, length], and which prompts were cut."""
        batch = list(prompts)
        whole = self._tokenizer(batch, truncation=False, verbose=False)
        padded = self._tokenizer(
            batch,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="np",
        )
        return Tokens(
            ids=padded["input_ids"].astype(np.int32),
            truncated=tuple(len(ids) > self.length for ids in whole["input_ids"]),
        )
