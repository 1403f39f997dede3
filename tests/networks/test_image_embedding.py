"""A picture's embedding in a UNet: as tokens, and added to the embedding of the time."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from captioned import Bag, SmallClipImage

from diffusion.codec import Pixels
from diffusion.condition import Condition, Forget
from diffusion.networks import ImageEmbedding, Stream, TextTransformer, UNet, Upsampler
from diffusion.noise import SeededNoise

D = 12


def network(**streams):
    torch.manual_seed(0)
    small = {"image_size": 8, "channels": 8, "multipliers": [1], "attention": [8], "blocks": 1}
    net = UNet(**small, groups=4, streams={k: Stream(v) for k, v in streams.items()})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


@torch.no_grad()
def test_z_becomes_tokens_and_a_vector():
    """By hand: LN(W z + b) in four parts are what attention reads, W' LN(z) is added to emb."""
    codec = SmallClipImage()
    net = network(text=Bag(), embedding=ImageEmbedding(codec))
    x, t = torch.rand(3, 3, 8, 8) * 2 - 1, torch.tensor([1, 5, 9])
    values = net.read({"text": ["a", "b", "c"], "image": x})
    z = codec.encode(x)
    assert torch.equal(values["embedding"], z)
    emb, sources = net.embed(net.encodings(x, values), t, None, values)
    part = net.streams.encoders["embedding"].project
    states = (z @ part.weight.T + part.bias).reshape(3, 4, D)
    norm, (vector, out) = net.streams.norms["embedding"], net.streams.pooled["embedding"]
    by_hand = F.layer_norm(states, (D,), norm.weight, norm.bias)
    torch.testing.assert_close(sources["embedding"].states, by_hand)
    assert sources["embedding"].mask is None
    without = {k: v for k, v in values.items() if k != "embedding"} | {"embedding": 0 * z}
    raw, other = (net.streams(net.encodings(x, v))[1] for v in (values, without))
    added = out(F.layer_norm(z, (D,), vector.weight, vector.bias)) - out(vector.bias)
    torch.testing.assert_close(raw - other, added)
    assert emb.shape == (3, 32)


@torch.no_grad()
def test_the_null_is_zero_and_what_is_given_wins():
    net = network(text=Bag(), embedding=ImageEmbedding(SmallClipImage()))
    x, t = torch.rand(2, 3, 8, 8), torch.tensor([3, 4])
    text = net.read({"text": ["a", "b"]})
    assert "embedding" not in text  # a request without a picture
    null = net.null["embedding"]
    assert torch.equal(null, torch.zeros(D))
    assert torch.equal(net(x, t, **text), net(x, t, **text, embedding=null.expand(2, D)))
    z = torch.randn(2, D)
    assert torch.equal(net.read({"embedding": z, "image": x})["embedding"], z)
    assert (net(x, t, **text) - net(x, t, **text, embedding=z)).abs().max() > 1e-3


def test_the_picture_and_the_text_are_forgotten_independently():
    """As in the paper, 10 % and 50 %: both together once in twenty."""
    net, n = network(text=Bag(), embedding=ImageEmbedding(SmallClipImage())), 4096
    values = net.read({"text": ["a red bar"] * n, "embedding": torch.ones(n, D)})
    rows = [Forget(["embedding"], 0.1), Forget(["text"], 0.5)]
    kept = Condition(values, net.null).drop(rows, noise=SeededNoise(0, range(n))).values
    picture, text = kept["embedding"][:, 0] == 0, kept["text"][:, 0] == 0
    for found, p in ((picture, 0.1), (text, 0.5), (picture & text, 0.05)):
        assert abs(found.float().mean() - p) < 3 * (p * (1 - p) / n) ** 0.5


class Wide(Pixels):
    """Stands for the paper's CLIP."""

    width = 1024


def test_the_papers_size_has_its_number_of_parameters():
    """GLIDE's 3.5 billion, of which the text transformer has 1.2."""
    path = Path(__file__).parents[2] / "configs/dalle2_decoder.yaml"
    sizes = yaml.safe_load(path.read_text())["model"]["network"]["init_args"]
    text = sizes["streams"]["text"]["init_args"]["encoder"]["init_args"]
    with torch.device("meta"):
        encoders = {"text": TextTransformer(**text), "embedding": ImageEmbedding(Wide(), 4)}
        network = UNet(**{**sizes, "streams": {k: Stream(v) for k, v in encoders.items()}})
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e9, 1) == 3.5
    assert round(sum(p.numel() for p in encoders["text"].parameters()) / 1e9, 1) == 1.2


def by_hand(channels, multipliers, blocks):
    """The parameters of ADM's upsampler of colour pictures, without attention."""
    E, widths = 4 * channels, [channels * m for m in multipliers]

    def block(h, w):
        """Norms, the embedding's scale and shift, two convolutions, and one of 1 × 1 beside."""
        norms, told, beside = 2 * (h + w), 2 * w * (E + 1), 0 if h == w else w * (h + 1)
        return norms + told + w * (9 * h + 1) + w * (9 * w + 1) + beside

    h, left = widths[0], [widths[0]]
    n = E * (channels + 1) + E * (E + 1) + h * (9 * 6 + 1)
    for i, w in enumerate(widths):
        if i > 0:
            n, left = n + block(h, h), [*left, h]
        for _ in range(blocks):
            n, h, left = n + block(h, w), w, [*left, w]
    n += 2 * block(h, h)
    for i, w in reversed([*enumerate(widths)]):
        for _ in range(blocks + 1):
            n, h = n + block(h + left.pop(), w), w
        n += block(w, w) if i > 0 else 0
    return n + 2 * h + 3 * (9 * h + 1)


@pytest.mark.parametrize(("name", "millions", "papers"), [("256", 730, 700), ("1024", 282, 300)])
def test_the_papers_upsamplers_have_their_numbers_of_parameters(name, millions, papers):
    """Of which the paper has one digit: convolutions alone, which read the small picture alone."""
    path = Path(__file__).parents[2] / f"configs/dalle2_upsampler_{name}.yaml"
    sizes = yaml.safe_load(path.read_text())["model"]["network"]["init_args"]
    with torch.device("meta"):
        network = Upsampler(**{k: v for k, v in sizes.items() if k != "blur"})
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == by_hand(*(sizes[key] for key in ("channels", "multipliers", "blocks")))
    assert round(count / 1e6) == millions
    assert round(count / 1e8) == papers / 100
    assert f"{millions} million" in path.read_text()
    assert network.conditions == ("low_res",)


def test_a_codec_without_vectors_is_refused():
    with pytest.raises(ValueError, match=r"ImageEmbedding\.codec: Pixels; expected one whose z"):
        ImageEmbedding(Pixels())
    with pytest.raises(ValueError, match=r"ImageEmbedding\.tokens: 0; expected at least 1"):
        ImageEmbedding(SmallClipImage(), tokens=0)
