"""FID: features of Inception beside torch-fidelity's and pytorch-fid's, from files to the number, and the matrix part.

All use one file of random Inception weights, made here, and compute the same number, which is checked before anything
is timed. Nothing is cached between rounds.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import peers
from benchmarks.beside import in_turns_beside
from benchmarks.floor import autocast, matmul_rate, operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import Measured, Side

Work = dict[str, Callable[[], float]]


def rows(options: Options) -> Iterator[Row | Skipped]:
    if not options.quick:  # Inception alone takes seconds
        with tempfile.TemporaryDirectory() as folder:
            weights = random_inception(Path(folder) / "inception.pth")
            yield from features(options, weights)
            yield from from_files(options, Path(folder), weights)
    dims = options.size(2048, 32)
    for count in (options.size(500, dims // 4), 2 * dims):
        yield from matrix(options, dims, count)


def features(options: Options, weights: Path) -> Iterator[Row | Skipped]:
    """Images of 299 pixels through Inception, so that nobody resizes."""
    from genlab.metrics.extractor.inception import Inception

    fidelity = peers.package("torch_fidelity.feature_extractor_inceptionv3")
    ours = Inception(str(weights))
    theirs = fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
    )
    theirs = theirs.to(options.device).eval()
    images = torch.randint(0, 256, (4, 3, 299, 299), dtype=torch.uint8, device=options.device)
    wanted = frozenset({"features"})

    def half() -> torch.Tensor:
        """The same network and layout under autocast, which genlab's features themselves never are."""
        with autocast(torch.bfloat16, options.device):
            return ours._look(images, wanted)["features"].float()

    with torch.no_grad():
        reference = theirs(images)[0].flatten(1)
        made = {"fp32": ours.extract(images, wanted)["features"], "bf16": half()}
    apart = {name: float((found - reference).norm() / reference.norm()) for name, found in made.items()}
    assert apart["fp32"] < 1e-4, f"features are apart by {apart['fp32']:.1e} of their norm"
    assert apart["bf16"] < 0.05, f"features of bf16 are apart by {apart['bf16']:.1e} of their norm"
    flops = operations(lambda: theirs(images))
    ours_sides: dict[str, Side] = {"genlab fp32": lambda: ours.extract(images, wanted), "genlab bf16": half}
    with torch.no_grad():
        measured = in_turns_beside(
            ours_sides, {"torch-fidelity": lambda: theirs(images)}, options.rounds, options.seconds, options.device
        )
    for precision, dtype, aim in (("fp32", torch.float32, 1.5), ("bf16", torch.bfloat16, 2.5)):
        rate = matmul_rate(dtype, options.device)
        yield row(
            "fid",
            f"Inception, 4 images, {precision}",
            measured,
            "torch-fidelity",
            f"features within {apart[precision]:.0e} of their norm",
            ours=f"genlab {precision}",
            aim=aim,
            floor=flops / rate,
            device=options.device,
            flops=flops,
            matmul_rate=rate,
        )


def from_files(options: Options, folder: Path, weights: Path) -> Iterator[Row | Skipped]:
    """Two folders of PNG files to the number."""
    count, side = 32, 64
    real, fake = (draw_images(folder / name, count, side, seed) for seed, name in enumerate(("real", "fake")))
    work = f"FID of two folders of {count} PNG, {side} px"
    try:
        sides = fid_from_files(real, fake, weights, folder / "cache")
    except peers.Missing as missing:
        yield Skipped("fid", work, str(missing))
        return
    apart = compared(sides, {"torch-fidelity": 1e-4, "pytorch-fid": 0.1})  # which resizes otherwise
    measured = _timed(sides, min(3, options.rounds))
    for peer, relative in apart.items():
        yield row("fid", work, measured, peer, f"within {relative:.0e} of the number", unit="s")


