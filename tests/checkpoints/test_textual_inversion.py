"""Pipelines whose text encoder learned new tokens: textual inversion.

The text encoder's table is longer than the published one and the tokenizer has as many
tokens more. diffusers reads such tokens from files of their own, too; a pipeline saved
after that has them in itself, and that is what is read here.
"""

import json

import numpy as np
import pipelines
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders import TextualInversionLoaderMixin
from transformers import AddedToken, CLIPTokenizer

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.tokenizer import Tokenizer
from diffjax.errors import DiffjaxError

PROMPTS = [
    "a photo of a cat.",
    "<cat-toy>",
    "a <cat-toy>, x<cat-toy>y",
    "<CAT-TOY> <sks>",
    "<cat-toy>_1 <cat-toy>_2",
    "<cat-toy> " * 9,
]


def learned(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def trained_pipeline(folder, tokens):
    """A Stable Diffusion with new tokens, saved under ``folder``."""
    pipelines.write_tokenizer(folder / "plain", "!")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "plain")
    size = len(tokenizer)
    assert tokenizer.add_tokens(tokens) == len(tokens)
    encoder = pipelines.text_encoder(vocab_size=size)
    encoder.resize_token_embeddings(len(tokenizer))
    table = encoder.get_input_embeddings().weight
    assert table.shape[0] == size + len(tokens)
    with torch.no_grad():
        new = torch.randn(
            table[size:].shape, generator=torch.Generator().manual_seed(5)
        )
        table[size:] = new * table[:size].std()
    where = folder / "pipeline"
    pipelines.stable_diffusion(where, tokenizer=tokenizer, text_encoder=encoder)
    config = json.loads((where / "text_encoder" / "config.json").read_text())
    assert config["vocab_size"] == size + len(tokens)
    return where, range(size, size + len(tokens))


def test_new_tokens_and_their_vectors(tmp_path):
    """Ids and text states are the pipeline's own, with one vector or several."""
    tokens = ["<cat-toy>", "<cat-toy>_1", "<cat-toy>_2"]
    folder, new = trained_pipeline(
        tmp_path, [*tokens, AddedToken("<sks>", normalized=False)]
    )
    theirs = StableDiffusionPipeline.from_pretrained(folder)
    model = load_model(folder)
    expanded = theirs.maybe_convert_prompt(PROMPTS, theirs.tokenizer)
    assert expanded[1] == " ".join(tokens)
    expected = theirs.tokenizer(expanded, padding="max_length", truncation=True)
    found = model.conditioner.tokenize(PROMPTS)
    np.testing.assert_array_equal(found.ids, expected["input_ids"])
    np.testing.assert_array_equal(found.ids[1, 1:4], new[:3])
    assert new[3] in found.ids[3]
    states, _ = theirs.encode_prompt(PROMPTS, "cpu", 1, False)
    ours, cut = model.text_conditioner.encode(PROMPTS)
    assert pipelines.error(ours.states, states.detach().numpy()) < 1e-4
    assert PROMPTS[-1] in cut


def test_a_loaded_embedding_saved_with_its_pipeline(tmp_path):
    """As diffusers' ``load_textual_inversion`` puts it in."""
    folder = tmp_path / "plain"
    pipelines.write_tokenizer(tmp_path / "tokens")
    rows = len(CLIPTokenizer.from_pretrained(tmp_path / "tokens"))  # none to spare
    encoder = pipelines.text_encoder(vocab_size=rows)
    pipeline = pipelines.stable_diffusion(folder, text_encoder=encoder)
    width = pipeline.text_encoder.config.hidden_size
    learned = {
        "<toy>": torch.randn(2, width, generator=torch.Generator().manual_seed(3))
    }
    pipeline.load_textual_inversion(learned)
    pipeline.save_pretrained(tmp_path / "with")
    model = load_model(tmp_path / "with")
    prompts = ["a <toy>", "<toy> <toy>", "a cat"]
    states, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    ours, _ = model.text_conditioner.encode(prompts)
    assert pipelines.error(ours.states, states.detach().numpy()) < 1e-4
    # without the token the same text is another prompt
    plain = load_model(folder).text_conditioner.encode(prompts)[0]
    assert (
        np.abs(np.asarray(plain.states - ours.states)).max(axis=(1, 2))[:2].min() > 0.01
    )
    # nor does another model's tokenizer go with the text encoder
    with pytest.raises(DiffjaxError, match="Name the text encoder's own tokenizer too"):
        load_model(folder, text_encoder=tmp_path / "with")
    both = dict.fromkeys(("text_encoder", "tokenizer"), tmp_path / "with")
    again, _ = load_model(folder, **both).text_conditioner.encode(prompts)
    np.testing.assert_array_equal(again.states, ours.states)


@pytest.mark.parametrize("prompt", ["a <x> b", "<x>", "<x> and <x>_1", "<X>, <y>", ""])
def test_vectors_are_put_in_as_diffusers_does(tmp_path, prompt):
    pipelines.write_tokenizer(tmp_path, length=40)
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    theirs.add_tokens(["<x>", "<x>_1", "<x>_2", "<x>_4", "<y>", "<y>_2"])
    theirs.save_pretrained(tmp_path)
    put_in = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, theirs)
    expected = theirs(put_in, padding="max_length", truncation=True)["input_ids"]
    found = Tokenizer(tmp_path, 40, len(theirs))([prompt]).ids[0]
    np.testing.assert_array_equal(found, expected)
