"""What scaling.py predicts beside what was measured: steps on one core, and on an H100."""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from bench import Row
from cost import Op, cost, flops
from scaling_counts import Counted, affine, batch, count, model
from scaling_rates import H100, Chip
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

SMALL = ("quickstart", "ddpm_fashion", "glide_emoji")
SIDE_BY_SIDE = {"dalle3_emoji": (128, 7300), "imagen_emoji": (256, 8400)}  # docs/results.md
LAST = torch.channels_last


def processor_seconds(run: Callable[[], object], repeats: int) -> float:
    """Returns the least processor time of a call, of which other programs take no part."""
    run()
    times = list[float]()
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def core(repeats: int) -> Chip:
    """Returns what one core does: a convolution, and a copy that is larger than its caches."""
    conv, x = nn.Conv2d(128, 128, 3, padding=1).to(memory_format=LAST), torch.randn(16, 128, 16, 16)
    x, there = x.contiguous(memory_format=LAST), torch.randn(1 << 25)
    with torch.no_grad():
        rate = 2 * 9 * 128**2 * 16 * 256 / processor_seconds(lambda: conv(x), 4 * repeats)
        copy = 2 * there.nbytes / processor_seconds(lambda: there.clone(), repeats)
    return Chip(rate, copy, share=1.0, reach=1.0, launch=0.0, host=0.0)


def pass_of(network: nn.Module, args: Sequence[Tensor], conditions: Mapping[str, Tensor]) -> None:
    """Runs a forward and a backward pass."""
    x_t, t = args
    network.zero_grad()
    output = network(x_t.contiguous(memory_format=LAST), t, **conditions)
    output.square().mean().backward()


def one_core(repeats: int, batches: Sequence[int] = (16, 64)) -> list[Row]:
    """Compares the time of passes on one core with what FLOPs alone, and operators, predict."""
    torch.set_num_threads(1)
    chip, rows = core(repeats), list[Row]()
    for name in SMALL:
        with FakeTensorMode():
            shadow, _ = model(name)
            counted = [cost(shadow, partial(batch, shadow, n)).step for n in batches]
        network = model(name)[0].to(memory_format=LAST)
        for n, ops in zip(batches, counted):
            took = processor_seconds(partial(pass_of, network, *batch(network, n)), repeats)
            row: Row = {"model": name, "batch": n, "GFLOP": f"{flops(ops) / 1e9:.2f}"}
            row |= {"GFLOP/s of the core": f"{chip.flops / 1e9:.0f}"}
            row |= {"GB/s of the core": f"{chip.bandwidth / 1e9:.1f}", "seconds": f"{took:.3f}"}
            for key, said in (("FLOPs", flops(ops) / chip.flops), ("operators", chip.seconds(ops))):
                row |= {f"by {key}": f"{said:.3f}", f"error, {key}": f"{said / took - 1:+.0%}"}
            rows.append(row)
    return rows


def both_ways(counted: Counted, n: int) -> list[Op]:
    """Returns the operators of a forward and a backward pass in bfloat16."""
    return counted.ops(n, True, False, False) + counted.ops(n, True, False, True)


def h100() -> list[Row]:
    """Compares the rate of trainings that ran side by side on one H100 with what is predicted."""
    rows = list[Row]()
    for name, (n, measured) in SIDE_BY_SIDE.items():
        counted = count(name, [(True, False)])
        ops = both_ways(counted, n)
        shared, alone = (n / H100.seconds(ops, host) for host in (False, True))
        row: Row = {"model": name, "batch": n, "images/s, measured": measured}
        row |= {"predicted, card busy": round(shared), "error": f"{shared / measured - 1:+.0%}"}
        rows.append(row | {"predicted, one process alone": round(alone), "operators": len(ops)})
    return rows


def passes(measured: Path) -> list[Row]:
    """Compares passes that gpu.py has measured, and the memory they took, with predictions."""
    rows = list[Row]()
    with measured.open() as file:
        found = [r for r in csv.DictReader(file) if (r["what"], r["compiled"]) == ("pass", "False")]
    for one in found:
        counted, n = count(one["model"], [(True, False)]), int(one["batch"])
        ops = both_ways(counted, n)
        images, took = n / H100.seconds(ops), float(one["images_per_second"])
        peaks = [c.peak for c in counted.costs[True, False]]
        held = (4 * counted.parameters + affine(peaks, n)) / 2**30  # weights, and what else lives
        row: Row = {"model": one["model"], "batch": n, "images/s, measured": f"{took:.1f}"}
        row |= {"predicted": f"{images:.1f}", "error": f"{images / took - 1:+.0%}"}
        row |= {"TFLOP/s": f"{float(one['TFLOPs']):.0f}", "GiB, measured": one["peak_GiB"]}
        about = f"{held / float(one['peak_GiB']) - 1:+.0%}"
        row |= {"counted": f"{held:.2f}", "error of memory": about}
        rows.append(row | {"µs an operator": f"{1e6 * n / took / len(ops):.0f}"})
    return rows
