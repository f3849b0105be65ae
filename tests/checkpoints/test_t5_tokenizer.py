"""T5's tokenizer against transformers', on the published files and a small one."""

import io
import json
import shutil

import joint_pipelines
import numpy as np
import pytest
import sentencepiece
import transformers
from odd_texts import odd_texts, package_texts
from published import REAL

from diffjax.checkpoints.t5_tokenizer import T5Tokenizer
from diffjax.errors import DiffjaxError

PUBLISHED = [
    "stabilityai__stable-diffusion-3-medium-diffusers/tokenizer_3",
    "black-forest-labs__FLUX.1-dev/tokenizer_2",
    "black-forest-labs__FLUX.1-schnell/tokenizer_2",
]
ODD = ["a photo of a cat.", "", "</s>", "<pad> a", "two  spaces ", "<extra_id_0>", "▁"]


def assert_as_transformers(folder, texts, length):
    theirs = transformers.T5TokenizerFast.from_pretrained(folder)
    expected = theirs(
        texts, padding="max_length", max_length=length, truncation=True
    ).input_ids
    whole = theirs(texts).input_ids
    found = T5Tokenizer(folder, length, 32128)(texts)
    np.testing.assert_array_equal(found.ids, expected)
    assert found.truncated == tuple(len(ids) > length for ids in whole)


@pytest.mark.parametrize("folder", PUBLISHED)
def test_published_files_give_transformers_ids(folder):
    if not (REAL / folder / "tokenizer.json").is_file():
        pytest.skip("this file of a published checkpoint is not here")
    assert_as_transformers(REAL / folder, ODD + package_texts() + odd_texts(3000), 77)


@pytest.fixture
def small(tmp_path):
    joint_pipelines.t5_tokenizer(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize("length", [2, 5, 40])
def test_a_small_one_gives_transformers_ids(small, length):
    assert_as_transformers(small, [*ODD, "cat dog, the photo!" * 9], length)


def test_a_sentencepiece_model_gives_transformers_ids(tmp_path):
    """Where only that is, as in PixArt's folders; trained on the package's prompts."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(package_texts()),
        model_writer=model,
        vocab_size=300,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert_as_transformers(tmp_path, ODD + package_texts() + odd_texts(500), 77)


def edited(folder, **changes):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_what_is_no_t5_tokenizer_is_refused(small, tmp_path):
    with pytest.raises(DiffjaxError, match="the text encoder knows 20"):
        T5Tokenizer(small, 9, 20)
    with pytest.raises(DiffjaxError, match="not Unicode text"):
        T5Tokenizer(small, 9, 300)(["\ud800"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DiffjaxError, match=r"has no tokenizer\.json"):
        T5Tokenizer(tmp_path / "empty", 9, 300)
    (tmp_path / "empty" / "spiece.model").write_bytes(b"x")
    with pytest.raises(DiffjaxError, match="no readable T5 tokenizer"):
        T5Tokenizer(tmp_path / "empty", 9, 300)
    damaged = tmp_path / "damaged"
    shutil.copytree(small, damaged)
    (damaged / "tokenizer.json").write_text("{")
    with pytest.raises(DiffjaxError, match="damaged"):
        T5Tokenizer(damaged, 9, 300)
    with pytest.raises(DiffjaxError, match="not Unigram"):
        T5Tokenizer(edited(small, model={"type": "BPE"}), 9, 300)
