"""The reward of programs that pass the examples in their prompt."""

import ast
import doctest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.metrics.sandbox import Sandbox, check_sandbox
from genlab.model.answers import Answers

_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_PROGRAM = """
def run(code, examples):
    evaluate, execute, show = eval, exec, repr
    space = {{}}
    execute(code, space)
    for source, wanted in examples:
        found = evaluate(source, space)
        assert (found is None and not wanted) or show(found) == wanted, source
run({code!r}, {examples!r})
"""


class Doctests:
    """1 for an answer that, written after its prompt, is a program of Python by which all examples in the prompt
    (``>>> f(1)`` and below it ``2``) come out, else 0. An example is an expression.

    Programs run in a sandbox (:mod:`genlab.metrics.sandbox`), and must be allowed to. A program that takes too long
    has failed, so a run on another machine, or a busier one, may find otherwise.
    """

    def __init__(
        self,
        allow_code: bool = False,  # whether programs that the model wrote may run on this machine
        allow_root: bool = False,  # whether they may also where root trains without bubblewrap
        weight: float = 1.0,
        seconds: float = 2.0,  # that a program may run
        memory_mb: int = 512,  # of a program
        workers: int = 2,  # programs that run at a time, on each process
    ):
        """Raises ValueError: an argument is outside its range."""
        if seconds <= 0 or memory_mb < 64 or workers < 1:
            raise ValueError(f"seconds={seconds} must be above 0, memory_mb={memory_mb} >= 64, workers={workers} >= 1.")
        self.allow_code, self.allow_root, self.weight, self.workers = allow_code, allow_root, weight, workers
        self.sandbox = Sandbox(seconds, memory_mb << 20)

    def check(self, data: Any) -> None:
        """Raises ConfigError: programs may not run here, or a prompt has no example."""
        if not self.allow_code:
            raise ConfigError(
                "model/rewards=doctests runs programs that the model writes. If they may run on this machine, set "
                "model.rewards.doctests.allow_code=true."
            )
        check_sandbox(self.allow_root, "model.rewards.doctests")
        for split in data.splits:
            for conversation in data.known(split):
                if not examples_in(asked(conversation)):
                    raise ConfigError(
                        f"model/rewards=doctests: the prompt of {conversation.where} has no example (>>> and what "
                        "comes out). Leave it out of the data."
                    )

    def score(self, answers: Answers) -> Tensor:
        """(M,), 0 or 1."""
        known = answers.data.known(answers.split)
        prompts = [asked(known[number]) for number in answers.numbers]
        programs = [program(prompt, text) for prompt, text in zip(prompts, answers.texts, strict=True)]
        with ThreadPoolExecutor(self.workers) as pool:
            return torch.tensor([float(passed) for passed in pool.map(self.sandbox.passes, programs)])


def asked(conversation: Any) -> str:
    """What the last message of a prompt says."""
    return str(conversation.prompt[-1]["content"])


def examples_in(prompt: str) -> list[tuple[str, str]]:
    """The expressions of the examples in a text, and what should come out: in the docstrings of the head of a program,
    or in any other text."""
    try:
        nodes = [node for node in ast.walk(ast.parse(prompt)) if isinstance(node, _DOCUMENTED)]
        texts = [ast.get_docstring(node) or "" for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        texts = [prompt]
    try:
        found = [one for text in texts for one in doctest.DocTestParser().get_examples(text)]
    except ValueError:
        return []
    return [(one.source.strip(), one.want.strip()) for one in found]


def program(prompt: str, answer: str) -> str:
    """The program text that is run: the code in a space of its own, then the examples, read from the prompt alone."""
    return _PROGRAM.format(code=f"{prompt}{answer}", examples=examples_in(prompt))
