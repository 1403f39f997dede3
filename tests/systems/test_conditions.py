"""Conditioners and forgetting, said in YAML and on the command line."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY

from diffusion.condition import Forget
from diffusion.systems.diffusion import Diffusion

FREE = "[{class_path: ClassifierFree, init_args: {scale: 2.0, drop: [%s]}}]"
LABEL = {"keys": ["label"], "p": 0.5, "exclusive": True}


def test_rows_are_said_in_yaml_and_kept_in_the_checkpoint(run, refused):
    run.write("rows.yaml", {"model": {"p_uncond": [LABEL]}})
    run.fit("--config", "rows.yaml", "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
    assert run.load()["hyper_parameters"]["p_uncond"] == [LABEL]
    model = Diffusion.load_from_checkpoint(run.last)
    assert model.p_uncond in (0.0, [Forget(**LABEL)])
    run(*("predict", "--ckpt_path", run.last, "--data.samples=2"), "--model.sampler.guidance",
        FREE % "label")  # fmt: skip
    line = refused("predict", "--ckpt_path", run.last, "--model.sampler.guidance", FREE % "text")
    assert line.startswith("guidance.drop: text; expected a network with a ∅ for it")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[{keys: [text], p: 0.1}]", r"model.p_uncond.keys: ['text']; expected some conditions"),
        ("[{keys: [], p: 0.1}]", "model.p_uncond.keys: []; expected some conditions"),
        ("[{keys: [label], p: 1.5}]", "model.p_uncond.p: 1.5; expected 0 … 1"),
        (
            "[{keys: [label], p: 0.6, exclusive: true}, {keys: [label], p: 0.5, exclusive: true}]",
            "model.p_uncond: 1.1 for all exclusive rows; expected at most 1",
        ),
        ("[{keys: [label], p: 0.0}]", "∅ for label, which was never trained"),
    ],
)
def test_rows_that_say_nothing_are_one_line(refused, rows, message):
    flags = ("--model.p_uncond", rows, "--model.sampler.guidance", FREE % "label")
    assert message in refused("fit", "--config", "tiny.yaml", *flags)


def test_an_upsampler_that_also_inpaints_is_said_in_yaml(run, tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"pictures/{i}.png")
    config = copy.deepcopy(TINY)
    augmentation = {
        "process": {"class_path": "Cosine", "init_args": {"T": 20}},
        "most": 9,
        "level": 4,
    }
    noise = {"class_path": "Augmentation", "init_args": augmentation}
    config["model"]["network"]["init_args"] |= {
        "image_size": 16,
        "num_classes": None,
        "inputs": [{"class_path": "LowResolution", "init_args": {"augmentation": noise}}, "Known"],
    }
    config["model"]["p_uncond"] = 0.0
    data = {"root": "pictures", "size": 16, "channels": 1, "low_size": 8, "batch_size": 8}
    config["data"] = {"class_path": "Upsampling", "init_args": {**data, "val_share": 0.5}}
    run.write("both.yaml", config)
    run("fit", "--config", "both.yaml", "--trainer.max_steps=3")
    model = Diffusion.load_from_checkpoint(run.last)
    network = model.denoiser.network
    assert network.conditions == network.required == ("low_res", "level", "known", "mask")
    assert network.conv_in.in_channels == 4
    batch = {"index": torch.arange(2), "low_res": torch.zeros(2, 1, 8, 8)}
    known = {"known": torch.ones(2, 1, 16, 16), "mask": torch.ones(2, 1, 16, 16)}
    free, told = (model.generate(b, [0, 1]) for b in (batch, {**batch, **known}))
    assert free.shape == (2, 1, 16, 16)
    assert not torch.equal(free, told)
