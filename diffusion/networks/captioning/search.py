"""How a caption is chosen: token by token, by chance or as the likeliest of several beams."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.networks.captioning.decoder import Past
from diffusion.networks.captioning.speaker import Speaker
from diffusion.networks.captioning.vocabulary import END

EVERY = 8  # tokens, after which it is asked which captions have ended
Found = tuple[Tensor, Tensor]


class Search(ABC):
    """From the states of pictures to their captions.

    Args:
        spell: Whether words may be spelled in bytes; if not, all but the first are whole words of
            training captions.
    """

    def __init__(self, spell: bool = True) -> None:
        self.spell = spell

    def next_log_p(self, network: Speaker, token: Tensor, states: Tensor, past: Past) -> Tensor:
        """Returns log p of what follows a token (B, 1) and those before it, (B, K).

        What may not follow has −∞; the others keep their log p.
        """
        _, seen = network.decode(token, states, past)
        log_p = network.logits(seen[:, -1]).log_softmax(1)
        if self.spell or past[0][0].shape[2] == 1:  # a text may begin with any letter
            return log_p
        return log_p.masked_fill(network.vocabulary.spelling(log_p.device), -torch.inf)

    @abstractmethod
    def __call__(self, network: Speaker, states: Tensor, uniform: Callable[[], Tensor]) -> Found:
        """Returns tokens (B, N), N at most L, and log p of each caption, (B,) in float32.

        Behind an end there are only ends, which count for nothing.

        Args:
            network: In evaluation.
            states: Of B pictures or prompts, which the network's `look` returns.
            uniform: Draws a number in [0, 1) for each, (B,).
        """


class Sampling(Search):
    """Draws each token from p^(1/temperature), cut to its head (Holtzman et al. 2020).

    The head are the likeliest tokens that together have a probability of `top_p` or more, as few
    as do. log p is that of the uncut model at temperature 1.

    Args:
        temperature: Above 0.
        top_p: In (0, 1]; 1 cuts nothing.
        spell: See `Search`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, temperature: float = 1.0, top_p: float = 0.9, spell: bool = True) -> None:
        super().__init__(spell)
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature: {temperature}; expected more than 0")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p: {top_p}; expected 0 < top_p ≤ 1")
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, network: Speaker, states: Tensor, uniform: Callable[[], Tensor]) -> Found:
        """See `Search`."""
        return one_by_one(
            self, network, states, lambda log_p, rows: self.drawn(log_p, uniform()[rows])
        )

    def drawn(self, logits: Tensor, u: Tensor) -> Tensor:
        """Returns the tokens (B,) at the shares u (B,) of the heads of logits (B, K)."""
        p, order = (logits / self.temperature).softmax(1).sort(dim=1, descending=True, stable=True)
        before = p.cumsum(1) - p
        head = torch.where(before < self.top_p, p, 0.0).cumsum(1)
        place = (head <= u[:, None].to(head) * head[:, -1:]).sum(1, keepdim=True)
        return order.gather(1, place.clamp(max=p.shape[1] - 1))[:, 0]


class Beam(Search):
    """The likeliest caption that a beam finds; a width of 1 is greedy.

    After each token the `width` likeliest beginnings stay. As the greedy caption may fall out of
    the beam, it is compared in the end: a wider beam's is never less likely.

    Args:
        width: How many beginnings are followed.
        spell: See `Search`.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, width: int = 1, spell: bool = True) -> None:
        super().__init__(spell)
        check_counts("search", width=width)
        self.width = width

    def __call__(self, network: Speaker, states: Tensor, uniform: Callable[[], Tensor]) -> Found:
        """See `Search`; nothing is drawn."""
        greedy = one_by_one(self, network, states, lambda log_p, _: log_p.argmax(1))
        if self.width == 1:
            return greedy
        tokens, total = self._followed(network, states)
        width = max(tokens.shape[1], greedy[0].shape[1])
        both = [torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in (greedy[0], tokens)]
        better = total > greedy[1]
        return torch.where(better[:, None], both[1], both[0]), torch.where(better, total, greedy[1])

    def _followed(self, network: Speaker, states: Tensor) -> Found:
        B, W = len(states), self.width
        first = torch.arange(B, device=states.device)[:, None] * W  # the first beam of each
        states, past = states.repeat_interleave(W, 0), network.decoder.past()
        token = torch.full((B * W, 1), END, device=states.device)
        tokens, ended = token[:, :0], torch.zeros(B * W, dtype=torch.bool, device=states.device)
        total = torch.full((B, W), -torch.inf, device=states.device)
        total[:, 0] = 0  # all beams are alike at first: one of them counts
        for i in range(network.vocabulary.length):
            log_p = self.next_log_p(network, token, states, past)
            log_p = log_p.masked_fill(ended[:, None], -torch.inf)
            log_p[:, END].masked_fill_(ended, 0.0)
            scores = total.view(-1, 1) + log_p
            total, place = scores.view(B, -1).topk(W, 1)
            beam = (first + place // scores.shape[1]).flatten()
            token = (place % scores.shape[1]).view(-1, 1)
            tokens, ended = torch.cat([tokens[beam], token], 1), ended[beam] | (token[:, 0] == END)
            for layer in past:
                layer[:] = [x[beam] for x in layer]
            if i % EVERY == EVERY - 1 and bool(ended.all()):
                break
        best = total.argmax(1)
        return tokens[first[:, 0] + best], total.gather(1, best[:, None])[:, 0]


def one_by_one(
    search: Search,
    network: Speaker,
    states: Tensor,
    choose: Callable[[Tensor, Tensor], Tensor],
) -> Found:
    """Returns captions whose tokens are chosen one after the other; see `Search`.

    Those that have ended are left out from time to time.

    Args:
        search: Which says what may follow.
        network: In evaluation.
        states: Of B pictures.
        choose: From log p (b, K) of the captions that are left and their numbers among all (b,) to
            tokens (b,).
    """
    B, length, past = len(states), network.vocabulary.length, network.decoder.past()
    rows, total = torch.arange(B, device=states.device), torch.zeros(B, device=states.device)
    tokens = torch.full((B, length), END, device=states.device)
    token, ended = tokens[:, :1], torch.zeros_like(rows, dtype=torch.bool)
    for i in range(length):
        log_p = search.next_log_p(network, token, states, past)
        token = torch.where(ended, END, choose(log_p, rows))[:, None]
        total[rows] += log_p.gather(1, token)[:, 0].masked_fill(ended, 0.0)
        tokens[rows, i] = token[:, 0]
        ended = ended | (token[:, 0] == END)
        if i % EVERY == EVERY - 1:
            left = (~ended).nonzero()[:, 0]
            if not len(left):
                return tokens[:, : i + 1], total
            rows, token, states, ended = (x[left] for x in (rows, token, states, ended))
            for layer in past:
                layer[:] = [x[left] for x in layer]
    return tokens, total
