"""What genlab does otherwise on a GPU, beside what it does on a CPU: both timed on the device that is asked for."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.decode import writer
from benchmarks.floor import operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import in_turns
from genlab.callbacks.finite_guard import Answer, finite_on_device, is_finite
from genlab.data.base import Split
from genlab.data.image import ImageDataModule, ImageTable, Rows
from genlab.model import cross_entropy
from genlab.model.float32 import float32_of
from genlab.model.network.token_transformer import padded_linear
from genlab.model.optimizer.muon import orthogonalized, orthogonalized_stack
from genlab.seeding import RandomStream, to_device


def rows(options: Options) -> Iterator[Row | Skipped]:
    yield _muon(options)
    yield _logits(options)
    yield _vocabulary(options)
    yield _guard(options)
    yield _samples(options)
    if options.device != "cuda":
        for work in ("a step in TensorFloat-32", "noise from pinned memory", "batches of kept pixels"):
            yield Skipped("gpu", work, "only a GPU has it. Use --device cuda where there is one.")
        return
    yield _tf32(options)
    yield _noise(options)
    yield _pixels(options)


def _size(options: Options, on_gpu: int, on_cpu: int, tiny: int) -> int:
    return options.size(on_gpu if options.device == "cuda" else on_cpu, tiny)


def _row(
    options: Options,
    work: str,
    ours: Callable[[], Any],
    other: str,
    theirs: Callable[[], Any],
    agreement: str,
    **facts: Any,
) -> Row:
    measured = in_turns({"genlab": ours, other: theirs}, options.rounds, options.seconds, options.device)
    peaks = {f"peak_bytes_{name}": _peak(run) for name, run in (("genlab", ours), ("other", theirs))}
    known = peaks if options.device == "cuda" else {}
    return row("gpu", work, measured, other, agreement, device=options.device, **facts, **known)


def _peak(run: Callable[[], Any]) -> int:
    """Bytes of a GPU that a call needs beside what is there."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def _muon(options: Options) -> Row:
    count, side = _size(options, 24, 8, 2), _size(options, 768, 128, 16)
    matrices = torch.randn(count, side, 4 * side, device=options.device)
    apart = [orthogonalized(matrix) for matrix in matrices]
    error = max(float((a - b).abs().max()) for a, b in zip(apart, orthogonalized_stack(matrices), strict=True))
    return _row(
        options,
        f"Muon, {count} matrices of {side} x {4 * side}",
        lambda: orthogonalized_stack(matrices),
        "one at a time",
        lambda: [orthogonalized(matrix) for matrix in matrices],
        f"entries within {error:.2g}",
        flops=operations(lambda: orthogonalized_stack(matrices)),
    )


