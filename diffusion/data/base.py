# pyright: strict
"""The data module: pictures to learn, and what samples are asked to be.

Splits are `ImageSet`s, read as `batches.py` says, and `predict` reads requests (`requests/`).
Pictures stay uint8 until they are on the device.
"""

from abc import ABC
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch

from diffusion.common.validate import check_counts
from diffusion.data.controls.base import Control
from diffusion.data.controls.beside import Beside, check_beside, shares
from diffusion.data.described import Described
from diffusion.data.requests.base import Ask, Requests, in_order
from diffusion.data.requests.controlled import Controlled
from diffusion.data.requests.edits import Edits
from diffusion.data.requests.given_controls import GivenControls
from diffusion.data.requests.given_pictures import ImagePrompts, OwnPictures
from diffusion.data.requests.labels import Labels, apportioned, is_even, requested_classes
from diffusion.data.requests.prompts import Captions
from diffusion.data.requests.small_pictures import area_means
from diffusion.spec import Batch


class Images(Described, ABC):
    """`Described` data, and what samples are asked to be.

    A subclass says `shape`, `num_classes` and `levels`, and sets `train_set`, `val_set` and
    `test_set` in `setup`.

    Args:
        samples: How many samples `predict` draws.
        labels: The classes `predict` asks for in turn, by number or name; None for all of them.
        edit: A picture, or a folder of pictures, that samples continue from; see `Edits`.
        mask: What to repaint of them: a picture that is white there, or "x0,y0,x1,y1".
        controls: What pictures are controlled by, by the condition's name; see `Control`.
        control: A picture, or a folder of pictures, as control of the samples, or {name: …} of
            them; None for the controls of real pictures. See `GivenControls`.
        invert_control: Whether it is dark on white where controls are white on black.
        image_prompt: A picture, or a folder of pictures, that samples are to be like, for networks
            that read an `ImageEmbedding`; true for the real pictures whose captions or classes the
            samples have; null for none.
        **kwargs: As for `Described`.

    Attributes:
        has_beside: Which controls pictures may come with, None for none.
        done: Called once the weights are in place: the samples `predict` need not draw again.

    Raises:
        ValueError: If a number is out of its range.
    """

    has_beside: ClassVar[type[Beside] | None] = None

    def __init__(
        self,
        samples: int = 64,
        labels: list[str | int] | None = None,
        edit: str | None = None,
        mask: str | None = None,
        controls: dict[str, Control] | None = None,
        control: dict[str, str] | str | None = None,
        invert_control: bool = False,
        image_prompt: str | bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_counts("data", least=0, samples=samples)
        if mask is not None and edit is None:
            raise ValueError(f"data.mask: {mask!r}; expected data.edit too, a picture to repaint")
        self.samples, self.labels, self.edit, self.mask = samples, labels, edit, mask
        self.controls, self.control = controls or {}, control
        self.invert_control, self.image_prompt = invert_control, image_prompt
        check_beside(self.beside, self.has_beside, type(self).__name__)
        self.done: Callable[[], set[int]] = set
        self.allow_zero_length_dataloader_with_multiple_devices = True  # with little to predict

    def asked_classes(self) -> list[int] | None:
        """Returns the numbers of the classes that `predict` asks for in turn, None without classes.

        The data is read if nothing else says what its classes are.

        Raises:
            ValueError: If a label is not one of the data's classes.
        """
        if not self.is_known:
            self.setup("fit")
        return requested_classes(self.labels, self.num_classes, self.classes)

    def predict_dataloader(self) -> Requests:
        """Returns requests for the samples that are not `done`, batch k for process k mod world.

        So the batches are the same for any number of processes.
        """
        self.asked_classes()
        (rank, world), done = self._rank_and_world, self.done()
        batches = in_order(self.samples, self.batch_size)[rank::world]
        return Requests([batch for batch in batches if not done.issuperset(batch)], self.request)

    def asks(self) -> list[Ask]:
        """Returns what `request` says of samples: the classes `labels`, in turn."""
        labels = self.asked_classes()
        return [] if labels is None else [Labels(labels)]

    def picture_asks(self) -> list[Ask]:
        """Returns the pictures that samples start from, which are read once a batch is drawn."""
        every = (self.edits, self.low, self.controlled, self.prompted)
        return [ask for ask in every if ask is not None]

    @property
    def beside(self) -> dict[str, Beside]:
        """The controls that come with the pictures, by name; all others are computed from them."""
        return {name: one for name, one in self.controls.items() if isinstance(one, Beside)}

    @property
    def control_channels(self) -> dict[str, int]:
        """The channels of each control, by name."""
        return {name: control.channels for name, control in self.controls.items()}

    @cached_property
    def given_controls(self) -> GivenControls | None:
        """The controls given by hand, if there are some."""
        if self.control is None:
            return None
        about = (self.control_channels, self.shape, self.invert_control)
        return GivenControls(self.control, *about)

    @property
    def controlled(self) -> Ask | None:
        """The controls that samples obey, if there are some."""
        if self.control is not None:
            return self.given_controls
        if not self.controls or (pictures := self.likenesses()) is None:
            return None
        return Controlled(pictures, self.controls, lambda b: self.on_after_batch_transfer(b, 0))

    @cached_property
    def prompted(self) -> Ask | None:
        """The pictures that samples are to be like, if there are some."""
        if isinstance(self.image_prompt, str):
            return ImagePrompts(self.image_prompt, self.shape)
        if not self.image_prompt or (pictures := self.likenesses()) is None:
            return None

        def read(batch: Batch) -> Batch:
            return {"image_prompt": self.normalize(batch["image"])}

        return OwnPictures(pictures, {"image_prompt": "own"}, read)

    def likenesses(self) -> Captions | None:
        """Returns the real pictures that samples are to be like, or None if there are none.

        They are of `asked_split`, or of training where validation lacks a class asked for.
        """
        labels, counts = self.asked_classes(), self.class_counts("val")
        lacks = len(self.split("val")) == 0 or (counts and not all(counts[k] for k in labels or ()))
        split = "train" if lacks else self.asked_split
        return Captions(self.split(split), split, labels)

    def request(self, numbers: Sequence[int]) -> Batch:
        """Returns what samples are asked to be: "index", int64 (B,), and what `asks` adds.

        Args:
            numbers: The numbers of B samples.
        """
        batch: dict[str, Any] = {"index": torch.tensor(numbers)}
        for ask in self.asks():
            batch.update(ask.ask(numbers))
        return batch

    def measured(self, numbers: Sequence[int]) -> Batch:
        """Returns what samples that are compared with real pictures are asked to be.

        As `request`, but with the classes as often as `frequencies` has them, so that the samples
        of a perfect model have the distribution of the real pictures.
        """
        batch = self.request(numbers)
        if "text" not in batch and (counts := self.frequencies) is not None:
            return {**batch, "label": torch.tensor(apportioned(counts, numbers))}
        return batch

    def asked(self) -> dict[str, Any]:
        """Returns what all samples are asked to be and start from, as digests by argument."""
        asks = (*self.asks(), *self.picture_asks())
        classes = list(self.classes) or self.num_classes
        return {"classes": classes, **{ask.argument: ask.digest() for ask in asks}}

    @cached_property
    def edits(self) -> Edits | None:
        """The pictures that samples continue from, if there are some."""
        return None if self.edit is None else Edits(self.edit, self.mask, self.shape)

    @property
    def frequencies(self) -> list[int] | None:
        """The training pictures of each class, if `measured` is to have the same shares.

        None if they have the classes in turn: where `labels` says which, where there are none,
        where there are as many of each as chance would have it (`is_even`), and where samples
        start from small pictures, which were drawn so.
        """
        drawn = self.low is not None and self.low.root is not None
        counts = None if self.labels is not None or drawn else self.class_counts("train")
        return None if counts is None or is_even(counts) else counts

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalises pictures where they are now, on the device, and adds small ones if wanted.

        A batch of requests gets the pictures that its samples start from.
        """
        if "image" in batch:
            beside = {name: shares(batch[name]) for name in self.beside}
            batch = {**batch, "image": self.normalize(batch["image"]), **beside}
            low = self.low
            side = batch["image"].shape[-1] // self.grid  # that of a crop, if it is one
            made = {} if low is None else {"low_res": area_means(batch["image"], side)}
            computed = {k: v for k, v in self.controls.items() if k not in beside}
            made |= {name: control(batch["image"]) for name, control in computed.items()}
            return {**made, **batch}
        for ask in self.picture_asks() if batch else ():
            if not batch.keys() & {*ask.keys}:
                found, device = ask.start(batch), batch["index"].device
                batch = {**batch, **{key: value.to(device) for key, value in found.items()}}
        return batch
