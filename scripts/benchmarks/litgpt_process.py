"""litgpt in an environment of its own, asked over a pipe: it times itself, in turns with what is done here."""

import json
import os
import subprocess
from pathlib import Path

from benchmarks.options import Options
from benchmarks.peers import Missing
from benchmarks.timing import Spent

PROGRAM = Path(__file__).with_name("litgpt_worker.py")


class Worker:
    """A process that writes texts when it is asked to. Raises Missing."""

    def __init__(self, options: Options, depth: int, heads: int, width: int, context: int, batch: int, length: int):
        python = options.litgpt_python
        if python is None:
            raise Missing(
                "litgpt needs an environment of its own: python -m venv litgpt, litgpt/bin/pip install "
                "litgpt, then --litgpt-python litgpt/bin/python"
            )
        sizes = json.dumps(
            {
                "depth": depth,
                "heads": heads,
                "width": width,
                "context": context,
                "batch": batch,
                "length": length,
                "device": options.device,
            }
        )
        self._process = subprocess.Popen(
            [str(python), "-P", str(PROGRAM), sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first:
            _, error = self._process.communicate()
            raise Missing(f"{python} cannot run litgpt: {(error.strip().splitlines() or ['it ended'])[-1]}")
        self.parameters: int = json.loads(first)["parameters"]

    def generate(self) -> Spent:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Spent(told["cpu"], told["wall"])

    def close(self) -> None:
        self._process.communicate()