def _backward(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(loss(x), x)
    return slope


def _logits(options: Options) -> Row:
    tokens, size = _size(options, 8192, 1024, 8), options.size(50257, 50)
    logits = torch.randn(1, tokens, size, device=options.device, dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(size, (1, tokens), device=options.device)

    def torchs(x: Tensor) -> Tensor:
        return F.cross_entropy(x.flatten(0, 1).float(), targets.flatten())

    def in_parts(x: Tensor) -> Tensor:
        return cross_entropy._Chunked.apply(x.flatten(0, 1), targets.flatten()).mean()  # type: ignore[no-any-return]

    error = float((_backward(torchs, logits) - _backward(in_parts, logits)).abs().max())
    return _row(
        options,
        f"cross-entropy, {tokens:,} tokens of {size:,}, bf16",
        lambda: _backward(in_parts, logits),
        "torch's",
        lambda: _backward(torchs, logits),
        f"gradients within {error:.2g}",
    )


def _vocabulary(options: Options) -> Row:
    tokens, size, width = _size(options, 4096, 128, 8), options.size(50257, 50), _size(options, 768, 128, 16)
    x = torch.randn(tokens, width, device=options.device, dtype=torch.bfloat16)
    weight = torch.randn(size, width, device=options.device, dtype=torch.bfloat16).requires_grad_()
    outer = torch.randn(tokens, size, device=options.device, dtype=torch.bfloat16)

    def slope(linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        (found,) = torch.autograd.grad(linear(x, weight), weight, outer)
        return found

    error = float((slope(padded_linear) - slope(F.linear)).abs().max())
    return _row(
        options,
        f"onto {size:,} tokens, forward and backward, bf16",
        lambda: slope(padded_linear),
        "not padded",
        lambda: slope(F.linear),
        f"gradients within {error:.2g}",
        flops=operations(lambda: slope(F.linear)),
    )


def _guard(options: Options) -> Row:
    """Steps of a network of many small kernels, whose gradient is checked."""
    width, depth = options.size(256, 8), options.size(24, 2)
    network = nn.Sequential(*[nn.Sequential(nn.Linear(width, width), nn.SiLU()) for _ in range(depth)])
    network.to(options.device)
    x = torch.randn(64, width, device=options.device)
    unread: list[Answer] = []

    def slopes() -> list[Tensor]:
        network.zero_grad()
        network(x).square().mean().backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    def later() -> None:
        found = slopes()
        assert all(answer.read() for answer in unread)
        unread[:] = [Answer(finite_on_device(found))]

    def at_once() -> None:
        assert is_finite(slopes())

    return _row(options, "a guarded step, the answer read later", later, "read at once", at_once, "the same answer")


def _samples(options: Options) -> Row:
    """Of a transformer of text: many more kernels than work for each."""
    length, few, many = _size(options, 64, 16, 4), _size(options, 64, 16, 2), _size(options, 256, 64, 8)
    model = writer(_size(options, 4, 2, 1), _size(options, 4, 2, 1), _size(options, 256, 64, 16), length, length)
    model.to(options.device).eval()

    def drawn(count: int) -> Callable[[], Any]:
        return lambda: model.sample(count, None, RandomStream.for_samples(0, range(count), options.device))

    alike = torch.equal(drawn(many)()[:few], drawn(few)())
    found = in_turns(
        {"genlab": drawn(many), f"{few} at a time": drawn(few)}, options.rounds, options.seconds, options.device
    )
    return row(
        "gpu",
        f"samples, {many} at a time",
        found,
        f"{few} at a time",
        f"samples {'the same' if alike else 'equal but for rounding'}",
        device=options.device,
        work_of_peer=few / many,
    )


def _tf32(options: Options) -> Row:
    network = writer(6, 6, options.size(384, 48), 256, 8).network.to(options.device)
    tokens = torch.randint(60, (16, 256), device=options.device)

    def step(tf32: bool | None) -> None:
        with nullcontext() if tf32 is None else float32_of(options.device, tf32):
            network.zero_grad()
            F.cross_entropy(network(tokens).flatten(0, 1), tokens.flatten()).backward()

    return _row(
        options,
        "a step of float32, 6x6x384, in TensorFloat-32",
        lambda: step(True),
        "exact",
        lambda: step(False),
        "the same network",
        flops=operations(lambda: step(None)),
    )


def _noise(options: Options) -> Row:
    stream, cpu = (RandomStream(range(256), device) for device in (options.device, "cpu"))
    x = torch.randn(4096, 4096, device=options.device)  # work that the copy comes after

    def drawn(noise: Callable[[], Tensor]) -> None:
        x @ x
        noise()

    return _row(
        options,
        "noise of 256 images, pinned",
        lambda: drawn(lambda: stream.randn(3, 32, 32)),
        "pageable",
        lambda: drawn(lambda: cpu.randn(3, 32, 32).to(options.device)),
        "the same generators",
    )


class _Images(ImageDataModule):
    def load(self, split: Split) -> ImageTable:
        images = np.random.default_rng(0).integers(0, 256, (50_000, 3, 32, 32), dtype=np.uint8)
        return ImageTable(images)


def _pixels(options: Options) -> Row:
    data = _Images(batch_size=512, flip=True)
    strategy: Any = SimpleNamespace(root_device=torch.device(options.device))
    kept, copied = data.dataset_on(SimpleNamespace(strategy=strategy)), data.dataset("train")  # type: ignore[arg-type]
    assert isinstance(kept, Rows)
    keys = [(0, index) for index in range(0, 50_000, 97)]

    def batch(dataset: Any) -> Tensor:
        found = {name: to_device(values, strategy.root_device) for name, values in dataset[keys].items()}
        return data.on_after_batch_transfer(found, 0)["image"]

    assert torch.equal(batch(kept), batch(copied))
    return _row(
        options, f"a batch of {len(keys)}, kept pixels", lambda: batch(kept), "copied", lambda: batch(copied), "equal"
    )
