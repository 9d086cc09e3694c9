"""The source code of Python's standard library, which comes with every Python."""

import sysconfig
from collections.abc import Iterable

from genlab.data.base import Split
from genlab.data.held_out import held_out_names
from genlab.data.text import TextDataModule
from genlab.data.text_files import list_texts, read_texts

_HELD_OUT = 0.1  # of the files
_LEFT_OUT = {
    *("site-packages", "dist-packages"),  # not part of the library
    *("test", "tests", "idle_test"),  # with files that are wrong on purpose
    *("idlelib", "lib2to3", "turtledemo"),  # programs
    *("encodings", "pydoc_data"),  # tables
}


class PythonSource(TextDataModule):
    """Some 700 files, 9 million characters in all, each a document, sorted by name.

    Left out are tests, programs, tables and packages installed later. Held out are the files whose name has a hash
    below 0.1. The text differs between versions of Python.
    """

    def documents(self, split: Split) -> Iterable[str]:
        root = sysconfig.get_path("stdlib")
        names = [name for name in list_texts(root, "**/*.py") if not _LEFT_OUT & set(name.split("/"))]
        held_out = held_out_names(names, _HELD_OUT)
        return read_texts(root, [name for name in names if (name in held_out) == (split == "val")])
