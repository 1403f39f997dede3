"""Two processes on the CPU: the same as one that does both shares."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from diffusion.noise import SeededNoise, Use
from diffusion.systems.contrastive import Contrastive

pytestmark = pytest.mark.slow

SGD = ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1")


def command(*args, processes=2):
    flags = ["--trainer.accelerator=cpu", f"--trainer.devices={processes}"]
    if processes > 1:
        flags.append("--trainer.strategy=ddp")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "diffusion", *map(str, args), *flags]
    subprocess.run(call, check=True, env=environment, timeout=300)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_equal_those_of_one_process_that_reads_it_all_at_once(run, accumulate):
    """Times, noise and forgetting too; dropout alone differs from process to process."""
    flags = (*SGD, "--model.network.dropout=0")
    parts = f"--trainer.accumulate_grad_batches={accumulate}"
    command("fit", "--config=tiny.yaml", *flags, parts)
    one = ("--trainer.default_root_dir=one", f"--data.batch_size={16 * accumulate}")
    run.fit(*flags, *one)
    two, one = run.load(), torch.load(run.folder / "one/checkpoints/last.ckpt", weights_only=True)
    for key in ("state_dict", "raw_state_dict"):
        for name, weight in one[key].items():
            torch.testing.assert_close(two[key][name], weight, rtol=1e-5, atol=1e-6)


CLIP = """
model:
  class_path: Contrastive
  init_args:
    network:
      class_path: Towers
      init_args:
        image: {class_path: ViT, init_args: {image_size: 8, width: 16, depth: 1, heads: 2, T: 20}}
        text: {class_path: captioned.Bag}
    process: {class_path: Cosine, init_args: {T: 20}}
    clean: 0.2
