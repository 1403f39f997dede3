"""A text, an embedding, a picture: the stages of DALL-E 2, against the stages run by hand."""

import pytest
import torch
import torch.nn.functional as F
from captioned import Bag, Captioned, SmallClipImage, SmallClipText

from diffusion.candidates import Candidates
from diffusion.condition import Forget
from diffusion.networks import EmbeddingPrior, ImageEmbedding, Stream, UNet, Upsampler
from diffusion.objective import Simple
from diffusion.parameterization import X0, V
from diffusion.pipeline import trainer
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM
from diffusion.systems.cascade import Cascade
from diffusion.systems.checks import check_image_prompt
from diffusion.systems.diffusion import Diffusion

TEXTS = ["a red bar on the left", "a blue bar on the right"]


def trained(model):
    fitting = trainer(None, max_steps=1, accelerator="cpu", limit_val_batches=0)
    fitting.fit(model, Captioned(copies=1, batch_size=6))
    return model


@pytest.fixture(scope="module")
def stages():
    torch.manual_seed(0)
    network = EmbeddingPrior(12, SmallClipText(), 16, 1, 2)
    sampler = Candidates(2, "text_pooled", step=DDPM(), steps=4)
    prior = Diffusion(network, Cosine(20), X0(), Simple(), sampler, 0.1, codec=SmallClipImage())
    return trained(prior), *(trained(decoder(seed)) for seed in (0, 1))


def decoder(seed):
    streams = {"text": Bag(), "embedding": ImageEmbedding(SmallClipImage(seed=seed))}
    net = UNet(
        8, channels=8, multipliers=[1], attention=[], blocks=1, groups=4,
        streams={name: Stream(encoder) for name, encoder in streams.items()},
    )  # fmt: skip
    torch.nn.init.normal_(net.conv_out.weight, std=0.3)
    forget = [Forget(["embedding"], 0.1), Forget(["text"], 0.5)]
    return Diffusion(net, Cosine(20), V(), Simple(), Sampler(DDIM(), 3), forget)


def test_the_decoder_draws_what_the_prior_embeds(stages):
    prior, mine, _ = stages
    cascade = Cascade([prior, mine])
    cascade.seed = 5
    x = cascade.generate({"text": TEXTS}, [3, 4])
    prior.seed = 5
    z = prior.generate({"text": TEXTS}, [3, 4])
    assert z.shape == (2, 12)
    mine.seed = 5 + (1 << 32)
    assert torch.equal(x, mine.generate({"text": TEXTS, "embedding": z}, [3, 4]))
    other = mine.generate({"text": TEXTS, "embedding": -z}, [3, 4])
    assert (x - other).abs().max() > 1e-3
    alone = cascade.generate({"text": TEXTS[1:]}, [4])
    torch.testing.assert_close(alone, x[1:], atol=1e-4, rtol=1e-4)


def test_the_kept_candidate_is_the_nearer_one(stages):
    prior, *_ = stages
    batch, sampler = {"text": TEXTS * 20}, prior.sampler
    c = prior.condition(batch).values["text_pooled"]
    both = prior.generate(batch, range(40))
    prior.sampler = Sampler(DDPM(), 4)
    one = prior.generate(batch, range(40))
    prior.sampler = sampler

    def near(z):
        return torch.cosine_similarity(z, c)

    assert near(both).mean() > near(one).mean()


def test_a_decoder_of_another_clip_is_refused(stages):
    prior, _, other = stages
    with pytest.raises(ValueError, match=r"model\.checkpoints: a decoder of another CLIP's embed"):
        Cascade([prior, other])


def test_a_decoder_alone_draws_by_its_text(stages):
    _, mine, _ = stages
    assert mine.generate({"text": TEXTS}, [0, 1]).shape == (2, 3, 8, 8)


def upsampler():
    net = Upsampler(image_size=16, channels=8, multipliers=[1], attention=[], blocks=1, groups=4)
    torch.nn.init.normal_(net.conv_out.weight, std=0.3)
    return Diffusion(net, Cosine(20), X0(), Simple(), Sampler(DDIM(), 2))


def test_variations_of_a_picture_go_through_an_upsampler(stages):
    """The decoder reads the picture at its own size, the means of what becomes one pixel."""
    _, mine, _ = stages
    cascade = Cascade([mine, top := upsampler()])
    picture = torch.rand(2, 3, 16, 16) * 2 - 1
    drawn = cascade.generate({"text": ["", ""], "image_prompt": picture}, [3, 4])
    small = F.avg_pool2d(picture, 2)
    x_0 = mine.generate({"text": ["", ""], "image_prompt": small}, [3, 4])
    assert torch.equal(drawn, top.generate({"low_res": x_0}, [3, 4]))
    assert not torch.equal(x_0, mine.generate({"text": ["", ""]}, [3, 4]))


def test_a_picture_is_not_read_where_the_prior_draws_its_embedding(stages):
    prior, mine, _ = stages
    data = Captioned(copies=1, batch_size=6, image_prompt=True)
    data.setup("test")
    with pytest.raises(ValueError, match=r"data\.image_prompt: True; expected null"):
        check_image_prompt([prior, mine], data)
    check_image_prompt([mine], data)
