"""The picture of a race is of a race: rows of dropped classes end early."""

import numpy as np
import pytest
from make_picture import LABELS, picture


@pytest.mark.slow
def test_the_picture_is_of_a_race():
    *_, grid, _, bars = picture().axes
    names = [text.get_text() for text in grid.get_yticklabels()]
    assert names[0] == "ship" and set(names) == set(LABELS)
    values = np.ma.masked_invalid(grid.collections[0].get_array())
    unseen = np.ma.getmaskarray(values).reshape(len(LABELS), -1)
    assert not unseen[0].any() and unseen[-1].any()
    assert bars.get_title().endswith("evaluations: ship")
