"""Google's emoji with their names in 28 languages."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genlab.data import emoji_files
from genlab.data.array_cache import cached_array, digest
from genlab.data.base import Split
from genlab.data.captioned import CaptionedImages
from genlab.data.decode import DECODER, decode
from genlab.data.held_out import held_out_names, name_hash
from genlab.data.image import ImageTable
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import ConfigError, did_you_mean
from genlab.progress import progress

_FOLDER = "img/google/64"
_PRESENTATION = "FE0F"  # in color; the names of some files and entries leave it out
_GENDERS = ("2640", "2642")  # joined to a person
_DIRECTION = "27A1"  # joined: facing right
# Code points of one gender, and of a pair: that of a person, or the sequence that says the same.
_NEUTRAL = {
    "1F466": "1F9D2", "1F467": "1F9D2",  # boy, girl: child
    "1F468": "1F9D1", "1F469": "1F9D1",  # man, woman: person
    "1F474": "1F9D3", "1F475": "1F9D3",  # older man and woman
    "1F934": "1FAC5", "1F478": "1FAC5",  # prince, princess: person with crown
    "1FAC3": "1F930", "1FAC4": "1F930",  # pregnant man, person and woman
    "1F57A": "1F483",  # man and woman dancing
    "1F6BA": "1F6B9",  # women's and men's room
    "1F385": "1F9D1 1F384", "1F936": "1F9D1 1F384",  # Santa, Mrs. Claus: Mx Claus
    "1F46B": "1F9D1 1F91D 1F9D1", "1F46C": "1F9D1 1F91D 1F9D1", "1F46D": "1F9D1 1F91D 1F9D1",  # holding hands
    "1F48F": "1F9D1 2764 1F48B 1F9D1",  # kiss
    "1F491": "1F9D1 2764 1F9D1",  # couple with heart
}  # fmt: skip
_JOINER = "200D"


@dataclass(frozen=True)
class Picture:
    """A picture of the set."""

    image: str  # the name of its file
    code: str  # its code points, without those for presentation
    concept: str  # the same for all skin tones, genders and directions


class Emoji(CaptionedImages):
    """3,786 pictures of 64 x 64, resized to (3, S, S), transparent parts white, with their names in a language.

    The pictures are those of npm's emoji-datasource-google 16.0.0, the names those of emojibase-data 17.0.0, which are
    verified by their SHA-256. About a tenth of the concepts is held out: all skin tones and genders of one are on the
    same side.
    """

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        root: str = "data/emoji",  # where npm has installed the packages, or their archives are unpacked
        names_root: str | None = None,  # of the names; null: root too
        language: str = "en",  # of the names
        tags: bool = False,  # a second caption for each picture: its tags, such as "bye hand hello wave"
        image_size: int = 32,  # pixels: 64 are those of the files
        val_fraction: float = 0.1,  # in (0, 1): of the concepts, held out by their hash
        caption_length: int = 64,  # tokens of a caption, at most
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = False,  # mirror training images, half of the time; not for captions that say left and right
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data, of the flips, and of the choice among several captions
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(tokenizer, caption_length, cache_dir, batch_size, flip, num_workers, limit, seed)
        if image_size < 1:
            raise ConfigError(f"data.image_size must be a whole number >= 1, got {image_size}.")
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        if language not in emoji_files.languages():
            known = emoji_files.languages()
            raise ConfigError(
                f"data.language={language}: there are no names in it.{did_you_mean(language, known)} "
                f"Use one of {', '.join(known)}."
            )
        self.root, self.names_root, self.language, self.tags = root, names_root or root, language, tags
        self.image_size, self.val_fraction = image_size, val_fraction

    def pictures(self, split: Split) -> ImageTable:
        """Raises DataError: a package is missing or not as published; StorageError for the cache."""
        key = f"emoji-{digest(1, DECODER, emoji_files.SHA256['pictures'], self.image_size)}"
        pixels = cached_array(self.cache, key, self._decoded)
        return ImageTable(np.ascontiguousarray(pixels[self._rows(split)]))

    def texts(self, split: Split) -> Sequence[Sequence[str]]:
        names = self._names
        return [names[self.entries[row].code] for row in self._rows(split)]

    def _rows(self, split: Split) -> list[int]:
        """The entries of a split. Those held out are in the order of a hash, so that the first ones are of any kind."""
        held_out = held_out_names({entry.concept for entry in self.entries}, self.val_fraction)
        rows = [row for row, entry in enumerate(self.entries) if (entry.concept in held_out) == (split == "val")]
        return rows if split == "train" else sorted(rows, key=lambda row: name_hash(self.entries[row].code))

    @cached_property
    def entries(self) -> list[Picture]:
        """All pictures, in the order of the package's list."""
        folder = emoji_files.package(self.root, *emoji_files.PICTURES)
        found = []
        for entry in emoji_files.read_json(folder, "emoji.json", self.root):
            concept = concept_of(entry["unified"])
            for one in (entry, *entry.get("skin_variations", {}).values()):
                found.append(Picture(one["image"], code_of(one["unified"]), concept))
        return found

    @cached_property
    def _names(self) -> dict[str, tuple[str, ...]]:
        """The captions of each code: its name, and its tags if asked for."""
        folder = emoji_files.package(self.names_root, *emoji_files.NAMES)
        found = {}
        for entry in emoji_files.read_json(folder, f"{self.language}/data.json", self.names_root):
            tags = (" ".join(entry["tags"]),) if self.tags and entry.get("tags") else ()
            for one in (entry, *entry.get("skins", ())):
                found[code_of(one["hexcode"])] = (one["label"], *tags)
        return found

    def _decoded(self) -> Iterator[np.ndarray]:
        """(1, 3, S, S) uint8 of each entry. Raises DataError, before anything is kept, if one is not as published."""
        folder = emoji_files.package(self.root, *emoji_files.PICTURES)
        files = [emoji_files.read_file(folder, f"{_FOLDER}/{entry.image}", self.root) for entry in self.entries]
        found = hashlib.sha256(b"".join(files)).hexdigest()
        emoji_files.check(found, f"{folder / _FOLDER}", emoji_files.SHA256["pictures"], self.root)
        with progress(f"decoding {len(files):,} images", len(files)) as advance:
            for entry, content in zip(self.entries, files, strict=True):
                yield decode(content, self.image_size, 3, name=entry.image)[None]
                advance(1)


def code_of(unified: str) -> str:
    """Code points between hyphens, without those that only choose a presentation: the packages differ in them."""
    return "-".join(point for point in unified.upper().split("-") if point != _PRESENTATION)


def concept_of(unified: str) -> str:
    """The same text for the genders and directions of an emoji; its skin tones are variations of one entry."""
    first, *joined = code_of(unified).split(f"-{_JOINER}-")
    parts = [first, *(part for part in joined if part not in (*_GENDERS, _DIRECTION))]
    return " ".join(_NEUTRAL.get(part, part) for part in parts)
