"""Our tokenizer gives the ids that transformers' CLIPTokenizer gives, for any text."""

import json
import random

import numpy as np
import pipelines
import pytest
from transformers import CLIPTokenizer

from diffjax.checkpoints.tokenizer import Tokenizer

TEXTS = [
    "a photo of a cat.",
    "  Hello,\t World!! it's 2024's  ",
    "don't we'll I'd he's",
    "İstanbul ß ﬁ ① naïve cafe\u0301 日本語 🐈‍⬛ \u212b",
    "",
    "\n",
    "wow! ! !!",
    "<|endoftext|> x <|startoftext|>y",
    "nul\x00 \u00a0nbsp\u2003em\u200b",
    "x" * 200,
    "a_b-c ½ x²",
]
LETTERS = "abcXYZ 0159!?.,'-_\té\u0301日🐈ßİ<|>\n\u200b½"
RANDOM = random.Random(0)
TEXTS += ["".join(RANDOM.choices(LETTERS, k=k % 40)) for k in range(300)]


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!", "<pad>"])  # "!" is SD 2's
@pytest.mark.parametrize("length", [6, 40])
def test_any_text(tmp_path, pad, length):
    pipelines.write_tokenizer(tmp_path, pad, length)
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer(tmp_path, 30, 1000)
    assert ours.length == min(length, 30)
    expected = theirs(
        TEXTS, padding="max_length", max_length=ours.length, truncation=True
    )["input_ids"]
    found = ours(TEXTS)
    assert found.ids.dtype == np.int32
    np.testing.assert_array_equal(found.ids, expected)
    whole = theirs(TEXTS, truncation=False, verbose=False)["input_ids"]
    assert found.truncated == tuple(len(ids) > ours.length for ids in whole)
    # transformers saves one file, with everything in it
    theirs.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "vocab.json").exists()
    again = Tokenizer(tmp_path / "again", 30, 1000)
    np.testing.assert_array_equal(again(TEXTS).ids, found.ids)


def test_settings_in_either_file_or_none(tmp_path):
    """Of files that the publishers of Stable Diffusion wrote."""
    pipelines.write_tokenizer(tmp_path, "!", 12)
    token = {"content": "!", "lstrip": False, "normalized": False, "rstrip": False}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": token}))
    expected = Tokenizer(tmp_path, 77, 1000)(TEXTS).ids
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(Tokenizer(tmp_path, 77, 1000)(TEXTS).ids, expected)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink()
    plain = Tokenizer(tmp_path, 20, 1000)
    assert plain.length == 20
    assert plain([""]).ids[0, -1] == plain([""]).ids[0, 1]  # the end fills up
