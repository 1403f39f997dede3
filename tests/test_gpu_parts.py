"""benchmarks/gpu.py in miniature, on the CPU: what `make gpu` runs on a card."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
FETCHED = (ROOT / "data/emoji").is_dir() and (ROOT / "data/FashionMNIST").is_dir()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FETCHED, reason="emoji or Fashion-MNIST are not in data/"),
]


@pytest.fixture
def part(tmp_path):
    def run(name, *more):
        command = [sys.executable, "benchmarks/gpu.py", name, "--device", "cpu", "--batch", "4"]
        command += ["--times", "1"]
        done = subprocess.run(
            [*command, "--to", str(tmp_path / "gpu"), *more],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / "gpu"

    return run


def test_all_of_its_tests_pass(part):
    found = json.loads((part("tests") / "tests.json").read_text())
    assert found == dict.fromkeys(("same_numbers", "no_waiting", "compiled"), "passed")


def test_rates_are_measured_once(part):
    folder = part("bench")
    rows = list(csv.DictReader((folder / "bench.csv").open()))
    found = [(row["what"], row["precision"]) for row in rows]
    assert found == [("step", x) for x in ("float32", "TF32", "bfloat16")] + [("pass", "bfloat16")]
    assert all(0 < float(row["share_of_matmul_peak"]) < 1 for row in rows)
    beside = list(csv.DictReader((folder / "peers.csv").open()))
    assert {"ours", "bare loop", "diffusers, best"} <= {row["way"] for row in beside}
    assert {row["batch"] for row in beside if row["what"] == "training step"} == {"4"}
    written = [(folder / name).read_bytes() for name in ("bench.csv", "peers.csv")]
    part("bench")
    assert written == [(folder / name).read_bytes() for name in ("bench.csv", "peers.csv")]


def test_what_is_trained_leaves_its_figures_and_weights(part):
    folder = part("train", "--seconds", "40")
    kinds = ("csv", "safetensors")
    left = {f"{name}.{kind}" for name in ("flow_fashion", "flow_emoji") for kind in kinds}
    assert {path.name for path in folder.iterdir()} == left
    assert (folder / "flow_fashion.csv").stat().st_size
    drawn = Pipeline.from_pretrained(folder.parent / "flow_fashion_gpu/exported").draw(labels=[3])
    assert drawn.shape == (1, 1, 28, 28)
