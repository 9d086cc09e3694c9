"""Where metrics go: always into a CSV file of the run, and to other services as long as they work."""

import csv
import http.client
import os
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Full, Queue
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genlab.checkpoint import write_atomically, writing
from genlab.errors import ConfigError, GenlabError, StorageError
from genlab.redaction import one_line, redacted


class MetricsFile(Logger):
    """``metrics.csv`` in the run folder: a row a step, a column a metric, empty where a metric was not measured.

    Lightning's CSVLogger starts its file afresh when a run goes on; this one keeps the rows up to the step it continues
    from. Rows that are not in the file yet are in the checkpoint, so that a kill costs none.
    """

    def __init__(self, run_dir: Path):
        """Raises StorageError if the file that is there is not what was written."""
        super().__init__()
        self.path = run_dir / "metrics.csv"
        self._rows: dict[int, dict[str, Any]] = {}
        self._columns: list[str] = ["step"]
        self._header: list[str] = []  # the columns of the file as it is; empty: write it afresh
        self._written = -1  # the last step in it
        if self.path.exists():
            try:
                self._read()
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise StorageError(f"{self.path} is damaged. Move it away to go on without its rows.") from error

    def _read(self) -> None:
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(line for line in file if line.endswith("\n"))  # the last one may have been cut
            self._columns = list(reader.fieldnames or self._columns)
            self._columns.index("step")
            complete = (row for row in reader if None not in row.values())
            self._rows = {int(row["step"]): {k: v for k, v in row.items() if v != ""} for row in complete}
        self._written = max(self._rows, default=-1)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def forget_after(self, step: int) -> None:
        """Drop rows of steps that will be made again. ``step``: the number of steps already made."""
        self._rows = {number: row for number, row in self._rows.items() if number < step}
        self._written = min(self._written, step - 1)

    def unwritten(self, trainer: Trainer) -> list[dict[str, Any]]:
        """Rows that are not in the file yet, that of the step just made among them: for the checkpoint."""
        others, trainer.loggers = trainer.loggers, [self]
        try:
            trainer._logger_connector.update_train_step_metrics()  # Lightning will, but only after the checkpoint
        finally:
            trainer.loggers = others
        return [dict(row) for number, row in self._rows.items() if number >= self._written]  # that one may have grown

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put back what :meth:`unwritten` gave."""
        for row in rows:
            self.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass  # they stand in config.yaml

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
            with writing(self.path.parent), self.path.open("a", newline="", encoding="utf-8") as file:
                self._writer(file).writerows(self._rows[step] for step in new)
        else:
            write_atomically(self.path, lambda file: self._write_afresh(_Lines(file), steps))
            self._header = list(self._columns)
        self._written = max(steps, default=-1)

    def _write_afresh(self, file: Any, steps: list[int]) -> None:
        writer = self._writer(file)
        writer.writeheader()
        writer.writerows(self._rows[step] for step in steps)

    def _writer(self, file: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, lineterminator="\n")


class _Lines:
    """Text into a binary file."""

    def __init__(self, file: Any):
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(text.encode("utf-8"))


class _Call:
    """Something to do in another thread, and what came of it."""

    def __init__(self, act: Callable[[], Any]):
        self.act, self.done = act, threading.Event()
        self.began = time.monotonic()
        self.result: Any = None


class IsolatedLogger(Logger):
    """Another logger that may fail or hang: the first failure is one warning, and from then on it is left alone.

    It works in a thread of its own, which the run waits for while it answers within ``patience``; then it may catch up.
    A run never depends on a service. Its metrics are complete in ``metrics.csv``.
    """

    patience = 5.0  # seconds
    silence = 60.0  # seconds without an answer, or the end of the run: worth a warning

    def __init__(self, make: Callable[[], Logger], label: str, run_dir: Path):
        """
        Raises:
            ConfigError: a package that the service needs is not installed.
        """
        super().__init__()
        self.label, self.run_dir = label, run_dir
        self._inner: Logger | None = None
        self._works, self._warned = True, False
        self._calls: Queue[_Call] = Queue(maxsize=10_000)
        self._failure: Exception | None = None
        self._unanswered: _Call | None = None  # what the others wait for
        threading.Thread(target=self._answer, name=label, daemon=True).start()
        try:
            self._call(lambda: setattr(self, "_inner", make()))
        except ModuleNotFoundError as error:
            extra = label.lower().removesuffix("logger")
            raise ConfigError(f"logger={extra} needs a package: pip install 'genlab[{extra}]'") from error
        except GenlabError:
            raise
        except Exception as error:
            self._give_up(error)

    def _answer(self) -> None:
        """In the thread: make the calls, one after the other, until one fails."""
        while self._failure is None:
            call = self._calls.get()
            try:
                with _shown_command():
                    call.result = call.act()
            except Exception as error:
                self._failure = error
            call.done.set()

    def _call(self, act: Callable[[], Any], is_last: bool = False) -> Any:
        """What ``act`` returns, or raises; None if that is not known in time."""
        if self._unanswered is not None and self._unanswered.done.is_set():
            self._unanswered = None
        call = _Call(act)
        with suppress(Full):
            self._calls.put_nowait(call)
        answered = self._failure is not None or call.done.wait(
            self.patience if self._unanswered is None or is_last else 0
        )
        if self._failure is not None:
            raise self._failure
        if not answered:
            self._unanswered = self._unanswered or call
            silent = time.monotonic() - self._unanswered.began
            if is_last or silent > self.silence:
                self._warn(f"has not answered for {silent:.0f} s")
        return call.result

    def _attempt(self, act: Callable[[Logger], Any], is_last: bool = False) -> Any:
        if not self._works:
            return None
        try:
            return self._call(lambda: None if self._inner is None else act(self._inner), is_last)
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        self._works = False
        self._warn(f"stopped working ({(one_line(error) or type(error).__name__)[:200]})")

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"{self.label} {what}. Metrics go to {self.run_dir / 'metrics.csv'}.", stacklevel=3)

    @property
    def name(self) -> str:
        return self.label

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_only
    def experiment(self) -> Any:
        return self._attempt(lambda logger: logger.experiment)  # type: ignore[attr-defined]

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._attempt(lambda logger: logger.log_hyperparams(params))

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._attempt(lambda logger: logger.log_metrics(metrics, step))

    @rank_zero_only
    def show_image(self, name: str, path: Path, step: int) -> None:
        """Show a picture, if the service is one that does."""
        self._attempt(lambda logger: _show_image(logger, name, path, step))

    @rank_zero_only
    def show_text(self, name: str, texts: Sequence[str], step: int) -> None:
        """Show texts, if the service is one that does."""
        self._attempt(lambda logger: _show_text(logger, name, texts, step))

    @rank_zero_only
    def save(self) -> None:
        self._attempt(lambda logger: logger.save())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._attempt(lambda logger: logger.finalize(status), is_last=True)


@contextmanager
def _shown_command() -> Iterator[None]:
    """The command line without secrets: W&B writes it down. Processes that Lightning starts need it as it is."""
    typed = sys.argv
    sys.argv = redacted(typed)
    try:
        yield
    finally:
        sys.argv = typed


def _show_image(logger: Logger, name: str, path: Path, step: int) -> None:
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [str(path)], step=step)
    elif isinstance(logger, TensorBoardLogger):
        pixels = np.array(Image.open(path).convert("RGB"))
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")


def _show_text(logger: Logger, name: str, texts: Sequence[str], step: int) -> None:
    if isinstance(logger, WandbLogger):
        logger.log_text(name, ["text"], [[text] for text in texts], step=step)
    elif isinstance(logger, TensorBoardLogger):
        indented = ("".join(f"    {line}\n" for line in text.splitlines()) for text in texts)
        logger.experiment.add_text(name, "\n---\n".join(indented), step)


def choose_wandb_mode() -> None:
    """Offline where nobody has logged in, or nobody answers; a mode that the user has set stands."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", "20")  # seconds
    if "WANDB_MODE" in os.environ:
        return
    if not (os.environ.get("WANDB_API_KEY") or _netrc_names_wandb()):
        os.environ["WANDB_MODE"] = "offline"
        return
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError, http.client.HTTPException) as error:
        os.environ["WANDB_MODE"] = "offline"
        warnings.warn(f"W&B is unreachable at {url} ({error}); the run is kept offline.", stacklevel=2)


def _netrc_names_wandb() -> bool:
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return file.exists() and "wandb" in file.read_text(encoding="utf-8", errors="ignore")
