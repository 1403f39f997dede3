import torch
import torch.nn.functional as F

from diffusion.networks import Upsampler

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "attention": (), "blocks": 1}


@torch.no_grad()
def output(network, low_res):
    x_t = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
    return network(x_t, torch.tensor([3, 700]), low_res=low_res)


def test_the_small_picture_counts_as_resized():
    torch.manual_seed(0)
    network = Upsampler(**SMALL).eval()
    torch.nn.init.normal_(network.conv_out.weight)
    small = torch.randn(2, 3, 2, 2)
    large = F.interpolate(small, (8, 8), mode="bilinear", align_corners=False)
    assert torch.equal(output(network, small), output(network, large))
    assert (output(network, small) - output(network, 0 * small)).abs().max() > 0.01


def test_it_takes_a_low_resolution_picture_that_nothing_forgets():
    network = Upsampler(num_classes=10, null_class=False, out_channels=6, **SMALL)
    assert network.conditions == ("low_res", "label")
    assert network.null == {}
    assert (network.in_channels, network.conv_in.in_channels, network.out_channels) == (3, 6, 6)
    assert Upsampler(**SMALL).out_channels == 3
