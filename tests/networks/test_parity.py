"""Our UNet equals diffusers' when it holds the same weights."""

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from diffusion.interop import layout
from diffusion.interop.diffusers.unet_weights import (
    exported_weights,
    names,
    network_settings,
    unet_config,
)
from diffusion.networks import UNet

# As google/ddpm-cifar10-32 and as Improved DDPM and ADM, with fewer channels.
CHANNELS, GROUPS = 16, 4


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


@pytest.fixture(scope="module", params=[ddpm, iddpm, adm])
def networks(request):
    torch.manual_seed(0)
    ours, theirs = request.param()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = theirs.state_dict()
    ours.load_state_dict(layout.imported_weights(ours, names(ours), state))
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


@torch.no_grad()
def test_a_config_is_read_as_the_network_that_was_made_for_it(networks):
    ours, theirs = networks
    again = UNet(**network_settings(theirs.config))
    again.load_state_dict(ours.state_dict())
    x_t, t = torch.randn(2, 3, ours.image_size, ours.image_size), torch.tensor([3, 700])
    label = torch.tensor([2, 9]) if ours.num_classes else None
    torch.testing.assert_close(again.eval()(x_t, t, label), ours(x_t, t, label), rtol=0, atol=0)


@torch.no_grad()
def test_a_network_is_written_as_the_one_that_computes_the_same(networks):
    ours, theirs = networks
    made = UNet2DModel.from_config(unet_config(ours)).eval()
    made.load_state_dict(exported_weights(ours))
    x_t = torch.randn(2, 3, ours.image_size, ours.image_size)
    label = torch.tensor([2, 9]) if ours.num_classes else None
    output, expected = made(x_t, 41, label).sample, theirs(x_t, 41, label).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
