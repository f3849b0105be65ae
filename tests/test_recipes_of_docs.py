"""The recipes run as they are printed, with the embedded models for the large ones."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import blocks, commands_of, invoke
from contrastive_models import GOLDEN, write_open_clip
from PIL import Image
from tfds_writer import write_arrays

from diffjax.data.presets import ASSETS
from diffjax.files import read_json, read_lines
from diffjax.runs.folder import read_run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = {
    part.partition("\n")[0]: part
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
}
INSTEAD = {
    **{"sd-2-base": "tiny", "sd-3.5-medium": "tiny", "food101": "cifar10"},
    **{"clip:ViT-L-14": "clip:my-clip", "clip:ViT-L-14:k=3": "clip:my-clip:k=3"},
}
# for which tiny is no stand-in
OF_SD3 = {"--shift", "--text-encoder-3", "--resolution"}

pytestmark = pytest.mark.slow  # of seven evaluations


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a CIFAR-10 of nine images, and a U-Net that somebody has tuned.

    Six images are easy; three are there again, labelled as cats.
    """
    folder = tmp_path_factory.mktemp("recipes")
    names = [name for name in read_lines(ASSETS / "classnames" / "cifar10.txt") if name]
    files = sorted((ASSETS / "images").glob("0*.png"))
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    labels = [names.index(file.stem.partition("_")[2]) for file in files]
    images += images[:3]
    labels += 3 * [names.index("cat")]
    write_arrays(
        {"test": (np.stack(images), np.array(labels))},
        folder / "data",
        dataset="cifar10",
        version="3.0.2",
        class_names=names,
    )
    shutil.copytree(ASSETS / "tiny" / "unet", folder / "my-unet")
    return folder


def run(section):
    for arguments in commands_of(section):
        if OF_SD3 & set(arguments):
            continue  # read alone, by tests/test_documentation.py
        result = invoke(*(INSTEAD.get(word, word) for word in arguments))
        assert result.exit_code == 0, (arguments, result.output)


def test_a_fine_tuned_model(place, monkeypatch):
    monkeypatch.chdir(place)
    run(SECTIONS["Evaluate my fine-tuned Stable Diffusion"])
    base, tuned = (read_run(f"runs/{name}").rows for name in ("base", "tuned"))
    assert len(base) == 9 and base["prediction"].equals(tuned["prediction"])
    assert "not distinguishable" in Path("report.html").read_text(encoding="utf-8")


def test_clip_beside_and_before(place, monkeypatch):
    monkeypatch.chdir(place)
    shapes = read_json(GOLDEN)["vit"]["shapes"]
    write_open_clip(Path("my-clip"), "vit", shapes)
    run(SECTIONS["Compare with CLIP"])
    left = read_run("runs/both").rows["candidates"].to_pylist()
    assert {len(each) for each in left} == {3}
    assert len(read_run("runs/clip").good) == 9


def test_spaces_and_weights(place, monkeypatch):
    monkeypatch.chdir(place)
    run(SECTIONS["Why is my SD3 bad"])
    assert Path("runs/all/timestep.png").exists()


def test_a_denoiser_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(SECTIONS["Bring your own denoiser"], "python")
    exec(code, {})
    assert "20 images, 100.0 % right" in capsys.readouterr().out
    assert invoke("report", "runs/mine").exit_code == 0


def test_python_of_other_pages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, *_ = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    names = {}
    exec(code, names)
    assert names["record"].label == "ship" and names["records"][1].label == "frog"
    (code,) = blocks((ROOT / "docs" / "models.md").read_text("utf-8"), "python")
    exec(code, {})
    assert capsys.readouterr().out == "bob\n"
