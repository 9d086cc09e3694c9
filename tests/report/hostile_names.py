"""Runs of a stranger, which are called so wherever a run can be called something."""

import csv
from pathlib import Path

import yaml
from run_folders import add_evaluation, make_run, write

from hostile_texts import NAMES


def make_hostile(folder: Path) -> None:
    """A run for each name, and a sweep of them."""
    trials = []
    for i, name in enumerate(NAMES):
        file_name = "".join("?" if c in "/\0" or ord(c) in range(0xD800, 0xE000) else c for c in name)
        place = file_name.encode()[:200].decode(errors="ignore")
        run = make_run(
            folder / f"{i:02}{place}",
            {"fid_digits64_1k": 1 + i / 10, "kid_digits64_1k": 0.01},
            {"extractor": "digits64", "extractor_fingerprint": name},
            protocol_id=f"id {i} {name}",
            color="red" if i % 2 else None,
            gpus=(name,),
            seed=i,
            prompt=name,
            model__optimizer={"_target_": f"torch.optim.{name}", "lr": name, name: name},
        )
        settings = yaml.safe_load((run / "config.yaml").read_text())
        write(run / "config.yaml", yaml.safe_dump(settings | {name: {"_target_": name, "value": name}}))
        with (run / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["step", "progress/examples", "progress/flops", "progress/seconds", f"val/{name}", "train/loss"]
            )
            writer.writerows([[k, 640 * k, 1e9 * k, k, 1 / (k + 1), i + 1 / (k + 1)] for k in range(5)])
        (run / "samples").mkdir(exist_ok=True)
        if not i % 2:
            (run / "samples" / "examples=000000003200.txt").write_text(f"PROMPT: {name}", encoding="utf-8")
        add_evaluation(run, {"fid_digits64_1k": 1 + i / 10, "kid_digits64_1k": 0.01},
                       {"extractor_fingerprint": name}, f"id {i} {name}"[:40].replace("/", "?").replace("\0", "?"),
                       {name: {"fid_digits64_1k": 1.0}})  # fmt: skip
        overrides = [f"model={name}", f"{name}={i}", f"lr={i}"]
        trials.append({"number": i, "folder": f"{i:02}{place}", "overrides": overrides,
                       "state": "finished" if i % 3 else "failed", "said": name, "exit_code": 1, "seconds": i,
                       "value": float(i)})  # fmt: skip
    write(folder / "trials.json", {"command": " ".join(NAMES), "metric": NAMES[0], "direction": "lower",
                                   "trials": trials})  # fmt: skip
