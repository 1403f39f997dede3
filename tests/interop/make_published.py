"""Makes published.npz from the published code itself, which is not part of this project.

    PYTHONPATH=.:tests/interop:GUIDED:IMPROVED:LUCIDRAINS python tests/interop/make_published.py

with the folders of openai/guided-diffusion at 22e0df8, openai/improved-diffusion at 1bc7bbb and
lucidrains/denoising-diffusion-pytorch at faed4db (which also needs einops, ema-pytorch and
accelerate). Outputs are float32 from a CPU; the largest network takes 6 GB of memory.
"""

import hashlib
import json
import sys
from pathlib import Path

import improved_diffusion.script_util as improved
import improved_diffusion.unet
import numpy as np
import torch
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import GaussianDiffusion, Unet
from guided_diffusion import gaussian_diffusion, script_util
from guided_diffusion.unet import EncoderUNetModel, SuperResModel, UNetModel
from seeded import Noise, numbers, weights

from diffusion.interop import layout

HERE = Path(__file__).parent
RANDN, LIKE = torch.randn, torch.randn_like
COMMON = {"model_channels": 64, "num_res_blocks": 1, "attention_resolutions": (2,)}
COMMON |= {"use_scale_shift_norm": True}
ADM = {"image_size": 8, "in_channels": 3, "out_channels": 6, "num_head_channels": 32}
ADM |= {**COMMON, "resblock_updown": True, "channel_mult": (1, 2), "num_classes": 10}


def filled(network):
    state = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    network.load_state_dict(weights({k: v.shape for k, v in state.items()}), strict=False)
    return network.eval()


def spaced(schedule, respacing):
    return script_util.create_gaussian_diffusion(
        steps=1000, learn_sigma=True, noise_schedule=schedule, timestep_respacing=respacing
    )


@torch.no_grad()
def openai():
    x, t, y = numbers(1, 2, 3, 8, 8), torch.tensor([0, 700]), torch.tensor([3, 9])
    low = numbers(2, 2, 3, 4, 4)
    adm = filled(UNetModel(**ADM))
    new = filled(UNetModel(**ADM, use_new_attention_order=True))
    found = {"adm": adm(x, t, y), "adm_new_order": new(x, t, y)}
    found["upsampler"] = filled(SuperResModel(**ADM))(x, t, low_res=low, y=y)
    old = {**COMMON, "in_channels": 3, "out_channels": 6, "channel_mult": (1, 2), "num_heads": 4}
    older = improved_diffusion.unet
    found["iddpm"] = filled(older.UNetModel(**old))(x, t / 4)
    plain = {**old, "use_scale_shift_norm": False, "num_heads": 1}
    found["iddpm_plain"] = filled(older.UNetModel(**plain))(x, t)
    found["iddpm_upsampler"] = filled(older.SuperResModel(**old))(x, t, low_res=low)
    judge = {k: v for k, v in ADM.items() if k != "num_classes"} | {"out_channels": 10}
    classifier = filled(EncoderUNetModel(**judge, pool="attention"))
    found["classifier"] = classifier(x, t)

    def guide(x, t, y=None):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_p = classifier(x, t).log_softmax(1)[range(len(x)), y].sum()
            return torch.autograd.grad(log_p, x)[0] * 0.5

    torch.randn_like = gaussian_diffusion.th.randn_like = Noise()
    for name, model, schedule in (("linear", adm, "linear"), ("cosine", new, "cosine")):
        for run, respacing in (("ddim50", "ddim50"), ("ddpm250", "250")):
            process = spaced(schedule, respacing)
            loop = process.ddim_sample_loop if run == "ddim50" else process.p_sample_loop
            torch.randn_like.__init__()
            found[f"{run}_{name}"] = loop(
                model, x.shape, noise=x, model_kwargs={"y": y}, device="cpu"
            )
        torch.randn_like.__init__()
        found[f"ddpm250_guided_{name}"] = spaced(schedule, "250").p_sample_loop(
            model, x.shape, noise=x, cond_fn=guide, model_kwargs={"y": y}, device="cpu"
        )
    process = spaced("linear", "ddim50")
    found["ddim50_guided"] = process.ddim_sample_loop(
        adm, x.shape, noise=x, cond_fn=guide, model_kwargs={"y": y}, device="cpu"
    )
    torch.randn_like = gaussian_diffusion.th.randn_like = LIKE
    return found


@torch.no_grad()
def lucidrains():
    x, t = numbers(1, 2, 3, 16, 16), torch.tensor([0, 700])
    one = filled(Unet(16, dim_mults=(1, 2, 4)))
    two = filled(
        Unet(
            16, init_dim=8, dim_mults=(1, 2), channels=3, full_attn=(True, False),
            attn_heads=(2, 4), attn_dim_head=(8, 16),
        )
    )  # fmt: skip
    found = {"lucidrains": one(x, t), "lucidrains_other": two(x, t)}
    for objective in ("pred_v", "pred_noise", "pred_x0"):
        for steps in (None, 50):
            process = GaussianDiffusion(
                one, image_size=16, timesteps=200, sampling_timesteps=steps, objective=objective
            )
            first, noise = [x], Noise()
            torch.randn = lambda *_a, first=first, **_k: first.pop()
            torch.randn_like = noise
            name = f"lucidrains_{objective}_{steps or 'all'}"
            found[name] = process.sample(batch_size=2) * 2 - 1
    torch.randn, torch.randn_like = RANDN, LIKE
    return found


