"""Sends a comparison to Weights & Biases as a run: the table, each seed, and the pictures."""

import math
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genlab.logger.wandb_mode import choose_wandb_mode
from genlab.redaction import one_line, redacted
from genlab.report.table import Table

PATIENCE = 120.0  # seconds


def upload(table: Table | None, pictures: Sequence[Path], places: Sequence[str], folder: Path) -> str:
    """-> the result in one line. A service that fails or hangs has no other effect."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(_attempt(table, pictures, places, folder)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return said[0] if said else f"has not answered for {PATIENCE:.0f} s; the comparison is complete in {folder}"


def _attempt(table: Table | None, pictures: Sequence[Path], places: Sequence[str], folder: Path) -> str:
    typed = sys.argv
    try:
        choose_wandb_mode()
        sys.argv = redacted(typed)  # which W&B writes down
        return _send(table, pictures, places, folder)
    except Exception as error:
        return f"not sent ({(one_line(error) or type(error).__name__)[:200]}); the comparison is complete in {folder}"
    finally:
        sys.argv = typed


def _send(table: Table | None, pictures: Sequence[Path], places: Sequence[str], folder: Path) -> str:
    import wandb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = wandb.Settings(console="off", disable_git=True, save_code=False, silent=True)
        run = wandb.init(
            project="genlab",
            job_type="compare",
            dir=str(folder),
            settings=settings,
            config=redacted({"runs": list(places)}),
        )
        content: dict[str, Any] = {}
        if table is not None:
            names, rows = rows_of(table)
            content["comparison"] = wandb.Table(columns=list(names), data=rows)
        content |= {f"plots/{path.stem}": wandb.Image(str(path)) for path in pictures}
        run.log(content)
        offline, where = run.settings._offline, run.dir
        url = run.url
        run.finish()
    if offline:
        return f"offline; send it with: wandb sync {Path(where).parent}"
    return str(url)


def rows_of(table: Table) -> tuple[list[str], list[list[Any]]]:
    """A line for each configuration and each baseline, and one for each seed of several. Values that are not numbers
    are left out: W&B refuses a column of two types."""
    names = ["name", "kind", "seed", *(column.key for column in table.columns), "best of", "not told apart in"]
    rows: list[list[Any]] = []
    for row in table.order:
        is_run = row < table.configurations
        members = table.members[row] if is_run else []
        kind = "baseline" if not is_run else "run" if len(members) == 1 else "mean of seeds"
        seed = members[0].seed if len(members) == 1 else None
        judged = [
            ", ".join(
                column.key
                for column, marks in zip(table.columns, table.marks, strict=True)
                if row in getattr(marks, which)
            )
            for which in ("best", "near")
        ]
        rows.append(
            [table.names[row], kind, seed, *(_number(column.numbers[row]) for column in table.columns), *judged]
        )
        for k, member in enumerate(members if len(members) > 1 else ()):
            own = [_number(column.seeds[row][k]) for column in table.columns]
            rows.append([member.name, "run", member.seed, *own, "", ""])
    return names, rows


def _number(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None
