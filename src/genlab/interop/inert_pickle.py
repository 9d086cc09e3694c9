"""Reads a pickle as plain values: nothing that it names is imported, and nothing that it calls is run.

Python's unpickler imports and calls whatever a file says. This one knows the instructions that Python writes for plain
values alone, and each name that a reader allows stands for a function of that reader, or for a value. Everything else
ends the reading.
"""

import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

_LONGEST_SHOWN = 80  # characters of what a file says, in a message
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUT = ("BINPUT", "LONG_BINPUT", "MEMOIZE")
_GET = ("BINGET", "LONG_BINGET")
_NEW: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ARGUMENT = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
             "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}  # fmt: skip


class Refused(Exception):
    """A pickle is not what is read. The text goes on after the name of the file: ``is damaged``."""


class NameRefused(Refused):
    """It names something that is not allowed: ``name``, with its module."""

    def __init__(self, name: str):
        super().__init__(f"names {shown(name)}, which is no part of such a file; nothing of it was executed")
        self.name = name


class Settable(ABC):
    """A value whose state a pickle may set (BUILD). Every other value has none."""

    @abstractmethod
    def set_state(self, state: Any) -> None:
        """Raises Refused: not a state of this value."""


@dataclass(frozen=True)
class Maker:
    """What an allowed name stands for: a function of the reader, called with the tuple of the pickle's arguments."""

    make: Callable[[tuple[Any, ...]], Any]
    called_by: str = "REDUCE"  # or NEWOBJ


class Budget:
    """Instructions that may still be read, by all readings that share it."""

    def __init__(self, instructions: int):
        self.left = instructions

    def spend(self, count: int = 1) -> None:
        """Raises Refused: there are no more."""
        self.left -= count
        if self.left < 0:
            raise Refused("has more instructions than such a file needs")


def shown(text: str) -> str:
    """What a file says, for a message: short, and without characters that act on a terminal."""
    return ascii(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def read_inert(
    stream: BinaryIO,
    names: Mapping[str, Any],
    budget: Budget,
    protocols: range,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle that begins at the stream's position, which is after the pickle then.

    Dicts have texts as keys, each once, and sets texts as members. Values may contain themselves.

    Args:
        stream: of bytes that are in memory, so that a length that the pickle claims reserves nothing
        names: what ``<module> <name>`` stands for: a :class:`Maker`, or a value
        persistent: makes a value of a persistent id; without it these are refused

    Raises:
        Refused: damaged, or with an instruction, a name or a call that is not allowed.
    """
    machine = _Machine(names, persistent)
    try:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            budget.spend()
            if (instruction.name == "PROTO") != (number == 0):
                raise Refused("is not a pickle")
            if number == 0 and argument not in protocols:
                raise Refused(f"is a pickle of protocol {argument}, and not of {', '.join(map(str, protocols))}")
            machine.step(instruction.name, argument)
        return machine.result()
    except (ValueError, IndexError, KeyError) as error:  # it ends early, takes what is not there, is not UTF-8
        raise Refused("is damaged, or not a pickle") from error


class _Machine:
    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None):
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if self.below or len(self.stack) != 1:
            raise Refused("is damaged: it leaves no single value")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        if name in _ARGUMENT:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name])
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _PUT:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in _GET:
            self.stack.append(self.memo[argument])
        elif name in _TUPLES:
            self.stack[-_TUPLES[name] :] = [tuple(self._top(_TUPLES[name]))]
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._act(name, argument)

    def _act(self, name: str, argument: Any) -> None:
        match name:
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "TUPLE":
                members = tuple(self._to_the_mark())
                self.stack.append(members)
            case "APPEND" | "APPENDS":
                self._append(self._to_the_mark() if name == "APPENDS" else [self.stack.pop()])
            case "SETITEM" | "SETITEMS":
                self._set(self._to_the_mark() if name == "SETITEMS" else self._pop(2))
            case "ADDITEMS":
                self._add(self._to_the_mark())
            case "GLOBAL":
                self._name(argument)
            case "STACK_GLOBAL":
                module, word = self._pop(2)
                if type(module) is not str or type(word) is not str:
                    raise Refused("names something by what is not a text")
                self._name(f"{module} {word}")
            case "REDUCE" | "NEWOBJ":
                self._call(name, *self._pop(2))
            case "BUILD":
                state = self.stack.pop()
                if not isinstance(self.stack[-1], Settable):
                    raise Refused("sets the state of something that has none (BUILD)")
                self.stack[-1].set_state(state)
            case "BINPERSID" if self.persistent is not None:
                self.stack.append(self.persistent(self.stack.pop()))
            case _:
                raise Refused(f"has an instruction that is no part of such a file ({name})")

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        return self.stack[-count:]

    def _pop(self, count: int) -> list[Any]:
        taken = self._top(count)
        del self.stack[-count:]
        return taken

    def _to_the_mark(self) -> list[Any]:
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def _append(self, members: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("appends to what is not a list")
        self.stack[-1].extend(members)

    def _set(self, items: list[Any]) -> None:
        found = self.stack[-1]
        if type(found) is not dict or len(items) % 2:
            raise Refused("sets items of what is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise Refused("has a dict with a key that is not a text")
            if key in found:
                raise Refused(f"has the key {shown(key)} twice in a dict")
            if key.startswith("__") and key.endswith("__"):
                raise Refused(f"has the key {shown(key)}, which is no part of such a file")
            found[key] = value

    def _add(self, members: list[Any]) -> None:
        if type(self.stack[-1]) is not set:
            raise Refused("adds to what is not a set")
        self.stack[-1].update(texts(members))

    def _name(self, name: str) -> None:
        if name not in self.names:
            raise NameRefused(name.replace(" ", ".", 1))
        self.stack.append(self.names[name])

    def _call(self, instruction: str, function: Any, arguments: Any) -> None:
        if not isinstance(function, Maker) or function.called_by != instruction or type(arguments) is not tuple:
            raise Refused(f"calls what cannot be called ({instruction})")
        self.stack.append(function.make(arguments))


def texts(members: list[Any]) -> set[str]:
    """The members of a set. Raises Refused: one is not a text."""
    if not all(type(member) is str for member in members):
        raise Refused("has a set of what is not a text")
    return set(members)
