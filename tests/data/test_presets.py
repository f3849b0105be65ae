"""The presets, and the prompt files and class lists that they name."""

import runpy
import warnings
from pathlib import Path

import pytest

from diffjax.data.classes import read_classes
from diffjax.data.presets import ASSETS, PRESETS, classes_file, prompts_file
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.strategies import parse_strategy
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_prompts.py"

# The paper's settings: classes, to_keep, n_samples, loss, evaluations of an image.
PAPER = {
    "food101": (101, (20, 10, 5, 1), (20, 50, 100, 500), "l2", 5_570),
    "cifar10": (10, (5, 1), (50, 500), "l1", 2_750),
    "aircraft": (100, (20, 10, 5, 1), (20, 50, 100, 500), "l2", 5_550),
    "pets": (37, (5, 1), (25, 250), "l1", 2_050),
    "flowers102": (102, (20, 10, 5, 1), (20, 50, 100, 500), "l1", 5_590),
    "stl10": (10, (5, 1), (100, 500), "l1", 3_000),
    "imagenet": (1000, (500, 50, 10, 1), (50, 100, 500, 1000), "l2", 124_500),
    "objectnet": (113, (25, 10, 5, 1), (50, 100, 500, 1000), "l2", 14_400),
}
OURS = {
    "cifar100": (100, "food101"),
    "mnist": (10, "cifar10"),
    "fashion_mnist": (10, "cifar10"),
    "caltech101": (102, "food101"),
    "imagenet_v2": (1000, "imagenet"),
    "imagenet_a": (200, "imagenet"),
    "imagenet_r": (200, "imagenet"),
    "imagenet_sketch": (1000, "imagenet"),
}
# Prompt files and their numbers of classes.
N_CLASSES = {name: PAPER[name][0] for name in PAPER} | {
    name: OURS[name][0] for name in OURS if not name.startswith("imagenet_")
}


