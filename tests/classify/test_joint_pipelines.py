"""Stable Diffusion 3 and FLUX.1 whole: images and prompts in, errors out, as in torch.

Small random pipelines that diffusers made and saved, through the public loader. Torch's
side is written with diffusers' own encode_prompt and scheduler.
"""

import gc

import jax
import jax.numpy as jnp
import joint_pipelines
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from pipelines import edit_json, from_torch, to_torch

from diffjax.checkpoints import conditioning
from diffjax.checkpoints.loading import load_model
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.models.conditioner import Remembered
from diffjax.models.flux import FluxCondition
from diffjax.models.mmdit import JointCondition
from diffjax.models.pixart import MaskedCondition
from diffjax.scoring.noise import SeededNoise
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.shortlist import Shortlist

BOUND = 1e-4
PROMPTS = ["a cat", "the dog! of a", "", "cat, photo"]
CLASSES = Prompts(
    prompts=tuple(PROMPTS), classidx=tuple(range(4)), class_names=("a", "b", "c", "d")
)
S = 3
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
MAKE = {
    "SD3": joint_pipelines.stable_diffusion_3,
    "SD3 without T5": lambda folder: joint_pipelines.stable_diffusion_3(
        folder, text_encoder_3=None, tokenizer_3=None
    ),
    "FLUX dev": lambda folder: joint_pipelines.flux(folder, guided=True),
    "FLUX schnell": lambda folder: joint_pipelines.flux(folder, guided=False),
    "PixArt-α": lambda folder: joint_pipelines.pixart(folder, alpha=True),
    "PixArt-Σ": lambda folder: joint_pipelines.pixart(folder, alpha=False),
}
LENGTHS = {"FLUX dev": 512, "FLUX schnell": 256, "PixArt-α": 120, "PixArt-Σ": 300}


@pytest.fixture(scope="module", params=MAKE)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    return request.param, folder, MAKE[request.param](folder)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd3")
    return folder, joint_pipelines.stable_diffusion_3(folder)


def classify(model, **settings):
    settings = {"strategy": Exhaustive(n_samples=S), "resolution": 16} | settings
    classifier = DiffusionClassifier(model, Settings(**settings))
    return classifier.classify(IMAGE, CLASSES), classifier.encode(IMAGE).key


@torch.no_grad()
def errors_of_pixart(name, pipeline, record, key):
    """[prompts, samples], by diffusers' own classes."""
    states, mask, _, _ = pipeline.encode_prompt(
        PROMPTS,
        do_classifier_free_guidance=False,
        device="cpu",
        max_sequence_length=LENGTHS[name],
    )
    mean = pipeline.vae.encode(to_torch(record.pixels[None])).latent_dist.mean
    z0 = mean * pipeline.vae.config.scaling_factor
    n, (height, width) = len(PROMPTS), z0.shape[2:]
    told = {"resolution": None, "aspect_ratio": None}
    if "α" in name:
        sizes = torch.tensor([[8.0 * height, 8.0 * width]])
        told = {"resolution": sizes.repeat(n, 1), "aspect_ratio": torch.ones(n, 1)}
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    columns = []
    for t, noise in drawn(record, key, z0):
        t = torch.tensor([int(t)])
        z_t = scheduler.add_noise(z0, noise, t)
        predicted = pipeline.transformer(
            z_t.repeat(n, 1, 1, 1),
            states,
            t.repeat(n),
            told,
            encoder_attention_mask=mask,
        ).sample.chunk(2, dim=1)[0]
        columns.append(((predicted - noise) ** 2).mean(dim=(1, 2, 3)).numpy())
    return np.stack(columns, axis=1)


def drawn(record, key, z0):
    """Each sample's timestep and noise."""
    for t, k in zip(record.samples.timesteps, record.samples.noises, strict=True):
        noise = SeededNoise.of(0).draw(
            jnp.uint32(key), jnp.int32(k), from_torch(z0)[0].shape
        )
        yield t, to_torch(np.asarray(noise)[None])


