"""Tokens in attention, against the plain formula of attention; ∅; and where gradients go."""

import math

import pytest
import torch

from diffusion.networks import Encoding, Stream, TextEncoder, TextTransformer, UNet
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.style import Style, TokenStyle
from diffusion.networks.unet.token_attention import Source

B, C, H, L, D, HEADS = 3, 16, 4, 5, 6, 2


class Letters(TextEncoder):
    """States that are a fixed random vector for each letter."""

    values = ("", "_mask", "_pooled")

    def __init__(self, width=D, length=L):
        super().__init__()
        self.width = self.pooled_width = width
        self.length = length

    def read(self, texts):
        table = torch.randn(128, self.width, generator=torch.Generator().manual_seed(0))
        states = torch.zeros(len(texts), self.length, self.width)
        mask = torch.zeros(len(texts), self.length, dtype=torch.bool)
        for i, text in enumerate(texts):
            codes = [ord(c) for c in "^" + text][: self.length]
            states[i, : len(codes)], mask[i, : len(codes)] = table[codes], True
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return {"": states, "_mask": mask, "_pooled": pooled}

    def sizes(self, texts):
        return [len(text) + 1 for text in texts]

    def forward(self, values):
        return Encoding(values[""], values["_mask"], values["_pooled"])


def layer(**routes):
    torch.manual_seed(0)
    streams = tuple(TokenStyle(name, D, route) for name, route in routes.items())
    attention = SelfAttention(C, Style(emb_width=8, heads=HEADS, streams=streams)).double()
    with torch.no_grad():
        attention.out.weight.normal_()
    return attention


def source(seed=0, weight=1.0, lengths=(5, 2, 1)):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(B, L, D, generator=generator, dtype=torch.float64)
    return Source(states, torch.arange(L) < torch.tensor(lengths)[:, None], weight)


def by_hand(attention, h, sources):
    """One sample, one head, one position at a time; only tokens that are there."""
    tokens = attention.norm(h).flatten(2).transpose(1, 2)
    q, k, v = attention.qkv(tokens).chunk(3, dim=2)
    out, width = torch.zeros_like(q), C // HEADS
    for b in range(B):
        for head in range(HEADS):
            cut = slice(head * width, (head + 1) * width)
            keys, values, factors = [k[b, :, cut]], [v[b, :, cut]], [torch.ones(H * H)]
            more = torch.zeros(H * H, width, dtype=torch.float64)
            for name, s in sources.items():
                there = s.states[b][s.mask[b]]
                key, value = attention.tokens.keys_values[name](there).chunk(2, dim=1)
                if attention.tokens.tokens[name].route == "join":
                    keys.append(key[:, cut])
                    values.append(value[:, cut])
                    factors.append(torch.full((len(there),), s.weight))
                else:
                    e = torch.exp(q[b, :, cut] @ key[:, cut].T / math.sqrt(width))
                    more = more + s.weight * (e / e.sum(1, keepdim=True)) @ value[:, cut]
            e = torch.exp(q[b, :, cut] @ torch.cat(keys).T / math.sqrt(width)) * torch.cat(factors)
            out[b, :, cut] = (e / e.sum(1, keepdim=True)) @ torch.cat(values) + more
    return h + attention.out(out).transpose(1, 2).unflatten(2, (H, H))


@pytest.mark.parametrize(
    "routes",
    [{"a": "join"}, {"a": "cross"}, {"a": "join", "b": "cross"}, {"a": "join", "b": "join"}],
)
@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_attention_to_tokens_is_the_formula(routes, weight):
    attention = layer(**routes)
    h = torch.randn(B, C, H, H, dtype=torch.float64)
    sources = {name: source(i, weight) for i, name in enumerate(routes)}
    torch.testing.assert_close(attention(h, sources), by_hand(attention, h, sources))


def test_without_weight_or_tokens_only_the_image_is_left():
    attention, plain = layer(a="join", b="cross"), layer()
    plain.load_state_dict(attention.state_dict(), strict=False)
    h = torch.randn(B, C, H, H, dtype=torch.float64)
    sources = {"a": source(0, 0.0), "b": source(1, 0.0)}
    torch.testing.assert_close(attention(h, sources), plain(h))


def unet(route="join", encoder=None, **kwargs):
    torch.manual_seed(0)
    streams = {"text": Stream(encoder or Letters(), route=route)}
    net = UNet(
        8, 1, channels=8, multipliers=[1, 2], attention=[4], blocks=1, streams=streams, **kwargs
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


@pytest.fixture
def x():
    return torch.randn(2, 1, 8, 8)


@pytest.mark.parametrize("route", ["join", "cross"])
def test_a_missing_text_is_the_empty_one(route, x):
    net, t = unet(route), torch.tensor([3, 7])
    empty = net(x, t, **net.read({"text": ["", ""]}))
    torch.testing.assert_close(net(x, t), empty)
    assert (net(x, t, **net.read({"text": ["fox", ""]})) - empty).flatten(1).abs().amax(1)[0] > 1e-3


@pytest.mark.parametrize("route", ["join", "cross"])
def test_padding_is_not_read(route, x):
    net, t = unet(route), torch.tensor([3, 7])
    read = net.read({"text": ["ab", "xyz"]})
    other = {**read, "text": torch.where(read["text_mask"][..., None], read["text"], 9.0)}
    torch.testing.assert_close(net(x, t, **read), net(x, t, **other))


def test_conditions_and_nulls():
    net = unet(num_classes=3)
    assert net.conditions == ("label", "text", "text_mask", "text_pooled")
    assert list(net.null) == list(net.conditions)
    assert net.null["label"] == 3
    torch.testing.assert_close(
        net.null["text"], Letters().read([""])["text".removeprefix("text")][0]
    )
    with pytest.raises(KeyError):
        net.null["texts"]


def test_a_trained_encoder_learns_through_every_route(x):
    for route in ("join", "cross"):
        net = unet(route, TextTransformer(width=8, depth=1, heads=2, length=6, rows=50)).train()
        read = net.read({"text": ["a red fox", "a clock"]})
        net(x, torch.tensor([3, 7]), **read).square().sum().backward()
        grads = {name: p.grad for name, p in net.streams.encoders.named_parameters()}
        assert all(g is not None and g.abs().sum() > 0 for g in grads.values()), grads.keys()


def test_checkpointing_changes_nothing(x):
    plain, again = unet(), unet(checkpointing=True).train()
    read = plain.read({"text": ["fox", "y"]})
    t = torch.tensor([3, 7])
    torch.testing.assert_close(plain(x, t, **read), again(x, t, **read))


@pytest.mark.parametrize("names", [["label"], ["a", "a_b"], ["a_mask", "a"]])
def test_a_name_that_would_be_ambiguous_is_refused(names):
    streams = {name: Stream(Letters()) for name in names}
    small = {"channels": 8, "multipliers": [1], "attention": [], "blocks": 1}
    with pytest.raises(ValueError, match=r"network: conditions '\w+' and '\w+'; expected names"):
        UNet(8, 1, num_classes=2, streams=streams, **small)
    UNet(8, 1, num_classes=2, streams={"image_prompt": Stream(Letters())}, **small)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"streams.weight: -1; expected a number ≥ 0"):
        Stream(Letters(), weight=-1)
