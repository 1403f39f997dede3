"""IP-Adapter and InstantID: what they add, what they leave alone, and what they do not see."""

import copy

import pytest
import torch
from captioned import SmallIdentity
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from torch import nn

from diffusion.codec import Pixels
from diffusion.common.hashing import weights_digest
from diffusion.condition import Condition, Forget
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import ClassifierFree, ImageStrength
from diffusion.networks import (
    Hint,
    IdentityTokens,
    InstantID,
    IPAdapter,
    Locked,
    ResampledIdentity,
    Stream,
    TextTransformer,
    UNet,
)
from diffusion.networks.unet.style import Style, TokenStyle
from diffusion.networks.unet.token_attention import Source, TokenAttention
from diffusion.noise import SeededNoise
from diffusion.parameterization import V
from diffusion.process import Cosine
from diffusion.spec import DataSpec

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "attention": (4,), "blocks": 1}
D = 8


@torch.no_grad()
def randomised(net):
    for weight in net.parameters():
        weight.normal_(std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3)
    return net


def unet(route="join", width=D):
    text = Stream(TextTransformer(width=width, depth=1, heads=1, length=6), route)
    return randomised(UNet(**SMALL, groups=4, streams={"text": text})).eval()


def adapter(base):
    return IPAdapter(Locked(copy.deepcopy(base)), IdentityTokens(SmallIdentity(), 4, D))


def instant_id(base, width=D):
    identity = ResampledIdentity(SmallIdentity(), 5, width, depth=2, heads=2, hidden=12)
    net = InstantID(Locked(copy.deepcopy(base)), identity, Hint(3, (4, 4)))
    for layer in net.branch.zeros:
        nn.init.normal_(layer.weight)
    nn.init.normal_(net.branch.hint.out.weight)
    return net


KINDS = {"adapter": adapter, "instant_id": instant_id}


def asked(net, n=2):
    made = net.read({"text": ["a fox", "a red hen"][:n], "identity": torch.rand(n, 3, 8, 8)})
    pose = {"pose": torch.rand(n, 3, 8, 8)} if isinstance(net, InstantID) else {}
    return torch.randn(n, 3, 8, 8), torch.tensor([3, 700][:n]), {**made, **pose}


def without(values, *keys):
    return {k: v for k, v in values.items() if k not in keys}


ZERO = {"identity_strength": torch.zeros(2, 1), "pose_strength": torch.zeros(2, 2)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ["join", "cross"])
def test_at_strength_zero_it_is_the_base_bit_for_bit(kind, route):
    base = unet(route)
    net = KINDS[kind](base)
    x_t, t, values = asked(net)
    zero = without(ZERO, *(["pose_strength"] if kind == "adapter" else []))
    plain = base(x_t, t, **without(values, "identity", "pose"))
    assert torch.equal(net(x_t, t, **values, **zero), plain)
    assert (net(x_t, t, **values) - plain).abs().max() > 1e-2
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            net(x_t, t, **values, **zero), base(x_t, t, **without(values, "identity", "pose"))
        )
    if kind == "instant_id":  # each strength by itself
        lone = adapter(base)
        lone._tokens, lone.keys_values, lone.norm = net._tokens, net.keys_values, net.norm
        only = net(x_t, t, **values, pose_strength=zero["pose_strength"])
        again = IPAdapter.forward(lone, x_t, t, **without(values, "pose"))
        assert torch.equal(only, again)


def test_attention_is_that_of_diffusers():
    """IPAdapterAttnProcessor2_0 on the same random weights, with text by a softmax of its own."""
    heads, channels, width, scale = 2, 16, 12, 0.7
    theirs = Attention(
        channels, width, heads, dim_head=channels // heads, bias=False, out_bias=True
    )
    processor = IPAdapterAttnProcessor2_0(channels, width, num_tokens=(4,), scale=scale)
    theirs.set_processor(processor)
    style = Style(8, streams=(TokenStyle("text", width, "cross"),))
    ours, added = TokenAttention(channels, heads, style), nn.Linear(width, 2 * channels)
    with torch.no_grad():
        for layer, (k, v) in (
            (ours.keys_values["text"], (theirs.to_k, theirs.to_v)),
            (added, (processor.to_k_ip[0], processor.to_v_ip[0])),
        ):
            layer.weight.copy_(torch.cat([k.weight, v.weight]))
            layer.bias.zero_()
        h, text, image = (
            torch.randn(2, 9, channels),
            torch.randn(2, 7, width),
            torch.randn(2, 4, width),
        )
        wanted = theirs(h, encoder_hidden_states=(text, [image[:, None]]))
        q = theirs.to_q(h).unflatten(2, (heads, -1)).transpose(1, 2)
        strength = torch.full((2, 1, 1, 1), scale)
        sources = {
            "text": Source(text, None, 1.0),
            "identity": Source(image, None, 1.0, strength, {ours: added}),
        }
        found = ours.crossed(torch.zeros_like(q), q, sources).transpose(1, 2).flatten(2)
    torch.testing.assert_close(theirs.to_out[0](found), wanted)
    assert (wanted - theirs.to_out[0](found / scale)).abs().max() > 1e-2


