"""Isolates loggers of external services, so that their failures cannot end or block a run."""

import atexit
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genlab.config.build import NotMadeError
from genlab.errors import ConfigError, GenlabError
from genlab.logger import tracking
from genlab.redaction import one_line, redacted

_shown = threading.Lock()
_typed: list[list[str]] = []  # the real command line, once for each service call in progress


class _Call:
    """A call in another thread, and its result."""

    def __init__(self, act: Callable[[], Any]):
        self.act, self.done = act, threading.Event()
        self.began = time.monotonic()
        self.result: Any = None


class IsolatedLogger(Logger):
    """Wraps a logger that may fail or hang: after the first failure it warns once and stops calling it.

    Calls run in a separate thread, which the run waits for at most ``patience`` seconds; later it may catch up.
    A run never depends on a service. Its metrics are complete in ``metrics.csv``.
    """

    patience = 5.0  # seconds
    patience_with_files = 600.0  # seconds, at the end of a run
    silence = 60.0  # seconds without an answer before a warning

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
        self._unanswered: _Call | None = None  # the call that others wait for
        threading.Thread(target=self._answer, name=label, daemon=True).start()
        try:
            self._call(lambda: setattr(self, "_inner", make()))
        except ModuleNotFoundError as error:
            extra = label.lower().removesuffix("logger")
            raise ConfigError(f"logger={extra} needs a package: pip install 'genlab[{extra}]'") from error
        except NotMadeError as error:  # from the service's own code, which must not end a run
            self._give_up(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        except GenlabError:
            raise
        except Exception as error:
            self._give_up(error)

    def _answer(self) -> None:
        """The thread's loop: makes the calls, one after the other, until one fails."""
        while self._failure is None:
            call = self._calls.get()
            try:
                with _shown_command():
                    call.result = call.act()
            except Exception as error:
                self._failure = error
            call.done.set()
        with suppress(Empty):
            while True:
                self._calls.get_nowait().done.set()  # nobody waits for what will not be done

    def _call(self, act: Callable[[], Any], last: float = 0.0, wait: bool = True) -> Any:
        """What ``act`` returns, or raises; None if that is not known in time. ``last``: seconds to wait for it whatever
        was not answered before, at the end of a run. ``wait`` false: not at all; later calls see what came of it."""
        if self._unanswered is not None and self._unanswered.done.is_set():
            self._unanswered = None
        call = _Call(act)
        with suppress(Full):
            self._calls.put_nowait(call)
        answered = self._failure is not None or call.done.wait(
            last or (self.patience if wait and self._unanswered is None else 0)
        )
        if self._failure is not None:
            raise self._failure
        if not answered:
            self._unanswered = self._unanswered or call
            silent = time.monotonic() - self._unanswered.began
            if last or silent > self.silence:
                self._warn(f"has not answered for {silent:.0f} s")
        return call.result

    def _attempt(self, act: Callable[[Logger], Any], last: float = 0.0, wait: bool = True) -> Any:
        if not self._works:
            return None
        try:
            return self._call(lambda: None if self._inner is None else act(self._inner), last, wait)
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        self._works = False
        if isinstance(self._inner, WandbLogger):
            part = threading.Thread(target=_part_from_wandb, name="part from W&B", daemon=True)
            part.start()
            part.join(self.patience)
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
        self.start(params, ())

    @rank_zero_only
    def start(self, told: Mapping[str, Any], curves: Sequence[str], wait: bool = True) -> None:
        """To be called before the first step, with the config, and the names of the numbers that evaluations will give.
        ``wait`` false: the first steps are made meanwhile."""
        self._attempt(lambda logger: tracking.start(logger, told, curves), wait=wait)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._attempt(lambda logger: tracking.log(logger, metrics, step))

    @rank_zero_only
    def show_image(self, name: str, path: Path, caption: str, examples: int, step: int) -> None:
        """Show a picture, if the service supports it."""
        self._attempt(lambda logger: tracking.show_image(logger, name, path, caption, examples, step))

    @rank_zero_only
    def show_text(self, name: str, texts: Sequence[str], examples: int, step: int) -> None:
        """Show texts, if the service supports it."""
        self._attempt(lambda logger: tracking.show_text(logger, name, texts, examples, step))

    @rank_zero_only
    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set the summary of a run, if the service has one."""
        self._attempt(lambda logger: tracking.summarize(logger, values))

    @rank_zero_only
    def send_model(self, files: Mapping[str, Path]) -> None:
        """Send the trained model, if configured. Everything else is written by then."""
        if self._works and self._inner is not None and tracking.wants_model(self._inner):
            self._attempt(lambda logger: tracking.send_model(logger, files), self.patience_with_files)

    @rank_zero_only
    def save(self) -> None:
        self._attempt(lambda logger: logger.save())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._attempt(lambda logger: logger.finalize(status), self.patience)
        if isinstance(self._inner, WandbLogger):
            atexit.register(_end_quietly)  # registered after W&B's own, so that it runs before them


def _end_quietly() -> None:
    """Hide errors of W&B at the end of this process, when its service is gone."""
    sys.unraisablehook = lambda _: None


def _part_from_wandb() -> None:
    """Disconnect from W&B's service, so that it does not report at exit that the service is gone."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()


@contextmanager
def _shown_command() -> Iterator[None]:
    """Hide secrets in the command line, which W&B saves. Processes that Lightning starts need the real one."""
    with _shown:
        _typed.append(_typed[0] if _typed else sys.argv)
        sys.argv = redacted(_typed[0])
    try:
        yield
    finally:
        with _shown:
            typed = _typed.pop()
            if not _typed:
                sys.argv = typed
