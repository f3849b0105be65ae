"""Excerpts of compositional sets with their authors' keys, and pictures for them."""

import json
from pathlib import Path

from tiny_sets import picture, save

# ARO's keys are those that its authors' program reads; the others are published entries
RELATIONS = [
    {
        "image_path": f"{2354786 + i % 3}.jpg",
        "bbox_x": 1,
        "bbox_y": 2,
        "bbox_w": 5,
        "bbox_h": 4,
        "true_caption": f"the man {relation} the horse {i}",
        "false_caption": f"the horse {relation} the man {i}",
        "relation_name": relation,
    }
    for i, relation in enumerate(["riding", "riding", "near", "behind"])
]
ATTRIBUTES = [
    {
        "image_path": "2354786.jpg",
        "bbox_x": 0,
        "bbox_y": 0,
        "bbox_w": 6,
        "bbox_h": 8,
        "true_caption": f"the white dog and the brown fence {i}",
        "false_caption": f"the brown dog and the white fence {i}",
        "attributes": ["white", "brown"] if i < 25 else ["white", "open"],
    }
    for i in range(27)
]
SUGAR_CREPE = {
    "swap_obj": {
        "0": {
            "filename": "000000222235.jpg",
            "caption": "A cat sits on its hind legs, and swats at the plant.",
            "negative_caption": "A cat sits on the plant, and swats at its hind legs.",
        }
    },
    "replace_att": {
        "0": {
            "filename": "000000331352.jpg",
            "caption": "A tan toilet and sink combination in a small room.",
            "negative_caption": "A white toilet and sink combination in a small room.",
        }
    },
}
VALSE = {
    "existence": {
        "existence_visual7w_2371044": {
            "dataset": "visual7w",
            "dataset_idx": "2371044",
            "image_file": "v7w_2371044.jpg",
            "linguistic_phenomena": "existence",
            "caption": "There are no people in the picture.",
            "answer": 0,
            "classes": 0,
            "classes_foil": [2, 1, 8],
            "mturk": {"foil": 0, "caption": 3, "other": 0},
            "foil": "There are people in the picture.",
        },
        "not valid": {
            "dataset": "visual7w",
            "image_file": "not here.jpg",
            "linguistic_phenomena": "existence",
            "caption": "There is a dog.",
            "mturk": {"foil": 2, "caption": 1, "other": 0},
            "foil": "There is no dog.",
        },
    },
    "actant-swap": {
        "actions_test_0": {
            "dataset": "SWiG",
            "original_split": "test",
            "dataset_idx": "exercising_255.jpg",
            "linguistic_phenomena": "actions",
            "image_file": "exercising_255.jpg",
            "caption": "A man exercises his torso.",
            "classes": "man",
            "classes_foil": "torso",
            "mturk": {"foil": 0, "caption": 3, "other": 0},
            "foil": "A torso exercises for a man.",
        }
    },
}
ADDRESS = "https://cs-people.bu.edu/array/data/vg_gqa_images"
COLA = [
    [
        f"{ADDRESS}/2390970.jpg",
        "standing tall long giraffe to the right of brown giraffe",
        f"{ADDRESS}/2388902.jpg",
        "brown giraffe behind tall white giraffe",
    ]
]
ORDER = [
    {
        "image": "val2014/COCO_val2014_000000391895.jpg",
        "captions": ["a man with a red helmet", "a helmet with a red man", "man a red"],
    }
]


def _put(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_aro(root: Path) -> Path:
    _put(root / "visual_genome_relation.json", RELATIONS)
    _put(root / "visual_genome_attribution.json", ATTRIBUTES)
    for i in range(3):
        save(root / "images" / f"{2354786 + i}.jpg", picture(i, 9, 8))
    return root


def write_sugar_crepe(root: Path) -> Path:
    """With the images elsewhere: ROOT/val2017."""
    for name, entries in SUGAR_CREPE.items():
        _put(root / "data" / f"{name}.json", entries)
        for entry in entries.values():
            save(root / "val2017" / entry["filename"], picture(len(name)))
    return root


def write_valse(root: Path) -> Path:
    """With images of several sources below one folder."""
    for name, entries in VALSE.items():
        _put(root / "data" / f"{name}.json", entries)
    save(root / "images" / "visual7w" / "v7w_2371044.jpg", picture(1))
    save(root / "images" / "swig" / "512" / "exercising_255.jpg", picture(2))
    return root


def write_cola(root: Path) -> Path:
    _put(root / "data" / "COLA_multiobjects_matching_benchmark.json", COLA)
    for i, name in enumerate(("2390970.jpg", "2388902.jpg")):
        save(root / "images" / name, picture(i))
    return root


def write_order(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(entry) + "\n" for entry in ORDER)
    (root / "coco-order.choices.jsonl").write_text(lines)
    save(root / "images" / ORDER[0]["image"], picture(4))
    return root
