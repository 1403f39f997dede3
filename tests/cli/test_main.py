import shutil

import pytest
import torch
import yaml

from diffusion.step import DDIM, DDPM
from diffusion.systems.diffusion import Diffusion


def config(folder, command="fit"):
    return yaml.safe_load((folder / f"run/config_{command}.yaml").read_text())


def test_the_run_and_the_checkpoint_carry_the_merged_configuration(run):
    run.write("second.yaml", {"model": {"sampler": {"steps": 5}}, "trainer": {"max_steps": 2}})
    run.fit("--config", "second.yaml", "--model.sampler.step.eta", "0.25", "--trainer.max_steps=1")
    saved = config(run.folder)
    assert saved["trainer"]["max_steps"] == 1
    assert saved["model"]["init_args"]["p_uncond"] == 0.3
    sampler = saved["model"]["init_args"]["sampler"]["init_args"]
    assert sampler["steps"] == 5
    assert sampler["step"]["init_args"]["eta"] == 0.25
    assert yaml.safe_load(run.load()["config"]) == saved


def test_a_checkpoint_is_all_that_test_needs(fitted, run, monkeypatch):
    shutil.copytree(fitted.folder / "run", "run", symlinks=True)
    run("test", "--ckpt_path", "run/checkpoints/last.ckpt")
    for name in ("metrics.json", "samples.png", "trajectory.png", "config_test.yaml", "loss.png"):
        assert (run.folder / "run" / name).exists()
    assert config(run.folder, "test")["metrics"]["n"] == 20


def test_an_overlay_wins_over_what_was_trained_with(fitted, run):
    run.write(
        "ddpm.yaml",
        {"model": {"sampler": {"step": {"class_path": "DDPM"}, "steps": 7, "guidance": []}}},
    )
    run("predict", "--ckpt_path", fitted.last, "--config", "ddpm.yaml", "--data.samples=2")
    sampler = config(run.folder, "predict")["model"]["init_args"]["sampler"]["init_args"]
    assert sampler["step"]["class_path"] == "diffusion.step.DDPM"
    assert sampler["steps"] == 7
    assert sampler["guidance"] == []


def test_the_overlays_sampler_is_the_one_that_draws(fitted, run, monkeypatch):
    used = []
    call = DDIM.__call__
    monkeypatch.setattr(DDIM, "__call__", lambda s, *a: used.append(s) or call(s, *a))
    run.write(
        "ddim.yaml", {"model": {"sampler": {"step": {"init_args": {"eta": 0.5}}, "steps": 2}}}
    )
    run("predict", f"--ckpt_path={fitted.last}", "--config", "ddim.yaml", "--data.samples=2")
    assert [step.eta for step in used] == [0.5, 0.5]
    assert not any(isinstance(step, DDPM) for step in used)


def test_load_from_checkpoint_gives_averaged_weights_that_draw(fitted):
    module = Diffusion.load_from_checkpoint(fitted.last)
    checkpoint = fitted.load()
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(weight, checkpoint["state_dict"][name], rtol=0, atol=0)
    raw = checkpoint["raw_state_dict"]
    assert any(not torch.equal(raw[k], checkpoint["state_dict"][k]) for k in raw)
    images = module.generate({"label": torch.tensor([1, 2])}, [0, 1])
    assert images.shape == (2, 1, 8, 8)
    assert images.isfinite().all()


def test_last_starts_fresh_with_a_word_and_then_resumes(run, caplog):
    run.fit("--ckpt_path", "last")
    assert "run has no checkpoint yet" in caplog.text
    assert run.load()["global_step"] == 4
    run.fit("--ckpt_path", "last", "--trainer.max_steps", "6")
    assert "last is run/checkpoints/step_0000004.ckpt" in caplog.text
    assert run.load()["global_step"] == 6
    assert [p.name for p in (run.folder / "run/checkpoints").glob("step*")] == ["step_0000006.ckpt"]


def test_a_run_is_not_overwritten(fitted, run, refused):
    shutil.copytree(fitted.folder / "run", "run", symlinks=True)
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    line = refused("fit", "--config", "tiny.yaml")
    assert "run has a run already" in line
    assert "--ckpt_path last" in line
    assert before == {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}


def test_an_earlier_configuration_is_kept(run):
    run.fit()
    run.fit("--ckpt_path", "last", "--trainer.max_steps", "5")
    assert config(run.folder)["trainer"]["max_steps"] == 5
    (earlier,) = run.folder.glob("run/config_fit.2*.yaml")
    assert yaml.safe_load(earlier.read_text())["trainer"]["max_steps"] == 4


def test_fast_dev_run_leaves_no_checkpoint(run):
    run.fit("--trainer.fast_dev_run", "true")
    assert not (run.folder / "run/checkpoints").exists()


def test_the_last_checkpoint_is_there_before_an_older_one_goes(run, monkeypatch):
    from diffusion.callbacks.checkpoint import Checkpoint

    seen = []

    def remove(self, trainer, path):
        seen.append((run.folder / "run/checkpoints/last.ckpt").resolve().name)
        trainer.strategy.remove_checkpoint(path)

    monkeypatch.setattr(Checkpoint, "_remove_checkpoint", remove)
    run.fit("--checkpoint.every_n_steps", "1")
    assert seen == [f"step_{i:07d}.ckpt" for i in (2, 3, 4)]


def test_validation_prints_its_figures(fitted, run, capsys):
    run("validate", "--ckpt_path", fitted.last)
    assert "val/loss" in capsys.readouterr().out


def test_compiled_in_place_it_trains_and_draws_the_same(run, fitted, same, monkeypatch):
    called = []

    def stub(forward, **options):  # what is compiled is tested in tests/networks/test_compiled.py
        return lambda *args, **kwargs: called.append(1) or forward(*args, **kwargs)

    monkeypatch.setattr("torch.compile", stub)
    run.fit("--compile=true")
    assert len(called) >= 4
    assert same(run.load()["state_dict"], fitted.load()["state_dict"])


@pytest.mark.parametrize("allowed", [True, False])
def test_tensorfloat_32_is_a_choice(run, monkeypatch, allowed):
    chosen = []
    monkeypatch.setattr("torch.set_float32_matmul_precision", chosen.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not allowed)
    run.fit(*(() if allowed else ("--tf32=false",)))
    assert chosen == ["high" if allowed else "highest"]
    assert torch.backends.cudnn.allow_tf32 == allowed


def test_what_draws_nothing_is_not_compiled():
    from diffusion.cli.flags import compile_networks

    with pytest.raises(ValueError, match="compile: true; expected false, as Linear draws nothing"):
        compile_networks(torch.nn.Linear(1, 1))
