"""The presets against the flags of the published README files, defaults of the scripts included."""

import pytest
import torch

from diffusion import process
from diffusion.interop.presets import PRESETS

# T, noise_schedule, rescale_learned_sigmas, rescale_timesteps, dropout, steps, and lr where the
# README says it. improved-diffusion rescales both unless told otherwise, guided-diffusion neither.
OLD, ADM = (True, True), (False, False)
FLAGS = {
    "iddpm_cifar10": (4000, "cosine", *OLD, 0.3, None, 1e-4),
    "iddpm_imagenet64": (4000, "cosine", *OLD, 0.0, None, 1e-4),
    "iddpm_imagenet64_cond": (4000, "cosine", False, False, 0.0, None, 3e-4),
    "iddpm_lsun_bedroom": (1000, "linear", False, False, 0.0, None, 1e-4),
    "iddpm_upsampler_64_256": (4000, "linear", False, False, 0.0, None, 3e-4),
    "adm_imagenet64": (1000, "cosine", *ADM, 0.1, 250, None),
    "adm_imagenet128": (1000, "linear", *ADM, 0.0, 250, None),
    "adm_imagenet256": (1000, "linear", *ADM, 0.0, 250, None),
    "adm_imagenet256_uncond": (1000, "linear", *ADM, 0.0, 250, None),
    "adm_imagenet512": (1000, "linear", *ADM, 0.0, 250, None),
    "adm_lsun": (1000, "linear", *ADM, 0.1, None, None),
    "adm_upsampler_64_256": (1000, "linear", *ADM, 0.0, 250, None),
    "adm_upsampler_128_512": (1000, "linear", *ADM, 0.0, 250, None),
}


def test_no_preset_is_left_out():
    assert {name for name, model in PRESETS.items() if model.kind == "Diffusion"} == set(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_a_preset_has_the_published_flags(name):
    T, schedule, sigmas, times, dropout, steps, lr = FLAGS[name]
    said = PRESETS[name].settings
    # Theirs is mse + L_{t−1} in bits/dim, times T / 1000 if rescaled; ours is mse + λ T L_{t−1}.
    assert said["objective"]["init_args"]["weight"] * T == pytest.approx(T / 1000 if sigmas else 1)
    network = said["network"]["init_args"]
    assert network.get("time_scale", 1) == (1000 / T if times else 1)
    assert network.get("dropout", 0) == dropout
    assert said["sampler"].get("steps") == steps
    assert said["sampler"]["step"]["init_args"] == {"variance": "learned"}
    assert lr in (None, said["optimizer"]["init_args"]["lr"])
    made = getattr(process, said["process"]["class_path"])(**said["process"]["init_args"])
    ends = (1e-4 * 1000 / T, 0.02 * 1000 / T)
    wanted = process.Cosine(T) if schedule == "cosine" else process.Linear(T, *ends)
    torch.testing.assert_close(made.alpha, wanted.alpha)
