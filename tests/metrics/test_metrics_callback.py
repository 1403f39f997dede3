import json
import warnings

import lightning as L
import pytest
import torch

from diffusion.callbacks.generation import sample_numbers
from diffusion.callbacks.metrics import Metrics
from diffusion.data import Digits, Memory
from diffusion.data.sets import ImageSet
from diffusion.metrics import Card, MadeBy, Measure
from diffusion.metrics.features.base import Extractor, real_features
from diffusion.metrics.manifold import precision_recall
from diffusion.systems.generative import Generative


class Replay(Generative, L.LightningModule):
    """Generates training images with the labels asked, or noise."""

    def __init__(self, conditional=True):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.conditional = conditional
        self.seeds = []

    shape, moments = (1, 8, 8), 1  # pyright: ignore

    @property
    def reads_labels(self):
        return self.conditional

    reads_anything = reads_labels

    def networks(self):
        return {}

    def settings(self):
        return {}

    def trajectory(self, batch, seeds):
        yield self.drawn(batch, seeds)

    def drawn(self, asked, seeds):
        self.seeds += list(seeds)
        if not self.conditional:
            rows = [
                torch.randn(self.shape, generator=torch.Generator().manual_seed(i)) for i in seeds
            ]
            return torch.stack(rows)
        batch = next(self.trainer.datamodule.batches("train", 1297))
        rows = []
        for label, seed in zip(asked["label"].tolist(), seeds):
            found = (batch["label"] == label).nonzero().flatten()
            rows.append(found[seed % len(found)])
        return batch["image"][torch.stack(rows)]

    def training_step(self, batch, i):
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, i):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder, *callbacks, **settings):
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=settings.pop("enable_progress_bar", False),
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"devices": 1, "use_distributed_sampler": False, "inference_mode": False, **settings},
    )


def test_dealt_samples_are_all_of_them_in_equal_batches():
    for n, batch_size, world in [(10, 4, 1), (10, 4, 2), (10, 3, 4), (3, 2, 8), (2, 250, 1)]:
        ranks = [sample_numbers(n, batch_size, rank, world) for rank in range(world)]
        assert {i for rounds in ranks for batch in rounds for i in batch} == set(range(n))
        sizes = [[len(batch) for batch in rounds] for rounds in ranks]
        assert all(s == sizes[0] and s and max(s) <= batch_size for s in sizes)
        assert sum(sizes[0]) * world < n + world


def test_figures_and_record(lenet, cache, tmp_path, capsys):
    metrics = Metrics(
        n=600, extractor=lenet, batch_size=250, judge=True, memorization=True, cache=str(cache)
    )
    module = Replay()
    run = trainer(tmp_path, metrics)
    logged = run.test(module, Digits(), verbose=False)[0]
    names = {"fd_lenet@600", "kid_lenet@600", "fd_lenet@500", "kid_lenet@500"}
    names |= {"fd_lenet_floor@500", "kid_lenet_floor@500", "label_accuracy@600"}
    names |= {"judge_accuracy@600", "near_copies@600", "near_copies_floor@500"}
    names |= {"seconds_per_image"}
    assert set(metrics.figures) == names
    assert set(logged) == {f"test/{name}" for name in names}
    assert metrics.figures["label_accuracy@600"] > 0.97
    assert metrics.figures["judge_accuracy@600"] > 0.97
    assert metrics.figures["near_copies@600"] == 1
    assert metrics.figures["fd_lenet@500"] < 2 * metrics.figures["fd_lenet_floor@500"]
    assert metrics.samples.shape == (512, 1, 8, 8)
    assert metrics.samples.dtype == torch.uint8
    assert module.seeds == list(range(600))
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["figures"] == metrics.figures
    assert record["n"] == 600
    assert record["extractor"]["accuracy"] == lenet.accuracy
    assert record["extractor"]["fingerprint"] == lenet.fingerprint
    assert record["reference"]["rule"] == "odd train images"
    assert record["reference"]["size"] == 648
    assert record["judge"]["test_accuracy"] > 0.97
    meaning = record["meanings"]["fd_lenet@500"]
    assert meaning["baseline"] == metrics.figures["fd_lenet_floor@500"]
    assert meaning["depends"] == ["extractor", "reference", "labels"]
    assert record["meanings"]["fd_lenet_floor@500"]["real"]
    assert "fd_lenet_floor@500" in capsys.readouterr().out
    run.test(module, Digits(), verbose=False)
    assert len(list(tmp_path.glob("metrics*.json"))) == 2


