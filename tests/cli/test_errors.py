import pytest
import torch

FIT = ("fit", "--config", "tiny.yaml", "--trainer.default_root_dir", "other")

GUIDED = "[{class_path: ClassifierFree, init_args: {scale: 3.0}}]"
FLAGS = {
    ("--modle.p_uncond", "1"): ("modle.p_uncond", "'model.p_uncond'"),
    ("--trainer.max_stesp", "1"): ("trainer.max_stesp", "'trainer.max_steps'"),
    ("--model.netwrk", "UNet"): ("model.netwrk", "'network'"),
    ("--model.network", "UNett"): ("model.network", "'UNett'", "'UNet'"),
    ("--model.sampler.step", "DDMP"): ("model.sampler.step", "'DDPM'"),
    ("--model.sampler.step.etaa", "1"): ("model.sampler.step.etaa", "DDIM", "'eta'"),
    ("--model.process", "DDIM"): ("model.process", "'DDIM'", "Linear"),
    ("--model.process.T", "abc"): ("model.process.T", "abc", "int"),
    ("--model.parameterization", "Epss"): ("model.parameterization", "'Eps'"),
    ("--model.optimizer", "torch.optim.Adm"): ("model.optimizer", "'Adam'"),
    ("--model.optimizer.lrr", "1"): ("model.optimizer.lrr", "'lr'"),
    ("--model.p_uncond", "2"): ("model.p_uncond", "2.0", "0 … 1"),
    ("--data", "Digitss"): ("data", "'Digits'"),
    ("--data.batchsize", "3"): ("data.batchsize", "'batch_size'"),
    ("--metrics.extractor", "LeNett"): ("metrics.extractor", "'LeNet'"),
    ("--wandb", "onlin"): ("wandb", "onlin", "'online'"),
    ("--ema.decay", "1"): ("ema.decay", "decay < 1"),
    ("--config", "nope.yaml"): ("config: 'nope.yaml'; expected a file",),
    ("--model.optimizer.lr", "fast"): ("model.optimizer.lr: fast; expected float",),
    ("--model.optimizer.betas", "3"): ("model.optimizer.betas: 3; expected a list of 2",),
    ("--model.optimizer.betas", "[0.9,x]"): ("model.optimizer.betas: x; expected a list of 2",),
    ("--model.optimizer", "MuonWithAdamW", "--model.optimizer.fused", "null"): (
        "model.optimizer.fused: MuonWithAdamW has no such argument; expected one of betas, eps",
    ),
    ("--model.optimizer.lr", "-1"): ("model.optimizer: Invalid learning rate: -1.0",),
    ("--model.start", "no.ckpt"): ("model.start: no.ckpt; expected a file of weights",),
    ("--model.lr_scheduler", "Warmup", "--model.lr_scheduler.warmup", "x"): (
        "model.lr_scheduler.warmup: x; expected int",
    ),
    ("--model.sampler.guidance.scale", "3"): (
        "model.sampler.guidance.scale: Static has no such argument; expected Autoguidance or "
        "Classifier or ClassifierFree or ClassifierMean or Clip or ControlStrength or "
        "ImageStrength as the last of",
    ),
    ("--model.sampler.guidance", "Statik"): ("Statik; expected a list such as [Statik]",),
    ("--model.sampler.guidance", "[Statik]"): ("model.sampler.guidance: 'Statik'", "'Static'"),
    ("--model.sampler.steps", "ten"): ("model.sampler.steps: ten; expected int or null",),
    ("--model.sampler.spacing", "linspaced"): ("; perhaps 'linspace'",),
    ("--model.network", "unet"): ("model.network: 'unet' is no class for this", "'UNet'"),
    ("--model.network", "diffusion.networks.UNett"): ("the nearest is 'UNet'",),
    ("--model.network", "diffusion.netwrks.UNet"): ("the nearest is 'UNet'",),
    ("--model.network", "[]"): ("model.network: '[]'", "ClassifierNetwork", "UNet, Upsampler"),
    ("--model.network.multipliers", "1,2"): ("multipliers: 1,2; expected a list such as [1,2]",),
    ("--model.network.num_classes", "ten"): ("num_classes: ten; expected int or null",),
    ("--model", "modle.yaml"): ("model: 'modle.yaml'; expected a class or a file",),
    ("--trainer", "x.yaml"): ("trainer: 'x.yaml'; expected a file with these keys",),
    ("--data.labels", "3"): ("data.labels: 3; expected a list such as [3] or null",),
    ("--ema.warmup", "yess"): ("ema.warmup: yess; expected true or false",),
    ("--seed_everything", "abc"): ("seed_everything: abc; expected int or true or false",),
    ("--seed_everything", "-1"): ("seed_everything: -1; expected 0 .. 4294967295",),
    ("--lr", "3"): ("lr: no such key; expected 'model.optimizer.lr'",),
    ("--batch_size", "3"): ("batch_size: no such key; expected 'data.batch_size' or",),
    ("--max_steps", "3"): ("max_steps: no such key; expected 'trainer.max_steps'",),
    ("--trainer.precision", "bf16mixed"): (
        "trainer.precision: bf16mixed; expected one of",
        "'16-mixed'",
        "; perhaps 'bf16-mixed'",
    ),
    ("--trainer.max_steps", "1.5"): ("trainer.max_steps: 1.5; expected int",),
    ("--trainer.max_steps=",): ("trainer.max_steps: ''; expected int",),
    ("--trainer.max_steps", "0"): ("trainer.max_steps: 0; expected at least 1, or -1",),
    ("--trainer.max_steps", "-5"): ("trainer.max_steps: -5; expected at least 1, or -1",),
    ("--trainer.gradient_clip_val", "-1"): ("gradient_clip_val: -1; expected at least 0",),
    ("--trainer.log_every_n_steps", "0"): ("log_every_n_steps: 0; expected at least 1",),
    ("--trainer.val_check_interval", "0"): ("val_check_interval: 0; expected at least 1",),
    ("--trainer.accumulate_grad_batches", "0"): ("accumulate_grad_batches: 0; expected at",),
    ("--trainer.devices", "0"): ("trainer.devices: 0; expected otherwise",),
    ("--trainer.devices", "x"): ("trainer.devices: x; expected otherwise",),
    ("--trainer.strategy", "ddpp"): ("trainer.strategy: ddpp; expected otherwise",),
    ("--trainer.max_time", "soon"): ("trainer.max_time: soon; expected", "DD:HH:MM:SS"),
    ("--trainer.logger", "CSVLoggerr"): ("trainer.logger: CSVLoggerr; expected a class of",),
    ("--model.network.multipliers", "[1,1,1,1,1]"): ("8", "multiple", "16"),
    ("--model.network.num_classes", "5"): ("num_classes", "5", "10 classes of Digits"),
    ("--model.network.in_channels", "3"): ("in_channels", "3", "1 of Digits"),
    ("--model.network.null_class", "false"): ("model.p_uncond", "0.3", "null_class"),
    ("--model.objective", "Hybrid"): ("model.objective", "Hybrid", "out_channels 2", "is 1"),
    ("--model.objective", "ImportanceSampled", "--model.objective.objective", "Hybrid"): (
        "model.objective",
        "ImportanceSampled",
        "out_channels 2",
    ),
    ("--model.objective", "Hybrid", "--model.objective.weight", "-1"): ("weight", "-1", "≥ 0"),
    ("--model.sampler.step.variance", "learned"): ("model.sampler.step", "DDIM", "out_channels 2"),
    ("--likelihood.n", "-1"): ("likelihood.n", "-1", "at least 0"),
    ("--model.sampler.steps", "21"): ("sampler.steps", "21", "T = 20"),
    ("--model.sampler.steps", "0"): ("sampler.steps", "at least 1"),
    ("--model.process", "RectifiedFlow", "--model.parameterization", "Eps"): ("Eps", "Velocity"),
    ("--trainer.accelerator", "abacus"): ("abacus", "cpu"),
    ("--trainer.precision", "bf16-true"): ("trainer.precision", "bf16-true", "bf16-mixed"),
    ("--model.p_uncond", "0", "--model.sampler.guidance", GUIDED): (
        "model.p_uncond: 0.0; expected above 0 in training",
        "ClassifierFree draws with ∅ for label",
    ),
    ("--data", "ImageFolder", "--data.root", "nowhere", "--data.size", "8"): ("root", "nowhere"),
    ("--data", "FashionMNIST", "--data.root", "nowhere", "--data.download", "false"): ("nowhere",),
}


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: "=".join(flags))
def test_a_wrong_flag_is_one_line_that_names_what_is_right(refused, flags, tmp_path):
    line = refused(*FIT, *flags)
    assert all(word in line for word in FLAGS[flags]), line
    assert "DIFFUSION_TRACEBACK" not in line
    assert not list(tmp_path.glob("other/checkpoints/*"))


