"""The configuration of a run that takes about a second, and one of a ControlNet."""

import copy

TINY = {
    "model": {
        "network": {
            "class_path": "UNet",
            "init_args": {
                "image_size": 8,
                "in_channels": 1,
                "channels": 8,
                "multipliers": [1],
                "attention": [],
                "blocks": 1,
                "dropout": 0.1,
                "num_classes": 10,
                "groups": 4,
            },
        },
        "process": {"class_path": "Cosine", "init_args": {"T": 20}},
        "parameterization": "V",
        "objective": "Simple",
        "p_uncond": 0.3,
        "sampler": {
            "step": {"class_path": "DDIM", "init_args": {"eta": 1.0}},
            "steps": 3,
            "guidance": ["Static"],
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0e-3}},
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 8, "samples": 12}},
    "ema": {"decay": 0.9},
    "samples": {"every_n_steps": 0, "columns": 2, "moments": 3},
    "metrics": {"n": 20, "extractor": {"class_path": "LeNet", "init_args": {"steps": 2}}},
    "wandb": "off",
    "trainer": {
        "default_root_dir": "run",
        "max_steps": 4,
        "val_check_interval": 1000,
        "limit_val_batches": 2,
        "limit_test_batches": 1,
        "log_every_n_steps": 2,
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}

BASE = "base.ckpt"
LOW = {"low": {"class_path": "LowPass", "init_args": {"factor": 4}}}


def controlled(config):
    """Makes the configuration one of a ControlNet on BASE."""
    config["model"]["network"] = {
        "class_path": "ControlNet",
        "init_args": {
            "base": {"class_path": "TrainedNetwork", "init_args": {"checkpoint": BASE}},
            "controls": {"low": {"channels": 3, "widths": [4]}},
        },
    }
    config["data"]["init_args"]["controls"] = copy.deepcopy(LOW)
    return config
