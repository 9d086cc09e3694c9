"""What large inputs cost, in CPU seconds and peak memory: large_inputs_worker.py says of each what it is."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.large_inputs_worker import CASES
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, alone

PROGRAM = Path(__file__).with_name("large_inputs_worker.py")


def rows(part: str, cases: Sequence[str], options: Options) -> Iterator[Row | Skipped]:
    """Seconds and peak memory of each of ``cases``; of some a second time, with what the first has left."""
    scale = 2e-3 if options.quick else 1.0
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            title, make, _, times = CASES[case]
            inputs, work = Path(folder) / case, Path(folder) / f"{case}-work"
            make(inputs, scale)
            for again in range(times):
                took = _in_a_process(case, inputs, work)
                name = title + ("" if times == 1 else ", again" if again else ", the first time")
                if options.quick:
                    name += ", tiny"
                yield alone(part, name, [took["cpu"]], "s", wall=took["wall"])
                yield alone(
                    part, f"{name}: peak memory", [took["memory"] / 1e6], "MB", of_imports=took["imports"] / 1e6
                )
            shutil.rmtree(inputs)


def _in_a_process(case: str, inputs: Path, work: Path) -> dict[str, float]:
    command = [sys.executable, "-P", str(PROGRAM), case, str(inputs), str(work)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    took: dict[str, float] = json.loads(found.stdout)
    return took
