from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchvision.io import read_image

from diffusion.callbacks.samples import SamplePictures
from diffusion.common.schedules import Warmup
from diffusion.data import Digits
from diffusion.plots import pictures
from diffusion.systems.diffusion import Diffusion


@pytest.mark.parametrize("accumulate", [1, 2])
def test_samples_are_drawn_while_training(run, accumulate):
    run.fit("--samples.every_n_steps=2", f"--trainer.accumulate_grad_batches={accumulate}")
    names = sorted(p.name for p in (run.folder / "run/samples").iterdir())
    kinds = ("average", "raw")
    assert names == [f"step_000000{n}_{kind}.png" for n in (2, 4) for kind in kinds]
    raw, average = (read_image(str(run.folder / f"run/samples/{n}")) for n in names[1::-1])
    assert raw.shape == average.shape
    assert raw.shape[:2] == (3, 10 * 34 + 2)
    assert not torch.equal(raw, average)


def test_a_test_draws_a_row_a_class_and_the_way_to_the_first_of_each(run, fitted):
    run("test", "--ckpt_path", fitted.last, "--metrics.n=2")
    grid = read_image(str(run.folder / "run/samples.png"))
    way = read_image(str(run.folder / "run/trajectory.png"))
    names = [page[:, :, :-width] for page, width in ((grid, 2 * 34 + 2), (way, 3 * 34 + 2))]
    assert torch.equal(*names)
    for i in range(10):  # each row has its number
        assert names[0][:, 34 * i : 34 * i + 34].min() < 100
    grid, way = grid[:, :, -(2 * 34 + 2) :], way[:, :, -(3 * 34 + 2) :]
    assert grid.shape == (3, 10 * 34 + 2, 2 * 34 + 2)
    assert way.shape == (3, 10 * 34 + 2, 3 * 34 + 2)
    module = Diffusion.load_from_checkpoint(fitted.last)
    label = torch.arange(10).repeat_interleave(2)
    images = module.generate({"label": label}, range(20))
    expected = pictures.grid(images, 2)
    assert (grid.int() - expected.int()).abs().max() <= 1
    rows = [grid[:, 34 * i : 34 * i + 34, :34] for i in range(10)]  # the first of each class
    ends = [way[:, 34 * i : 34 * i + 34, 68:102] for i in range(10)]
    assert all(torch.equal(a, b) for a, b in zip(rows, ends))


def test_samples_are_drawn_in_batches_and_are_the_same(fitted, monkeypatch):
    module, data = Diffusion.load_from_checkpoint(fitted.last), Digits()
    trainer: Any = SimpleNamespace(
        datamodule=data, is_global_zero=True, progress_bar_callback=object()
    )
    sizes, draw = [], Diffusion.trajectory

    def spy(self, batch, seeds):
        sizes.append(len(seeds))
        return draw(self, batch, seeds)

    monkeypatch.setattr(Diffusion, "trajectory", spy)
    once = SamplePictures(columns=3, moments=3)._draw(trainer, module)
    some = SamplePictures(columns=3, moments=3, batch_size=7)._draw(trainer, module)
    assert sizes == [30, 7, 7, 7, 7, 2]
    assert once.names == some.names == [str(i) for i in range(10)]
    torch.testing.assert_close(some.x_0, once.x_0)
    assert [len(x) for x in some.way] == [10] * 3
    torch.testing.assert_close(torch.stack(some.way), torch.stack(once.way))
    assert torch.equal(once.way[-1], once.x_0[::3])


def factors(steps, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, found = Warmup(optimizer, **kwargs), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warm_up_and_decay():
    assert factors(5, warmup=4) == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert factors(7, warmup=2, total=6) == [1.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0]
    assert factors(3) == [2.0, 2.0, 2.0]
    with pytest.raises(ValueError, match=r"lr_scheduler\.total: 3"):
        factors(1, warmup=3, total=3)
