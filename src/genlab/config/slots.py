"""Checks whether a class fits a slot: the annotation of the constructor argument that it is passed to.

A slot that is a protocol or a base class of genlab's takes every class that has its members: such a class was written
for the place. A slot that is a class of a library (e.g. ``nn.Module``) says nothing about what constructors of its
subclasses do, some of which read pickles or open connections. It takes genlab's own, the user's
(:mod:`genlab.trust.places`), and what :data:`ADMITTED` lists. A slot without a type (``Any``, no annotation) takes no
class.
"""

import dis
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Union, get_args, get_origin

from genlab.config.annotation import describe
from genlab.trust.places import is_users

# Any, object, Path, Callable ...: arguments with these annotations cannot hold a target.
_NO_SLOT = ("builtins", "typing", "collections.abc", "pathlib")
_ANY = "*"
_ACTIVATIONS = ("CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
                "LogSigmoid", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus",
                "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold")  # fmt: skip

# What a protocol is for, where its name does not say why a class misfits.
_WHY = {
    "genlab.model.parts.PredictionGuidance": " Tokens and flows have no noise levels and no denoiser: none of these "
    "guides them.",
}
# What a slot that is a library's class takes beside genlab's own and the user's: classes, packages (with a dot at the
# end), or any installed class, which a command line may name and an untrusted run may not
# (genlab.trust.strangers).
ADMITTED: dict[str, tuple[str, ...]] = {
    "torch.nn.modules.module.Module": (
        *(f"torch.nn.modules.activation.{name}" for name in _ACTIVATIONS),
        "torch.nn.modules.normalization.LayerNorm",
        "torch.nn.modules.normalization.RMSNorm",
        "torch.nn.modules.linear.Identity",
    ),
    # A slot may name the activations that it takes.
    **{f"torch.nn.modules.activation.{name}": (f"torch.nn.modules.activation.{name}",) for name in _ACTIVATIONS},
    "torch.optim.optimizer.Optimizer": ("torch.optim.", "bitsandbytes.optim.", "torchao.optim."),
    "torchmetrics.metric.Metric": (),
    "pytorch_lightning.trainer.trainer.Trainer": ("pytorch_lightning.trainer.trainer.Trainer",),
    "pytorch_lightning.callbacks.callback.Callback": (_ANY,),
    "pytorch_lightning.loggers.logger.Logger": (_ANY,),
    "pytorch_lightning.profilers.profiler.Profiler": (_ANY,),
    "pytorch_lightning.strategies.strategy.Strategy": (_ANY,),
    "optuna.samplers._base.BaseSampler": ("optuna.samplers.",),
    "optuna.pruners._base.BasePruner": ("optuna.pruners.",),
}


def fits(target: type, slot: Any, partial: bool) -> bool:
    """Whether a class may stand in a slot; ``partial``: as a factory, for a slot that is called later."""
    origin = get_origin(slot)
    if origin in (Union, types.UnionType):
        return any(fits(target, option, partial) for option in get_args(slot))
    if origin is Callable:
        _, made = get_args(slot) or (None, Any)
        return partial and fits(target, made, partial=False)
    if partial or not inspect.isclass(slot) or slot.__module__ in _NO_SLOT:
        return False
    if is_protocol(slot):
        methods, attributes = protocol_methods(slot), _protocol_attributes(slot)
        return (
            bool(methods or attributes)
            and all(_has_method(target, slot, name) for name in methods)
            and all(_has_attribute(target, name) for name in attributes)
        )
    return issubclass(target, slot) and (_is_genlabs(slot) or is_admitted(target, slot))


def is_admitted(target: type, slot: type) -> bool:
    """Whether a slot that is a library's class takes ``target``, which is that or a subclass."""
    listed = ADMITTED.get(full_name(slot), ())
    name = full_name(target)
    return (
        (target is slot and any(name in others for others in ADMITTED.values()))  # an activation by its own name
        or _is_genlabs(target)
        or any(entry in (_ANY, name) or (entry.endswith(".") and name.startswith(entry)) for entry in listed)
        or is_users(target.__module__)
    )


def full_name(target: type) -> str:
    """The module and name where a class is defined, even if it was found elsewhere."""
    return f"{target.__module__}.{target.__qualname__}"


def _is_genlabs(target: type) -> bool:
    return target.__module__.partition(".")[0] == "genlab"


