"""Combines sample grids of several runs into one picture, each below its name."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from genlab.report.picture_file import UnreadablePictureError, read_picture

ACROSS = 4  # tiles in a row
HEIGHTS = (256, 512)  # pixels of a tile: grids are scaled to the tallest, within these
MOST = 100  # tiles: the best, and what a viewer of pictures can still open
WIDEST = 16  # times its height: no grid of samples is wider
NARROWEST = 240  # pixels of a tile, so that its caption can be read
GAP = 16
TITLE, SUBTITLE = (ImageFont.load_default(size=size) for size in (17, 15))
Tile = tuple[str, str, Path | None]  # name, its first metric, its grid


def side_by_side(tiles: Sequence[Tile], path: Path) -> None:
    """Write the grids as one PNG: tiles of one height, at most four across. A grid that cannot be read is gray."""
    grids = [None if grid is None else _read(grid) for *_, grid in tiles]
    height = min(max([HEIGHTS[0], *(grid.height for grid in grids if grid)]), HEIGHTS[1])
    pictures = [_picture(grid, height) for grid in grids]
    rows = -(-len(tiles) // ACROSS)
    across = -(-len(tiles) // rows)  # 5 tiles are 3 + 2
    widths = [max(picture.width for picture in pictures[column::across]) for column in range(across)]
    captions = [_wrapped(name, widths[i % across]) for i, (name, *_) in enumerate(tiles)]
    line = _line_height(TITLE)
    strips = [
        max(map(len, captions[row * across : (row + 1) * across])) * line + _line_height(SUBTITLE) + GAP // 2
        for row in range(rows)
    ]
    sheet = Image.new("RGB", (sum(widths) + GAP * (across + 1), sum(strips) + rows * (height + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, ((_, metric, _), picture) in enumerate(zip(tiles, pictures, strict=True)):
        row, column = divmod(i, across)
        x = GAP + sum(widths[:column]) + GAP * column
        y = GAP + sum(strips[:row]) + row * (height + GAP)
        for number, words in enumerate(captions[i]):
            draw.text((x, y + number * line), words, fill="black", font=TITLE)
        draw.text((x, y + len(captions[i]) * line), metric, fill=(90, 90, 90), font=SUBTITLE)
        sheet.paste(picture, (x, y + strips[row]))
    sheet.save(path, compress_level=1)  # noise hardly shrinks, however long one tries


def _read(path: Path) -> Image.Image | None:
    """No larger than it is shown."""
    try:
        grid = read_picture(path, tallest=HEIGHTS[1])
    except UnreadablePictureError:
        return None
    return grid if grid.width <= WIDEST * grid.height else None


def _picture(grid: Image.Image | None, height: int) -> Image.Image:
    """A grid scaled to ``height``, on a tile that is wide enough for a caption; gray where there is none."""
    if grid is None:
        tile = Image.new("RGB", (NARROWEST, height), (235, 235, 235))
        ImageDraw.Draw(tile).text((GAP, GAP), "no sample grid", fill=(90, 90, 90), font=SUBTITLE)
        return tile
    width = max(1, round(grid.width * height / grid.height))
    if grid.height != height:
        grid = grid.resize((width, height), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (max(width, NARROWEST), height), "white")
    tile.paste(grid, (0, 0))
    return tile


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words, or inside of one that is longer."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if TITLE.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [] if lines[-1] == "" else [""]
        for letter in word:
            if lines[-1] and TITLE.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _line_height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(1.25 * font.getbbox("Ag")[3])
