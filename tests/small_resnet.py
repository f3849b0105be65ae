"""The smallest network of the baselines, for tests."""

from flax import nnx

from diffjax.baselines.own import load_classifier, save_classifier
from diffjax.baselines.resnet import ResNet, ResNetConfig

SMALL = ResNetConfig(
    num_classes=3,
    sample_size=8,
    block_out_channels=(4, 8),
    layers_per_block=1,
    norm_num_groups=2,
)
NAMES = ("cat", "dog", "fox")


def small_classifier(folder, seed=0):
    """Written to a folder and read from it."""
    save_classifier(ResNet(SMALL, rngs=nnx.Rngs(seed)), NAMES, folder)
    return load_classifier(folder)
