import pytest
import torch
from torch import nn

from diffusion.common.muon import MuonWithAdamW, orthogonal


def polynomial(s, iterations=5):
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.parametrize("shape", [(40, 70), (70, 40), (3, 50, 50)])
def test_singular_values_go_through_the_polynomial_and_vectors_stay(shape):
    G = torch.randn(shape, dtype=torch.float64)
    U, S, V = torch.linalg.svd(G, full_matrices=False)
    S = polynomial(S / S.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(orthogonal(G).double(), U * S[..., None, :] @ V, rtol=0, atol=1e-4)


def test_singular_values_end_near_1():
    s = polynomial(torch.linspace(0.01, 1, 1000, dtype=torch.float64))
    assert 0.6 < s.min() < s.max() < 1.3


def trained(make, shapes, steps=6):
    generator = torch.Generator().manual_seed(0)
    parts = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    optimizer = make(parts)
    for _ in range(steps):
        for p in parts:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return parts


def test_matrices_move_as_under_torchs_muon(monkeypatch):
    """Which computes in bfloat16; here the iteration of both is the exact polynomial's."""
    from torch.optim import _muon

    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", lambda G, *_: orthogonal(G))
    options = {"lr": 0.02, "weight_decay": 0.3, "momentum": 0.9}
    shapes = [(40, 64), (64, 40), (40, 64), (32, 32)]
    ours = trained(lambda p: MuonWithAdamW(p, **options), shapes)
    theirs = trained(
        lambda p: torch.optim.Muon(p, adjust_lr_fn="match_rms_adamw", **options), shapes
    )
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_matrices_move_as_under_torchs_muon_itself_but_for_its_rounding():
    """A step is of size 0.2 an entry; bfloat16 has 8 bits."""
    ours = trained(lambda p: MuonWithAdamW(p, lr=1.0, weight_decay=0.0), [(48, 64)], 1)
    theirs = trained(
        lambda p: torch.optim.Muon(p, lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        [(48, 64)],
        1,
    )
    assert (ours[0] - theirs[0]).square().mean().sqrt() < 0.01
    start = trained(lambda p: torch.optim.SGD(p, lr=0), [(48, 64)], 1)
    assert 0.12 < (ours[0] - start[0]).square().mean().sqrt() < 0.25


def test_a_kernel_moves_as_its_matrix_and_the_rest_as_under_adamw():
    shapes = [(40, 8, 3, 3), (64,), (3, 80), (40, 1, 3, 3)]
    options = {"lr": 0.01, "weight_decay": 0.1}
    ours = trained(lambda p: MuonWithAdamW(p, **options), shapes)
    rest = trained(lambda p: torch.optim.AdamW(p, **options), shapes)
    flat = trained(lambda p: MuonWithAdamW(p, **options), [(40, 72), *shapes[1:]])
    torch.testing.assert_close(ours[0].flatten(1), flat[0])
    for a, b in zip(ours[1:], rest[1:]):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(ours[0], rest[0], atol=1e-3)


@pytest.mark.slow
def test_it_resumes_bit_for_bit(run, same):
    """Kernels of the small network have few rows."""
    flags = [
        "--model.optimizer=MuonWithAdamW",
        "--model.optimizer.lr=1e-3",
        "--model.optimizer.least=8",
    ]
    run.fit(*flags)
    state = run.load()["optimizer_states"][0]["state"].values()
    assert {"momentum_buffer", "step"} in [set(s) for s in state]
    run.fit("--ckpt_path=last", "--trainer.max_steps=8", *flags)
    run.fit("--trainer.default_root_dir=other", "--trainer.max_steps=8", *flags)
    one, other = run.load(), run.load("other/checkpoints/last.ckpt")
    assert same(one["raw_state_dict"], other["raw_state_dict"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.0}, r"optimizer\.momentum: 1\.0; expected 0 ≤ momentum < 1"),
        ({"iterations": 0}, r"optimizer\.iterations: 0; expected at least 1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        MuonWithAdamW([nn.Parameter(torch.zeros(2))], **arguments)