YAML = {
    "{trainer: {max_steps: {a: 1}}}": ("trainer.max_steps: {'a': 1}; expected int",),
    "{model: 3}": ("model: '3' is no class for this", "Cascade", "Diffusion"),
    "{model: {network: [1]}}": ("model.network: '[1]' is no class", "UNet"),
    "{model: {sampler: {steps: [3]}}}": ("model.sampler.steps: [3]; expected int or null",),
    "{data: {init_args: {labels: 3}}}": ("data.labels: 3; expected a list such as [3]",),
    "{wandb: false}": ("wandb: False; expected one of 'off', 'offline', 'online'",),
    "{trainer: {callbacks: [Foo]}}": ("trainer.callbacks: 'Foo' is no class", "Checkpoint"),
    "{trainr: {max_steps: 3}}": ("trainr.max_steps", "'trainer.max_steps'"),
    "{model: {netwrk: UNet}}": ("model.netwrk", "'network'"),
    "{model: {network: {class_path: UNett}}}": ("model.network", "'UNet'"),
    "{model: {sampler: {step: {class_path: DDIM, init_args: {etaa: 1.0}}}}}": (
        "step.etaa",
        "'eta'",
    ),
    "{model: {sampler: {guidance: [{class_path: ClassifierFree, init_args: {scael: 1}}]}}}": (
        "model.sampler.guidance.scael",
        "'scale'",
    ),
    "{model: {sampler: {guidance: [{class_path: ClassifierFree, init_args: {scale: .nan}}]}}}": (
        "guidance.scale",
        "nan",
        "finite",
    ),
    "{model: [1, ": ("line 2",),
}


