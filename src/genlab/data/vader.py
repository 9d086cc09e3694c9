"""Sentences that 15 to 20 people have rated, of the package vaderSentiment (Hutto and Gilbert 2014)."""

import json
from collections.abc import Sequence
from typing import Literal

from genlab.data.base import Split
from genlab.data.conversation import part_of
from genlab.data.rated import Rated, rated
from genlab.data.ratings import Ratings
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path

_FILES = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "news": "nytEditorialSnippets",
    "posts": "tweets",
}  # by what the sentences are of
_LIMITS = (-4.0, 4.0)


class Vader(Ratings):
    """How good or bad what a sentence says is, from -4 to 4: 10,605 sentences of film reviews, 3,708 of reviews of
    products, 5,190 of news and 4,200 short posts, each with what every person said.

    ``path`` is a folder of the files that the source distribution of vaderSentiment 3.3.2 has in
    ``additional_resources/hutto_ICWSM_2014.tar.gz``. Sentences of one document, which those of products and news have,
    are held out together.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        path: str,  # a folder of the unpacked files
        texts: Sequence[Literal["films", "products", "news", "posts"]] = ("films",),
        val_fraction: float = 0.1,  # in (0, 1)
        template: str | None = None,
        context: int = 256,
        cache_dir: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(
            tokenizer,
            path,
            None,
            val_fraction,
            lowest=_LIMITS[0],
            highest=_LIMITS[1],
            template=template,
            context=context,
            cache_dir=cache_dir,
            batch_size=batch_size,
            num_workers=num_workers,
            limit=limit,
            seed=seed,
        )
        if not texts or not {*texts} <= _FILES.keys():
            raise ConfigError(f"data.texts must be some of {', '.join(_FILES)}, got {', '.join(texts) or 'none'}.")
        self.texts = tuple(dict.fromkeys(texts))

    def conversations(self, split: Split) -> Sequence[Rated]:
        """Raises DataError: the files are not there, or are others."""
        found: list[Rated] = []
        for name in self.texts:
            kept = part_of(self._sentences(name), split == "val", self.val_fraction)
            found += [one for one in kept if isinstance(one, Rated)]
        return found

    def _sentences(self, name: str) -> list[Rated]:
        texts = self._columns(f"{_FILES[name]}_GroundTruth.txt", 3)
        said = self._columns(f"{_FILES[name]}_anonDataRatings.txt", 4)
        if len(texts) != len(said):
            raise DataError(
                f"{self.path}: {_FILES[name]}_GroundTruth.txt has {len(texts):,} lines, and the file of ratings "
                f"{len(said):,}. Unpack both again."
            )
        rows = []
        for number, ((key, _, text), (*_, each)) in enumerate(zip(texts, said, strict=True), start=1):
            where = f"{_FILES[name]}, line {number}"
            document = f"{name} {key.partition('_')[0]}" if "_" in key else None
            rows.append(rated("", text.strip(), _numbers(each, where), document, _LIMITS, where))
        return rows

    def _columns(self, file: str, number: int) -> list[list[str]]:
        """The lines of one of the files, by columns. Raises DataError: it is not there, or no such file."""
        path = read_path(self.path) / file
        try:
            text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("latin-1")
        except OSError as error:
            raise DataError(
                f"cannot read {path} ({(error.strerror or str(error)).lower()}). Get the files: pip download --no-deps "
                "--no-binary :all: vaderSentiment==3.3.2, and unpack the archive additional_resources/"
                "hutto_ICWSM_2014.tar.gz that is in it."
            ) from error
        lines = (line.removesuffix("\r") for line in text.split("\n"))  # other line ends of Unicode are characters here
        rows = [line.split("\t", number - 1) for line in lines if line.strip()]
        wrong = next((i for i, row in enumerate(rows, start=1) if len(row) != number), None)
        if wrong is not None:
            raise DataError(f"{path}, line {wrong}: there are not {number} columns. Unpack the file again.")
        return rows

    def title(self, split: Split) -> str:
        return f"the {'training' if split == 'train' else 'held-out'} sentences of {', '.join(self.texts)}"


def _numbers(text: str, where: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: the ratings are no list of numbers ({text[:50]}).") from error
