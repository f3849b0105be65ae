"""The tokenizer that training makes: CLIP's layout, any text, the same every time."""

import pytest
from transformers import CLIPTokenizer

from diffjax.training.tokenizer import (
    END,
    START,
    byte_symbols,
    save_tokenizer,
    train_tokenizer,
)

CAPTIONS = [f"a photo of a {name}." for name in ("airplane", "cat", "zyzzyva")]


@pytest.fixture(scope="module")
def vocabulary_and_merges():
    return train_tokenizer(CAPTIONS, 2000)


@pytest.fixture(scope="module")
def tokenizer(vocabulary_and_merges, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(*vocabulary_and_merges, 16, folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_the_vocabulary_is_laid_out_as_clips(vocabulary_and_merges):
    vocabulary, merges = vocabulary_and_merges
    assert vocabulary[0] == "!" and vocabulary[256] == "!</w>"
    assert vocabulary[:256] == [*byte_symbols().values()]
    assert vocabulary[512] == merges[0].replace(" ", "")
    assert vocabulary[-2:] == [START, END]
    assert len(set(vocabulary)) == len(vocabulary) <= 2000


def test_training_is_deterministic_and_keeps_to_its_budget(vocabulary_and_merges):
    assert train_tokenizer(CAPTIONS, 2000) == vocabulary_and_merges
    small, merges = train_tokenizer(CAPTIONS, 530)
    assert len(small) == 530
    assert merges == vocabulary_and_merges[1][:16]


def test_caption_words_are_one_token_each(tokenizer):
    words = ["a", "photo", "of", "a", "zyzzyva", "."]
    assert tokenizer.tokenize(CAPTIONS[-1]) == [word + "</w>" for word in words]


def test_ids_are_framed_padded_and_cut_as_stable_diffusion_does(
    tokenizer, vocabulary_and_merges
):
    vocabulary, _ = vocabulary_and_merges
    start, end = len(vocabulary) - 2, len(vocabulary) - 1
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (start, end)
    batch = tokenizer(["a cat", "cat " * 40], padding="max_length", truncation=True)
    short, long = batch["input_ids"]
    cat = vocabulary.index("cat</w>")
    assert short == [start, vocabulary.index("a</w>"), cat] + [end] * 13
    assert long == [start] + [cat] * 14 + [end]


@pytest.mark.parametrize("text", ["Größe 漢字 🙂", "x" * 30, "naïve_42%", "\t \n"])
def test_any_text_has_tokens_and_comes_back(tokenizer, text):
    ids = tokenizer(text, truncation=False)["input_ids"][1:-1]
    decoded = tokenizer.decode(ids).replace(" ", "")
    assert decoded == "".join(text.lower().split())