@pytest.mark.parametrize("text", YAML)
def test_a_wrong_file_is_one_line_that_names_what_is_right(refused, text, tmp_path):
    (tmp_path / "wrong.yaml").write_text(text + "\n")
    line = refused(*FIT, "--config", "wrong.yaml")
    assert all(word in line for word in YAML[text]), line


def test_without_a_config_the_first_missing_key_is_named(refused):
    assert "model.network" in refused("fit", "--wandb", "off")


def test_an_unknown_command(refused):
    line = refused("fti", "--config", "tiny.yaml")
    assert "'fit'" in line
    assert "predict" in line


def test_a_checkpoint_of_another_model(refused, fitted):
    line = refused("test", "--ckpt_path", fitted.last, "--model.network.channels", "16")
    assert "another model" in line
    assert "(32, 8); expected (64, 16)" in line


@pytest.mark.parametrize("kind", ["missing", "cut", "empty", "text", "pickle", "weights"])
def test_a_file_that_is_no_checkpoint(refused, fitted, kind, tmp_path):
    path = tmp_path / "x.ckpt"
    whole = (fitted.folder / "run/checkpoints/last.ckpt").read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "pickle":
        torch.save({"weights": torch.zeros(2)}, path)
    elif kind == "weights":
        torch.save({"state_dict": {"weight": torch.zeros(2)}}, path)
    line = refused("test", "--ckpt_path", path, "--config", "tiny.yaml")
    assert "ckpt_path" in line
    assert "expected" in line
    assert "x.ckpt" in line


