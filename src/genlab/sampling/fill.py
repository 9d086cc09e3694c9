"""Texts with masked places, and what a model fills in there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from genlab.data.tokenizer.base import Tokenizer, UnknownCharacterError
from genlab.errors import ConfigError
from genlab.model.base import FillsIn

MASK = "[MASK]"  # how a user writes a masked token
CANDIDATES = 5  # that are shown of each


def read_masked(prompt: str | None, tokenizer: Tokenizer, context: int) -> tuple[Tensor, Tensor]:
    """A text in which each ``[MASK]`` stands for one token, as tokens (1, T), and where it is masked (1, T). Raises
    ConfigError: nothing is masked, the text is longer than ``context`` tokens, or has a character without a token."""
    if prompt is None or MASK not in prompt:
        raise ConfigError('the model fills in masked tokens. Type a text with some: prompt="the [MASK]ext"')
    tokens: list[int] = []
    masked: list[bool] = []
    for number, part in enumerate(prompt.split(MASK)):
        try:
            found = tokenizer.encode(part).tolist()
        except UnknownCharacterError as error:
            raise ConfigError(f"prompt: {error} Leave it out of the prompt.") from error
        tokens += [*([0] * (number > 0)), *found]
        masked += [*([True] * (number > 0)), *([False] * len(found))]
    if len(tokens) > context:
        raise ConfigError(
            f"prompt: the text has {len(tokens)} tokens, and the model sees {context} at once. Shorten it."
        )
    return torch.tensor([tokens]), torch.tensor([masked])


def filled_in(model: FillsIn, tokenizer: Tokenizer, tokens: Tensor, masked: Tensor) -> Iterator[str]:
    """Lines to show: the text (1, T) filled in, and of each masked place the most likely tokens, given the text with
    all of them masked."""
    filled, logits = model.fill(tokens, masked)
    yield tokenizer.decode(filled[0].tolist())
    for number, row in enumerate(logits[masked].softmax(dim=1), 1):  # (V,)
        best = row.topk(min(CANDIDATES, len(row)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        yield f"{MASK} {number}: " + ", ".join(f"{tokenizer.decode([token])!r} {share:.3f}" for token, share in pairs)
