"""Work spread over threads: in order, a few tasks ahead and no more."""

import os
import time
from collections.abc import Iterator

import pytest

from genlab.data.decoding import in_parallel


def test_results_come_in_order_whatever_the_work_takes() -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 32 == 0 and item % 64 == 0))
        return item * item

    for count in (0, 1, 31, 32, 33, 500):
        assert list(in_parallel(range(count), work, "squaring", count)) == [i * i for i in range(count)]


def test_items_are_read_only_a_few_tasks_ahead() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100_000):
            read.append(item)
            yield item

    results = in_parallel(items(), lambda item: item, "reading", None)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(read) <= 32 * (2 * (os.cpu_count() or 1) + 1)
    results.close()


def test_an_error_of_the_work_is_raised() -> None:
    def work(item: int) -> int:
        if item == 70:
            raise ValueError("seventy")
        return item

    results = in_parallel(range(1000), work, "failing", 1000)
    seen = []
    with pytest.raises(ValueError, match="seventy"):
        seen.extend(iter(lambda: next(results), None))
    assert seen == list(range(64))  # the tasks before its own
