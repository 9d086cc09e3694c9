"""``<file>.pkl``: networks as NVlabs' stylegan2-ada-pytorch and stylegan3 save them, read without running any code.

Such a file is a pickle of a dict: the networks ``G``, ``D`` and ``G_ema`` of a GAN (Karras et al. 2020, "Training
Generative Adversarial Networks with Limited Data"), with ``training_set_kwargs`` and ``augment_pipe``. A network in it
is a call of a constructor, with the source code of the module that it was made by and the state of the object.
Unpickling would run that source. Here it is a text that nothing looks at, and the state a tree of dicts:

    object      torch_utils.persistence._reconstruct_persistent_obj(
                    {"type": "class", "version": 6, "module_src": ..., "class_name": ..., "state": {...}})
    state       _parameters, _buffers, _non_persistent_buffers_set, _modules (objects), _init_args, _init_kwargs
    tensor      torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks); of a parameter
                inside torch._utils._rebuild_parameter(tensor, requires_grad, hooks)
    storage     torch.storage._load_from_bytes(bytes): a file of torch.save (before its zip files) in the file

These names, ``OrderedDict``, ``set``, numpy's ``dtype`` and ``scalar`` and dnnlib's ``EasyDict`` are all that is known.
"""

import io
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.checkpoint.tensors import read_file
from genlab.errors import CheckpointError
from genlab.interop.inert_pickle import Budget, Maker, NameRefused, Refused, Settable, read_inert, shown, texts

_READ = "Read are the .pkl files that NVlabs' stylegan2-ada-pytorch and stylegan3 save while they train"
_NO_OBJECT = "has an object that is not described as one"
_NO_STORAGE = "has a storage that is not one of torch.save, little-endian"
_NETWORKS = ("G", "D", "G_ema")
_OTHERS = ("augment_pipe",)
_CONSTRUCTOR_VERSION = 6
_PROTOCOLS = range(3, 6)
_MOST_INSTRUCTIONS = 400_000  # G, D and G_ema of 1024 x 1024 have 55,000
_MOST_NAMES = 20_000  # of tensors, parts and settings in a file
_DEEPEST = 16  # networks in networks, settings in settings
_MOST_DIMENSIONS = 8  # of a tensor
_LARGEST_NUMBER = 1 << 40  # in its shape, its strides, and the product of its shape
_PART = re.compile(r"[A-Za-z0-9_]{1,100}")

_TORCH_SAVE, _TORCH_PICKLE = [0x1950A86A20F9469CFC6C, 1001], range(2, 3)  # its magic number and version; protocol 2
_LONGEST_HEADER = 4096  # bytes of a storage before its numbers
_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ByteStorage": torch.uint8,
}
_DTYPE_STATES = [(3, order, None, None, None, -1, -1, 0) for order in "<|"]  # no fields, no parts, the usual alignment
_SCALARS = {"f2": "<e", "f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q", "b1": "?"}  # numpy's names as those of struct


@dataclass(frozen=True)
class ReadNetwork:
    """One network of a file: plain values and tensors on the CPU that own their memory; no class of the file's."""

    class_name: str  # as the file says it: Generator, Discriminator, AugmentPipe
    init_args: tuple[Any, ...]  # what the class was called with, as plain values: None, bool, int, float, str,
    init_kwargs: dict[str, Any]  # and lists, tuples and dicts of them; numbers of numpy are Python's
    tensors: dict[str, Tensor]  # as in state_dict(): dotted names, in order; contiguous; no non-persistent buffers
    parameters: frozenset[str]  # the names in ``tensors`` that are parameters; the others are buffers


