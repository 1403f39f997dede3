"""A small swapper of persons who are colours, with looks that are places of a dark square."""

from functools import partial

import torch
from torch import nn

from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.data.sets import Memory
from diffusion.networks import ProjectedDiscriminator, SwapGenerator
from diffusion.systems.frozen import FrozenIdentity
from diffusion.systems.swapping.swapper import Swapper

PERSONS, LOOKS, SIDE = 6, 4, 16


def drawn(person, look):
    """A person's colour, with a square at the look's place, uint8 (3, 16, 16)."""
    random = torch.Generator().manual_seed(person)
    picture = torch.randint(90, 230, (3, 1, 1), generator=random).expand(3, SIDE, SIDE).clone()
    y, x = 2 + 7 * (look // 2), 2 + 7 * (look % 2)
    picture[:, y : y + 5, x : x + 5] = 10
    return picture.byte()


class Colours(Identities):
    """Four persons to train on, and two others."""

    shape = (3, SIDE, SIDE)

    def setup(self, stage):
        if self.is_set_up:
            return
        shown = [(p, k) for p in range(PERSONS) for k in range(LOOKS)]
        pictures = Memory(torch.stack([drawn(*one) for one in shown]))
        persons = torch.tensor([p for p, _ in shown])
        self.train_set = WithAnother(pictures, persons, range(16))
        self.val_set = self.test_set = WithAnother(pictures, persons, range(16, 24))

    def swapped(self, split, sources, targets):
        """See `Identities`."""
        rows = self.split(split).rows
        pairs = [(rows[i] // LOOKS, rows[j] % LOOKS) for i, j in zip(sources, targets)]
        return self.normalize(torch.stack([drawn(*pair) for pair in pairs]))


class Means(nn.Module):
    """The mean of each channel, mixed by a fixed matrix: tells colours apart."""

    def __init__(self, width, seed):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.mix = nn.Parameter(torch.randn(width, 3, generator=random))

    def forward(self, x, t):
        return x.mean((2, 3)) @ self.mix.T


def encoder(width=8, seed=0):
    return FrozenIdentity(Means(width, seed), width, (3, SIDE, SIDE))


def swapper(**options):
    network = SwapGenerator(SIDE, 3, 8, (4, 6, 8, 8), 1)
    critic = ProjectedDiscriminator(32, 4)
    options = {"optimizer": partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99)), **options}
    return Swapper(network, encoder(), encoder(7, 1), critic, **options)
