"""Measures images per second of UNets on 28x28x1 images: training step, and forward alone.

Run as `python benchmarks/network_speed.py [--device cuda] [--batch 64] [--bf16] [--compile]`. On a
CPU set MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_=1073741824, MALLOC_TOP_PAD_=268435456 first:
without them glibc gives every large activation back to the kernel, which costs about 10 %. Numbers
hold for an idle machine only: beside another job, OpenMP's spinning threads slow both down by far
more than the share of the cores; OMP_NUM_THREADS=1 for each is then the faster setting.
"""

import argparse
import time
from collections.abc import Callable

import torch

from diffusion.networks import UNet

SETTINGS = [  # channels, multipliers, blocks, attention
    (32, (1, 2), 2, (7,)),
    (48, (1, 2), 1, ()),
    (48, (1, 2), 1, (7,)),
    (48, (1, 2), 2, (7,)),
    (64, (1, 2), 1, ()),
    (64, (1, 2), 1, (7,)),
    (80, (1, 2), 1, ()),
]


def rate(run: Callable[[], object], images: int, repeats: int, device: torch.device) -> float:
    """Returns images per second of the fastest of `repeats` times four calls, after a warm-up."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(4):
            run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 4 * images / min(seconds[1:])


def measure(network: UNet, args: argparse.Namespace) -> tuple[float, float]:
    """Returns images per second of a training step and of a forward pass."""
    device = torch.device(args.device)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    call = torch.compile(network) if args.compile else network
    x_t = torch.randn(args.batch, 1, 28, 28, device=device)
    t = torch.randint(1, 1001, (args.batch,), device=device)
    label = torch.randint(0, 11, (args.batch,), device=device)

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            return call(x_t, t, label=label)

    def step() -> None:
        optimizer.zero_grad()
        (forward().float() - x_t).square().mean().backward()
        optimizer.step()

    train = rate(step, args.batch, args.repeats, device)
    network.eval()
    with torch.inference_mode():
        return train, rate(forward, args.batch, args.repeats, device)


def main() -> None:
    """Prints one line per setting."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    print("channels multipliers blocks attention parameters train/s forward/s")
    for channels, multipliers, blocks, attention in SETTINGS:
        sizes = {"channels": channels, "multipliers": multipliers, "attention": attention}
        network = UNet(28, 1, num_classes=10, blocks=blocks, patch=2, **sizes)
        train, forward = measure(network, args)
        count = sum(p.numel() for p in network.parameters()) / 1e6
        print(
            f"{channels:8} {multipliers!s:11} {blocks:6} {attention!s:9} "
            f"{count:8.2f} M {train:7.0f} {forward:9.0f}"
        )


if __name__ == "__main__":
    main()
