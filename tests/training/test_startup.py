import subprocess
import sys
import time

import pytest

LAZY = "['wandb', 'matplotlib.pyplot', 'sklearn', 'scipy', 'torch_fidelity', 'torchmetrics.image']"


def loaded(module):
    code = f"import sys, {module}; print([m for m in {LAZY} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_command_line_imports_no_more_libraries_than_lightnings():
    assert loaded("diffusion.training.cli") in ("[]", loaded("lightning.pytorch.cli"))


@pytest.mark.slow
def test_help_starts_about_as_fast_as_lightning():
    commands = ["-m", "diffusion", "--help"], ["-c", "import lightning.pytorch.cli"]
    best = [float("inf")] * 2
    for _ in range(3):
        for i, command in enumerate(commands):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            best[i] = min(best[i], time.perf_counter() - start)
    assert best[0] <= 1.3 * best[1], best
