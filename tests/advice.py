"""Every message in the sources that advises something to type, found in their syntax trees."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import genlab

SOURCES = Path(genlab.__file__).parent
_NO_MESSAGES = ("help.py", "sandbox_inside.py")  # the help, and a program
_TOPS = ("budget", "callbacks", "data", "evaluation", "launcher", "logger", "metrics", "milestones", "model", "sweep",
         "trainer")  # fmt: skip
_TYPED = re.compile(
    rf"(?<![\w.])(?:[a-z][\w./]*=|--[a-z][a-z-]+|(?:{'|'.join(_TOPS)})(?:\.(?:[a-z_]\w*|\{{}}))+|\{{}} run=|\{{}}="
    r"|pip install|GENLAB_\w+|docker run|ray start|wandb login|torchrun)"
)
_VERBS = re.compile(
    r"\b(?:use|set|name|choose|try|leave|let|put|continue|evaluate|measure|lower|say|type|change|resize|or|give|train|"
    r"such as|classes|splits|for no|another|log in|start|keep|needs a|are chosen|are made|is continued|are started|"
    r"it belongs to|rate is|e\.g\.|write|ask|undo)(?=\W)",
    re.IGNORECASE,
)


def advices() -> Iterator[tuple[str, str]]:
    """(module, text) of each; ``{}`` where the text has a value."""
    for path in sorted(SOURCES.rglob("*.py")):
        if path.name in _NO_MESSAGES:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for text in _texts(tree, _docstrings(tree)):
            if _advises(text):
                yield path.relative_to(SOURCES).as_posix(), text


def _docstrings(tree: ast.Module) -> set[ast.AST]:
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            lines = (line.value for line in body if isinstance(line, ast.Expr))
            found |= {value for value in lines if isinstance(value, ast.Constant)}
    return found


def _texts(node: ast.AST, passed_over: set[ast.AST]) -> Iterator[str]:
    """The texts below ``node``, each of them whole."""
    if node in passed_over:
        return
    if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and (text := _text(node)):
        yield text
        return
    for below in ast.iter_child_nodes(node):
        yield from _texts(below, passed_over)


def _text(node: ast.AST) -> str:
    """What the expression says; nothing if it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        return _text(node.left) + _text(node.right)
    return ""


def _advises(text: str) -> bool:
    """Whether a sentence of it has a word of advice, and after that something to type."""
    if " " not in text.strip():
        return False
    for sentence in re.split(r"(?<=[.;]) ", text):
        verb = _VERBS.search(sentence)
        if verb is not None and _TYPED.search(sentence, verb.end()):
            return True
    return False