def prompts_of(name):
    """The prompts in a file of the package; only ImageNet's may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error" if name != "imagenet" else "ignore")
        return Prompts.read_csv(prompts_file(name))


def candidates(preset):
    prompts = prompts_of(preset.prompts)
    if preset.classes is None:
        return prompts
    n_classes = len(prompts.class_names)
    return prompts.restricted(read_classes(classes_file(preset.classes), n_classes))


# Presets


def test_the_presets_are_the_papers_and_ours():
    assert list(PRESETS) == [*PAPER, *OURS]
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name):
    n_classes, to_keep, n_samples, loss, evaluations = PAPER[name]
    preset = PRESETS[name]
    strategy = parse_strategy(preset.paper)
    assert strategy == Staged(to_keep=to_keep, n_samples=n_samples, order="official")
    assert preset.loss == loss
    assert parse_strategy(preset.strategy) == Racing(n_samples=n_samples[-1])
    assert preset.classes is None
    assert preset.per_class == (2 if name == "imagenet" else None)
    n_prompts = len(candidates(preset).prompts)
    assert n_prompts == n_classes
    assert strategy.remaining(strategy.start(n_prompts, 1000)) == evaluations


@pytest.mark.parametrize("name", OURS)
def test_our_settings_are_the_papers_for_as_many_classes(name):
    n_classes, like = OURS[name]
    preset, model = PRESETS[name], PRESETS[like]
    assert (preset.stages, preset.loss) == (model.stages, model.loss)
    assert preset.per_class is None
    assert "our choice" in preset.note
    assert len(candidates(preset).class_names) == n_classes


def test_unknown_files_are_refused_with_the_known_ones():
    with pytest.raises(DiffjaxError, match=r"prompts file 'food'; .* food101"):
        prompts_file("food")
    with pytest.raises(DiffjaxError, match=r"class list 'x'; .* imagenet_a, imagenet_"):
        classes_file("x")


# Prompt files


def test_every_prompt_file_has_its_preset_and_names():
    used = {preset.prompts for preset in PRESETS.values()}
    assert {path.stem for path in (ASSETS / "prompts").glob("*.csv")} == used
    assert {path.stem for path in (ASSETS / "classnames").iterdir()} == used


@pytest.mark.parametrize("name", N_CLASSES)
def test_prompt_files_hold_one_prompt_a_class(name):
    prompts = prompts_of(name)
    assert prompts.classidx == tuple(range(N_CLASSES[name]))
    for prompt, class_name in zip(prompts.prompts, prompts.class_names, strict=True):
        assert class_name == class_name.strip() and "_" not in class_name
        assert prompt.startswith("a ") and prompt.endswith(".")
        assert class_name in prompt and "  " not in prompt and "{" not in prompt


def test_imagenet_has_two_pairs_of_one_name():
    with pytest.warns(UserWarning) as caught:
        prompts = Prompts.read_csv(prompts_file("imagenet"))
    messages = sorted(str(warning.message).partition(": ")[2] for warning in caught)
    assert messages == [
        "classes share a name: 'missile', 'sunglasses'.",
        "classes share a prompt: 'a photo of a missile.', 'a photo of a sunglasses.'.",
    ]
    names = prompts.class_names
    assert names[657] == names[744] == "missile"
    assert names[836] == names[837] == "sunglasses"


def test_the_script_makes_these_files(tmp_path):
    runpy.run_path(str(SCRIPT))["main"](tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    here = {p.name: p.read_bytes() for p in (ASSETS / "prompts").glob("*.csv")}
    assert made == here


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("food101", "a photo of apple pie, a type of food."),
        ("cifar10", "a blurry photo of a airplane."),
        ("aircraft", "a photo of a 707-320, a type of aircraft."),
        ("pets", "a photo of a Abyssinian cat, a type of pet."),
        ("flowers102", "a photo of a pink primrose, a type of flower."),
        ("stl10", "a photo of a airplane."),
        ("imagenet", "a photo of a tench."),
        ("objectnet", "a photo of a alarm clock."),
        ("cifar100", "a blurry photo of a apple."),
        ("mnist", "a photo of the number: '0'."),
        ("fashion_mnist", "a photo of a T-shirt."),
        ("caltech101", "a photo of a accordion."),
    ],
)
def test_first_prompts(name, prompt):
    assert prompts_of(name).prompts[0] == prompt


# The order of the classes: label numbers must mean the same in data and prompts.

# catalogue's name: ours, where more than case, underscores and hyphens differ
REWORDED = {
    "fashion_mnist": {"t shirt/top": "t shirt", "trouser": "pair of trousers"},
    "flowers102": {
        "pink yellow dahlia?": "pink and yellow dahlia",
        "ball moss": "air plant",
    },
    "caltech101": {
        "airplanes": "airplane",
        "background google": "background",
        "car side": "side of a car",
        "cougar body": "body of a cougar cat",
        "cougar face": "face of a cougar cat",
        "crocodile head": "head of a crocodile",
        "faces": "off center face",
        "faces easy": "centered face",
        "flamingo head": "head of a flamingo",
        "leopards": "leopard",
        "motorbikes": "motorbike",
        "snoopy": "snoopy (cartoon beagle)",
        "water lilly": "water lily",
        "yin yang": "yin and yang symbol",
    },
}


def plain(name):
    return name.lower().replace("_", " ").replace("-", " ")


def catalogue(dataset, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    return tfds.builder(dataset, data_dir=tmp_path).info.features["label"].names


@pytest.mark.parametrize(
    "name", ["food101", "pets", "flowers102", "mnist", "fashion_mnist", "caltech101"]
)
def test_the_order_is_the_catalogues(name, tmp_path):
    theirs = [plain(n) for n in catalogue(PRESETS[name].dataset, tmp_path)]
    ours = [plain(n) for n in prompts_of(name).class_names]
    if name == "pets":
        ours = [n.removesuffix(" cat").removesuffix(" dog") for n in ours]
    reworded = REWORDED.get(name, {})
    assert set(reworded) <= set(theirs)
    assert [reworded.get(n, n) for n in theirs] == ours


# Their catalogue entries learn the names from the archives, which have them sorted:
# batches.meta, fine_label_names.txt, class_names.txt, variants.txt.
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "aircraft"])
def test_the_order_is_sorted(name):
    names = prompts_of(name).class_names
    assert list(names) == sorted(set(names))


def test_imagenet_is_in_the_order_of_wordnet_ids(tmp_path):
    ids = catalogue("imagenet2012", tmp_path)
    assert ids == sorted(ids)
    names = dict(zip(ids, prompts_of("imagenet").class_names, strict=True))
    known = {
        "n01440764": "tench",
        "n02012849": "crane bird",
        "n03126707": "construction crane",
        "n02504458": "African bush elephant",
        "n04254120": "soap dispenser",
        "n07753592": "banana",
        "n15075141": "toilet paper",
    }
    assert {key: names[key] for key in known} == known
    for variant in ("imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch"):
        assert catalogue(PRESETS[variant].dataset, tmp_path) == ids


def test_objectnet_is_in_the_order_of_its_folders():
    names = prompts_of("objectnet").class_names
    assert len(set(names)) == 113
    folders = {  # the folders whose names differ from the labels
        "bath towel": "full_sized_towel",
        "binder (closed)": "binder_closed",
        "butcher's knife": "butchers_knife",
        "coffee/french press": "coffee_french_press",
        "dishrag or hand towel": "hand_towel_or_rag",
        "dress shoe (men)": "dress_shoe_men",
        "drying rack for plates": "drying_rack_for_dishes",
        "iron (for clothes)": "iron_for_clothes",
        "laptop (open)": "laptop_open",
        "mixing / salad bowl": "mixing_salad_bowl",
        "nail (fastener)": "nail_fastener",
        "weight (exercise)": "weight_exercise",
    }
    ordered = [folders.get(name, name.replace(" ", "_")) for name in names]
    assert ordered == sorted(ordered)


# Class lists


def test_class_lists_name_the_right_classes():
    names = prompts_of("imagenet").class_names
    a, r = (
        {names[i] for i in read_classes(classes_file(f"imagenet_{which}"), 1000)}
        for which in "ar"
    )
    assert {"stingray", "goldfinch", "acorn"} <= a & r
    assert {"goldfish", "great white shark", "pizza"} <= r - a
    assert {"African bush elephant", "corn", "cherimoya (custard apple)"} <= a - r
    assert "tench" not in a | r
