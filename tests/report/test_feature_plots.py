"""The figure of heads by layer and timestep."""

from diffjax.report.feature_plots import features_figure


def row(layer, timestep, head, accuracy):
    interval = (accuracy - 0.02, accuracy + 0.03)
    return {
        "layer": layer,
        "timestep": timestep,
        "head": head,
        "accuracy": accuracy,
        "interval": interval,
    }


def test_a_line_for_each_layer_and_head_with_the_classifier_beside():
    """Not every head need be on every layer and timestep."""
    rows = [
        row("mid_block", 300, "linear", 0.5),
        row("mid_block", 10, "linear", 0.4),
        row("up_blocks.0", 10, "linear", 0.45),
        row("mid_block", 100, "resnet", 0.6),
    ]
    beside = {"accuracy": 0.7, "interval": (0.65, 0.75)}
    figure = features_figure(rows, "a title", 0.1, beside)
    [axes] = figure.axes
    drawn = {line.get_label(): line for line in axes.containers}
    assert list(drawn) == [
        "mid_block, linear",
        "up_blocks.0, linear",
        "mid_block, resnet",
    ]
    line, _, bars = drawn["mid_block, linear"]
    assert line.get_ydata().tolist() == [0.4, 0.5]  # by timestep
    (low, high) = bars[0].get_segments()[0][:, 1]
    assert (round(low, 9), round(high, 9)) == (0.38, 0.43)
    assert any(set(line.get_ydata()) == {0.7} for line in axes.lines)
    alone = features_figure(rows[3:], "a title", 0.1)
    assert [each.get_label() for each in alone.axes[0].containers] == ["mid_block"]
