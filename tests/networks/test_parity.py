"""Our UNet equals diffusers' when it holds the same weights."""

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from diffusion.networks import UNet

# The four levels of google/ddpm-cifar10-32, with fewer channels.
CHANNELS, GROUPS = 16, 4


def pair(a, b):
    """Names of one of our layers and of diffusers', weight and bias."""
    return {f"{a}.{kind}": f"{b}.{kind}" for kind in ("weight", "bias")}


def block(a, b, shortcut):
    names = {"norm_in": "norm1", "conv_in": "conv1", "emb": "time_emb_proj"}
    names |= {"norm_out": "norm2", "conv_out": "conv2"}
    names |= {"shortcut": "conv_shortcut"} if shortcut else {}
    return {k: v for x, y in names.items() for k, v in pair(f"{a}.{x}", f"{b}.{y}").items()}


def attention(a, b):
    qkv = {f"{a}.qkv.{k}": [f"{b}.to_{x}.{k}" for x in "qkv"] for k in ("weight", "bias")}
    return qkv | pair(f"{a}.norm", f"{b}.group_norm") | pair(f"{a}.out", f"{b}.to_out.0")


def names(theirs):
    """Maps each of our parameters to diffusers', or to the three that qkv joins."""
    found = pair("conv_in", "conv_in") | pair("conv_out", "conv_out")
    found |= pair("norm_out", "conv_norm_out")
    found |= pair("embedding.time_in", "time_embedding.linear_1")
    found |= pair("embedding.time_out", "time_embedding.linear_2")
    stages = {f"middle.{i}": ("mid_block", i) for i in range(2)}
    for i in range(11):  # 2 stages and a downsampling per level, none after the last level
        level, j = divmod(i, 3)
        if j < 2:
            stages[f"down.{i}"] = (f"down_blocks.{level}", j)
        else:
            found |= pair(f"down.{i}.conv", f"down_blocks.{level}.downsamplers.0.conv")
    for i in range(12):  # 3 stages per level
        level, j = divmod(i, 3)
        stages[f"up.{i}"] = (f"up_blocks.{level}", j)
        if j == 2 and level < 3:
            found |= pair(f"up.{i}.upsample.conv", f"up_blocks.{level}.upsamplers.0.conv")
    for stage, (level, j) in stages.items():
        shortcut = f"{level}.resnets.{j}.conv_shortcut.weight" in theirs
        found |= block(f"{stage}.block", f"{level}.resnets.{j}", shortcut)
        if f"{level}.attentions.{j}.to_q.weight" in theirs:
            found |= attention(f"{stage}.attention", f"{level}.attentions.{j}")
    return found


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    theirs = UNet2DModel(
        sample_size=32,
        block_out_channels=tuple(CHANNELS * m for m in (1, 2, 2, 2)),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=GROUPS,
        downsample_padding=0,
        attention_head_dim=None,
        mid_block_scale_factor=1,
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = UNet(channels=CHANNELS, groups=GROUPS)
    state = theirs.state_dict()
    weights = {}
    for mine, other in names(state).items():
        one = isinstance(other, str)
        weights[mine] = state[other] if one else torch.cat([state[name] for name in other])
    ours.load_state_dict(weights)
    assert sum(w.numel() for w in weights.values()) == sum(w.numel() for w in state.values())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("t", [1, 1000])
@torch.no_grad()
def test_output_equals_diffusers(networks, t):
    ours, theirs = networks
    x_t = torch.randn(2, 3, 32, 32)
    expected = theirs(x_t, t - 1).sample  # diffusers counts times from 0
    assert expected.std() > 0.05
    output = ours(x_t, torch.full((2,), t))
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
