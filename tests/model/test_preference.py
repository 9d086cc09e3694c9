"""Learning from preferences: losses as trl computes them, their optimum, the reference, and what may not matter."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.positions import Rotary
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.objective.preference import DPO, IPO, KTO, ORPO, RobustDPO, Scored, SimPO, SLiC, _log_odds
from genlab.model.preference import Preference
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from preferred import LENGTHS, by_hand, fill

VOCABULARY, DEPTH = 97, 3
# Of trl 1.16.0: `_compute_loss` of DPOTrainer and KTOTrainer, and `odds_ratio_loss` of ORPOTrainer and `cpo_loss` of
# CPOTrainer (simpo), on the batch of preferred.by_hand and the LlamaForCausalLM of hugging_face.llama in float64, with
# preferred.fill(phase=0) as policy and fill(phase=0.6) as reference: the loss, and the norm of its gradient in the
# first block's down_proj. KTOTrainer was given the mismatched answers of the batch. Llama's norm and trl's head compute
# in float32 there too: in sums of log-probabilities, of about -20, these are some 2e-6.
RECORDED: tuple[tuple[Any, float, float], ...] = (
    (DPO(0.1), 0.6631569266319275, 0.7842982964175205),
    (IPO(0.1), 22.42987823486328, 40.31672960548242),
    (SLiC(0.5), 0.6876433491706848, 7.728021131540466),
    (RobustDPO(0.1, 0.2), 0.6423332095146179, 1.2992140544921185),
    (KTO(0.1), 0.49222660064697266, 0.1924633711404669),
    (KTO(0.3, 1.0, 1.3), 0.5360071659088135, 0.7330560520995484),
)
OBJECTIVES = (DPO(), IPO(), SLiC(), RobustDPO(), KTO(), ORPO(), SimPO())


def network(dropout: float = 0.0, **sizes: Any) -> TokenTransformer:
    """That of hugging_face.llama."""
    parts: dict[str, Any] = {"positions": Rotary, "norm": partial(nn.RMSNorm, eps=1e-6), "feed_forward": SwiGLU}
    return TokenTransformer(**sizes, **parts, width=32, depth=DEPTH, num_heads=4, num_kv_heads=2, tied=False,
                            dropout=dropout)  # fmt: skip


def learner(
    objective: Any = None, length: int = 11, dropout: float = 0.0, far: bool = True, kind: torch.dtype = torch.float32
) -> Preference:
    """``far``: from its reference."""
    made = Preference(
        partial(network, dropout),
        objective or DPO(),
        NextToken(),
        partial(torch.optim.SGD, lr=0.1),
        Constant(),
        (length,),
        VOCABULARY,
        0,
    )
    made.configure_model()
    made.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    made.to(kind)
    fill(made.network, 0.0)
    if made.reference is not None:
        fill(made.reference, 0.6 if far else 0.0)
    return made


def scored(policy: list[float], reference: list[float] | None, length: list[int]) -> Scored:
    return Scored(torch.tensor(policy), None if reference is None else torch.tensor(reference), torch.tensor(length))


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "loss", "norm"), RECORDED, ids=lambda value: type(value).__name__)
def test_trl_has_the_same_loss_and_gradient(objective: Any, loss: float, norm: float) -> None:
    model = learner(objective, kind=torch.float64)
    found = model.training_step(by_hand(VOCABULARY), 0)
    found.backward()
    gradient = model.network.blocks[0].feed_forward.out.weight.grad
    assert float(found.detach()) == pytest.approx(loss, rel=1e-6)
    assert float(gradient.norm()) == pytest.approx(norm, rel=1e-6)
    assert all(p.grad is None for p in model.reference.parameters())


def test_trl_has_the_same_losses_without_a_reference() -> None:
    """ORPO's is the odds ratio's part; that of maximum likelihood counts the prompt there."""
    batch = by_hand(VOCABULARY)
    likelihood = learner(ORPO(0.1), kind=torch.float64)
    scored, _ = likelihood.scored(batch["tokens"][:, 0], batch["answer"][:, 0])
    odds = float((likelihood.losses(batch)["loss"] + scored.mean.mean()).detach())
    assert odds == pytest.approx(0.10897161811590195, abs=1e-6)
    simpo = learner(SimPO(2.0, 0.5), kind=torch.float64).losses(batch)["loss"]
    assert float(simpo.detach()) == pytest.approx(2.1741090414081614, abs=1e-6)


def test_log_ratios_are_sums_and_ipos_are_means() -> None:
    chosen, rejected = scored([-2.0], [-4.0], [4]), scored([-9.0], [-6.0], [2])  # log-ratios 2 and -3
    assert float(DPO(0.1).loss(chosen, rejected, None)) == pytest.approx(math.log1p(math.exp(-0.5)))
    assert float(SLiC(0.1).loss(chosen, rejected, None)) == pytest.approx(0.5)
    assert float(IPO(0.5).loss(chosen, rejected, None)) == pytest.approx((2 / 4 + 3 / 2 - 1) ** 2)


def test_robust_dpo_is_unbiased_where_preferences_were_turned_round() -> None:
    """Its mean over preferences of which a share is wrong is DPO's over right ones (Ray Chowdhury et al. 2024)."""
    a, b = scored([-2.0, -3.0], [-4.0, -3.5], [3, 3]), scored([-9.0, -1.0], [-6.0, -4.0], [2, 2])
    robust = RobustDPO(0.3, noise=0.2)
    mixed = 0.8 * robust.loss(a, b, None) + 0.2 * robust.loss(b, a, None)
    torch.testing.assert_close(mixed, DPO(0.3).loss(a, b, None))


