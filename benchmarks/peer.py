"""How near another package's model comes in the same time, with as many trials.

`PYTHONPATH=.cache/peers python benchmarks/peer.py --root DATA` trains every row of
benchmarks/peer.yaml as search.py trains its own: for as long as `steps` steps of its `config` take,
one thread, steps counted beside the config's in one process, the same data, samples drawn by DDIM
with as many steps and measured by the same judge. `make bench` puts the package there.
"""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from bench import Row
from search import (
    SHORTEST,
    Judge,
    Recipe,
    arguments,
    fill_rows,
    read,
    step_seconds,
    training_step,
)
from torch import Tensor

from diffusion.common.pixels import scaled
from diffusion.common.progress import bar
from diffusion.data import FashionMNIST, Images
from diffusion.metrics import LeNet


class Peer:
    """A model of denoising-diffusion-pytorch with classes, its optimizer and its averages.

    Args:
        row: What peer.yaml says of it.
        data: What it learns.
        steps: Of its training.
        drawn: Steps of DDIM.
    """

    def __init__(self, row: Mapping[str, Any], data: Images, steps: int, drawn: int) -> None:
        theirs = import_module("denoising_diffusion_pytorch.classifier_free_guidance")
        channels, side = data.shape[0], data.shape[-1]
        self.margin = -side % 2 ** (len(row["network"]["dim_mults"]) - 1) // 2
        network = theirs.Unet(num_classes=data.num_classes, channels=channels, **row["network"])
        sampling = {"sampling_timesteps": drawn, "ddim_sampling_eta": 0.0}
        self.model: Any = theirs.GaussianDiffusion(
            network, image_size=side + 2 * self.margin, **row["diffusion"], **sampling
        )
        self.averages: Any = import_module("ema_pytorch").EMA(self.model, **row["averages"])
        about = dict(row["optimizer"])
        optimizer = getattr(torch.optim, about.pop("name"))
        self.optimizer: torch.optim.Optimizer = optimizer(self.model.parameters(), **about)
        warm = max(1, min(100, steps // SHORTEST))
        rest = max(1, steps - warm)
        self.rate = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda n: min((n + 1) / warm, (steps - n) / rest) if row["falls"] else 1.0,
        )

    def step(self, x: Tensor, label: Tensor) -> None:
        """Learns from pictures in [-1, 1], as the package's `Trainer` does."""
        self.optimizer.zero_grad()
        x = F.pad((x + 1) / 2, [self.margin] * 4)  # sides that can be halved at every level
        self.model(x, classes=label).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.averages.update()

    @torch.no_grad()
    def draw(self, labels: Tensor, seed: int) -> Tensor:
        """Returns pictures in [-1, 1] by the averages, without guidance."""
        torch.manual_seed(seed)
        model = self.averages.ema_model.eval()
        # Its 2.3.4 cannot draw with a scale of exactly 1: it takes one output for two.
        plain = {"cond_scale": 1 + 1e-9, "rescaled_phi": 0.0}
        parts = [model.sample(x, **plain) for x in labels.split(100)]
        return F.pad(torch.cat(parts), [-self.margin] * 4) * 2 - 1


def over(default: Any, row: Any) -> Any:
    """Returns a row with what it does not name, to any depth."""
    if isinstance(default, dict) and isinstance(row, dict):
        return {k: over(default.get(k), row.get(k, default.get(k))) for k in default | row}
    return row


def main() -> None:
    """Trains and measures what is not there yet."""
    parser = arguments(__doc__, "peer")
    parser.add_argument("--drawn", type=int, default=15, help="steps of DDIM")
    args = parser.parse_args()
    if find_spec("denoising_diffusion_pytorch") is None:
        raise SystemExit(
            "denoising-diffusion-pytorch is not there; expected PYTHONPATH=.cache/peers, where "
            "`make bench` puts it"
        )
    trials, config, steps = read(args)
    judge = Judge(FashionMNIST(root=args.root), LeNet(), args.split, args.n)
    base = Recipe(config, {"as_it_is": True}, {})

    def trained(said: Mapping[str, Any], seed: int) -> Row:
        row = over(trials["default"], said)
        data = FashionMNIST(root=args.root, batch_size=row["batch"], num_workers=0)
        timed = Peer(row, data, 1000, args.drawn)
        x, label = torch.randn(row["batch"], *data.shape), torch.arange(row["batch"]) % 10
        ways = [training_step(base, data), partial(timed.step, x, label)]
        of_base, of_this = step_seconds(ways)
        most = round(steps * of_base / of_this)
        L.seed_everything(seed, verbose=False)
        peer = Peer(row, data, most, args.drawn)
        data.setup("fit")
        learn(peer, data, most)
        size = sum(x.numel() for x in peer.model.parameters())
        figures = judge.figures(peer.draw(torch.tensor(judge.labels), 1000 + seed))
        return {"parameters": size, "trained": most, **figures}

    fill_rows(args, trials["rows"], steps, trained)


def learn(peer: Peer, data: Images, steps: int) -> None:
    """Trains for a number of steps."""
    with bar("steps") as progress:
        task, done = progress.add_task("training", total=steps), 0
        while done < steps:
            for batch in data.train_dataloader():
                peer.step(scaled(batch["image"]), batch["label"])
                progress.advance(task)
                done += 1
                if done == steps:
                    break


if __name__ == "__main__":
    main()
