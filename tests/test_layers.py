"""Which part may know which: read from the import statements, and by importing."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import diffusion

ROOT = Path(diffusion.__file__).parent
CORE = {
    "process",
    "parameterization",
    "condition",
    "denoiser",
    "noise",
    "spec",
    "codec",
    "bound",
    "objective",
    "step",
    "guidance",
    "sampler",
    "candidates",
}
# What each part of the core may import of the project, besides itself.
MAY_IMPORT = {
    "process": set(),
    "parameterization": {"process"},
    "condition": {"noise"},
    "noise": set(),
    "spec": set(),
    "codec": {"spec"},
    "denoiser": {"condition", "networks", "parameterization", "process", "spec"},
    "bound": {"denoiser", "process"},
    "objective": {
        *("bound", "common", "condition", "denoiser", "guidance", "noise", "process", "spec"),
        "step",
    },
    "step": {"denoiser", "process"},
    "guidance": {"condition", "denoiser", "process", "spec"},
    "sampler": {"condition", "denoiser", "guidance", "process", "step"},
    "candidates": {"common", "condition", "denoiser", "process", "sampler"},
}
# What every other folder may import, besides the core.
ROOMS = {
    "common": set(),
    "plots": {"common"},
    "networks": {"common"},
    "data": {"common"},
    "metrics": {"common", "networks"},
    "interop": {"common", "networks"},
    "systems": {"common", "data", "interop", "metrics", "networks"},
    "callbacks": {"common", "data", "metrics", "networks", "plots", "systems"},
    "editing": {"common", "data", "networks", "plots", "systems"},
    "cli": {"callbacks", "common", "data", "interop", "metrics", "networks", "plots", "systems"},
}
HEAVY = {"lightning", "pytorch_lightning", "wandb", "torchmetrics", "torchvision", "sklearn"}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        yield path, relative.parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file imports, wherever in it, with relative names made absolute."""
    package = ["diffusion", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def parts(path):
    """The parts of the project that a file imports: the second word of diffusion.x.y."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("diffusion.")}
    return {name for name in names if (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists()}


def test_every_part_of_the_core_is_there():
    assert CORE == set(MAY_IMPORT)
    assert {part for _, part in modules()} >= CORE


@pytest.mark.parametrize("part", sorted(CORE))
def test_core_imports_downwards(part):
    found = set().union(*(parts(path) for path, of in modules() if of == part))
    assert found - {part} <= MAY_IMPORT[part]


def test_some_imports_are_found():
    assert parts(ROOT / "parameterization/base.py") == {"process"}
    assert "bound" in parts(ROOT / "objective/variational.py")


@pytest.mark.parametrize("part", ["networks", "metrics"])
def test_networks_and_metrics_do_not_know_the_method(part):
    for path, of in modules():
        if of == part:
            # Adding noise to a condition needs a process, and noise of its own; masks are drawn.
            allowed = {"low_resolution": {"process", "noise"}, "inpainting": {"noise"}}
            allowed |= {key: {"codec"} for key in ("identity_tokens", "image_embedding")}
            assert parts(path) & CORE <= allowed.get(path.stem, set()) | {"spec"}, path


@pytest.mark.parametrize("part", sorted(ROOMS))
def test_rooms_open_one_way(part):
    found = set().union(*(parts(path) for path, of in modules() if of == part))
    assert found - {part} <= CORE | ROOMS[part]


def test_every_room_is_listed():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders - CORE == set(ROOMS)


def test_no_room_is_crowded_and_no_name_stands_on_two_doors():
    names = []
    for folder in [ROOT, *(path for path in ROOT.rglob("*") if path.is_dir())]:
        files = [path.name for path in folder.glob("*.py")]
        assert len(files) <= 14, folder
        names += files
    twice = {name for name in names if names.count(name) > 1}
    assert twice <= {"__init__.py", "base.py"}


SAME = {"f1", "main", "names", "plot", "record"}  # each does what the others of its name do


def test_no_two_functions_or_classes_of_one_name():
    """Where a name stands in two files, it has two meanings, or the code is there twice."""
    names = Counter(
        node.name
        for path, _ in modules()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, n in names.items() if n > 1} == SAME


def test_the_core_and_the_base_files_are_typed_strictly():
    lax = [
        str(path.relative_to(ROOT))
        for path, of in modules()
        if (of in CORE or path.name == "base.py") and "# pyright: strict" not in path.read_text()
    ]
    assert lax == []


def test_nothing_that_runs_imports_other_peoples_diffusion():
    for path, _ in modules():
        assert "diffusers" not in {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("part", sorted(CORE | {"common", "interop", "networks"}))
def test_core_needs_no_framework(part):
    for path, of in modules():
        if of == part:
            roots = {name.split(".")[0] for name in imports(path)}
            assert not roots & HEAVY, path


def test_importing_the_core_loads_no_framework():
    names = ", ".join(f"diffusion.{part}" for part in sorted(CORE))
    code = f"import sys, {names}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