def read_networks(path: Path) -> dict[str, ReadNetwork]:
    """The networks in a file: those of ``G``, ``D``, ``G_ema`` and ``augment_pipe`` that it has.

    Nothing that the file names is imported, and nothing in it is run. Time and memory are bounded by the size of the
    file and a number of instructions, not by what it claims. A tensor under several names is the same one under each.

    Raises:
        CheckpointError: missing, damaged, of another kind (one of TensorFlow's era is named as such), or with anything
            that no such file has.
    """
    content = read_file(Path(os.path.realpath(path)))  # a path that is typed may be a link
    try:
        return _networks(content)
    except NameRefused as error:
        if error.name.startswith("dnnlib.tflib."):
            raise CheckpointError(
                f"{path} is of the TensorFlow era (it names {shown(error.name)}, which was not executed) and is not "
                "read. legacy.py of NVlabs' stylegan2-ada-pytorch converts it to one that is, but runs what is in it."
            ) from error
        raise CheckpointError(f"{path} {error}. {_READ}.") from error
    except Refused as error:
        raise CheckpointError(f"{path} {error}. {_READ}.") from error


def _networks(content: bytes) -> dict[str, ReadNetwork]:
    if not content:
        raise Refused("is empty")
    if content[:1] != b"\x80":
        raise Refused("is not a pickle")
    found = _Values(len(content)).read(content)
    if type(found) is not dict or not any(isinstance(found.get(name), _Object) for name in _NETWORKS):
        raise Refused(f"has none of the networks {', '.join(_NETWORKS)}")
    for name in (*_NETWORKS, *_OTHERS):
        if not isinstance(found.get(name), _Object | None):
            raise Refused(f"has something else than a network as {name}")
    tree = _Tree()
    return {name: tree.network(found[name]) for name in (*_NETWORKS, *_OTHERS) if found.get(name) is not None}


# --- what the names of a file stand for -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Object:
    class_name: str
    state: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Storage:
    content: bytes  # a file of torch.save
    begin: int  # where its numbers begin
    count: int
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class _Parameter:
    tensor: Tensor


@dataclass(frozen=True, eq=False)
class _Stored:
    """What the pickle in a storage says of its numbers."""

    dtype: torch.dtype
    key: Any
    count: int


@dataclass(frozen=True, eq=False)
class _Dtype(Settable):
    layout: str  # of struct

    def set_state(self, state: Any) -> None:
        plain = type(state) is tuple and all(value is None or type(value) in (int, str) for value in state)
        if not plain or state not in _DTYPE_STATES:
            raise Refused("has a dtype of numpy that is not of plain numbers, little-endian")


