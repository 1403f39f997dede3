"""`diffusion test` with an evaluation card, and `diffusion compare`, through the command line."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

CARD = Path(__file__).parents[2] / "configs/eval/card.yaml"
GUIDED = {
    "model": {
        "sampler": {
            "guidance": [{"class_path": "ClassifierFree", "init_args": {"scale": 2.0}}],
        }
    }
}


def record(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def tested(fitted, tmp_path_factory):
    """Two tests of one checkpoint, with and without guidance."""
    folder = tmp_path_factory.mktemp("tested")
    (folder / "guided.yaml").write_text(yaml.safe_dump(GUIDED))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fitted.folder)
        test = ("test", "--ckpt_path", fitted.last, "--config", str(CARD), "--metrics.n", "25")
        fitted(*test, "--trainer.default_root_dir", folder / "plain")
        place = ("--trainer.default_root_dir", folder / "guided")
        fitted(*test, "--config", folder / "guided.yaml", *place)
    return folder


def test_the_overlay_makes_a_card(tested):
    figures = record(tested / "plain")["figures"]
    assert {"precision_adm_lenet@25", "recall_k19_lenet@25", "near_copies@25"} <= set(figures)
    assert 0 <= figures["coverage_lenet@25"] <= 1
    page = (tested / "plain/card.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<img") == 1 + 16 * 8


def test_evaluations_are_counted(tested):
    plain, guided = record(tested / "plain"), record(tested / "guided")
    assert plain["figures"]["nfe"] == 3  # as many as steps
    assert guided["figures"]["nfe"] == 6  # two passes each
    assert "classifier_nfe" not in plain["figures"]


def test_the_record_says_how_the_images_were_drawn(tested):
    plain, guided = record(tested / "plain"), record(tested / "guided")
    assert plain["sampler"] == {
        "step": "DDIM(eta=1.0, variance=small)",
        "steps": 3,
        "spacing": "trailing",
        "guidance": ["Static"],
    }
    assert guided["sampler"]["guidance"][0].startswith("ClassifierFree(scale=2.0")
    assert plain["checkpoint"]["path"].endswith("last.ckpt")
    assert plain["checkpoint"] == guided["checkpoint"]
    assert len(plain["checkpoint"]["fingerprint"]) == 16


def test_compare(tested, run):
    run("compare", tested / "plain", tested / "guided", "--output", "both")
    rows = list(csv.DictReader((run.folder / "both.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["plain", "guided"]
    assert [float(row["nfe"]) for row in rows] == [3, 6]
    page = (run.folder / "both.html").read_text()
    assert "<b class=best>3</b>" in page
    assert page.count('src="data:image/png;base64,') == 2


def test_compare_refuses_in_one_line(tested, run, refused):
    assert "1 card; expected two or more" in refused("compare", tested / "plain")
    assert "runs: missing" in refused("compare")
    assert "nearest is 'output'" in refused("compare", "a", "b", "--outptu", "c")
    shutil.copytree(tested / "plain", run.folder / "plain")
    assert "both called 'plain'" in refused("compare", tested / "plain", "plain")
    (run.folder / "empty").mkdir()
    assert "empty/metrics.json does not exist" in refused("compare", "plain", "empty")


def test_help_lists_the_commands(run, capsys):
    for args in ((), ("--help",)):
        run(*args)
    assert "compare Puts the figures" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        run("compare", "--help")
    assert end.value.code == 0
    assert "metrics.json" in capsys.readouterr().out


def test_too_many_neighbours_are_refused_before_anything_is_drawn(fitted, refused, monkeypatch):
    from diffusion.systems.diffusion import Diffusion

    monkeypatch.setattr(Diffusion, "generate", lambda *_: pytest.fail("drew"))
    test = ("test", "--ckpt_path", fitted.last, "--config", CARD)
    line = refused(*test, "--metrics.n", "500", "--metrics.card.k", "600")
    assert line == "metrics.card.k: 600; expected at least 1, less than n = 500"
    assert "metrics.card.k_coverage: 5; expected" in refused(*test, "--metrics.n", "5")
