"""The Python documentation topics that come with every Python."""

from collections.abc import Iterable

from genlab.data.base import Split
from genlab.data.held_out import held_out_names
from genlab.data.text import TextDataModule

_HELD_OUT = 0.1  # of the topics


class PythonDocs(TextDataModule):
    """The language topics of ``help()``: some 80 documents, half a million characters in all, sorted.

    Held out are the topics whose name has a hash below 0.1. The text differs between versions of Python.
    """

    def documents(self, split: Split) -> Iterable[str]:
        from pydoc_data.topics import topics

        held_out = held_out_names(topics, _HELD_OUT)
        return [topics[name] for name in sorted(topics) if (name in held_out) == (split == "val")]
