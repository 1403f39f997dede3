"""The prior against diffusers' network and scheduler, and on embeddings that are known exactly."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from captioned import Numbers
from diffusers.models.transformers.prior_transformer import PriorTransformer as Published
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import ClassifierFree
from diffusion.networks import EmbeddingPrior
from diffusion.noise import SeededNoise
from diffusion.objective import Simple
from diffusion.parameterization import X0
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDPM
from diffusion.systems.diffusion import Diffusion

D, WIDTH, HEADS, DEPTH, LENGTH = 6, 16, 2, 2, 5
NAMES = {
    "words": "encoder_hidden_states_proj",
    "vector": "embedding_proj",
    "z": "proj_in",
    "time.time_in": "time_embedding.linear_1",
    "time.time_out": "time_embedding.linear_2",
    "transformer.norm": "norm_out",
    "out": "proj_to_clip_embeddings",
}
BLOCK = {
    "norm_attention": "norm1",
    "norm_mlp": "norm3",
    "out": "attn1.to_out.0",
    "mlp_in": "ff.net.0.proj",
    "mlp_out": "ff.net.2",
}


class States(Numbers):
    """A text encoder of D numbers a token, of which a text has as many as it has words."""

    values = ("", "_mask", "_pooled")

    def read(self, texts):
        random = torch.Generator().manual_seed(0)
        states = torch.randn(len(texts), self.length, self.width, generator=random)
        sizes = torch.tensor([1 + len(text.split()) for text in texts])
        mask = torch.arange(self.length) < sizes[:, None]
        return {"": states, "_mask": mask, "_pooled": states.sum(1)}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    ours = EmbeddingPrior(D, States(D, LENGTH), WIDTH, DEPTH, HEADS)
    theirs = Published(HEADS, WIDTH // HEADS, DEPTH, embedding_dim=D, num_embeddings=LENGTH).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state = theirs.state_dict()
    found = {"position": state["positional_embedding"][0], "query": state["prd_embedding"][0, 0]}
    names = dict(NAMES)
    for i in range(DEPTH):
        one, other = f"transformer.blocks.{i}", f"transformer_blocks.{i}"
        names |= {f"{one}.{k}": f"{other}.{v}" for k, v in BLOCK.items()}
        for kind in ("weight", "bias"):
            parts = [state[f"{other}.attn1.to_{part}.{kind}"] for part in "qkv"]
            found[f"{one}.qkv.{kind}"] = torch.cat(parts)
    for kind in ("weight", "bias"):
        found |= {f"{k}.{kind}": state[f"{v}.{kind}"] for k, v in names.items()}
    ours.load_state_dict(found)
    return ours.eval(), theirs


def read(ours, *texts):
    return ours.read({"text": list(texts)})


@torch.no_grad()
def published(theirs, z, t, values):
    return theirs(z, t - 1, values["text_pooled"], values["text"], values["text_mask"])[0]


@torch.no_grad()
def test_the_network_is_the_published_one(networks):
    ours, theirs = networks
    z, t = torch.randn(3, D), torch.tensor([1, 500, 1000])
    values = read(ours, "a red fox", "", "one two three four")
    torch.testing.assert_close(
        ours(z, t, **values), published(theirs, z, t, values), atol=2e-5, rtol=1e-4
    )


@torch.no_grad()
def test_sampling_is_the_published_schedulers(networks):
    ours, theirs = networks
    scheduler = UnCLIPScheduler(prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(25)
    values, x, noise = read(ours, "a", "b c"), torch.randn(2, D), torch.randn(25, 2, D)
    z, times = x, scheduler.timesteps.tolist()
    for i, (t, s) in enumerate(zip(times, [*times[1:], None])):
        out = published(theirs, z, torch.tensor([t + 1, t + 1]), values)
        noise[i] = torch.randn(2, D, generator=torch.Generator().manual_seed(i))
        z = scheduler.step(out, t, z, s, torch.Generator().manual_seed(i)).prev_sample
    given = iter(noise)
    sampler = Sampler(DDPM(), 25, spacing="linspace")
    denoiser = NetworkDenoiser(ours, Cosine(), X0())
    found = sampler(denoiser, Cosine(), x, Condition(values), lambda _: next(given))
    torch.testing.assert_close(found, z, atol=1e-3, rtol=1e-3)  # its tables are in float32


@torch.no_grad()
def test_no_token_sees_what_stands_behind_it_or_is_not_there(networks):
    ours, _ = networks
    z, t = torch.randn(2, D), torch.tensor([7, 7])
    values, seen = read(ours, "a b", "a b"), []
    hook = ours.transformer.register_forward_hook(lambda _, __, out: seen.append(out))
    ours(z, t, **values)
    other = {**values, "text": values["text"].clone()}
    other["text"][:, 3:] += 9.0  # behind the text's end
    ours(z, t, **other)
    ours(z + 1, t, **values)
    hook.remove()
    assert torch.equal(seen[0][:, -1], seen[1][:, -1])
    assert torch.equal(seen[0][:, : LENGTH + 2], seen[2][:, : LENGTH + 2])  # text, vector and time
    assert not torch.equal(seen[0][:, -1], seen[2][:, -1])


def prior(text, p_uncond=0.1, **sizes):
    network = EmbeddingPrior(2, text, **{"width": 16, "depth": 1, "heads": 2, **sizes})
    sampler = Sampler(DDPM(), 10, [ClassifierFree(2.0)])
    return Diffusion(network, Cosine(), X0(), Simple(), sampler, p_uncond)


@torch.no_grad()
def test_the_null_forgets_the_text_and_keeps_z_t(networks):
    ours, _ = networks
    cond = Condition(read(ours, "a b", "c"), ours.null)
    z, t, null = torch.randn(2, D), torch.tensor([400, 900]), cond.drop()
    assert set(null.values) == {"text", "text_mask", "text_pooled"}
    empty = ours.read({"text": [""]})
    assert all(torch.equal(null.values[k][1], empty[k][0]) for k in empty)
    out = ours(z, t, **null.values)
    assert torch.equal(out, ours(z, t))  # nor does the text matter any more
    assert (out - ours(z + 0.1, t, **null.values)).abs().max() > 1e-3


def test_the_target_is_z_whatever_the_network_says():
    z, texts = torch.randn(8, 2), ["0.5"] * 8
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = prior(Numbers(1)).eval()
        t, eps = torch.full((8,), 300), torch.randn(8, 2)
        cond = model.network_condition({"text": texts})
        F, _ = model.denoiser.output(model.process.diffuse(z, t, eps), t, cond)
        loss = model.objective(model.denoiser, z, cond, t, eps)
        torch.testing.assert_close(loss, (F - z).square().mean(1))
        (gradient,) = torch.autograd.grad(loss.sum(), F, allow_unused=True)
        assert gradient is None  # of another evaluation: nothing is shared with the target


def test_a_tenth_of_the_texts_is_forgotten_whole():
    model = prior(Numbers(1))
    cond = model.network_condition({"text": ["1.5"] * 4096})
    dropped = cond.drop(model.p_uncond, noise=SeededNoise(0, range(4096))).values
    gone = dropped["text_pooled"][:, 0] == 0
    assert abs(gone.float().mean() - 0.1) < 3 * (0.09 / 4096) ** 0.5
    assert torch.equal(gone, (dropped["text"][:, 0, 0] == 0))


def test_the_papers_size_has_its_number_of_parameters():
    path = Path(__file__).parents[2] / "configs/dalle2_prior.yaml"
    sizes = yaml.safe_load(path.read_text())["model"]["network"]["init_args"]
    dim, w, d, length = sizes["dim"], sizes["width"], sizes["depth"], 77
    with torch.device("meta"):
        network = EmbeddingPrior(**{**sizes, "text": States(dim, length)})
    count = sum(parameter.numel() for parameter in network.parameters())
    read = 3 * (dim + 1) * w + 2 * (w + 1) * w  # text, vector and z; the time's two layers
    blocks = d * ((3 * w + w + 4 * w + 4 * w) * w + 9 * w + 4 * w)  # weights, biases, norms
    assert count == read + (length + 4) * w + w + blocks + 2 * w + (w + 1) * dim
    assert round(count / 1e9, 1) == 1.2  # "1B" in the paper


def ancestral(process, sampler, mu, S):
    """Mean and covariance of DDPM's samples by the exact denoiser of N(μ, S), step by step.

    x̂_0 = μ + K (x_t − α_t μ) with K = α_t S (α_t² S + σ_t² I)⁻¹, and each step is linear in both.
    """
    eye = torch.eye(2, dtype=torch.float64)
    m, C, times = torch.zeros(2, dtype=torch.float64), eye, sampler.times(process)
    for t, s in pairwise(times):
        (a_t, o_t), (a_s, o_s) = ((process.alpha[i], process.sigma[i]) for i in (t, s))
        K = a_t * S @ torch.linalg.inv(a_t**2 * S + o_t**2 * eye)
        a = a_t / a_s
        to_x_0, to_x_t = a_s * (1 - a**2) / o_t**2, a * o_s**2 / o_t**2
        M = to_x_0 * K + to_x_t * eye
        m = M @ m + to_x_0 * (mu - a_t * K @ mu)
        C = M @ C @ M.T + (1 - a**2) * o_s**2 / o_t**2 * eye
    return m.float(), C.float()


@pytest.mark.slow
def test_it_learns_the_conditional_mean_and_variance():
    """z = A c + B n with c, n normal: z given c is N(A c, B Bᵀ). The text is c, 1, and ∅ zeros.

    What 50 steps make of the exact denoiser is known; the rest is what the network has not learned.
    """
    A, B = torch.tensor([[1.0, -0.5], [0.3, 0.8]]), torch.tensor([[0.5, 0.0], [0.3, 0.4]])
    torch.manual_seed(0)
    model = prior(Numbers(3), width=32, depth=2, heads=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    steps = 3000
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        noise = SeededNoise(0, range(256 * step, 256 * step + 256))
        c, n = torch.randn(256, 2), torch.randn(256, 2)
        cond = model.network_condition({"text": [f"{a} {b} 1" for a, b in c.tolist()]})
        cond = cond.drop(model.p_uncond, noise=noise)
        z = c @ A.T + n @ B.T
        t, eps = model.objective.draw(model.process, z, noise)
        loss = model.objective(model.denoiser, z, cond, t, eps).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    sampler, each = Sampler(DDPM(), 50), 4000
    for c in ([0.5, 0.5], [1.0, -1.0]):
        cond = model.network_condition({"text": [f"{c[0]} {c[1]} 1"] * each})
        noise = SeededNoise(0, range(each))
        z = sampler(model.denoiser, model.process, noise.normal((2,)), cond, noise)
        mu = (A @ torch.tensor(c)).double()
        mean, covariance = ancestral(model.process, sampler, mu, (B @ B.T).double())
        print(c, z.mean(0), mean, z.T.cov(), covariance)
        torch.testing.assert_close(mean, mu.float(), atol=1e-3, rtol=0)
        torch.testing.assert_close(z.mean(0), mean, atol=0.06, rtol=0)
        torch.testing.assert_close(z.T.cov(), covariance, atol=0.08, rtol=0)
