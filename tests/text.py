"""Text for runs of seconds."""

from pathlib import Path

SENTENCES = ("A naïve façade costs 5 €. ", 'Who said "x = [1, 2]"?\n', "𝄞 la la la, ", "and so on. ")


def text_file(folder: Path, name: str = "text.txt", repeats: int = 40) -> tuple[str, ...]:
    """The overrides that train on a file of 3,000 characters, some of them of several bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(SENTENCES[i * i % 7 % 4] for i in range(4 * repeats)), encoding="utf-8")
    return ("data=text_file", f"data.path={path}", f"data.cache_dir={folder / 'cache'}")
