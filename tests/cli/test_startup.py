import resource
import subprocess
import sys

import pytest

LAZY = "['wandb', 'matplotlib.pyplot', 'sklearn', 'scipy', 'torch_fidelity', 'torchmetrics.image']"


def loaded(module):
    code = f"import sys, {module}; print([m for m in {LAZY} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_command_line_imports_no_more_libraries_than_lightnings():
    assert loaded("diffusion.cli.main") in ("[]", loaded("lightning.pytorch.cli"))


def test_yaml_can_name_the_classes_of_a_fresh_process():
    named = "NoSuchClass Contrastive NoisyClassifier Cascade Trained TrainedClip Warmup Pixels"
    named += " ImportanceSampled Simple DDIM ClassifierFree UNet Emoji LeNet Cosine V"
    code = f"""
import diffusion.cli.main, torch, lightning as L, diffusion.guidance
def every(kind):
    return {{kind.__name__}}.union(*map(every, type.__subclasses__(kind)))
print([n for n in {named.split()} if n not in every(object)])
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "['NoSuchClass']"


LIGHTNING = ("-c", "import lightning.pytorch.cli")
QUICK = {
    "help": [],
    "version": ["--version"],
    "compare": ["compare", "--help"],
    "export": ["export", "--help"],
    "import": ["import", "--help"],
    "command": ["fti"],
    "section": ["fit", "--modle.p_uncond", "1"],
    "flag": ["fit", "-trainer.max_steps", "1"],
    "checkpoint": ["predict", "--ckpt_path", "runs/no.ckpt"],
    "file": ["fit", "--config", "configs/ddpm_foldr.yaml"],
}


def seconds(*args):
    """Processor time that Python takes, the least of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *args], capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


@pytest.fixture(scope="module")
def lightning():
    return seconds(*LIGHTNING)


@pytest.mark.parametrize("name", QUICK)
def test_what_needs_no_lightning_imports_none(name, capsys):
    code = f"""
import sys
from diffusion.__main__ import main
try:
    main({QUICK[name]!r})
except SystemExit:
    pass
print(*sorted({{"torch", "lightning", "numpy"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_what_needs_no_lightning_takes_a_fraction_of_it(name, lightning):
    assert seconds("-m", "diffusion", *QUICK[name]) < min(1, lightning / 10)


@pytest.mark.slow
def test_other_mistakes_cost_little_more_than_lightning(lightning):
    wrong = ("fit", "--config", "configs/quickstart.yaml", "--trainer.max_stesp", "3")
    assert seconds("-m", "diffusion", *wrong) < 1.3 * lightning
