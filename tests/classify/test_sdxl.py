"""Stable Diffusion XL whole: images and prompts in, errors out, as torch has them.

Small random pipelines that diffusers made and saved, through the public loader. Torch's
side is written with diffusers' own encode_prompt, _get_add_time_ids and scheduler.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
import torch
from diffusers import DDPMScheduler
from pipelines import LENGTH, edit_json, from_torch, to_torch

from diffjax.checkpoints.loading import load_model
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.explanation import explain
from diffjax.classify.seen import told
from diffjax.classify.settings import Settings
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.evaluation.bench import subject_of
from diffjax.models.conditioner import encode_prompts
from diffjax.models.conditions import take
from diffjax.models.network import OnDemand
from diffjax.models.unet import PooledCondition
from diffjax.scoring.noise import SeededNoise
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.shortlist import Shortlist

BOUND = 1e-4
PROMPTS = ["a cat", "the dog! of a", "", "cat " * 20]
CLASSES = Prompts(
    prompts=tuple(PROMPTS), classidx=tuple(range(4)), class_names=("a", "b", "c", "d")
)
S = 2
SIZES = [(21, 40), (16, 16)]  # width and height of the images


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    return folder, pipelines.stable_diffusion_xl(folder)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in SIZES]


def classifier_of(model, **settings):
    settings = {"strategy": Exhaustive(n_samples=S)} | settings
    return DiffusionClassifier(model, Settings(**settings))


@pytest.fixture(scope="module")
def classifier(sdxl):
    return classifier_of(load_model(sdxl[0]))


@torch.no_grad()
def errors_of_torch(pipeline, record, key, sizes, zeros=True):
    """[prompts, samples], by diffusers' own classes.

    Args:
        sizes: original height and width, top and left, target height and width.
    """
    said = [
        pipeline.encode_prompt(
            # no negative prompt is the empty one; its place needs another
            prompt or "a",
            device="cpu",
            do_classifier_free_guidance=True,
        )
        for prompt in PROMPTS
    ]
    pairs = [
        (states, pooled) if prompt or not zeros else (no_states, no_pooled)
        for prompt, (states, no_states, pooled, no_pooled) in zip(
            PROMPTS, said, strict=True
        )
    ]
    states, pooled = (torch.cat(each) for each in zip(*pairs, strict=True))
    ids = pipeline._get_add_time_ids(
        sizes[:2],
        sizes[2:4],
        sizes[4:],
        dtype=states.dtype,
        text_encoder_projection_dim=pipelines.TEXT_XL["projection_dim"],
    )
    mean = pipeline.vae.encode(to_torch(record.pixels[None])).latent_dist.mean
    z0 = mean * pipeline.vae.config.scaling_factor
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    columns = []
    for t, k in zip(record.samples.timesteps, record.samples.noises, strict=True):
        shape = from_torch(z0)[0].shape
        drawn = SeededNoise.of(0).draw(jnp.uint32(key), jnp.int32(k), shape)
        noise = to_torch(np.asarray(drawn)[None])
        z_t = scheduler.add_noise(z0, noise, torch.tensor([int(t)]))
        n = len(PROMPTS)
        predicted = pipeline.unet(
            z_t.repeat(n, 1, 1, 1),
            int(t),
            encoder_hidden_states=states,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids.repeat(n, 1)},
        ).sample
        columns.append(((predicted - noise) ** 2).mean(dim=(1, 2, 3)).numpy())
    return np.stack(columns, axis=1)


def test_errors_are_torch_s(sdxl, classifier, images):
    """Two images of different sizes side by side, each told its own."""
    _, pipeline = sdxl
    with pytest.warns(UserWarning, match="too long"):
        records = classifier.classify(images, CLASSES)
    for image, (width, height), record in zip(images, SIZES, records, strict=True):
        key = classifier.encode(image).key
        sizes = (height, width, 0, 0, 16, 16)
        expected = errors_of_torch(pipeline, record, key, sizes)
        np.testing.assert_allclose(record.errors, expected, rtol=BOUND)


def test_sizes_that_are_set(sdxl, images):
    folder, pipeline = sdxl
    ours = classifier_of(load_model(folder), sizes="512,640,3,5,1024,768")
    with pytest.warns(UserWarning, match="too long"):
        record = ours.classify(images[0], CLASSES)
    assert record.settings["sizes"] == "512,640,3,5,1024,768"
    key = ours.encode(images[0]).key
    sizes = (512, 640, 3, 5, 1024, 768)
    expected = errors_of_torch(pipeline, record, key, sizes)
    np.testing.assert_allclose(record.errors, expected, rtol=BOUND)


def test_what_is_recorded(classifier, images):
    record = classifier.classify(images[0], ["a", "b"])
    assert record.settings["sizes"] == "image"
    assert classifier.model.describe()["configs"]["pipeline"] == {
        "force_zeros_for_empty_prompt": True
    }


@pytest.mark.parametrize(
    "sizes",
    ["1024", "1,2,3,4,5", "0,1,0,0,1,1", "1,1,0,0,1,99999", "1,1,0,0,1,x", "", "own"],
)
def test_sizes_that_make_no_sense(sizes):
    with pytest.raises(DiffjaxError, match=r"six numbers of pixels: height and width"):
        Settings(sizes=sizes)


def test_models_that_are_told_no_sizes():
    with pytest.raises(DiffjaxError, match=r"tiny is not told sizes.*--sizes"):
        DiffusionClassifier.from_pretrained("tiny", sizes="image")


def test_the_empty_prompt_where_the_index_does_not_say_zeros(sdxl, tmp_path):
    folder, pipeline = sdxl
    for place in folder.iterdir():
        (tmp_path / place.name).symlink_to(place)
    (tmp_path / "model_index.json").unlink()
    index = (folder / "model_index.json").read_text()
    (tmp_path / "model_index.json").write_text(index)
    edit_json(tmp_path / "model_index.json", force_zeros_for_empty_prompt=False)
    with torch.no_grad():
        states, _, pooled, _ = pipeline.encode_prompt("", device="cpu")
    model = load_model(tmp_path)
    ours = model.conditioner.encode([""])[0]
    assert pipelines.error(ours.states, states.numpy()) < BOUND
    assert pipelines.error(ours.pooled, pooled.numpy()) < BOUND
    assert "pipeline" not in model.configs
    zeros = load_model(folder)
    assert zeros.fingerprint != model.fingerprint
    [a, b] = zeros.conditioner.encode(["", "a"])[0].pooled
    assert not np.any(a) and np.any(b)


def test_prompts_are_kept_by_both_encoders(sdxl, tmp_path, monkeypatch):
    expected, _ = load_model(sdxl[0]).conditioner.encode(PROMPTS)
    load_model(sdxl[0], prompt_cache=tmp_path).conditioner.encode(PROMPTS)

    def unread(self):
        raise AssertionError("an encoder is read")

    monkeypatch.setattr(OnDemand, "__call__", unread)
    found, _ = load_model(sdxl[0], prompt_cache=tmp_path).conditioner.encode(PROMPTS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow  # gradients of a U-Net of three levels
def test_a_shortlist_knows_the_image_s_size(sdxl, images):
    """Estimates are exact where labels are the base."""
    labels = ["a", "b", "cat"]
    shortlist = Shortlist(k=2, n_samples=S)
    ours = classifier_of(load_model(sdxl[0]), shortlist=shortlist)
    candidates = ours.candidates(labels)
    same = take(candidates.conditions, np.full(len(labels), 2))
    seen = ours.encode(images[0])
    estimates = ours.estimates(dataclasses.replace(candidates, conditions=same))
    found = estimates.of(seen.z0, seen.key, seen.told)
    everything = classifier_of(ours.model).classify(images[0], candidates)
    expected = np.tile(everything.errors[2], (len(labels), 1))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    others = estimates.of(seen.z0, seen.key, told(ours.settings, 999, 9))
    assert np.abs(found - others).max() > 1e-3 * np.abs(found).max()

    record = ours.classify(images[0], ours.candidates(labels))
    assert (record.decision.n_samples == S).sum() == 2


def test_maps_of_the_evidence_know_it_too(classifier, images):
    found = explain(classifier, images[0], "cat", "dog", n_samples=S)
    record = classifier.classify(images[0], ["cat", "dog"])
    order = np.argsort(record.samples.timesteps)
    np.testing.assert_allclose(
        found.maps.mean(axis=(2, 3)).T, record.errors[:, order], rtol=BOUND
    )


def test_a_refiner_is_refused_in_its_own_words(sdxl, tmp_path):
    folder, _ = sdxl
    for place in folder.iterdir():
        if place.is_dir():
            (tmp_path / place.name).symlink_to(place)
    (tmp_path / "model_index.json").write_text(
        (folder / "model_index.json").read_text()
    )
    edit_json(
        tmp_path / "model_index.json",
        _class_name="StableDiffusionXLImg2ImgPipeline",
        requires_aesthetics_score=True,
    )
    with pytest.raises(DiffjaxError, match=r"refiner is told how beautiful.*sdxl"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("unet", "projection_class_embeddings_input_dim", 55, "width 19, but that"),
        ("unet", "projection_class_embeddings_input_dim", 36, "does not make 36"),
        ("unet", "addition_embed_type", "text", "must be text_time or null"),
        ("unet", "cross_attention_dim", 24, r"encoders' have 24 \+ 32"),
        ("unet", "transformer_layers_per_block", [1, 2], "2 entries for 3 blocks"),
        ("unet", "reverse_transformer_layers_per_block", [1, 2, 3], "is no setting"),
        ("text_encoder_2", "projection_dim", 24, "width 20, but that of the text"),
        ("text_encoder_2", "architectures", ["CLIPTextModel"], "as text_encoder_2"),
    ],
)
def test_parts_that_do_not_belong_together(sdxl, tmp_path, part, key, value, words):
    folder, _ = sdxl
    for place in folder.iterdir():
        if place.name != part:
            (tmp_path / place.name).symlink_to(place)
    (tmp_path / part).mkdir()
    for place in (folder / part).iterdir():
        (tmp_path / part / place.name).write_bytes(place.read_bytes())
    edit_json(tmp_path / part / "config.json", **{key: value})
    with pytest.raises(DiffjaxError, match=f"(?s){words}"):
        load_model(tmp_path)


def test_parts_from_elsewhere_and_variants(sdxl, tmp_path):
    """A fine-tuned second encoder and a U-Net's file alone; fp16 weights."""
    folder, pipeline = sdxl
    before = load_model(folder)
    tuned = pipelines.randomise(pipelines.text_encoder_2(), seed=99)
    tuned.save_pretrained(tmp_path / "tuned")
    after = load_model(folder, text_encoder_2=tmp_path / "tuned")
    old, new = (each.conditioner.encode(["a"])[0] for each in (before, after))
    np.testing.assert_array_equal(old.states[..., :24], new.states[..., :24])
    assert not np.allclose(old.states[..., 24:], new.states[..., 24:])
    assert not np.allclose(old.pooled, new.pooled)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    alone = load_model(folder, unet=file)
    assert alone.denoiser.fingerprint == before.denoiser.fingerprint
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    half = load_model(tmp_path / "half", variant="fp16")
    assert half.weights == before.weights