@torch.no_grad()
def errors_of_torch(name, pipeline, record, key, guidance=3.5, shift=None):
    """[prompts, samples], by diffusers' own classes."""
    if name.startswith("PixArt"):
        return errors_of_pixart(name, pipeline, record, key)
    if name.startswith("SD3"):
        states, _, pooled, _ = pipeline.encode_prompt(
            PROMPTS, None, None, device="cpu", do_classifier_free_guidance=False
        )
    else:
        states, pooled, ids = pipeline.encode_prompt(
            PROMPTS, None, device="cpu", max_sequence_length=LENGTHS[name]
        )
    vae = pipeline.vae
    mean = vae.encode(to_torch(record.pixels[None])).latent_dist.mean
    z0 = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    height, width = z0.shape[2:]
    scheduler = pipeline.scheduler
    if shift is not None:
        scheduler = scheduler.from_config(scheduler.config, shift=shift)
    mu = {}
    if scheduler.config.use_dynamic_shifting:
        mu = {"mu": calculate_shift(height * width // 4)}
    levels = np.linspace(1, 1 / 1000, 1000)
    scheduler.set_timesteps(sigmas=levels, **mu)
    columns = []
    for t, noise in drawn(record, key, z0):
        time = scheduler.timesteps[999 - t]
        z_t = scheduler.scale_noise(z0, time[None], noise)
        n = len(PROMPTS)
        z = z_t.repeat(n, 1, 1, 1)
        if name.startswith("SD3"):
            v = pipeline.transformer(z, states, pooled, time.repeat(n)).sample
        else:
            channels = z.shape[1]
            where = FluxPipeline._prepare_latent_image_ids(
                n, height // 2, width // 2, "cpu", torch.float32
            )
            guided = pipeline.transformer.config.guidance_embeds
            v = pipeline.transformer(
                FluxPipeline._pack_latents(z, n, channels, height, width),
                states,
                pooled,
                time.repeat(n) / 1000,
                where,
                ids,
                torch.full((n,), guidance) if guided else None,
            ).sample
            scale = pipeline.vae_scale_factor
            v = FluxPipeline._unpack_latents(v, height * scale, width * scale, scale)
        sigma = scheduler.sigmas[999 - t]
        predicted = z_t + (1 - sigma) * v  # v = ε − z0, z_t = (1 − σ) z0 + σ ε
        columns.append(((predicted - noise) ** 2).mean(dim=(1, 2, 3)).numpy())
    return np.stack(columns, axis=1)


def test_errors_are_torch_s(made):
    name, folder, pipeline = made
    model = load_model(folder)
    record, key = classify(model)
    expected = errors_of_torch(name, pipeline, record, key)
    np.testing.assert_allclose(record.errors, expected, rtol=BOUND)


def test_conditions_are_what_the_network_is_told(made):
    name, folder, _ = made
    model = load_model(folder)
    told = model.text_conditioner.shapes()
    expected = model.denoiser.module().condition_shapes()
    kinds = {"SD3": JointCondition, "FLU": FluxCondition, "Pix": MaskedCondition}
    kind = kinds[name[:3]]
    assert isinstance(told, kind) and isinstance(expected, kind)
    if kind is not MaskedCondition:
        assert told.pooled == expected.pooled
    # CLIP's small one has fewer tokens than published ones
    assert told.states.shape[1] == expected.states.shape[1]


def test_a_shortlist_by_gradients(made):
    _, folder, _ = made
    record, _ = classify(load_model(folder), shortlist=Shortlist(k=2))
    assert np.isfinite(record.errors).any(axis=1).sum() == 2


def test_settings_that_decide_are_recorded_and_act(sd3):
    """T5 left out, and another shift: each is another classifier, and says so."""
    folder, pipeline = sd3
    plain = load_model(folder)
    without = load_model(folder, text_encoder_3="none")
    even = load_model(folder, shift=1.0)
    assert without.origin["elsewhere"] == {"text_encoder_3": "none"}
    assert without.configs["pipeline"] == {"text_encoder_3": False}
    assert plain.configs["pipeline"] == {"text_encoder_3": True}
    assert even.origin["shift"] == 1.0
    assert len({model.fingerprint for model in (plain, without, even)}) == 3
    record, key = classify(even)
    expected = errors_of_torch("SD3", pipeline, record, key, shift=1.0)
    np.testing.assert_allclose(record.errors, expected, rtol=BOUND)
    t5, pipeline.text_encoder_3 = pipeline.text_encoder_3, None
    record, key = classify(without)
    expected = errors_of_torch("SD3", pipeline, record, key)
    pipeline.text_encoder_3 = t5
    np.testing.assert_allclose(record.errors, expected, rtol=BOUND)


def test_parts_beside_an_encoder_that_is_not_there(sd3, tmp_path):
    """Its null in model_index.json is no folder; one from elsewhere is taken."""
    whole, _ = sd3
    MAKE["SD3 without T5"](tmp_path)
    vae = whole / "vae"
    assert load_model(tmp_path, vae=vae).configs["pipeline"]["text_encoder_3"] is False
    given = load_model(tmp_path, text_encoder_3=whole, tokenizer_3=whole)
    assert given.fingerprint == load_model(whole).fingerprint
    with pytest.raises(DiffjaxError, match="no weights of the variant 'fpp16'"):
        load_model(whole, text_encoder_3="none", variant="fpp16")


def test_guidance(tmp_path):
    pipeline = joint_pipelines.flux(tmp_path, guided=True)
    model = load_model(tmp_path, guidance=1.0)
    assert model.configs["pipeline"] == {"guidance": 1.0}
    record, key = classify(model)
    expected = errors_of_torch("FLUX dev", pipeline, record, key, guidance=1.0)
    np.testing.assert_allclose(record.errors, expected, rtol=BOUND)


def test_prompts_are_kept(sd3, tmp_path):
    """A cache gives the same conditions, and one for each way to make them."""
    folder, _ = sd3
    cache = tmp_path / "kept"

    def encoded(**parts):
        conditioner = load_model(folder, prompt_cache=cache, **parts).text_conditioner
        return conditioner.encode(PROMPTS)[0]

    def files():
        return sum(1 for each in cache.rglob("*") if each.is_file())

    rows, n = encoded(), files()
    again = encoded()
    np.testing.assert_array_equal(rows.states, again.states)
    np.testing.assert_array_equal(rows.pooled, again.pooled)
    assert n == files()
    other = encoded(text_encoder_3="none")
    assert not np.array_equal(rows.states, other.states)


@pytest.fixture
def reads(monkeypatch):
    """Text encoders that are read, which are all too large to be kept."""
    monkeypatch.setattr(conditioning, "LARGE_TEXT_ENCODER", {"cpu": 0})
    read, found = conditioning.load_network, []

    def counted(folder, name, *args, **kwargs):
        found.append(name)
        return read(folder, name, *args, **kwargs)

    monkeypatch.setattr(conditioning, "load_network", counted)
    return found


ENCODERS = ["text_encoder", "text_encoder_2", "text_encoder_3"]


def on_device(table):
    gc.collect()
    return sum(each.shape == table for each in jax.live_arrays())


def test_large_encoders_are_read_once_and_leave_the_device(sd3, reads):
    table = (joint_pipelines.T5["vocab_size"], joint_pipelines.T5["d_model"])
    before = on_device(table)
    model = load_model(sd3[0])
    assert on_device(table) == before  # tiles are sized now
    classifier = DiffusionClassifier(
        model, Settings(strategy=Exhaustive(n_samples=1), resolution=16)
    )
    first = classifier.classify(IMAGE, CLASSES)
    assert on_device(table) == before
    again = classifier.classify(IMAGE, CLASSES)
    assert reads == ENCODERS
    np.testing.assert_array_equal(first.errors, again.errors)
    other = DiffusionClassifier(load_model(sd3[0]), classifier.settings)
    assert sorted(reads) == sorted(2 * ENCODERS)
    np.testing.assert_array_equal(other.classify(IMAGE, CLASSES).errors, first.errors)


def test_the_latest_answers_are_remembered():
    kept = Remembered(most=3 * 8)
    for name in "abc":
        kept.put(name, {"x": np.arange(2, dtype=np.float32)})
    assert kept.get("a", {}) is not None
    kept.put("d", {"x": np.zeros(2, np.float32)})
    assert [name for name in "abcd" if kept.get(name, {}) is None] == ["b"]


@pytest.mark.parametrize(
    ("part", "changes", "named"),
    [
        ("transformer", {"joint_attention_dim": 48}, "do not belong together"),
        ("transformer", {"pooled_projection_dim": 30}, "pooled state of width 30"),
        ("text_encoder_3", {"d_model": 48}, "do not belong together"),
        ("text_encoder_3", {"architectures": ["T5Model"]}, "as text_encoder_3"),
        ("vae", {"latent_channels": 16}, "latents have 16"),
    ],
)
def test_parts_that_do_not_fit(tmp_path, part, changes, named):
    joint_pipelines.stable_diffusion_3(tmp_path)
    edit_json(tmp_path / part / "config.json", **changes)
    with pytest.raises(DiffjaxError, match=named):
        load_model(tmp_path)


def test_images_larger_than_the_table_of_positions(sd3):
    model = load_model(sd3[0])
    assert model.largest == 2 * 2 * joint_pipelines.SD3["pos_embed_max_size"]
    classify(model, resolution=24)
    for resolution in (28, 26):
        with pytest.raises(DiffjaxError, match="multiple of 4, and at most 24"):
            classify(model, resolution=resolution)


def test_what_a_pipeline_is_not_told_is_refused(sd3, tmp_path):
    folder, _ = sd3
    with pytest.raises(DiffjaxError, match="no guidance"):
        load_model(folder, guidance=2.0)
    with pytest.raises(DiffjaxError, match="of no flow"):
        load_model("tiny", shift=2.0)
    with pytest.raises(DiffjaxError, match="no text_encoder_3 to replace"):
        load_model("tiny", text_encoder_3="none")
    joint_pipelines.flux(tmp_path, guided=False)
    with pytest.raises(DiffjaxError, match="no guidance"):
        load_model(tmp_path, guidance=2.0)
