"""What a network says of itself, and how conditioners compose."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion.networks import (
    MLP,
    Augmentation,
    Inpainter,
    Known,
    Label,
    LowResolution,
    Network,
    TextTransformer,
    Tokens,
    UNet,
    Upsampler,
    ViT,
    adapt,
)
from diffusion.process import Cosine
from diffusion.spec import DataSpec

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1,), "attention": (), "blocks": 1}


def text():
    return Tokens("text", TextTransformer(width=8, depth=1, heads=2, length=4, rows=50))


class Own(Network):
    def __init__(self, registered=True):
        super().__init__()
        self.label = Label(3, 8)
        self.conditioners = [self.label, tokens := text()]
        if registered:
            self.text = tokens

    def forward(self, x_t, t, label=None, **conditions):
        return x_t + self.label(label).mean() + self.conditioners[1](conditions, x_t).states.mean()


def test_conditions_null_and_required_follow_from_the_conditioners():
    net = Own()
    assert net.conditions == ("label", "text", "text_last")
    assert net.required == ()
    assert list(net.null) == list(net.conditions)
    assert net.null["label"] == 3
    assert torch.equal(net.null["text"], net.text.encoder.null[""])
    read = net.read({"text": ["a", "b"], "label": torch.tensor([0, 1]), "other": torch.ones(2)})
    assert set(read) == {"label", "text", "text_last"}
    assert net(torch.zeros(2, 1, 4, 4), torch.tensor([1, 2]), **read).shape == (2, 1, 4, 4)


def test_a_missing_text_is_the_empty_one():
    net, x_t = Own(), torch.zeros(2, 1, 4, 4)
    empty = net.text.read({"text": ["", ""]}, train=False)
    torch.testing.assert_close(net.text({}, x_t).states, net.text(empty, x_t).states)


def test_weights_that_nobody_would_train_are_refused():
    Own().check(DataSpec(None, (1, 4, 4)))
    with pytest.raises(ValueError, match="weights of Tokens are in `conditioners` only; expected"):
        Own(registered=False).check(DataSpec(None, (1, 4, 4)))


@pytest.mark.parametrize("kind", [Upsampler, Inpainter])
def test_presets_are_a_unet_with_inputs_to_the_last_bit(kind):
    inputs = {Upsampler: LowResolution, Inpainter: Known}[kind]
    torch.manual_seed(0)
    one = kind(**SMALL).state_dict()
    torch.manual_seed(0)
    other = UNet(inputs=[inputs()], **SMALL).state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


@torch.no_grad()
def test_an_upsampler_that_also_inpaints_starts_as_the_upsampler():
    torch.manual_seed(0)
    noise = Augmentation(Cosine(T=20), most=9, level=4)
    plain = Upsampler(augmentation=noise, **SMALL)
    for p in plain.parameters():
        p.add_(0.1 * torch.randn_like(p))
    both = UNet(inputs=[LowResolution(noise), Known()], **SMALL)
    assert both.conditions == both.required == ("low_res", "level", "known", "mask")
    assert both.conv_in.in_channels == 3 + 3 + 4
    assert not both.conv_in.weight[:, 6:].any()
    assert both.conv_in.weight[:, 3:6].any()
    weights = plain.state_dict()
    weights["conv_in.weight"] = F.pad(weights["conv_in.weight"], (0, 0, 0, 0, 0, 4))
    both.load_state_dict(weights)
    x = torch.rand(2, 3, 8, 8)
    read = both.read({"image": x, "low_res": F.avg_pool2d(x, 2)})
    low = {key: read[key] for key in ("low_res", "level")}
    t = torch.tensor([3, 17])
    torch.testing.assert_close(both(x, t, **read), plain(x, t, **low))
    with pytest.raises(ValueError, match="low_res: missing; expected small pictures"):
        both(x, t)


def test_inputs_are_what_joins_channels():
    with pytest.raises(
        ValueError, match=r"network.inputs: Tokens; expected conditioners that join"
    ):
        UNet(inputs=[text()], **SMALL)
    with pytest.raises(ValueError, match="conditions 'known' and 'known'; expected names"):
        UNet(inputs=[Known(), Known()], **SMALL)


@pytest.mark.parametrize(
    ("network", "spec", "message"),
    [
        (MLP(3), DataSpec("D", (2,)), "model.network.in_channels: 3; expected the 2 of D"),
        (
            UNet(num_classes=5, **SMALL),
            DataSpec("D", (3, 8, 8), 10),
            "num_classes: 5; expected at least the 10 classes of D",
        ),
        (
            UNet(**{**SMALL, "multipliers": (1, 1)}),
            DataSpec("D", (3, 9, 8)),
            "data: images of D are 9 x 8; expected sides .* multiples of 2",
        ),
        (ViT(8, 3, 4), DataSpec("D", (3, 16, 16)), "image_size: 8; expected 16, as D is 16 x 16"),
        (ViT(8, 3, 4, T=10), DataSpec("D", (3, 8, 8)), "T: 10; expected 20, as the process has it"),
    ],
)
def test_data_that_does_not_fit(network, spec, message):
    with pytest.raises(ValueError, match=message):
        network.check(spec, T=20)


def test_of_another_module_its_attributes_are_known():
    module = nn.Conv2d(3, 6, 1)
    module.forward = lambda x_t, t, low_res, label=None: x_t  # pyright: ignore
    net = adapt(module)
    assert (net.in_channels, net.out_channels, net.num_classes) == (3, 6, None)
    assert net.conditions == ("low_res", "label")
    assert dict(net.null) == {}
    batch = {"image": torch.ones(1), "label": torch.ones(1), "low_res": ["no tensor"]}
    assert set(net.read(batch)) == {"label"}
    module.null = {"label": 3}  # pyright: ignore
    assert adapt(module).conditions == ("label",)
    assert adapt(net) is net
    assert not list(net.parameters())
