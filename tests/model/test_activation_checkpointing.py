"""Activation checkpointing changes memory, and nothing that is computed: of every network that there is."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from test_transformer import network as token_network
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from genlab.budget import OperationCounter
from genlab.config.build import build, fits, parameters, resolve
from genlab.config.tree import ConfigTree
from genlab.data.digits import Digits
from genlab.errors import ConfigError
from genlab.model.activation_checkpointing import checkpoint_blocks
from genlab.model.base import Model
from genlab.model.blocks import blocks_of
from genlab.model.network.gan_blocks import DiscriminatorBlock, GeneratorBlock, layer_maker
from tiny_run import plain, shrunk

TREE = ConfigTree()
SPEC = Digits().spec.to_config()
# With weights of a run: tests/test_features_in_generation.py.
OF_A_RUN = {"genlab.model.network.projected.ProjectedDiscriminator"}
CAPTION = {"size": 9, "length": 5, "names": ["", *"abcdefgh"]}  # for families that need one


def every_network() -> list[tuple[str, ...]]:
    """Choices of a family and its networks with which each class of networks in the config tree is made once; an option
    of an encoder is chosen for the decoder too."""
    found: dict[str, tuple[str, ...]] = {}
    for family, target in TREE.targets("model"):
        slots = parameters(resolve(target, "model"))
        networks = [part for part in slots if any(_is_network(t) for _, t in TREE.targets(f"model.{part}"))]
        for part in networks:
            for option, kind in TREE.targets(f"model.{part}"):
                if (
                    kind not in OF_A_RUN
                    and _is_network(kind)
                    and fits(resolve(kind, option), slots[part], partial=True)
                ):
                    others = [p for p in networks if _is_fit(slots[p], p, option)]
                    found.setdefault(kind, (f"model={family}", *(f"model/{p}={option}" for p in others)))
    return sorted(set(found.values()))


def _is_fit(slot: Any, part: str, option: str) -> bool:
    target = dict(TREE.targets(f"model.{part}")).get(option)
    return target is not None and fits(resolve(target, option), slot, partial=True)


def _is_network(target: str) -> bool:
    return target.startswith("genlab.model.network.")  # those of other libraries are not genlab's to checkpoint


def set_dropout(node: Any) -> None:
    for key in node if isinstance(node, DictConfig) else ():
        if key == "dropout":
            node[key] = 0.3
        elif not node._get_node(key)._is_interpolation():
            set_dropout(node[key])


def model_of(*choices: str) -> tuple[Any, dict[str, Tensor]]:
    """A small model with dropout, its networks made, and a batch of digits."""
    config = TREE.compose(["data=digits", "trainer=cpu", *choices])
    for path, value in list(shrunk(config.model, "model")):
        OmegaConf.update(config, path, value)
    set_dropout(config.model)
    config.spec = SPEC
    config.spec.condition["caption"] = CAPTION
    config.run_dir, config.run_id = "", ""
    model = build(plain(config)["model"], Model, "model")
    torch.manual_seed(0)
    model.configure_model()
    for parameter in model.parameters():  # away from zeros, which hide most of a network
        nn.init.normal_(parameter, std=0.1)
    batch = {"image": torch.rand(4, *SPEC["shape"]) * 2 - 1, "label": torch.tensor([0, 1, 2, -1])}
    return model.train(), batch | {"index": torch.arange(4), "caption": torch.randint(1, 9, (4, 5))}


def gradients(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[list[Tensor | None], dict[str, Tensor]]:
    """Of a pass with random numbers of its own, and the state that it leaves."""
    torch.manual_seed(1)
    model.zero_grad()
    loss().backward()
    return [p.grad for p in model.parameters()], {name: v.clone() for name, v in model.state_dict().items()}


def check_same(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    before = copy.deepcopy(model.state_dict())
    slopes, state = gradients(model, loss)
    model.load_state_dict(before)
    assert checkpoint_blocks(model) >= 1
    again, state_again = gradients(model, loss)
    assert any(slope is not None and slope.abs().max() > 0 for slope in slopes)
    for (name, _), one, other in zip(model.named_parameters(), slopes, again, strict=True):
        assert (one is None) == (other is None), name
        assert one is None or torch.equal(one, other), name
    assert list(state) == list(state_again)
    assert all(torch.equal(state[name], state_again[name]) for name in state)


@pytest.mark.parametrize("choices", every_network(), ids=lambda c: "-".join(c).replace("model", "").replace("/", ""))
def test_gradients_and_statistics_are_the_same_to_the_last_bit(choices: tuple[str, ...]) -> None:
    """With dropout, batch norm and spectral norm."""
    model, batch = model_of(*choices)
    names = set(model.losses(batch)) & {"loss", "discriminator_loss", "generator_loss"}
    check_same(model, lambda: sum(model.losses(batch)[name] for name in sorted(names)))


def saved_bytes(network: nn.Module, tokens: Tensor) -> int:
    """Of what a forward pass keeps for the backward pass, each storage once; of blocks that are checkpointed the hooks
    see their inputs alone."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = network(tokens)  # kept until all is counted: a place in memory is not given twice
    assert result.requires_grad
    return sum(kept.values())


