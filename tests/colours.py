"""How well colours stand out from one another, as WCAG 2 defines it."""

import numpy as np


def contrast(one, other):
    """Of two colours with parts in [0, 1]: between 1 and 21."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = np.asarray(colour)
    curved = ((parts + 0.055) / 1.055) ** 2.4
    return np.where(parts <= 0.04045, parts / 12.92, curved) @ [0.2126, 0.7152, 0.0722]
