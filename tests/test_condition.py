import pytest
import torch

from diffusion.condition import Condition, Forget
from diffusion.noise import SeededNoise

B = 4096


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_each_sample_is_dropped_by_itself(p):
    label = torch.zeros(B, dtype=torch.long)
    cond, noise = Condition({"label": label}, {"label": 3}), SeededNoise(0, range(B))
    dropped = [cond.drop(p, noise=noise).values["label"] for _ in range(8)]
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
    cond = Condition(values, {"label": 3, "text": 0.0})
    cond = cond.drop(0.3, noise=SeededNoise(0, range(B)))
    gone = cond.values["label"] == 3
    assert 0 < gone.sum() < B
    assert torch.equal((cond.values["text"] == 0).all((1, 2)), gone)
    assert torch.equal((cond.values["text"] == 1).all((1, 2)), ~gone)
    assert cond.values["low_res"] is values["low_res"]
    assert (values["label"] == 0).all()


def test_null_may_be_a_tensor_and_learns():
    null = torch.randn(2, 3, requires_grad=True)
    text = torch.randn(64, 2, 3)
    cond = Condition({"text": text}, {"text": null})
    out = cond.drop(0.5, noise=SeededNoise(0, range(64))).values["text"]
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


def test_a_name_stands_for_all_tensors_of_its_condition():
    values = {k: torch.ones(3) for k in ("text", "text_mask", "texture", "label")}
    cond = Condition(values, dict.fromkeys(values, 0))
    kept = {k for k, v in cond.drop(keys=["text"]).values.items() if v.any()}
    assert kept == {"texture", "label"}
    with pytest.raises(ValueError, match=r"drop: tex; expected conditions with a ∅, \['text'"):
        cond.drop([Forget(["tex"], 0.5)])


def test_a_number_is_the_row_of_all_keys_to_the_last_bit():
    cond = Condition({"a": torch.ones(B), "b": torch.ones(B, 2)}, {"a": 0, "b": 0})
    gone = SeededNoise(3, range(B)).uniform() < 0.3
    for p in (0.3, [Forget(["a", "b"], 0.3)]):
        out = cond.drop(p, noise=SeededNoise(3, range(B))).values
        assert torch.equal(out["a"] == 0, gone)
        assert torch.equal(out["b"] == 0, gone[:, None].expand(B, 2))


TEXT, IMAGE = ["text"], ["image"]
SCHEMES = {  # rows, and how often (text gone, image gone) happens, by hand
    "text alone": (
        [Forget(TEXT, 0.5)],
        {(1, 0): 0.5, (0, 0): 0.5},
    ),
    "independently": (
        [Forget(IMAGE, 0.1), Forget(TEXT, 0.5)],
        {(0, 0): 0.45, (1, 0): 0.45, (0, 1): 0.05, (1, 1): 0.05},
    ),
    "exclusive": (
        [Forget(keys, 0.05, exclusive=True) for keys in (TEXT, IMAGE, TEXT + IMAGE)],
        {(0, 0): 0.85, (1, 0): 0.05, (0, 1): 0.05, (1, 1): 0.05},
    ),
    "exclusive beside an independent one": (
        [Forget(TEXT, 0.2, exclusive=True), Forget(IMAGE, 0.3), Forget(IMAGE, 0.4, exclusive=True)],
        {(1, 0): 0.2 * 0.7, (1, 1): 0.2 * 0.3, (0, 1): 0.8 * 0.3 + 0.7 * 0.4, (0, 0): 0.4 * 0.7},
    ),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_rows_happen_as_often_as_counting_says(name):
    rows, wanted = SCHEMES[name]
    assert abs(sum(wanted.values()) - 1) < 1e-12
    n = 100_000
    values = {"text": torch.ones(n, 2), "text_mask": torch.ones(n), "image": torch.ones(n)}
    cond = Condition(values, dict.fromkeys(values, 0))
    out = cond.drop(rows, noise=SeededNoise(0, range(n))).values
    text, image = out["text_mask"] == 0, out["image"] == 0
    assert torch.equal((out["text"] == 0).all(1), text)
    for kind in ((0, 0), (0, 1), (1, 0), (1, 1)):
        p = wanted.get(kind, 0.0)
        found = ((text == kind[0]) & (image == kind[1])).double().mean()
        assert abs(found - p) <= 4 * (p * (1 - p) / n) ** 0.5, kind


def test_rows_that_a_batch_does_not_have_are_passed_over():
    cond = Condition({"image": torch.ones(B)}, {"text": 0, "image": 0})
    rows = [Forget(TEXT, 0.5, exclusive=True), Forget(IMAGE, 0.5, exclusive=True)]
    gone = SeededNoise(0, range(B)).uniform() >= 0.5
    out = cond.drop(rows, noise=SeededNoise(0, range(B))).values
    assert torch.equal(out["image"] == 0, gone)


def test_chance_needs_noise():
    cond = Condition({"label": torch.arange(4)}, {"label": -1})
    with pytest.raises(ValueError, match=r"drop: p = 0.3; expected noise that decides, or 0 or 1"):
        cond.drop(0.3)
