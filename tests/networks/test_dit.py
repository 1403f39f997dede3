import diffusers
import pytest
import torch
from torch import nn

from diffusion.networks import DiT
from diffusion.networks.dit import waves_of_places

SIZES = {"S": (384, 12, 6, 33e6), "B": (768, 12, 12, 130e6), "L": (1024, 24, 16, 458e6)}
SIZES["XL"] = (1152, 28, 16, 675e6)


def same_weights(ours, theirs):
    """Our names of a diffusers transformer's weights; each of its blocks embeds time and label."""
    state, p = theirs.state_dict(), ours.patch
    embed = "transformer_blocks.0.norm1.emb"
    for i in range(1, len(theirs.transformer_blocks)):
        for key in [k for k in state if k.startswith(embed)]:
            state[key.replace(".0.norm1.emb", f".{i}.norm1.emb")] = state[key]
    theirs.load_state_dict(state)
    kept = {"patches.weight": state["pos_embed.proj.weight"].flatten(1)}
    kept["patches.bias"] = state["pos_embed.proj.bias"]
    kept["embedding.label.weight"] = state[f"{embed}.class_embedder.embedding_table.weight"]
    names = {"embedding.time_in": f"{embed}.timestep_embedder.linear_1"}
    names |= {"embedding.time_out": f"{embed}.timestep_embedder.linear_2"}
    names |= {"modulation": "proj_out_1"}
    for i in range(len(ours.blocks)):
        at, to = f"transformer_blocks.{i}", f"blocks.{i}"
        names |= {f"{to}.modulation": f"{at}.norm1.linear", f"{to}.out": f"{at}.attn1.to_out.0"}
        names |= {f"{to}.mlp_in": f"{at}.ff.net.0.proj", f"{to}.mlp_out": f"{at}.ff.net.2"}
        for kind in ("weight", "bias"):
            parts = [state[f"{at}.attn1.to_{x}.{kind}"] for x in "qkv"]
            kept[f"{to}.qkv.{kind}"] = torch.cat(parts)
    for to, at in names.items():
        kept |= {f"{to}.{kind}": state[f"{at}.{kind}"] for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):  # there (p, p, C), here (C, p, p)
        rows = state[f"proj_out_2.{kind}"].unflatten(0, (p, p, -1))
        kept[f"out.{kind}"] = rows.movedim(2, 0).flatten(0, 2)
    ours.load_state_dict(kept)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=3,
        out_channels=6,
        num_layers=3,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    ).eval()
    for block in theirs.transformer_blocks:  # h divides, as in DiT's code; see `sinusoidal`
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    sizes = {"image_size": 8, "in_channels": 3, "out_channels": 6, "patch": 2}
    ours = DiT(width=32, depth=3, heads=2, num_classes=10, **sizes).eval()
    same_weights(ours, theirs)
    return ours, theirs


def test_it_is_diffusers_transformer(pair):
    """Whose times are 0 … T − 1, and whose ∅ is the class after the last."""
    ours, theirs = pair
    x, t = torch.randn(5, 3, 8, 8), torch.tensor([1, 2, 500, 999, 1000])
    label = torch.tensor([0, 3, 9, 10, 10])
    with torch.no_grad():
        expected = theirs(x, t - 1, label).sample
        torch.testing.assert_close(ours(x, t, label), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours(x[3:], t[3:]), expected[3:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_have_the_published_numbers_of_parameters(size):
    """Table 4 of the paper, of 256 x 256 pictures: with classes, and a learned variance."""
    width, depth, heads, count = SIZES[size]
    with torch.device("meta"):
        network = DiT(32, 4, 8, 2, width, depth, heads, num_classes=1000)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(count, rel=0.01)


def test_it_starts_as_zero_and_its_blocks_as_the_identity():
    network = DiT(8, 3, width=32, depth=2, heads=2)
    h, emb = torch.randn(2, 16, 32), torch.randn(2, 32)
    assert torch.equal(network.blocks[0](h, emb), h)
    assert not network(torch.randn(2, 3, 8, 8), torch.tensor([1, 9])).any()


def test_places_are_told_apart_by_column_and_row():
    places = waves_of_places(4, 32).unflatten(0, (4, 4))
    i = torch.arange(4)[:, None] * 10000.0 ** (-torch.arange(8) / 8)
    waves = torch.cat([i.sin(), i.cos()], 1)
    for row in range(4):
        for column in range(4):
            expected = torch.cat([waves[column], waves[row]])
            torch.testing.assert_close(places[row, column], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 9}, r"network\.image_size: 9; expected a multiple of 2"),
        ({"width": 30, "heads": 2}, r"network\.width: 30; expected a multiple of 4"),
        ({"heads": 5}, r"network\.heads: 5; expected a divisor of the 32 channels"),
        ({"depth": 0}, r"network\.depth: 0; expected at least 1"),
    ],
)
def test_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        DiT(**{"image_size": 8, "width": 32, "depth": 1, "heads": 2} | options)


def test_pictures_of_another_size_are_refused():
    network = DiT(8, 3, width=32, depth=1, heads=2)
    with pytest.raises(ValueError, match=r"network\.image_size: 8; expected \(16, 16\)"):
        network(torch.randn(1, 3, 16, 16), torch.ones(1))
