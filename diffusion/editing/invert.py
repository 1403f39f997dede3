"""`diffusion invert`: from pictures to the noise that DDIM would draw them from."""

from pathlib import Path

from rich import get_console

from diffusion.common.files import check_writable, kept


def invert(
    *pictures: str,
    ckpt_path: str,
    prompt: str = "",
    steps: int = 50,
    scale: float = 3.0,
    output: str = "inverted",
    trust: bool = False,
) -> None:
    """Finds x_T of pictures, draws them again from it, and says how far off that is.

    DDIM's ODE is integrated upwards (DDIM, eq. 14), without guidance. Back it goes without, which
    shows the error of the steps, and with guidance, which shows that this is another way.
    OUTPUT.png has the pictures and both; OUTPUT.safetensors has "x_T", in the order of the
    pictures, and "z" if the network reads the embeddings of pictures. Earlier files are renamed.

    Args:
        pictures: Files, of any size.
        ckpt_path: A checkpoint of a model of pictures, or an exported folder.
        prompt: The text they are conditioned on, for networks that read one.
        steps: Of DDIM, there and back.
        scale: Of classifier-free guidance, for the second way back; 1 for none.
        output: Name of what is written.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    import torch
    from safetensors.torch import save_file

    from diffusion.editing.embedded import Embedded, apart

    check_writable(Path(output).expanduser().parent, "output")
    model = Embedded(ckpt_path, prompt, steps, trust, wants_z=False)
    x_0 = model.read(pictures)
    latents = model.invert(x_0)
    ways = {"without guidance": model.draw(latents)}
    if scale != 1 and not prompt and latents.z is None:
        get_console().print("guidance does nothing without a prompt, and is left out")
    elif scale != 1:
        ways[f"guidance {scale:g}"] = model.draw(latents, scale)
    rows, names = [x_0], [Path(one).name for one in pictures]
    for way, back in ways.items():
        rows.append(back)
        errors = apart(back, x_0)
        names += [f"{way}, {error:.1f} off" for error in errors]
        get_console().print(
            f"{way}: RMSE {errors.mean():.2f} of 255 (n = {len(x_0)}, DDIM, {steps} steps)"
        )
    path = model.sheet(torch.cat(rows), names, len(x_0), f"{output}.png", scale)
    found = {"x_T": latents.x_T} | ({} if latents.z is None else {"z": latents.z})
    tensors = path.with_suffix(".safetensors")
    with kept(tensors) as aside:
        save_file({name: x.contiguous() for name, x in found.items()}, aside)
    get_console().print(f"wrote {path} and {tensors}")
