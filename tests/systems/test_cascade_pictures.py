import torch

from diffusion.networks import Known, LowResolution
from diffusion.networks.conditioning.inpainting import resize_known


def test_a_small_pixel_is_known_where_all_its_pixels_are():
    mask = torch.ones(1, 1, 8, 8)
    mask[..., 3:5, 0] = 0
    known = torch.randn(1, 3, 8, 8)
    batch = {"known": known, "mask": mask, "low_res": known, "text": ["a"]}
    small = resize_known(LowResolution().resized(batch, (4, 4)), (4, 4))
    assert set(small) == {"known", "mask", "text"}
    assert Known().resized(batch, (4, 4)).keys() == batch.keys()
    assert small["mask"][0, 0].tolist() == [[1.0] * 4, [0.0, 1, 1, 1], [0.0, 1, 1, 1], [1.0] * 4]
    torch.testing.assert_close(small["known"][0, 1, 2, 3], known[0, 1, 4:6, 6:8].mean())
    same = resize_known({"known": known, "mask": mask}, (8, 8))
    assert torch.equal(same["known"], known)
    assert torch.equal(same["mask"], mask)
