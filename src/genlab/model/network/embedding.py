"""Embeddings of noise levels and conditions as vectors."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.condition_kind import Caption, ConditionKind, Label, Numbers
from genlab.model.network.attention import attend


class NoiseLevelEmbedding(nn.Module):
    """Sinusoids of the noise level, then a two-layer perceptron (Ho et al. 2020, appendix B).

    The published features belong to time steps 0 to 1000, so the level, which is of the order of 1, is scaled by 1000:
    for DDPM's ``noise_level`` = t / T they are the published ones.
    """

    def __init__(self, num_features: int, width: int):
        super().__init__()
        self.num_features = num_features
        self.hidden = nn.Linear(num_features, width)
        self.out = nn.Linear(width, width)

    def forward(self, noise_level: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        features = sinusoids(1000 * noise_level.float(), self.num_features)
        return self.out(F.silu(self.hidden(features.to(self.hidden.weight.dtype))))


Told = Mapping[str, ConditionKind]  # the conditions of a network, by key
NO_LABEL: Told = {"label": Label(0)}  # for a network that always takes a vector: a constant one


class Words(NamedTuple):
    """A caption word by word, for attention."""

    tokens: Tensor  # (N or 1, T, width)
    seen: Tensor  # (N or 1, T) bool: false where there is nothing; at least one of each row is true


class CaptionEncoder(Protocol):
    """A frozen pretrained model that embeds sentences, as a vector and word by word: a module."""

    width: int

    def configure_model(self) -> None:
        """Make its networks, unless they are there."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """-> (N, width), on the device that its weights are on."""
        ...

    def encode_words(self, texts: Sequence[str]) -> tuple[Tensor, Words]:
        """What ``encode_texts`` gives, and the outputs for each token, as wide."""
        ...


NO_CAPTIONS = (
    "{} needs captions, and the model has none. Use data that have captions, such as data=shapes, and "
    "model.conditions=[caption]."
)


class ConditionEmbedding(nn.ModuleDict):
    """One vector for each key of a condition, and their sum. ``caption_encoder``: encodes captions; None: an
    embedding of words, trained with the rest."""

    def __init__(self, told: Told, width: int, caption_encoder: CaptionEncoder | None = None):
        """Raises ValueError: there is an encoder, and no captions."""
        if caption_encoder is not None and not any(isinstance(kind, Caption) for kind in told.values()):
            raise ValueError(NO_CAPTIONS.format("model.network.caption_encoder"))
        super().__init__({key: _embedding(kind, width, caption_encoder) for key, kind in told.items()})

    def forward(self, condition: Mapping[str, Tensor] | None) -> Tensor:
        """By key, (N, ...) each; missing keys count as empty. -> (N or 1, width), the sum."""
        first, *others = self.vectors(condition)
        for vector in others:
            first = first + vector
        return first

    def with_words(self, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, Words]:
        """The sum, (N or 1, width), and the captions word by word. Raises ValueError: there are none."""
        (key,) = (name for name, embed in self.items() if isinstance(embed, CaptionEmbedding | EncodedCaption))
        vector, words = self[key].read(None if condition is None else condition.get(key))  # type: ignore[operator]
        for name, embed in self.items():
            if name != key:
                vector = vector + embed(None if condition is None else condition.get(name))
        return vector, words

    @property
    def has_captions(self) -> bool:
        return any(isinstance(embed, CaptionEmbedding | EncodedCaption) for embed in self.values())

    def width_of_words(self) -> int:
        """Of a caption's tokens. Raises ValueError, with a remedy: there are no captions."""
        for embed in self.values():
            if isinstance(embed, CaptionEmbedding | EncodedCaption):
                return embed.width_of_words
        raise ValueError(NO_CAPTIONS.format("model.network.attends_to_words=true"))

    def vectors(self, condition: Mapping[str, Tensor] | None) -> list[Tensor]:
        """Each of a key, (N or 1, width)."""
        return [embed(None if condition is None else condition.get(key)) for key, embed in self.items()]

    def side_by_side(self, condition: Mapping[str, Tensor] | None, rows: int) -> Tensor:
        """-> (rows, keys * width)."""
        return torch.cat([vector.expand(rows, -1) for vector in self.vectors(condition)], dim=1)

    def guided(self, condition: Mapping[str, Tensor] | None, rows: int) -> Tensor:
        """For a guided call: the empty condition, then ``condition``. -> (2 * rows, width)."""
        return torch.cat([self(None).expand(rows, -1), self(condition).expand(rows, -1)])

    def start_at(self, std: float) -> None:
        """Reinitialize the vectors with this standard deviation."""
        for embed in self.values():
            embed.start_at(std)  # type: ignore[operator]