def test_batch_size_does_not_matter(lenet, cache, tmp_path):
    figures = []
    for batch_size, inference_mode in ((7, True), (100, False)):
        metrics = Metrics(n=100, extractor=lenet, batch_size=batch_size, cache=str(cache))
        run = trainer(tmp_path, metrics, inference_mode=inference_mode)
        run.test(Replay(), Digits(), verbose=False)
        figures.append({k: v for k, v in metrics.figures.items() if k != "seconds_per_image"})
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


class Pixels(Extractor):
    """Features that need no training."""

    name, distance, kernel, fingerprint = "pixels", "fd_pixels", "kid_pixels", "p"

    def prepare(self, data, cache, progress=True):
        self.prepared = True

    def __call__(self, images):
        return images.flatten(1).float() / 255, images.new_zeros(len(images), 0).float()


def test_card_measures_in_all_its_features(lenet, cache, tmp_path):
    card = Card(k=4, extractors=[Pixels()], samples=3, neighbours=2)
    metrics = Metrics(n=200, extractor=lenet, card=card, cache=str(cache))
    trainer(tmp_path, metrics).test(Replay(), Digits(), verbose=False)
    figures = metrics.figures
    assert card.extractors[0].prepared
    for which, rule in {"lenet": "odd", "pixels": "all"}.items():
        extractor = lenet if which == "lenet" else card.extractors[0]
        reference = real_features(Digits(), "train", rule, extractor, cache)
        ours = extractor(metrics.samples)[0]
        p, r = precision_recall(ours, reference, 4)
        assert figures[f"precision_adm_{which}_k4@200"] == pytest.approx(p, abs=0.006)
        assert figures[f"recall_adm_{which}_k4@200"] == pytest.approx(r, abs=0.006)
        assert 0.8 < figures[f"density_{which}_ceiling@200"] < 1.2
        assert 0.5 < figures[f"coverage_{which}@200"] <= 1
    assert figures["precision_adm_pixels_k4@200"] == 1  # they are training images
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["figures"] == figures
    assert record["features_pixels"]["rule"] == "all train images"
    assert record["features_pixels"]["adm"] == {"generated": 200, "real": 1297}
    assert record["features_lenet"]["k19"] == {"generated": 200, "real": 200}
    assert len(record["accuracy_by_label"]) == 10
    page = (tmp_path / "card.html").read_text()
    assert page.count("<img") == 1 + 3 * (1 + 2)
    assert 'alt="0.000"' in page  # the nearest training image is the sample itself


class Unbalanced(Digits):
    """Digits, of which 0 and 1 are common: 95 and 40 of each to train and test, of others 8 and 3.

    `rest` has pictures that are in neither.
    """

    def setup(self, stage):
        super().setup(stage)
        if hasattr(self, "rest"):
            return
        parts = [self.train_set, self.test_set]
        images = torch.cat([part.images for part in parts])
        labels = torch.cat([part.labels for part in parts])
        of_class = [images[labels == label] for label in range(10)]
        sizes = [(95, 40) if label < 2 else (8, 3) for label in range(10)]
        cut = [x.split([a, b, len(x) - a - b]) for x, (a, b) in zip(of_class, sizes)]
        train, test, self.rest = zip(*cut)
        self.train_set, self.test_set = (
            Memory(torch.cat(x), torch.arange(10).repeat_interleave(torch.tensor([*map(len, x)])))
            for x in (train, test)
        )


