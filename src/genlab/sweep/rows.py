"""Reads rows of the ledger, which is untrusted.

A ledger comes with its folder, or from a database that others write to. Invalid rows are ignored, and trials that a
command would not have started itself are not run: see :meth:`Proposals.wanted`.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genlab.config.overrides import name_of, parse
from genlab.config.tree import OF_SWEEPS
from genlab.errors import ConfigError
from genlab.sweep.space import folder_of

ATTEMPT, END = "attempt", "end"  # the parts of a row: written at the start and at the end
LOST = "lost"  # the state of an attempt that another process had claimed before
ENDS = ("finished", "pruned", "failed", "illegal", "stopped")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,80}")  # of a trial's folder, in the sweep's
_OF_ONE_RUN = ("run", "folder", "allow_changes")
_LONGEST = 10_000  # characters of an override
_MOST = 1000  # overrides, and attempts at a trial


@dataclass(frozen=True)
class Row:
    """An attempt. Its folder is the one that its overrides give: a row cannot name another."""

    folder: str
    overrides: tuple[str, ...]
    number: int  # of attempts before it
    owner: Mapping[str, Any]  # host, pid, began
    state: str | None  # None: it has not ended
    said: str
    exit_code: int | None
    seconds: float
    value: float | None


def read_row(attempt: Any, end: Any) -> Row | None:
    """From what is noted of an attempt; None: another process has claimed it. Raises ConfigError if it is invalid."""
    if not isinstance(attempt, Mapping) or not isinstance(end, Mapping | None):
        raise ConfigError("it is not a row of a sweep")
    if end is not None and end.get("state") == LOST:
        return None
    overrides = attempt.get("overrides")
    if not isinstance(overrides, list) or len(overrides) > _MOST or not all(isinstance(o, str) for o in overrides):
        raise ConfigError("its overrides are not a list of texts")
    folder, number = attempt.get("folder"), attempt.get("number")
    if not isinstance(folder, str) or not _NAME.fullmatch(folder) or folder != folder_of(overrides):
        raise ConfigError(f"its folder {str(folder)[:100]!r} does not belong to its overrides")
    check_overrides(tuple(overrides))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _MOST:
        raise ConfigError("its number of attempts is not a whole number")
    owner = attempt.get("owner")
    if not isinstance(owner, Mapping) or not (
        isinstance(owner.get("host"), str) and _is_whole(owner.get("pid")) and isinstance(owner.get("began"), str)
    ):
        raise ConfigError("it does not name its process")
    if not 0 < owner["pid"] < 1 << 31:
        raise ConfigError("its process is not valid")
    noted = end or {}
    state, code, value, seconds = (noted.get(name) for name in ("state", "exit_code", "value", "seconds"))
    if end is not None and state not in ENDS:
        raise ConfigError("its state is not known")
    if not (code is None or (_is_whole(code) and abs(code) < 1 << 31)):
        raise ConfigError("its exit code is not a whole number")
    if not _is_finite(value or 0.0) or not _is_finite(seconds or 0.0) or (seconds or 0.0) < 0:
        raise ConfigError("its value or its seconds are not a number")
    said = noted.get("said", "")
    return Row(
        folder,
        tuple(overrides),
        number,
        owner,
        state,
        said[:1000] if isinstance(said, str) else "",
        code,
        float(seconds or 0.0),
        None if value is None else float(value),
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


@functools.lru_cache(maxsize=1 << 16)
def check_overrides(overrides: tuple[str, ...]) -> None:
    """Raises ConfigError for what could not have been typed for a trial of a sweep."""
    if any(not o or o.startswith("-") or len(o) > _LONGEST for o in overrides):
        raise ConfigError("one of its overrides is not an override")
    for override in parse(overrides):
        name = name_of(override)
        if name in _OF_ONE_RUN or re.split("[./]", name)[0] in OF_SWEEPS:
            raise ConfigError(f"its override {str(override.input_line)[:100]} cannot belong to a trial")