def test_keys_and_values_begin_as_the_bases_and_the_sum_is_by_hand():
    base = unet()
    net = adapter(base)
    x_t, _, values = asked(net)
    for mine, layer in zip(net.keys_values, net.layers, strict=True):
        assert torch.equal(mine.weight, layer.keys_values["text"].weight)
        assert mine.weight.requires_grad
        assert not layer.keys_values["text"].weight.requires_grad
    assert (
        len(net.layers) == sum("attention.tokens.keys" in n for n, _ in base.named_parameters()) / 2
    )
    read = net.tokens(values, x_t)
    source = net.source(read, values)
    z = net.identity.encoder.encode(torch.zeros(1, 3, 8, 8))
    assert z.shape == (1, 6)
    tokens = values["identity"] @ net.identity.project.weight.T + net.identity.project.bias
    by_hand = nn.functional.layer_norm(tokens.view(2, 4, D), (D,), net.norm.weight, net.norm.bias)
    torch.testing.assert_close(source.states, by_hand)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_a_zero_embedding_through_the_projection(kind):
    net = KINDS[kind](unet())
    x_t, t, values = asked(net)
    null = net.null["identity"]
    assert torch.equal(null, torch.zeros(6))
    assert "identity_strength" not in net.null
    assert "identity_strength" in net.required
    gone = {**values, "identity": null.expand(2, 6)}
    assert torch.equal(net(x_t, t, **gone), net(x_t, t, **without(values, "identity")))
    assert (net(x_t, t, **gone) - net(x_t, t, **values)).abs().max() > 1e-4
    tokens = net.tokens({}, x_t).states  # not zeros: what the projection makes of zeros
    assert torch.equal(tokens, net.identity({"": torch.zeros(2, 6)}).states)
    assert tokens.abs().max() > 0


def test_text_picture_and_both_are_forgotten_apart():
    net, n = adapter(unet()), 4096
    values = net.read({"text": ["a fox"] * n, "identity": torch.ones(n, 6)})
    rows = [Forget(keys, 0.05, True) for keys in (["text"], ["identity"], ["text", "identity"])]
    kept = Condition(values, net.null).drop(rows, noise=SeededNoise(0, range(n))).values
    who = (kept["identity"] == 0).all(1)
    text = (kept["text"] == torch.as_tensor(net.null["text"])).all(1)
    for found in (who & ~text, text & ~who, who & text):
        assert abs(found.float().mean() - 0.05) < 3 * (0.05 * 0.95 / n) ** 0.5