def published():
    """Returns whose code makes each published network, which of its kinds it is, and the flags.

    The flags are those of the README files.
    """
    old = {"num_channels": 128, "num_res_blocks": 3, "learn_sigma": True, "diffusion_steps": 4000}
    wide = {**old, "num_channels": 192, "class_cond": True, "rescale_timesteps": False}
    plain = {"num_res_blocks": 2, "num_heads": 1, "use_scale_shift_norm": False}
    plain |= {"attention_resolutions": "16", "diffusion_steps": 1000, "rescale_timesteps": False}
    large = {"large_size": 256, "small_size": 64, "num_res_blocks": 2}
    larger = {"large_size": 512, "small_size": 128}
    both = {"attention_resolutions": "32,16,8", "num_channels": 256, "num_res_blocks": 2}
    both |= {"learn_sigma": True, "resblock_updown": True, "use_scale_shift_norm": True}
    four, by_width = {**both, "num_heads": 4}, {**both, "num_head_channels": 64}
    adm, sr = {**by_width, "class_cond": True}, {"num_channels": 192, "class_cond": True}
    adm_64 = {"image_size": 64, "num_channels": 192, "num_res_blocks": 3, "dropout": 0.1}
    adm_64 |= {"use_new_attention_order": True, "noise_schedule": "cosine"}
    new = script_util
    return {
        "iddpm_cifar10": (improved, "model", {**old, "image_size": 32, "dropout": 0.3}),
        "iddpm_imagenet64": (improved, "model", {**old, "image_size": 64}),
        "iddpm_imagenet64_cond": (improved, "model", {**wide, "image_size": 64}),
        "iddpm_lsun_bedroom": (improved, "model", {**old, **plain, "image_size": 256}),
        "iddpm_upsampler_64_256": (improved, "sr_model", {**wide, **large}),
        "adm_imagenet64": (new, "model", {**adm, **adm_64}),
        "adm_imagenet128": (new, "model", {**four, "class_cond": True, "image_size": 128}),
        "adm_imagenet256": (new, "model", {**adm, "image_size": 256}),
        "adm_imagenet256_uncond": (new, "model", {**by_width, "image_size": 256}),
        "adm_imagenet512": (new, "model", {**adm, "image_size": 512}),
        "adm_lsun": (new, "model", {**by_width, "image_size": 256, "dropout": 0.1}),
        "adm_upsampler_64_256": (new, "sr_model", {**four, **sr, **large}),
        "adm_upsampler_128_512": (
            new, "sr_model", {**by_width, **sr, **larger, "attention_resolutions": "32,16"}
        ),
        "classifier_imagenet64": (new, "classifier", {"image_size": 64, "classifier_depth": 4}),
        "classifier_imagenet128": (new, "classifier", {"image_size": 128}),
        "classifier_imagenet256": (new, "classifier", {"image_size": 256}),
        "classifier_imagenet512": (new, "classifier", {"image_size": 512}),
    }  # fmt: skip


def create(code, kind, flags):
    """Returns the network and the process that their scripts make of these flags."""
    make = {"sr_model": "sr_create_model"}.get(kind, f"create_{kind}")
    defaults = getattr(code, f"{kind}_and_diffusion_defaults")()
    return getattr(code, f"{make}_and_diffusion")(**(defaults | flags))


@torch.no_grad()
def full(code, kind, flags):
    """Returns every eighth pixel of what a network of full published size gives, or its logits."""
    network, process = create(code, kind, flags)
    size = flags.get("image_size") or flags["large_size"]
    given = {"y": torch.tensor([9])} if flags.get("class_cond") else {}
    if kind == "sr_model":
        given["low_res"] = numbers(2, 1, 3, size // 4, size // 4)
    scaled = process._wrap_model(filled(network))  # the times as the network gets them
    output = scaled(numbers(1, 1, 3, size, size), torch.tensor([700]), **given)
    return output if kind == "classifier" else output[:, :, ::8, ::8].clone()


def shapes():
    """Returns a digest of the names and shapes of each published network."""
    digests = {}
    for name, arguments in published().items():
        with torch.device("meta"):
            state = create(*arguments)[0].state_dict()
        lines = sorted(f"{k} {layout.flat(v.shape)}" for k, v in state.items())
        digests[name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return digests


if __name__ == "__main__":
    found = {**openai(), **lucidrains(), **{k: full(*v) for k, v in published().items()}}
    arrays = {k: v.numpy() for k, v in found.items()}
    np.savez_compressed(HERE / "published.npz", **arrays)
    (HERE / "published.json").write_text(json.dumps(shapes(), indent=1) + "\n")
    sys.stdout.write(f"{ {k: float(np.abs(v).max()) for k, v in arrays.items()} }\n")