@pytest.mark.slow
def test_guidance_by_what_was_never_trained(run, refused):
    run.fit("--model.p_uncond=0", "--trainer.max_steps=1")
    flags = ("--ckpt_path", run.last, "--model.sampler.guidance", GUIDED, "--model.p_uncond=0.1")
    for command in ("predict", "test"):
        line = refused(command, *flags)
        assert line.startswith("model.p_uncond: 0.0; expected above 0 in training, as Classifier")


@pytest.mark.parametrize("command", ["validate", "test"])
def test_nothing_to_measure_on(refused, fitted, command):
    limit = f"trainer.limit_{command[:4].replace('vali', 'val')}_batches"
    line = refused(command, "--ckpt_path", fitted.last, f"--{limit}=0")
    assert line == f"{command}: nothing to {command}, {limit} is 0; expected at least one batch"


def test_labels_outside_the_range(refused, fitted):
    line = refused("predict", "--ckpt_path", fitted.last, "--data.labels", "[3, 10]")
    assert line == "data.labels: 10; expected classes 0 .. 9, or names such as '0'"


def test_errors_after_training_began_say_how_to_see_where(refused, run, monkeypatch):
    def fail(self, batch, batch_idx):
        raise ValueError("from within")

    monkeypatch.setattr("diffusion.systems.diffusion.Diffusion.training_step", fail)
    line = refused(*FIT)
    assert line == "from within (DIFFUSION_TRACEBACK=1 shows where)"
    monkeypatch.setenv("DIFFUSION_TRACEBACK", "1")
    with pytest.raises(ValueError, match="from within"):
        run(*FIT)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize("path", [None, "null", "last", "best", "hpc"])
def test_nothing_is_measured_or_drawn_with_initial_weights(refused, command, path, tmp_path):
    flags = () if path is None else ("--ckpt_path", path)
    line = refused(command, "--config", "tiny.yaml", "--wandb", "offline", *flags)
    assert line.startswith(f"ckpt_path: {path or 'null'}; expected ")
    assert not (tmp_path / "run").exists()


def test_what_a_configuration_says_of_a_checkpoint_is_looked_at(refused, run):
    run.write("more.yaml", {"ckpt_path": "no.ckpt"})
    for command in ("test", "fit"):
        line = refused(command, "--config", "tiny.yaml", "--config", "more.yaml")
        assert line == "ckpt_path: no.ckpt; expected a checkpoint file, or last"


def test_the_nearest_words_are_not_cut():
    from diffusion.cli.errors import LONGEST, one_line

    text = one_line(
        f"data.root: {'x' * (LONGEST - 20)} https://example.org/a/long/address ends here"
    )
    assert text == f"data.root: {'x' * (LONGEST - 20)} …"


def test_a_missing_data_set_is_named_with_all_that_helps(refused, monkeypatch):
    import torchvision.datasets

    def fail(*args, **kwargs):
        raise RuntimeError("Error downloading a.gz:\nTried http://x.org/a.gz, got:\n<no route>")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)
    flags = ("--data", "FashionMNIST", "--data.root", "nowhere", "--model.network.image_size=28")
    line = refused(*FIT, *flags)
    assert line.startswith(
        "data.root: nowhere; expected train-images-idx3-ubyte and 3 more of Fashion"
    )
    assert line.endswith(
        "`root: /usr/share/datasets/fashion-mnist`; the download failed: <no route>"
    )
