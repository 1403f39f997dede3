"""The model card of an exported folder: how to sample from it, what was measured, the licence."""

from diffusion.interop.last_test import measured
from diffusion.interop.presets import Settings

UNKNOWN = "Not stated. The licences of the data and of published weights apply to them."
LABELLED = """Its network wants a label, which the pipeline does not hand on. With one:

```python
import torch

unet, scheduler = pipeline.unet, pipeline.scheduler
x = torch.randn(4, unet.config.in_channels, {height}, {width})
labels = torch.tensor([0, 1, 2, 3])
scheduler.set_timesteps({steps})
with torch.no_grad():
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t, class_labels=labels).sample, t, x{options}).prev_sample
```

"""


def readme(
    name: str,
    unet: Settings,
    scheduler: Settings,
    steps: int,
    license: str,
    record: Settings | None,
) -> str:
    """Returns README.md."""
    kind, size = str(scheduler["_class_name"]), unet["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    pipeline = kind.replace("Scheduler", "Pipeline")
    # Where x̂_0 is clipped, ε̂ has to follow it; DDIMScheduler does so only when asked to.
    kept = scheduler.get("clip_sample") or scheduler.get("thresholding")
    clipped = ", use_clipped_model_output=True" if kept else ""
    options = f", eta=0.0{clipped}" if kind == "DDIMScheduler" else ""
    call, loop = f"pipeline(num_inference_steps={steps}{options})\n", ""
    if unet["num_class_embeds"]:
        call = ""
        loop = LABELLED.format(steps=steps, options=options, height=height, width=width)
    stated = f"{license}, as whoever exported the weights states it."
    return f"""---
license: {license}
library_name: diffusers
tags: [diffusion, unconditional-image-generation]
---

# {name}

A diffusion model of {width} x {height} images with {unet["in_channels"]} channels, with averaged \
weights.

```python
from diffusers import {pipeline}

pipeline = {pipeline}.from_pretrained("{name}")
{call}```

{loop}## Figures

{measured(record)}

## Licence

{UNKNOWN if license == "unknown" else stated}
"""
