"""Runs that nobody trained: folders as a sweep leaves them, with curves that fall and grids that clear up."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from run_folders import add_evaluation, make_run, write

FAMILIES = {
    "gan": ("genlab.model.gan.GAN", 0.8, 22_000.0),
    "vae": ("genlab.model.vae.VAE", 1.6, 7_000.0),
    "flow": ("genlab.model.flow.Flow", 1.2, 3_000.0),
    "diffusion": ("genlab.model.diffusion.Diffusion", 1.0, 40.0),
}
RATES = (0.0002, 0.0005, 0.001, 0.002, 0.005)
LOST = {7: ("failed", "out of GPU memory at step 1 (batch 64). Try data.batch_size=32", 7),
        13: ("pruned", "pruned at 25 %: fid_digits64_500 12.1 is in the worse half", 0),
        29: ("failed", "loss is not finite at step 812 (term: recon=nan)", 6),
        31: ("illegal", "model.network: UNet is no Generator. Use model/network=dcgan", 2),
        37: ("stopped", "no sign of life for 600 s", None)}  # fmt: skip
SMALLEST, EXAMPLES = 16, 64_000  # pixels of a sample; of each run


def make_sweep(
    folder: Path, count: int = 12, grids: int = 3, points: int = 60, seeds: int = 2, pictures: bool = True
) -> Path:
    """``count`` trials over families, rates, widths and seeds, a few of them lost."""
    trials = []
    for number in range(count):
        seed, cell = number % seeds, number // seeds
        family = list(FAMILIES)[cell % len(FAMILIES)]
        rate = RATES[cell // len(FAMILIES) % len(RATES)]
        width = 16 * 2 ** (cell // (len(FAMILIES) * len(RATES)) % 6)
        state, said, code = LOST.get(number % 40, ("finished", "", 0))
        overrides = [f"model={family}", f"model.optimizer.lr={rate}", f"model.network.channels={width}", f"seed={seed}"]
        name = f"{number:010x}"
        fid = 0.0
        if state != "illegal":
            fid = _make(folder / name, number, family, rate, width, seed, grids, points, state == "finished", pictures)
        trials.append({"number": number, "folder": name, "overrides": overrides, "state": state, "said": said,
                       "exit_code": code, "seconds": 140.0 + number % 17,
                       "value": round(fid, 4) if state == "finished" else None})  # fmt: skip
    command = "python train.py -m model=gan,vae,flow,diffusion model.optimizer.lr=0.0002,0.0005,0.001,0.002,0.005"
    write(folder / "trials.json", {"command": command, "metric": "fid_digits64_1k", "direction": "lower",
                                   "trials": trials})  # fmt: skip
    return folder


def _make(
    run: Path, number: int, family: str, rate: float, width: int, seed: int, grids: int, points: int, finished: bool,
    pictures: bool,
) -> float:  # fmt: skip
    """A run's folder; returns its final FID."""
    target, best, speed = FAMILIES[family]
    random = np.random.default_rng(number)
    fid = best * (1 + 0.5 * abs(math.log10(rate / 0.001))) * (64 / width) ** 0.15 * math.exp(random.normal(0, 0.06))
    numbers = {"fid_digits64_1k": fid, "kid_digits64_1k": (fid - 0.8) / 50, "precision_digits64_1k": 0.95 - fid / 20,
               "nn_distance_ratio_1k": 0.8 + fid / 8}  # fmt: skip
    size = 24_000 * width
    costs = {"parameters": size, "seconds": 150 + 20 * random.random(), "flops": 6.0 * size * EXAMPLES,
             "peak_memory_bytes": 4e8 + 300 * size, "samples_per_second": speed * 64 / width,
             "examples": EXAMPLES}  # fmt: skip
    make_run(run, numbers, costs=costs, finished=finished, color=None, seed=seed,
             model__network={"_target_": "genlab.model.network.unet.UNet", "channels": width},
             model__optimizer={"_target_": "torch.optim.AdamW", "lr": rate}, model___target_=target)  # fmt: skip
    if number == 0:
        add_evaluation(run, numbers, baselines={"floor": numbers | {"fid_digits64_1k": 0.76}})
    end = 1.0 if finished else 0.4
    _curves(run / "metrics.csv", random, fid, costs, points, end)
    if pictures:
        for i in range(grids):
            part = (i + 1) / grids * end
            (run / "samples").mkdir(exist_ok=True)
            _grid(random, part).save(run / "samples" / f"examples={round(EXAMPLES * part):012d}.png")
    return fid


def _curves(
    path: Path, random: np.random.Generator, fid: float, costs: dict[str, float], points: int, end: float
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train/loss", "monitor/gradient_norm", "progress/examples", "progress/flops",
                         "progress/seconds", "val/loss", "val/fid_digits64_500"])  # fmt: skip
        for i in range(points):
            part = (i + 1) / points
            if part > end:
                break
            loss = 0.2 * fid + 2 * math.exp(-6 * part) + random.normal(0, 0.03)
            judged = ["", ""]
            if (i + 1) % (points // 10) == 0:
                judged = [f"{loss + 0.05:.6g}", f"{fid + 40 * math.exp(-5 * part):.6g}"]
            writer.writerow([20 * i + 19, f"{loss:.6g}", f"{1 + abs(random.normal()):.6g}", round(EXAMPLES * part),
                             f"{costs['flops'] * part:.6g}", f"{costs['seconds'] * part:.6g}", *judged])  # fmt: skip


def _grid(random: np.random.Generator, part: float) -> Image.Image:
    """8 x 10 rings and discs that come out of noise, enlarged as genlab enlarges small samples."""
    y, x = np.mgrid[-1 : 1 : SMALLEST * 1j, -1 : 1 : SMALLEST * 1j]
    tiles = np.full((8, 10, SMALLEST + 1, SMALLEST + 1), 255.0)
    for row in range(8):
        for column in range(10):
            radius = 0.25 + 0.05 * column + 0.03 * random.normal()
            shape = np.exp(-(((np.hypot(x, y) - radius * (column % 2)) / 0.22) ** 2))
            noisy = part * shape + (1 - part) * random.random((SMALLEST, SMALLEST))
            tiles[row, column, :-1, :-1] = 255 * np.clip(noisy, 0, 1)
    picture = tiles.transpose(0, 2, 1, 3).reshape(8 * (SMALLEST + 1), 10 * (SMALLEST + 1))[:-1, :-1]
    image = Image.fromarray(picture.astype(np.uint8))
    return image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST)


def ledger(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "trials.json").read_text())