class _Values:
    """Makes the values of one file. Tensors are copied as they are met: together they have no more bytes than the
    file, whatever they claim."""

    def __init__(self, size: int):
        self.bytes_left = size
        self.budget = Budget(_MOST_INSTRUCTIONS)
        self.names = {
            "torch_utils.persistence _reconstruct_persistent_obj": Maker(self._object),
            "torch._utils _rebuild_parameter": Maker(self._parameter),
            "torch._utils _rebuild_tensor_v2": Maker(self._tensor),
            "torch.storage _load_from_bytes": Maker(self._storage),
            "collections OrderedDict": Maker(self._dict),
            "dnnlib.util EasyDict": Maker(self._dict, "NEWOBJ"),
            "builtins set": Maker(self._set),
            "numpy dtype": Maker(self._dtype),
            "numpy.core.multiarray scalar": Maker(self._scalar),
            "numpy._core.multiarray scalar": Maker(self._scalar),  # since numpy 2
        }

    def read(self, content: bytes) -> Any:
        stream = io.BytesIO(content)
        found = read_inert(stream, self.names, self.budget, _PROTOCOLS)
        if stream.tell() != len(content):
            raise Refused("goes on after its end")
        return found

    def _object(self, arguments: tuple[Any, ...]) -> _Object:
        match arguments:
            case (dict(meta),):
                return self._described(meta)
        raise Refused(_NO_OBJECT)

    def _described(self, meta: dict[str, Any]) -> _Object:
        match [meta.get(key) for key in ("type", "version", "module_src", "class_name", "state")]:
            case [str(kind), int(version), str(), str(name), dict(state)] if kind == "class":
                if version != _CONSTRUCTOR_VERSION:
                    raise Refused(f"has an object of version {version}; {_CONSTRUCTOR_VERSION} alone is known")
                if not (_PART.fullmatch(name) and name.isidentifier()):
                    raise Refused(f"has an object of the class {shown(name)}, which is no name of a class")
                return _Object(name, state)
        raise Refused(_NO_OBJECT)

    def _parameter(self, arguments: tuple[Any, ...]) -> _Parameter:
        match arguments:
            case (Tensor() as tensor, bool(), dict()):
                return _Parameter(tensor)
        raise Refused("has a parameter that is not described as one")

    def _tensor(self, arguments: tuple[Any, ...]) -> Tensor:
        match arguments:
            case (_Storage() as storage, int(offset), tuple(size), tuple(stride), bool(), dict()):
                return self._copied(storage, offset, size, stride)
        raise Refused("has a tensor that is not described as one")

    def _copied(self, storage: _Storage, offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> Tensor:
        """The tensor of this shape, in memory of its own. Only what it spans of the storage is copied."""
        if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
            raise Refused(f"has a tensor of {len(size)} dimensions with {len(stride)} strides")
        plain = all(type(n) is int and 0 <= n <= _LARGEST_NUMBER for n in (offset, *size, *stride))
        if not plain or math.prod(max(1, n) for n in size) > _LARGEST_NUMBER:
            raise Refused("has a tensor whose shape, strides or offset are out of range")
        self.bytes_left -= math.prod(size) * storage.dtype.itemsize
        if self.bytes_left < 0:
            raise Refused("has tensors that are larger than the file")
        spanned = sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if 0 not in size else 0
        if offset + spanned > storage.count:
            raise Refused("has a tensor that reaches beyond its storage")
        if not spanned:
            return torch.empty(size, dtype=storage.dtype)
        itemsize = storage.dtype.itemsize
        numbers = np.frombuffer(storage.content, np.uint8, spanned * itemsize, storage.begin + offset * itemsize)
        return (
            torch.from_numpy(numbers.copy())
            .view(storage.dtype)
            .as_strided(size, stride)
            .clone(memory_format=torch.contiguous_format)
        )

    def _storage(self, arguments: tuple[Any, ...]) -> _Storage:
        match arguments:
            case (bytes(content),):
                return self._saved(content)
        raise Refused("has a storage that is not described as one")

    def _saved(self, content: bytes) -> _Storage:
        """The one storage in a file of torch.save: five pickles, then how many numbers there are, and the numbers."""
        stream = io.BytesIO(content[:_LONGEST_HEADER])
        try:
            parts = [read_inert(stream, _DTYPES, self.budget, _TORCH_PICKLE, persistent=_stored) for _ in range(5)]
        except NameRefused:
            raise
        except Refused as error:
            raise Refused(f"has a storage that {error}") from error
        match parts[2:]:
            case [{"little_endian": True}, _Stored() as stored, [str(key)]] if key == stored.key:
                begin = stream.tell() + 8
            case _:
                raise Refused(_NO_STORAGE)
        if parts[:2] != _TORCH_SAVE:
            raise Refused(_NO_STORAGE)
        held = int.from_bytes(content[begin - 8 : begin], "little")
        if held != stored.count or len(content) != begin + held * stored.dtype.itemsize:
            raise Refused("has a storage that claims more or fewer numbers than it holds")
        return _Storage(content, begin, held, stored.dtype)

    def _dict(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if arguments:
            raise Refused("makes a dict of what is not in it")
        return {}

    def _set(self, arguments: tuple[Any, ...]) -> set[str]:
        match arguments:
            case (list(members),):
                self.budget.spend(len(members))  # a list may be used many times
                return texts(members)
        raise Refused("has a set that is not described as one")

    def _dtype(self, arguments: tuple[Any, ...]) -> _Dtype:
        match arguments:
            case (str(code), int(align), int(copy)) if code in _SCALARS and (align, copy) == (0, 1):  # or bools
                return _Dtype(_SCALARS[code])
        raise Refused("has a dtype of numpy that is not of plain numbers, little-endian")

    def _scalar(self, arguments: tuple[Any, ...]) -> int | float | bool:
        match arguments:
            case (_Dtype(layout=layout), bytes(content)) if len(content) == struct.calcsize(layout):
                (number,) = struct.unpack(layout, content)
                assert isinstance(number, int | float)
                return number
        raise Refused("has a number of numpy that is not described as one")


def _stored(identity: Any) -> _Stored:
    match identity:
        case ("storage", torch.dtype() as dtype, str(key), str(), int(count), None):
            return _Stored(dtype, key, count)
    raise Refused("is not described as one")


# --- from what a file has to networks ---------------------------------------------------------------------------------


@dataclass
class _Tree:
    """Walks over the values of a file, which may contain each other, or themselves."""

    names_left: int = _MOST_NAMES

    def network(self, network: _Object) -> ReadNetwork:
        tensors: dict[str, Tensor] = {}
        parameters: set[str] = set()
        for name, value in self._tensors(network, "", 0):
            if name in tensors:
                raise Refused(f"has the tensor {shown(name)} twice in a network")
            if isinstance(value, _Parameter):
                parameters.add(name)
            tensors[name] = value.tensor if isinstance(value, _Parameter) else value
        args, kwargs = (network.state.get(name) for name in ("_init_args", "_init_kwargs"))
        if type(args) is not tuple or type(kwargs) is not dict:
            raise Refused("has a network without what its class was called with (_init_args, _init_kwargs)")
        return ReadNetwork(
            network.class_name, self._plain(args, 0), self._plain(kwargs, 0), tensors, frozenset(parameters)
        )

    def _tensors(self, module: _Object, prefix: str, depth: int) -> Iterator[tuple[str, _Parameter | Tensor]]:
        """In the order of a state_dict: parameters, buffers, then the modules inside."""
        self._check_depth(depth)
        state = module.state
        parameters, buffers, modules = (state.get(name) for name in ("_parameters", "_buffers", "_modules"))
        transient = state.get("_non_persistent_buffers_set", set())  # torch before 1.6 has none
        if not (type(parameters) is type(buffers) is type(modules) is dict and type(transient) is set):
            raise Refused("has a network that is not a module of torch")
        for held, kind in ((parameters, _Parameter), (buffers, Tensor)):
            for name, value in held.items():
                self._check_name(name)
                if not isinstance(value, kind | None):
                    raise Refused(f"has something else than a tensor of its kind as {shown(prefix + name)}")
                if value is not None and not (held is buffers and name in transient):
                    yield prefix + name, value
        for name, inside in modules.items():
            self._check_name(name)
            if not isinstance(inside, _Object | None):
                raise Refused(f"has something else than a module as {shown(prefix + name)}")
            if inside is not None:
                yield from self._tensors(inside, f"{prefix}{name}.", depth + 1)

    def _plain(self, value: Any, depth: int) -> Any:
        """A copy, of plain values alone."""
        self._check_depth(depth)
        self._count()
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) in (list, tuple):
            return type(value)(self._plain(member, depth + 1) for member in value)
        if type(value) is dict:
            return {key: self._plain(member, depth + 1) for key, member in value.items()}
        raise Refused("has a network whose settings are not plain values")

    def _check_depth(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise Refused(f"has parts more than {_DEEPEST} deep in each other, or in themselves")

    def _check_name(self, name: str) -> None:
        self._count()
        if not _PART.fullmatch(name):
            raise Refused(f"has a part named {shown(name)}, which is no name of one")

    def _count(self) -> None:
        self.names_left -= 1
        if self.names_left < 0:
            raise Refused(f"has more than {_MOST_NAMES:,} tensors, parts and settings")
