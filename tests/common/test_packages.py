"""Fetching with the registries' own clients, from a folder instead of a registry."""

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from diffusion.common import packages
from diffusion.common.packages import Package, find_archive, obtain


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that needs another package and an impossible Python, where pip looks for wheels."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / "tiny_data-1.2.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.2.0\n"
    about += "Requires-Python: <3\nRequires-Dist: absent\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny_data/picture.txt", "a picture")
        file.writestr("tiny_data-1.2.0.dist-info/METADATA", about)
        file.writestr("tiny_data-1.2.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("tiny_data-1.2.0.dist-info/RECORD", "")
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return path


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A client that packs as npm does, and writes down what it was asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "npm"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(' '.join(sys.argv[1:]))\n"
        "pathlib.Path('scope-tiny-3.0.1.tgz').write_text('an archive')\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Package("@scope/tiny", "3.0.1", hashlib.sha256(b"an archive").hexdigest(), "npm")


def test_pip_fetches_one_wheel_once_whatever_it_needs(tmp_path, wheel):
    package = Package("Tiny.Data", "1.2.0", digest(wheel), "pip")
    root = tmp_path / "new" / "packages"
    path = obtain(package, root)
    assert path == root / wheel.name
    assert digest(path) == digest(wheel)
    assert list(root.iterdir()) == [path]
    wheel.unlink()
    assert obtain(package, root) == path  # without pip


def test_npm_packs_a_scoped_package(tmp_path, npm):
    path = obtain(npm, tmp_path / "packages")
    assert path.read_text() == "an archive"
    assert (tmp_path / "asked").read_text().startswith("pack @scope/tiny@3.0.1 ")


def test_another_file_than_expected_is_refused(tmp_path, npm):
    other = Package(npm.name, npm.version, "0" * 64, "npm")
    with pytest.raises(ValueError, match=f"SHA-256 {npm.sha256}; expected 000"):
        obtain(other, tmp_path / "packages")
    assert find_archive(other, tmp_path / "packages") is None
    obtain(npm, tmp_path / "packages").write_text("cut")
    with pytest.raises(ValueError, match=r"3\.0\.1\.tgz has SHA-256 .*delete it, get it again"):
        obtain(npm, tmp_path / "packages")


def test_what_cannot_be_fetched_says_how_to_in_one_line(tmp_path, wheel, monkeypatch):
    absent = Package("tiny-data", "9.9", "0" * 64, "pip")
    with pytest.raises(FileNotFoundError, match=r"expected tiny-data 9\.9.*No matching") as error:
        obtain(absent, tmp_path)
    assert str(error.value).endswith(
        "run there: pip download --no-deps --ignore-requires-python tiny-data==9.9"
    )
    assert "\n" not in str(error.value)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"npm is not installed.*npm pack @scope/a@1$"):
        obtain(Package("@scope/a", "1", "0" * 64, "npm"), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_version_is_not_mistaken_for_a_longer_one(tmp_path):
    (tmp_path / "tiny-1.10.tgz").write_text("")
    (tmp_path / "tiny-1.1.0-py3-none-any.whl").write_text("")
    assert find_archive(Package("tiny", "1.1", "", "npm"), tmp_path) is None
    assert find_archive(Package("tiny", "1.10", "", "npm"), tmp_path) == Path(
        tmp_path / "tiny-1.10.tgz"
    )
