"""Writes the page as one self-contained file, with scripts, styles, pictures and numbers.

What comes from runs is text. The template escapes it, the scripts set it as text, and the page's own policy (CSP) lets
nothing run or load but what is named here by its hash.
"""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

HERE = files(__package__ or __name__)
STYLES = ("uPlot.min.css", "page.css")
LIBRARY = "uPlot.iife.min.js"
# One script in the page; in this order, since each uses those before it.
SCRIPTS = ("basics.js", "table.js", "plots.js", "curves.js", "samples.js", "tradeoff.js", "sweep.js", "settings.js",
           "page.js")  # fmt: skip


def page(content: dict[str, Any]) -> str:
    """The HTML of :func:`content.page_content`."""
    styles = [_read(name) for name in STYLES]
    scripts = [_read(LIBRARY), '(() => {\n"use strict";\n' + "\n".join(map(_read, SCRIPTS)) + "\n})();\n"]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    frames = content["frames"]
    plain = {name: part for name, part in content.items() if name != "frames"}
    return environment.from_string(_read("page.html")).render(
        content,
        policy=_policy(scripts, styles),
        style_sheets=[Markup(style) for style in styles],
        sources=[Markup(script) for script in scripts],
        data=Markup(as_script_data(plain)),
        picture_data=Markup(as_script_data(frames)),
        uplot=json.loads(_read("uPlot.json")),
        uplot_licence=_read("uPlot.LICENSE"),
    )


def write_page(content: dict[str, Any], path: Path) -> None:
    path.write_text(page(content), encoding="utf-8", newline="\n")


def as_script_data(value: Any) -> str:
    """JSON for the inside of a <script>: no ``<`` that could end it, no line end that JavaScript would see."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


def _policy(scripts: list[str], styles: list[str]) -> str:
    def hashes(sources: list[str]) -> str:
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in sources)

    allowed = f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes(styles)}; img-src data:"
    return f"{allowed}; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"


def _read(name: str) -> str:
    return HERE.joinpath(name).read_text(encoding="utf-8")