data: {class_path: captioned.Captioned, init_args: {batch_size: 8}}
ema: {decay: 0.9}
wandb: "off"
trainer: {default_root_dir: run, max_steps: 4, limit_val_batches: 1.0}
"""


def test_pairs_of_all_processes_are_negatives(run, monkeypatch):
    """Two processes with 8 pairs each are one with 16: weights, and what validation finds."""
    (run.folder / "clip.yaml").write_text(CLIP)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    command("fit", "--config=clip.yaml", *SGD)

    def both(self, batch, batch_idx):
        self.network.log_scale.data.clamp_(max=math.log(100))
        images, texts, words, first = [], [], [], self.trainer.global_step << 32
        noise = SeededNoise(self.seed, range(first, first + 16), use=Use.TRAINING)
        t = self.random_times(noise)
        x_t = self.process.diffuse(batch["image"], t, noise(batch["image"]))
        for rank in range(2):
            text = batch["text"][rank::2]
            images.append(self.network.embed_image(x_t[rank::2], t[rank::2]))
            texts.append(self.network.embed_text(self.read({"text": text})))
            words += text
        logits = self.network.scale * torch.cat(images) @ torch.cat(texts).T
        same = torch.tensor([[a == b for a in words] for b in words]).fill_diagonal_(False)
        assert same.any()
        logits, own = logits.masked_fill(same, -torch.inf), torch.arange(16)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return {"loss": loss, "losses": loss.expand(16).detach(), "t": torch.ones(16).long()}

    monkeypatch.setattr(Contrastive, "training_step", both)
    one = ("--trainer.default_root_dir=one", "--data.batch_size=16", "--trainer.accelerator=cpu")
    run("fit", "--config=clip.yaml", *SGD, *one, "--trainer.devices=1")
    monkeypatch.undo()
    two, one = run.load(), torch.load(run.folder / "one/checkpoints/last.ckpt", weights_only=True)
    for name, weight in one["raw_state_dict"].items():
        torch.testing.assert_close(two["raw_state_dict"][name], weight, rtol=1e-4, atol=1e-6)
    monkeypatch.chdir(run.folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    found = []
    for n in (1, 2):
        place = f"--trainer.default_root_dir=run{n}"
        command("test", "--trust", "--ckpt_path", run.last, place, "--data.copies=7", processes=n)
        found.append(json.loads((run.folder / f"run{n}" / "retrieval.json").read_text()))
    assert found[0]["n"] == found[1]["n"] == 42  # 6 batches, the last of 2
    for name, value in found[0]["figures"].items():
        assert value == pytest.approx(found[1]["figures"][name], abs=1e-5), name


def test_predictions_are_the_same_files(run, fitted):
    base = ("predict", "--ckpt_path", fitted.last, "--data.samples=11", "--data.batch_size=3")
    for n in (1, 2):
        command(*base, f"--trainer.default_root_dir=run{n}", processes=n)
    files = [
        {p.name: p.read_bytes() for p in (run.folder / f"run{n}/predictions").glob("*.png")}
        for n in (1, 2)
    ]
    assert len(files[0]) == 12  # and grid.png
    assert files[0] == files[1]
    # One batch is left: a process has nothing to draw.
    (run.folder / "run2/predictions/000004_4.png").unlink()
    command(*base, "--trainer.default_root_dir=run2")
    again = {p.name: p.read_bytes() for p in (run.folder / "run2/predictions").glob("*.png")}
    assert again == files[0]


def test_npz_is_gathered_from_all_processes(run, fitted):
    import numpy as np

    base = ("predict", "--ckpt_path", fitted.last, "--data.samples=7", "--data.batch_size=3")
    base = (*base, "--trainer.default_root_dir=run")
    command(*base, "--writer.format=npz")
    path = run.folder / "run/predictions/samples.npz"
    with np.load(path) as file:
        assert file["index"].tolist() == list(range(7))
        images = file["images"]
    (run.folder / "run/predictions/000006_6.npy").unlink()
    path.unlink()
    command(*base, "--writer.format=npz")
    with np.load(path) as file:
        assert np.array_equal(file["images"], images)


def test_figures_are_the_same(run, fitted):
    flags = ("--metrics.n=21", "--metrics.batch_size=5")
    flags += ("--likelihood.n=25", "--likelihood.batch_size=10")
    for n in (1, 2):
        place = f"--trainer.default_root_dir=run{n}"
        command("test", "--ckpt_path", fitted.last, *flags, place, processes=n)
    for name in ("metrics.json", "likelihood.json"):
        one, two = (json.loads((run.folder / f"run{n}" / name).read_text()) for n in (1, 2))
        one, two = one.get("figures", one), two.get("figures", two)
        assert one.keys() == two.keys()
        for key in one:
            if isinstance(one[key], float) and "seconds" not in key:
                assert one[key] == pytest.approx(two[key], rel=1e-3, abs=1e-4), key


def test_fewer_batches_than_processes(run):
    """The 500 validation pictures are one batch, which one of two processes has."""
    found = []
    for n in (1, 2):
        flags = ("--data.batch_size=600", "--trainer.limit_val_batches=1.0")
        flags += (
            "--trainer.max_steps=2",
            "--trainer.val_check_interval=1",
            "--model.optimizer.lr=0",
        )
        place = f"--trainer.default_root_dir=run{n}"
        command("fit", "--config=tiny.yaml", *flags, place, processes=n)
        text = (run.folder / f"run{n}/csv/version_0/metrics.csv").read_text()
        rows = [float(r["val/loss"]) for r in csv.DictReader(text.splitlines()) if r["val/loss"]]
        assert len(rows) == 2
        found.append(rows)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_reading_goes_on_with_another_number_of_processes(run):
    flags = ("--config=tiny.yaml", "--trainer.log_every_n_steps=1")
    command("fit", *flags, "--trainer.max_steps=3")
    assert run.load()["Digits"] == {"read": 3 * 2 * 8}
    command("fit", *flags, "--trainer.max_steps=4", "--ckpt_path=last", processes=1)
    assert run.load()["Digits"] == {"read": 3 * 2 * 8 + 8}


def test_validation_is_the_same(run, fitted):
    losses = []
    for n in (1, 2):
        place = f"--trainer.default_root_dir=run{n}"
        batches = "--trainer.limit_val_batches=1.0"
        command("validate", "--ckpt_path", fitted.last, place, batches, processes=n)
        text = (run.folder / f"run{n}/csv/version_0/metrics.csv").read_text().split()
        losses.append(float(text[1].split(",")[text[0].split(",").index("val/loss")]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
