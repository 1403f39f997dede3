"""What is declared is what is imported, and the lock files hold it with hashes."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}
DISTRIBUTION |= {"yaml": "pyyaml"}
NOT_IMPORTED = {"pytorch-lightning"}  # which lightning does not pin
# The published code from which golden values were made, in scripts that tests do not import.
BY_HAND = {"denoising-diffusion-pytorch", "dicebear", "efficientnet-lite-pytorch"}
BY_HAND |= {"guided-diffusion", "improved-diffusion"}


def named(requirements):
    return {re.match(r"[\w.-]+", line)[0].lower() for line in requirements}


def imported(folder):
    written = [path for kind in ("tests", "benchmarks") for path in (ROOT / kind).rglob("*.py")]
    ours = {path.stem for path in written} | {"diffusion"}
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module)
    tops = {name.split(".")[0] for name in found} - sys.stdlib_module_names - ours
    return {DISTRIBUTION.get(name, name).lower().replace("_", "-") for name in tops}


EXTRAS = PROJECT["optional-dependencies"]
MAIN = named(PROJECT["dependencies"])
OPTIONAL = named([*EXTRAS["emoji"], *EXTRAS["hugging-face"]])


def test_the_package_imports_what_it_declares():
    assert imported("diffusion") - OPTIONAL == MAIN - NOT_IMPORTED
    assert imported("diffusion") & OPTIONAL == OPTIONAL - {"sentencepiece"}  # T5's tokenizer's


def test_tests_import_what_their_extra_declares():
    others = imported("tests") - MAIN - BY_HAND
    assert others == named(EXTRAS["test"]) - {"pyright", "pytest-xdist", "resvg-py", "ruff"}


LOCKS = {
    "requirements.lock": MAIN,
    "requirements-test.lock": MAIN | named([*EXTRAS["test"], *EXTRAS["notebooks"]]),
}


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_has_every_requirement_with_hashes(name):
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    pinned = {entry.split("==")[0] for entry in entries}
    assert LOCKS[name] <= pinned
    assert all(re.match(r"[\w.-]+==[\w.+]+", entry) for entry in entries)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in "".join(entries)


def test_locked_versions_are_at_least_what_is_declared():
    from packaging.requirements import Requirement

    text = (ROOT / "requirements-test.lock").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", text, re.MULTILINE))
    wanted = [*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["notebooks"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_actions_are_pinned_by_commit():
    (workflow,) = (ROOT / ".github/workflows").glob("*.yml")
    uses = re.findall(r"uses: (\S+)", workflow.read_text())
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in uses)
