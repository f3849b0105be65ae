"""Blocks of transformers in which image and text attend to one another.

of the tokens of an image, x, and of those of a text, y, each with weights of its own:
    s₁, γ₁, α₁, s₂, γ₂, α₂ = W silu(c)
    x = x + α₁ attention over (1 + γ₁) norm(x) + s₁ and the same of y together
    x = x + α₃ attention over (1 + γ₃) norm(x) + s₃, of x alone         (where dual)
    x = x + α₂ mlp((1 + γ₂) norm(x) + s₂)

Esser et al. 2024 (MMDiT), of which FLUX is one too. diffusers keeps the text's part of
attention under other names in one ``Attention``; here it has the same ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffjax.models.attention import attend
from diffjax.models.layers import FeedForward, Make

EPSILON = 1e-6
Rotate = Callable[[Array], Array]  # queries or keys [l, d] → as many


class Tokens(NamedTuple):
    """What tokens are like.

    Attributes:
        features: their width.
        heads: of their attention.
        normalised: whether each head's queries and keys are.
    """

    features: int
    heads: int
    normalised: bool


class Projections(nnx.Module):
    """Queries, keys and values of tokens, and the way back."""

    def __init__(self, tokens: Tokens, make: Make, *, back: bool = True) -> None:
        d = tokens.features
        self.heads = tokens.heads
        self.to_q = make.linear(d, d)
        self.to_k = make.linear(d, d)
        self.to_v = make.linear(d, d)
        self.normalised = tokens.normalised
        if self.normalised:
            self.norm_q = make.rms_norm(d // tokens.heads, EPSILON)
            self.norm_k = make.rms_norm(d // tokens.heads, EPSILON)
        if back:
            self.to_out = make.linear(d, d)

    def __call__(self, x: Float[Array, "l d"]) -> tuple[Array, Array, Array]:
        """[l, d] → q, k, v, each [l, d]."""
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        if self.normalised:
            q, k = self._normal(q, self.norm_q), self._normal(k, self.norm_k)
        return q, k, v

    def _normal(self, x: Array, norm: nnx.RMSNorm) -> Array:
        """Each head's part normalised by itself."""
        normal: Array = norm(x.reshape(len(x), self.heads, -1)).reshape(x.shape)
        return normal


class Stream(nnx.Module):
    """What a block does with the tokens of one kind, attention apart."""

    def __init__(self, tokens: Tokens, make: Make, *, dual: bool = False) -> None:
        d = tokens.features
        self.adaln = make.linear(d, (9 if dual else 6) * d)
        self.norm = make.layer_norm(d, EPSILON, affine=False)
        self.attention = Projections(tokens, make)
        self.dual = dual
        if dual:
            self.attention_2 = Projections(tokens, make)
        self.ff = FeedForward(d, "gelu-approximate", make)


class LastText(nnx.Module):
    """The texts in the last block, which only reads them."""

    def __init__(self, tokens: Tokens, make: Make) -> None:
        d = tokens.features
        self.adaln = make.linear(d, 2 * d)
        self.norm = make.layer_norm(d, EPSILON, affine=False)
        self.attention = Projections(tokens, make, back=False)


class JointBlock(nnx.Module):
    """Attention over image and text together, and an MLP for each."""

    def __init__(self, tokens: Tokens, make: Make, *, dual: bool, last: bool) -> None:
        self.image = Stream(tokens, make, dual=dual)
        self.text: Stream | LastText
        self.text = LastText(tokens, make) if last else Stream(tokens, make)

    def __call__(
        self,
        x: Float[Array, "l d"],
        y: Float[Array, "m d"],
        c: Float[Array, " d"],
        rotate: Rotate = lambda tokens: tokens,
    ) -> tuple[Float[Array, "l d"], Float[Array, "m d"]]:
        """Image tokens, text tokens, condition → both kinds of tokens.

        ``rotate`` tells queries and keys, of image and text in this order, where they
        are.
        """
        image, text = self.image, self.text
        c = jax.nn.silu(c)
        parts = jnp.split(image.adaln(c), 9 if image.dual else 6)
        if isinstance(text, LastText):
            scale, shift = jnp.split(text.adaln(c), 2)
        else:
            shift, scale, *of_text = jnp.split(text.adaln(c), 6)
        u = modulated(image.norm(x), parts[0], parts[1])
        of_image = image.attention(u)
        of_both = zip(
            of_image, text.attention(modulated(text.norm(y), shift, scale)), strict=True
        )
        q, k, v = (jnp.concatenate(each) for each in of_both)
        heads = image.attention.heads
        together = attend(rotate(q), rotate(k), v, heads)
        along, shift2, scale2, gate2 = parts[2:6]
        added = along * image.attention.to_out(together[: len(x)])
        if image.dual:
            u = modulated(image.norm(x), parts[6], parts[7])
            alone = attend(*image.attention_2(u), heads)
            added = added + parts[8] * image.attention_2.to_out(alone)
        x = x + added
        x = x + gate2 * image.ff(modulated(image.norm(x), shift2, scale2))
        if isinstance(text, LastText):
            return x, y
        along, shift2, scale2, gate2 = of_text
        y = y + along * text.attention.to_out(together[len(x) :])
        return x, y + gate2 * text.ff(modulated(text.norm(y), shift2, scale2))


def modulated(x: Array, shift: Array, scale: Array) -> Array:
    """Normalised tokens shifted and scaled by the condition."""
    return x * (1 + scale) + shift
