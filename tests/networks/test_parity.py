"""Our UNet equals diffusers' when it holds the same weights."""

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from diffusion.networks import UNet

# As google/ddpm-cifar10-32 and as Improved DDPM and ADM, with fewer channels.
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


def names(theirs, levels, blocks):
    """Maps each of our parameters to diffusers', or to the three that qkv joins."""
    found = pair("conv_in", "conv_in") | pair("conv_out", "conv_out")
    found |= pair("norm_out", "conv_norm_out")
    found |= pair("embedding.time_in", "time_embedding.linear_1")
    found |= pair("embedding.time_out", "time_embedding.linear_2")
    if "class_embedding.weight" in theirs:
        found["embedding.label.weight"] = "class_embedding.weight"
    stages = {f"middle.{i}": ("mid_block", i) for i in range(2)}
    resized = {}
    for i in range(levels * (blocks + 1) - 1):  # no downsampling after the last level
        level, j = divmod(i, blocks + 1)
        if j < blocks:
            stages[f"down.{i}"] = (f"down_blocks.{level}", j)
        else:
            resized[f"down.{i}"] = f"down_blocks.{level}.downsamplers.0"
    for i in range(levels * (blocks + 1)):
        level, j = divmod(i, blocks + 1)
        stages[f"up.{i}"] = (f"up_blocks.{level}", j)
        if j == blocks and level < levels - 1:
            resized[f"up.{i}.upsample"] = f"up_blocks.{level}.upsamplers.0"
    for ours, other in resized.items():
        in_block = f"{other}.conv1.weight" in theirs
        found |= block(ours, other, False) if in_block else pair(f"{ours}.conv", f"{other}.conv")
    for stage, (level, j) in stages.items():
        shortcut = f"{level}.resnets.{j}.conv_shortcut.weight" in theirs
        found |= block(f"{stage}.block", f"{level}.resnets.{j}", shortcut)
        if f"{level}.attentions.{j}.to_q.weight" in theirs:
            found |= attention(f"{stage}.attention", f"{level}.attentions.{j}")
    return found


def ddpm():
    ours = UNet(channels=CHANNELS, groups=GROUPS)
    return ours, UNet2DModel(
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


def openai(**changes):
    """What the two networks of OpenAI's code have in common, small."""
    options = {"family": "openai", "scale_shift": True, "out_channels": 6, "groups": GROUPS}
    options |= {"multipliers": (1, 2), "attention": (4,), "blocks": 1, "head_width": 8}
    ours = UNet(8, 3, channels=CHANNELS, **options, **changes)
    settings = {"sample_size": 8, "block_out_channels": (CHANNELS, 2 * CHANNELS)}
    settings |= {"layers_per_block": 1, "out_channels": 6, "attention_head_dim": 8}
    settings |= {"resnet_time_scale_shift": "scale_shift"}
    settings |= {"norm_num_groups": GROUPS, "attn_norm_num_groups": GROUPS}
    settings |= {"flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-5}
    return ours, settings


def iddpm():
    ours, settings = openai()
    return ours, UNet2DModel(
        **settings,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=1,
    )


def adm():
    ours, settings = openai(resample="block", num_classes=10, null_class=False)
    return ours, UNet2DModel(
        **settings,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        num_class_embeds=10,
    )


@pytest.fixture(scope="module", params=[(ddpm, 4, 2), (iddpm, 2, 1), (adm, 2, 1)])
def networks(request):
    torch.manual_seed(0)
    pair, levels, blocks = request.param
    ours, theirs = pair()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = theirs.state_dict()
    weights = {}
    for mine, other in names(state, levels, blocks).items():
        one = isinstance(other, str)
        weights[mine] = state[other] if one else torch.cat([state[name] for name in other])
    ours.load_state_dict(weights)
    assert sum(w.numel() for w in weights.values()) == sum(w.numel() for w in state.values())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("t", [1, 1000])
@torch.no_grad()
def test_output_equals_diffusers(networks, t):
    ours, theirs = networks
    x_t = torch.randn(2, 3, ours.image_size, ours.image_size)
    label = torch.tensor([2, 9]) if ours.num_classes else None
    # diffusers counts times from 0.
    expected = theirs(x_t, t - 1, class_labels=label).sample
    assert expected.std() > 0.05
    output = ours(x_t, torch.full((2,), t), label=label)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=2e-6)
