"""The grammar of a command line, Hydra's: ``name=value``."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from genlab.errors import ConfigError


def parse(overrides: Sequence[str], *, sweep: bool = False) -> list[Override]:
    """Hydra's grammar. Raises ConfigError for what is not ``name=value``, and unless it is for a sweep, for several
    values."""
    parser = OverridesParser.create()
    parsed = []
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except HydraException as error:
            if "=" not in override:
                raise ConfigError(f"'{override}' is not an option. Options look like name=value.") from error
            name, _, value = override.partition("=")
            value = value.replace('"', '\\"')
            raise ConfigError(
                f"cannot read {name}={value}. Put text with special characters into quotes: '{name}=\"{value}\"'."
            ) from error
    for option in parsed:
        if option.is_sweep_override() and name_of(option) == "runs":
            raise ConfigError(f"{option.input_line}: put several folders into brackets, 'runs=[a,b]'.")
        if option.is_sweep_override() and not sweep:
            raise ConfigError(f"{option.input_line} names several values, and a run takes one. Choose one of them, "
                              "or train them all with -m.")  # fmt: skip
        if not name_of(option):
            raise ConfigError(f"'{option.input_line}' is not an option. Options look like name=value.")
        if option.is_hydra_override() or name_of(option).startswith("hydra/"):
            raise ConfigError(f"unknown option '{name_of(option)}'. Run folders are made in outputs=<folder>.")
    return parsed


def name_of(override: Override) -> str:
    return str(override.key_or_group)


def line_of(override: Override) -> str:
    """The override without Hydra's leading ``+`` or ``++``: whether an option is new, is seen from the config."""
    return (override.input_line or "").lstrip("+")
