"""CLIP in a folder, against transformers' and OpenCLIP's own classes.

What OpenCLIP computes of small networks stands in a golden file; where the package is
installed (pip install open_clip_torch), its images and texts are compared as well.
"""

import json
import shutil
import unicodedata
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from contrastive_models import (
    GOLDEN,
    LENGTH,
    SIDE,
    drawn,
    pixels,
    token_ids,
    write_open_clip,
)
from flax import nnx
from odd_texts import odd_texts, package_texts
from PIL import Image
from pipelines import VOCABULARY, write_tokenizer

from diffjax.checkpoints.contrastive import (
    clip_config,
    load_contrastive,
    names_in,
    open_processing,
)
from diffjax.checkpoints.open_clip import open_clip_config
from diffjax.checkpoints.tokenizer import OpenCLIPTokenizer
from diffjax.errors import DiffjaxError
from diffjax.models.clip_image import CLIP
from diffjax.models.network import Network
from diffjax.scoring.cost import count_flops

EXPECTED = json.loads(GOLDEN.read_text())
SIZES = [(101, 77), (64, 64), (65, 64), (67, 64), (64, 67), (20, 33), (333, 500)]


@pytest.fixture(scope="module", params=EXPECTED)
def saved(request, tmp_path_factory):
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    return name, write_open_clip(folder, name, EXPECTED[name]["shapes"])


@jax.jit
def image_features(network, x):
    return jax.vmap(network.module())(x)


@jax.jit
def text_features(network, ids):
    return jax.vmap(lambda each: network.module()(each).pooled)(ids)


def assert_close(found, wanted):
    wanted = np.asarray(wanted)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def odd_images():
    random = np.random.default_rng(1)
    return [
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)) for size in SIZES
    ]


def test_features_are_those_of_open_clip(saved):
    name, folder = saved
    found = load_contrastive(folder)
    assert_close(
        image_features(found.vision, pixels()), EXPECTED[name]["image_features"]
    )
    assert_close(
        text_features(found.text, token_ids()), EXPECTED[name]["text_features"]
    )
    assert found.scale == pytest.approx(np.exp(2))


def test_every_number_matters(saved):
    """Whatever is moved, features are others; but a softmax cancels biases of keys."""
    _, folder = saved
    found = load_contrastive(folder)
    for network, features, x in (
        (found.vision, image_features, pixels()),
        (found.text, text_features, token_ids()),
    ):
        before = features(network, x)
        leaves, tree = jax.tree_util.tree_flatten_with_path(network.state)
        for place, (path, leaf) in enumerate(leaves):
            moved = [each for _, each in leaves]
            moved[place] = leaf * 1.1 + 0.1
            state = jax.tree_util.tree_unflatten(tree, moved)
            after = features(Network(network.graphdef, state), x)
            same = np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
            cancelled = "'k_proj'" in str(path) and "'bias'" in str(path)
            assert same == cancelled, path