class Perfect(Replay):
    """Draws real pictures of the labels asked for."""

    def drawn(self, asked, seeds):
        data = self.trainer.datamodule
        rows = zip(asked["label"].tolist(), seeds)
        drawn = [data.rest[label][seed % len(data.rest[label])] for label, seed in rows]
        return data.normalize(torch.stack(drawn))


class Classes(Pixels):
    """Features in which classes lie apart, of a network that all digits trained."""

    def __init__(self, lenet):
        self.lenet = lenet

    def __call__(self, images):
        return self.lenet(images)[0], images.new_zeros(len(images), 0).float()


def test_a_perfect_model_of_unbalanced_data_is_near_the_floor(lenet, tmp_path, monkeypatch):
    cache = tmp_path / "cache"

    def measured(batch_size, **settings):
        metrics = Metrics(
            n=104, extractor=Classes(lenet), batch_size=batch_size, card=Card(), cache=str(cache)
        )
        trainer(tmp_path, metrics).test(Perfect(), Unbalanced(**settings), verbose=False)
        record = json.loads((tmp_path / "metrics.json").read_text())
        return metrics.figures["fd_pixels@104"], record["labels"], metrics.samples

    found, labels, samples = measured(50)
    floor = json.loads((tmp_path / "metrics.json").read_text())["figures"]["fd_pixels_floor@104"]
    assert found < 1.3 * floor
    assert labels == "as often as in the training split"
    assert torch.equal(samples, measured(7)[2])
    assert measured(50, labels=[0, 2])[1] == [0, 2]
    monkeypatch.setattr(Unbalanced, "frequencies", None)
    even, labels, _ = measured(50)
    assert even > 3 * floor
    assert labels is None


def test_samples_of_balanced_data_have_labels_in_turn_and_predictions_always():
    data, rare = Digits(), Unbalanced(samples=30, batch_size=30)
    assert data.measured(range(40))["label"].tolist() == [i % 10 for i in range(40)]
    assert rare.class_counts("train") == [95, 95, *[8] * 8]
    assert rare.measured(range(254))["label"].bincount().tolist() == [95, 95, *[8] * 8]
    assert next(iter(rare.predict_dataloader()))["label"].tolist() == [*range(10)] * 3
    assert Unbalanced(labels=[3, 5]).measured(range(3))["label"].tolist() == [3, 5, 3]


def test_classes_are_counted_where_a_set_does_not_say_them_without_pictures(monkeypatch):
    expected = Digits().class_counts("train")
    assert sum(expected) == 1297
    monkeypatch.setattr(Memory, "conditions", ImageSet.conditions)
    assert Digits().class_counts("train") == expected


def test_without_a_card_there_is_no_page(lenet, cache, tmp_path):
    metrics = Metrics(n=20, extractor=lenet, cache=str(cache))
    trainer(tmp_path, metrics).test(Replay(), Digits(), verbose=False)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    assert not [name for name in metrics.figures if "precision" in name]


def test_few_images_are_warned_of_once(lenet, cache, tmp_path):
    metrics = Metrics(n=84, extractor=lenet, cache=str(cache))
    run = trainer(tmp_path, metrics)
    with pytest.warns(UserWarning, match=r"metrics\.n: 84 images for features of 84 dimensions"):
        run.test(Replay(), Digits(), verbose=False)
    with warnings.catch_warnings(record=True) as found:
        run.test(Replay(), Digits(), verbose=False)
        metrics = Metrics(n=168, extractor=lenet, cache=str(cache))
        trainer(tmp_path, metrics).test(Replay(), Digits(), verbose=False)
    assert not [w for w in found if "dimensions" in str(w.message)]


def test_a_module_that_generates_nothing_is_left_alone(tmp_path):
    class Classifier(L.LightningModule):
        pass

    metrics = Metrics(n=4, cache=str(tmp_path))
    metrics.setup(_Attached(None), Classifier(), "test")
    metrics.on_test_epoch_end(_Attached(None), Classifier())
    metrics.on_validation_epoch_end(_Attached(None), Classifier())
    assert metrics.figures == {}


