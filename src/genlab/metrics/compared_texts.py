"""What metrics share that compare sample i with the references of place i, all of them texts."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric

from genlab.errors import DataError
from genlab.metrics.base import MetricBatch
from genlab.metrics.text_states import grouped, packed, texts_of, unpacked


class ComparedTexts(Metric):
    """Keeps the texts of both sides, and where in the set each has its place."""

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    optional: ClassVar[frozenset[str]] = frozenset({"references"})
    is_differentiable = False
    full_state_update = False

    real_content: list[Tensor]
    real_lengths: list[Tensor]
    real_index: list[Tensor]
    fake_content: list[Tensor]
    fake_lengths: list[Tensor]
    fake_index: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for side in ("real", "fake"):
            for name in ("content", "lengths", "index"):
                self.add_state(f"{side}_{name}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``text`` and ``index``; of the reference all ``references``, if there are any."""
        texts, index = texts_of(batch, real)
        content, lengths = packed([self.prepared(text) for text in texts], index.device)
        (self.real_content if real else self.fake_content).append(content)
        (self.real_lengths if real else self.fake_lengths).append(lengths)
        (self.real_index if real else self.fake_index).append(index)

    def prepared(self, text: str) -> str:
        """What is kept of a text."""
        return text

    def compared(self) -> Mapping[int, tuple[str, Sequence[str]]]:
        """By place, in order: a sample, and the references of its place, one at least. Raises DataError if no sample
        has a reference."""
        references = grouped(self.real_content, self.real_lengths, self.real_index)
        samples = unpacked(self.fake_content, self.fake_lengths, self.fake_index)
        found = {place: (text, references[place]) for place, text in samples.items() if place in references}
        if not found:
            raise DataError("no sample has a reference to compare it with.")
        return found


def for_sacrebleu(compared: Mapping[int, tuple[str, Sequence[str]]]) -> tuple[list[str], list[list[str | None]]]:
    """Samples, and as many lists as any has references: one of each sample, None for those that have fewer."""
    most = max(len(own) for _, own in compared.values())
    rows = [[own[i] if i < len(own) else None for _, own in compared.values()] for i in range(most)]
    return [text for text, _ in compared.values()], rows
