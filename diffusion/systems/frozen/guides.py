"""Trained models, fixed, as guidance and metrics call them: classifier, CLIP, denoiser."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion.common.hashing import weights_digest
from diffusion.condition import Condition
from diffusion.denoiser import FrozenDenoiser, NetworkDenoiser
from diffusion.guidance import NoiseAware
from diffusion.guidance.clip import PREFIX, TextScore
from diffusion.networks.towers import Towers, independent_parts
from diffusion.objective import Teacher
from diffusion.process import Process
from diffusion.spec import DataSpec
from diffusion.systems.contrastive import Contrastive
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.noisy_classifier import NoisyClassifier, log_prob
from diffusion.systems.texts import say_what_is_cut

TEXTS = 256  # that are embedded at once


class Frozen(NoiseAware):
    """log p_φ(y | x_t, t) with φ fixed: a copy of the network, in float32 and without gradients.

    A label outside 0 … K − 1 is ∅: log p is 0 there, and so is the gradient.

    Args:
        network: Called as network(x_t, t), returns logits (B, K).
        process: The forward process it was trained with.
        spec: What it was trained on.

    Raises:
        ValueError: If it is not known what the network was trained on.
    """

    def __init__(self, network: nn.Module, process: Process, spec: DataSpec | None) -> None:
        if spec is None:
            raise ValueError("spec: None; expected what the classifier was trained on")
        super().__init__(process, spec)
        self.network = copy.deepcopy(network)
        self.float().eval().requires_grad_(False)

    def log_prob(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """See `NoiseAware`; the condition is "label", shape (B,)."""
        if t.ndim == 0:
            t = torch.full(x_t.shape[:1], int(t), device=x_t.device)
        return log_prob(self.network, x_t, t, cond.values["label"])


class Trained(Frozen):
    """A `NoisyClassifier` from its checkpoint, with the averaged weights if there are any.

    It is read at once, so that a wrong path is known before anything is trained.

    Args:
        checkpoint: The file, such as runs/classifier_fashion/checkpoints/last.ckpt.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises what `TrainedNetwork` does.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        key = "guidance.classifier.checkpoint"
        module = NoisyClassifier.load_from_checkpoint(checkpoint, trust=trust, key=key)
        super().__init__(module.network, module.process, module.spec)


class FrozenClip(TextScore):
    """e^λ ⟨f(x_t, t), g(c)⟩, fixed: a copy of the towers, in float32 and without gradients.

    What it reads of a text is g(c), under a name of its own, so that several can guide together; of
    the empty text it is 0, and so are the score and its gradient.

    Args:
        towers: f, g and λ.
        process: The forward process they were trained with; None for clean pictures.
        spec: What they were trained on.
        clean: Whether they know clean pictures, t = 0; by default, if there is no process.

    Attributes:
        fingerprint: 16 digits that change with the weights.
        width: D, the size of f and g.
        parts: Its encoder and towers by digest, see `independent_parts`.
    """

    def __init__(
        self,
        towers: Towers,
        process: Process | None,
        spec: DataSpec | None,
        clean: bool | None = None,
    ) -> None:
        if spec is None:
            raise ValueError("spec: None; expected what the towers were trained on")
        super().__init__(process, spec.shape, clean)
        self.towers = copy.deepcopy(towers)
        self.float().eval().requires_grad_(False)
        self.fingerprint, self.width = weights_digest(self.towers.state_dict()), towers.width
        self.parts = independent_parts(self.towers)
        self.key = f"{PREFIX}_{self.fingerprint}"
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Returns g, unit vectors (B, D), on the CPU; each text is computed once."""
        new = sorted(set(texts) - set(self._known))
        say_what_is_cut(self.towers.text, new)
        device = self.towers.log_scale.device
        with torch.autocast(device.type, enabled=False):
            for start in range(0, len(new), TEXTS):
                part = new[start : start + TEXTS]
                values = {k: v.to(device) for k, v in self.towers.text.read(part).items()}
                self._known.update(zip(part, self.towers.embed_text(values).cpu()))
        return torch.stack([self._known[text] for text in texts])

    @torch.no_grad()
    def embed_image(self, images: Tensor) -> Tensor:
        """Returns f(x_0, 0), unit vectors (B, D), on the images' device.

        Args:
            images: Clean pictures in [−1, 1], (B, C, H, W).

        Raises:
            ValueError: If the towers know noisy pictures only.
        """
        if not self.clean:
            raise ValueError(
                "checkpoint: a CLIP of noisy pictures; expected one that was trained on clean ones "
                "(model.process: null, or model.clean above 0)"
            )
        self.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return self.towers.embed_image(images.float(), torch.tensor(0))

    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """See `TextScore`."""
        given = torch.tensor([[bool(text.strip())] for text in texts])
        return {self.key: torch.where(given, self.embed_text(texts), 0.0)}

    def score(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """See `TextScore`."""
        return self.towers.scale * (self.towers.embed_image(x, t) * cond.values[self.key]).sum(1)


class TrainedClip(FrozenClip):
    """A `Contrastive` from its checkpoint, with the averaged weights if there are any.

    It is read at once, so that a wrong path is known before anything is trained.

    Args:
        checkpoint: The file, such as runs/clip_emoji/checkpoints/last.ckpt.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises what `TrainedNetwork` does.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        super().__init__(*clip_parts(checkpoint, trust, "guidance.scorer.checkpoint"))


def clip_parts(
    checkpoint: str, trust: bool, key: str
) -> tuple[Towers, Process | None, DataSpec | None, bool]:
    """Returns what a `FrozenClip` is made of, read from the checkpoint of a `Contrastive`."""
    module = Contrastive.load_from_checkpoint(checkpoint, trust=trust, key=key)
    return module.network, module.process, module.spec, module.process is None or module.clean > 0


class TrainedDenoiser(FrozenDenoiser):
    """A `Diffusion` from its checkpoint, with the averaged weights if there are any.

    It is read at once, so that a wrong path is known before anything is trained.

    Args:
        checkpoint: The file, or an exported folder.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises what `TrainedNetwork` does.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        super().__init__(*denoiser_parts(checkpoint, trust, "guidance.bad.checkpoint"))


def denoiser_parts(checkpoint: str, trust: bool, key: str) -> tuple[NetworkDenoiser, DataSpec]:
    """Returns what a `FrozenDenoiser` is made of, read from the checkpoint of a `Diffusion`."""
    module = Diffusion.load_from_checkpoint(checkpoint, trust=trust, key=key)
    if module.spec is None:
        raise ValueError(f"{key}: {checkpoint}; expected one that says what it was trained on")
    return module.denoiser, module.codec.spec(module.spec)


class TrainedTeacher(Teacher):
    """A `Diffusion` from its checkpoint, with the averaged weights, read when training begins.

    So what it has taught is drawn from without it.

    Args:
        checkpoint: The file, or an exported folder.
        trust: Whether you made it, so that all the classes it names may be made.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        self.checkpoint, self.trust = checkpoint, trust

    def read(self) -> FrozenDenoiser:
        """See `Teacher`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is something else.
        """
        key = "model.objective.teacher.checkpoint"
        return FrozenDenoiser(*denoiser_parts(self.checkpoint, self.trust, key))
