import gzip
import json
import re
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from ml_dtypes import bfloat16
from pickles import Evil
from safetensors.numpy import save_file

from diffjax.checkpoints.formats import read_tensors, weight_files, weight_sets
from diffjax.errors import DiffjaxError

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
STEM = "diffusion_pytorch_model"
rng = np.random.default_rng(0)

TENSORS = {
    "conv_in.weight": rng.normal(size=(5, 4, 3, 2)).astype(np.float32),
    "conv_in.bias": rng.normal(size=5).astype(np.float32),
    "down_blocks.0.resnets.1.norm1.weight": rng.normal(size=6).astype(np.float32),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight": (
        rng.normal(size=(3, 7)).astype(np.float16)
    ),
    "mid_block.resnets.0.conv1.weight": rng.normal(size=(2, 3, 1, 1)).astype(bfloat16),
    "time_embedding.linear_1.weight": rng.normal(size=(2, 9)).astype(np.float32),
}
EMBEDDINGS = ("token_embedding", "position_embedding")


def key_list(name):
    lines = gzip.decompress((KEYS / f"{name}.txt.gz").read_bytes()).decode()
    pairs = (line.split("\t") for line in lines.splitlines())
    return {key: tuple(map(int, shape.split(","))) for key, shape in pairs}


def flax_tree(tensors, *, nested_lists=False):
    """The published torch → Flax rule, written independently of the reader's table:
    every ``name.0`` becomes ``name_0``, in transformers a level of its own.
    """
    tree = {}
    for key, value in tensors.items():
        if not nested_lists:
            key = re.sub(r"\.(\d+)(?=\.)", r"_\1", key)
        *modules, leaf = key.split(".")
        if leaf == "weight":
            if modules[-1] in EMBEDDINGS:
                leaf = "embedding"
            elif value.ndim == 1:
                leaf = "scale"
            else:
                leaf = "kernel"
                value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        level = tree
        for module in modules:
            level = level.setdefault(module, {})
        level[leaf] = np.ascontiguousarray(value)
    return tree


def write_msgpack(path, tensors, **options):
    path.write_bytes(msgpack_serialize(flax_tree(tensors, **options)))


def write_bin(path, tensors):
    import torch

    state = {}
    for key, value in tensors.items():
        bits = value.view(np.int16) if value.dtype == bfloat16 else value
        tensor = torch.from_numpy(bits.copy())
        state[key] = tensor.view(torch.bfloat16) if bits is not value else tensor
    torch.save(state, path)


def write_shards(index, write, tensors, shard="{}-0000{}-of-00002.safetensors"):
    halves = list(tensors)[::2], list(tensors)[1::2]
    weight_map = {}
    for number, keys in enumerate(halves, 1):
        name = shard.format(index.name.split(".")[0], number)
        write({key: tensors[key] for key in keys}, index.parent / name)
        weight_map |= dict.fromkeys(keys, name)
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize(
    "name", [f"{STEM}.safetensors", f"{STEM}.fp16.safetensors", "other.safetensors"]
)
def test_safetensors(tmp_path, name):
    save_file(TENSORS, tmp_path / name, metadata={"format": "pt"})
    at = tmp_path if name.startswith(STEM) else tmp_path / name
    assert_same(read_tensors(at), TENSORS)


