"""How images are made ready, held against transformers' image processors."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import (
    ConvNextImageProcessorPil,
)
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from diffjax.checkpoints.processing import PROCESSORS, processing_of, read_processing
from diffjax.checkpoints.torchvision import (
    PUBLISHED,
    published_file,
    torchvision_processing,
)
from diffjax.errors import DiffjaxError
from diffjax.models.resnet import ResNetForImageClassificationConfig
from diffjax.models.vit import ViTForImageClassificationConfig

THEIRS = {
    "ViT": ViTImageProcessorPil,
    "DeiT": DeiTImageProcessorPil,
    "ConvNext": ConvNextImageProcessorPil,
    "Bit": BitImageProcessorPil,
    "CLIP": CLIPImageProcessorPil,
}
HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# as google/vit-base-patch16-224, another for 384, and microsoft/resnet-101 have them
VIT_224 = {"do_normalize": True, "do_resize": True, "size": 224}
VIT_224 |= {"image_mean": HALF, "image_std": HALF}
VIT_384 = VIT_224 | {"size": 384, "resample": 2}
VIT_384 |= {"feature_extractor_type": "ViTFeatureExtractor"}
RESNET = {"crop_pct": 0.875, "do_normalize": True, "do_resize": True, **IMAGENET}
RESNET |= {"feature_extractor_type": "ConvNextFeatureExtractor"}
RESNET |= {"resample": 3, "size": 224}


@pytest.mark.parametrize(
    ("usual", "given"),
    [
        *((name, {}) for name in PROCESSORS),
        ("ViT", VIT_224),
        ("ViT", VIT_384),
        ("ConvNext", RESNET),
        ("ConvNext", {"size": {"shortest_edge": 31}, "crop_pct": 0.9}),
        ("ConvNext", {"size": {"shortest_edge": 31}, "crop_pct": 1.4}),  # black edges
        ("Bit", {"size": {"shortest_edge": 40}, "crop_size": 61, "do_rescale": False}),
        ("CLIP", {"size": 55, "crop_size": 33, "do_normalize": False}),
    ],
)
def test_pixels_are_those_of_transformers(usual, given):
    theirs = THEIRS[usual](**{k: v for k, v in given.items() if k[-4:] != "type"})
    ours = processing_of(given, usual, "here")
    again = processing_of(json.loads(theirs.to_json_string()), "ViT", "saved by them")
    draw = np.random.default_rng(0)
    for height, width in ((37, 53), (61, 44), (301, 257), (8, 9)):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        wanted = theirs(image, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
        for each in (ours, again):
            np.testing.assert_array_equal(each(image), wanted)
            assert each.resolution == len(wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"shortest_edge": 224}}, "squares of one size"),
        ({"size": {"height": 224, "width": 192}}, "squares of one size"),
        ({"size": {"longest_edge": 224}}, "size_longest_edge=224"),
        ({"size": "224"}, "must be a whole number"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.5, 0.0]}, "image_std"),
        ({"do_pad": True}, "do_pad"),
        ({"resample": 9}, "resample"),
        ({"image_processor_type": "FlavaImageProcessor"}, "image processor 'Flava'"),
    ],
)
def test_what_is_not_implemented_is_refused(tmp_path, change, message):
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(VIT_224 | change))
    with pytest.raises(DiffjaxError, match=message) as told:
        read_processing(tmp_path, "ViT")
    assert str(file) in str(told.value)


def test_published_files_of_torchvision(monkeypatch, tmp_path):
    resnet = ResNetForImageClassificationConfig()
    sides = {
        stem: torchvision_processing(tmp_path / f"{stem}.pth", resnet)
        for stem in PUBLISHED
        if stem.startswith("resnet")
    }
    assert sides["resnet101-63fe2227"].size_shortest_edge == 256
    assert sides["resnet101-cd907fc2"].size_shortest_edge == 232
    large = torchvision_processing(
        tmp_path / "vit_l_32-c7638314.pth", ViTForImageClassificationConfig()
    )
    # 343 pixels, 224 of them: torchvision's crop begins at 60, transformers' at 59
    image = Image.fromarray(np.arange(343 * 256 * 3).reshape(343, 256, 3).astype("u1"))
    wanted = np.asarray(image, np.float64)[60:284, 16:240] / 255 - [0.485, 0.456, 0.406]
    np.testing.assert_allclose(large(image), wanted / [0.229, 0.224, 0.225], atol=1e-5)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet101-63fe2227.pth"
    assert published_file("resnet101") == published_file(file.name) == file
    assert published_file("resnet102") is None
