"""Policies: what an answer is, how it is drawn and read, and what may not matter."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chats import Given, said
from genlab.data.conversation import Conversation
from genlab.errors import ConfigError, NumericsError
from genlab.model.answers import Answers
from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.positions import Rotary
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.objective.policy import GRPO, PPO, RLOO, Reinforce
from genlab.model.policy import Policy
from genlab.model.rollout import joined
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream

QUESTIONS = ("a?", "what is b?", "c", "and which one is d, then?")


def network(dropout: float = 0.0, **sizes: Any) -> TokenTransformer:
    parts: dict[str, Any] = {"positions": Rotary, "norm": partial(nn.RMSNorm, eps=1e-6), "feed_forward": SwiGLU}
    return TokenTransformer(**sizes, **parts, width=16, depth=2, num_heads=2, dropout=dropout)


class Vowels:
    """The share of characters of an answer that are an a."""

    def __init__(self, weight: float = 1.0, broken: float | None = None):
        self.weight, self.broken = weight, broken

    def check(self, data: Any) -> None:
        pass

    def score(self, answers: Answers) -> Tensor:
        if self.broken is not None:
            return torch.full((len(answers.texts),), self.broken)
        return torch.tensor([text.count("a") / max(1, len(text)) for text in answers.texts])


@pytest.fixture
def data(tmp_path: Any) -> Given:
    made = Given([Conversation(tuple(said(question, "aa")), f"line {i}") for i, question in enumerate(QUESTIONS)],
                 tmp_path, context=96, template="plain", batch_size=4)  # fmt: skip
    made.ask()
    return made


def learner(data: Given, objective: Any = None, rewards: Any = None, dropout: float = 0.0, **given: Any) -> Policy:
    """A policy as if in a run, with random weights that differ from its reference's."""
    given = {"answers": 4, "sample_length": 6, "seed": 3} | given
    torch.manual_seed(0)
    made = Policy(
        partial(network, dropout),
        objective or GRPO(),
        rewards or {"vowels": Vowels()},
        NextToken(),
        partial(torch.optim.Adam, lr=given.pop("lr", 1e-2)),
        Constant(),
        (96,),
        data.tokenizer.vocab_size,
        0,
        **given,
    )
    made.configure_model()
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made.told = {}  # type: ignore[assignment]
    made.log_dict = lambda values, **_: made.told.update(values)  # type: ignore[method-assign, assignment, operator]
    optimizer: Any = made.configure_optimizers()
    made.optimizers = lambda: optimizer  # type: ignore[method-assign, assignment]
    made.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]
    made._trainer = SimpleNamespace(datamodule=data, world_size=1, global_rank=0)  # type: ignore[assignment]
    return made


def batch(data: Given, *rows: int) -> dict[str, Tensor]:
    return data.dataset("train")[[(0, row) for row in rows]]