def test_safetensors_are_mapped_not_read(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    for value in read_tensors(tmp_path / "a.safetensors").values():
        assert not value.flags.writeable
        while not isinstance(value, np.memmap):
            value = value.base  # ends in None, and fails, for a copy


def test_safetensors_odd_shapes(tmp_path):
    odd = {"empty": np.zeros((0, 3), np.float32), "number": np.array(7, np.int64)}
    save_file(odd, tmp_path / "a.safetensors")
    assert_same(read_tensors(tmp_path / "a.safetensors"), odd)


def test_safetensors_unsupported_dtype(tmp_path):
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "a.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + b"ab"
    )
    with pytest.raises(DiffjaxError, match="tensor w has dtype F8_E4M3"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_sharded_safetensors(tmp_path, variant):
    index = tmp_path / f"{STEM}.safetensors.index{variant}.json"
    shard = "{}" + variant + "-0000{}-of-00002.safetensors"
    write_shards(index, save_file, TENSORS, shard)
    assert_same(read_tensors(tmp_path), TENSORS)
    assert_same(read_tensors(index), TENSORS)


def test_msgpack(tmp_path):
    write_msgpack(tmp_path / "diffusion_flax_model.msgpack", TENSORS)
    found = read_tensors(tmp_path)
    assert_same(found, TENSORS)
    kernel = found["conv_in.weight"]
    assert kernel.base is not None and not kernel.flags.c_contiguous  # not a copy


def test_sharded_msgpack(tmp_path):
    flat = {}

    def write(tensors, path):
        tree = flax_tree(tensors)
        leaves = {}

        def visit(level, names):
            for name, value in level.items():
                if isinstance(value, dict):
                    visit(value, [*names, name])
                else:
                    leaves["/".join([*names, name])] = value

        visit(tree, [])
        path.write_bytes(msgpack_serialize(leaves))
        flat.update(dict.fromkeys(leaves, path.name))

    index = tmp_path / "diffusion_flax_model.msgpack.index.json"
    write_shards(index, write, TENSORS, "{}-0000{}-of-00002.msgpack")
    index.write_text(json.dumps({"weight_map": flat}))
    assert_same(read_tensors(tmp_path), TENSORS)


@pytest.mark.parametrize(
    "name", ["sd15-unet", "sd2-unet", "sd-vae", "sd1-text", "sd2-text", "dit-xl-2-256"]
)
def test_flax_names_of_public_checkpoints(tmp_path, name):
    # Extents of 1 keep the ranks, which is what the rule depends on.
    shapes = {k: s for k, s in key_list(name).items() if "position_ids" not in k}
    tensors = {
        key: np.full((1,) * len(shape), number, np.int32)
        for number, (key, shape) in enumerate(shapes.items())
    }
    stem = "model" if name.endswith("text") else STEM
    file = "flax_model" if stem == "model" else "diffusion_flax_model"
    write_msgpack(
        tmp_path / f"{file}.msgpack", tensors, nested_lists=name.endswith("text")
    )
    assert_same(read_tensors(tmp_path, stem=stem), tensors)


@pytest.mark.parametrize("name", [f"{STEM}.bin", f"{STEM}.pt", "lone.bin", "lone.pt"])
def test_bin(tmp_path, name):
    write_bin(tmp_path / name, TENSORS)
    at = tmp_path if name.startswith(STEM) else tmp_path / name
    assert_same(read_tensors(at), TENSORS)


def test_bin_in_the_format_before_torch_1_6(tmp_path):
    import torch

    state = {"w": torch.arange(6.0).reshape(2, 3).T}
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    with pytest.warns(UserWarning, match=r"no checksums .*cannot be seen"):
        read = read_tensors(tmp_path / "a.bin")
    assert_same(read, {"w": state["w"].numpy()})


def test_files_of_torch_without_checksums(tmp_path):
    import torch

    state = {"w": torch.arange(6.0).reshape(2, 3)}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "a.bin")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.warns(UserWarning, match=r"no checksums .*cannot be seen"):
        read = read_tensors(tmp_path / "a.bin")
    assert_same(read, {"w": state["w"].numpy()})


@pytest.mark.parametrize("suffix", ["bin", "pt"])
def test_numbers_that_do_not_fit_the_checksum_of_torchs_file(tmp_path, suffix):
    import torch

    path = tmp_path / f"a.{suffix}"
    torch.save({"w": torch.arange(1000.0)}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_tensors(path)
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(500).tobytes())] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["w"][500] != 500  # torch does not look
    with pytest.raises(DiffjaxError, match=rf"a\.{suffix} is damaged .*CRC"):
        read_tensors(path)


