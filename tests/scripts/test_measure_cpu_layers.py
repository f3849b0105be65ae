"""The script that times layers on CPUs: what it times is one and the same layer."""

import numpy as np
import pytest
from measure_cpu_layers import LAYERS, Attention, Convolution, contestants


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("others", [None, 5])
def test_attention(batch, others):
    runs, _ = contestants(Attention(17, 2, 8, others), batch)
    found = {name: np.asarray(run()) for name, run in runs.items()}
    assert set(found) == {"xla", "other", "torch"}
    for values in found.values():
        same = values.reshape(batch, 17, 16)
        np.testing.assert_allclose(same, found["torch"], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_convolution(batch):
    runs, _ = contestants(Convolution(6, 5, 7), batch)
    found = {name: np.asarray(run()) for name, run in runs.items()}
    assert len(found) == 4
    for name, values in found.items():
        last = np.moveaxis(values, 1, -1) if "torch" in name else values
        same = last.reshape(batch, 6, 6, 7)
        np.testing.assert_allclose(same, found["xla"].reshape(same.shape), atol=1e-4)


def test_what_is_chosen_has_the_star():
    assert contestants(LAYERS["attention 1024², 10 × 64 (SD 2)"], 1)[1] == "other"
    assert contestants(Attention(16, 2, 8), 1)[1] == "xla"
    assert contestants(Convolution(8, 512, 4), 1)[1] == "other"
    assert contestants(Convolution(32, 512, 4), 1)[1] == "xla"
