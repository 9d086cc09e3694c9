"""Works on large inputs: long metrics files, many runs, many pictures, long texts. In CPU seconds and peak memory.

Each case is a process of its own, which imports nothing of the benchmark; what is measured begins after its imports.
Peak memory is that of the whole process, the pages of mapped files that it has touched among them. Starting Python and
importing torch are left out.
"""

import contextlib
import csv
import io
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[2] / "tests" / "report"  # which make runs

ROWS, RUNS, PICTURES, BYTES = 1_000_000, 1_000, 100_000, 200_000_000


def make_rows(folder: Path, scale: float) -> None:
    """Two runs, one of which logged a million times."""
    sys.path.insert(0, str(TESTS))
    from run_folders import make_run

    for name, rows in (("long", round(ROWS * scale)), ("short", 100)):
        run = make_run(folder / name, seed=rows)
        random = np.random.default_rng(0)
        with (run / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                [
                    "step",
                    "train/loss",
                    "monitor/gradient_norm",
                    "progress/examples",
                    "progress/flops",
                    "progress/seconds",
                    "val/loss",
                    "val/fid_digits64_500",
                ]
            )
            noise = random.normal(size=(rows, 2)).tolist()
            for i, (a, b) in enumerate(noise):
                judged = [f"{3 + a:.6g}", f"{9 + b:.6g}"] if i % 1000 == 999 else ["", ""]
                writer.writerow(
                    [i, f"{a:.6g}", f"{b:.6g}", 64 * (i + 1), f"{1e9 * (i + 1):.6g}", f"{0.01 * i:.6g}", *judged]
                )


def make_runs(folder: Path, scale: float) -> None:
    """A sweep of runs with curves of 400 rows and three grids each."""
    sys.path.insert(0, str(TESTS))
    from synthetic_runs import make_sweep

    make_sweep(folder, round(RUNS * scale), grids=3, points=400)


def make_pictures(folder: Path, scale: float) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(100)]
    encoded = []
    for picture in pixels:
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "PNG", compress_level=1)
        encoded.append(data.getvalue())
    for i in range(round(PICTURES * scale)):
        path = folder / f"class{i % 10}" / f"{i:06d}.png"
        if i < 10:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[i % 100])


def make_text(folder: Path, scale: float) -> None:
    random = np.random.default_rng(0)
    words = ["".join(chr(97 + c) for c in random.integers(0, 26, n)) for n in random.integers(2, 9, 1000)]
    folder.mkdir(parents=True, exist_ok=True)
    left = round(BYTES * scale)
    with (folder / "text.txt").open("w") as file:
        while left > 0:
            line = " ".join(words[i] for i in random.integers(0, 1000, 2000)) + "\n"
            file.write(line[:left])
            left -= len(line)


def compare(runs: Path, work: Path) -> Callable[[], Any]:
    from genlab.report import curve_plots, plots  # noqa: F401  # matplotlib comes with the first plot
    from genlab.report.comparison import compare as run

    return lambda: run([str(runs)], out=str(work / "out"))


def pictures(folder: Path, work: Path) -> Callable[[], Any]:
    """What a start does: all of it, up to the fingerprint of the data."""
    from genlab.data.image_folder import ImageFolder

    return lambda: _start(ImageFolder(str(folder), cache_dir=str(work / "cache")))


def text(folder: Path, work: Path) -> Callable[[], Any]:
    from genlab.data.text_file import TextFile
    from genlab.data.tokenizer.characters import Characters

    return lambda: _start(TextFile(Characters(), str(folder / "text.txt"), cache_dir=str(work / "cache")))


def _start(data: Any) -> None:
    assert data.spec is not None
    data.check(1)
    print(data.fingerprint)


CASES = {
    "rows": ("compare, a metrics.csv of 1 M rows", make_rows, compare, 1),
    "runs": ("compare of 1,000 runs", make_runs, compare, 1),
    "pictures": ("100 k pictures", make_pictures, pictures, 2),
    "text": ("200 MB of text", make_text, text, 2),
}


def peak_memory() -> int:
    """Bytes, of this program alone: Linux's ru_maxrss has that of the process that started it, too."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def measure(case: str, folder: Path, work: Path) -> None:
    """In a process of its own: prints what it took as JSON."""
    act = CASES[case][2](folder, work)
    said = io.StringIO()
    wall, start = time.perf_counter(), time.process_time()
    before = peak_memory()
    with contextlib.redirect_stdout(said):
        act()
    took = {
        "cpu": time.process_time() - start,
        "wall": time.perf_counter() - wall,
        "imports": before,
        "memory": peak_memory(),
    }
    print(json.dumps(took))


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