def stream(rows: int, seed: int = 0) -> RandomStream:
    return RandomStream.for_samples(seed, range(rows))


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_read_with_the_probability_that_it_was_drawn_with(data: Given) -> None:
    """Prompts of four lengths, padded on the left; at a temperature too; and as without padding."""
    for temperature in (1.0, 0.6):
        model = learner(data).eval()
        model.sampler = NextToken(temperature)
        found = model.rolled_out(batch(data, 0, 1, 2, 3), stream(16), 4)
        assert 0 < float(found.told["ratio_gap"]) < 1e-5
        alone = model.rolled_out(batch(data, 3), RandomStream.for_samples(0, range(12, 16)), 4)
        assert alone.answers.texts == found.answers.texts[12:]
        width = alone.drawn.log_prob.shape[1]
        kept = alone.drawn.counted
        torch.testing.assert_close(
            found.drawn.log_prob[12:, :width][kept], alone.drawn.log_prob[kept], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(found.drawn.reference[12:, :width][kept],  # type: ignore[index]
                                   alone.drawn.reference[kept], atol=1e-5, rtol=0)  # type: ignore[index]  # fmt: skip


def test_what_counts_is_the_answer_with_its_end(data: Given) -> None:
    model = learner(data, PPO(), rewards={"vowels": Vowels()}, sample_length=40).eval()
    end = data.chat.end
    with torch.no_grad():
        model.network.embedding.weight[end] *= 8  # so that some end
    found = model.rolled_out(batch(data, 0, 1, 2, 3), stream(16), 4)
    answers, drawn = found.answers, found.drawn
    assert 0 < int(drawn.ended.sum()) < 16
    tokens = answers.sequences[:, -answers.most :]
    for row in range(16):
        length, ended = int(answers.length[row]), bool(drawn.ended[row])
        mine = tokens[row, :length].tolist()
        assert (mine[-1] == end) == ended
        assert end not in mine[:-1]
        assert drawn.counted[row].tolist() == [True] * length + [False] * (answers.most - length)
        assert data.tokenizer.decode(np.array(mine[: length - ended])) == answers.texts[row]
        assert int(answers.sequences[row, answers.last[row]]) == mine[-1]
        assert ended or length == 40
    assert drawn.value is not None
    assert drawn.value.shape == (16, answers.most + 1)


def test_cut_answers_can_be_left_out(data: Given) -> None:
    found = learner(data, learn_cut=False).eval().rolled_out(batch(data, 0, 1), stream(8), 4)
    assert torch.equal(found.drawn.counted.any(dim=1), found.drawn.ended)
    assert float(found.told["cut"].mean()) > 0


def test_the_divergence_is_that_of_predictions(data: Given) -> None:
    """Its mean over answers is that of the estimate from tokens, up to chance; a policy like its reference has none."""
    model = learner(data).eval()
    given = batch(data, 0).copy()
    found = model.rolled_out(given, stream(600), 600)
    drawn = found.drawn
    k1 = ((drawn.log_prob - drawn.reference) * drawn.counted).sum(dim=1)
    exact = found.told["kl"]
    assert float(exact.mean()) == pytest.approx(float(k1.mean()), abs=4 * float((k1 - exact).std()) / 600**0.5)
    assert float(exact.std()) < float(k1.std())
    model.reference.load_state_dict(model.network.state_dict())
    assert float(model.rolled_out(given, stream(4), 4).told["kl"].max()) == 0


def test_dropout_is_off_and_comes_back(data: Given) -> None:
    """While answers are drawn and while they are learnt from: the ratio is 1 on policy, and the network trains on."""
    model = learner(data, dropout=0.5)
    model.network.train()
    model.training_step(batch(data, 0, 1, 2, 3), 0)
    assert float(model.told["train/ratio_gap"]) < 1e-5
    assert float(model.told["train/clipped"]) == 0
    assert model.network.training
    assert not model.reference.training


def test_only_what_learns_has_gradients(data: Given) -> None:
    model = learner(data, PPO())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):  # the head of the critic starts at zero, so that its network learns from the second on
        model.training_step(batch(data, 0, 1, 2, 3), 0)
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network", "critic", "value"}
    assert {name.split(".")[0] for name, _ in model.averaged()} == {"network"}


def test_values_start_at_zero(data: Given) -> None:
    model = learner(data, PPO()).eval()
    found = model.rolled_out(batch(data, 0, 1), stream(8), 4)
    assert found.drawn.value is not None
    assert found.drawn.value.abs().max() == 0


# --- steps ------------------------------------------------------------------------------------------------------------


def stepped(model: Policy, *batches: dict[str, Tensor], every: int = 1) -> dict[str, Tensor]:
    model.accumulation.every = every
    for number, one in enumerate(batches):
        model.accumulation.begin_batch()
        model.training_step(one, number)
        model.progress.examples += len(one["prompt"])
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("objective", [GRPO(aggregate="token"), RLOO(), PPO()], ids=["token", "rloo", "ppo"])
def test_how_many_answers_are_in_memory_does_not_matter(objective: Any, data: Given) -> None:
    given = {"passes": 2, "minibatches": 2, "lr": 1e-3}
    whole = stepped(learner(data, objective, **given), batch(data, 0, 1, 2, 3))
    some = stepped(learner(data, objective, rows_at_once=3, **given), batch(data, 0, 1, 2, 3))
    for name, value in whole.items():
        torch.testing.assert_close(some[name], value, rtol=0, atol=2e-5, msg=name)


def test_a_batch_in_two_halves_makes_the_step_of_the_whole(data: Given) -> None:
    """Of one pass: where answers go among steps depends on the examples seen, which a half has fewer of."""
    whole = stepped(learner(data, PPO(), lr=1e-3), batch(data, 0, 1, 2, 3))
    halves = learner(data, PPO(), lr=1e-3)
    both = stepped(halves, batch(data, 0, 1), batch(data, 2, 3), every=2)
    assert not halves.waiting
    for name, value in whole.items():
        torch.testing.assert_close(both[name], value, rtol=0, atol=2e-5, msg=name)


def test_each_answer_is_in_one_minibatch_of_a_pass(data: Given) -> None:
    model = learner(data, passes=2, minibatches=4)
    rows = [*model._minibatches(model._places(16, 4))]
    assert [len(some) for some in rows] == [4] * 8
    assert sorted(torch.cat(rows[:4]).tolist()) == sorted(torch.cat(rows[4:]).tolist()) == [*range(16)]
    assert torch.cat(rows[:4]).tolist() != torch.cat(rows[4:]).tolist()


def test_two_processes_share_the_minibatches_of_one(data: Given) -> None:
    """Row r of process k is row k + 2 r of the batch."""
    alone = learner(data, minibatches=2)
    wanted = [{*rows.tolist()} for rows in alone._minibatches(alone._places(16, 4))]
    found: list[set[int]] = [set(), set()]
    for rank in range(2):
        model = learner(data, minibatches=2)
        model._trainer = SimpleNamespace(datamodule=data, world_size=2, global_rank=rank)  # type: ignore[assignment]
        places = model._places(8, 2)
        for step, rows in enumerate(model._minibatches(places)):
            found[step] |= {*places[rows].tolist()}
    assert found == wanted


