r"""What a machine with a GPU and no network can check and measure: `make gpu`.

`python benchmarks/gpu.py tests | bench | train [--device cpu] [--seconds 480] [--to runs/gpu]`.
Each part ends by itself within its seconds, or with the row that it is at, and goes on where it
was. What is needed is in the tree and in data/: nothing is fetched. Seven files are left in `--to`:

    tests  the same random bits, to 2 ulp the same normals and, to 1e-3, the same output as on the
           CPU; a training step and a sampling loop under CUDA's mode that refuses to wait; a
           compiled network (on a CPU only traced): tests.json
    bench  pictures a second of training steps in float32, TF32 and bfloat16, eager and compiled,
           peak memory and the share of the measured peak of matrix products; passes of the
           published sizes beside what docs/scaling.md predicts: bench.csv. Steps, passes and DDIM
           beside other packages, as far as they are installed: peers.csv
    train  configs/flow_fashion.yaml, and flow_emoji.yaml with a text transformer of its own, half
           of the seconds each, in runs/NAME_gpu of the folder above; a run that is resumed counts
           those it had, so more are needed to go on: NAME.csv, what was logged, and
           NAME.safetensors, its averages in half precision
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from gpu_rates import CONFIGS, Step, bench
from torch._dynamo.utils import counters

from diffusion.cli.convert import export
from diffusion.cli.flags import allow_tf32
from diffusion.cli.main import main as diffusion
from diffusion.common.files import written_aside
from diffusion.condition import Condition
from diffusion.networks.compiled import compile_in_place
from diffusion.noise import SeededNoise


def same_numbers(device: str) -> None:
    """Random bits are equal, and outputs nearly, without TensorFloat-32."""
    here, there = (SeededNoise(3, range(5), place).bits((7,)) for place in ("cpu", device))
    assert here.equal(there.cpu())
    here, there = (SeededNoise(3, range(64), place).normal((999,)) for place in ("cpu", device))
    apart = (here - there.cpu()).abs() / torch.finfo(here.dtype).eps
    assert (apart <= 2 * 2.0 ** here.abs().log2().floor()).all()
    x, t = torch.linspace(-1, 1, 3 * 3 * 32 * 32).reshape(3, 3, 32, 32), torch.tensor([1, 500, 990])
    both = [Step(place, 3) for place in ("cpu", device)]
    with torch.no_grad():
        outputs = [
            one.model.eval().denoiser.output(x.to(one.device), t.to(one.device), one.cond)[0]
            for one in both
        ]
    torch.testing.assert_close(outputs[0], outputs[1].cpu(), atol=1e-3, rtol=1e-3)


def no_waiting(device: str) -> None:
    """Neither training nor sampling waits; on a CPU this only runs them."""
    step = Step(device, 3)
    step()
    step.draw()
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        step.draw()
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def compiled(device: str) -> None:
    """A compiled network puts out the same, in one graph for two sizes of the batch."""
    torch._dynamo.reset()
    counters.clear()
    step, plain = Step(device, 3), Step(device, 3)
    how = "eager" if device == "cpu" else "inductor"
    compile_in_place(step.model.denoiser.network, fullgraph=True, backend=how)
    torch.testing.assert_close(step.draw(), plain.draw(), atol=1e-2, rtol=1e-2)
    smaller = Condition({k: v[:2] for k, v in step.cond.values.items()}, step.cond.null)
    step.n, step.cond = 2, smaller
    step.draw()
    assert counters["stats"]["unique_graphs"] == 1


def tests(args: argparse.Namespace) -> None:
    """Writes what passed."""
    allow_tf32(False)
    path = args.to / "tests.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for test in (same_numbers, no_waiting, compiled):
        if found.get(test.__name__) != "passed":
            try:
                test(args.device)
                found[test.__name__] = "passed"
            except Exception as error:
                found[test.__name__] = f"{type(error).__name__}: {error}"[:1000]
            with written_aside(path) as aside:
                aside.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(test.__name__, found[test.__name__])


def train(args: argparse.Namespace) -> None:
    """Trains both models, each until its time is over; a run that is there is resumed."""
    share = max(1, int(args.seconds / 2))
    for name, configs in (("flow_fashion", ["configs/flow_fashion.yaml"]), ("flow_emoji", CONFIGS)):
        run = args.to.parent / f"{name}_gpu"
        diffusion([
            *("fit", *(part for path in configs for part in ("--config", path)), "--wandb", "off"),
            *("--data.download", "false", "--data.num_workers", "0", "--data.root", args.root),
            *("--trainer.max_time", f"00:{share // 3600:02}:{share // 60 % 60:02}:{share % 60:02}"),
            *("--trainer.accelerator", "gpu" if args.device == "cuda" else "cpu"),
            *("--trainer.precision", "bf16-mixed" if args.device == "cuda" else "32-true"),
            *("--trainer.devices", "1", "--trainer.enable_progress_bar", "false"),
            *("--trainer.default_root_dir", str(run), "--ckpt_path", "last"),
        ])  # fmt: skip
        last, logged = run / "checkpoints/last.ckpt", run.glob("csv/*/metrics.csv")
        found = {"csv": max(logged, key=lambda path: path.stat().st_mtime)}
        if last.exists():
            shutil.rmtree(run / "exported", ignore_errors=True)
            export(to="safetensors", ckpt=str(last), output=str(run / "exported"))
            found["safetensors"] = run / "exported/model.safetensors"
        for kind, path in found.items():
            with written_aside(args.to / f"{name}.{kind}") as aside:
                shutil.copyfile(path, aside)


def main() -> None:
    """Runs a part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=["tests", "bench", "train"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--times", type=int, default=10, help="of each in a round beside others")
    parser.add_argument("--root", default="data", help="where the data are")
    parser.add_argument("--to", type=Path, default=Path("runs/gpu"))
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    {"tests": tests, "bench": bench, "train": train}[args.part](args)


if __name__ == "__main__":
    main()
