"""Options about devices and processes, without any of either."""

import pytest
from click.testing import CliRunner

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.cli.commands import group
from diffjax.evaluation.provenance import settings_of


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("classify cat.jpg --labels a,b --coordinator h:1", "give --global-mesh"),
        ("classify cat.jpg --labels a,b --process-index 1", "give --global-mesh"),
        ("evaluate cifar10 --distributed --process-index 1", "one or the other"),
        ("evaluate cifar10 --distributed", "no TPU pod"),
        (
            "classify cat.jpg --labels a,b --global-mesh --coordinator h:1",
            "Give --process-index",
        ),
    ],
)
def test_what_does_not_fit_is_refused(command, message, monkeypatch):
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:9")
    result = CliRunner().invoke(group, command.split())
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_run_goes_on_on_other_devices():
    def known(**kwargs):
        bare = object.__new__(DiffusionClassifier)  # has no model
        bare.settings, bare.resolution = Settings(**kwargs), 32
        bare.transform, bare.calibration = "adm", {}
        return settings_of(bare)

    assert known() == known(shard_weights="always", devices="global", cells=7)
    assert known() != known(seed=1)
