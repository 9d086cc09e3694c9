"""pass@k: the share of problems for which generated programs pass their tests."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.problems import Problem, Problems, answers, check_answers, read_problems
from genlab.metrics.sandbox import Sandbox, best_way, check_sandbox, what_is_open
from genlab.model.base import GenerativeModel
from genlab.progress import progress

_MOST = 1000
_log = logging.getLogger(__name__)


class PassAtK(Metric):
    """``pass_at_k``, in [0, 1]: the chance that of k programs for a problem one passes its tests, the mean over
    problems, estimated without bias from n >= k samples of each (Chen et al. 2021, arXiv:2107.03374, eq. 1).

    Problems are lines of JSON with the fields of HumanEval: ``prompt`` (the head of a function and its docstring),
    ``entry_point`` (its name) and ``test``, which defines ``check(candidate)``. The program is the prompt, the model's
    continuation up to one of ``stop``, the test and a call of it.

    It runs generated programs, so it must be allowed; see :mod:`genlab.metrics.sandbox` for what these can do.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {f"pass_at_{k}": "higher" for k in range(1, _MOST + 1)}
    full_state_update = False

    def __init__(
        self,
        problems: str,  # a file of JSON lines
        allow_code: bool = False,  # whether programs that the model wrote may run on this machine
        allow_root: bool = False,  # whether they may also where root measures without bubblewrap
        k: Sequence[int] = (1, 10),
        num_samples: int = 20,  # n, of each problem
        stop: Sequence[str] = ("\nclass", "\ndef", "\n#", "\nif", "\nprint"),  # where an answer ends, as in the paper
        seconds: float = 5.0,  # that a program may run
        memory_mb: int = 1024,  # of a program
        workers: int = 2,  # programs that run at a time, on each rank
    ):
        """Raises ConfigError if an argument is out of its range."""
        super().__init__()
        if not k or min(k) < 1 or max(k) > min(num_samples, _MOST):
            raise ConfigError(
                f"metrics.pass_at_k.k={list(k)} must be whole numbers from 1 to "
                f"num_samples={num_samples}, at most {_MOST}."
            )
        if seconds <= 0 or memory_mb < 64 or workers < 1:
            raise ConfigError(
                f"metrics.pass_at_k: seconds={seconds} must be above 0, memory_mb={memory_mb} >= 64, "
                f"workers={workers} >= 1."
            )
        self.path, self.allow_code, self.allow_root = problems, allow_code, allow_root
        self.k, self.num_samples = tuple(k), num_samples
        self.stop, self.workers = tuple(stop), workers
        self.sandbox = Sandbox(seconds, memory_mb << 20)
        self._problems: Problems | None = None
        self._seed = 0
        self.add_state("estimates", torch.zeros(len(self.k), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.estimates: Tensor
        self.total: Tensor

    def update(self, passed: Sequence[bool]) -> None:
        """Add a problem: which of its programs passed."""
        found = [pass_at_k(len(passed), sum(passed), k) for k in self.k]
        self.estimates += torch.tensor(found, dtype=torch.float64, device=self.estimates.device)
        self.total += 1

    def compute(self) -> dict[str, Tensor]:
        """``pass_at_<k>`` of each k."""
        return {f"pass_at_{k}": value for k, value in zip(self.k, self.estimates / self.total, strict=True)}

    def settings(self) -> dict[str, int | float | str]:
        return {
            "problems": "" if self._problems is None else self._problems.sha256,
            "num_samples": self.num_samples,
            "stop": repr(self.stop),
            "seconds": self.sandbox.seconds,
            "memory": self.sandbox.memory,
            "seed": self._seed,
        }

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in the answers to this rank's problems. The split is not used. Raises ConfigError as :meth:`check`."""
        self.check(model, data)
        assert self._problems is not None
        if is_open := what_is_open(best_way()):
            _log.warning("%s", is_open)
        self._seed = seed
        given = dict(answers(model, data, self._problems, self.num_samples, self.stop, batch_size, seed))
        programs = [(i, program(self._problems.items[i], answer)) for i in given for answer in given[i]]
        passed: dict[int, list[bool]] = {i: [] for i in given}
        with (
            ThreadPoolExecutor(self.workers) as pool,
            progress(f"running {len(programs):,} programs", len(programs)) as advance,
        ):
            for (i, _), good in zip(programs, pool.map(self.sandbox.passes, (p for _, p in programs)), strict=True):
                passed[i].append(good)
                advance(1)
        for outcomes in passed.values():
            self.update(outcomes)

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: running programs is not allowed, not possible here, or root would without bubblewrap; the
        data are no text, the model writes none, there is no file of problems; DataError: it does not hold any."""
        check_answers("pass_at_k", model, data)
        if not self.allow_code:
            raise ConfigError(
                "metrics=pass_at_k runs programs that the model writes. If they may run on this machine, set "
                "metrics.pass_at_k.allow_code=true."
            )
        check_sandbox(self.allow_root, "metrics.pass_at_k")
        self._problems = read_problems(self.path, ("prompt", "entry_point", "test"), "pass_at_k")

    def subject(self, model: GenerativeModel, split: Split) -> str:
        """The file's name, and how many samples of each."""
        return f"{Path(self.path).stem}_{self.num_samples}"


def program(problem: Problem, answer: str) -> str:
    """The program text that is run."""
    return f"{problem['prompt']}{answer}\n\n{problem['test']}\n\ncheck({problem['entry_point']})"


def pass_at_k(n: int, right: int, k: int) -> float:
    """1 - C(n - right, k) / C(n, k): the chance that k of n, of which some are right, hold one that is."""
    if n - right < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - right + 1, n + 1)))
