"""Out-of-memory errors as one line with the settings to try."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from genlab.errors import ResourceError


@contextmanager
def enough_memory(where: str | Callable[[], str], remedy: str) -> Iterator[None]:
    """Raises ResourceError if what is done inside runs out of memory.

    Args:
        where: what was being done, e.g. "at step 1 (batch 64)"
        remedy: what to try, e.g. "data.batch_size=32"
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if "shared memory" in str(error) or "DataLoader worker" in str(error):
            place = where if isinstance(where, str) else where()
            why = f"a process that loads data died {place}, usually because memory or shared memory (/dev/shm) is full"
            raise ResourceError(f"{why}. Try data.num_workers=0, or docker run --shm-size=2g") from error
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not (on_gpu or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        place = where if isinstance(where, str) else where()
        raise ResourceError(f"out of {'GPU ' * on_gpu}memory {place}. Try {remedy}.") from error


def smaller_batch(batch_size: int, accumulate: int, ranks: int) -> str:
    """The options of the next smaller batch that all ranks can share and that adds up to the same effective one."""
    factor = next((f for f in range(2, batch_size + 1) if batch_size % (f * ranks) == 0), None)
    if factor is None:
        return "a smaller model, or trainer.precision=bf16-mixed"
    return (
        f"data.batch_size={batch_size // factor} trainer.accumulate_grad_batches={accumulate * factor} "
        "(same effective batch)"
    )
