"""Samples have the controls of the very pictures that they are asked for by."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion.data import Canny, Digits, Images, LowPass, Memory
from diffusion.data.captioned_images import CaptionedImages
from diffusion.data.controls.base import Control
from diffusion.networks import ControlMap, Network
from diffusion.systems.checks import check_controls


class First(Control):
    """A picture's first pixel, everywhere: says which picture it was."""

    def __call__(self, image: Tensor) -> Tensor:
        return ((image[:, :1, :1, :1] + 1) / 2).expand(-1, 1, *image.shape[2:])


def number_of(batch):
    return (batch["which"][:, 0, 0, 0] * 255).round().long().tolist()


def pictures(n):
    """Picture i has i in its first pixel and 255 − i in its last."""
    images = torch.zeros(n, 3, 4, 4, dtype=torch.uint8)
    images[:, :, 0, 0] = torch.arange(n)[:, None]
    images[:, :, -1, -1] = 255 - torch.arange(n)[:, None]
    return images


class Captioned(CaptionedImages):
    shape, num_classes = (3, 4, 4), 3

    def read_splits(self):
        labels = torch.arange(30) % 3
        texts = [[f"picture {i}"] for i in range(30)]
        self.train_set = self.val_set = self.test_set = Memory(pictures(30), labels, texts)
        return [text for (text,) in texts]


class Labelled(Images):
    shape, num_classes = (3, 4, 4), 3

    def setup(self, stage):
        labels = torch.tensor([0] * 20 + [1] * 8 + [2] * 2)
        self.train_set = self.val_set = self.test_set = Memory(pictures(30), labels)


class Plain(Images):
    shape = (3, 4, 4)

    def setup(self, stage):
        self.train_set = self.val_set = self.test_set = Memory(pictures(30))


def asked(data, batch):
    return data.on_after_batch_transfer(batch, 0)


@pytest.mark.parametrize("labels", [None, [2, 0]])
def test_a_caption_comes_with_the_control_of_its_picture(labels):
    data = Captioned(controls={"which": First()}, labels=labels)
    data.setup("predict")
    for request in (data.request, data.measured):
        batch = asked(data, request(range(40)))
        assert batch["text"] == [f"picture {i}" for i in number_of(batch)]
        assert batch["label"].tolist() == [i % 3 for i in number_of(batch)]
        assert len({*number_of(batch)}) == (30 if labels is None else 20)


def test_a_class_comes_with_the_control_of_a_picture_of_it():
    data = Labelled(controls={"which": First()})
    label = torch.tensor([0] * 20 + [1] * 8 + [2] * 2)
    for request in (data.request, data.measured):
        batch = asked(data, request(range(30)))
        assert torch.equal(batch["label"], label[number_of(batch)])
    assert batch["label"].bincount().tolist() == [20, 8, 2]  # as often as in training
    again = asked(data, data.request([4, 5, 7]))
    assert number_of(again) == [number_of(asked(data, data.request([i])))[0] for i in (4, 5, 7)]


def test_without_classes_every_picture_has_its_turn():
    data = Plain(controls={"which": First()})
    batch = asked(data, data.request(range(30)))
    assert sorted(number_of(batch)) == list(range(30)) != number_of(batch)


def test_a_control_is_computed_after_the_picture_was_mirrored():
    plain = Labelled(controls={"edges": Canny(), "colours": LowPass(2)}, flip=True)
    plain.setup("fit")
    batch = asked(plain, next(iter(plain.train_dataloader())))
    assert torch.equal(batch["edges"], Canny()(batch["image"]))
    assert torch.equal(batch["colours"], LowPass(2)(batch["image"]))
    last = ((batch["image"][:, 0, -1, 0] + 1) * 127.5).round()
    assert 0 < (last > 0).sum() < 64  # some are mirrored


def test_the_digest_says_which_pictures_and_how():
    data = Digits(controls={"edges": Canny()})
    note = data.asked()["controls"]
    assert note.startswith("edges: Canny(sigma=1.0, low=0.1, high=0.2) of val ")
    assert Digits(controls={"edges": Canny(2.0)}).asked()["controls"] != note


class Net(Network):
    def __init__(self, *maps):
        super().__init__()
        self.conditioners = maps

    def forward(self, x_t, t, **conditions):
        return x_t


def drawing(*maps):
    return [SimpleNamespace(denoiser=SimpleNamespace(contract=Net(*maps)))]


