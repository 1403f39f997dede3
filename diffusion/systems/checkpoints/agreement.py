# pyright: strict
"""Whether data is what a checkpoint was trained on."""

from diffusion.data import Images
from diffusion.spec import DataSpec


def agree(spec: DataSpec, data: Images, labels: bool, beginning: bool = False) -> None:
    """Refuses other data than a checkpoint was trained on; what is not known is taken from there.

    Args:
        spec: The checkpoint's.
        data: The data module.
        labels: Whether the model reads labels.
        beginning: Whether training begins from it on data that may be other. Then only a class
            that both have under different numbers is refused.

    Raises:
        ValueError: If they do not agree.
    """
    if not data.is_known:
        data.restore(spec)
    found = data.remedy(spec)
    remedy = f" ({found})" if found else ""
    if beginning:
        if labels and (name := spec.moved(data.spec)) is not None:
            before, now = spec.classes.index(name), data.spec.classes.index(name)
            raise ValueError(
                f"data.classes: '{name}' is class {now}; expected {before}, as where training "
                f"starts from{remedy}"
            )
    elif differs := spec.difference(data.spec, labels):
        raise ValueError(
            f"data: {data.spec.name} has {differs[1]}; expected {differs[0]}, as the checkpoint "
            f"was trained on{remedy}"
        )
