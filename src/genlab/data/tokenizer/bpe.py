"""Byte pair encoding, learned from the data."""

import json
from collections.abc import Iterable, Sequence

from genlab.data.tokenizer.base import END
from genlab.data.tokenizer.byte_level import ByteLevel, pieces
from genlab.errors import ConfigError


class BPE(ByteLevel):
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): words are split as GPT-2 does, then the most frequent
    pair of neighbors becomes a token until there are enough. The same documents give the same tokens.

    A short text may have fewer pairs that occur twice than ``vocab_size`` asks for. The end token is the last.
    """

    def __init__(self, vocab_size: int = 4096):  # with the 256 bytes and the end token
        if vocab_size < 257:
            raise ConfigError(f"data.tokenizer.vocab_size must be a whole number >= 257, got {vocab_size}.")
        super().__init__(END)
        self._wanted = vocab_size
        self._reserved: tuple[str, ...] = ()  # special tokens, before the end token

    def reserve(self, tokens: Sequence[str]) -> None:
        self._reserved = tuple(tokens)

    def train(self, documents: Iterable[str]) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self._wanted - 1 - len(self._reserved),
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        core.train_from_iterator((piece for document in documents for piece in pieces(document)), trainer)
        core.add_special_tokens([*self._reserved, END])
        self.load_state(core.to_str())

    def state(self) -> str:
        if self._core:
            return super().state()
        more = {"special": self._reserved} if self._reserved else {}
        return json.dumps({"vocab_size": self._wanted, **more})
