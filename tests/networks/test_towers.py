import math

import pytest
import torch
import torch.nn.functional as F
from captioned import Bag
from torch import nn

from diffusion.networks import ClassifierNetwork, TextTransformer, Towers, ViT


def vit(**of):
    settings = {"width": 16, "depth": 2, "heads": 2, "out_channels": 6, "T": 10}
    return ViT(8, 3, 4, **{**settings, **of})


def towers(**of):
    return Towers(vit(), TextTransformer(16, 1, 2, 8, 64), **of)


def test_the_time_has_a_token_of_its_own_in_place_of_the_class():
    """GLIDE's tower written down again, with torch's own transformer."""
    network = vit().eval()
    blocks = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", batch_first=True, norm_first=True), 2
    ).eval()
    for mine, theirs in zip(network.transformer.blocks, blocks.layers):
        state = {
            "self_attn.in_proj_weight": mine.qkv.weight,
            "self_attn.in_proj_bias": torch.randn(48),
            "self_attn.out_proj.weight": mine.out.weight,
            "self_attn.out_proj.bias": mine.out.bias,
            "linear1.weight": mine.mlp_in.weight,
            "linear1.bias": mine.mlp_in.bias,
            "linear2.weight": mine.mlp_out.weight,
            "linear2.bias": mine.mlp_out.bias,
            "norm1.weight": mine.norm_attention.weight,
            "norm1.bias": mine.norm_attention.bias,
            "norm2.weight": mine.norm_mlp.weight,
            "norm2.bias": mine.norm_mlp.bias,
        }
        mine.qkv.bias.data = state["self_attn.in_proj_bias"]
        theirs.load_state_dict(state)
    x, t = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 4, 9, 10])
    weight = network.patches.weight.reshape(16, 3, 4, 4)
    patches = F.conv2d(x, weight, stride=4).flatten(2).transpose(1, 2)
    tokens = torch.cat([network.time[t][:, None], patches], 1) + network.position
    out = network.transformer.norm(blocks(network.norm(tokens)))[:, 0]
    torch.testing.assert_close(network(x, t), out @ network.out.weight.T, rtol=1e-4, atol=1e-5)


def test_only_the_row_of_its_time_gets_a_gradient():
    network = vit()
    network(torch.randn(3, 3, 8, 8), torch.tensor([0, 7, 7])).square().sum().backward()
    rows = network.time.grad.abs().sum(1)
    assert len(rows) == 11  # t = 0 … T
    assert (rows > 0).nonzero().flatten().tolist() == [0, 7]


def test_without_times_there_is_one_row():
    network, x = vit(T=None), torch.randn(2, 3, 8, 8)
    assert len(network.time) == 1
    assert torch.equal(network(x, torch.tensor([0, 0])), network(x, torch.tensor([3, 900])))


def test_embeddings_are_unit_vectors_and_logits_their_products():
    network = towers()
    x, t = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 10])
    values = network.text.read(["a red fox", "a blue cat"])
    f, g = network.embed_image(x, t), network.embed_text(values)
    torch.testing.assert_close(f.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(g.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(network(x, t, values), f @ g.T / 0.07)
    one = network.embed_image(x, torch.tensor(4))
    torch.testing.assert_close(one, network.embed_image(x, torch.full((3,), 4)))
    last = network.text(values).pooled
    z = F.layer_norm(last, (16,)) @ network.projection[-1].weight.T
    torch.testing.assert_close(g, z / z.norm(dim=1, keepdim=True))


def test_the_temperature_has_a_bound():
    network = towers()
    assert abs(network.scale.item() - 1 / 0.07) < 1e-4
    network.log_scale.data.fill_(7.0)
    assert abs(network.scale.item() - 100) < 1e-3
    network = towers(largest=10.0)
    assert abs(network.scale.item() - 10) < 1e-5
    network.log_scale.data.fill_(1.0)
    assert abs(network.scale.item() - torch.e) < 1e-5
    with pytest.raises(ValueError, match=r"network.largest: 1; expected more than 1, 100 as in"):
        towers(largest=1)


def test_a_frozen_encoder_can_have_a_layer_in_front():
    network = towers(hidden=12, width=6)
    shapes = [tuple(p.shape) for p in network.projection.parameters()]
    assert shapes == [(16,), (16,), (12, 16), (12,), (6, 12)]


def test_any_network_of_pictures_and_times_is_a_tower():
    image = ClassifierNetwork(8, 3, 6, [1], [], 8, channels=8, blocks=1, groups=4)
    network = Towers(image, TextTransformer(16, 1, 2, 8, 64))
    assert network.width == 6
    f = network.embed_image(torch.randn(2, 3, 8, 8), torch.tensor(0))
    torch.testing.assert_close(f.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vit(patch=3), "patch=3"),
        (lambda: vit(T=0), "T: 0; expected at least 1"),
        (lambda: vit(heads=5), "expected a divisor"),
        (
            lambda: Towers(nn.Identity(), TextTransformer(16, 1, 2)),
            "width: null; expected D, as the image tower has no out_channels",
        ),
        (
            lambda: Towers(
                ClassifierNetwork(8, 3, 6, [1], [], 8, "mean", channels=8, blocks=1, groups=4),
                TextTransformer(16, 1, 2),
            ),
            "image.pool: mean, which starts at 0",
        ),
        (
            lambda: vit()(torch.zeros(1, 3, 16, 16), torch.tensor([1])),
            r"image_size: 8; expected \(16, 16\), as the images are",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    if message == "patch=3":
        message = "image_size: 8; expected a multiple of 3"

        def make():
            return ViT(8, 3, 3)

    with pytest.raises(ValueError, match=message):
        make()


def test_training_pulls_pairs_together():
    network, texts = Towers(vit(), Bag()), ["one", "two", "three", "four"]
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    x, values = torch.randn(4, 3, 8, 8), network.text.read(texts)
    for _ in range(150):
        logits = network(x, torch.tensor(5), values)
        loss = F.cross_entropy(logits, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 < math.log(4)
