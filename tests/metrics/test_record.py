import json
import os

import pytest
import torch

from diffusion.common.files import written_aside
from diffusion.common.hashing import digest
from diffusion.metrics.report.record import figures_table, hardware, write_record


def test_earlier_record_is_kept(tmp_path):
    path = tmp_path / "run" / "metrics.json"
    for value in range(3):
        write_record(path, {"value": value, "path": tmp_path})
        os.utime(path, (1_000_000, 1_000_000))
    values = [json.loads(p.read_text())["value"] for p in path.parent.iterdir()]
    assert sorted(values) == [0, 1, 2]
    assert json.loads(path.read_text())["value"] == 2
    assert any(p.name.startswith("metrics.1970") for p in path.parent.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="Circular"):
        write_record(path, circle())
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    assert path.read_text() == "old"


def circle():
    record = {}
    record["record"] = record
    return record


def test_aside_makes_folders_and_leaves_no_part(tmp_path):
    with written_aside(tmp_path / "a" / "b") as part:
        part.write_text("whole")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_digest_depends_on_content_not_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_hardware_and_table():
    assert hardware(torch.device("cpu"))["processor"]
    assert figures_table({"fd@10": 1.23456}).row_count == 1


def test_numbers_that_json_lacks_are_left_out(tmp_path):
    nan, inf = float("nan"), float("inf")
    record = {"figures": {"a": nan, "b": 1.0}, "list": [inf, 2.0, (nan,)], "bits": -inf}
    write_record(tmp_path / "a.json", record)
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found == {"figures": {"b": 1.0}, "list": [None, 2.0, [None]]}
