"""The CSV file of a run's metrics: one row per logged step, independent of other loggers."""

import csv
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genlab.errors import StorageError
from genlab.files.atomic import write_atomically, writing
from genlab.files.regular_file import IrregularFileError, open_text, open_to_append
from genlab.files.spreadsheet import as_written, safe
from genlab.former_names import current_number


class MetricsFile(Logger):
    """``metrics.csv`` in the run folder: a row a step, a column a metric, empty where a metric was not measured.

    Lightning's CSVLogger starts a new file when a run is continued; this one keeps the rows up to the step it continues
    from. Rows that are not in the file yet are in the checkpoint, so that a kill loses none.
    """

    def __init__(self, run_dir: Path):
        """Raises StorageError if the existing file is damaged."""
        super().__init__()
        self.path = run_dir / "metrics.csv"
        self._rows: dict[int, dict[str, Any]] = {}
        self._columns: list[str] = ["step"]
        self._header: list[str] = []  # the columns of the file; empty: write a new file
        self._written = -1  # the last step in it
        if os.path.lexists(self.path):
            try:
                self._read()
            except IrregularFileError as error:
                raise StorageError(f"{self.path} {error.strerror}. Move it away to go on without its rows.") from error
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise StorageError(f"{self.path} is damaged. Move it away to go on without its rows.") from error

    def _read(self) -> None:
        with open_text(self.path) as file:
            reader = csv.DictReader(line for line in file if line.endswith("\n"))  # the last one may have been cut
            reader.fieldnames = [current_number(as_written(name)) for name in reader.fieldnames or self._columns]
            self._columns = list(reader.fieldnames)
            self._columns.index("step")
            complete = (row for row in reader if None not in row.values())
            self._rows = {int(row["step"]): {k: v for k, v in row.items() if v != ""} for row in complete}
            _ = [float(value) for row in self._rows.values() for value in row.values()]
        self._written = max(self._rows, default=-1)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def forget_after(self, step: int) -> None:
        """Drop rows of steps that will be repeated. ``step``: the number of steps already made."""
        self._rows = {number: row for number, row in self._rows.items() if number < step}
        self._written = min(self._written, step - 1)

    def unwritten(self, trainer: Trainer) -> list[dict[str, Any]]:
        """Rows that are not in the file yet, that of the last step included."""
        others, trainer.loggers = trainer.loggers, [self]
        try:
            trainer._logger_connector.update_train_step_metrics()  # Lightning will, but only after the checkpoint
        finally:
            trainer.loggers = others
        return [dict(row) for number, row in self._rows.items() if number >= self._written]  # it may have grown

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put back what :meth:`unwritten` gave."""
        for row in rows:
            self.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass  # they are in config.yaml

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        number = 0 if step is None else step
        row = self._rows.setdefault(number, {"step": number})
        row.update(metrics)
        self._columns += [name for name in metrics if name not in self._columns]

    @rank_zero_only
    def save(self) -> None:
        """Append the rows that are complete: all but the newest, which may still gain values."""
        self._write(sorted(self._rows)[:-1])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._write(sorted(self._rows))

    def _write(self, steps: list[int]) -> None:
        if self._header == self._columns:
            new = [step for step in steps if step > self._written]
            with writing(self.path.parent), open_to_append(self.path) as file:
                self._writer(file).writerows(self._rows[step] for step in new)
        else:
            write_atomically(self.path, lambda file: self._write_afresh(_Lines(file), steps))
            self._header = list(self._columns)
        self._written = max(steps, default=-1)

    def _write_afresh(self, file: Any, steps: list[int]) -> None:
        writer = self._writer(file)
        writer.writerow({name: safe(name) for name in self._columns})
        writer.writerows(self._rows[step] for step in steps)

    def _writer(self, file: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, lineterminator="\n")


class _Lines:
    """Text into a binary file."""

    def __init__(self, file: Any):
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(text.encode("utf-8"))
