"""What ``python scripts/benchmark.py`` takes, and what it prints and keeps."""

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import genlab  # noqa: F401  before torchvision, which it mends beside a CPU build of torch
from benchmarks.options import Options
from benchmarks.peers import WHERE
from benchmarks.row import Row, Skipped, as_record, table

PARTS = (
    "gpt",
    "dit",
    "unet",
    "gan",
    "vae",
    "sampling",
    "decode",
    "fid",
    "data",
    "overhead",
    "startup",
    "scale",
    "ddp",
    "sweep",
    "compare",
    "gpu",
)


def main(told: str | None = None, argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmark.py", description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all: all of them", default=["all"]
    )
    parser.add_argument("--rounds", type=int, default=7, help="pairs that a ratio is the median of")
    parser.add_argument("--seconds", type=float, default=0.6, help="that each side works in a round")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and 2 rounds: a test that everything runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the record here")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PATH",
        type=_peer,
        help=f"code that no package provides: {', '.join(WHERE)}",
    )
    parser.add_argument("--litgpt-python", type=Path, metavar="PATH", help="of an environment that has litgpt")
    parser.add_argument("--run", type=Path, help="a trained run of digits, for the quality of its samples")
    asked = parser.parse_args(argv)
    parts = PARTS if "all" in asked.parts else tuple(dict.fromkeys(asked.parts))
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}. There are: {', '.join(PARTS)}, all.")
    if asked.rounds < 1:
        parser.error("--rounds must be 1 or more.")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this torch sees no GPU. Leave it out for the CPU.")
    torch.set_num_threads(asked.threads)
    options = Options(
        rounds=2 if asked.quick else asked.rounds,
        quick=asked.quick,
        device=asked.device,
        seconds=0.0 if asked.quick else asked.seconds,
        peers=dict(asked.peer),
        litgpt_python=asked.litgpt_python,
        run=asked.run,
        say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    measured: list[Row] = []
    skipped: list[Skipped] = []
    for part in parts:
        options.say(f"{part} ...")
        for found in rows_of(part, options):
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                measured.append(found)
            if asked.json is not None:  # after each row: what is measured is kept whatever happens
                asked.json.write_text(text(record(measured, skipped, options)), encoding="utf-8")
    print(table(measured))
    for left_out in skipped:
        print(f"left out: {left_out.work}: {left_out.why}")


def _peer(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in WHERE:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(WHERE)}")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{path!r} is not a folder")
    return name, Path(path).resolve()


def rows_of(part: str, options: Options) -> Iterator[Row | Skipped]:
    module: Any = importlib.import_module(f"benchmarks.{part}")
    yield from module.rows(options)


def record(measured: Sequence[Row], skipped: Sequence[Skipped], options: Options) -> dict[str, Any]:
    return {
        "machine": machine(options.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rows": [as_record(row) for row in measured],
        "skipped": [as_record(row) for row in skipped],
    }


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return names[0] + "".join(f", {flag}" for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags)


def text(content: dict[str, Any]) -> str:
    """A line a row, so that a difference is of rows."""
    rows = {key: content.pop(key) for key in ("rows", "skipped")}
    head = json.dumps(content, indent=1).rstrip("\n}")
    lists = [
        f' "{key}": [\n  ' + ",\n  ".join(map(json.dumps, values)) + "\n ]" if values else f' "{key}": []'
        for key, values in rows.items()
    ]
    return ",\n".join([head, *lists]) + "\n}\n"
