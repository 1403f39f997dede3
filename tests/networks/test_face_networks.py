"""The public networks of faces, against dlib and facenet-pytorch on an astronaut."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from diffusion.networks import FaceEmbedding, FaceFinder

REAL = str(Path(__file__).parents[2] / "data")  # what `make data` has fetched
# By dlib 20.0.1 with face_recognition_models 0.3.0 on these pictures of 150², and by
# facenet-pytorch 2.6.0's MTCNN on two faces side by side.
PUBLISHED = np.load(Path(__file__).with_name("faces.npz"))


def test_descriptors_are_dlibs():
    face = astronaut()[40:190, 148:298]
    other = astronaut()[300:450, 100:250]
    pictures = torch.from_numpy(np.stack([face, face[:, ::-1], other, 255 - face]))
    x = (pictures.permute(0, 3, 1, 2) / 127.5 - 1).requires_grad_()
    net = FaceEmbedding(REAL)
    found, expected = net(x), torch.from_numpy(PUBLISHED["descriptors"])
    assert torch.cosine_similarity(found, expected).min() > 0.999
    assert (found - expected).norm(dim=1).max() < 0.05  # eight bits; 0.6 tells persons apart
    found.sum().backward()
    assert x.grad.abs().sum() > 0
    assert not list(net.parameters())
    assert [name for name, _ in net.named_buffers()] == [net.mark]


def test_faces_are_those_of_the_published_code():
    half = astronaut()[:256, 100:356]
    both = torch.from_numpy(np.concatenate([half, half[:, ::-1]], 1)).permute(2, 0, 1)
    faces = FaceFinder(REAL)(both)
    assert [face.score for face in faces] == pytest.approx(PUBLISHED["scores"].tolist(), abs=1e-5)
    for face, box, points in zip(faces, PUBLISHED["boxes"], PUBLISHED["points"]):
        assert face.box == pytest.approx(box.tolist(), abs=0.01)
        # There pixels are counted from 0 at their middles.
        np.testing.assert_allclose(face.points, points + 0.5, atol=0.01)


@pytest.mark.parametrize("picture", [torch.zeros(3, 64, 64), torch.rand(1, 10, 30) * 255])
def test_no_face_is_no_error(picture):
    assert FaceFinder(REAL)(picture) == []