def test_ktos_zero_is_the_drift() -> None:
    """An answer whose log-ratio is the drift has half the loss; one class alone leaves the other's terms alone."""
    at, drift = scored([-1.0], [-3.0], [3]), torch.tensor(2.0)
    assert float(KTO(0.7).loss(at, at, drift)) == pytest.approx(0.5)
    assert float(KTO(0.7, 1.0, 3.0).loss(at, at, drift)) == pytest.approx(1.0)


def test_orpo_is_finite_where_probabilities_are_all_but_one_or_zero() -> None:
    """log1mexp in float32; of bfloat16 too, which has no number between 0.996 and 1."""
    for kind in (torch.float32, torch.bfloat16):
        policy = torch.tensor([-1e-30, -1e-9, -0.6931, -0.7, -90.0, -1e4], dtype=kind, requires_grad=True)
        one = Scored(policy, None, torch.ones(6))
        loss = ORPO().loss(one, Scored(policy.flip(0), None, torch.ones(6)), None)
        loss.sum().backward()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss).all()
        assert torch.isfinite(policy.grad).all()  # type: ignore[arg-type]
    x = torch.tensor([-1e-9, -0.3, -0.7, -5.0, -40.0])
    exact = x.double() - torch.log(-torch.expm1(x.double()))
    found = ORPO().loss(Scored(x, None, torch.ones(5)), Scored(x, None, torch.ones(5)), None) + x
    torch.testing.assert_close(found, torch.full_like(x, 0.1 * math.log(2)))
    torch.testing.assert_close(_log_odds(x).double(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [partial(DPO, 0), partial(IPO, -1), partial(KTO, 0.1, 0), partial(RobustDPO, 0.1, 0.5), partial(ORPO, 0),
     partial(SimPO, 2, -1), partial(SLiC, math.inf)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^\w+=\S+ must be "):
        make()


# --- the optimum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [DPO(0.5), RobustDPO(0.5, noise=0.2)], ids=lambda o: type(o).__name__)
def test_the_optimum_on_an_enumerable_language(objective: Any) -> None:
    """All texts of three of eight tokens, each compared with 24 others, preferences exact by Bradley and Terry: the
    best policy is in proportion to reference * exp(reward / beta) (Rafailov et al. 2023, eq. 4). It is found among all
    policies, and the loss is flat there for one that predicts token by token. Robust DPO finds it from preferences of
    which a fifth was turned round."""
    torch.manual_seed(0)
    reward, noise = torch.randn(512, dtype=torch.float64), getattr(objective, "noise", 0.0)
    reference = _written(torch.randn(73, 8, dtype=torch.float64))
    wanted = (reference + reward / objective.beta).log_softmax(dim=0)
    order = torch.randperm(512)
    others = order[(order.argsort()[:, None] + torch.arange(1, 25)) % 512]
    share = (1 - 2 * noise) * torch.sigmoid(reward[:, None] - reward[others]) + noise  # by which the first is preferred

    def loss(policy: Tensor) -> Tensor:
        length = torch.tensor(3)
        one = Scored(policy[:, None], reference[:, None], length)
        other = Scored(policy[others], reference[others], length)
        return (share * objective.loss(one, other, None) + (1 - share) * objective.loss(other, one, None)).mean()

    p = wanted.exp().view(8, 8, 8)
    table = torch.cat([p.sum((1, 2)).log()[None], p.sum(2).log(), p.view(64, 8).log()]).requires_grad_()
    torch.testing.assert_close(_written(table), wanted)
    loss(_written(table)).backward()
    assert float(table.grad.abs().max()) < 1e-12  # type: ignore[union-attr]

    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-11, tolerance_change=0,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def step() -> Tensor:
        optimizer.zero_grad()
        found = loss(logits.log_softmax(dim=0))
        found.backward()
        return found

    optimizer.step(step)
    step()  # a line search ends where the loss has no more digits: a step of Newton's from there
    hessian: Any = torch.autograd.functional.hessian(
        lambda x: loss(x.log_softmax(dim=0)), logits.detach(), vectorize=True
    )
    logits.data -= torch.linalg.lstsq(hessian, logits.grad[:, None], driver="gelsd").solution[:, 0]  # type: ignore[index]
    assert float((reference - wanted).abs().max()) > 1
    torch.testing.assert_close(logits.detach().log_softmax(dim=0), wanted, atol=1e-9, rtol=0)


def _written(table: Tensor) -> Tensor:
    """(512,) log-probabilities of all texts, by those (73, 8) of a token after none, one or two others."""
    first, second, third = torch.cartesian_prod(*[torch.arange(8)] * 3).T
    places = torch.stack([torch.zeros_like(first), 1 + first, 9 + 8 * first + second], dim=1)
    return table.log_softmax(dim=1)[places, torch.stack([first, second, third], dim=1)].sum(dim=1)


# --- the model --------------------------------------------------------------------------------------------------------


def test_at_the_start_policy_and_reference_are_the_same_to_the_last_bit() -> None:
    """Also in bfloat16: both are computed in one type, so that their difference is not that of two roundings."""
    model = learner(far=False)
    for kind in (None, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=kind is not None):
            found = model.losses(by_hand(VOCABULARY))
        assert float(found["loss"]) == pytest.approx(math.log(2))
        assert float(found["margin"]) == float(found["kl"]) == 0
        assert found["loss"].dtype == found["chosen"].dtype == torch.float32


def test_bfloat16_is_near_float32() -> None:
    """Sums of log-probabilities are in float32 in both; what differs is the networks' own rounding."""
    model, batch = learner(), by_hand(VOCABULARY)
    exact = model.losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.losses(batch)
    assert 0 < abs(float(exact["chosen"] - rounded["chosen"])) < 0.3
    assert abs(float(exact["loss"] - rounded["loss"])) < 0.03


def test_the_reference_is_never_in_training_mode() -> None:
    """So dropout is of the policy alone, and the reference stays as it is."""
    model, batch = learner(dropout=0.5), by_hand(VOCABULARY)
    before = {name: value.clone() for name, value in model.reference.state_dict().items()}
    wanted = model.eval().scored(batch["tokens"].flatten(0, 1), batch["answer"].flatten(0, 1))[0].reference
    model.train()
    assert model.network.training
    assert not any(module.training for module in model.reference.modules())
    optimizer = model.configure_optimizers()
    policies = []
    for _ in range(2):
        found, _ = model.scored(batch["tokens"].flatten(0, 1), batch["answer"].flatten(0, 1))
        assert torch.equal(found.reference, wanted)  # type: ignore[arg-type]
        policies.append(found.policy)
        model.training_step(batch, 0).backward()
        optimizer.step()
    assert not torch.equal(*policies)
    assert all(torch.equal(value, before[name]) for name, value in model.reference.state_dict().items())
    assert {name.partition(".")[0] for name, _ in model.averaged()} == {"network"}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_padding_after_answers_does_not_count(objective: Any) -> None:
    """More of it, or other tokens in it; nor do other pairs of the batch, but for KTO's drift."""
    model, batch = learner(objective, length=20), by_hand(VOCABULARY)
    found = model.losses(batch)
    longer = by_hand(VOCABULARY, length=20)
    for rows, answers in (("tokens", "answer"), ("mismatched", "mismatched_answer")):
        ends = torch.cat([torch.zeros(3, 2, 1), longer[answers].float()], dim=2).flip(2).cumsum(2).flip(2) > 0
        prompts = torch.tensor([[LENGTHS[i][0]] for i in range(3)])[..., None] > torch.arange(20)
        longer[rows] = torch.where(ends | prompts, longer[rows], 5)
    again = model.losses(longer)
    for name, value in found.items():
        torch.testing.assert_close(again[name], value, atol=1e-4, rtol=1e-5)
    if not objective.needs_drift:
        each = [model.losses({key: value[i : i + 1] for key, value in batch.items()})["loss"] for i in range(3)]
        torch.testing.assert_close(torch.stack(each).mean(), found["loss"])


def test_a_tie_counts_half_for_either_answer() -> None:
    model, batch = learner(), by_hand(VOCABULARY)
    turned = batch | {"tokens": batch["tokens"].flip(1), "answer": batch["answer"].flip(1)}
    tie = model.losses(batch | {"tie": torch.ones(3, dtype=torch.bool)})["loss"]
    torch.testing.assert_close(tie, (model.losses(batch)["loss"] + model.losses(turned)["loss"]) / 2)


def test_kto_takes_its_zero_from_answers_to_other_prompts() -> None:
    """Without a gradient; those of the pair itself would be the reward."""
    model, batch = learner(KTO()), by_hand(VOCABULARY)
    rows = batch["mismatched"].flatten(0, 1), batch["mismatched_answer"].flatten(0, 1)
    drift = model.scored(*rows)[0].log_ratio.mean()
    assert float(model._drift(batch)) == pytest.approx(float(drift))  # type: ignore[arg-type]
    assert float(drift) > 0
    assert not model._drift(batch).requires_grad  # type: ignore[union-attr]
    model.reference, model.network = model.network, model.reference
    assert float(model._drift(batch)) == 0  # type: ignore[arg-type]


def test_the_divergence_that_is_logged() -> None:
    model, batch = learner(), by_hand(VOCABULARY)
    tokens, answer = batch["tokens"].flatten(0, 1), batch["answer"].flatten(0, 1)
    p, q = (part(tokens[:, :-1]).log_softmax(dim=-1)[answer] for part in (model.network, model.reference))
    torch.testing.assert_close(model.losses(batch)["kl"], F.kl_div(q, p, log_target=True, reduction="sum") / len(p))


def test_objectives_without_a_reference_keep_none() -> None:
    model = learner(SimPO())
    assert model.reference is None
    assert model.copies == {}
    assert "kl" not in model.losses(by_hand(VOCABULARY))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_every_objective_learns_to_prefer(objective: Any) -> None:
    model, batch = learner(objective, far=False), by_hand(VOCABULARY)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=1e-2)
    before = {name: float(value) for name, value in model.losses(batch).items()}
    for _ in range(20):
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()
    after = model.losses(batch)
    assert float(after["loss"].detach()) < before["loss"]
    assert float(after["accuracy"]) == 1
    assert float(after["margin"]) > before["margin"]