def matrix(options: Options, dims: int, count: int) -> Iterator[Row | Skipped]:
    sides, agreement = matrix_part(dims, count), {"eigvals": 1e-6, "sqrtm": 1e-6}
    if count < dims:  # the product is singular: its root is found badly, and in minutes
        del sides["sqrtm"], agreement["sqrtm"]
    apart = compared(sides, agreement)
    measured = _timed(sides, min(5, options.rounds))
    for peer, relative in apart.items():
        yield row(
            "fid",
            f"FID's matrix, {dims} dims, n = {count}",
            measured,
            peer,
            f"within {relative:.0e} of the number",
            aim=50 if count < dims and peer == "eigvals" else None,
        )


def compared(sides: Work, tolerances: dict[str, float]) -> dict[str, float]:
    """How far each is from genlab's number, relative to it. Raises AssertionError if that is too far."""
    values = {name: run() for name, run in sides.items()}
    apart = {name: abs(values[name] / values["genlab"] - 1) for name in tolerances}
    for name, tolerance in tolerances.items():
        assert apart[name] < tolerance, f"{name}: {values[name]}, genlab: {values['genlab']}"
    return apart


def _timed(sides: Work, rounds: int) -> Measured:
    """On the CPU, where FID's matrix is computed."""
    peers_sides = {name: run for name, run in sides.items() if name != "genlab"}
    return in_turns_beside({"genlab": sides["genlab"]}, peers_sides, rounds, seconds=0.0, profiled=False)


def fid_from_files(real: Path, fake: Path, weights: Path, cache: Path) -> Work:
    """``pytorch-fid`` has another resize, and another scale of pixels: its number differs by some percent."""
    inception = peers.package("pytorch_fid.inception")
    calculate_fid_given_paths = peers.package("pytorch_fid.fid_score").calculate_fid_given_paths
    from torch_fidelity import calculate_metrics

    from genlab.data.image_folder import ImageFolder
    from genlab.evaluation.evaluation import Evaluation
    from genlab.metrics.extractor.inception import PUBLISHED, Inception
    from genlab.metrics.extractor.weights import load_tensors
    from genlab.metrics.fid import FID
    from genlab.sampling.examples import Examples

    inception.load_state_dict_from_url = lambda url, progress: load_tensors(weights, PUBLISHED)
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
        return calculate_metrics(
            input1=str(fake),
            input2=str(real),
            fid=True,
            cuda=False,
            cache=False,
            verbose=False,
            save_cpu_ram=True,  # no worker processes
            feature_extractor_weights_path=str(weights),
        )["frechet_inception_distance"]

    def pytorch_fid_() -> float:
        return float(calculate_fid_given_paths([str(fake), str(real)], batch_size, "cpu", 2048, num_workers=0))

    return {"genlab": ours, "torch-fidelity": torch_fidelity, "pytorch-fid": pytorch_fid_}


def matrix_part(dims: int, count: int) -> Work:
    from scipy.linalg import sqrtm

    from genlab.metrics.frechet import Gaussian, distance, frechet_distance

    rng = np.random.default_rng(0)
    sets = [
        rng.standard_normal((count, dims)) / np.sqrt(np.arange(1, dims + 1)) + rng.standard_normal(dims)
        for _ in range(2)
    ]
    moments = [moment for x in sets for moment in (torch.from_numpy(x.mean(0)), torch.from_numpy(np.cov(x.T)))]
    (mean1, cov1, mean2, cov2), ranks = moments, (count - 1, count - 1)
    apart = float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace())

    def by_eigenvalues() -> float:
        return apart - 2 * float(torch.linalg.eigvals(cov1 @ cov2).sqrt().real.sum())

    def by_matrix_root() -> float:
        return apart - 2 * float(np.trace(sqrtm(cov1.numpy() @ cov2.numpy())).real)

    def ours() -> float:
        """As the metric has it: of few examples from the features themselves, no covariance is made."""
        if count < dims:
            first, second = (Gaussian.of_few(torch.from_numpy(x)) for x in sets)
            return float(distance(first, second))
        return float(frechet_distance(mean1, cov1, mean2, cov2, ranks))

    return {
        "genlab": ours,
        "eigvals": by_eigenvalues,
        "sqrtm": by_matrix_root,
    }


def random_inception(path: Path) -> Path:
    """Weights of the right shapes that keep activations alive."""
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
