import re

import pytest
import torch
from torch import nn

from diffusion.systems.averages import EMA, Power, ScheduleFreeAdamW


def moved(gradients, y_0, rates, **options):
    """Returns y and x after all gradients."""
    p = nn.Parameter(y_0.clone())
    optimizer = ScheduleFreeAdamW([p], **options)
    for g, rate in zip(gradients, rates):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = g.clone()
        optimizer.step()
    return p.detach(), optimizer.averages([p])[0]


def test_it_moves_as_the_papers_three_sequences():
    """Algorithm 1, with x, y, z each kept."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    rates = [0.01, 0.02, 0.03, 0.03, 0.03, 0.01, 0.01, 0.03, 0.03]
    b_1, b_2, decay = 0.8, 0.95, 0.1
    x = z = y = torch.randn(5, generator=generator, dtype=torch.float64)
    v, squares, options = torch.zeros_like(x), [], {"betas": (b_1, b_2), "weight_decay": decay}
    found = moved(gradients, y, rates, **options)
    for k, (g, rate) in enumerate(zip(gradients, rates), 1):
        y = (1 - b_1) * z + b_1 * x
        v = b_2 * v + (1 - b_2) * g**2
        z = z - rate * (g / ((v / (1 - b_2**k)).sqrt() + 1e-8) + decay * y)
        squares.append(max(rates[:k]) ** 2)
        c = squares[-1] / sum(squares)
        x = (1 - c) * x + c * z
    torch.testing.assert_close(found, ((1 - b_1) * z + b_1 * x, x), rtol=1e-12, atol=1e-12)


def test_under_one_gradient_x_is_the_mean_of_all_steps():
    """Adam's step is then η for each entry, so z_k = z_0 − k η and x = z_0 − η (n + 1) / 2."""
    n, rate = 20, 0.1
    gradients = torch.tensor([[3.0, 0.2]], dtype=torch.float64).expand(n, 2)
    _, x = moved(gradients, torch.ones(2, dtype=torch.float64), [rate] * n, eps=0.0)
    torch.testing.assert_close(x, torch.full_like(x, 1 - rate * (n + 1) / 2))


def test_what_has_no_gradient_stays():
    still = nn.Parameter(torch.ones(2))
    optimizer = ScheduleFreeAdamW([still, nn.Parameter(torch.ones(1))])
    optimizer.step()
    assert optimizer.averages([still])[0].equal(torch.ones(2))


FLAGS = (
    "--model.optimizer=ScheduleFreeAdamW",
    "--model.optimizer.lr=1e-2",
    "--ema.decay=null",
)


def test_a_run_evaluates_and_keeps_its_average(run):
    run.fit(*FLAGS)
    kept = run.load()
    states = kept["optimizer_states"][0]["state"].values()
    names = list(kept["raw_state_dict"])
    for name, state in zip(names, states):
        y = kept["raw_state_dict"][name]
        x = state["z"] + (y - state["z"]) / 0.9
        torch.testing.assert_close(kept["state_dict"][name], x, msg=name)
    assert not all(kept["state_dict"][k].equal(kept["raw_state_dict"][k]) for k in names)


@pytest.mark.slow
def test_it_resumes_bit_for_bit(run, same):
    run.fit(*FLAGS)
    run.fit("--ckpt_path=last", "--trainer.max_steps=8", *FLAGS)
    run.fit("--trainer.default_root_dir=other", "--trainer.max_steps=8", *FLAGS)
    one, other = run.load(), run.load("other/checkpoints/last.ckpt")
    assert same(one["raw_state_dict"], other["raw_state_dict"])
    assert same(one["state_dict"], other["state_dict"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ema.decay=null"], r"ema\.decay: null; expected a number, as \w+ keeps no average"),
        (
            [*FLAGS, "--snapshots.every_n_steps=2"],
            r"snapshots\.every_n_steps: 2; expected 0, as",
        ),
        ([FLAGS[0]], r"ema\.decay: [\d.]+; expected null, the average that ScheduleFreeAdamW"),
    ],
)
def test_an_average_that_is_not_there_or_not_asked_for_is_refused(run, capsys, flags, message):
    with pytest.raises(SystemExit):
        run.fit(*flags)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"betas": (0.0, 0.9)}, r"optimizer\.betas: \(0\.0, 0\.9\); expected 0 < β₁ < 1"),
        ({"lr": -1.0}, r"optimizer\.lr: -1\.0; expected at least 0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScheduleFreeAdamW([nn.Parameter(torch.zeros(2))], **arguments)


def test_no_average_is_asked_for_by_its_length():
    assert EMA(None).decay is None
    with pytest.raises(ValueError, match=r"ema\.rate: Power; expected null, as ema\.decay is"):
        EMA(None, rate=Power(0.1))
