"""SiT and REPA, from what their authors' programs saved: bare tables of tensors."""

import gzip
import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
import torch
from flax import nnx
from hub_server import Hub
from paper_dit import REPA, DiT, SiT, positions
from pipelines import edit_json, error, from_torch, normal, randomise, to_torch
from test_catalog import hub  # noqa: F401  a fixture

from diffjax import DiffusionClassifier
from diffjax.checkpoints import catalog, resolving
from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.mappings import match
from diffjax.checkpoints.naming import ORIGINAL_DIT
from diffjax.checkpoints.networks import empty_network, network_config
from diffjax.checkpoints.original_dit import (
    of_program,
    original_config,
    split_attention,
)
from diffjax.checkpoints.untrained import UNTRAINED
from diffjax.data.imagenet import imagenet_names
from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import predict

BOUND = 1e-4
KEYS = Path(__file__).parents[1] / "goldens" / "keys"
SMALL = {"width": 24, "depth": 2, "heads": 2, "patch": 2}
EDGE, CLASSES = 8, 10
PROGRAMS = {"SiT": SiT, "REPA": REPA}


def small(cls=SiT, seed=7, zeros=True, **more):
    """A network all of whose tensors matter; of 8 channels SiT leaves 4 at zero."""
    model = randomise(cls(EDGE, CLASSES, **SMALL | more), seed)
    with torch.no_grad():
        model.pos_embed.copy_(positions(SMALL["width"], EDGE // 2))
        last = model.final_layer.linear
        if cls is SiT and zeros and last.out_features == 32:
            for tensor in (last.weight, last.bias):
                tensor.view(4, 8, -1)[:, 4:] = 0
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By scheduler's class a pipeline of that process, with 4 channels, and DiT's."""
    found = {}
    for name in ("SiT", "REPA", "DDIM"):
        folder = found[name] = tmp_path_factory.mktemp(name)
        channels = 8 if name == "DDIM" else 4
        parts = {"transformer": pipelines.dit(out_channels=channels)}
        pipelines.dit_pipeline(folder, **parts)
        if name != "DDIM":
            edit_json(folder / "model_index.json", _class_name=f"{name}Pipeline")
            scheduler = {"_class_name": f"{name}Scheduler"}
            path = folder / "scheduler" / "scheduler_config.json"
            path.write_text(json.dumps(scheduler))
    return found


def saved(model, path):
    torch.save(model.state_dict(), path)
    return path


LATENTS, IDS = normal(3, EDGE, EDGE, 4), np.int32([0, 7, 10])


def theirs(model, time):
    with torch.no_grad():
        told = torch.tensor(np.float32(time)).expand(3)
        return from_torch(model(to_torch(LATENTS), told, torch.tensor(IDS)))


@pipelines.quick_jit
def velocities(network, time):
    return jax.vmap(network.module(), (0, None, 0))(LATENTS, time, IDS)


@pipelines.quick_jit
def noises(network, schedule, index):
    one = partial(predict, network, schedule)
    return jax.vmap(one, (0, None, 0))(LATENTS, index, IDS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_predictions_at_fractions_of_time(folders, tmp_path, program):
    """Bare and in a training checkpoint; time reaches the network, and no integer."""
    model = small(PROGRAMS[program])
    file = saved(model, tmp_path / "a.pt")
    network = load_model(folders[program], transformer=file).denoiser
    assert network.module().config.freq_shift == 0
    told = np.float32([0, 0.02, 0.3, 0.7, 1])
    ours = [np.asarray(velocities(network, t)) for t in told]
    expected = [theirs(model, t) for t in told]
    assert max(map(error, ours, expected)) <= BOUND
    for a, b in pairwise(expected):
        assert np.abs(a - b).max() > 2 * BOUND  # nothing truncates them
    # and how it changes there: the step is exact in float32, but for rounding
    _, slope = jax.jvp(
        lambda t: velocities(network, t), (jnp.float32(0.5),), (jnp.float32(1),)
    )
    h = 2**-6
    difference = (theirs(model, 0.5 + h) - theirs(model, 0.5 - h)) / (2 * h)
    assert np.abs(difference).max() > 0.01
    np.testing.assert_allclose(slope, difference, atol=0.01)

    other = small(PROGRAMS[program], seed=8)
    content = {"model": other.state_dict(), "ema": model.state_dict(), "steps": 3}
    torch.save(content, tmp_path / "b.pt")
    with pytest.warns(UserWarning, match="ema .averaged weights. is taken"):
        again = load_model(folders[program], transformer=tmp_path / "b.pt")
    np.testing.assert_array_equal(velocities(again.denoiser, told[2]), ours[2])


@pytest.mark.parametrize("program", PROGRAMS)
def test_noise_is_what_the_program_s_velocity_says(folders, tmp_path, program):
    """SiT goes from noise to data, x_t = t x + (1 − t) ε; REPA the other way."""
    model = small(PROGRAMS[program])
    loaded = load_model(folders[program], transformer=saved(model, tmp_path / "a.pt"))
    schedule, T = loaded.schedule, 1000
    np.testing.assert_allclose(schedule.sigma, (np.arange(T) + 1) / T, rtol=1e-6)
    assert schedule.sigma[-1] == 1 and schedule.signal[-1] == 0
    to_data = 1 if program == "SiT" else -1
    ends = (0.999, 0.0) if program == "SiT" else (0.001, 1.0)
    np.testing.assert_allclose(schedule.time[np.array([0, -1])], ends, rtol=1e-6)
    for index in (0, 299, 999):
        t = float(schedule.time[index])
        v = theirs(model, t)
        # (a, s) of x and ε in x_t; x_t − a (x − ε) = ε, whatever a
        a = t if program == "SiT" else 1 - t
        np.testing.assert_allclose(schedule.signal[index], a, atol=1e-6)
        noise, variance = noises(loaded.denoiser, schedule, index)
        assert variance is None
        assert error(np.asarray(noise), LATENTS - a * to_data * v) <= BOUND


def test_a_sit_of_four_channels(folders, tmp_path):
    """As saved with learn_sigma=False: the same answers as with an idle half."""
    model = small()
    state = model.state_dict()
    for key in ("final_layer.linear.weight", "final_layer.linear.bias"):
        tensor = state[key]
        state[key] = tensor.view(4, 8, -1)[:, :4].reshape(16, *tensor.shape[1:])
    torch.save(state, tmp_path / "a.pt")
    loaded = load_model(folders["SiT"], transformer=tmp_path / "a.pt")
    assert error(np.asarray(velocities(loaded.denoiser, 0.3)), theirs(model, 0.3)) < (
        BOUND
    )


def test_files_of_another_program_are_told(folders, tmp_path):
    """Their names and shapes are the same; what shows is what was left untrained."""

    def load(folder, model):
        path = saved(model, tmp_path / "a.pt")
        return load_model(folders[folder], transformer=path)

    for folder in ("SiT", "DDIM"):
        with pytest.raises(DiffjaxError, match=r"REPA's program saved it.*repa-xl-2"):
            load(folder, small(REPA))
    with pytest.raises(DiffjaxError, match=r"no variance.*SiT's program.*sit-xl-2"):
        load("DDIM", small())
    with pytest.warns(UserWarning, match="which SiT's program leaves at zero.*dit-256"):
        load("SiT", small(DiT))
    with pytest.warns(UserWarning, match="no projectors.*sit-xl-2-256"):
        load("REPA", small(SiT, channels=4))
    with pytest.raises(DiffjaxError, match=r"q_norm\.weight.*--qk-norm"):
        state = small().state_dict() | {"blocks.0.attn.q_norm.weight": torch.ones(12)}
        torch.save(state, tmp_path / "a.pt")
        load_model(folders["SiT"], transformer=tmp_path / "a.pt")


def test_missing_and_additional_tensors_are_refused(folders, tmp_path):
    state = small(REPA).state_dict()
    state["decoder_blocks.0.mlp.fc1.bias"] = state.pop("blocks.1.mlp.fc1.bias")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(DiffjaxError) as caught:
        load_model(folders["REPA"], transformer=tmp_path / "a.pt")
    assert "blocks.1.mlp.fc1.bias" in str(caught.value)
    assert "unexpected (1)" in str(caught.value)


@pytest.mark.parametrize("name", ["sit-s-2-256", "sit-xl-2-256", "repa-xl-2-256"])
def test_full_size_names_and_shapes(name):
    """What the programs' own classes save, by scripts/make_key_lists.py."""
    lines = gzip.decompress((KEYS / f"{name}.txt.gz").read_bytes()).decode()
    zero = np.float32(0)
    tensors = {
        key: np.broadcast_to(zero, tuple(map(int, shape.split(","))))
        for key, shape in (line.split("\t") for line in lines.splitlines())
    }
    folder = catalog.BARE / name
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    config = network_config(folder / "transformer", "transformer")
    tensors["pos_embed"] = positions(config.features, 16).numpy()
    found = of_program(tensors, config, scheduler["_class_name"], name)
    found = split_attention(found, config, name)
    _, state = empty_network(original_config(config))
    arrays = match(state, found, ORIGINAL_DIT, name)
    expected = {path: leaf.shape for path, leaf in nnx.to_flat_state(state)}
    assert {path: array.shape for path, array in arrays.items()} == expected
    assert sum(map(np.prod, expected.values())) == MODELS[name].denoiser_parameters
    with pytest.raises(DiffjaxError, match=r"missing \(1\)"):
        fewer = {k: v for k, v in found.items() if k != "t_embedder.mlp.2.bias"}
        match(state, fewer, ORIGINAL_DIT, name)


BARE = [name for name, model in MODELS.items() if model.bare]


@pytest.mark.parametrize("name", BARE)
def test_the_catalogue_says_what_the_configs_say(name):
    model, folder = MODELS[name], catalog.BARE / name
    config = network_config(folder / "transformer", "transformer")
    assert model.resolution == 8 * config.sample_size
    _, state = empty_network(config)
    assert model.denoiser_parameters == sum(
        leaf.size for _, leaf in nnx.to_flat_state(state)
    )
    program = name.split("-")[0].replace("sit", "SiT").replace("repa", "REPA")
    index = json.loads((folder / "model_index.json").read_text())
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert index["_class_name"] == f"{program}Pipeline"
    assert scheduler == {"_class_name": f"{program}Scheduler"}
    assert index["id2label"] == "imagenet" and config.num_embeds_ada_norm == 1000
    assert {path.parent for path in catalog.BARE.glob("*/*.json")} == {
        catalog.BARE / each for each in BARE
    }
    if name in UNTRAINED:
        assert UNTRAINED[name][1] == folder / "transformer" / "config.json"


def test_by_name_from_the_hub(hub: Hub, monkeypatch, tmp_path):  # noqa: F811
    """The file, and the autoencoder that it was trained with; no more is fetched."""
    name = "sit-s-2-256"
    place = tmp_path / "bare" / name
    for part in ("model_index.json", "scheduler/scheduler_config.json"):
        (place / part).parent.mkdir(parents=True, exist_ok=True)
        (place / part).write_bytes((catalog.BARE / name / part).read_bytes())
    (place / "transformer").mkdir()
    pipelines.dit(out_channels=4, num_embeds_ada_norm=1000).save_config(
        place / "transformer"
    )
    monkeypatch.setattr(resolving, "BARE", tmp_path / "bare")
    model = randomise(SiT(EDGE, 1000, **SMALL, channels=4), 3)
    with torch.no_grad():
        model.pos_embed.copy_(positions(SMALL["width"], EDGE // 2))
    file = saved(model, tmp_path / "a.pt")
    pipelines.vae().save_pretrained(tmp_path / "vae")
    files = {p.name: p.read_bytes() for p in (tmp_path / "vae").iterdir()}
    hub.add("stabilityai/sd-vae-ft-mse", files | {"README.md": b""})
    others = {"SiT-B-2-256.pt": b"x", "README.md": b""}
    hub.add(
        "nyu-visionx/SiT-collections", others | {"SiT-S-2-256.pt": file.read_bytes()}
    )
    clf = DiffusionClassifier.from_pretrained(name)
    assert sorted(hub.fetched) == sorted([*files, "SiT-S-2-256.pt"])
    assert clf.model.class_names == imagenet_names()
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert clf.classify(image, ["tench", "goldfish"]).label in ("tench", "goldfish")
    assert error(
        np.asarray(velocities(clf.model.denoiser, 0.3)), theirs(model, 0.3)
    ) < (BOUND)
    hub.fetched.clear()
    own = load_model(name, transformer=file, vae=tmp_path / "vae")
    assert hub.fetched == [] and own.weights == clf.model.weights
    hub.add("nyu-visionx/SiT-collections", others)
    with pytest.raises(DiffjaxError, match=r"has no SiT-S-2-256.pt; it has SiT-B-2"):
        load_model(name, cache_dir=tmp_path / "elsewhere")
    for other, why in (("repa-xl-2-256", "https://"), ("sit-xl-2-512", "")):
        with pytest.raises(DiffjaxError, match=f"not known .*{why}.*--transformer"):
            load_model(other)
