"""Break runs in every way that a run promises to bear, count what held: ``make faults``, ``make faults SCALE=0.1``.

The ledger, outputs/faults/ledger.jsonl, has a line a trial. A campaign that was interrupted goes on from there, as long
as the code is the same; trials that did not hold are made again. It ends with a table, which outputs/faults/table.md
keeps, and with exit code 1 if anything did not hold. The folder of a trial that did not hold stays for a look at it.
"""

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process whose OpenMP threads have run cannot be forked
    # Ends are compared to the last bit: none may choose by a timing of its own how the CPU computes.
    os.environ |= {"GENLAB_MATMUL": "onednn", "GENLAB_ATTENTION": "fused"}
    sys.path[0] = str(Path(__file__).parents[1])

import torch

import genlab
import ours
from faults import caches, damages, evaluations, full_disk, kills, matrix, outages, shards, signals, starts, two_ranks
from faults.runs import Place, Runs, temporary_folder
from faults.trial import Trial

PROMISES = {"kills": kills, "matrix": matrix, "damages": damages, "signals": signals, "full_disk": full_disk,
            "outages": outages, "starts": starts, "shards": shards, "two_ranks": two_ranks,
            "evaluations": evaluations, "caches": caches}  # fmt: skip
REPOSITORY = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    ours.confirm()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of trials")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "outputs" / "faults")
    parser.add_argument("promises", nargs="*", default=[], help=f"some of: {', '.join(PROMISES)}; none: all")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # in the background too, and clearing up
    import_everything()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(options.folder.resolve(), options.jobs)
    trials = [trial for name in options.promises or PROMISES for trial in PROMISES[name].trials(options.scale)]
    assert len({trial.name for trial in trials}) == len(trials), "two trials of one name would share a folder"
    campaign.run(trials)
    table = campaign.table(trials)
    (options.folder / "table.md").write_text(table)
    print(f"\n{table}")
    failed = [line for line in campaign.lines(trials) if not line["held"]]
    for line in failed:
        print(f"did not hold: {line['trial']}: {line['said']}\n  see {campaign.folder_of(line['trial'])}")
    return int(bool(failed))


def import_everything() -> None:
    for module in pkgutil.walk_packages(genlab.__path__, "genlab."):
        importlib.import_module(module.name)
    for other in ("sklearn.datasets", "wandb", "torchmetrics", "PIL.PngImagePlugin", "torch.distributed"):
        importlib.import_module(other)


def fingerprint() -> str:
    """Of all that decides how a trial ends."""
    files = sorted(path for top in ("src", "configs", "tests/faults") for path in (REPOSITORY / top).rglob("*"))
    digest = hashlib.sha256((REPOSITORY / "tests" / "tiny_run.py").read_bytes())
    for path in files:
        if path.suffix in (".py", ".yaml"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Campaign:
    """Runs trials, each in a process of its own, and writes down how they ended."""

    def __init__(self, folder: Path, jobs: int):
        self.folder, self.jobs, self.code = folder, jobs, fingerprint()
        self.ledger = folder / "ledger.jsonl"
        for old in folder.glob("references-*"):
            if not old.name.endswith(self.code):
                shutil.rmtree(old)
        self.runs = Runs(folder / f"references-{self.code}")
        with self.ledger.open("a+") as file:
            file.seek(0)
            complete = [line for line in file if line.endswith("\n")]  # an interruption may have cut the last one
        self.ledger.write_text("".join(complete))
        self.done = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        """The last line of every trial of this code."""
        entries = map(json.loads, self.ledger.read_text().splitlines())
        return {entry["trial"]: entry for entry in entries if entry["code"] == self.code}

    def folder_of(self, name: str) -> Path:
        return self.folder / "trials" / name.replace("/", "-")

    def run(self, trials: Sequence[Trial]) -> None:
        """Make the trials that the ledger does not have as held."""
        queue = [trial for trial in trials if not self.done.get(trial.name, {}).get("held")]
        print(f"{len(trials)} trials, {len(trials) - len(queue)} of them held before")
        began, total = time.monotonic(), len(queue)
        running: dict[int, Trial] = {}
        try:
            while queue or running:
                while queue and len(running) < self.jobs:
                    trial = queue.pop(0)
                    running[self._start(trial)] = trial
                pid, _ = os.wait()
                if pid in running:
                    self._note(running.pop(pid), total - len(queue) - len(running), total, began)
        finally:
            for pid in running:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                shutil.rmtree(temporary_folder(self.folder, pid), ignore_errors=True)

    def _start(self, trial: Trial) -> int:
        folder = self.folder_of(trial.name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        os.setpgid(0, 0)  # it and its lives can be ended together
        began, said = time.monotonic(), ""
        place = Place(folder, self.runs, trial.name)
        try:
            trial.act(place)
        except BaseException as error:
            said = " ".join(str(error).split())[:1000] or type(error).__name__
            (folder / "traceback.txt").write_text(traceback.format_exc())
        place.close()
        held, seconds = 0 if said else trial.tried, round(time.monotonic() - began, 1)
        outcome = {"trial": trial.name, "tried": trial.tried, "held": held, "said": said, "seconds": seconds}
        with self.ledger.open("a") as ledger:  # one write, so that lines of two trials do not mix
            ledger.write(json.dumps(outcome | {"code": self.code}) + "\n")
        if not said:
            shutil.rmtree(folder)
        os._exit(0)

    def _note(self, trial: Trial, number: int, total: int, began: float) -> None:
        lost = {"trial": trial.name, "tried": trial.tried, "held": 0, "said": "the trial itself died"}
        self.done[trial.name] = entry = self._read().get(trial.name, lost)
        left = (time.monotonic() - began) / number * (total - number) / 60
        print(f"[{number}/{total}, {left:.0f} min left] {trial.name}: {entry['said'] or 'held'}", flush=True)

    def lines(self, trials: Sequence[Trial]) -> Iterator[dict[str, Any]]:
        yield from (self.done[trial.name] for trial in trials)

    def table(self, trials: Sequence[Trial]) -> str:
        rows = ["| promise | tried | held |", "|---|---:|---:|"]
        for name, module in PROMISES.items():
            lines = [line for line in self.lines(trials) if line["trial"].startswith(f"{name}/")]
            if lines:
                tried, held = (sum(line[column] for line in lines) for column in ("tried", "held"))
                rows.append(f"| {module.PROMISE} | {tried} | {held} |")
        return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
