import csv
import itertools
import math
import shutil

import pytest
import torch
import yaml
from exact import Gaussian

from diffusion.cli.choosing.bounds import Tried, chosen, cut, search
from diffusion.cli.choosing.jackknife import Jackknife, error
from diffusion.condition import Condition
from diffusion.guidance import ClassifierFree
from diffusion.metrics.distance import frechet
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM

SAME = torch.zeros(8, dtype=torch.float64)


def tried(interval, distance, nfe=0.0, obeys=None, without=SAME, n=100):
    return Tried(interval, distance, without + distance, nfe, obeys, n)


def test_the_pieces_are_neighbours_and_reach_both_ends():
    times = Sampler(DDIM(), 10).times(1000)
    assert cut(times, 1000, 3) == [(700, 1000), (400, 600), (1, 300)]
    leading = Sampler(DDIM(), 10, spacing="leading").times(1000)
    assert cut(leading, 1000, 2) == [(501, 1000), (1, 401)]
    with pytest.raises(ValueError, match="pieces: 11; expected 2 … 10"):
        cut(times, 1000, 11)


class TwoGaussians:
    """The exact denoiser of N(0, 1) without the label, and of N(0.7, 0.5²) with it."""

    def __init__(self, process):
        self.without, self.labelled = Gaussian(process, 0.0, 1.0), Gaussian(process, 0.7, 0.5)

    def __call__(self, x_t, t, cond):
        known = cond.values["label"].bool()
        both = self.labelled(x_t, t), self.without(x_t, t)
        return both[0].with_x_0(torch.where(known[:, None], both[0].x_0, both[1].x_0))


@pytest.mark.parametrize(("mean", "std"), [(0.75, 0.42), (0.8, 0.3)])
def test_the_search_finds_what_trying_all_intervals_finds(mean, std):
    """With affine denoisers the samples are normal, so two points say what they are worth.

    The model is of N(0.7, 0.5²), the data N(mean, std²): the distance of the two is what some
    guidance makes smaller, and which interval does is known by trying all of them.
    """
    process = Cosine(100)
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    cond = Condition({"label": torch.ones(2, dtype=torch.long)}, {"label": 0})

    def measure(interval):
        sampler = Sampler(DDIM(), 24, [ClassifierFree(3.0, interval=interval)])
        x = sampler(TwoGaussians(process), process, ends, cond)
        distance = (x.mean() - mean) ** 2 + ((x[1] - x[0]) / 2 - std) ** 2
        inside = sum(interval[0] <= t <= interval[1] for t in sampler.times(process)[:-1])
        return tried(interval, distance.item(), 24.0 + int(inside))

    grid = cut(Sampler(DDIM(), 24).times(process), 100, 6)
    every = [measure((a[0], b[1])) for b, a in itertools.combinations_with_replacement(grid, 2)]
    found = search(grid, measure)
    best = min(every, key=lambda x: x.distance)
    assert chosen(found).interval == best.interval
    assert len(found) < len(every)
    assert found[0].interval == (1, 100)
    assert best.distance < 0.7 * found[0].distance


def test_the_cheapest_within_the_error_is_chosen_but_not_if_it_obeys_less():
    noisy = torch.tensor([0.1, -0.1] * 4, dtype=torch.float64)
    whole = tried((1, 100), 1.0, 100, 0.95)
    allowed = error(noisy, SAME)
    assert allowed == pytest.approx(0.1 * math.sqrt(7))
    cheap = tried((1, 50), 1.0 + 0.9 * allowed, 75, 0.95, noisy)
    far = tried((1, 30), 1.0 + 1.1 * allowed, 60, 0.95, noisy)
    loose = tried((1, 20), 0.5, 55, 0.90)
    assert chosen([whole, cheap, far]) is cheap
    assert chosen([whole, cheap, loose, far]) is cheap
    assert chosen([whole, cheap, loose, far], least=0.85) is loose
    assert chosen([whole, cheap, loose], least=1.0) is cheap  # the most obedient
    p = 96 / 102
    near = tried((1, 20), 0.5, 55, 0.95 - 0.99 * math.sqrt(p * (1 - p) / 100))
    assert chosen([whole, near]) is near