# --- protocols --------------------------------------------------------------------------------------------------------


def is_protocol(slot: Any) -> bool:
    return inspect.isclass(slot) and bool(getattr(slot, "_is_protocol", False))


def _layers(protocol: type) -> Iterator[type]:
    """A protocol and those that it inherits from."""
    return (base for base in protocol.__mro__ if is_protocol(base) and base is not Protocol)


def protocol_methods(protocol: type) -> list[str]:
    skipped = {"__init__", "__subclasshook__"}
    found = (name for base in _layers(protocol) for name, value in vars(base).items() if inspect.isfunction(value))
    return [name for name in dict.fromkeys(found) if name not in skipped]


def _protocol_attributes(protocol: type) -> list[str]:
    """Attributes that instances must have: annotated without a default value, or a property."""
    found: dict[str, None] = {}
    for base in _layers(protocol):
        found |= dict.fromkeys(name for name in _annotations(base) if name not in vars(base))
        found |= dict.fromkeys(name for name, value in vars(base).items() if isinstance(value, property))
    return list(found)


def _has_method(target: type, protocol: type, name: str) -> bool:
    """Whether ``target`` has the method with the protocol's parameter names; more are fine if they have defaults."""
    try:
        method = getattr(target, name, None)
    except Exception:  # a stand-in for a class whose package is missing raises whenever it is looked at
        return False
    if not inspect.isfunction(method):
        return False
    wanted = list(inspect.signature(getattr(protocol, name)).parameters)
    offered = inspect.signature(method).parameters
    rest = list(offered.values())[len(wanted) :]
    return list(offered)[: len(wanted)] == wanted and all(p.default is not p.empty for p in rest)


def _has_attribute(target: type, name: str) -> bool:
    """Whether objects of ``target`` have an attribute, as far as the class can tell: it defines or annotates it,
    sets it in a method, or registers it as a buffer."""
    if any(name in vars(base) for base in target.__mro__):
        return True
    for base in target.__mro__:
        if name in _annotations(base):
            return True
        functions = map(inspect.unwrap, filter(inspect.isfunction, vars(base).values()))
        if any(_sets(function.__code__, name) for function in functions if inspect.isfunction(function)):
            return True
    return False


def _annotations(kind: type) -> dict[str, Any]:
    """Those of the class's own body; a class of C has a descriptor in their place."""
    found = vars(kind).get("__annotations__")
    return found if isinstance(found, dict) else {}


def _sets(code: types.CodeType, name: str) -> bool:
    if name not in code.co_names and name not in code.co_consts:
        return False
    used = {(found.opname, found.argval) for found in dis.get_instructions(code)}
    return ("STORE_ATTR", name) in used or {("LOAD_CONST", name), ("LOAD_METHOD", "register_buffer")} <= used


def needs(slot: Any) -> str:
    """A sentence on what a slot takes."""
    if get_origin(slot) is Callable:
        return needs((get_args(slot) or (None, Any))[1])
    if get_origin(slot) in (Union, types.UnionType):
        options = [option for option in get_args(slot) if option is not types.NoneType]
        if len(options) == 1:
            return needs(options[0])
    if is_protocol(slot):
        methods = [
            f"{name}({', '.join(list(inspect.signature(getattr(slot, name)).parameters)[1:])})"
            for name in protocol_methods(slot)
        ]
        has = " and ".join([*methods, *_protocol_attributes(slot)])
        return f"This place needs a {slot.__name__}, which has {has}.{_WHY.get(full_name(slot), '')}"
    if inspect.isclass(slot) and slot not in (int, float, str, bool):
        return f"This place needs a {slot.__name__}."
    return f"This place needs {describe(slot)}."


def why_not_admitted(target: type, slot: Any) -> str | None:
    """The reason for refusing a class that fits a slot but is not listed."""
    origin = get_origin(slot)
    options = get_args(slot) if origin in (Union, types.UnionType) else [slot]
    for option in options:
        made = (get_args(option) or (None, Any))[1] if get_origin(option) is Callable else option
        if not inspect.isclass(made) or made.__module__ in _NO_SLOT or is_protocol(made) or _is_genlabs(made):
            continue
        if issubclass(target, made) and not is_admitted(target, made):
            return (
                f"is a {made.__name__}, but not one that a config may create, since its constructor may have side "
                "effects. Create it in a class of your own project, and name that (see docs/security.md)."
            )
    return None
