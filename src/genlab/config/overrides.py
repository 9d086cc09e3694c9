"""The grammar of a command line, Hydra's: ``name=value``."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from genlab.config.pointers import pointer_for
from genlab.errors import ConfigError

# Options, by their last part, whose values are paths or names: text even if they look like a number.
_TEXTS = frozenset({
    "run", "runs", "folder", "out", "images", "reference", "sort", "protocol", "outputs", "root", "val_root", "path",
    "val_path", "label_path", "val_label_path", "cache_dir", "save_dir", "default_root_dir", "weights", "name",
    "extractor", "autoencoder", "tokenizer", "start", "where", "adapter",
})  # fmt: skip


def parse(overrides: Sequence[str], *, sweep: bool = False) -> list[Override]:
    """Hydra's grammar. Raises ConfigError for what is not ``name=value``, and, outside of a sweep, for several
    values. Paths and names are text: ``folder=2026_11_27`` names no number, and ``outputs=~/runs`` needs no quotes."""
    parser = OverridesParser.create()
    parsed = []
    for override in overrides:
        try:
            parsed.append(_parse_one(parser, override))
        except HydraException as error:
            if "=" not in override:
                raise ConfigError(f"'{override}' is not an option. Options look like name=value.") from error
            name, _, value = override.partition("=")
            if name != name.rstrip():
                raise ConfigError(
                    f"cannot read '{override}'. Write it without spaces: {name.strip()}={value.strip()}"
                ) from error
            value = value.replace('"', '\\"')
            raise ConfigError(
                f"cannot read {name}={value}. Put text with special characters into quotes: '{name}=\"{value}\"'."
            ) from error
    for option in parsed:
        if option.is_sweep_override() and name_of(option) == "runs":
            raise ConfigError(f"{option.input_line}: put several folders into brackets, 'runs=[a,b]'.")
        if option.is_sweep_override() and not sweep:
            raise ConfigError(
                f"{option.input_line} names several values, and a run takes one. Choose one of them, "
                f"or train them all with -m.{_how_to_quote(option)}"
            )
        if not name_of(option):
            raise ConfigError(f"'{option.input_line}' is not an option. Options look like name=value.")
        if option.is_hydra_override() or name_of(option).startswith("hydra/"):
            if pointer := pointer_for(name_of(option)):
                raise ConfigError(pointer)
            raise ConfigError(f"unknown option '{name_of(option)}'. Run folders are made in outputs=<folder>.")
    return parsed


def _parse_one(parser: OverridesParser, override: str) -> Override:
    """Raises HydraException."""
    name, equals, value = override.partition("=")
    is_text = equals and _is_text(name)
    try:
        found = parser.parse_override(override)
    except HydraException:
        if not is_text:
            raise
    else:
        if not is_text or _holds_text(found):
            return found
    return parser.parse_override(f"{name}={_in_quotes(value)}")


def _how_to_quote(option: Override) -> str:
    """How to type a path or name with commas in a shell."""
    if not _is_text(name_of(option)):
        return ""
    value = (option.input_line or "").partition("=")[2].replace('"', '\\"')
    return f" A comma within a value needs quotes: '{name_of(option)}=\"{value}\"'."


def _is_text(name: str) -> bool:
    return re.split("[./]", name)[-1].lstrip("+") in _TEXTS


def _holds_text(override: Override) -> bool:
    value: Any = override.value()
    if isinstance(value, ChoiceSweep):
        value = value.list
    values = value if isinstance(value, list) else [value]
    return not any(isinstance(item, int | float) for item in values)  # true is an int, too


def _in_quotes(value: str) -> str:
    """The value, or each of several, in Hydra's quotes, unless it is quoted already."""
    if value.startswith("[") and value.endswith("]"):
        return f"[{_in_quotes(value[1:-1])}]"
    parts = re.findall(r""""[^"]*"|'[^']*'|[^,]+""", value)
    return ",".join(part if part[0] in "\"'" else _quoted(part) for part in map(str.strip, parts) if part)


def _quoted(text: str) -> str:
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'"{escaped}"'


def name_of(override: Override) -> str:
    return str(override.key_or_group)


def line_of(override: Override) -> str:
    """The override without Hydra's leading ``+`` or ``++``: the config tells whether an option is new."""
    return (override.input_line or "").lstrip("+")
