"""Pretrained parts: the mark of arguments that take one, and state dicts without their weights.

    autoencoder: Annotated[HasLatent, FROM_ELSEWHERE]

says that a user may type where the argument was trained, ``model.autoencoder=outputs/...``, instead of describing it.
Such a part is frozen. Its weights are in a file beside the checkpoints of the run, named by its hash, and
not in them: a checkpoint holds only what the run has trained.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from genlab.model.renamed_weights import renamed
from genlab.model.spectral_norm import renew_singular_vectors

T = TypeVar("T")


class FromElsewhere:
    """A mark in the annotation of a constructor argument."""


FROM_ELSEWHERE = FromElsewhere()


def leave_state_dict(part: nn.Module) -> None:
    """From now on, the state dict of a module that holds ``part`` does not contain the part's weights, and is loaded
    without them. If such a state dict contains them, as earlier checkpoints do, they are ignored. The
    part's own state dict is complete."""
    part.register_state_dict_post_hook(_leave_out)
    part.register_load_state_dict_pre_hook(_pass_over)
    part.register_load_state_dict_post_hook(_do_not_miss)


def _leave_out(part: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if prefix and name.startswith(prefix)]:
        del state[name]


def _pass_over(part: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    part.prefix_in_whole = prefix  # for the hook that comes after it
    for name in [name for name in state if prefix and name.startswith(prefix)]:
        del state[name]


def _do_not_miss(part: Any, incompatible: Any) -> None:
    prefix = part.prefix_in_whole
    if prefix:
        incompatible.missing_keys[:] = [n for n in incompatible.missing_keys if not n.startswith(prefix)]


def leave_shared(network: nn.Module, shared: Collection[str]) -> None:
    """From now on, the state dict of ``network`` does not contain the tensors of these names, which are another's too,
    and is loaded without them."""
    network.register_state_dict_post_hook(partial(_leave_out_shared, shared))
    network.register_load_state_dict_pre_hook(partial(_pass_over_shared, shared))
    network.register_load_state_dict_post_hook(partial(_do_not_miss_shared, shared))


def _leave_out_shared(shared: Collection[str], part: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in shared:
        state.pop(f"{prefix}{name}", None)


def _pass_over_shared(shared: Collection[str], part: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    part.prefix_in_whole = prefix
    for name in shared:
        state.pop(f"{prefix}{name}", None)


def _do_not_miss_shared(shared: Collection[str], part: Any, incompatible: Any) -> None:
    names = {f"{part.prefix_in_whole}{name}" for name in shared}
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if name not in names]


def prefixes(model: nn.Module, parts: Iterable[nn.Module]) -> tuple[str, ...]:
    """The prefixes of the weights of ``parts`` in the state dict of ``model``, whose networks are made."""
    wanted = list(parts)
    return tuple(f"{name}." for name, module in model.named_modules() if any(module is part for part in wanted))


def own_weights(model: nn.Module, state: Mapping[str, T]) -> dict[str, T]:
    """``state`` without the weights of parts that ``model`` has from elsewhere, which earlier checkpoints hold."""
    beginnings = prefixes(model, getattr(model, "elsewhere", {}).values())
    return {name: value for name, value in state.items() if not name.startswith(beginnings)}


def copied(copies: Mapping[str, str], weights: Mapping[str, T]) -> dict[str, T]:
    """Those of ``weights`` that ``copies`` (``Model.copies``) says are copied, by the names of the copies."""
    return {
        f"{copy}{name.removeprefix(of)}": value
        for copy, of in copies.items()
        for name, value in weights.items()
        if name.startswith(of)
    }


def misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """The first tensor that ``own`` and ``weights`` do not share, in a few words; None: they fit."""
    for name in [*own, *weights]:
        if name not in own:
            return f"{name} has no place"
        if name not in weights:
            return f"{name} is missing"
        if own[name].shape != weights[name].shape:
            return f"{name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} here"
    return None


def put_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load ``weights``, all or some of the state dict of ``module``, averages perhaps, and make spectral norms exact.

    Raises ValueError: a tensor has no place, or another shape.
    """
    own = module.state_dict()
    found = renamed(weights, own)
    wrong = misfit({name: own[name] for name in found if name in own}, found)
    if wrong is not None:
        raise ValueError(wrong)
    module.load_state_dict({**own, **{name: _placed(value, own[name]) for name, value in found.items()}})
    renew_singular_vectors(module)


def _placed(value: Tensor, own: Tensor) -> Tensor:
    """``value``, and where ``own`` is sharded, sharded likewise."""
    if isinstance(own, DTensor):
        return distribute_tensor(value.to(own.device, own.dtype), own.device_mesh, own.placements)
    return value
