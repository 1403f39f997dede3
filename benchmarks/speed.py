r"""Speed beside other packages and beside bare loops: `make bench` writes docs/benchmarks.md.

    python benchmarks/speed.py [--threads 2] [--parts peers shell guidance kernels
                                profile memory]

What is compared runs in turn in one process, in an order that turns around from round to round, so
that neither the machine nor its other work decides: medians and quartiles over `--repeats` rounds,
and ratios within rounds. Rows go to docs/results/speed.csv, or where they are of `OTHERS` to a CSV
of that name; tables and the plot are made from them (`--parts tables` makes these alone). Nine
minutes on two idle cores, memory not counted; the times of a busy machine say nothing, its memory
does.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from bench import Row, write
from cost import ATTENTION
from network_speed import rate
from speed_page import OTHERS, PARTS, show
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Ways = Mapping[str, Callable[[], object]]


def in_turn(ways: Ways, repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of each way in every round, after a round that does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    for turn in range(repeats):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            ways[name]()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            found[name].append(time.perf_counter() - start)
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the first quartile, the median, the third quartile."""
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = torch.tensor(values, dtype=torch.float64).quantile(at).tolist()
    return low, middle, high


def compared(
    seconds: Mapping[str, Sequence[float]], images: int, **about: float | str
) -> list[Row]:
    """Returns a row a way, with ratios to the first way within rounds."""
    ours, rows = next(iter(seconds.values())), list[Row]()
    for way, found in seconds.items():
        low, middle, high = quartiles(found)
        ratios = quartiles([theirs / own for theirs, own in zip(found, ours)])
        row: Row = {**about, "way": way, "batch": images, "rounds": len(found)}
        row |= {"seconds": f"{middle:.5g}", "q25": f"{low:.5g}", "q75": f"{high:.5g}"}
        row |= {"images_per_second": f"{images / middle:.4g}"}
        row |= {"ratio": f"{ratios[1]:.3f}", "ratio_q25": f"{ratios[0]:.3f}"}
        rows.append(row | {"ratio_q75": f"{ratios[2]:.3f}"})
    return rows


def timed(
    ways: Ways, repeats: int, images: int, peak: float = 0.0, **about: float | str
) -> list[Row]:
    """Measures ways in turn; with a peak in FLOP/s also the share of it."""
    rows = compared(in_turn(ways, repeats), images, **about)
    for row, run in zip(rows, ways.values() if peak else ()):
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
            run()
        row["share_of_peak"] = f"{counter.get_total_flops() / float(row['seconds']) / peak:.3f}"
    return rows


def has_bf16() -> bool:
    """Returns whether the processor has instructions for bfloat16; others emulate them."""
    about = Path("/proc/cpuinfo")
    words = about.read_text().split() if about.exists() else []
    return any(word in words for word in ("avx512_bf16", "amx_bf16", "bf16"))


def peaks(repeats: int, side: int) -> list[Row]:
    """Returns FLOP/s of large matrix products and convolutions, the fastest of several."""
    rows = list[Row]()
    for dtype in (torch.float32, *([torch.bfloat16] if has_bf16() else [])):
        a, b = (torch.randn(side, side, dtype=dtype) for _ in range(2))
        conv = nn.Conv2d(128, 128, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
        x = torch.randn(16, 128, side // 32, side // 32, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        flop = 2 * side**3, 2 * 9 * 128**2 * x[:, 0].numel()
        with torch.inference_mode():
            found = [rate(lambda: a @ b, 1, repeats, a.device) * flop[0]]  # noqa: B023
            found += [rate(lambda: conv(x), 1, repeats, a.device) * flop[1]]  # noqa: B023
        for what, value in zip(("matrix product", "convolution"), found):
            about = f"{what}, {str(dtype).removeprefix('torch.')}"
            rows.append({"part": "peak", "way": about, "GFLOP_per_second": f"{value / 1e9:.1f}"})
    return rows


def machine() -> str:
    """Returns what the figures depend on, in words."""
    about = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    names = [line.partition(": ")[2] for line in about if line.startswith("model name")]
    what = names[0] if names else "a processor"
    busy = os.getloadavg()[0]
    instructions = "with" if has_bf16() else "without"
    threads = "1 thread" if (n := torch.get_num_threads()) == 1 else f"{n} threads"
    return (
        f"{threads} on {len(names)} cores of {what}, {instructions} "
        f"bfloat16 instructions; PyTorch {torch.__version__.partition('+')[0]}; load when it "
        f"began {busy:.1f}"
    )


def measure(args: argparse.Namespace) -> None:
    """Measures the parts that are asked for."""

    def keep(name: str, rows: Sequence[Row]) -> None:
        write(args.to / f"results/{name}.csv", rows)

    if set(args.parts) & set(PARTS):
        from speed_peers import peers
        from speed_shell import guidance, shell

        peak_rows = peaks(args.repeats, 16 * args.channels)
        rows: list[Row] = [{"part": "machine", "way": machine()}, *peak_rows]
        peak = max(float(row["GFLOP_per_second"]) for row in peak_rows[:2]) * 1e9
        for part, run in zip(PARTS, (partial(peers, peak=peak), shell, guidance)):
            rows += run(args) if part in args.parts else []
        keep("speed", rows)
    if "kernels" in args.parts:
        from speed_kernels import kernels

        keep("kernels", [{"part": "machine", "way": machine()}, *kernels(args)])
    if "profile" in args.parts:
        from speed_profile import profile

        keep("profile", [{"part": "machine", "way": machine()}, *profile(args)])
    if "memory" in args.parts:
        from speed_memory import memory

        keep("memory", memory(args))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--parts", nargs="*", choices=[*PARTS, *OTHERS, "tables"], default=[*PARTS, *OTHERS]
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--channels", type=int, default=64, help="of the network beside peers'")
    parser.add_argument("--size", type=int, default=32, help="of its pictures")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=45, help="of a short run of fit")
    parser.add_argument("--root", default="data", help="where Fashion-MNIST is")
    parser.add_argument("--to", type=Path, default=Path("docs"))
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    measure(args)
    show(args.to)


if __name__ == "__main__":
    main()
