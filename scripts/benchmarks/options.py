"""What a row is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    rounds: int = 7
    quick: bool = False  # tiny sizes, whose times mean nothing: a test that everything runs
    device: str = "cpu"  # or cuda
    seconds: float = 0.6  # that each side works in a round
    peers: Mapping[str, Path] = field(default_factory=dict)  # folders of code that no package provides, by name
    litgpt_python: Path | None = None  # of an environment that has litgpt, which needs a Lightning of its own
    run: Path | None = None  # a trained run, whose samples are judged
    say: Callable[[str], None] = lambda sentence: None  # of what happens meanwhile

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.quick else full
