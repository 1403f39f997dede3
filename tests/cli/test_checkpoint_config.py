"""Whatever a shipped configuration trains can be taken from its checkpoint again."""

from pathlib import Path

import pytest
import torch
import yaml

from diffusion.cli.checkpoint_config import PARTS
from diffusion.cli.flags import SECTIONS
from diffusion.systems.checkpoints.declared import check_network, made
from diffusion.systems.checkpoints.trust import Taken, trusting

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_nothing_in_it_is_refused(path):
    config = yaml.safe_load(path.read_text()) or {}
    model = config.get("model", {})
    if "class_path" not in model:  # the command line's default
        config["model"] = {
            "class_path": "diffusion.systems.diffusion.Diffusion",
            "init_args": model.get("init_args", model),
        }
    if "class_path" not in config.get("data", {"class_path": None}):
        del config["data"]
    if "class_path" not in config["model"]["init_args"].get("network", {"class_path": None}):
        del config["model"]["init_args"]["network"]  # of an overlay, as the data's
    hub = "HuggingFace" in path.read_text()  # which has to be named
    with trusting(False, {"HuggingFace"} if hub else ()):
        taken = Taken("file")
    found = taken.configuration(config, PARTS, SECTIONS)
    assert set(taken.left) <= {"trainer.strategy"}
    network = found["model"].get("init_args", {}).get("network", {})
    small = path.parent == CONFIGS and "imagenet" not in path.stem  # the others take a second each
    # What reads other files is made with them.
    small = small and not hub and "checkpoint" not in str(network)
    if small and "class_path" in network:
        with torch.device("meta"):
            weights = made(network).state_dict()
        check_network(found["model"], weights, "file")
        few = {k: v.reshape(-1)[:0] for k, v in weights.items() if v.ndim < 4}
        with pytest.raises(ValueError, match="larger than the weights"):
            check_network(found["model"], few, "file")
