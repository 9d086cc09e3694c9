"""Each column sees what it is made for and nothing else: the table of docs/metrics.md, with fewer sets."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_columns.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_columns", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_columns_see_what_they_are_made_for_and_nothing_else(benchmark) -> None:
    source = benchmark.digits()
    evaluation = benchmark.made_for(source, 400)
    real = benchmark.values(evaluation, source, "real", sets=199, seed=0)
    wrong = []
    for kind, column in benchmark.MADE_FOR.items():
        found = benchmark.values(evaluation, source, kind, sets=3, seed=1)
        for other in benchmark.MADE_FOR.values():
            seen = benchmark.outside(found[other], real[other])
            if not np.array_equal(seen, np.full(3, other == column)):
                wrong.append((kind, other, found[other], benchmark.interval(real[other])))
    assert not wrong