def test_transformers_compute_the_same(tmp_path):
    import torch
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil,
    )

    torch.manual_seed(0)
    tower = {
        **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "projection_dim": 7},  # which counts for nothing
    }
    texts = {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
    config = CLIPConfig(
        projection_dim=24,
        text_config=tower | texts | {"eos_token_id": VOCABULARY - 1},
        vision_config=tower | {"image_size": SIDE, "patch_size": 16},
    )
    model = CLIPModel(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    processor.save_pretrained(tmp_path)
    write_tokenizer(tmp_path, length=LENGTH)
    found = load_contrastive(tmp_path)
    x, ids = pixels(), np.minimum(token_ids(), VOCABULARY - 1)
    with torch.no_grad():
        images = torch.from_numpy(x).permute(0, 3, 1, 2)
        wanted = model.get_image_features(pixel_values=images)
        told = model.get_text_features(input_ids=torch.from_numpy(ids))
    assert_close(image_features(found.vision, x), wanted.pooler_output)
    assert_close(text_features(found.text, ids), told.pooler_output)
    assert found.scale == pytest.approx(float(model.logit_scale.exp()))
    for image in odd_images():
        (theirs,) = processor(image)["pixel_values"]
        mine = found.processing(image)
        np.testing.assert_array_equal(mine, np.asarray(theirs).transpose(1, 2, 0))


def test_the_published_config_of_vit_b_32():
    """Of openai/clip-vit-base-patch32, but for what is null or false in it."""
    generic = {
        **{"chunk_size_feed_forward": 0, "diversity_penalty": 0.0, "dropout": 0.0},
        **{"attention_dropout": 0.0, "encoder_no_repeat_ngram_size": 0},
        **{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "initializer_factor": 1.0},
        **{"label2id": {"LABEL_0": 0, "LABEL_1": 1}, "initializer_range": 0.02},
        **{"layer_norm_eps": 1e-05, "length_penalty": 1.0, "max_length": 20},
        **{"min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1},
        **{"num_beams": 1, "num_return_sequences": 1, "projection_dim": 512},
        **{"pruned_heads": {}, "repetition_penalty": 1.0, "return_dict": True},
        **{"temperature": 1.0, "tie_word_embeddings": True, "top_k": 50, "top_p": 1.0},
        **{"transformers_version": "4.16.0.dev0", "hidden_act": "quick_gelu"},
    }
    texts = generic | {
        **{"bos_token_id": 0, "eos_token_id": 2, "hidden_size": 512},
        **{"intermediate_size": 2048, "max_position_embeddings": 77},
        **{"model_type": "clip_text_model", "num_attention_heads": 8},
        **{"num_hidden_layers": 12, "pad_token_id": 1, "vocab_size": 49408},
    }
    images = generic | {
        **{"hidden_size": 768, "image_size": 224, "intermediate_size": 3072},
        **{"model_type": "clip_vision_model", "num_attention_heads": 12},
        **{"num_hidden_layers": 12, "patch_size": 32},
    }
    raw = {
        **{"architectures": ["CLIPModel"], "initializer_factor": 1.0},
        **{"logit_scale_init_value": 2.6592, "model_type": "clip"},
        **{"projection_dim": 512, "text_config": texts, "text_config_dict": None},
        **{"vision_config": images, "vision_config_dict": None},
    }
    config = clip_config(raw, "config.json")
    assert config.text.eos_token_id == 2 and config.vision.n_positions == 50
    _, state = nnx.split(CLIP(config, rngs=None))
    # in millions 151.28, as OpenCLIP's table of results has it
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 151_277_313


@pytest.mark.slow
@pytest.mark.parametrize(("name", "billions"), [("rn50", 18.18), ("vit-h-14", 381.68)])
def test_flops_are_those_that_open_clip_publishes(name, billions):
    """Of an image and a text; counters differ in padding and in what is no product."""
    raw = json.loads((GOLDEN.parent / "keys" / f"clip-{name}.json").read_text())
    model = CLIP(open_clip_config(raw, name), rngs=None)
    pixels = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    ids = jax.ShapeDtypeStruct((1, 77), np.int32)
    found = count_flops(partial(image_features), Network.of(model.vision), pixels)
    found += count_flops(partial(text_features), Network.of(model.text), ids)
    assert found == pytest.approx(billions * 1e9, rel=0.06)


@pytest.fixture(scope="module")
def open_clip():
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # of a torchvision of another build
        pytest.skip(f"needs open_clip_torch ({error})")
    return open_clip


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_open_clip_makes_the_same_pixels(open_clip, mode):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    theirs = image_transform_v2(PreprocessCfg(size=SIDE, resize_mode=mode), False)
    mine = open_processing({"resize_mode": mode}, SIDE, "config")
    for image in odd_images():
        wanted = theirs(image).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(mine(image), wanted)


def test_open_clip_makes_the_same_ids(open_clip, tmp_path):
    import gzip

    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenize = OpenCLIPTokenizer(tmp_path, 77, len(tokens))
    texts = [
        text  # of what is no character yet, libraries know other versions of Unicode
        for text in [*package_texts(), *odd_texts(3000)]
        if all(unicodedata.category(letter) != "Cn" for letter in text)
    ]
    assert len(texts) > 5000
    np.testing.assert_array_equal(tokenize(texts).ids, open_clip.tokenize(texts))


def changed(folder, copy, **files):
    """A copy in which files are others, or missing."""
    shutil.copytree(folder, copy)
    for name, content in files.items():
        path = next(copy / each for each in names_in(copy) if each.startswith(name))
        path.unlink()
        if content is not None:
            path.write_text(json.dumps(content))
    return copy


def test_what_is_missing_or_not_implemented(saved, tmp_path):
    _, folder = saved
    config = json.loads((folder / "open_clip_config.json").read_text())
    model = config["model_cfg"]
    cases = {
        "no weights": ({"open_clip_model": None}, "Put open_clip_model.safetensors"),
        "no ids": ({"vocab": None}, "lacks vocab.json"),
        "longest": (
            {
                "open_clip_config": config
                | {"preprocess_cfg": {"resize_mode": "longest"}}
            },
            "resize_mode='longest'",
        ),
        "timm": (
            {
                "open_clip_config": config
                | {
                    "model_cfg": model
                    | {"vision_cfg": {"timm_model_name": "vit", "image_size": 64}}
                }
            },
            "timm_model_name='vit'",
        ),
        "coca": (
            {"open_clip_config": {"model_cfg": model | {"multimodal_cfg": {"a": 1}}}},
            "multimodal_cfg=",
        ),
        "size": (
            {"open_clip_config": config | {"preprocess_cfg": {"size": 32}}},
            "images of 32 pixels",
        ),
        "narrow": (
            {"open_clip_config": config | {"model_cfg": model | {"embed_dim": 8}}},
            "of another shape",
        ),
    }
    for case, (files, message) in cases.items():
        copy = changed(folder, tmp_path / case, **files)
        with pytest.raises(DiffjaxError, match=message):
            load_contrastive(copy)


def test_open_clip_reads_html_and_asks_for_ftfy(saved, monkeypatch):
    _, folder = saved
    tokenize = load_contrastive(folder).tokenize
    assert tokenize(["a &amp;  CAT"]).ids.tolist() == tokenize(["a & cat"]).ids.tolist()
    assert (tokenize(["cat"]).ids[0, -1], drawn("logit_scale", ()).item()) == (0, 2)
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    with pytest.raises(DiffjaxError, match="pip install ftfy"):
        tokenize(["à la carte"])
