"""``diffjax sample``, and what is trained on what it drew."""

import json

import pytest
from commands import assert_only_refused, assert_refused, invoke
from PIL import Image

LABELS = "class 1,class 7"
SMALL = ("--steps", "2", "--batch", "2")


@pytest.fixture(scope="module")
def drawn(folder):
    """Two of each of two classes, and what the command says of them."""
    out = folder / "drawn"
    result = invoke(
        *("sample", "--model", folder / "dit", "--labels", LABELS, *SMALL),
        *("--per-class", "2", "--out", out, "--sheet", folder / "sheet.png", "--json"),
    )
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_images_a_sheet_and_json(folder, drawn):
    out, told = drawn
    assert told["images"] == 4 and told["evaluations_per_image"] == 4
    assert told["guidance"] == 4.0 and told["sampling"]["method"] == "DDIM"
    images = sorted(out.rglob("*.png"))
    assert [image.parent.name for image in images] == [
        *["class 1"] * 2,
        *["class 7"] * 2,
    ]
    assert Image.open(images[0]).size == (16, 16)
    assert Image.open(folder / "sheet.png").height > 2 * 64


def test_a_dry_run_draws_nothing(folder, drawn):
    out, _ = drawn
    asked = ("sample", "--model", folder / "dit", "--labels", LABELS, *SMALL)
    before = sorted(out.rglob("*"))
    more = invoke(*asked, "--per-class", "3", "--out", out, "--dry-run", "--json")
    told = json.loads(more.stdout)
    assert (told["images"], told["done"]) == (6, 4)
    assert told["seconds"] == pytest.approx(2 * told["seconds_per_image"])
    new = invoke(*asked, "--out", folder / "new", "--dry-run")
    assert "2 of DDIM, guidance 4" in new.stdout
    assert sorted(out.rglob("*")) == before and not (folder / "new").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("pets", "--labels", "cat,dog"), "exclude each other"),
        (("pets", "--template", "a {}"), "--template is of --labels"),
        ((), "name a preset, or give labels"),
        (("pest",), "preset 'pest'"),
        (("--labels", "cat", "--guidance", "-1"), "it must be 0 or above"),
        (("--labels", "cat", "--steps", "2000"), "2000 steps of 1000 timesteps"),
        (("--labels", "cat", "--sheet", "sheet.pdf"), "A sheet is a .png"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, asked, message):
    out = folder / "none"
    model = ("--model", folder / "sd", "--out", out)
    assert_refused(invoke("sample", *asked, *model), message)
    assert not out.exists()


def test_another_drawing_does_not_go_on(folder, drawn):
    out, _ = drawn
    asked = ("sample", "--model", folder / "dit", "--labels", LABELS, "--out", out)
    assert_only_refused(invoke(*asked, "--seed", "1", "-q"), "seed: 0 → 1", "steps: 2")
