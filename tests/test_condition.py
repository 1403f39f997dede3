import pytest
import torch

from diffusion.condition import Condition

B = 4096


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_each_sample_is_dropped_by_itself(p):
    label = torch.zeros(B, dtype=torch.long)
    dropped = [Condition({"label": label}, {"label": 3}).drop(p).values["label"] for _ in range(8)]
    gone = torch.stack(dropped) == 3
    assert ((gone | (torch.stack(dropped) == 0)).all()).item()
    sigma = (p * (1 - p) / B) ** 0.5
    fraction = gone.double().mean(1)
    assert (abs(fraction - p) < 3 * sigma).all()
    assert abs(fraction.mean() - p) < 3 * sigma / 8**0.5
    assert gone.any(1).all()
    assert not gone.all(1).any()
    # Neighbours in a batch are independent, and so are two batches.
    x = gone.double() - p
    for other in (x.roll(1, 1), x.roll(1, 0)):
        assert abs((x * other).mean()) < 4 * p * (1 - p) / x.numel() ** 0.5


def test_keys_are_dropped_together_and_others_kept():
    values = {
        "label": torch.zeros(B, dtype=torch.long),
        "text": torch.ones(B, 2, 3),
        "low_res": torch.randn(B, 1, 2, 2),
    }
    cond = Condition(values, {"label": 3, "text": 0.0}).drop(0.3)
    gone = cond.values["label"] == 3
    assert 0 < gone.sum() < B
    assert torch.equal((cond.values["text"] == 0).all((1, 2)), gone)
    assert torch.equal((cond.values["text"] == 1).all((1, 2)), ~gone)
    assert cond.values["low_res"] is values["low_res"]
    assert (values["label"] == 0).all()


def test_null_may_be_a_tensor_and_learns():
    null = torch.randn(2, 3, requires_grad=True)
    text = torch.randn(64, 2, 3)
    out = Condition({"text": text}, {"text": null}).drop(0.5).values["text"]
    gone = (out != text).flatten(1).any(1)
    assert 0 < gone.sum() < 64
    assert torch.equal(out[gone], null.expand(int(gone.sum()), 2, 3))
    assert torch.equal(out[~gone], text[~gone])
    out.sum().backward()
    torch.testing.assert_close(null.grad, gone.sum().expand(2, 3).float())


@pytest.mark.parametrize("null", [torch.tensor(7), torch.tensor([7]), 7])
def test_null_of_a_number(null):
    out = Condition({"label": torch.arange(4)}, {"label": null}).drop().values["label"]
    assert out.tolist() == [7] * 4
    assert out.dtype == torch.long


def test_probabilities_zero_and_one_are_exact():
    cond = Condition({"label": torch.arange(B)}, {"label": -1})
    assert torch.equal(cond.drop(0.0).values["label"], torch.arange(B))
    assert (cond.drop().values["label"] == -1).all()


def test_only_the_keys_asked_for():
    cond = Condition({"a": torch.ones(4), "b": torch.ones(4)}, {"a": 0, "b": 0})
    out = cond.drop(keys=["b"]).values
    assert out["a"].tolist() == [1] * 4
    assert out["b"].tolist() == [0] * 4
    assert cond.drop(keys=iter(["a", "b"])).values["b"].tolist() == [0] * 4
    assert cond.drop(keys=[]).values["a"].tolist() == [1] * 4


def test_absent_conditions_need_no_dropping():
    assert Condition({}, {"label": 3}).drop().values == {}
    assert Condition().drop(0.5).cat(Condition()).values == {}


def test_cat_keeps_the_order():
    a = Condition({"label": torch.tensor([1, 2])}, {"label": 9})
    both = a.cat(a.drop())
    assert both.values["label"].tolist() == [1, 2, 9, 9]
    assert both.null == {"label": 9}
