"""Pages and files of samples say what controlled them; validations say how far it was obeyed."""

import csv
import json

import pytest
import torch
from PIL import Image
from torchvision.io import read_image

from diffusion.common.hashing import bytes_digest
from diffusion.data import Digits, LowPass
from diffusion.plots import pictures

CONTROL = "--data.controls={colours: {class_path: LowPass, init_args: {factor: 4}}}"
ADHERENCE = [
    "--metrics.validate=true",
    "--metrics.measures=[Adherence]",
    "--metrics.extractor=null",
]


def control(numbers):
    data = Digits(controls={"colours": LowPass(4)})
    return data.on_after_batch_transfer(data.request(numbers), 0)["colours"]


def test_a_row_of_controls_and_images():
    x, one, three = torch.rand(4, 1, 2, 2) * 2 - 1, torch.rand(2, 1, 2, 2), torch.rand(2, 3, 2, 2)
    page = pictures.after_controls([one, three], x, 2)
    assert page.shape == (8, 3, 2, 2)
    for row in range(2):
        first = page[4 * row : 4 * row + 4]
        torch.testing.assert_close(first[0], (2 * one[row] - 1).expand(3, -1, -1))
        torch.testing.assert_close(first[1], 2 * three[row] - 1)
        assert torch.equal(first[2:], x[2 * row : 2 * row + 2].expand(-1, 3, -1, -1))


@pytest.fixture(scope="module")
def colours():
    """The first two controls as they are drawn, 128 pixels wide."""
    bytes_ = (control(range(2)) * 255).round().byte().expand(-1, 3, -1, -1)
    return bytes_.repeat_interleave(16, -1).repeat_interleave(16, -2)


def test_pages_begin_with_controls_and_validations_log_adherence(run, colours):
    run.fit(
        CONTROL, *ADHERENCE, "--metrics.n=6", "--trainer.val_check_interval=2",
        "--samples.every_n_steps=4", "--samples.rows=2",
    )  # fmt: skip
    page = read_image(str(run.folder / "run/samples/step_0000004_raw.png"))
    assert page.shape[2] == 3 * 134 + 6  # the control and two samples a row
    assert (page[:, 6:134, 6:134].int() - colours[0].int()).abs().max() <= 1
    below = page.shape[1] // 2
    rows = [page[:, top : top + 128, 6:134] for top in range(below - 20, below + 20)]
    assert any((row.int() - colours[1].int()).abs().max() <= 1 for row in rows)
    (log,) = run.folder.glob("run/**/metrics.csv")
    lines = [row for row in csv.DictReader(log.open()) if row.get("val/adherence_colours@6")]
    assert len(lines) == 2
    assert {name for name in lines[0] if "lenet" in name} == set()
    own, shuffled, best, share = (
        float(lines[1][f"val/adherence_colours{end}@6"])
        for end in ("", "_shuffled", "_ceiling", "_share")
    )
    assert share == pytest.approx((own - shuffled) / (best - shuffled), rel=1e-4)
    assert best < 0.1  # of 256 grey levels; digits have 17, which the samples' rounding moves


def test_predictions_say_their_controls(run, fitted, colours):
    run("predict", "--ckpt_path", fitted.last, "--data.samples=4", CONTROL)
    folder = run.folder / "run/predictions"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["data"]["controls"].startswith("colours: LowPass(factor=4) of ")
    page = read_image(str(folder / "grid.png"))
    assert page.shape[2] == 4 * 134 + 6  # two samples a row, each after its control
    for i in range(2):
        left = 6 + 2 * 134 * i
        assert (page[:, 6:134, left : left + 128].int() - colours[i].int()).abs().max() <= 1
    for i, given in enumerate(control(range(4))):
        with Image.open(folder / f"00000{i}_{i}.png") as file:
            expected = bytes_digest(given.numpy().tobytes())
            assert file.text["diffusion.control.colours"] == expected
