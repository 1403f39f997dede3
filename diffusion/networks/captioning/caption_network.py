"""CoCa: an image tower and a decoder that writes a picture's caption (Yu et al. 2022)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_shares
from diffusion.networks.base import ImageTower
from diffusion.networks.captioning.decoder import Decoder
from diffusion.networks.captioning.speaker import Speaker
from diffusion.networks.captioning.vocabulary import END, Vocabulary
from diffusion.networks.towers import LARGEST


class CaptionNetwork(Speaker):
    """p(y_l | y_1 … y_{l−1}, x) of the tokens of captions, and f(x), g(y) of unit length.

    The decoder's first half reads the text alone, its second half the picture's states too (section
    3.2). g is of the first half's state behind the last token that is read; CoCa appends a token
    for that. f is the tower's own vector, and the states are those it is pooled from; CoCa pools
    both by attention. The matrix of the embedding is also that of the logits.

    Args:
        image: The tower, which is trained along, or a `TrainedTower`.
        width: Of the decoder.
        depth: Blocks of its first half.
        looks: Blocks of its second half.
        heads: Of its attention.
        length: L, the most tokens of a caption; see `Vocabulary`.
        rows: The most tokens that there are.
        dropout: Probability with which training leaves a number of an embedded token out, and of
            a state of the picture.
        unread: Probability with which training leaves a token unread, so that what comes next has
            to be seen in the picture.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        image: ImageTower,
        width: int = 128,
        depth: int = 2,
        looks: int = 2,
        heads: int = 4,
        length: int = 48,
        rows: int = 2048,
        dropout: float = 0.1,
        unread: float = 0.0,
    ) -> None:
        super().__init__()
        check_shares("network", dropout=dropout, unread=unread)
        self.image, self.width, self.unread = image, image.out_channels, unread
        self.vocabulary = Vocabulary(rows, length)
        self.embedding = nn.Embedding(rows, width)
        self.position = nn.Parameter(0.01 * torch.randn(length, width))
        self.decoder = Decoder(width, depth, looks, heads)
        self.states = nn.Sequential(
            nn.LayerNorm(image.state_width), nn.Linear(image.state_width, width)
        )
        self.text_out = nn.Linear(width, self.width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.embedding.weight, std=0.02)

    @property
    def scale(self) -> Tensor:
        """e^λ, the inverse temperature of the contrastive loss, shape ()."""
        return self.log_scale.clamp(max=math.log(LARGEST)).exp()

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f (B, D) in float32, and the states (B, N, width) that the decoder looks at.

        Args:
            x: Pictures (B, C, H, W) in [−1, 1].
        """
        t = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        vector, states = self.image.look(x, t)
        return F.normalize(vector.float(), dim=1), self.dropout(self.states(states))

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the logits of all tokens (B, N, K), f (B, D), and g (B, D).

        Args:
            x: Pictures (B, C, H, W).
            tokens: Those of their captions, see `Vocabulary.read`, (B, N).
        """
        f, states = self.look(x)
        given = F.pad(tokens.clamp(min=END), (1, 0), value=END)[:, :-1]
        if self.training and self.unread:
            given = given.masked_fill(torch.rand_like(given, dtype=f.dtype) < self.unread, END)
        text, seen = self.decode(given, states)
        last = (tokens >= 0).sum(1) - 1
        g = self.text_out(text[torch.arange(len(tokens), device=tokens.device), last])
        return self.logits(seen), f, F.normalize(g.float(), dim=1)
