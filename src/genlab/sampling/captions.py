"""Caption samples: pictures are read from files, and their captions shown, or written beside or below them."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genlab.data.image import to_float
from genlab.data.image_files import list_images
from genlab.errors import ConfigError, DataError
from genlab.files.atomic import prepare_file, write_atomically, writing
from genlab.files.paths import read_path
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition_kind import Caption, Label, Numbers
from genlab.model.condition_picture import KEY, Picture
from genlab.sampling.asked import shown
from genlab.sampling.examples import Examples
from genlab.sampling.form import Typed
from genlab.sampling.picture_file import on_white, read_picture
from genlab.sampling.pictures import captions_of, write_captions
from genlab.sampling.png import save_png

_TILE = 118  # pixels of a picture's wider side, at least: three fit the pictures of a comparison's page
_FONT = 11
_GAP = 2


class Captions:
    """Captions of the user's pictures, in turn."""

    key: ClassVar[str] = "text"
    suffix: ClassVar[str] = ".txt"

    def __init__(self, shape: Sequence[int], bits: int = 8):  # of the run's pictures
        self.shape, self.bits = tuple(shape), bits
        self.count = 1
        self._model: GenerativeModel | None = None
        self._names: list[str] = []  # of the pictures
        self._pixels = torch.empty(0)  # (M, C, H, W), as decoded

    def text_of(self, model: GenerativeModel, words: Tensor) -> list[str]:
        """Captions (N, L) of a model in its words."""
        caption: Caption = model.caption  # type: ignore[assignment]
        return caption.words(words.cpu())

    def content(self, samples: Tensor) -> list[str]:
        assert self._model is not None, "pictures are read first"
        return self.text_of(self._model, samples)

    def read(self, model: GenerativeModel, typed: Typed, run: Path) -> Condition:
        """``image``, the user's pictures (M, C, H, W). Raises ConfigError: none, or a label or a prompt, or a model
        that does not describe pictures; DataError: a file is not a picture."""
        for option in (Label.option, Caption.option, Numbers.option):
            if (values := typed.get(option)) is not None:
                raise ConfigError(
                    f"{option}={shown(values)}: the model of {run} describes pictures. Name one: image=picture.png"
                )
        if KEY not in model.conditions.kinds:
            raise ConfigError(f"the model of {run} does not describe pictures. Leave task= out.")
        named = [str(value) for value in typed.get(Picture.option) or ()]
        if not named:
            raise ConfigError(
                f"the model of {run} describes pictures: name one, several or a folder: image=picture.png"
            )
        paths = [path for name in named for path in _files(name)]
        self._model, self._names, self.count = model, [str(path) for path in paths], len(paths)
        self._pixels = torch.stack([read_picture(path, self.shape, self.bits, Picture.option) for path in paths])
        return {KEY: to_float(self._pixels)}

    def asked(self, model: GenerativeModel, indices: range, typed: Condition) -> Condition | None:
        return {key: values[torch.tensor(indices) % len(values)] for key, values in typed.items()} or None

    def words(self, model: GenerativeModel, indices: range, typed: Condition) -> dict[str, Sequence[str]]:
        """The pictures' files."""
        return {"picture": [self._names[i % len(self._names)] for i in indices]}

    def shown(self, examples: Examples, last: bool) -> str:
        """A line for each picture; its caption alone, where there is one picture."""
        pairs = zip(examples["picture"], examples["text"], strict=True)
        return "\n".join(text if len(self._names) == 1 else f"{picture}: {text}" for picture, text in pairs)

    def columns(self, model: GenerativeModel, n: int, typed: Condition) -> int:
        return max(1, min(n, round((1.5 * n) ** 0.5)))

    def destination(self, out: str) -> Path:
        """Raises ConfigError if ``out`` is neither a .txt nor a .png file, StorageError if it cannot be written."""
        path = read_path(out)
        if path.suffix.lower() not in (".txt", ".png"):
            raise ConfigError(
                f"out={out}: captions go into a .txt file, or below their pictures into a .png. "
                f"Use out={path.with_suffix('.txt')}"
            )
        prepare_file(path)
        return path

    def write(self, examples: Examples, path: Path, columns: int) -> list[Path]:
        """A line for each picture: its file, a tab and its caption. Or a grid of the pictures with their captions below
        them, and ``captions-<name>.txt`` beside it."""
        texts = [str(text) for text in examples["text"]]
        if path.suffix.lower() == ".png":
            chosen = self._pixels[torch.arange(len(texts)) % len(self._pixels)]
            with writing(path.parent):
                save_captioned(chosen, texts, columns, path)
            write_captions(texts, captions_of(path))
            return [path, captions_of(path)]
        lines = [f"{picture}\t{text}\n" for picture, text in zip(examples["picture"], texts, strict=True)]
        write_atomically(path, lambda file: file.write("".join(lines).encode("utf-8", "surrogateescape")))
        return [path]


def _files(name: str) -> list[Path]:
    """A picture, or those of a folder. Raises DataError: there are none."""
    path = read_path(name)
    if path.is_dir():
        return [path / file.name for file in list_images(name)[0]]
    if not path.exists():
        raise DataError(f"image={name}: there is no such file. Name a picture, several, or a folder.")
    return [path]


def save_captioned(images: Tensor, captions: Sequence[str], columns: int, path: Path) -> None:
    """Pictures (N, C, H, W), uint8 or uint16, as one PNG, row by row, with a caption below each. Small ones are
    enlarged, pixel by pixel."""
    pixels = images if images.dtype == torch.uint8 else (images.int() // 257).to(torch.uint8)
    scale = -(-_TILE // max(images.shape[-2:]))
    height, width = (side * scale for side in images.shape[-2:])
    font = ImageFont.load_default(_FONT)
    wrapped = [_wrapped(text, font, width) for text in captions]
    line = _FONT + 3
    below = line * max(1, max(map(len, wrapped))) + 2 * _GAP
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + below)), "white")
    draw = ImageDraw.Draw(grid)
    for number, (picture, lines) in enumerate(zip(pixels, wrapped, strict=True)):
        x, y = number % columns * (width + _GAP), number // columns * (height + below)
        grid.paste(on_white(picture).resize((width, height), Image.Resampling.NEAREST), (x, y))
        for place, words in enumerate(lines):
            draw.text((x + 1, y + height + place * line), words, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(np.asarray(grid), path)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines of at most ``width`` pixels, about."""
    each = max(1.0, font.getlength("abcdefghijklmnopqrstuvwxyz ") / 27)
    printable = "".join(character if character.isprintable() else " " for character in text)
    return textwrap.wrap(printable, max(8, int(width / each))) or [""]