def test_what_the_network_reads_has_to_be_there():
    stages = drawing(ControlMap("edges", 1))
    check_controls(stages, Digits(controls={"edges": Canny()}))
    check_controls(drawing(), Digits(controls={"edges": Canny()}))
    with pytest.raises(ValueError, match=r"data\.controls: {}; expected 'edges' of 1 channels"):
        check_controls(stages, Digits())
    with pytest.raises(ValueError, match=r"data\.controls: {'edges': 3}; expected .* 1 channels"):
        check_controls(stages, Digits(controls={"edges": LowPass()}))
    with pytest.raises(ValueError, match=r"data\.control: null; expected a picture, .* 'edges'"):
        check_controls(stages, Captioned(controls={"edges": Canny()}, prompts=["a red fox"]))
    with pytest.raises(ValueError, match=r"data\.control: 'a\.png'; expected null, as nothing"):
        check_controls(drawing(), Digits(controls={"edges": Canny()}, control="a.png"))


class Wrong(Control):
    """A control that is not as promised, in one way or another."""

    def __init__(self, made):
        self.made = made

    def __call__(self, image: Tensor) -> Tensor:
        return self.made(image)


WRONG = {
    "range": (lambda x: x, r"data\.controls\.edges: -1 … 1; expected values in \[0, 1\]"),
    "nan": (lambda x: (x + 1) / (x + 1).amax((1, 2, 3), True), r"edges: nan … nan; expected val"),
    "size": (lambda x: x[..., ::2], r"edges: \(2, 1, 8, 4\); expected \(2, 1, 8, 8\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_control_that_is_no_picture_in_0_to_1_is_refused_before_training(wrong):
    made, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        check_controls(drawing(ControlMap("edges", 1)), Digits(controls={"edges": Wrong(made)}))


@pytest.fixture
def sketches(tmp_path):
    """A drawing of 16 x 8 pixels that is bright in the middle, and one of the data's size."""
    wide = torch.zeros(8, 16, dtype=torch.uint8)
    wide[:, 4:12] = torch.arange(8, dtype=torch.uint8) * 10
    square = torch.arange(64, dtype=torch.uint8).view(8, 8)
    (tmp_path / "many").mkdir()
    for name, pixels in (("wide", wide), ("many/1", square), ("many/2", wide)):
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{name}.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def given(control, *names, **more):
    data = Digits(controls=dict.fromkeys(names or ["edges"], Canny()), control=control, **more)
    return data.on_after_batch_transfer(data.request([0, 1, 2]), 0)


def test_a_sketch_is_read_at_the_datas_size_with_white_as_one(sketches, caplog):
    wanted = (torch.arange(8) * 10 / 255).expand(3, 1, 8, 8)
    with caplog.at_level("INFO"):
        torch.testing.assert_close(given(f"{sketches}/wide.png")["edges"], wanted)
    assert "is 16 x 8; its centre is cropped and resized to 8 x 8" in caplog.text
    with pytest.warns(UserWarning, match=r"mostly white, .* data\.invert_control: false turns it"):
        batch = given(f"{sketches}/wide.png", invert_control=True)
    torch.testing.assert_close(batch["edges"], 1 - wanted)


def test_samples_take_the_sketches_of_a_folder_in_turn(sketches):
    found = given(f"{sketches}/many")["edges"] * 255
    assert torch.equal(found[0].round().int(), torch.arange(64).view(1, 8, 8).int())
    assert torch.equal(found[0], found[2])
    both = {"a": f"{sketches}/many/1.png", "b": f"{sketches}/wide.png"}
    batch = given(both, "a", "b")
    torch.testing.assert_close(batch["a"][1] * 255, found[0])
    assert not torch.equal(batch["a"], batch["b"])


def test_prompts_with_a_sketch_need_no_pictures(sketches):
    data = Captioned(controls={"which": First()}, prompts=["a red fox"], control=f"{sketches}/many")
    check_controls(drawing(ControlMap("which", 1)), data)
    batch = data.on_after_batch_transfer(data.request([0]), 0)
    assert batch["text"] == ["a red fox"]
    assert batch["which"].shape == (1, 1, 4, 4)
    assert not data.is_set_up
    assert "control" in data.asked()


@pytest.mark.parametrize(
    ("control", "names", "message"),
    [
        ("nowhere.png", ["a"], "control: .*nowhere.png; expected a picture or a folder"),
        ("text.png", ["a"], "control: .*text.png; expected a picture"),
        ("empty", ["a"], "control: .*empty; expected pictures"),
        ("wide.png", ["a", "b"], "expected a picture for each of a, b, {name: file}"),
    ],
)
def test_a_wrong_file_is_named(sketches, control, names, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        given(f"{sketches}/{control}", *names)