class Given:
    """An extractor of features that are there already."""

    reference = "all"


def test_the_error_is_that_of_distances_of_new_samples():
    """Of paired differences; drawn anew 60 times, they spread as one set's jackknife says."""
    real = torch.randn(4000, 3, dtype=torch.float64)
    spread, said = [], []
    for _ in range(60):
        x = torch.randn(400, 3, dtype=torch.float64)
        distances = []
        for samples in (x * 1.3, x * 1.1 + 0.05):
            measure = Jackknife(Given())
            measure.real = real.mean(0), real.T.cov()
            measure.index, measure.features = [torch.arange(400)], [samples]
            assert measure.evaluate() == {}
            distances.append(measure.distances)
        said.append(error(*distances))
        spread.append(frechet(x * 1.3, real) - frechet(x * 1.1 + 0.05, real))
    known = torch.tensor(spread).std().item()
    assert torch.tensor(said).square().mean().sqrt().item() == pytest.approx(known, rel=0.25)


@pytest.fixture(scope="module")
def searched(once, fitted):
    with once("interval") as run:
        shutil.copytree(fitted.folder / "run", run.folder / "run")
        guidance = [{"class_path": "ClassifierFree", "init_args": {"scale": 3.0}}, "Static"]
        run.write("guided.yaml", {"model": {"sampler": {"guidance": guidance}}})
        options = ["--pieces", "2", "--n", "16", "--steps", "4", "--config", "guided.yaml"]
        run("interval", "--ckpt_path", run.last, *options)
        yield run


def test_what_it_writes_is_that_sampler(searched, monkeypatch):
    from diffusion.cli.choosing.parts import Parts

    monkeypatch.chdir(searched.folder)
    folder = searched.folder / "run"
    rows = list(csv.DictReader((folder / "interval.csv").open()))
    (choice,) = (row for row in rows if row["chosen"] == "1")
    model = Parts(searched.last, ["--config=run/interval.yaml"]).model
    free, static = model.sampler.guidance
    assert (free.scale, free.interval) == (3.0, (int(choice["first"]), int(choice["last"])))
    assert type(static).__name__ == "Static"
    text = (folder / "interval.yaml").read_text()
    assert "fd_lenet@16" in text
    assert "n = 16, against" in text
    assert yaml.safe_load(text).keys() == {"model"}
    assert (folder / "interval.png").stat().st_size > 1000
    assert {int(row["last"]): float(row["nfe"]) for row in rows} == {20: 8, 10: 6, 0: 4}
    assert "label_accuracy@16" in rows[0]


def test_nothing_is_overwritten(searched, capsys, monkeypatch):
    monkeypatch.chdir(searched.folder)
    with pytest.raises(SystemExit):
        searched("interval", "--ckpt_path", searched.last)
    assert "interval.yaml exists; expected the name of a new file" in capsys.readouterr().err


def test_a_sampler_without_guidance(fitted, refused):
    line = refused("interval", "--ckpt_path", fitted.last)
    assert line.startswith("guidance: the sampler has no guidance; expected ClassifierFree")


def test_a_network_that_always_reads_its_label(run, refused):
    """Which `fit` lets through where the sampler does not guide."""
    run.fit("--model.network.null_class=false", "--model.p_uncond=0")
    guidance = [{"class_path": "ClassifierFree", "init_args": {"scale": 3.0}}]
    run.write("guided.yaml", {"model": {"sampler": {"guidance": guidance}}})
    line = refused("interval", "--ckpt_path", run.last, "--config", "guided.yaml")
    assert line.startswith("guidance: the network has no ∅; expected ClassifierFree")