def transformer(depth: int = 4) -> nn.Module:
    network = token_network(width=16, depth=depth, dropout=0.1)(num_tokens=9, num_outputs=7, max_length=32, causal=True)
    return network.train()


def test_memory_is_of_the_inputs_of_blocks() -> None:
    """A block more costs its input and no more, in place of everything that is computed in it."""
    tokens = torch.randint(9, (8, 32))
    one_input = 8 * 32 * 16 * 4
    costs = {}
    for on in (False, True):
        shallow, deep = transformer(2), transformer(6)
        if on:
            assert (checkpoint_blocks(shallow), checkpoint_blocks(deep)) == (2, 6)
        costs[on] = (saved_bytes(deep, tokens) - saved_bytes(shallow, tokens)) / 4
        if not on:
            costs[on] -= sum(p.nbytes for p in shallow.blocks[0].parameters())  # type: ignore[index]
    assert costs[True] == pytest.approx(one_input, rel=0.05)
    assert costs[False] > 10 * one_input


def test_operations_are_counted_once() -> None:
    tokens, network = torch.randint(9, (2, 8)), transformer()
    seen = []
    for _ in range(2):
        with OperationCounter() as counter, FlopCounterMode(display=False) as of_torch:
            network(tokens).sum().backward()
        seen.append((counter.total, of_torch.get_total_flops()))
        checkpoint_blocks(network)
    assert seen[0][0] == seen[1][0]
    assert seen[1][1] > 1.2 * seen[0][1], "they were made twice"


@pytest.mark.parametrize("block", [
    GeneratorBlock(4, 8, 3, layer_maker(nn.init.orthogonal_, use_spectral_norm=True)),
    DiscriminatorBlock(4, 8, True, layer_maker(nn.init.orthogonal_, use_spectral_norm=True)),
], ids=["generator", "discriminator"])  # fmt: skip
def test_gradients_of_gradients(block: nn.Module) -> None:
    """A penalty goes through the graph twice, and the passes of a step are not those before or after it."""
    network = nn.ModuleDict({"blocks": nn.ModuleList([block])})
    x = torch.randn(2, 2, 4, 6, 6, requires_grad=True)
    more = (torch.randn(2, 3),) if isinstance(block, GeneratorBlock) else ()

    def penalty() -> Tensor:
        first, second = (block(part, *more).sin().sum() for part in x)  # two passes, and then the gradients of both
        (slope,) = torch.autograd.grad(first + second, x, create_graph=True)
        return slope.square().sum() + first

    check_same(network, penalty)


def test_a_copy_computes_with_its_own_weights() -> None:
    network, tokens = transformer().eval(), torch.randint(9, (1, 8))
    checkpoint_blocks(network)
    checkpoint_blocks(network)
    again = copy.deepcopy(network)
    before = network(tokens)
    with torch.no_grad():
        network.blocks[0].attention.out.weight.fill_(1.0)  # type: ignore[union-attr, index]
    assert torch.equal(again(tokens), before)
    assert not torch.equal(network(tokens), before)
    assert list(again.state_dict()) == list(transformer().state_dict())


def test_blocks_in_blocks_and_frozen_ones_are_left_alone() -> None:
    inner = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)])})
    network = nn.ModuleDict({"blocks": nn.ModuleList([inner, nn.Linear(2, 2)]), "frozen": copy.deepcopy(inner)})
    assert [name for name, _ in blocks_of(network)] == ["blocks.0", "blocks.1", "blocks.0.blocks.0", "frozen.blocks.0"]
    assert checkpoint_blocks(network, [network["frozen"]]) == 2
    assert "forward" not in vars(inner["blocks"][0])  # type: ignore[index]
    assert "forward" not in vars(network["frozen"]["blocks"][0])  # type: ignore[index]


def test_a_network_without_blocks_is_refused() -> None:
    model, _ = model_of("model=diffusion", "model/network=mlp")
    model.checkpoints_activations = True
    model.configure_model()  # again: the networks are there
    assert all("forward" in vars(block) for _, block in blocks_of(model))
    model.network.blocks = nn.Sequential(*model.network.blocks)
    with pytest.raises(ConfigError, match=r"activation_checkpointing=true: no network of this Diffusion has"):
        model.configure_model()
