"""Messages of errors: one line that names what is wrong, and what was expected instead."""

import ast
from pathlib import Path

import diffusion

PACKAGE = Path(diffusion.__file__).parent
KINDS = {"ValueError", "FileNotFoundError", "FileExistsError", "argparse.ArgumentTypeError"}
HELPS = ("expected", "the nearest is", "pip install")
# What whoever calls puts into a line of its own, with its key and what was expected there.
PARTS = {
    "{} bytes, more than {}",
    "no regular file",
    "network.{}",
    "it is larger than the weights in the file",
    "it is something else",
    "it has no sections",
    "it has aliases, or too many levels",
}


def literal(node):
    """The text of a message with {} for values, or None if it is put together elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        texts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
        return "".join(map(str, texts))
    if isinstance(node, ast.BinOp):
        left, right = literal(node.left), literal(node.right)
        return None if left is None or right is None else left + right
    return None


def messages():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            if ast.unparse(node.exc.func) in KINDS and node.exc.args:
                if text := literal(node.exc.args[0]):
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def says_what_helps(text):
    """Whether it does, itself or by a value that it ends with or goes on from."""
    values = "; {}" in text or text.endswith("{}") or text.startswith("{} (")
    return values or any(word in text for word in HELPS) or text in PARTS


def test_messages_are_one_line_that_says_what_was_expected():
    found = list(messages())
    assert len(found) > 300
    assert [(place, text) for place, text in found if not says_what_helps(text)] == []
    assert [(place, text) for place, text in found if "\n" in text or text.endswith(".")] == []
