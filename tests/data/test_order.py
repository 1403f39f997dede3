from itertools import chain, islice

import lightning as L
import pytest
import torch

from diffusion.data import Images, Memory


def labels(data, batches):
    return [batch["label"].tolist() for batch in islice(data.train_dataloader(), batches)]


def test_two_processes_read_what_one_would(numbered):
    one = labels(numbered(batch_size=10), 12)
    ranks = [labels(numbered(batch_size=5, rank=r, world=2), 12) for r in range(2)]
    for whole, even, odd in zip(one, *ranks):
        assert even == whole[0::2]
        assert odd == whole[1::2]


@pytest.mark.parametrize(("batch_size", "world"), [(5, 1), (10, 1), (2, 1), (5, 2), (3, 4)])
def test_whoever_goes_on_reads_what_comes_next(numbered, batch_size, world):
    whole = list(chain(*labels(numbered(batch_size=5), 40)))
    ranks = [
        labels(numbered(batch_size=batch_size, read=35, rank=rank, world=world), 3)
        for rank in range(world)
    ]
    seen = [one for batches in zip(*ranks) for one in chain(*zip(*batches))]
    assert seen == whole[35 : 35 + 3 * batch_size * world]


def train(data, batches, accumulate, begin=0):
    """Counts as a trainer's loop does; returns what a checkpoint after each batch would have."""
    found = []
    for n in range(batches):
        data.on_before_batch_transfer({}, 0)
        data.trainer.global_step = begin + (n + 1) // accumulate
        found.append(data.state_dict()["read"])
    return found


def test_what_an_unfinished_step_read_does_not_count(numbered):
    data = numbered(batch_size=5)
    assert train(data, 5, accumulate=2) == [0, 10, 10, 20, 20]
    other = numbered(batch_size=2, world=3)
    other.load_state_dict(data.state_dict())
    other.trainer.global_step = 2
    assert other.position == 20
    assert train(other, 3, accumulate=1, begin=2) == [26, 32, 38]
    other.trainer.training = False
    other.on_before_batch_transfer({}, 0)
    assert other.position == 38


EPOCHS = [
    ({}, None, None),
    ({"limit_train_batches": 4}, None, 4),
    ({"max_epochs": 2}, 7, 7),
    ({"check_val_every_n_epoch": 1}, 7, 7),
    ({"max_epochs": 2, "accumulate_grad_batches": 2}, 6, 6),
    ({"max_epochs": 2, "accumulate_grad_batches": 8}, 8, 8),
    ({"max_epochs": 2, "limit_train_batches": 3}, 7, 3),
    ({"limit_train_batches": 0.5}, 7, 3),
    ({"overfit_batches": 2, "limit_train_batches": 2}, 7, 2),
]


@pytest.mark.parametrize(("settings", "length", "epoch"), EPOCHS)
def test_an_epoch_is_a_pass_in_whole_steps_where_one_is_asked_for(
    numbered, settings, length, epoch
):
    data = numbered(batch_size=5, trainer=settings)
    loader = data.train_dataloader()
    assert data.batches_per_epoch == epoch
    if length is None:
        with pytest.raises(TypeError):
            len(loader)
    else:
        assert len(loader) == length


def test_the_same_batches_again_when_overfitting(numbered):
    settings = {"overfit_batches": 2, "limit_train_batches": 2}
    first = labels(numbered(batch_size=5), 2)
    assert labels(numbered(batch_size=5, trainer=settings), 6) == first * 3
    assert labels(numbered(batch_size=5, read=15, trainer=settings), 3) == [*first, *first][1:]
    halves = [labels(numbered(batch_size=5, trainer=settings, rank=r, world=2), 4) for r in (0, 1)]
    whole = labels(numbered(batch_size=10), 2)
    assert [half[:2] for half in halves] == [half[2:] for half in halves]
    assert halves[0][:2] == [batch[0::2] for batch in whole]


