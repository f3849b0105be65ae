"""The one exception for input that a person can mend."""

import copy
import pickle

import pytest

from diffjax.errors import DiffjaxError, NotFiniteError, unknown


def test_messages_do_not_quote_whole_files():
    text = str(DiffjaxError(f"a.json: the name {'x' * 10**5} is odd.\nFetch it again."))
    assert text == f"a.json: the name {'x' * 200}… is odd.\nFetch it again."
    paths = "\n".join(f"/a/{'b' * 300}/{i}" for i in range(100))  # as they are
    assert str(DiffjaxError(paths)) == paths
    assert len(str(unknown("model", "y" * 10**5, ["a"]))) < 300


@pytest.mark.parametrize("kind", [DiffjaxError, NotFiniteError])
def test_errors_survive_copies(kind):
    error = kind("message")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is kind and str(other) == "message"
