"""Texts are read once: by one process of a machine, into the folder of what is computed once."""

from types import SimpleNamespace

import lightning as L
import pytest
from torch import nn

from diffusion.callbacks.metrics import Metrics
from diffusion.networks.text.base import TextEncoder
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.texts import remember

DATA = SimpleNamespace(texts=["a", "b"])


class Encoder(TextEncoder):
    length = 3
    values = ("",)

    def __init__(self, events):
        super().__init__()
        self.events = events

    def read(self, texts):
        raise NotImplementedError

    def forward(self, values):
        raise NotImplementedError

    def sizes(self, texts):
        return [len(text) for text in texts]

    def remember(self, texts, cache, progress=True):
        self.events.append((texts, str(cache), progress))


@pytest.mark.parametrize(("rank", "first"), [(0, True), (1, False)])
def test_one_process_reads_while_the_others_wait(rank, first):
    events = []
    trainer = SimpleNamespace(
        local_rank=rank,
        is_global_zero=rank == 0,
        strategy=SimpleNamespace(barrier=lambda name: events.append(name)),
    )
    remember(nn.Sequential(Encoder(events)), DATA, "far", trainer)  # pyright: ignore
    expected = [(DATA.texts, "far", first), "texts"]
    assert events == (expected if first else expected[::-1])


def test_texts_are_kept_where_metrics_keep_what_they_compute(tmp_path):
    class Reader(Restorable):
        def __init__(self):
            super().__init__()
            self.events = []
            self.encoder = Encoder(self.events)

        def setup(self, stage):
            remember(self, DATA, self.cache, self.trainer)

        def train_dataloader(self):
            return [0]

        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    for callbacks, cache in (([], ".cache"), ([Metrics(cache=str(tmp_path))], str(tmp_path))):
        module = Reader()
        L.Trainer(
            max_steps=1, accelerator="cpu", callbacks=callbacks, default_root_dir=tmp_path,
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module)  # fmt: skip
        assert module.events == [(DATA.texts, cache, True)]
