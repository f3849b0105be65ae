"""Names that settings choose from, and what is chosen by default, each said once.

Nothing is imported here: the command line reads it before anything else. What a name
does stands where it is done.
"""

DTYPES = ("auto", "float32", "bfloat16", "float16")  # of a denoiser
LOSSES = ("l2", "l1", "huber", "vlb", "l2+vlb")
SPACES = ("noise", "data", "velocity")  # in which errors are measured
DEGREES = {"l2": 2, "l1": 1}  # of k times an error, k to this power is the loss's
MERGES = ("compete", "mean")  # of a class's prompts
DEVICES = ("local", "global")
SHARD_WEIGHTS = ("auto", "always", "never")
TRANSFORMS = ("resize_crop", "adm")  # of an image to a square
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
FILTERS = ("size", "aesthetic", "unsafe")  # of a training set
AESTHETIC_HEADS = ("mlp", "linear")

N_SAMPLES = 250  # that a class sees at most, or in all
STRATEGY = f"racing:n_samples={N_SAMPLES}:confidence=0.9"
# the paper's stages for so many classes: how many are kept, and how many samples they
# have seen by then; for CIFAR-10, Food-101 and ImageNet
STAGES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    10: ((5, 1), (50, 500)),
    100: ((20, 10, 5, 1), (20, 50, 100, 500)),
    1000: ((500, 50, 10, 1), (50, 100, 500, 1000)),
}
TEMPERATURE = 1e-3  # of scores, in units of the error
MAX_SEED = 2**32 - 1
