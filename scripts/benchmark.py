"""How fast genlab is beside its peers, on the same work.

    python scripts/benchmark.py                              # every row
    python scripts/benchmark.py gpt unet --rounds 9 --peer nanogpt=../nanoGPT
    python scripts/benchmark.py all --json benchmarks.json --litgpt-python ../litgpt/bin/python
    python scripts/benchmark.py all --quick                  # that everything runs, in seconds; times mean nothing

One thread. Both sides are checked to compute the same before they are timed, in turns; what is printed is the median
of paired ratios, of processor time (on a GPU: of time), with an interval of order statistics. docs/benchmarks.md says
what each row is. A peer that is not there is left out with a sentence.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the BLAS of numpy and scipy when they are loaded

from benchmarks.command import main

if __name__ == "__main__":
    main(__doc__)
