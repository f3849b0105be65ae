"""The picture of an explanation: heat maps of the evidence over the image.

The image, then the evidence of all samples together, then band by band, from little
noise to much. Blue speaks for the label, orange for the other; a map is as strong as
its largest values, which the bar below it says.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from diffjax.classify.settings import loss_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffjax.classify.explanation import Band, Explanation

PANEL = 2.1  # inches
STRONGEST = 99  # percentile of the evidence that has the full colour
OPACITY = 0.85  # of the strongest evidence over the image
FOR, AGAINST = "#0072B2", "#D55E00"  # Okabe and Ito's blue and orange
MUTED = "#555555"
UNIT = 1e-3  # of the error differences


def explanation_figure(explanation: "Explanation", n_bands: int) -> "Figure":
    """A row of panels.

    Raises:
        ValueError: if there are fewer samples than bands.
    """
    from matplotlib.figure import Figure

    [whole], bands = explanation.bands(1), explanation.bands(n_bands)
    panels = [whole, *bands] if n_bands > 1 else [whole]
    figure = Figure(
        figsize=(PANEL * (1 + len(panels)), PANEL + 1.25), layout="constrained"
    )
    first, *others = figure.subplots(1, 1 + len(panels))
    first.imshow(_visible(explanation.pixels))
    first.set_title("the image", fontsize=9)
    first.set_axis_off()
    names = ["all timesteps", *(f"t = {band.first} … {band.last}" for band in bands)]
    for axes, band, name in zip(others, panels, names, strict=False):
        _draw(axes, explanation, band, name)
    figure.suptitle(
        f"Evidence for “{explanation.label}” (blue) over “{explanation.other}” "
        "(orange)",
        fontsize=11,
        parse_math=False,
    )
    settings = explanation.settings
    figure.supxlabel(
        f"{settings['model']}, {loss_name(settings)}, {len(explanation.timesteps)} "
        f"samples; error of “{explanation.other}” − error of “{explanation.label}”, in "
        f"all {explanation.difference / UNIT:+.3g} ×10⁻³",
        fontsize=7.5,
        color=MUTED,
        parse_math=False,
    )
    return figure


def overlay(
    pixels: Float[np.ndarray, "H W 3"], evidence: Float[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "H W 3"], float]:
    """The image in grey under the evidence, as RGB in [0, 1], and the full colour's.

    Places of the latent become squares of pixels. Where the evidence is zero the image
    shows.
    """
    strongest = float(np.percentile(np.abs(evidence), STRONGEST))
    height, width = pixels.shape[:2]
    rows = np.arange(height) * evidence.shape[0] // height
    columns = np.arange(width) * evidence.shape[1] // width
    strength = evidence[np.ix_(rows, columns)][..., None]
    share = np.clip(strength / strongest, -1, 1) if strongest > 0 else 0 * strength
    return _mixed(_visible(pixels).mean(axis=-1, keepdims=True), share), strongest


def _mixed(
    grey: Float[np.ndarray, "H W 1"], share: Float[np.ndarray, "H W 1"]
) -> Float[np.ndarray, "H W 3"]:
    """Grey under colour; the share, in [−1, 1], says which and how much."""
    from matplotlib.colors import to_rgb

    colour = np.where(share > 0, to_rgb(FOR), to_rgb(AGAINST))
    opacity = OPACITY * np.abs(share)
    mixed: np.ndarray = (1 - opacity) * grey + opacity * colour
    return mixed


def _draw(axes: "Axes", explanation: "Explanation", band: "Band", name: str) -> None:
    image, strongest = overlay(explanation.pixels, band.evidence)
    axes.imshow(image)
    axes.set_title(name, fontsize=9)
    axes.set(xticks=[], yticks=[])
    if strongest > 0:
        _draw_bar(axes, strongest)
    else:
        axes.set_xlabel("no difference anywhere", fontsize=7, color=MUTED)


def _draw_bar(axes: "Axes", strongest: float) -> None:
    """Which colour stands for how much, below a map."""
    bar = axes.inset_axes((0, -0.1, 1, 0.05))
    share = np.linspace(-1, 1, 201)[None, :, None]
    end = strongest / UNIT
    bar.imshow(_mixed(np.full_like(share, 0.7), share), extent=(-end, end, 0, 1))
    bar.set(aspect="auto", yticks=[], xticks=[-end, 0, end])
    bar.set_xticklabels([f"−{end:.3g}", "0", f"+{end:.3g}"], fontsize=7, color=MUTED)
    bar.tick_params(length=2, pad=1)
    bar.set_xlabel("error difference, ×10⁻³", fontsize=7, color=MUTED, labelpad=1)


def _visible(pixels: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    visible: np.ndarray = np.clip((pixels + 1) / 2, 0, 1)
    return visible
