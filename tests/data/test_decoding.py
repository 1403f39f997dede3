import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffusion.data import ImageFolder
from diffusion.data.reading.decoding import looks_complete, read_picture, square

MODES = {1: "L", 3: "RGB"}


def pixels(path, size, channels=3):
    return read_picture(path, size, channels).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("width", "height", "scaled", "left", "top"),
    [(40, 20, (20, 10), 5, 0), (21, 50, (10, 24), 0, 7), (7, 5, (14, 10), 2, 0)],
)
def test_the_shorter_side_is_resized_and_the_centre_cropped(
    tmp_path, photo, width, height, scaled, left, top
):
    photo(width, height).save(tmp_path / "a.png")
    whole = photo(width, height).resize(scaled, Image.Resampling.BICUBIC)
    expected = np.asarray(whole)[top : top + 10, left : left + 10]
    assert np.array_equal(pixels(tmp_path / "a.png", 10), expected)


def test_a_picture_of_the_right_size_is_not_touched(tmp_path, photo):
    photo(8, 8).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png", 8), np.asarray(photo(8, 8)))


def test_shrinking_averages_instead_of_picking(tmp_path):
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    Image.fromarray(stripes).save(tmp_path / "a.png")
    middle = pixels(tmp_path / "a.png", 8, channels=1)[2:-2, 2:-2].astype(int)
    assert np.abs(middle - 128).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, photo, orientation):
    upright = photo(32, 32)
    # What a camera stores so that the viewer's turn undoes it.
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = upright if stored is None else upright.transpose(stored)
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.png", 32), np.asarray(upright))


def test_transparency_is_white(tmp_path):
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[:2] = (200, 100, 50, 255)
    rgba[2] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = pixels(tmp_path / "a.png", 4)
    assert (read[:2] == (200, 100, 50)).all()
    assert (read[2] == 127).all()
    assert (read[3] == 255).all()
    indexed = Image.new("P", (4, 4), 0)
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.putpixel((0, 0), 1)
    indexed.save(tmp_path / "b.gif", transparency=0)
    read = pixels(tmp_path / "b.gif", 4)
    assert (read[0, 0] == (40, 50, 60)).all()
    assert (read[1:] == 255).all()


def test_16_bit_grey_keeps_its_range(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(pixels(tmp_path / "a.png", 8, channels=1)[..., 0], expected)
    assert np.array_equal(pixels(tmp_path / "a.png", 8), np.repeat(expected[..., None], 3, 2))


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "gif"])
def test_every_format_is_read_and_known_when_cut(tmp_path, photo, suffix):
    path = tmp_path / f"a.{suffix}"
    photo(32, 32).save(path)
    assert looks_complete(path)
    difference = pixels(path, 32).astype(int) - np.asarray(photo(32, 32)).astype(int)
    assert np.abs(difference).mean() < 12
    path.write_bytes(path.read_bytes()[:-20])
    assert not looks_complete(path)


@pytest.mark.parametrize(("width", "height"), [(61, 40), (40, 61), (333, 21), (21, 333), (7, 31)])
@pytest.mark.parametrize("size", [8, 21, 50])
def test_only_the_centre_is_resized_with_the_same_result(tmp_path, photo, width, height, size):
    photo(width, height).save(tmp_path / "a.png")
    scale = size / min(width, height)
    whole = photo(width, height).resize(
        (round(width * scale), round(height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (whole.width - size) // 2, (whole.height - size) // 2
    expected = np.asarray(whole)[top : top + size, left : left + size].astype(int)
    assert np.abs(pixels(tmp_path / "a.png", size) - expected).max() <= 1  # rounding


def test_a_long_thin_picture_takes_no_memory(tmp_path):
    Image.new("RGB", (1, 2_000_000), "red").save(tmp_path / "a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (pixels(tmp_path / "a.png", 64) == (255, 0, 0)).all()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kB


def header(width, height):
    """A PNG that says so, and ends there."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(100))
    parts = [ihdr, b"IDAT" + packed, b"IEND"]
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    (tmp_path / "a.png").write_bytes(header(13_000, 13_000))
    with pytest.raises(ValueError, match=r"169,000,000 pixels; expected at most 40,000,000"):
        read_picture(tmp_path / "a.png", 8, 3)


def test_a_file_that_is_too_large_is_named(tmp_path, photo):
    (tmp_path / "a.png").write_bytes(header(9_000, 9_000))
    photo(9, 9).save(tmp_path / "b.png")
    data = ImageFolder(str(tmp_path), 8, val_share=0.0, max_unreadable=0.5)
    data.setup("fit")
    with pytest.warns(UserWarning, match=r"unreadable picture a\.png \(81,000,000 pixels"):
        data.train_set.__getitems__([0])


@pytest.mark.parametrize("progressive", [False, True])
def test_large_jpegs_are_decoded_small_and_look_the_same(tmp_path, photo, progressive):
    random = np.random.default_rng(0)
    noise = random.normal(0, 20, (403, 601, 3))
    fine = np.clip(np.asarray(photo(601, 403)) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(fine).save(tmp_path / "a.jpg", quality=95, progressive=progressive)
    with Image.open(tmp_path / "a.jpg") as file:
        full = np.asarray(square(file, 32, "RGB")).astype(int)
    difference = np.abs(pixels(tmp_path / "a.jpg", 32) - full)
    assert difference.max() <= 12
    assert difference.mean() < 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "suffix"), [(127, "jpg"), (128, "jpg"), (500, "png")])
def test_only_a_jpeg_of_four_times_the_size_is_decoded_smaller(tmp_path, side, suffix, channels):
    """Twice the size is the least, so that the filter that follows averages as it would."""
    noise = np.random.default_rng(0).integers(0, 256, (side, 160, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}", quality=95, exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as file:
        whole = square(file.transpose(Image.Transpose.ROTATE_270), 32, MODES[channels])
    found = pixels(tmp_path / f"a.{suffix}", 32, channels).astype(int)
    difference = np.abs(found - np.asarray(whole).reshape(32, 32, channels))
    assert (difference.max() > 0) == (side == 128)
    assert difference.mean() < 6  # of the noise's 74


def test_only_the_promised_formats_are_opened(tmp_path, photo):
    photo(9, 9).save(tmp_path / "a.png", format="TIFF")
    with pytest.raises(ValueError, match="cannot identify"):
        read_picture(tmp_path / "a.png", 8, 3)