def test_compressed_files_are_not_torchs(tmp_path):
    import torch

    torch.save({"w": torch.zeros(10**6)}, tmp_path / "whole.bin")
    with (
        zipfile.ZipFile(tmp_path / "whole.bin") as whole,
        zipfile.ZipFile(tmp_path / "a.bin", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(DiffjaxError, match=r"a\.bin is damaged .*compressed"):
        read_tensors(tmp_path / "a.bin")


def test_bin_with_code_is_refused_and_not_run(tmp_path):
    import torch

    trace = tmp_path / "trace"
    torch.save({"w": torch.zeros(2), "evil": Evil(trace)}, tmp_path / "a.bin")
    with pytest.raises(DiffjaxError, match=r"a\.bin was refused.*Nothing in it was"):
        read_tensors(tmp_path / "a.bin")
    assert not trace.exists()
    torch.load(tmp_path / "a.bin", weights_only=False)  # it would have run
    assert trace.exists()


def test_bin_of_something_else(tmp_path):
    import torch

    torch.save({"weights": {"w": torch.zeros(2)}}, tmp_path / "a.bin")
    with pytest.raises(DiffjaxError, match="not a flat table of tensors"):
        read_tensors(tmp_path / "a.bin")
    torch.save({"w": torch.eye(2).to_sparse()}, tmp_path / "b.bin")
    with pytest.raises(DiffjaxError, match="tensor that numpy has no form for"):
        read_tensors(tmp_path / "b.bin")


def test_bin_without_torch(tmp_path, monkeypatch):
    (tmp_path / f"{STEM}.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DiffjaxError, match=r'pip install "diffjax\[torch\]"'):
        read_tensors(tmp_path)


@pytest.mark.parametrize("stem", [STEM, "model"])
def test_order_of_preference(stem):
    flax, torch = {
        STEM: ("diffusion_flax_model", "diffusion_pytorch_model"),
        "model": ("flax_model", "pytorch_model"),
    }[stem]
    shards = [f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    ranked = [
        [f"{stem}.safetensors"],
        [f"{stem}.safetensors.index.json", *shards],
        [f"{flax}.msgpack"],
        [f"{torch}.bin"],
        [f"{torch}.pt"],
        [f"{stem}.fp16.safetensors"],
        [f"{torch}.fp16.bin"],
    ]
    others = ["config.json", "model.ckpt", "README.md", f"{stem}_ema.safetensors"]
    for best in range(len(ranked)):
        names = others + [name for files in reversed(ranked[best:]) for name in files]
        variant = "fp16" if ".fp16." in ranked[best][0] else None
        assert weight_files(names, stem, where="x") == (variant, ranked[best])
    assert weight_sets(others, stem) == {}


# One set of each way in which diffusers and transformers have named variants.
VARIANTS = {
    "single": ["{s}.{v}.safetensors"],
    "sharded": [
        "{s}.safetensors.index.{v}.json",
        "{s}.{v}-00001-of-00002.safetensors",
        "{s}.{v}-00002-of-00002.safetensors",
    ],
    "sharded, as once": [
        "{s}.safetensors.{v}.index.json",
        "{s}-00001-of-00002.{v}.safetensors",
        "{s}-00002-of-00002.{v}.safetensors",
    ],
    "bin": ["{b}.{v}.bin"],
    "sharded bin": [
        "{b}.bin.index.{v}.json",
        "{b}.{v}-00001-of-00002.bin",
        "{b}.{v}-00002-of-00002.bin",
    ],
}
PLAIN = ["{s}.safetensors.index.json", "{s}-00001-of-00001.safetensors"]


@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema", "non_ema", "fp8-e4m3"])
@pytest.mark.parametrize("way", VARIANTS)
@pytest.mark.parametrize("stem", [STEM, "model"])
def test_variants(stem, way, variant):
    bin_stem = "pytorch_model" if stem == "model" else stem

    def named(names, v):
        return [name.format(s=stem, b=bin_stem, v=v) for name in names]

    plain, asked, other = (
        named(PLAIN, ""),
        named(VARIANTS[way], variant),
        named(VARIANTS[way], "other"),
    )
    both = [*plain, *asked, *other, "config.json"]
    assert weight_files(both, stem, where="x", variant=variant) == (variant, asked)
    assert weight_files(both, stem, where="x") == (None, plain)
    assert weight_files(both, stem, where="x", variant="absent") == (None, plain)
    assert weight_files(asked, stem, where="x") == (variant, asked)
    assert weight_files(asked, stem, where="x", variant="absent") == (variant, asked)
    for wanted in (None, "absent"):
        with pytest.raises(DiffjaxError) as caught:
            weight_files([*asked, *other], stem, where="the/unet", variant=wanted)
        for word in ("the/unet", variant, "other", "--variant", "variant="):
            assert word in str(caught.value)


def test_the_only_variant_is_told(tmp_path):
    save_file({"w": np.float16([2])}, tmp_path / f"{STEM}.bf16.safetensors")
    with pytest.warns(UserWarning, match="variant bf16 alone"):
        assert read_tensors(tmp_path)["w"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_tensors(tmp_path, variant="bf16")
    save_file({"w": np.float32([1])}, tmp_path / f"{STEM}.safetensors")
    assert read_tensors(tmp_path)["w"] == 1
    assert read_tensors(tmp_path, variant="bf16")["w"] == 2


def test_read_takes_the_preferred_file(tmp_path):
    save_file({"w": np.float32([1])}, tmp_path / f"{STEM}.safetensors")
    write_bin(tmp_path / f"{STEM}.bin", {"w": np.float32([2])})
    save_file({"w": np.float16([3])}, tmp_path / f"{STEM}.fp16.safetensors")
    for value in (1, 2, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_tensors(tmp_path)["w"] == value
        names = [path.name for path in tmp_path.iterdir()]
        (tmp_path / weight_files(names, STEM, where="x")[1][0]).unlink()


def test_no_weights_says_what_was_looked_for_and_found(tmp_path):
    for found, shown in (
        ([], "no weight file of any name"),
        (["a.ckpt", f"{STEM}_old.safetensors", "x.txt"], "a.ckpt, diffusion_pytorch_"),
    ):
        for name in found:
            (tmp_path / name).touch()
        with pytest.raises(DiffjaxError, match="has no weights") as caught:
            read_tensors(tmp_path, stem="model")
        for word in (
            *("model.safetensors", "flax_model.msgpack", "pytorch_model.bin"),
            f"Found: {shown}",
        ):
            assert word in str(caught.value)
        assert "x.txt" not in str(caught.value)


def test_no_such_file_and_unknown_kind(tmp_path):
    with pytest.raises(DiffjaxError, match="There is no weight file"):
        read_tensors(tmp_path / "absent.safetensors")
    (tmp_path / "model.gguf").write_bytes(b"x")
    with pytest.raises(DiffjaxError, match="cannot read weights of this kind"):
        read_tensors(tmp_path / "model.gguf")


WRITERS = {
    "safetensors": lambda path: save_file(TENSORS, path),
    "msgpack": lambda path: write_msgpack(path, TENSORS),
    "bin": lambda path: write_bin(path, TENSORS),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("keep", [0, 1, 7, 40, 0.5, 0.99])
def test_truncated_files(tmp_path, kind, keep):
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(DiffjaxError, match=rf"a\.{kind}"):
        read_tensors(path)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("seed", range(20))
def test_noise_is_never_a_traceback(tmp_path, kind, seed):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(np.random.default_rng(seed).bytes(200))
    with pytest.raises(DiffjaxError, match=rf"a\.{kind}"):
        read_tensors(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_git_lfs_pointer(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(DiffjaxError, match="git lfs pull"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {"kernel": 3}}, "a/kernel is not an array"),
        ({"a": {"kernel": np.eye(2), "scale": np.ones(2)}}, r"tensor a\.weight"),
        (np.eye(2), "not a table"),
    ],
)
def test_msgpack_of_something_else(tmp_path, tree, message):
    (tmp_path / "a.msgpack").write_bytes(msgpack_serialize(tree))
    with pytest.raises(DiffjaxError, match=message):
        read_tensors(tmp_path / "a.msgpack")


def test_msgpack_nested_without_end(tmp_path):
    (tmp_path / "a.msgpack").write_bytes(b"\x81\xa1a" * 1000 + b"\x01")
    with pytest.raises(DiffjaxError, match="damaged"):
        read_tensors(tmp_path / "a.msgpack")


@pytest.fixture
def sharded(tmp_path):
    index = tmp_path / f"{STEM}.safetensors.index.json"
    return index, write_shards(index, save_file, TENSORS)


def test_missing_shard(sharded):
    index, weight_map = sharded
    name = weight_map["conv_in.bias"]
    (index.parent / name).unlink()
    with pytest.raises(DiffjaxError, match=f"shard {name}, which is missing"):
        read_tensors(index.parent)


def test_index_and_shard_disagree(sharded):
    index, weight_map = sharded
    more = weight_map | {"ghost.weight": weight_map["conv_in.bias"]}
    index.write_text(json.dumps({"weight_map": more}))
    with pytest.raises(DiffjaxError, match=r"disagree about ghost\.weight\."):
        read_tensors(index.parent)
    less = {key: name for key, name in weight_map.items() if key != "conv_in.bias"}
    index.write_text(json.dumps({"weight_map": less}))
    with pytest.raises(DiffjaxError, match=r"disagree about conv_in\.bias\."):
        read_tensors(index.parent)


def test_index_may_not_lead_elsewhere(sharded):
    index, weight_map = sharded
    away = dict.fromkeys(weight_map, "../secret.safetensors")
    index.write_text(json.dumps({"weight_map": away}))
    with pytest.raises(DiffjaxError, match="not a file beside it"):
        read_tensors(index.parent)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}'])
def test_damaged_index(sharded, text):
    index, _ = sharded
    index.write_text(text)
    with pytest.raises(
        DiffjaxError, match=r"index\.json is (no index|not JSON|not a JSON obj)"
    ):
        read_tensors(index.parent)


def test_files_as_diffusers_saves_them(tmp_path):
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=2, layers_per_block=1
    )
    expected = {key: value.numpy() for key, value in model.state_dict().items()}
    for name, options in {
        "one": {},
        "shards": {"max_shard_size": "5KB"},
        "variant": {"variant": "fp16"},
        "variant shards": {"variant": "fp16", "max_shard_size": "5KB"},
        "another variant": {"variant": "non_ema"},
        "bin variant shards": {
            "variant": "ema",
            "safe_serialization": False,
            "max_shard_size": "5KB",
        },
        "bin": {"safe_serialization": False},
        "bin shards": {"safe_serialization": False, "max_shard_size": "5KB"},
    }.items():
        model.save_pretrained(tmp_path / name, **options)
        assert (len(list((tmp_path / name).iterdir())) > 3) == ("shards" in name)
        assert_same(read_tensors(tmp_path / name), expected)
