"""What a CLIP says of texts, as states and a vector."""

from pathlib import Path

import pytest
import torch
from captioned import SmallClip, SmallClipText

from diffusion.networks import EmbeddingPrior
from diffusion.networks.towers import independent_parts
from diffusion.systems.checkpoints.declared import check_network
from diffusion.systems.embeddings.clip_image import FrozenClipImage
from diffusion.systems.embeddings.clip_text import ClipText, FrozenClipText

TEXTS = ["a red bar", "a blue bar on the left", ""]


def test_the_vector_is_the_texts_embedding_at_the_pictures_scale():
    clip = SmallClip()
    text = FrozenClipText(clip)
    read = text.read(TEXTS)
    torch.testing.assert_close(read["_pooled"], 12**0.5 * clip.embed_text(TEXTS))
    encoder = clip.towers.text
    known = encoder(encoder.read(TEXTS))
    assert torch.equal(read[""], known.states)
    assert torch.equal(read["_mask"], known.mask)
    made = text(read)
    assert torch.equal(made.states, read[""])
    assert torch.equal(made.pooled, read["_pooled"])
    torch.testing.assert_close(text.null["_pooled"], read["_pooled"][2])


def test_it_is_neither_trained_nor_saved_and_known_by_its_parts():
    network = EmbeddingPrior(12, SmallClipText(), 16, 1, 2)
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert not any(name.startswith("text") for name in trained)
    (mark,) = (name for name in network.state_dict() if name.startswith("text"))
    other = EmbeddingPrior(12, SmallClipText(seed=1), 16, 1, 2)
    assert mark not in other.state_dict()
    clip = SmallClip()
    both = independent_parts(FrozenClipText(clip)) | independent_parts(FrozenClipImage(clip))
    assert independent_parts(clip.towers) <= both


def test_a_file_says_how_large_its_network_is_but_for_what_is_read_from_another():
    """As small as the prior is, the CLIP of 1.6 million parameters is no part of its size."""
    weights = Path(__file__).parents[3] / "weights/clip_emoji"
    name, given = f"{ClipText.__module__}.ClipText", {"checkpoint": str(weights)}
    text = {"class_path": name, "init_args": given}
    sizes = {"dim": 128, "width": 8, "depth": 1, "heads": 2}
    spec = {"class_path": "diffusion.networks.EmbeddingPrior", "init_args": {**sizes, "text": text}}
    state = EmbeddingPrior(**sizes, text=ClipText(str(weights))).state_dict()
    check_network({"init_args": {"network": spec}}, state, "prior.ckpt")
    spec["init_args"]["width"] = 256
    with pytest.raises(ValueError, match="larger than the weights in the file"):
        check_network({"init_args": {"network": spec}}, state, "prior.ckpt")
