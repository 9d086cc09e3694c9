"""Time of the FID of two folders of PNG files, from the files to the number: genlab compared with other packages.

    python scripts/benchmark_metrics.py                     # 64 images a folder, 1 thread, 3 rounds
    python scripts/benchmark_metrics.py --images 128 --threads 2

All use one file of random Inception weights, made here, and compute the same number, which is checked before anything
is timed. Rounds are interleaved, and ratios are medians over the rounds: machines are busy with other things too. That
is why time of CPUs stands beside time; it compares for one thread, for more it counts their waiting. Nothing is cached
between rounds.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import genlab  # noqa: F401  before torchvision, which it mends beside a CPU build of torch

Work = dict[str, Callable[[], float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="in each folder")
    parser.add_argument("--size", type=int, default=64, help="of the images, pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dims", type=int, default=2048, help="of the features, for the matrix part")
    options = parser.parse_args()
    if not os.environ.get("OMP_NUM_THREADS"):  # read by the BLAS of numpy and scipy when they are loaded
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        os.execv(sys.executable, [sys.executable, *sys.argv])

    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        weights = random_inception(Path(folder) / "inception.pth")
        real, fake = (draw_images(Path(folder) / name, options.images, options.size, seed)
                      for seed, name in enumerate(("real", "fake")))  # fmt: skip
        from_files = fid_from_files(real, fake, weights, Path(folder) / "cache")
        compare(f"FID of two folders of {options.images} PNG files, {options.size}x{options.size}, from the files",
                from_files, options.rounds, {"torch-fidelity": 1e-4, "pytorch-fid": 0.1})  # fmt: skip
    for count in (2 * options.dims, options.dims // 4):
        work, agreement = matrix_part(options.dims, count), {"eigvals": 1e-6, "sqrtm": 1e-6}
        if count < options.dims:  # the product is singular: its root is found badly, and in minutes
            del work["sqrtm"], agreement["sqrtm"]
        compare(f"its matrix part, {options.dims} dimensions, covariances of {count} examples",
                work, options.rounds, agreement)  # fmt: skip


def compare(title: str, work: Work, rounds: int, agreement: dict[str, float]) -> None:
    """Check that all compute what genlab does, to a relative error each; then time them, in turns."""
    values = {name: run() for name, run in work.items()}
    for name, tolerance in agreement.items():
        apart = abs(values[name] / values["genlab"] - 1)
        assert apart < tolerance, f"{name}: {values[name]}, genlab: {values['genlab']}"
    clocks = (time.perf_counter, time.process_time)
    spent: dict[str, list[tuple[float, ...]]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            start = [clock() for clock in clocks]
            run()
            spent[name].append(tuple(clock() - since for clock, since in zip(clocks, start, strict=True)))
    print(f"\n{title}\n{'':16}{'value':>14}{'seconds':>10}{'of CPUs':>10}  genlab is so many times as fast, of CPUs")
    for name, pairs in spent.items():
        wall, cpu = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratios = [[theirs[i] / ours[i] for theirs, ours in zip(pairs, spent["genlab"], strict=True)] for i in (0, 1)]
        faster = "" if name == "genlab" else "{:12.1f}{:10.1f}".format(*map(statistics.median, ratios))
        print(f"{name:16}{values[name]:14.8g}{wall:10.2f}{cpu:10.2f}{faster}", flush=True)


def fid_from_files(real: Path, fake: Path, weights: Path, cache: Path) -> Work:
    """``pytorch-fid`` has another resize, and another scale of pixels: its number differs by some percent."""
    import pytorch_fid.inception
    import torch
    from pytorch_fid.fid_score import calculate_fid_given_paths
    from torch_fidelity import calculate_metrics

    from genlab.data.image_folder import ImageFolder
    from genlab.evaluation.evaluation import Evaluation
    from genlab.metrics.extractor.inception import PUBLISHED, Inception
    from genlab.metrics.extractor.weights import load_tensors
    from genlab.metrics.fid import FID
    from genlab.sampling.examples import Examples

    pytorch_fid.inception.load_state_dict_from_url = lambda url, progress: load_tensors(weights, PUBLISHED)
    passed, batch_size = itertools.count(), min(50, len(list(real.iterdir())))

    def ours() -> float:
        fresh = str(cache / str(next(passed)))
        data = ImageFolder(str(fake), val_root=str(real), cache_dir=fresh)
        evaluation = Evaluation(Inception(str(weights)), {"fid": FID()}, cache_dir=fresh)
        (value,) = evaluation.score(
            Examples.of(image=torch.from_numpy(data.table("train").images)), data
        ).values.values()
        return value

    def torch_fidelity() -> float:
        return calculate_metrics(input1=str(fake), input2=str(real), fid=True, cuda=False, cache=False, verbose=False,
                                 save_cpu_ram=True,  # no worker processes
                                 feature_extractor_weights_path=str(weights))["frechet_inception_distance"]  # fmt: skip

    def pytorch_fid_() -> float:
        return float(calculate_fid_given_paths([str(fake), str(real)], batch_size, "cpu", 2048, num_workers=0))

    return {"genlab": ours, "torch-fidelity": torch_fidelity, "pytorch-fid": pytorch_fid_}


def matrix_part(dims: int, count: int) -> Work:
    import torch
    from scipy.linalg import sqrtm

    from genlab.metrics.frechet import frechet_distance

    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((count, dims)) / np.sqrt(np.arange(1, dims + 1)) + rng.standard_normal(dims)
            for _ in range(2)]  # fmt: skip
    moments = [moment for x in sets for moment in (torch.from_numpy(x.mean(0)), torch.from_numpy(np.cov(x.T)))]
    (mean1, cov1, mean2, cov2), ranks = moments, (count - 1, count - 1)
    apart = float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace())

    def by_eigenvalues() -> float:
        return apart - 2 * float(torch.linalg.eigvals(cov1 @ cov2).sqrt().real.sum())

    def by_matrix_root() -> float:
        return apart - 2 * float(np.trace(sqrtm(cov1.numpy() @ cov2.numpy())).real)

    return {"genlab": lambda: float(frechet_distance(mean1, cov1, mean2, cov2, ranks)),
            "eigvals": by_eigenvalues, "sqrtm": by_matrix_root}  # fmt: skip


def random_inception(path: Path) -> Path:
    """Weights of the right shapes that keep activations alive."""
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as module

    network_class = module.FeatureExtractorInceptionV3
    load, fetch = network_class.load_state_dict, module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda url, progress: {}
    network_class.load_state_dict = lambda self, state: None
    try:
        network = network_class("inception-v3-compat", ["2048"])
    finally:
        network_class.load_state_dict, module.load_state_dict_from_url = load, fetch
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path


def draw_images(folder: Path, count: int, size: int, seed: int) -> Path:
    """Smooth color images with some noise, as PNG files."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (4 + seed, 4, 3), dtype=np.uint8)).resize((size, size))
        noisy = np.asarray(smooth) + rng.normal(scale=8.0, size=(size, size, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")
    return folder


if __name__ == "__main__":
    main()
