"""A swap by an InstantID that repaints the face: what changes, what stays, and what is read."""

import pytest
import torch
from captioned import Bag, SmallIdentity

from diffusion.common.alignment import TEMPLATE
from diffusion.common.pixels import quantize
from diffusion.data.controls.beside import shares
from diffusion.data.identities.key_points import key_points
from diffusion.guidance import ClassifierFree, Inpaint, Static
from diffusion.networks import Hint, InstantID, ResampledIdentity, Stream, UNet
from diffusion.networks.locked import Locked
from diffusion.objective import Simple
from diffusion.parameterization import V
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM, RePaint
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.swapping.diffusion_swap import DiffusionSwap
from diffusion.systems.swapping.paste_back import face_mask, paste_back

SIDE = 16
POINTS = torch.tensor([[5.0, 6.0], [10.0, 6.5], [7.4, 9.0], [5.4, 11.0], [9.8, 11.2]])


class Told(InstantID):
    """Keeps what it is told."""

    def forward(self, x_t, t, label=None, **conditions):
        self.seen.append(conditions)
        return super().forward(x_t, t, label, **conditions)


def system():
    streams = {"text": Stream(Bag(8), route="join")}
    base = UNet(SIDE, channels=8, multipliers=(1,), attention=(), blocks=1, streams=streams)
    identity = ResampledIdentity(SmallIdentity(SIDE), 3, 8, 1, 2, 8)
    network = Told(Locked(base), identity, Hint(channels=3, widths=[4]))
    network.seen, guidance = [], [ClassifierFree(2.0), Static()]
    made = Diffusion(network, Cosine(20), V(), Simple(), Sampler(DDIM(), 2, guidance))
    made.spec = DataSpec("Small", (3, SIDE, SIDE), captioned=True)
    return made.eval()


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    made = system()
    with torch.no_grad():  # no zeros, so that everything that is read counts
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return made


def pictures(n=2):
    return 2 * torch.rand(n, 3, SIDE, SIDE) - 1


def test_what_the_mask_leaves_is_the_target_to_the_bit_and_the_face_is_not(trained):
    target, source = pictures(), pictures()
    points = torch.stack([POINTS, POINTS + 1])
    out, mask = DiffusionSwap(trained)(target, source, points)
    kept = (mask == 0).expand_as(out)
    assert 0.3 < kept.float().mean() < 0.9
    assert torch.equal(out[kept], target[kept])
    assert (out - target)[~kept].abs().mean() > 0.1
    eye = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]).double()
    pasted = paste_back(target[0], target[:1], out[:1], eye, mask[0])
    assert torch.equal(quantize(pasted)[kept[0]], quantize(target[0])[kept[0]])


def test_it_reads_the_source_the_targets_points_and_the_prompt(trained):
    target, source, points = pictures(1), pictures(1), POINTS[None]
    network = trained.denoiser.network
    network.seen.clear()
    swap = DiffusionSwap(trained, prompt="a red person", repeats=1)
    out, _ = swap(target, source, points)
    seen = {key: value[:1] for key, value in network.seen[0].items()}  # of the guided half
    torch.testing.assert_close(seen["identity"], network.identity.encoder.encode(source))
    assert torch.equal(seen["pose"], shares(key_points(points, SIDE)))
    assert torch.equal(seen["text"], network.streams.encoders["text"].read(["a red person"])[""])
    others = {
        "person": swap(target, pictures(1), points),
        "pose": swap(target, source, points + torch.tensor([0.0, 1.0])),
        "prompt": DiffusionSwap(trained, "a blue sky", 1)(target, source, points),
        "noise": DiffusionSwap(trained, "a red person", 1, seed=1)(target, source, points),
        "number": swap(target, source, points, first=1),
    }
    for name, (other, _) in others.items():
        assert not torch.equal(other, out), name
    assert torch.equal(swap(target, source, points)[0], out)


def test_it_samples_as_the_model_does_and_goes_back_and_forth(trained):
    own = trained.sampler
    swap = DiffusionSwap(trained, repeats=3).system.sampler
    assert isinstance(swap.step, RePaint)
    assert (swap.step.step, swap.step.repeats, swap.steps) == (own.step, 3, own.steps)
    assert swap.guidance[:-1] == own.guidance
    assert isinstance(swap.guidance[-1], Inpaint)
    assert trained.sampler is own
    assert len(own.guidance) == 2  # the model's own is as it was
    assert DiffusionSwap(trained, repeats=1).system.sampler.step is own.step
    again = DiffusionSwap(DiffusionSwap(trained).system, repeats=1).system.sampler.guidance
    assert [type(guide) for guide in again].count(Inpaint) == 1


def test_a_mask_lies_where_the_points_are(trained):
    aligned = SIDE * torch.tensor(TEMPLATE)
    assert torch.allclose(face_mask(SIDE, aligned), face_mask(SIDE), atol=1e-5)
    big, half = face_mask(64), face_mask(64, 32 * torch.tensor(TEMPLATE) + 16)
    assert half.sum().item() == pytest.approx(
        big.sum().item() / 4, rel=0.01
    )  # half as large, in the middle
    assert half[0, :16].max() == half[0, :, :16].max() == 0
    turned = face_mask(
        64, (64 * torch.tensor(TEMPLATE) - 32) @ torch.tensor([[0.0, 1], [-1, 0]]) + 32
    )
    assert torch.allclose(turned[0], big[0].rot90(-1), atol=1e-4)
    wide = face_mask(64, 16 * torch.tensor(TEMPLATE) + 24, grown=2.0)
    narrow = face_mask(64, 16 * torch.tensor(TEMPLATE) + 24)
    assert (wide >= narrow).all()
    assert (wide == 1).sum() > 4 * (narrow == 1).sum()
    masks = DiffusionSwap(trained).masks(torch.stack([aligned, aligned + 2]))
    assert torch.equal(masks[1], face_mask(SIDE, aligned + 2))


def test_what_cannot_swap_is_refused(trained):
    base = Diffusion(
        trained.denoiser.network.network, Cosine(20), V(), Simple(), Sampler(DDIM(), 3)
    )
    with pytest.raises(ValueError, match="network: UNet; expected an InstantID of pixels"):
        DiffusionSwap(base)
    with pytest.raises(ValueError, match="grown: 0; expected above 0"):
        DiffusionSwap(trained, grown=0)
    with pytest.raises(ValueError, match=r"repeats: 0; expected at least 1"):
        DiffusionSwap(trained, repeats=0)