def test_every_epoch_is_another_permutation(numbered):
    read = list(chain(*labels(numbered(batch_size=4), 37)))
    epochs = [read[i : i + 37] for i in range(0, 4 * 37, 37)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_larger_than_the_set_spans_epochs(numbered):
    small = labels(numbered(batch_size=10), 10)
    assert labels(numbered(batch_size=100), 1) == [list(chain(*small))]


def test_seed_decides_the_order(numbered):
    assert labels(numbered(seed=1), 2) == labels(numbered(seed=1), 2)
    assert labels(numbered(seed=1), 2) != labels(numbered(seed=2), 2)


def test_order_ignores_the_global_generators(numbered):
    torch.manual_seed(0)
    before = labels(numbered(), 2)
    torch.manual_seed(1)
    assert labels(numbered(), 2) == before


def pixels(data, batches):
    return [batch["image"] for batch in islice(data.train_dataloader(), batches)]


def test_flips_are_decided_by_position_and_half(numbered):
    whole = torch.cat(pixels(numbered(n=100, batch_size=50, flip=True), 40))
    mirrored = whole[:, 0, 0, 0] > whole[:, 0, 0, 1]
    assert 900 < mirrored.sum() < 1100  # 4.5 standard deviations about 1000 of 2000
    assert (mirrored[:100] != mirrored[100:200]).any()
    resumed = torch.cat(pixels(numbered(n=100, batch_size=50, flip=True, read=350), 33))
    assert torch.equal(resumed, whole[350:])


def test_flip_mirrors_left_to_right_and_leaves_the_order(numbered):
    plain, flipped = (numbered(n=100, flip=flip) for flip in (False, True))
    for a, b in islice(zip(plain.train_dataloader(), flipped.train_dataloader()), 3):
        assert torch.equal(a["label"], b["label"])
        same = (a["image"] == b["image"]).all(dim=(1, 2, 3))
        turned = (a["image"].flip(-1) == b["image"]).all(dim=(1, 2, 3))
        assert (same ^ turned).all()
        assert turned.any()


def test_workers_change_nothing(numbered):
    alone = numbered(flip=True, batch_size=8)
    helped = numbered(flip=True, batch_size=8, num_workers=2)
    for a, b in islice(zip(alone.train_dataloader(), helped.train_dataloader()), 12):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])
    validation = [batch["label"].tolist() for batch in helped.val_dataloader()]
    assert validation == [batch["label"].tolist() for batch in alone.val_dataloader()]


class Numbers(Images):
    shape = (1, 1, 1)

    def setup(self, stage):
        numbers = torch.arange(11)
        images = numbers.to(torch.uint8).view(-1, 1, 1, 1)
        self.train_set = self.val_set = self.test_set = Memory(images, numbers)


class Recorder(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch):
        assert batch["image"].dtype == torch.float32
        self.seen.append(batch["label"].tolist())
        return self.weight * batch["image"].sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(steps, folder, checkpoint=None, **kwargs):
    model = Recorder()
    trainer = L.Trainer(
        max_epochs=-1,
        max_steps=steps,
        check_val_every_n_epoch=None,
        val_check_interval=1000,
        use_distributed_sampler=False,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **kwargs,
    )
    trainer.fit(model, Numbers(batch_size=3), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "last.ckpt")
    return model.seen


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_trainer_goes_on_in_the_same_order(tmp_path, accumulate):
    whole = fit(7, tmp_path, accumulate_grad_batches=accumulate)
    first = fit(3, tmp_path, accumulate_grad_batches=accumulate)
    last = tmp_path / "last.ckpt"
    assert first + fit(7, tmp_path, last, accumulate_grad_batches=accumulate) == whole
    assert len(whole) == 7 * accumulate


def test_limited_epochs_go_on_instead_of_starting_over(tmp_path):
    assert fit(7, tmp_path, limit_train_batches=2) == fit(7, tmp_path)
