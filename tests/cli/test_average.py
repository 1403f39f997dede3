import json
import shutil

import pytest

from diffusion.common.weights import read
from diffusion.systems.averages.post_hoc import reconstructed, snapshots_until
from diffusion.systems.diffusion import Diffusion


@pytest.fixture(scope="module")
def averaged(once):
    with once("averaged") as run:
        run.fit("--snapshots.every_n_steps=1")
        run("average", "--ckpt_path", run.last, "--widths", "0.04", "--widths", "0.2")
        yield run


def test_the_best_length_is_written_as_a_model(averaged, same):
    folder = averaged.folder / "run"
    record = json.loads((folder / "average.json").read_text())
    assert record["figure"] == "fd_lenet@20"
    assert set(record["figures"]) == {"checkpoint", "0.04", "0.2"}
    best = min(("0.04", "0.2"), key=record["figures"].get)
    content = read(folder / "averaged")
    weights = reconstructed(snapshots_until(folder / "snapshots", 4), float(best), 4)
    assert same({k: content["state_dict"][k] for k in weights}, halved(weights))
    assert content["state_dict"].keys() == averaged.load()["state_dict"].keys()
    assert f"σ_rel = {float(best):g}" in (folder / "averaged/README.md").read_text()
    assert (folder / "average.png").stat().st_size > 1000
    model = Diffusion.load_from_checkpoint(folder / "averaged")
    assert same({k: v for k, v in model.state_dict().items() if k in weights}, halved(weights))


def halved(weights):
    return {k: v.half().float() for k, v in weights.items()}


def test_each_length_is_measured_with_its_own_weights(averaged):
    figures = json.loads((averaged.folder / "run/average.json").read_text())["figures"]
    assert len(set(figures.values())) == 3


def test_nothing_is_overwritten(averaged, capsys, monkeypatch):
    monkeypatch.chdir(averaged.folder)
    with pytest.raises(SystemExit):
        averaged("average", "--ckpt_path", averaged.last)
    assert "averaged exists; expected the name of a new folder" in capsys.readouterr().err


@pytest.fixture
def copied(fitted, run):
    shutil.copytree(fitted.folder / "run", run.folder / "run")
    return run.last


def test_a_run_without_snapshots(copied, refused):
    line = refused("average", "--ckpt_path", copied)
    assert "expected a run with snapshots" in line


def test_a_length_out_of_range(copied, refused):
    line = refused("average", "--ckpt_path", copied, "--widths", "0.4")
    assert line.startswith("width: 0.4; expected σ_rel above 0")