def test_joined_answers_keep_their_places(data: Given) -> None:
    model = learner(data, PPO(), sample_length=9).eval()
    one = model.rolled_out(batch(data, 0), stream(4), 4)
    other = model.rolled_out(batch(data, 3), stream(4, seed=1), 4)
    both = joined([one, other])
    again = model.log_probs(both.answers.sequences, both.answers.padding, both.drawn.log_prob.shape[1])[0]
    torch.testing.assert_close(again[both.drawn.counted], both.drawn.log_prob[both.drawn.counted], atol=1e-5, rtol=0)
    values = model.values(both.answers.sequences, both.answers.padding, both.drawn.log_prob.shape[1])
    torch.testing.assert_close(values[:, :-1][both.drawn.counted],
                               both.drawn.value[:, :-1][both.drawn.counted])  # type: ignore[index]  # fmt: skip


@pytest.mark.parametrize(
    "objective",
    [
        GRPO(0.0),
        PPO(0.0),
        pytest.param(RLOO(0.0), marks=pytest.mark.matrix),
        pytest.param(Reinforce(0.0), marks=pytest.mark.matrix),
    ],
    ids=lambda o: type(o).__name__,
)
def test_it_learns_to_say_a(objective: Any, data: Given) -> None:
    model = learner(data, objective, answers=16, lr=2e-2)
    rewards = []
    for _ in range(20):
        stepped(model, batch(data, 0, 1, 2, 3))
        rewards.append(float(model.told["train/reward"]))
    assert np.mean(rewards[:3]) < 0.1
    assert np.mean(rewards[-3:]) > 0.25


def test_the_reference_holds_it_back(data: Given) -> None:
    far, near = (learner(data, GRPO(beta), answers=16, lr=2e-2) for beta in (1e-6, 3.0))
    near.reference.load_state_dict(near.network.state_dict())
    far.reference = near.reference
    found = []
    for model in (far, near):
        for _ in range(8):
            stepped(model, batch(data, 0, 1, 2, 3))
        found.append(float(model.told["train/kl"]))
    assert found[0] > 4 * found[1] > 0


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_named(broken: float, data: Given) -> None:
    model = learner(data, rewards={"odd": Vowels(broken=broken)}).eval()
    with pytest.raises(
        NumericsError, match=r"^model.rewards.odd gave (nan|inf)\. The answer was .* the prompt of line 1\."
    ):
        model.rolled_out(batch(data, 1), stream(2), 2)


def test_a_reward_that_fails_is_named(data: Given) -> None:
    class Fails(Vowels):
        def score(self, answers: Answers) -> Tensor:
            raise ZeroDivisionError("division by zero")

    model = learner(data, rewards={"odd": Fails()}).eval()
    with pytest.raises(NumericsError, match=r"^model.rewards.odd failed \(division by zero\)"):
        model.rolled_out(batch(data, 1), stream(2), 2)


def test_a_judge_that_is_held_back_is_measured_alone(data: Given) -> None:
    model = learner(data, rewards={"vowels": Vowels(2.0), "gold": Vowels(0.0)}).eval()
    found = model.rolled_out(batch(data, 1), stream(2), 2)
    torch.testing.assert_close(found.drawn.reward, 2 * found.told["reward_gold"])
    with pytest.raises(ValueError, match="no reward has a weight"):
        learner(data, rewards={"gold": Vowels(0.0)})


def test_what_does_not_fit_is_refused(data: Given) -> None:
    with pytest.raises(ValueError, match=r"answers=1: .*Use model.answers=8, or model/objective=reinforce"):
        learner(data, GRPO(), answers=1)
    with pytest.raises(ValueError, match="passes=0 must be 1 or more"):
        learner(data, passes=0)
    learner(data, PPO(), answers=1).check_data(data)
    model = learner(data, minibatches=5)
    with pytest.raises(
        ConfigError, match=r"model.minibatches=5 does not divide the 16 answers.*Use model.minibatches=4"
    ):
        model.check_data(data)
    model = learner(data, sample_length=90)
    with pytest.raises(ConfigError, match=r"do not fit after the longest prompt, .*line 3.*Use data.context="):
        model.check_data(data)
    for sampler, remedy in (
        (NextToken(top_k=3), "model.sampler.top_k=3 changes .*: model.sampler.top_k=null"),
        (NextToken(temperature=0), "model.sampler.temperature=0 changes .*: model.sampler.temperature=1.0"),
    ):
        model = learner(data)
        model.sampler = sampler
        with pytest.raises(ConfigError, match=remedy):
            model.check_data(data)
