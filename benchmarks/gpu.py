r"""What a machine with a GPU and no network can check and measure: `make gpu`.

`python benchmarks/gpu.py tests | bench | train [--device cpu] [--seconds 480] [--to runs/gpu]`.
Each part ends by itself within its seconds, or with the row that it is at, and goes on where it
was. What is needed is in the tree, in data/ and in weights/: nothing is fetched. Eight files are
left in `--to`:

    tests  the same random bits, to 2 ulp the same normals and, to 1e-3, the same output as on the
           CPU; a training step and a sampling loop under CUDA's mode that refuses to wait; a
           compiled network (on a CPU only traced): tests.json
    bench  training steps a second of weights/glide_emoji in float32, TF32 and bfloat16, eager and
           compiled, peak memory, and the share of the measured peak of matrix products: bench.csv
    train  configs/flow_fashion.yaml and flow_emoji.yaml, half of the seconds each, in runs/NAME_gpu
           of the folder above; a run that is resumed counts those it had, so more are needed to go
           on: NAME.csv, NAME.png and NAME.ckpt, what was logged, its plot and the last checkpoint
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench import Row, fill
from network_speed import rate
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from diffusion.cli.flags import allow_tf32
from diffusion.cli.main import main as diffusion
from diffusion.common.files import written_aside
from diffusion.condition import Condition
from diffusion.guidance import ClassifierFree
from diffusion.networks.compiled import compile_in_place
from diffusion.noise import Purpose, SeededNoise, Use
from diffusion.sampler import Sampler
from diffusion.step import UniPC
from diffusion.systems.diffusion import Diffusion

MODEL = "weights/glide_emoji"
TEXTS = ["a google emoji of a fox", "a twitter emoji of a red heart", ""]
PRECISIONS = {"float32": torch.float32, "TF32": torch.float32, "bfloat16": torch.bfloat16}


class Step:
    """A training step of a model, and a picture of it, on some device.

    Args:
        device: The device.
        n: The batch.
    """

    def __init__(self, device: str, n: int) -> None:
        self.model = Diffusion.load_from_checkpoint(MODEL).to(device)
        self.n, self.device = n, torch.device(device)
        self.x_0 = SeededNoise(0, range(n), device).normal((3, 32, 32)).clamp(-1, 1)
        self.cond = self.model.network_condition({"text": [TEXTS[i % 3] for i in range(n)]})
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=True)
        self.number = 0

    def loss(self) -> Tensor:
        """Returns the next step's loss."""
        self.number += 1
        numbers = range(self.number << 32, (self.number << 32) + self.n)
        noise = SeededNoise(0, numbers, self.device, Use.TRAINING)
        cond = self.cond.drop(0.1, noise=noise.of(Purpose.FORGETTING))
        t, eps = self.model.objective.draw(self.model.process, self.x_0, noise)
        return self.model.objective(self.model.denoiser, self.x_0, cond, t, eps).mean()

    def __call__(self) -> None:
        """Trains for a step, in which no weight moves."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    @torch.no_grad()
    def draw(self) -> Tensor:
        """Returns pictures, guided."""
        self.model.denoiser.eval()
        sampler = Sampler(UniPC(), 4, [ClassifierFree(3.0)])
        noise = SeededNoise(0, range(self.n), self.device)
        x_T, cond = noise.normal((3, 32, 32)), self.cond
        return sampler(self.model.denoiser, self.model.process, x_T, cond, noise)


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


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns FLOP/s of a matrix product."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return rate(lambda: a @ b, 1, 3, device) * 2 * side**3


def speed(args: argparse.Namespace, name: str, compiles: bool) -> Row:
    """Returns the figures of a training step."""
    allow_tf32(name != "float32")
    step, dtype = Step(args.device, args.batch), PRECISIONS[name]
    began = time.perf_counter()
    if compiles:
        compile_in_place(step.model.denoiser.network)

    def run() -> None:
        step.optimizer.zero_grad()
        with torch.autocast(args.device, dtype, enabled=dtype != torch.float32):
            loss = step.loss()
        loss.backward()
        step.optimizer.step()

    run()
    first = time.perf_counter() - began
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    images = rate(run, args.batch, 3, step.device)
    memory = torch.cuda.max_memory_allocated() / 2**30 if args.device == "cuda" else 0.0
    plain = Step(args.device, args.batch)
    with FlopCounterMode(display=False) as counter:
        plain()
    flops = counter.get_total_flops() / args.batch * images
    return {
        "images_per_second": round(images, 1),
        "first_step_seconds": round(first, 1),
        "peak_GiB": round(memory, 2),
        "TFLOPs": round(flops / 1e12, 3),
        "share_of_matmul_peak": round(flops / peak(step.device, dtype), 4),
    }


def bench(args: argparse.Namespace) -> None:
    """Measures what the table does not have, as long as there is time."""
    end = time.monotonic() + args.seconds
    cells = [(name, False) for name in PRECISIONS]
    cells += [("bfloat16", True)] if args.device == "cuda" else []
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"

    def row(name: str, compiles: bool) -> Callable[[], Row]:
        return lambda: speed(args, name, compiles)

    for name, compiles in cells:
        if time.monotonic() < end:
            key: Row = {"precision": name, "compiled": str(compiles), "batch": args.batch}
            print(
                fill(args.to / "bench.csv", [(key | {"device": device}, row(name, compiles))])[-1]
            )


def train(args: argparse.Namespace) -> None:
    """Trains both models, each until its time is over; a run that is there is resumed."""
    share = max(1, int(args.seconds / 2))
    for name in ("flow_fashion", "flow_emoji"):
        run = args.to.parent / f"{name}_gpu"
        diffusion([
            *("fit", "--config", f"configs/{name}.yaml", "--wandb", "off"),
            *("--data.download", "false", "--data.num_workers", "0", "--data.root", args.root),
            *("--trainer.max_time", f"00:{share // 3600:02}:{share // 60 % 60:02}:{share % 60:02}"),
            *("--trainer.accelerator", "gpu" if args.device == "cuda" else "cpu"),
            *("--trainer.precision", "bf16-mixed" if args.device == "cuda" else "32-true"),
            *("--trainer.devices", "1", "--trainer.enable_progress_bar", "false"),
            *("--trainer.default_root_dir", str(run), "--ckpt_path", "last"),
        ])  # fmt: skip
        logged = max(run.glob("csv/*/metrics.csv"), key=lambda path: path.stat().st_mtime)
        left = {"csv": logged, "png": run / "loss.png", "ckpt": run / "checkpoints/last.ckpt"}
        for kind, path in left.items():
            if path.exists():
                with written_aside(args.to / f"{name}.{kind}") as aside:
                    shutil.copyfile(path, aside)


def main() -> None:
    """Runs a part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=["tests", "bench", "train"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--root", default="data", help="where the data are")
    parser.add_argument("--to", type=Path, default=Path("runs/gpu"))
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    {"tests": tests, "bench": bench, "train": train}[args.part](args)


if __name__ == "__main__":
    main()