# Every kind of tensor matters.


def kinds_of(network):
    """One path of each kind of tensor: layers that differ in number alone are one."""
    paths = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(network.state):
        name = jax.tree_util.keystr(path)
        paths.setdefault(re.sub(r"\[\d+\]", "[i]", name), name)
    return list(paths.values())


def changed(network, name):
    """The network with other numbers in one tensor."""
    state = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            1.5 * leaf + 0.1 if jax.tree_util.keystr(path) == name else leaf
        ),
        network.state,
    )
    return dataclasses.replace(network, state=state)


def test_any_tensor_of_the_unet_matters(classifier):
    """A sample of one tensor of every kind."""
    latents, steps = pipelines.normal(1, 8, 8, 4), np.array([500], np.int32)
    states, pooled = pipelines.normal(1, LENGTH, 56), pipelines.normal(1, 20)
    sizes = np.array([[300, 500, 0, 0, 16, 16]], np.int32)
    inputs = latents, steps, PooledCondition(states, pooled, sizes)
    denoiser = classifier.model.denoiser
    before = np.asarray(pipelines.denoise(denoiser, *inputs))
    kinds = kinds_of(denoiser)
    assert len(kinds) > 60
    for name in kinds:
        found = pipelines.denoise(changed(denoiser, name), *inputs)
        assert pipelines.error(found, before) > BOUND, name


