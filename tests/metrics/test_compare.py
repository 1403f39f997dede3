import copy
import csv
import json
from pathlib import Path

import pytest

from diffusion.metrics import Figure
from diffusion.metrics.report.compare import best, compare, every, read_card, why_not
from diffusion.metrics.report.record import recorded_figures, stored

OF_FEATURES = {"title": "FD", "phrase": "A distance.", "better": "low"}
OF_FEATURES |= {"depends": ("extractor", "reference", "labels")}
FIGURES = {
    "fd_lenet@100": Figure(2.0, 100, **OF_FEATURES),
    "fd_lenet@50": Figure(2.5, 50, **OF_FEATURES),
    "fd_lenet_floor@50": Figure(2.5, 50, **OF_FEATURES).floor(0.5),
    "precision_adm_lenet@100": Figure(
        0.5, 100, "Precision", "", "high", True, ("features_lenet", "reference", "labels")
    ),
    "near_copies@100": Figure(0.1, 100, "Near copies", share=True, depends=("data", "labels")),
    "nfe": Figure(50.0, None, "NFE", "", "low"),
    "seconds_per_image": Figure(
        0.25, None, "Seconds", "", "low", depends=("hardware", "batch_size")
    ),
}
RECORD = {
    **stored(FIGURES),
    "n": 100,
    "data": {"name": "Digits", "shape": [1, 8, 8]},
    "reference": {"rule": "odd train images", "size": 648, "fingerprint": "aa"},
    "extractor": {"name": "lenet", "fingerprint": "bb", "accuracy": 0.98},
    "features_lenet": {
        "name": "lenet",
        "fingerprint": "bb",
        "accuracy": 0.98,
        "adm": {"real": 648},
    },
    "judge": None,
    "sampler": {"step": "DDIM(eta=0.0)", "steps": 50},
    "checkpoint": None,
    "hardware": {"device": "cpu"},
    "batch_size": 250,
    "date": "2026-01-02",
}


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, figures=(), **changes):
        record = {**copy.deepcopy(RECORD), **changes}
        record["figures"] |= dict(figures)
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "metrics.json").write_text(json.dumps(record))
        return name

    return write


def winners(runs, name):
    return best([read_run(run) for run in runs], name)


def read_run(run):
    return read_card(Path(run))


def reason(runs, name):
    return why_not([read_run(run) for run in runs], name)


def test_best_in_its_direction(make):
    runs = [make("a"), make("b", {"fd_lenet@100": 1.0, "precision_adm_lenet@100": 0.4, "nfe": 50})]
    assert winners(runs, "fd_lenet@100") == {"b"}
    assert winners(runs, "precision_adm_lenet@100") == {"a"}
    assert winners(runs, "nfe") == {"a", "b"}
    assert winners(runs, "near_copies@100") == set()  # less than new real images is no better
    assert winners(runs, "fd_lenet_floor@50") == set()


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        (
            {"extractor": {"name": "lenet", "fingerprint": "cc"}},
            "fd_lenet@100",
            "extractor differs",
        ),
        ({"extractor": None}, "fd_lenet@100", "extractor differs"),
        ({"reference": {"size": 9}}, "fd_lenet@100", "reference differs"),
        ({"reference": {"size": 9}}, "precision_adm_lenet@100", "reference differs"),
        (
            {"features_lenet": {"name": "lenet", "fingerprint": "bb", "adm": {"real": 9}}},
            "precision_adm_lenet@100",
            "features lenet differs",
        ),
        ({"features_lenet": None}, "precision_adm_lenet@100", "features lenet differs"),
        ({"features_lenet": None}, "fd_lenet@100", None),
        ({"labels": [0]}, "fd_lenet@100", "which labels were asked for differs"),
        ({"labels": [0]}, "precision_adm_lenet@100", "which labels were asked for differs"),
        ({"labels": None}, "fd_lenet@100", None),
        (
            {"extractor": {"name": "lenet", "fingerprint": "bb", "warning": "guesses"}},
            "fd_lenet@100",
            "guesses",
        ),
        ({"extractor": {"name": "lenet", "fingerprint": "bb", "warning": "guesses"}}, "nfe", None),
        ({"warnings": ["few"]}, "fd_lenet@100", None),
        ({"data": {"name": "MNIST"}}, "near_copies@100", "data differs"),
        ({"hardware": {"device": "H200"}}, "seconds_per_image", "hardware differs"),
        ({"batch_size": 1}, "seconds_per_image", "batch size differs"),
        ({"hardware": {"device": "H200"}}, "nfe", None),
        ({"date": "later", "sampler": None}, "fd_lenet@100", None),
    ],
)
def test_what_must_agree(make, changes, name, why):
    runs = [make("a"), make("b", {"fd_lenet@100": 1.0}, **changes)]
    assert reason(runs, name) == why
    assert why is None or winners(runs, name) == set()


