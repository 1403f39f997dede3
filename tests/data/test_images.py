from itertools import chain

import lightning as L
import pytest
import torch

from diffusion.data import Digits, Images, Memory, SwissRoll


@pytest.mark.parametrize("levels", [17, 256])
def test_normalize_is_exact_at_the_ends_and_round_trips(numbered, levels):
    data = numbered()
    data.levels = levels
    v = torch.arange(levels, dtype=torch.uint8)
    x = data.normalize(v)
    assert x.dtype == torch.float32
    assert x[0] == -1
    assert x[-1] == 1
    assert torch.equal(((x + 1) / 2 * (levels - 1)).round().to(torch.uint8), v)
    torch.testing.assert_close(x.diff(), torch.full((levels - 1,), 2 / (levels - 1)))


def test_loaders_carry_bytes_and_the_transfer_normalises(numbered):
    data = numbered()
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].dtype == torch.uint8
    moved = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(moved["image"], data.normalize(batch["image"]))
    assert torch.equal(moved["label"], batch["label"])
    request = {"index": torch.arange(3)}
    assert data.on_after_batch_transfer(request, 0) == request


def test_evaluation_deals_whole_batches_in_order(numbered):
    one = [b["label"].tolist() for b in numbered(batch_size=5).val_dataloader()]
    assert list(chain(*one)) == list(range(37))
    for rank in range(3):
        loader = numbered(batch_size=5, rank=rank, world=3).test_dataloader()
        assert [b["label"].tolist() for b in loader if b] == one[rank::3]
        assert len(loader) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_without_a_batch_gets_an_empty_one(numbered, workers):
    """37 pictures in 2 batches are for 3 processes."""
    every = [numbered(batch_size=20, rank=r, world=3, num_workers=workers) for r in range(3)]
    read = [list(data.val_dataloader()) for data in every]
    assert [[len(b["label"]) if b else 0 for b in batches] for batches in read] == [[20], [17], [0]]
    assert read[2] == [{}]
    assert every[2].on_after_batch_transfer({}, 0) == {}


def test_batches_gives_all_of_a_split_normalised(numbered):
    data = numbered(rank=1, world=2)
    batches = list(data.batches("val", batch_size=20))
    assert [len(batch["image"]) for batch in batches] == [20, 17]
    images = torch.cat([batch["image"] for batch in batches])
    assert torch.equal(images, data.normalize(data.val_set.images))


def test_a_few_of_a_split_are_spread_evenly(numbered):
    batches = list(numbered().batches("test", batch_size=3, n=5))
    assert [batch["label"].tolist() for batch in batches] == [[0, 7, 14], [22, 29]]
    assert sum(len(batch["label"]) for batch in numbered().batches("test", n=100)) == 37


def test_batches_sets_up_when_nobody_has():
    assert sum(len(batch["image"]) for batch in Digits().batches("train")) == 1297


def test_batches_refuses_an_unknown_split(numbered):
    with pytest.raises(ValueError, match=r"data.split: valid; expected one of train, val, test"):
        numbered().batches("valid")


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("num_workers", -1), ("samples", -1), ("seed", -1), ("seed", 2**32)],
)
def test_numbers_out_of_range_are_refused(numbered, key, value):
    with pytest.raises(ValueError, match=f"data.{key}: {value}; expected"):
        numbered(**{key: value})


def test_an_empty_training_set_is_refused(numbered):
    with pytest.raises(ValueError, match="data: no picture to train on"):
        numbered(n=0).train_dataloader()


def test_as_many_labels_as_images():
    with pytest.raises(ValueError, match="labels: 3; expected 2"):
        Memory(torch.zeros(2, 1, 1, 1), torch.arange(3))


def test_fingerprint_depends_on_pixels_and_labels_and_on_nothing_else(numbered):
    data = numbered()
    other = numbered(batch_size=3, num_workers=1, flip=True, seed=5, samples=9, labels=[1])
    assert data.fingerprint("val") == other.fingerprint("val")
    data.val_set.images[20, 0, 0, 1] += 1
    assert data.fingerprint("val") != other.fingerprint("val")
    data.val_set.images[20, 0, 0, 1] -= 1
    data.val_set.labels = data.val_set.labels.flip(0)
    assert data.fingerprint("val") != other.fingerprint("val")


def test_fingerprint_depends_on_the_split_and_the_levels():
    digits = Digits()
    train, val = digits.fingerprint("train"), digits.fingerprint("val")
    assert train != val == digits.fingerprint("test")
    digits.levels = 256
    assert digits.fingerprint("train") != train


def test_swiss_roll_is_the_curve_with_unit_variance():
    data = SwissRoll(noise=0.0, points=20_000)
    data.setup("fit")
    x = data.train_set.images.double()
    torch.testing.assert_close(x.mean(0), torch.zeros(2).double(), atol=0.03, rtol=0)
    assert x.var(0).mean() == pytest.approx(1, abs=0.02)
    # Undo the scaling: on the curve, the radius is the angle up to whole turns.
    turns = 9.75 * torch.pi**2 - 4 - (2 / (3 * torch.pi)) ** 2
    x = x * (turns / 2) ** 0.5 + torch.tensor([2.0, 2 / (3 * torch.pi)], dtype=torch.float64)
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    torch.testing.assert_close(torch.cos(radius - angle), torch.ones(20_000).double())
    assert radius.min() >= 1.5 * torch.pi - 1e-3
    assert radius.max() <= 4.5 * torch.pi + 1e-3


def test_swiss_roll_has_new_points_in_each_split_and_the_same_for_any_seed():
    a, b = SwissRoll(seed=0), SwissRoll(seed=1)
    assert len({a.fingerprint(split) for split in a.SPLITS}) == 3
    assert a.fingerprint("train") == b.fingerprint("train")
    assert a.fingerprint("train") != SwissRoll(points_seed=1).fingerprint("train")
    batch = next(a.batches("train", 10))
    assert torch.equal(batch["image"], a.train_set.images[:10])


def test_digits_split_is_stratified_disjoint_and_fixed():
    from sklearn.datasets import load_digits

    digits = Digits(seed=1)
    digits.setup("fit")
    train, test = digits.train_set, digits.test_set
    counts = torch.bincount(torch.from_numpy(load_digits().target))
    expected = counts * 500 / 1797
    assert ((torch.bincount(test.labels) - expected).abs() < 1).all()
    assert torch.equal(torch.bincount(train.labels) + torch.bincount(test.labels), counts)
    whole = torch.from_numpy(load_digits().data).to(torch.uint8)
    rows = [tuple(row) for row in whole.tolist()]
    split = [tuple(row) for s in (train, test) for row in s.images.flatten(1).tolist()]
    assert len(split) == 1797
    assert sorted(split) == sorted(rows)
    assert digits.fingerprint("test") == Digits().fingerprint("test") == "755a741bc97eae4e"


class Points(L.LightningModule):
    def predict_step(self, batch):
        return batch["index"].tolist()


def test_predict_through_a_trainer_needs_no_data(tmp_path):
    class Sampling(Images):
        shape = (1, 1, 1)

        def setup(self, stage):
            assert stage == "predict"

    trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    data = Sampling(samples=5, batch_size=2)
    data.done = lambda: {0, 1}
    assert trainer.predict(Points(), data) == [[2, 3], [4]]