def test_tiles_are_timed_with_all_that_it_is_told(classifier):
    model = classifier.model
    found = jax.tree.map(np.shape, subject_of(model).conditions)
    wanted = model.denoiser.module().condition_shapes()
    assert found.sizes == (1, *wanted.sizes.shape)
    assert found.pooled == (1, *wanted.pooled.shape)


def test_any_tensor_of_the_text_encoders_matters(classifier):
    """But keys' biases, which cancel, and the first one's last layer and norm."""
    model = classifier.model
    encoders = model.conditioner.encoders.values()
    ids = [np.stack([each.tokenize(["cat"]).ids[0]] * 2) for each in encoders]
    networks = [each.network() for each in encoders]
    combine = model.conditioner.combine
    before = encode_prompts(networks, ids, combine=combine)
    unnoticed = []
    for k, network in enumerate(networks):
        for path, _ in jax.tree_util.tree_leaves_with_path(network.state):
            name = jax.tree_util.keystr(path)
            tried = list(networks)
            tried[k] = changed(network, name)
            found = encode_prompts(tried, ids, combine=combine)
            same = jax.tree.map(
                lambda a, b: np.allclose(a, b, rtol=BOUND, atol=BOUND), found, before
            )
            if all(jax.tree.leaves(same)):
                unnoticed.append((k, name))
    rest = [each for each in unnoticed if not re.search("k_proj.*bias", each[1])]
    assert rest and all(k == 0 for k, _ in rest)
    assert all(re.search(r"final_layer_norm|layers'\]\[1\]", n) for _, n in rest)


