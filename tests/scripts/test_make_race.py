"""The README's first picture is of a race: its moments have fewer and fewer classes."""

import re

import pytest
from make_race import LABELS, picture


@pytest.mark.slow
def test_the_picture_is_of_a_race():
    _, *moments = picture().axes
    names = [text.get_text() for text in moments[0].get_yticklabels()]
    assert names[0] == "ship" and set(names) == set(LABELS)
    counts = [
        int(re.search(r"(\d+) evaluations", axes.get_title())[1]) for axes in moments
    ]
    assert counts == sorted(set(counts))
    assert "10 of 10 left" in moments[0].get_title()
    assert "“ship” wins" in moments[-1].get_title()
    for axes in moments:
        assert len(axes.patches) == len(LABELS)