def test_labels_that_were_not_asked_are_not_judged(lenet, cache, tmp_path):
    metrics = Metrics(n=20, extractor=lenet, judge=True, cache=str(cache))
    trainer(tmp_path, metrics).test(Replay(conditional=False), Digits(), verbose=False)
    assert not [name for name in metrics.figures if "accuracy" in name]
    assert metrics.figures["fd_lenet@20"] > 2 * metrics.figures["fd_lenet_floor@20"]


def test_validations_are_counted(lenet, cache, tmp_path):
    module = Replay()
    metrics = Metrics(n=10, extractor=lenet, validate=True, every_n_validations=2, cache=str(cache))
    run = trainer(
        tmp_path,
        metrics,
        max_steps=6,
        max_epochs=-1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=1,
        enable_progress_bar=True,
    )
    run.fit(module, Digits())
    assert len(module.seeds) == 10  # three validations, of which the second
    assert "val/fd_lenet@10" in run.callback_metrics
    assert not list(tmp_path.glob("metrics*.json"))


def test_default_extractor_and_none(cache, digits, lenet, tmp_path):
    metrics = Metrics(n=4, cache=str(cache))
    trainer(tmp_path, metrics).test(Replay(), Digits(), verbose=False)
    assert metrics.extractor.fingerprint == lenet.fingerprint

    class Unlabelled(Digits):
        num_classes = None

    metrics = Metrics(n=4, cache=str(cache), judge=True)
    with pytest.warns(UserWarning, match="no labels and no extractor"):
        trainer(tmp_path, metrics).test(Replay(conditional=False), Unlabelled(), verbose=False)
    assert set(metrics.figures) == {"seconds_per_image"}


def test_points_are_left_alone(tmp_path):
    class Points(Replay):
        shape = (64,)

    module, metrics = Points(), Metrics(n=4, cache=str(tmp_path))
    with pytest.warns(UserWarning, match="not measured"):
        metrics.setup(_Attached(Digits()), module, "test")
    metrics.on_test_epoch_end(_Attached(Digits()), module)
    assert module.seeds == []


class _Attached:
    def __init__(self, data):
        self.datamodule = data


@pytest.mark.parametrize(
    ("key", "least"), [("n", 2), ("batch_size", 1), ("every_n_validations", 1)]
)
def test_settings_are_checked(key, least):
    with pytest.raises(ValueError, match=rf"metrics.{key}: 0; expected at least {least}"):
        Metrics(**{key: 0})


def test_needs_a_data_module():
    with pytest.raises(ValueError, match="datamodule is None"):
        Metrics().setup(_Attached(None), Replay(), "test")


@pytest.mark.slow
def test_two_processes_give_what_one_gives(lenet, cache, tmp_path):
    records = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        metrics = Metrics(n=101, batch_size=20, memorization=True, card=Card(), cache=str(cache))
        settings = {"devices": devices, "strategy": "ddp_spawn" if devices > 1 else "auto"}
        trainer(folder, metrics, **settings).test(Replay(), Digits(), verbose=False)
        records.append(json.loads((folder / "metrics.json").read_text())["figures"])
        records[-1].pop("seconds_per_image")
    assert records[0] == pytest.approx(records[1], rel=1e-4)


class Particular(Measure):
    """Refuses what is made by somebody it has a part of."""

    def check(self, data, by):
        assert isinstance(by, MadeBy)
        raise ValueError(f"metrics.measures: it knows {by.parts}; expected a stranger")

    def update(self, samples):
        raise AssertionError("nothing is drawn")

    def evaluate(self):
        return {}


def test_every_measure_is_asked_before_anything_is_drawn(tmp_path):
    module, measures = Replay(), [Particular()]
    with pytest.raises(ValueError, match=r"it knows frozenset\(\)|it knows set\(\)"):
        trainer(tmp_path, Metrics(4, measures=measures)).test(module, Digits(), verbose=False)
    assert module.seeds == []
