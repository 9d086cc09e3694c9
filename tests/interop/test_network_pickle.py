"""Network pickles are read number by number, and whatever else is in such a file is not run.

The files are made with stand-ins for the modules that such files name. The constructor among them runs the source that
it is given, as theirs does, and that leaves a file behind.
"""

import collections
import contextlib
import functools
import io
import os
import pickle
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genlab.errors import CheckpointError
from genlab.interop import network_pickle
from genlab.interop.network_pickle import ReadNetwork, read_networks

CANARY = "executed"
SOURCE = f"open({CANARY!r}, 'w').close()"


class EasyDict(dict[str, Any]):
    """A dict of another module."""


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> dict[str, Any]:
    exec(meta["module_src"])
    return meta


def stand_in(member: Any, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    member.__module__, member.__qualname__ = name, member.__name__
    setattr(module, member.__name__, member)
    return module


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for member, name in ((EasyDict, "dnnlib.util"), (_reconstruct_persistent_obj, "torch_utils.persistence")):
        monkeypatch.setattr(member, "__module__", member.__module__)
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))
        monkeypatch.setitem(sys.modules, name, stand_in(member, name))


class Call:
    """Saved as the call of a function, with a state that it is given afterwards."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None):
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced

    def __call__(self) -> None:
        """As what another call calls."""


class Named(nn.Module):
    """Saved as those files save a network: a call of the constructor, with source, a name and a state."""

    def __init__(self, class_name: str, *args: Any, **kwargs: Any):
        super().__init__()
        self.class_name, self._init_args, self._init_kwargs = class_name, args, kwargs

    def __reduce__(self) -> Any:
        state = {name: value for name, value in self.__dict__.items() if name != "class_name"}
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.class_name, "state": state}
        return _reconstruct_persistent_obj, (meta,), None, None, None


class Generator(Named):
    def __init__(self, c_dim: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__("Generator", z_dim=4, c_dim=c_dim, mapping_kwargs=EasyDict(num_layers=np.int64(2), gain=0.5))
        stream = torch.Generator().manual_seed(c_dim)
        self.weight = nn.Parameter(torch.randn(3, 4, 1, generator=stream).to(dtype))
        self.scale = nn.Parameter(torch.randn([], generator=stream).to(dtype))
        self.gain = np.sqrt(2)  # of numpy, as gains are in these files
        self.register_parameter("bias", None)
        self.register_buffer("average", torch.randn(5, generator=stream).to(dtype))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.mapping = Named("MappingNetwork")
        self.mapping.embed = nn.Parameter(torch.randn(c_dim, 4, generator=stream))
        self.mapping.register_buffer("counted", torch.tensor([7]))


class Sparse(Named):
    """Parameters that are saved as these: views, numbers of their own."""

    def __init__(self, **saved: Any):
        super().__init__("Generator")
        self._buffers.update(saved)


def content(**more: Any) -> dict[str, Any]:
    return {
        "training_set_kwargs": EasyDict(path="faces.zip", max_size=None),
        "G": Generator(),
        "D": Named("Discriminator", 8, channels=[1, (2, None)], name="resnet", on=True),
        "G_ema": Generator(c_dim=3),
        "augment_pipe": None,
        **more,
    }


def read(saved: Any, protocol: int = 4) -> dict[str, ReadNetwork]:
    Path("a.pkl").write_bytes(saved if isinstance(saved, bytes) else pickle.dumps(saved, protocol))
    return read_networks(Path("a.pkl"))


def refused(saved: Any, cause: str) -> str:
    with pytest.raises(CheckpointError, match=cause) as caught:
        read(saved)
    said = str(caught.value)
    assert said.startswith("a.pkl ")
    assert said.isprintable()
    assert len(said) < 400
    assert not Path(CANARY).exists()
    return said


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_networks_are_read_as_their_state_dict(protocol: int) -> None:
    saved = content()
    found = read(saved, protocol)
    assert list(found) == ["G", "D", "G_ema"]
    for name, network in found.items():
        expected = saved[name].state_dict()
        assert network.class_name == saved[name].class_name
        assert list(network.tensors) == list(expected)
        for key, tensor in network.tensors.items():
            assert tensor.dtype is expected[key].dtype
            assert torch.equal(tensor, expected[key])
            assert type(tensor) is Tensor
            assert not tensor.requires_grad
        assert network.parameters == {key for key, _ in saved[name].named_parameters()}
    assert list(found["G"].tensors) == ["weight", "scale", "average", "mapping.embed", "mapping.counted"]
    assert not Path(CANARY).exists()


def test_settings_are_plain_values() -> None:
    found = read(content())
    assert found["G_ema"].init_kwargs == {"z_dim": 4, "c_dim": 3, "mapping_kwargs": {"num_layers": 2, "gain": 0.5}}
    settings = found["G_ema"].init_kwargs["mapping_kwargs"]
    assert type(settings) is dict
    assert type(settings["num_layers"]) is int
    assert found["D"].init_args == (8,)
    assert found["D"].init_kwargs == {"channels": [1, (2, None)], "name": "resnet", "on": True}


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(-0.25), np.float16(2), np.int32(-7), np.bool_(True)])
def test_numbers_of_numpy_become_python_s(number: Any) -> None:
    (value,) = read(content(G=Named("Generator", number)))["G"].init_args
    assert value == number
    assert type(value) is type(number.item())


def replaced(saved: bytes, old: bytes, new: bytes) -> bytes:
    assert old in saved
    return saved.replace(old, new)


def test_numbers_that_numpy_1_wrote_are_read() -> None:
    saved = pickle.dumps(content(G=Named("Generator", np.float64(1.5))), 3)
    saved = replaced(saved, b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert read(saved)["G"].init_args == (1.5,)
    assert read(replaced(saved, b"\x89\x88\x87", b"K\x00K\x01\x87"))["G"].init_args == (1.5,)  # before its bools


def test_what_earlier_versions_of_torch_wrote_is_read() -> None:
    """Ordered dicts, no set of buffers that are not saved, and weights that were on a GPU."""
    held = {
        "_parameters": collections.OrderedDict(b=nn.Parameter(torch.ones(2)), a=nn.Parameter(torch.zeros(3))),
        "_buffers": collections.OrderedDict(),
        "_modules": collections.OrderedDict(fc=Generator()),
    }
    inner = replaced(saved_storage(torch.ones(2)), b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    held["_buffers"]["c"] = Call(torch._utils._rebuild_tensor_v2, loaded(inner), 0, (2,), (1,), False, none())
    found = read(content(G=with_state(**held)))["G"]
    assert list(found.tensors)[:4] == ["b", "a", "c", "fc.weight"]
    assert found.tensors["c"].tolist() == [1, 1]
    assert found.parameters >= {"a", "b", "fc.weight"}


def test_the_augmentation_is_read_too() -> None:
    pipe = Named("AugmentPipe", xflip=1)
    pipe.register_buffer("p", torch.tensor(0.25))
    found = read(content(augment_pipe=pipe))
    assert found["augment_pipe"].init_kwargs == {"xflip": 1}
    assert found["augment_pipe"].tensors["p"].item() == 0.25


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8]
)
def test_kinds_of_numbers(dtype: torch.dtype) -> None:
    numbers = torch.tensor([[0, 1], [2, 250]]).to(dtype)
    found = read(content(G=Sparse(a=numbers)))["G"].tensors["a"]
    assert found.dtype is dtype
    assert torch.equal(found, numbers)


def views() -> dict[str, Tensor]:
    numbers = torch.arange(24.0)
    return {
        "whole": numbers,
        "part": numbers[5:9],
        "turned": numbers.view(4, 6).T,
        "spread": numbers[::7],
        "repeated": numbers[3:5].expand(3, 2),
        "single": numbers[23],
        "none": numbers[:0].view(0, 3),
        "none_of_many": torch.empty(10**5, 0, 3),
        "channels_last": numbers.view(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "odd_strides": numbers.as_strided((1, 2), (17, 1), 4),
    }


def test_views_are_copied_with_memory_of_their_own() -> None:
    expected = views()
    found = read(content(G=Sparse(**expected)))["G"].tensors
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name])
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4
    assert found["odd_strides"].stride() == (2, 1)
    found["whole"].zero_()
    assert torch.equal(found["part"], expected["part"])


def test_a_storage_that_several_tensors_share_is_read() -> None:
    shared = Call(torch.storage._load_from_bytes, saved_storage(torch.arange(6.0)))
    first, other = (Call(torch._utils._rebuild_tensor_v2, shared, n, (2,), (2,), False, none()) for n in (0, 3))
    found = read(content(G=Sparse(a=first, b=other, c=first)))["G"].tensors
    assert found["a"].tolist() == [0, 2]
    assert found["b"].tolist() == [3, 5]
    assert found["c"] is found["a"]


def test_a_path_that_is_a_link_is_followed() -> None:
    Path("real.pkl").write_bytes(pickle.dumps(content()))
    Path("link.pkl").symlink_to("real.pkl")
    assert list(read_networks(Path("link.pkl"))) == ["G", "D", "G_ema"]


def test_a_file_without_one_of_the_networks() -> None:
    assert list(read({"G": None, "G_ema": Generator()})) == ["G_ema"]


# --- what is refused --------------------------------------------------------------------------------------------------


def none() -> Any:
    return collections.OrderedDict()


def saved_storage(numbers: Tensor, **kwargs: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(numbers._typed_storage(), stream, _use_new_zipfile_serialization=False, **kwargs)
    return stream.getvalue()


def loaded(inner: bytes) -> Call:
    return Call(torch.storage._load_from_bytes, inner)


def tensor(size: Any = (2,), stride: Any = (1,), offset: Any = 0, *more: Any) -> Call:
    """A tensor over a storage of two numbers."""
    storage = loaded(saved_storage(torch.ones(2)))
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, none(), *more)


def dtype(*state: Any) -> Call:
    return Call(np.dtype, "f8", False, True, state=state)


def torch_file(value: Any, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def described(**changed: Any) -> Call:
    meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Generator", "state": {}, **changed}
    return Call(_reconstruct_persistent_obj, meta)


def with_state(**changed: Any) -> Call:
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_args": (), "_init_kwargs": {}, **changed}
    return described(state=state)


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def ending(*opcodes: bytes) -> bytes:
    """A file that has the value that these make beside its networks, the last of its values."""
    return pickle.dumps(content(), 3).removesuffix(b"u.") + text("more") + b"".join(opcodes) + b"u."


def put(place: int) -> bytes:
    return b"r" + struct.pack("<I", place)


def get(place: int) -> bytes:
    return b"j" + struct.pack("<I", place)


def itself() -> Any:
    values: list[Any] = []
    values.append(values)
    return values


def inside_itself() -> Any:
    state: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_init_args": (), "_init_kwargs": {}}
    state["_modules"] = {"again": described(state=state)}
    return described(state=state)


TOUCH = f"touch {CANARY}"
RUN = f"open({CANARY!r}, 'w').close()"
PICKLED = pickle.dumps(Call(os.system, TOUCH), 2)
EXECUTES: dict[str, tuple[Callable[[], Any], str]] = {  # where Python's own unpickler reads them
    "os.system": (lambda: Call(os.system, TOUCH), "names 'posix.system'"),
    "eval": (lambda: Call(eval, RUN), "names 'builtins.eval'"),
    "exec": (lambda: Call(exec, RUN), "names 'builtins.exec'"),
    "open": (lambda: Call(open, CANARY, "w"), r"names '_?io.open'"),
    "getattr": (lambda: Call(Call(getattr, Call(__import__, "os"), "system"), TOUCH), "'builtins.getattr'"),
    "partial": (lambda: Call(functools.partial(os.system, TOUCH)), "names 'functools.partial'"),
    "map": (lambda: Call(list, Call(map, os.system, [TOUCH])), "names 'builtins.list'"),
    "pickle.loads": (lambda: Call(pickle.loads, PICKLED), "names '_pickle.loads'"),
    "torch.load": (lambda: Call(torch.load, Call(io.BytesIO, torch_file(Call(os.system, TOUCH), True)), None, None),
                   "names 'torch.serialization.load'"),
    "source": (lambda: described(), "is not a module of torch"),
    "pickle in a storage": (lambda: loaded(PICKLED), "names 'posix.system'"),
    "torch file in a storage": (lambda: loaded(torch_file(Call(os.system, TOUCH), False)), "names 'posix.system'"),
    "zip file in a storage": (lambda: loaded(torch_file(Call(os.system, TOUCH), True)), "a storage that is damaged"),
    "in a state": (lambda: with_state(other=Call(os.system, TOUCH)), "names 'posix.system'"),
    "in a hook": (lambda: with_state(_forward_hooks={"0": Call(os.system, TOUCH)}), "names 'posix.system'"),
    "as a key": (lambda: {Call(os.system, TOUCH): 1}, "names 'posix.system'"),
    "as a description": (lambda: Call(_reconstruct_persistent_obj, Call(os.system, TOUCH)), "names 'posix.system'"),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("name", sorted(EXECUTES))
def test_code_in_a_file_is_not_run(name: str, protocol: int) -> None:
    make, cause = EXECUTES[name]
    hostile = pickle.dumps(content(D=make()), protocol)
    refused(hostile, cause)
    with contextlib.suppress(Exception):
        pickle.loads(hostile)
    assert Path(CANARY).exists()  # the file is one that is run elsewhere


CALLS: dict[str, tuple[Callable[[], Any], str]] = {  # allowed names, with what they never have
    "no arguments": (lambda: Call(torch._utils._rebuild_tensor_v2), "a tensor that is not described as one"),
    "more arguments": (lambda: tensor((2,), (1,), 0, {}, None), "a tensor that is not described as one"),
    "tensor of bytes": (lambda: Call(torch._utils._rebuild_tensor_v2, b"", 0, (), (), False, none()), "described"),
    "offset beyond": (lambda: tensor(offset=1), "reaches beyond its storage"),
    "shape beyond": (lambda: tensor((3,)), "reaches beyond its storage"),
    "stride beyond": (lambda: tensor((2,), (2,)), "reaches beyond its storage"),
    "negative offset": (lambda: tensor((1,), (1,), -1), "out of range"),
    "negative size": (lambda: tensor((-1,)), "out of range"),
    "negative stride": (lambda: tensor((2,), (-1,)), "out of range"),
    "size that wraps around": (lambda: tensor((1 << 64,), (0,)), "out of range"),
    "huge offset of nothing": (lambda: tensor((0,), (1,), 1 << 39), "reaches beyond its storage"),
    "size of text": (lambda: tensor(("2",)), "out of range"),
    "size of bool": (lambda: tensor((True,)), "out of range"),
    "size as list": (lambda: tensor([2]), "a tensor that is not described as one"),
    "strides of another number": (lambda: tensor((1, 1)), "2 dimensions with 1 strides"),
    "many dimensions": (lambda: tensor((1,) * 100, (1,) * 100), "100 dimensions"),
    "repeated without end": (lambda: tensor((1 << 20, 1 << 20), (0, 0)), "larger than the file"),
    "larger than all memory": (lambda: tensor((1 << 30, 1 << 30), (0, 0)), "out of range"),
    "nothing, many times": (lambda: tensor((0, 1 << 39, 1 << 39), (0, 0, 0)), "out of range"),
    "many small ones": (lambda: with_state(_buffers={str(n): tensor((999,), (0,)) for n in range(99)}), "larger than"),
    "hooks": (lambda: Call(torch._utils._rebuild_parameter, tensor(), True, [1]), "a parameter that is not descri"),
    "parameter of text": (lambda: Call(torch._utils._rebuild_parameter, "a", True, none()), "a parameter that is"),
    "storage of text": (lambda: loaded("storage"), "a storage that is not described"),  # type: ignore[arg-type]
    "empty storage": (lambda: loaded(b""), "a storage that is damaged"),
    "cut storage": (lambda: loaded(saved_storage(torch.ones(9))[:-1]), "more or fewer numbers than it holds"),
    "longer storage": (lambda: loaded(saved_storage(torch.ones(9)) + b"0"), "more or fewer numbers than it holds"),
    "storage that claims more": (lambda: loaded(claims(1 << 40)), "more or fewer numbers than it holds"),
    "storage that claims less than none": (lambda: loaded(claims(-1)), "more or fewer numbers than it holds"),
    "storage of two counts": (lambda: loaded(replaced(saved_storage(torch.ones(2)), b"K\x02N", b"K\x03N")), "claims"),
    "another file of torch": (lambda: loaded(replaced(saved_storage(torch.ones(2)), b"M\xe9\x03.", b"M\xe8\x03.")),
                              "a storage that is not one of torch.save"),
    "big-endian storage": (lambda: loaded(replaced(saved_storage(torch.ones(2)), b"little_endianq\x02\x88",
                           b"little_endianq\x02\x89")), "not one of torch.save, little-endian"),
    "storage of another kind": (lambda: loaded(replaced(saved_storage(torch.ones(2)), b"FloatStorage", b"QInt8")),
                                "names 'torch.QInt8'"),
    "another key": (lambda: loaded(cut_key(saved_storage(torch.ones(2)))), "a storage that is not one of torch.save"),
    "tensor saved in a storage": (lambda: loaded(torch_file(torch.ones(2), False)), "names 'torch._utils._rebuild_ten"),
    "header without end": (lambda: loaded(saved_storage(torch.ones(2))[:140] + text("a" * 9999)), "is damaged"),
    "long dict": (lambda: Call(collections.OrderedDict, [("a", 1)]), "makes a dict of what is not in it"),
    "set of numbers": (lambda: Call(set, [1]), "a set of what is not a text"),
    "set of a text": (lambda: Call(set, "ab"), "a set that is not described"),
    "state of a dict": (lambda: Call(collections.OrderedDict, state={"keys": 1}), "sets the state of something"),
    "state of a network": (lambda: Call(_reconstruct_persistent_obj, {"type": "class", "version": 6, "module_src": "",
                           "class_name": "A", "state": {}}, state={"__class__": "a"}), "has the key '__class__'"),
    "dtype with fields": (lambda: Named("A", np.void(b"abcd")), "a dtype of numpy that"),
    "dtype of objects": (lambda: Call(np.dtype, "O8", False, True), "a dtype of numpy that"),
    "aligned dtype": (lambda: dtype(3, "<", None, None, None, 8, 8, 63), "a dtype of numpy that"),
    "dtype with names": (lambda: dtype(3, "<", None, ("a",), {}, -1, -1, 0), "a dtype of numpy that"),
    "state of tensors": (lambda: dtype(tensor(), "<", None, None, None, -1, -1, 0), "a dtype of numpy that"),
    "big-endian dtype": (lambda: dtype(3, ">", None, None, None, -1, -1, 0), "a dtype of numpy that"),
    "array": (lambda: Named("A", np.ones(3)), r"names 'numpy._core.(multiarray._reconstruct|numeric._frombuffer)'"),
    "short number": (lambda: Call(np.float64(1).__reduce__()[0], np.dtype("f8"), b"1"), "a number of numpy that"),
    "another type": (lambda: described(type="function"), "an object that is not described"),
    "type of a tensor": (lambda: described(type=tensor()), "an object that is not described"),
    "another version": (lambda: described(version=7), "an object of version 7; 6 alone is known"),
    "source of bytes": (lambda: described(module_src=b""), "an object that is not described"),
    "class by attributes": (lambda: described(class_name="Generator.__init__"), "which is no name of a class"),
    "class with an escape": (lambda: described(class_name="\x1b[2J"), r"class '\\x1b\[2J', which is no name"),
    "long class": (lambda: described(class_name="a" * 10**6), r"class 'a{80}\.\.\.', which is no name"),
    "state of text": (lambda: described(state="_parameters"), "an object that is not described"),
    "no description": (lambda: Call(_reconstruct_persistent_obj, [1]), "an object that is not described"),
    "two descriptions": (lambda: Call(_reconstruct_persistent_obj, {}, {}), "an object that is not described"),
    "class as a key": (lambda: {"__class__": 1}, "has the key '__class__'"),
    "dict as a key": (lambda: EasyDict(__dict__={}), "has the key '__dict__'"),
    "number as a key": (lambda: {1: 2}, "a key that is not a text"),
}  # fmt: skip


def cut_key(inner: bytes) -> bytes:
    """With another number as the key of the storage in the list of keys."""
    at = inner.rindex(b"q\x01a.") - 1
    return inner[:at] + (b"1" if inner[at : at + 1] == b"0" else b"0") + inner[at + 1 :]


def claims(count: int) -> bytes:
    """A storage of two numbers that says it has another number of them, both times."""
    inner = saved_storage(torch.ones(2))
    said = b"\x8a\x06" + count.to_bytes(6, "little", signed=True)
    return inner.replace(b"K\x02N", said + b"N").replace(struct.pack("<q2f", 2, 1, 1), struct.pack("<q2f", count, 1, 1))


@pytest.mark.parametrize("name", sorted(CALLS))
def test_known_names_with_what_they_never_have(name: str) -> None:
    make, cause = CALLS[name]
    refused(content(training_set_kwargs=make()), cause)


NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {  # what is only seen when all has been read
    "tensor that is no parameter": (lambda: with_state(_parameters={"a": tensor()}), "tensor of its kind as 'a'"),
    "buffer that is a text": (lambda: with_state(_buffers={"a": "b"}), "tensor of its kind as 'a'"),
    "module that is a dict": (lambda: with_state(_modules={"a": {}}), "something else than a module as 'a'"),
    "modules that are a list": (lambda: with_state(_modules=[]), "is not a module of torch"),
    "names as a list": (lambda: with_state(_non_persistent_buffers_set=[]), "is not a module of torch"),
    "name with a dot": (lambda: with_state(_buffers={"a.b": tensor()}), r"a part named 'a\.b'"),
    "name of nothing": (lambda: with_state(_modules={"": Generator()}), "a part named ''"),
    "name with an escape": (lambda: with_state(_buffers={"\x1b]0;a\x07": tensor()}), r"a part named '\\x1b\]0;a\\x07'"),
    "half of a character": (lambda: with_state(_buffers={"\ud800": tensor()}), r"a part named '\\ud800'"),
    "the same name twice": (lambda: with_state(_buffers={"a": tensor()}, _parameters={"a": nn.Parameter(torch.ones(1))
                            }), "the tensor 'a' twice"),
    "no settings": (lambda: with_state(_init_kwargs=None), "without what its class was called with"),
    "tensor as a setting": (lambda: Named("A", a=torch.ones(2)), "settings are not plain values"),
    "network as a setting": (lambda: Named("A", a=Generator()), "settings are not plain values"),
    "function as a setting": (lambda: Named("A", a=_reconstruct_persistent_obj), "settings are not plain values"),
    "bytes as a setting": (lambda: Named("A", a=b"b"), "settings are not plain values"),
    "setting in itself": (lambda: Named("A", itself()), "16 deep in each other, or in themselves"),
    "network in itself": (inside_itself, "16 deep in each other, or in themselves"),
    "deep settings": (lambda: Named("A", repeated([], 17, lambda value: [value])), "16 deep"),
    "settings without end": (lambda: Named("A", repeated([], 15, lambda value: [value] * 9)), "more than 20,000"),
    "networks without end": (lambda: repeated(Named("A"), 15, nine_times), "more than 20,000"),
    "text": (lambda: "Generator", "something else than a network as D"),
    "function": (lambda: _reconstruct_persistent_obj, "something else than a network as D"),
    "parameter": (lambda: nn.Parameter(torch.ones(2)), "something else than a network as D"),
}  # fmt: skip


def nine_times(network: Any) -> Call:
    return with_state(_modules=dict.fromkeys("abcdefghi", network))


def repeated(value: Any, times: int, around: Callable[[Any], Any]) -> Any:
    for _ in range(times):
        value = around(value)
    return value


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_that_are_none(name: str) -> None:
    make, cause = NETWORKS[name]
    refused(content(D=make()), cause)


SYSTEM = b"cposix\nsystem\n"
CALLED = b"(" + text(TOUCH) + b"t"
DICT = b"ccollections\nOrderedDict\n"
OPCODES: dict[str, tuple[bytes, str]] = {  # written by hand
    "INST": (b"(" + text(TOUCH) + b"iposix\nsystem\n", r"\(INST\)"),
    "OBJ": (b"(" + DICT + b"o", r"\(OBJ\)"),
    "OBJ of a name": (b"(" + SYSTEM + text(TOUCH) + b"o", "names 'posix.system'"),
    "NEWOBJ": (DICT + b")\x81", r"calls what cannot be called \(NEWOBJ\)"),
    "NEWOBJ of a text": (text("a") + b")\x81", r"calls what cannot be called \(NEWOBJ\)"),
    "NEWOBJ_EX": (DICT + b")}\x92", r"\(NEWOBJ_EX\)"),
    "REDUCE of a text": (text("os.system") + CALLED + b"R", r"calls what cannot be called \(REDUCE\)"),
    "REDUCE of a class": (b"cdnnlib.util\nEasyDict\n)R", r"calls what cannot be called \(REDUCE\)"),
    "REDUCE of a list": (DICT + b"]R", r"calls what cannot be called \(REDUCE\)"),
    "REDUCE of what is made": (DICT + b")R)R", r"calls what cannot be called \(REDUCE\)"),
    "BUILD of a name": (DICT + b"}b", r"sets the state of something that has none"),
    "BUILD of a dict": (b"}}b", r"sets the state of something that has none"),
    "BUILD with slots": (DICT + b")R" + b"}}" + text("__setstate__") + SYSTEM + b"s\x86b", "names 'posix.system'"),
    "BUILD with a method": (DICT + b")R}" + text("__setstate__") + DICT + b"sb", "has the key '__setstate__'"),
    "EXT1": (b"\x82\x01", r"\(EXT1\)"),
    "EXT2": (b"\x83\x01\x00", r"\(EXT2\)"),
    "EXT4": (b"\x84\x01\x00\x00\x00", r"\(EXT4\)"),
    "PERSID": (b"Pa\n", r"\(PERSID\)"),
    "BINPERSID": (text("a") + b"Q", r"\(BINPERSID\)"),
    "GLOBAL by attributes": (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "names 'torch._utils._rebuild"),
    "GLOBAL of a module": (b"ctorch\n_utils._rebuild_parameter\n", "names 'torch._utils._rebuild_parameter'"),
    "GLOBAL with spaces": (b"ctorch._utils \n_rebuild_tensor_v2\n", "names 'torch._utils. _rebuild_tensor_v2'"),
    "GLOBAL of nothing": (b"c\n\n", "names '.'"),
    "GLOBAL with an escape": (b"cos\n\x1b[2J\n", r"names 'os\.\\x1b\[2J'"),
    "STACK_GLOBAL that turns the text": (text("os") + text("\u202esystem") + b"\x93", r"names 'os\.\\u202esystem'"),
    "long GLOBAL": (b"cos\n" + b"a" * 10**6 + b"\n", r"names 'os\.a+\.\.\.'"),
    "STACK_GLOBAL of parts": (text("posix") + text("system") + b"0\x93", r"\(POP\)"),
    "STACK_GLOBAL from the memo": (b"](" + text("posix") + put(998) + text("system") + put(999) + b"e"
                                   + get(998) + get(999) + b"\x93", "names 'posix.system'"),
    "STACK_GLOBAL of attributes": (text("torch._utils") + text("_rebuild_tensor_v2.__code__") + b"\x93", "names 'tor"),
    "STACK_GLOBAL of bytes": (b"C\x05posixC\x06system\x93", "by what is not a text"),
    "STACK_GLOBAL of a call": (DICT + b")R" + text("system") + b"\x93", "by what is not a text"),
    "another protocol inside": (b"\x80\x04N", "is not a pickle"),
    "LONG4 of 2 GB": (b"\x8b\xff\xff\xff\x7f1", "is damaged"),
    "LONG4": (b"\x8b\x01\x00\x00\x001", r"\(LONG4\)"),
    "negative LONG4": (b"\x8b\xff\xff\xff\xff1", "is damaged"),
    "BINBYTES8 of all memory": (b"\x8e" + b"\xff" * 7 + b"\x7f1", "is damaged"),
    "BINBYTES8 of more": (b"\x8e" + b"\xff" * 8 + b"1", "is damaged"),
    "BINBYTES of 4 GB": (b"B\xff\xff\xff\xff1", "is damaged"),
    "BINUNICODE8 of all memory": (b"\x8d" + b"\xff" * 7 + b"\x7f1", "is damaged"),
    "BYTEARRAY8 of all memory": (b"\x96" + b"\xff" * 7 + b"\x7f1", "is damaged"),
    "INT of many digits": (b"I" + b"9" * 10**5 + b"\n", r"is damaged|\(INT\)"),
    "text that is not UTF-8": (b"X\x01\x00\x00\x00\xff", "is damaged"),
    "far place in the memo": (b"Nr\xff\xff\xff\xff0", r"\(POP\)"),
    "nothing in the memo": (get(10**6), "is damaged"),
    "nothing on the stack": (b"0" * 9, r"\(POP\)"),
    "tuple of nothing": (b"\x87", "is damaged|twice|not a text|not a dict|dict"),
    "mark without values": (b"(", "not a dict|is damaged"),
    "no mark": (b"ttt", "is damaged"),
    "item twice": (b"}" + 2 * (text("a") + b"Ns"), "the key 'a' twice"),
    "items of a list": (b"]" + text("a") + b"Ns", "sets items of what is not a dict"),
    "items of a name": (DICT + text("a") + b"Ns", "sets items of what is not a dict"),
    "half an item": (b"}(" + text("a") + b"u", "sets items of what is not a dict"),
    "list as a key": (b"}]Ns", "a key that is not a text"),
    "member of a dict": (b"}Na", "appends to what is not a list"),
    "members of a list": (b"](N\x90", "adds to what is not a set"),
    "list as a member": (b"\x8f(]\x90", "a set of what is not a text"),
    "frozen set": (b"(" + text("a") + b"\x91", r"\(FROZENSET\)"),
    "unknown instruction": (b"\xff", "is damaged"),
    "buffer elsewhere": (b"\x97", r"\(NEXT_BUFFER\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OPCODES))
def test_instructions_that_no_network_needs(name: str) -> None:
    opcodes, cause = OPCODES[name]
    refused(ending(opcodes), cause)


KINDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"hello world", "is not a pickle"),
    "first protocols": (lambda: pickle.dumps({"G": 1}, 0), "is not a pickle"),
    "protocol 1": (lambda: pickle.dumps({"G": 1}, 1), "is not a pickle"),
    "protocol 2": (lambda: pickle.dumps(content(), 2), "is a pickle of protocol 2, and not of 3, 4, 5"),
    "protocol 6": (lambda: b"\x80\x06" + pickle.dumps(content(), 4)[2:], "is a pickle of protocol 6"),
    "protocol 255": (lambda: b"\x80\xff" + pickle.dumps(content(), 4)[2:], "is a pickle of protocol 255"),
    "start of a pickle": (lambda: b"\x80", "is damaged"),
    "nothing but a start": (lambda: b"\x80\x04", "is damaged"),
    "end of nothing": (lambda: b"\x80\x04.", "leaves no single value"),
    "two values": (lambda: b"\x80\x04NN.", "leaves no single value"),
    "a mark that stays": (lambda: b"\x80\x04(N.", "leaves no single value"),
    "more after its end": (lambda: pickle.dumps(content()) + b"N.", "goes on after its end"),
    "a zip file of torch": (lambda: torch_file({"G": torch.ones(2)}, True), "is not a pickle"),
    "a file of torch": (lambda: torch_file({"G": torch.ones(2)}, False), "is a pickle of protocol 2"),
    "numbers": (lambda: pickle.dumps([1, 2], 4), "has none of the networks G, D, G_ema"),
    "another dict": (lambda: pickle.dumps({"ema": Generator()}, 4), "has none of the networks G, D, G_ema"),
    "a dict of nothing": (lambda: pickle.dumps(dict.fromkeys(("G", "D", "G_ema")), 4), "has none of the networks"),
    "a network alone": (lambda: pickle.dumps(Generator(), 4), "has none of the networks G, D, G_ema"),
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_files_of_another_kind(name: str) -> None:
    make, cause = KINDS[name]
    refused(make(), cause)


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    whole = pickle.dumps(content(), 4)
    for length in range(1, len(whole), 397):
        refused(whole[:length], "damaged|more or fewer")


def test_a_file_of_the_tensorflow_era_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network:
        pass

    for name in ("dnnlib", "dnnlib.tflib"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "dnnlib.tflib.network", stand_in(Network, "dnnlib.tflib.network"))
    said = refused(pickle.dumps((Network(), Network(), Network()), 4), "is of the TensorFlow era")
    assert "'dnnlib.tflib.network.Network', which was not executed" in said
    assert "legacy.py" in said
    assert "but runs what is in it" in said


def test_instructions_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_pickle, "_MOST_INSTRUCTIONS", 5000)
    read(content())
    assert list(read(ending(b"(" + b"]" * 1000 + b"t"))) == ["G", "D", "G_ema"]
    refused(ending(b"(" + b"]" * 5000 + b"t"), "more instructions than such a file needs")
    members = b"](" + b"".join(text(str(n)) for n in range(500)) + b"e" + put(999)
    assert list(read(ending(b"(" + members + (b"cbuiltins\nset\n" + get(999) + b"\x85R") * 2 + b"t")))
    refused(ending(b"(" + members + (b"cbuiltins\nset\n" + get(999) + b"\x85R") * 20 + b"t"), "more instructions")


def test_values_may_be_deep_where_nobody_looks() -> None:
    assert list(read(ending(b"]" * 10**4 + b"a" * (10**4 - 1)))) == ["G", "D", "G_ema"]


def test_missing_folders_and_fifos(tmp_path: Path) -> None:
    os.mkfifo("a.pkl")
    for name, cause in (("nowhere.pkl", "is missing"), (".", "is a folder"), ("a.pkl", "is a FIFO")):
        with pytest.raises(CheckpointError, match=cause):
            read_networks(Path(name))
