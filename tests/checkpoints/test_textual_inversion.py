"""Pipelines whose text encoder learned new tokens: textual inversion.

The text encoder's table is longer than the published one and the tokenizer has as many
tokens more, in the pipeline's folder or in files of their own.
"""

import json

import numpy as np
import pipelines
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders import TextualInversionLoaderMixin
from safetensors.torch import save_file
from transformers import AddedToken, CLIPTokenizer

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.textual_inversion import read_words
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


# -- files of their own -------------------------------------------------------------


def written(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def of_automatic1111(table):
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": table},
        "name": "toy-b",
        "step": 99,
        "sd_checkpoint": None,
    }


WORDS = ["a <toy>", "<toy> toy-b, <toy>", "a cat", "toy-b " * 7, "<TOY>"]


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / "sd"
    pipelines.write_tokenizer(folder.parent / "tokens")
    rows = len(CLIPTokenizer.from_pretrained(folder.parent / "tokens"))
    pipelines.stable_diffusion(
        folder, text_encoder=pipelines.text_encoder(vocab_size=rows)
    )
    return folder


def test_words_of_files_are_as_diffusers_loads_them(sd_folder, tmp_path):
    """One of several vectors and one of one; diffusers' and AUTOMATIC1111's files."""
    width = pipelines.TEXT["hidden_size"]
    first = written(tmp_path / "a.bin", {"<toy>": learned(3, width)})
    second = written(tmp_path / "b.pt", of_automatic1111(learned(1, width) * 2))
    theirs = StableDiffusionPipeline.from_pretrained(sd_folder)
    theirs.load_textual_inversion([str(first), str(second)], token=["<toy>", "toy-b"])
    model = load_model(sd_folder, textual_inversion=[first, second])
    put_in = theirs.maybe_convert_prompt(WORDS, theirs.tokenizer)
    expected = theirs.tokenizer(put_in, padding="max_length", truncation=True)
    found = model.conditioner.tokenize(WORDS)
    np.testing.assert_array_equal(found.ids, expected["input_ids"])
    states, _ = theirs.encode_prompt(WORDS, "cpu", 1, False)
    ours, _ = model.text_conditioner.encode(WORDS)
    assert pipelines.error(ours.states, states.detach().numpy()) < 1e-4
    plain = load_model(sd_folder)
    assert model.weights != plain.weights
    recorded = model.origin["textual_inversion"]
    assert [each["word"] for each in recorded] == ["<toy>", "toy-b"]
    assert [each["file"] for each in recorded] == [str(first), str(second)]
    assert all(len(each["sha256"]) == 16 for each in recorded)
    assert "textual_inversion" not in plain.origin


def test_words_of_stable_diffusion_xl(tmp_path):
    """Two tables in one file; kept prompts are those of the words."""
    pipeline = pipelines.stable_diffusion_xl(tmp_path / "xl")
    widths = [
        encoder.config.hidden_size
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2)
    ]
    tables = [learned(2, width) for width in widths]
    path = tmp_path / "toy.safetensors"
    written(path, dict(zip(("clip_l", "clip_g"), tables, strict=True)))
    for table, tokenizer, encoder in zip(
        tables,
        (pipeline.tokenizer, pipeline.tokenizer_2),
        (pipeline.text_encoder, pipeline.text_encoder_2),
        strict=True,
    ):
        pipeline.load_textual_inversion(
            {"toy": table}, token="toy", tokenizer=tokenizer, text_encoder=encoder
        )
    prompts = ["a toy", "toy toy", "a cat"]
    states, _, pooled, _ = pipeline.encode_prompt(prompts, device="cpu")
    asked = {"textual_inversion": path, "prompt_cache": tmp_path / "cache"}
    for _ in range(2):
        ours, _ = load_model(tmp_path / "xl", **asked).text_conditioner.encode(prompts)
        for found, expected in ((ours.states, states), (ours.pooled, pooled)):
            assert pipelines.error(found, expected.detach().numpy()) < 1e-4
    with pytest.raises(DiffjaxError, match="has vectors for text_encoder, but"):
        one = written(tmp_path / "one.safetensors", {"emb_params": tables[0]})
        load_model(tmp_path / "xl", textual_inversion=one)


WIDTH = pipelines.TEXT["hidden_size"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": learned(2, WIDTH), "b": learned(1, WIDTH)}, "it has a, b, where"),
        ({"emb_params": learned(2, WIDTH + 1)}, f"width {WIDTH + 1}.*of {WIDTH}"),
        ({"clip_l": learned(1, WIDTH), "clip_g": learned(1, 9)}, "text_encoder_2, but"),
        ({"<x>": torch.full((1, WIDTH), torch.nan)}, "NaN or infinite"),
        ({"<x>": learned(2, 3, 4)}, "is no textual inversion: its table"),
        ({"<x>": torch.zeros(1, WIDTH, dtype=torch.int32)}, "int32"),
        ({"cat</w>": learned(1, WIDTH)}, "has the token 'cat</w>' already"),
        ({"a b": learned(1, WIDTH)}, "has space in it"),
    ],
)
def test_files_that_teach_no_word(sd_folder, tmp_path, content, words):
    path = written(tmp_path / "toy.safetensors", content)
    with pytest.raises(DiffjaxError, match=words):
        load_model(sd_folder, textual_inversion=path)


def test_words_that_files_do_not_say(sd_folder, tmp_path):
    path = written(tmp_path / "toy.safetensors", {"emb_params": learned(2, WIDTH)})
    assert [word.text for word in read_words([path, f"{path}:<b>"])] == ["toy", "<b>"]
    with pytest.raises(DiffjaxError, match="both teach 'toy'"):
        read_words([path, path])
    with pytest.raises(DiffjaxError, match=r"no textual inversion .*FILE:WORD"):
        read_words([tmp_path / "absent.pt"])
    (tmp_path / "a.pt").write_bytes(b"x" * 99)
    with pytest.raises(DiffjaxError, match=r"damaged|refused"):
        read_words([tmp_path / "a.pt"])
    with pytest.raises(DiffjaxError, match="takes no textual inversion"):
        load_model("tiny-dit", textual_inversion=path)
