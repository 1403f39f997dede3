"""Telling whether a picture file is whole from its first and last bytes.

Decoding a large folder up front would take as long as an epoch. Files that are cut short or are
something else show it at their ends, and only these suspects need decoding.
"""

import os
from pathlib import Path


def looks_complete(path: Path) -> bool:
    """Whether a JPEG, PNG, WebP, BMP or GIF starts and ends as it should.

    Args:
        path: The file.

    Returns:
        False if the file needs a closer look; it may still be a picture.
    """
    try:
        if not path.is_file():  # opening a pipe waits for somebody to write
            return False
        with path.open("rb") as file:
            head = file.read(16)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 12, 0))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8\xff"):
        return tail.endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return tail[4:8] == b"IEND"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return tail.endswith(b"\x3b")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return size == 8 + int.from_bytes(head[4:8], "little")
    if head.startswith(b"BM"):
        return size == int.from_bytes(head[2:6], "little")
    return False
