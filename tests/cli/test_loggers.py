"""Where figures go, with and without Weights & Biases."""

import sys

import pytest

from diffusion.cli.runs import loggers


def test_without_wandb_there_is_csv_and_no_import(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    (csv,) = loggers.make(tmp_path, "off", "fit")
    csv.log_metrics({"a": 1.0}, step=1)
    csv.save()
    assert (tmp_path / "csv/version_0/metrics.csv").read_text().split() == ["a,step", "1.0,1"]


class Wandb:
    """Stands for Lightning's logger."""

    made: list = []  # noqa: RUF012

    def __init__(self, **kwargs):
        self.made.append(kwargs)


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", Wandb)
    monkeypatch.setattr(Wandb, "made", [])
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return Wandb.made


def test_offline_asks_nobody(tmp_path, wandb, monkeypatch):
    def never(*_args, **_kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.create_connection", never)
    loggers.make(tmp_path, "offline", "fit")
    loggers.make(tmp_path, "offline", "fit")
    assert [w["offline"] for w in wandb] == [True, True]
    assert wandb[0]["id"] == wandb[1]["id"]
    loggers.make(tmp_path, "offline", "test")
    assert wandb[2]["id"] != wandb[0]["id"]


@pytest.mark.parametrize("key", [None, "short", "k" * 40])
def test_online_without_a_good_key_or_a_server_trains_offline_with_a_word(
    run, monkeypatch, key, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.warns(UserWarning, match=r"logging offline"):
        run.fit("--wandb", "online")
    import wandb

    wandb.finish()
    wandb.teardown()
    assert len(list((tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb"))) == 1
