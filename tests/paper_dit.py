"""DiT in torch, written from the paper (Peebles & Xie 2023, section 3 and figure 3).

SiT and REPA are that network: they predict a velocity (Ma et al. 2024, section 3), the
latter with projectors beside it in training (Yu et al. 2024, section 3.2).

Its parameters have the names and shapes of the published files, such as
DiT-XL-2-256x256.pt: one linear map for queries, keys and values, the embedders once,
and a table of positions that is stored though it is not trained.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

XL2 = {"width": 1152, "depth": 28, "heads": 16, "patch": 2}
PARAMETERS_XL2 = 675_129_632  # as the program prints for DiT-XL/2


def positions(width, edge):
    """Sines and cosines: half the features for the column, half for the row."""
    omega = 10000.0 ** -(np.arange(width // 4) / (width // 4))

    def axis(n):
        angle = np.arange(n)[:, None] * omega
        return np.concatenate([np.sin(angle), np.cos(angle)], 1)

    rows = [
        np.concatenate([axis(edge)[column], axis(edge)[row]])
        for row in range(edge)
        for column in range(edge)
    ]
    return torch.tensor(np.array(rows), dtype=torch.float32)[None]


class Timestep(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, t):
        omega = torch.exp(-math.log(10000.0) * torch.arange(128) / 128)
        angle = t[:, None].float() * omega
        return self.mlp(torch.cat([torch.cos(angle), torch.sin(angle)], 1))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        n, length, width = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / math.sqrt(width // self.heads)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, length, width))


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulated(x, shift, scale):
    normal = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return normal * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = MLP(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(
            6, 1
        )
        x = x + gate1[:, None] * self.attn(modulated(x, shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulated(x, shift2, scale2))


class Last(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, c):
        return self.linear(modulated(x, *self.adaLN_modulation(c).chunk(2, 1)))


class Embedded(nn.Module):
    """A module under a name of its own, as ``proj`` or ``embedding_table``."""

    def __init__(self, name, module):
        super().__init__()
        self.add_module(name, module)


class DiT(nn.Module):
    """z [n, 4, h, w], t [n], class ids [n] → [n, 8, h, w]: ε and the variance's v."""

    def __init__(self, edge, classes, *, width, depth, heads, patch, channels=8):
        super().__init__()
        self.patch, self.channels = patch, channels
        self.x_embedder = Embedded("proj", nn.Conv2d(4, width, patch, patch))
        self.t_embedder = Timestep(width)
        self.y_embedder = Embedded("embedding_table", nn.Embedding(classes + 1, width))
        table = positions(width, edge // patch)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.final_layer = Last(width, patch * patch * channels)

    def forward(self, z, t, y):
        n, _, h, w = z.shape
        p = self.patch
        x = self.x_embedder.proj(z).flatten(2).transpose(1, 2) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder.embedding_table(y)
        for block in self.blocks:
            x = block(x, c)
        x = self.final_layer(x, c).reshape(n, h // p, w // p, p, p, self.channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(n, self.channels, h, w)


class SiT(DiT):
    """z, t [n] of [0, 1] where 1 is data, ids → x − ε, half of the output."""

    def forward(self, z, t, y):
        return super().forward(z, t, y)[:, :4]


class REPA(DiT):
    """z, t [n] of [0, 1] where 1 is noise, ids → ε − x; the projectors stand idle."""

    def __init__(self, edge, classes, *, aligned=16, **size):
        super().__init__(edge, classes, channels=4, **size)
        width = size["width"]
        layers = [nn.Linear(width, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU()]
        self.projectors = nn.ModuleList(
            [nn.Sequential(*layers, nn.Linear(32, aligned))]
        )