class LabelEmbedding(nn.Module):
    """One vector for each class. Row 0 is the one for "no label", class i has row i + 1."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.rows = nn.Embedding(num_classes + 1, width)

    def forward(self, label: Tensor | None) -> Tensor:
        """(N,), -1 for "no label"; None: no labels. -> (N or 1, width)."""
        if label is None:
            return self.rows.weight[:1]  # broadcasts over the batch
        return self.rows(label + 1)

    def start_at(self, std: float) -> None:
        nn.init.normal_(self.rows.weight, std=std)


class CaptionEmbedding(nn.Module):
    """One vector for a caption: words and positions, a few transformer layers, and the mean
    of the outputs. The empty caption has a separate vector."""

    INNER, HEADS, DEPTH = 64, 4, 2

    def __init__(self, num_words: int, length: int, width: int):
        super().__init__()
        self.words = nn.Embedding(num_words, self.INNER)
        self.places = nn.Parameter(torch.randn(length, self.INNER))
        self.layers = nn.ModuleList(CaptionLayer(self.INNER, self.HEADS) for _ in range(self.DEPTH))
        self.norm = nn.LayerNorm(self.INNER)
        self.out = nn.Linear(self.INNER, width)
        self.nothing = nn.Parameter(torch.randn(width))

    @property
    def width_of_words(self) -> int:
        return self.INNER

    def forward(self, caption: Tensor | None) -> Tensor:
        """(N, T) words, of which 0 fills up; None: nobody is told one. -> (N or 1, width)."""
        return self.nothing[None] if caption is None else self.read(caption)[0]

    def read(self, caption: Tensor | None) -> tuple[Tensor, Words]:
        """The vector, and the outputs of the layers; of nothing, those of a caption of padding."""
        if caption is None:
            caption = torch.zeros(1, len(self.places), dtype=torch.long, device=self.places.device)
        written = caption != 0  # (N, T)
        empty = ~written.any(dim=1, keepdim=True)
        seen = written | empty  # softmax needs at least one key
        h = self.words(caption) + self.places[: caption.shape[1]]
        for layer in self.layers:
            h = layer(h, seen)
        h = self.norm(h)
        share = seen[..., None].to(h.dtype)
        mean = (h * share).sum(dim=1) / share.sum(dim=1)  # (N, INNER)
        return torch.where(empty, self.nothing.to(h.dtype), self.out(mean)), Words(h, seen)

    def start_at(self, std: float) -> None:
        nn.init.normal_(self.out.weight, std=std / math.sqrt(self.INNER))  # of a normed mean: so spread are the vectors
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.nothing, std=std)


class MoreWords(nn.Module):
    """The embedding of a vocabulary that has grown: the rows of its words, which stay as they are, and new ones."""

    weight: nn.Parameter  # (W, width)
    added: nn.Parameter  # (R, width)

    def __init__(self, known: "nn.Embedding | MoreWords", new: Tensor):
        """``new``: (R, width), the vectors of R words more."""
        super().__init__()
        self.weight = known.weight  # type: ignore[assignment]
        before = [known.added] if isinstance(known, MoreWords) else []
        self.added = nn.Parameter(torch.cat([*(rows.detach() for rows in before), new]))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T), numbers below W + R -> (N, T, width)."""
        return F.embedding(tokens, torch.cat([self.weight, self.added.to(self.weight.dtype)]))


