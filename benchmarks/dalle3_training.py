"""How the generators of `dalle3.py` and its upsampler are trained, several side by side."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from dalle3_generators import KINDS, UPSAMPLER, WIDTH, Generator

from diffusion.common.files import written_aside
from diffusion.common.validate import first_few
from diffusion.common.weights import read, state
from diffusion.data import AltText, CaptionFile, CaptionSource, Emoji
from diffusion.networks import MiniLM
from diffusion.systems.checkpoints.start import STREAM

CONFIG, LENGTH = "configs/dalle3_emoji.yaml", 48
NOISE, MOST = 0.8, 0.95
START = time.monotonic()


def sources(out: Path) -> dict[str, Any]:
    """Returns where captions come from that are not the data's own, as YAML has it."""

    def source(kind: type[CaptionSource], **options: Any) -> dict[str, Any]:
        return {"class_path": kind.__name__, "init_args": options}

    return {
        "noisy": source(AltText, of="short", share=NOISE),
        "noisier": source(AltText, of="short", share=MOST),
        "recaptioned": source(CaptionFile, path=str(out / "captions_short.json")),
        "detailed": source(CaptionFile, path=str(out / "captions_detailed.json")),
    }


def weights(captions: dict[str, float]) -> dict[str, float]:
    """Returns the weights of all kinds, so that all generators have the same texts to read once."""
    return {kind: captions.get(kind, 0.0) for kind in KINDS}


def texts(args: argparse.Namespace) -> None:
    """Reads all captions by MiniLM, on the device, into the cache.

    Raises:
        ValueError: If a picture to train on lacks a caption of the captioner's.
    """
    made = {"AltText": AltText, "CaptionFile": CaptionFile}
    found = {k: made[x["class_path"]](**x["init_args"]) for k, x in sources(args.out).items()}
    kinds = weights({"short": 1})
    data = Emoji(args.root, styles=args.styles, download=False, captions=kinds, sources=found)
    data.setup("fit")
    for kind in ("recaptioned", "detailed"):
        written = found[kind].captions(data.names, lambda _: [])
        if bare := [name for name, texts in zip(data.names, written) if not texts]:
            raise ValueError(f"{kind}: {len(bare)} pictures lack captions: {first_few(bare)}")
    encoder = MiniLM(LENGTH, args.root).to(args.device)
    encoder.remember(data.texts or [], Path(".cache"), progress=False)
    size = max(encoder.sizes((data.texts or [])[::10]))
    print(f"{len(data.texts or [])} texts, the longest of every tenth has {size} tokens")


def command(args: argparse.Namespace, one: Generator, start: Path | None) -> list[str]:
    """Returns how a generator is trained, from some weights or none; its overlay is written."""
    data = {"captions": weights(one.captions), "sources": sources(args.out)}
    data |= {"root": args.root, "styles": args.styles}
    more = {
        "seed_everything": one.seed,
        "data.seed": one.seed,
        "snapshots.every_n_steps": args.every,
        "snapshots.widths": f"[{WIDTH}]",
        "trainer.max_steps": args.steps,
        "model.lr_scheduler.init_args.total": args.steps,
    } | ({"data.batch_size": args.batch_size} if args.batch_size else {})
    if start:
        more["model.start"] = start
    return fit(args, CONFIG, one.folder, data, more)


def trunk(args: argparse.Namespace) -> Path:
    """Writes the weights of --start without what reads its tokens, and returns the file.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it is something else.
    """
    path: Path = args.out / "trunk.ckpt"
    found = state(read(args.start, "--start"), "--start", args.start)
    kept = {name: weight for name, weight in found.items() if not STREAM.search(name)}
    with written_aside(path) as part:
        torch.save({"state_dict": kept}, part)
    return path


def upsampler(args: argparse.Namespace) -> list[str]:
    """Returns how the upsampler is trained, on the captioner's detailed captions."""
    data = {"captions": {"detailed": 1.0}, "sources": sources(args.out)}
    more = {"trainer.max_steps": args.upsampler_steps, "data.batch_size": args.batch_size or 256}
    more["model.lr_scheduler.init_args.total"] = max(args.upsampler_steps, 51)
    data |= {"root": args.root, "styles": args.styles}
    return fit(args, "configs/prompt_upsampler_emoji.yaml", UPSAMPLER, data, more)


def fit(
    args: argparse.Namespace, config: str, folder: str, data: dict[str, Any], more: dict[str, Any]
) -> list[str]:
    """Returns the command of a training that resumes; an overlay for its data is written."""
    overlay = args.out / f"{folder}.json"
    with written_aside(overlay) as part:
        part.write_text(json.dumps({"data": {"init_args": data}}))
    gpu = args.device == "cuda"
    flags = {
        "wandb": "off",
        "data.download": "false",
        "samples.every_n_steps": 10**6,
        "trainer.default_root_dir": args.out / folder,
        "trainer.val_check_interval": 10**6,
        "trainer.enable_progress_bar": "false",
        "trainer.accelerator": "gpu" if gpu else "cpu",
        "trainer.devices": 1,
        "trainer.precision": args.precision or ("bf16-mixed" if gpu else "32-true"),
        **more,
    }
    last = (args.out / folder / "checkpoints/last.ckpt").exists()
    resume = ["--ckpt_path", "last"] if last else []
    given = [x for key, value in flags.items() for x in (f"--{key}", str(value))]
    files = ["--config", config, "--config", str(overlay)]
    return [sys.executable, "-m", "diffusion", "fit", *files, *resume, *given]


def side_by_side(jobs: list[tuple[str, list[str]]], args: argparse.Namespace, until: float) -> None:
    """Runs commands, some at a time, with their output in files; those too late are told to end."""
    waiting, running = list(jobs), dict[str, subprocess.Popen[bytes]]()
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    while waiting or running:
        while waiting and len(running) < args.jobs and time.monotonic() < until:
            name, words = waiting.pop(0)
            with (args.out / f"{name}.log").open("ab") as log:
                running[name] = subprocess.Popen(
                    words, stdout=log, stderr=subprocess.STDOUT, env=environment
                )
        for name, process in [*running.items()]:
            if process.poll() is not None:
                print(f"{name}: {process.returncode} at {time.monotonic() - START:.0f} s")
                running.pop(name)
        if time.monotonic() > until:
            waiting.clear()
            for process in running.values():
                process.send_signal(signal.SIGTERM)
            until = float("inf")
        time.sleep(0.2)