def test_another_n_is_not_compared_but_a_common_one_is(make, alone):
    make("a")
    record = json.loads(Path("a/metrics.json").read_text())
    figures = recorded_figures(record)
    figures["fd_lenet@1000"] = Figure(figures.pop("fd_lenet@100").value / 4, 1000, **OF_FEATURES)
    record |= stored(figures)
    record["figures"]["only@1000"] = 1.0  # somebody else's, without a meaning
    make("b")
    Path("b/metrics.json").write_text(json.dumps({**record, "n": 1000}))
    runs = ["a", "b"]
    assert reason(runs, "fd_lenet@100") == "n is 100, elsewhere 1000, 50"
    assert winners(runs, "fd_lenet@1000") == set()
    assert reason(runs, "fd_lenet@50") is None
    assert reason(runs, "only@1000") == "only one has it"
    names = list(every([read_run(run) for run in runs]))
    assert names[:4] == ["fd_lenet@1000", "fd_lenet@100", "fd_lenet@50", "fd_lenet_floor@50"]
    compare(*runs)
    page = alone(Path("compare.html").read_text())
    assert "not comparable: n is 100, elsewhere 1000, 50" in " ".join(page.text)


def test_page_and_sheet(make, alone):
    from PIL import Image

    make("a & co")
    make("b", {"fd_lenet@100": 1.0, "kid_lenet@100": 0.125}, checkpoint={"fingerprint": "ff"})
    Image.new("L", (4, 4)).save("b/samples.png")
    compare("a & co", "b/metrics.json", output="both")
    page = alone(Path("both.html").read_text())
    assert len(page.urls) == 1
    text = Path("both.html").read_text()
    assert "<b class=best>1</b>" in text
    assert "<b class=best>2</b>" not in text
    for value in (*RECORD["figures"].values(), 0.125):
        assert f"{value:.4g}" in " ".join(page.text)
    assert "a & co" in page.text
    rows = list(csv.DictReader(Path("both.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["a & co", "b"]
    assert [float(row["fd_lenet@100"]) for row in rows] == [2, 1]
    assert [row["kid_lenet@100"] for row in rows] == ["", "0.125"]
    assert json.loads(rows[1]["checkpoint"]) == {"fingerprint": "ff"}
    assert rows[0]["n"] == "100"


def test_an_earlier_file_has_its_own_name_and_no_picture(make, tmp_path):
    make("a")
    (tmp_path / "a/samples.png").write_bytes(b"png")
    (tmp_path / "a/metrics.20260101-000000.json").write_text(json.dumps(RECORD))
    earlier = read_card(tmp_path / "a/metrics.20260101-000000.json")
    assert earlier.name == "a/metrics.20260101-000000"
    assert earlier.samples is None
    assert read_card(tmp_path / "a").samples == tmp_path / "a/samples.png"


def test_earlier_comparisons_are_kept(make, tmp_path):
    for _ in range(2):
        compare(make("a"), make("b"))
    assert len(list(tmp_path.glob("compare*.html"))) == 2
    assert len(list(tmp_path.glob("compare*.csv"))) == 2


def test_errors_are_one_line_and_write_nothing(make, tmp_path):
    make("a")
    make("x/a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "half.json").write_text('{"figures": ')
    (tmp_path / "config.json").write_text("{}")
    cases = {
        (): "0 card; expected two or more",
        ("a",): "1 card; expected two or more",
        ("a", "x/a"): "a and x/a are both called 'a'; expected folders of different names",
        ("a", "a"): "a and a are both called 'a'",
        ("a", "empty"): "empty/metrics.json does not exist; expected a run that was tested",
        ("a", "gone"): "gone does not exist; expected a run",
        ("a", "list.json"): "list.json; expected an object, it is list",
        ("a", "half.json"): "half.json; expected JSON",
        ("a", "config.json"): 'config.json; expected the "figures"',
    }
    for runs, line in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=line) as error:
            compare(*runs)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("compare*"))