def test_identity_net_does_not_see_the_text():
    net = instant_id(unet())
    x_t, t, values = asked(net)
    other = {**values, **net.read({"text": ["a green bird", ""]})}
    seen = {}

    def look(module, given, kwargs, found):
        seen.setdefault("residuals", []).append(found)

    net.branch.register_forward_hook(look, with_kwargs=True)
    one, two = net(x_t, t, **values), net(x_t, t, **other)
    assert (one - two).abs().max() > 1e-4  # the base does
    for a, b in zip(*seen["residuals"], strict=True):
        assert torch.equal(a, b)
    who = {**values, "identity": torch.randn(2, 6)}
    net(x_t, t, **who)
    assert any(not torch.equal(a, b) for a, b in zip(seen["residuals"][0], seen["residuals"][2]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_and_the_encoder_stay_and_all_that_is_new_learns(kind):
    base = unet()
    net = KINDS[kind](base).train()
    before = [weights_digest(x.state_dict()) for x in (net.network, net.identity.encoder.tower)]
    x_t, t, values = asked(net)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    net(x_t, t, **values).square().mean().backward()
    assert not [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert all(p.grad is None for p in (*net.base.parameters(), *net.identity.encoder.parameters()))
    optimizer.step()
    after = [weights_digest(x.state_dict()) for x in (net.network, net.identity.encoder.tower)]
    assert before == after
    names = {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad}
    assert names == {"identity", "keys_values", "norm"} | (
        {"branch"} if kind == "instant_id" else set()
    )
    saved = net.state_dict()
    assert len([n for n in saved if "base_" in n]) == 2  # digests of base and encoder
    assert not [n for n in saved if n.startswith("base.") and saved[n].numel()]


def test_guidance_sets_lambda_within_its_interval():
    net = adapter(unet())
    denoise = NetworkDenoiser(net, Cosine(20), V())
    x_t, _, values = asked(net)
    cond = Condition(values, net.null)
    base = NetworkDenoiser(net.network, Cosine(20), V())
    for t in (torch.tensor(5), torch.tensor([5, 5])):
        plain, full = base(x_t, t, cond).x_0, denoise(x_t, t, cond).x_0
        assert torch.equal(ImageStrength(scale=0.0)(denoise)(x_t, t, cond).x_0, plain)
        assert torch.equal(ImageStrength(scale=1.0)(denoise)(x_t, t, cond).x_0, full)
        assert torch.equal(
            ImageStrength(scale=2.0, interval=(6, 9))(denoise)(x_t, t, cond).x_0, plain
        )
    part = ImageStrength(scale=1.0, interval=(6, 9))(denoise)(x_t, torch.tensor([5, 7]), cond).x_0
    both = denoise(x_t, torch.tensor([5, 7]), cond).x_0
    assert torch.equal(part[1], both[1])
    assert not torch.equal(part[0], both[0])
    guided = ImageStrength(scale=0.5)(ClassifierFree(2.0)(denoise))(x_t, torch.tensor(5), cond)
    half = {**values, "identity_strength": torch.full((2, 1), 0.5)}
    none = {**without(half, "identity", "text", "text_last"), **{}}
    one, null = (denoise(x_t, torch.tensor(5), Condition(v)).x_0 for v in (half, none))
    torch.testing.assert_close(guided.x_0, null + 2 * (one - null), rtol=1e-4, atol=1e-5)


def test_an_embedding_may_be_given_in_place_of_a_picture():
    net = adapter(unet())
    pictures = torch.rand(2, 3, 8, 8)
    e = net.identity.encoder.encode(pictures)
    assert torch.equal(net.read({"identity": pictures})["identity"], e)
    assert torch.equal(net.read({"identity": e})["identity"], e)
    with pytest.raises(ValueError, match=r"identity: embeddings of 5; expected 6, as the encoder"):
        net.read({"identity": torch.rand(2, 5)})


def test_what_does_not_fit_is_refused():
    base, tokens = unet(), IdentityTokens(SmallIdentity(), 4, D)
    with pytest.raises(ValueError, match=r"network.base: Linear; expected a UNet"):
        IPAdapter(Locked(nn.Linear(2, 2)), tokens)
    with pytest.raises(ValueError, match=r"network.base: streams none; expected 'text'"):
        IPAdapter(Locked(UNet(**SMALL, groups=4)), tokens)
    with pytest.raises(ValueError, match=r"streams \['text'\]; expected 'words'"):
        IPAdapter(Locked(base), tokens, stream="words")
    with pytest.raises(
        ValueError, match=r"IdentityTokens.encoder: Pixels; expected one that makes"
    ):
        IdentityTokens(Pixels())
    with pytest.raises(ValueError, match=r"IdentityTokens.tokens: 0; expected at least 1"):
        IdentityTokens(SmallIdentity(), 0)
    spec = DataSpec("Large", (3, 16, 16))
    with pytest.raises(ValueError, match=r"of pictures of shape \(3, 8, 8\); expected \(3, 16"):
        adapter(base).check(spec)
    with pytest.raises(ValueError, match=r"identity.width: 12; expected 8, as the tokens of the"):
        instant_id(base, width=12).check(DataSpec("Small", (3, 8, 8)))
    net = instant_id(base)
    x_t, t, values = asked(net)
    with pytest.raises(ValueError, match=r"pose: missing; expected a control for each sample"):
        net(x_t, t, **without(values, "pose"))


def test_tokens_of_another_width_are_read_by_layers_that_start_anew():
    net = IPAdapter(Locked(unet()), IdentityTokens(SmallIdentity(), 2, 12))
    x_t, t, values = asked(net)
    assert net(x_t, t, **values).shape == x_t.shape
    assert net.keys_values[0].in_features == 12


@pytest.mark.slow
def test_one_pair_is_learned_by_heart():
    """Two persons, two pictures, one text: who is seen is all that tells them apart."""
    torch.manual_seed(1)
    text = Stream(TextTransformer(width=D, depth=1, heads=1, length=6))
    base = UNet(**SMALL, groups=4, streams={"text": text})
    for weight in base.parameters():  # of layers that start at zero
        if weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    net = instant_id(base).train()
    targets = torch.tensor([[0.8, -0.5, 0.1], [-0.6, 0.3, 0.9]])[:, :, None, None]
    who, pose = torch.randn(2, 6), torch.rand(1, 3, 8, 8).expand(2, -1, -1, -1)
    values = {**net.read({"text": ["a fox"] * 2, "identity": who}), "pose": pose}
    x_t, t = torch.randn(1, 3, 8, 8).expand(2, -1, -1, -1), torch.tensor([900, 900])
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(200):
        loss = (net(x_t, t, **values) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    swapped = {**values, "identity": values["identity"].flip(0)}
    own, other = ((net(x_t, t, **v) - targets).square().mean() for v in (values, swapped))
    assert other > 10 * own