def test_bfloat16_is_as_close_as_torch_s(sdxl):
    """By the norm of the prediction's difference from that in float32."""
    half = load_model(sdxl[0], dtype="bfloat16")
    latents = pipelines.normal(4, 8, 8, 4)
    steps = np.array([1, 200, 500, 999], np.int32)
    sizes = np.array([[300, 500, 0, 0, 16, 16]] * 4, np.int32)
    states = pipelines.normal(4, LENGTH, 56, seed=1)
    pooled = pipelines.normal(4, 20, seed=2)

    @torch.no_grad()
    def theirs(dtype):
        unet = pipelines.unet(**pipelines.UNET_XL).to(dtype)
        extra = {
            "text_embeds": torch.from_numpy(pooled).to(dtype),
            "time_ids": torch.from_numpy(sizes).to(dtype),
        }
        answer = unet(
            to_torch(latents).to(dtype),
            torch.from_numpy(steps),
            encoder_hidden_states=torch.from_numpy(states).to(dtype),
            added_cond_kwargs=extra,
        ).sample
        return from_torch(answer)

    exact = theirs(torch.float32)
    rounded = theirs(torch.bfloat16)
    ours = pipelines.denoise(
        half.denoiser, latents, steps, PooledCondition(states, pooled, sizes)
    )
    distance = [np.linalg.norm(each - exact) for each in (ours, rounded)]
    assert 0 < distance[0] < 1.5 * distance[1]