class EncodedCaption(nn.Module):
    """One vector for a caption: a linear map of a pretrained encoder's output. The empty caption has a
    separate vector."""

    def __init__(self, kind: Caption, width: int, encoder: CaptionEncoder):
        """Raises ValueError: the words of the data's captions are not known."""
        super().__init__()
        if not (kind.names or kind.tokenized):
            raise ValueError("model.network.caption_encoder needs data that provide the words of their captions.")
        assert isinstance(encoder, nn.Module)
        encoder.configure_model()  # type: ignore[operator]
        self.kind, self.encoder = kind, encoder.requires_grad_(False)
        self.norm = nn.LayerNorm(encoder.width)  # type: ignore[arg-type]
        self.out = nn.Linear(encoder.width, width)  # type: ignore[arg-type]
        self.nothing = nn.Parameter(torch.randn(width))

    @property
    def width_of_words(self) -> int:
        return self.encoder.width  # type: ignore[return-value]

    def forward(self, caption: Tensor | None) -> Tensor:
        """(N, T) words, of which 0 fills up; None: nobody is told one. -> (N or 1, width)."""
        if caption is None:
            return self.nothing[None]
        return self._told(caption, self.encoder.encode_texts(self.kind.words(caption)))  # type: ignore[operator]

    def read(self, caption: Tensor | None) -> tuple[Tensor, Words]:
        """The vector, and the encoder's outputs, normed; of nothing, those of an empty text."""
        if caption is None:
            caption = self.kind.nothing(1, self.nothing.device)
        vectors, words = self.encoder.encode_words(self.kind.words(caption))  # type: ignore[operator]
        return self._told(caption, vectors), Words(self.norm(words.tokens), words.seen)

    def _told(self, caption: Tensor, vectors: Tensor) -> Tensor:
        empty = (caption == 0).all(dim=1, keepdim=True)  # (N, 1)
        told = self.out(self.norm(vectors))
        return torch.where(empty, self.nothing.to(told.dtype), told)

    def start_at(self, std: float) -> None:
        nn.init.normal_(self.out.weight, std=std / math.sqrt(self.out.in_features))
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.nothing, std=std)


class NumbersEmbedding(nn.Module):
    """One vector for several numbers from 0 to 1: sinusoids of each, then a two-layer perceptron. An empty row has a
    separate vector."""

    FEATURES, SCALE = 32, 100  # of each number; radians from 0 to 1 of the quickest

    def __init__(self, count: int, width: int):
        super().__init__()
        self.hidden = nn.Linear(count * self.FEATURES, width)
        self.out = nn.Linear(width, width)
        self.nothing = nn.Parameter(torch.randn(width))

    def forward(self, numbers: Tensor | None) -> Tensor:
        """(N, K), a row of -1 for nothing; None: no numbers. -> (N or 1, width)."""
        if numbers is None:
            return self.nothing[None]
        known = numbers.float().clamp_min(0)
        features = sinusoids(self.SCALE * known.flatten(), self.FEATURES).view(len(known), -1)
        vectors = self.out(F.silu(self.hidden(features.to(self.hidden.weight.dtype))))
        empty = (numbers < 0).all(dim=1, keepdim=True)
        return torch.where(empty, self.nothing.to(vectors.dtype), vectors)

    def start_at(self, std: float) -> None:
        nn.init.normal_(self.out.weight, std=std / math.sqrt(self.out.in_features))
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.nothing, std=std)


class CaptionLayer(nn.Module):
    """Self-attention and a perceptron, each after a layer norm; padding is masked."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(N, T, width), (N, T) -> (N, T, width)."""
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind()  # (N, heads, T, width / heads)
        mixed = attend(query, key, value, mask=seen[:, None, None, :])
        x = x + self.mixed(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def _embedding(
    kind: ConditionKind, width: int, encoder: CaptionEncoder | None
) -> LabelEmbedding | CaptionEmbedding | EncodedCaption | NumbersEmbedding:
    if isinstance(kind, Label):
        return LabelEmbedding(kind.size, width)
    if isinstance(kind, Numbers):
        return NumbersEmbedding(kind.size, width)
    if encoder is not None and isinstance(kind, Caption):
        return EncodedCaption(kind, width, encoder)
    return CaptionEmbedding(kind.size, kind.length, width)


def sinusoids(position: Tensor, num_features: int) -> Tensor:
    """Cosines, then sines, of frequencies from 1 to 1/10000 in geometric steps. (N,) -> (N, num_features)."""
    half = num_features // 2
    exponents = torch.arange(half, device=position.device, dtype=position.dtype) / half
    angles = position[:, None] * torch.exp(-math.log(10000) * exponents)  # (N, half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
