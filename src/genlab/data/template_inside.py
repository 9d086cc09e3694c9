"""Renders a chat template in jinja2's sandbox. Also the program of the process in which untrusted templates run.

As a program it reads a line of JSON with the template and its variables, then one for each conversation, and answers
each with a line. It imports nothing of genlab, and the process that started it bounds its time.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

Renderer = Callable[[Sequence[dict[str, Any]], bool], str]
_MEMORY = 1 << 30  # bytes of addresses of the process
# What a conversation consists of, and what jinja2 itself gives a template.
_KNOWN = (str, int, float, bool, type(None), dict, list, tuple, LoopContext, Macro, Namespace, Cycler, Joiner)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Attributes of plain values and of jinja2's own alone, and those are the public ones."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return isinstance(obj, _KNOWN) and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """In place of an empty value, which a template may print without anybody knowing."""
        raise SecurityError(f"it reads the attribute {attribute!r} of a {type(obj).__name__}")


class _Generation(Extension):
    """``{% generation %}`` ... ``{% endgeneration %}``: what stands between, as it is."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def renderer(source: str, variables: dict[str, Any]) -> Renderer:
    """A function of messages and whether what precedes an answer is to follow. Raises TemplateError: ``source`` is no
    template."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    environment.globals.pop("lipsum")  # these two give another text each time
    environment.filters.pop("random")
    environment.filters["tojson"] = _as_json
    environment.globals["raise_exception"] = _refuse
    template = environment.from_string(source)

    def render(messages: Sequence[dict[str, Any]], generation: bool) -> str:
        given = {"tools": None, "documents": None, **variables}
        return template.render(messages=messages, add_generation_prompt=generation, **given)

    return render


def _as_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def cause_of(error: BaseException) -> str:
    """In one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _serve() -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):  # not every system has this bound
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    render: Renderer | None = None
    for line in sys.stdin:
        given = json.loads(line)
        try:
            if render is None:
                render = renderer(given["source"], given["variables"])
                found: Any = []
            else:
                found = [render(given["messages"][:count], generation) for count, generation in given["asked"]]
        except Exception as error:
            found = cause_of(error)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
