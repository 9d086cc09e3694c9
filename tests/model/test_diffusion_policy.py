"""DDPO: probabilities of denoising steps, the gradient by hand, what may not matter, and that it learns."""

import functools
import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.errors import ConfigError, NumericsError
from genlab.model.adapter.lora import LoRA
from genlab.model.diffusion_policy import DiffusionPolicy, divergence_of, log_probability, standardised
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.network.mlp import MLP
from genlab.model.objective.edm import EDM
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.ddim import DDIM
from genlab.model.sampler.grid import Karras
from genlab.model.schedule import Constant
from genlab.rewards.label import LabelProbability
from genlab.rewards.pictures import Brightness, JpegSize
from genlab.seeding import RandomStream

SHAPE = (1, 2, 2)
LABELS = {"label": {"size": 3, "names": None, "empty": [], "examples": []}}
SAMPLERS = (Ancestral(5, Karras()), DDIM(5, Karras(), eta=1.0), DDIM(5, Karras(), eta=0.4))


class Given:
    """A reward that is told by a test."""

    weight, reads = 1.0, frozenset[str]()

    def __init__(self, told: Any, weight: float = 1.0):
        self.told, self.weight = told, weight

    def check(self, data: Any) -> None: ...

    def score(self, images: Tensor, condition: Any) -> Tensor:
        return self.told(images)  # type: ignore[no-any-return]


def learner(far: bool = False, dropout: float = 0.0, **changes: Any) -> DiffusionPolicy:
    """A policy as if in a run, with random weights. ``far``: it has left the reference."""
    arguments: dict[str, Any] = {
        "network": functools.partial(MLP, SHAPE, width=16, depth=1, dropout=dropout),
        "objective": EDM(),
        "rewards": {"brightness": Brightness()},
        "sampler": Ancestral(5, Karras()),
        "optimizer": functools.partial(torch.optim.Adam, lr=1e-3),
        "schedule": Constant(),
        "shape": SHAPE,
        "told": {},
        "condition_dropout": 0.1,
        "seed": 3,
    }
    model = DiffusionPolicy(**{**arguments, **changes})
    torch.manual_seed(0)
    model.configure_model()
    for name, parameter in model.network.named_parameters():
        if ".updates." not in name:  # of an adapter, which changes nothing at the start
            nn.init.normal_(parameter, std=0.2)
    if model.reference is not None:
        model.reference.load_state_dict(model.network.state_dict())
    if far:
        for parameter in model.network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.said = []  # type: ignore[assignment]
    model.log_dict = lambda values, **_: model.said.append(values)  # type: ignore[method-assign, assignment, operator, union-attr]
    model.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]
    model._trainer = SimpleNamespace(world_size=1, global_rank=0)  # type: ignore[assignment]
    optimizer: Any = model.configure_optimizers()
    model.optimizers = lambda: optimizer  # type: ignore[method-assign, assignment]
    return model


def stream(count: int, seed: int = 0) -> RandomStream:
    return RandomStream.for_samples(seed, range(count))


def batch(count: int, label: bool = False) -> dict[str, Tensor]:
    labels = {"label": torch.arange(count) % 3} if label else {}
    return {"image": torch.zeros(count, *SHAPE), **labels}


def gradients(model: DiffusionPolicy) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.network.parameters() if p.grad is not None])


# --- probabilities ----------------------------------------------------------------------------------------------------


def test_log_probabilities_are_those_of_torch() -> None:
    draw = torch.Generator().manual_seed(0)
    x, mean = torch.randn(2, 7, 3, 4, 4, generator=draw)
    wanted = torch.distributions.Normal(mean, 0.3).log_prob(x).flatten(1).mean(dim=1)
    torch.testing.assert_close(log_probability(x, mean, 0.3), wanted)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(x, 0.3), normal(mean, 0.3)).flatten(1).mean(dim=1)
    torch.testing.assert_close(divergence_of(x, mean, 0.3), wanted)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("guided", [False, True])
def test_a_rollout_is_a_sample_and_its_steps_have_the_probabilities_of_the_sampler(sampler: Any, guided: bool) -> None:
    """To the last bit the sample that the model draws; of 5 steps the last draws nothing."""
    model = learner(sampler=sampler, told=LABELS, guidance=ClassifierFree(3.0) if guided else None).eval()
    condition = {"label": torch.tensor([0, 1, 2, 1])}
    found = model.rolled_out(condition, stream(4))
    assert torch.equal(found.images, model.sample(4, condition, stream(4)).clamp(-1, 1))
    assert found.states.shape == (5, 4, *SHAPE)
    assert found.log_prob.shape == (4, 4)
    levels = Karras()(5).tolist()
    for step, (t, s) in enumerate(pairwise(levels[:5])):
        x = found.states[step]
        with torch.no_grad():
            both = [model.objective.denoise(model.network, x, torch.full((4,), t), one)
                    for one in ({"label": torch.full((4,), -1)}, condition)]  # fmt: skip
        clean = both[0] + (3.0 if guided else 1.0) * (both[1] - both[0])
        eta = getattr(sampler, "eta", 1.0)
        std = eta * s * math.sqrt(t**2 - s**2) / t
        mean = clean + math.sqrt(s**2 - std**2) / t * (x - clean)
        wanted = torch.distributions.Normal(mean, std).log_prob(found.states[step + 1]).flatten(1).mean(dim=1)
        torch.testing.assert_close(found.log_prob[step], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guided", [False, True])
def test_ratios_are_exactly_1_before_the_first_step(guided: bool) -> None:
    """Also with dropout, and with guidance, which is in both."""
    guidance = ClassifierFree(3.0) if guided else None
    model = learner(dropout=0.5, told=LABELS, guidance=guidance, minibatches=2).train()
    model.training_step(batch(8, label=True), 0)
    (told,) = model.said  # type: ignore[misc]
    assert float(told["train/ratio_gap"]) == 0
    assert model.network.training


def test_guidance_is_in_what_is_learnt() -> None:
    """The gradient of the guided denoiser's probability, not of the conditional one's."""
    model = learner(told=LABELS, guidance=ClassifierFree(3.0)).eval()
    condition = {"label": torch.tensor([0, 1, 2])}
    rollout, advantage = model.rolled_out(condition, stream(3)), torch.tensor([1.0, -1.0, 0.5])
    loss, _ = model.loss_of_step(rollout, advantage, 1)
    loss.backward()
    found = gradients(model)
    model.network.zero_grad()
    t, s = model.random_steps[1]
    x, drawn = rollout.states[1], rollout.states[2]
    empty = {"label": torch.full((3,), -1)}
    blank, told = (model.objective.denoise(model.network, x, torch.full((3,), t), one) for one in (empty, condition))
    mean, std = model.sampler.transition(blank + 3.0 * (told - blank), x, t, s)
    wanted = torch.distributions.Normal(mean, std).log_prob(drawn).flatten(1).mean(dim=1)
    (-(advantage * wanted).mean()).backward()
    torch.testing.assert_close(found, gradients(model), atol=1e-5, rtol=1e-4)


# --- the gradient -----------------------------------------------------------------------------------------------------


def test_the_gradient_on_policy_is_that_of_reinforce() -> None:
    """On the same trajectories, by autograd of the log-probability of a whole trajectory."""
    model = learner().eval()
    rollout = model.rolled_out(None, stream(16))
    reward, _ = model.rewarded(rollout.images, None)
    advantage = standardised(reward, None)
    model._learn_from(rollout, advantage)
    found = gradients(model)
    model.network.zero_grad()
    total = torch.zeros(16)
    for step, (t, s) in enumerate(model.random_steps):
        x = rollout.states[step]
        mean, std = model.sampler.transition(model.denoiser(None)(x, torch.full((16,), t)), x, t, s)
        total = total + torch.distributions.Normal(mean, std).log_prob(rollout.states[step + 1]).flatten(1).mean(dim=1)
    (-(advantage * total).mean() / len(model.random_steps)).backward()
    torch.testing.assert_close(found, gradients(model), atol=1e-6, rtol=1e-5)


class Shift(nn.Module):
    """A denoiser that knows nothing of its input: D = shift."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))


class Constantly:
    """The objective of Shift."""

    def loss(self, network: Any, x: Tensor, condition: Any, progress: float) -> Tensor:
        raise NotImplementedError

    def denoise(self, network: Any, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        return network.shift + 0 * x


def test_its_expectation_is_the_slope_of_the_mean_reward() -> None:
    """A chain of Gaussian steps, of which the mean sample is linear in the parameter, and a reward that is quadratic in
    the sample before the last step. With pixels, log-probabilities are means, so the slope is a share of 1 / pixels."""
    shape = (1, 1, 1)
    model = learner(
        network=functools.partial(MLP, shape, width=4, depth=1), shape=shape, sampler=Ancestral(3, Karras(0.5, 4.0))
    )
    model.network, model.objective = Shift(), Constantly()  # type: ignore[assignment]
    model.reference = Shift()
    with torch.no_grad():
        model.network.shift.fill_(0.3)
    count = 60_000
    noise = torch.randn(count // 2, 4, generator=torch.Generator().manual_seed(0)).double()
    noise = torch.cat([noise, -noise])  # antithetic
    states = [4.0 * noise[:, :1]]
    mean_of = [0.0]
    for number, (t, s) in enumerate(model.random_steps):
        mean, std = model.sampler.transition(torch.full_like(states[-1], 0.3), states[-1], t, s)
        states.append(mean + std * noise[:, number + 1 : number + 2])
        mean_of.append((1 - (s / t) ** 2) + (s / t) ** 2 * mean_of[-1])  # the slope of the mean in the shift
    last = states[-1]
    spread = _variance(model)
    reward = (last[:, 0] - 0.1).square()
    advantage = reward - reward.mean()
    each = torch.zeros(count, dtype=torch.float64)
    for number, (t, s) in enumerate(model.random_steps):
        shift = torch.full((count, 1), 0.3, dtype=torch.float64, requires_grad=True)
        mean, std = model.sampler.transition(shift, states[number], t, s)
        log_prob = torch.distributions.Normal(mean, std).log_prob(states[number + 1])
        each += torch.autograd.grad(log_prob.sum(), shift)[0][:, 0].detach()
    pairs = (advantage * each).view(2, -1).mean(dim=0)
    # E (last - 0.1)^2 = (slope * shift - 0.1)^2 + variance, whose slope in the shift is
    wanted = 2 * (mean_of[-1] * 0.3 - 0.1) * mean_of[-1]
    error = float(pairs.std() / math.sqrt(len(pairs)))
    assert error < 0.02
    assert float(last.var()) == pytest.approx(spread, rel=0.02)
    assert abs(float(pairs.mean()) - wanted) < 4 * error
    rollout = SimpleNamespace(
        condition=None, states=torch.stack(states).float().view(-1, count, *shape), log_prob=_log_probs(model, states)
    )
    model._learn_from(rollout, advantage.float())  # type: ignore[arg-type]
    found = -float(model.network.shift.grad) * len(model.random_steps)  # type: ignore[arg-type]
    assert found == pytest.approx(float(pairs.mean()), rel=1e-3)


def _variance(model: DiffusionPolicy) -> float:
    variance = model.levels[0] ** 2
    for t, s in model.random_steps:
        variance = (s / t) ** 4 * variance + s**2 * (t**2 - s**2) / t**2
    return variance


def _log_probs(model: DiffusionPolicy, states: list[Tensor]) -> Tensor:
    found = []
    for number, (t, s) in enumerate(model.random_steps):
        mean, std = model.sampler.transition(torch.full_like(states[number], 0.3), states[number], t, s)
        found.append(log_probability(states[number + 1], mean, std))
    return torch.stack(found)


def test_a_ratio_beyond_the_clip_has_no_gradient() -> None:
    model = learner(clip=0.1).eval()
    rollout = model.rolled_out(None, stream(4))
    moved = rollout._replace(log_prob=rollout.log_prob - torch.tensor([0.5, -0.5, 0.5, -0.5]))
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])  # ratios of 1.65, 0.61, 1.65, 0.61
    loss, ratio = model.loss_of_step(moved, advantage, 0)
    up, down = math.exp(0.5), math.exp(-0.5)
    assert ratio.tolist() == pytest.approx([up, down, up, down], rel=1e-5)
    assert float(loss.detach()) == pytest.approx((-1.1 - down + up + 0.9) / 4, rel=1e-5)
    loss.backward()
    found = gradients(model)
    model.network.zero_grad()
    loss, _ = model.loss_of_step(moved, torch.tensor([0.0, 1.0, -1.0, 0.0]), 0)
    loss.backward()
    torch.testing.assert_close(found, gradients(model))


# --- advantages, and the reference ------------------------------------------------------------------------------------


def test_advantages_by_hand() -> None:
    reward, groups = torch.tensor([1.0, 2.0, 3.0, 10.0, 5.0]), torch.tensor([0, 0, 1, 1, 2])
    mean, std = 4.2, float(reward.std(correction=0))
    torch.testing.assert_close(standardised(reward, None), (reward - mean) / (std + 1e-4))
    wanted = torch.tensor([-0.5 / 0.5001, 0.5 / 0.5001, -3.5 / 3.5001, 3.5 / 3.5001, (5 - mean) / (std + 1e-4)])
    torch.testing.assert_close(standardised(reward, groups), wanted)
    assert standardised(torch.ones(3), torch.tensor([0, 0, 0])).tolist() == [0, 0, 0]


def test_advantages_are_of_the_same_condition_and_clipped() -> None:
    model = learner(told=LABELS, advantages="condition", advantage_clip=0.9)
    found, everyones = model._advantage(torch.tensor([0.0, 1.0, 5.0, 7.0]), {"label": torch.tensor([1, 1, -1, 2])})
    whole = standardised(torch.tensor([0.0, 1.0, 5.0, 7.0]), None)
    torch.testing.assert_close(found, torch.cat([torch.tensor([-0.9, 0.9]), whole[2:].clamp(-0.9, 0.9)]))
    assert everyones.tolist() == [0, 1, 5, 7]


def test_the_divergence_is_0_at_the_start_and_its_weight_pulls_back() -> None:
    near = learner().eval().rolled_out(None, stream(4))
    assert near.divergence.tolist() == [0] * 4
    model = learner(far=True, kl_weight=2.0).eval()
    rollout = model.rolled_out(None, stream(64))
    assert float(rollout.divergence.min()) > 0
    nothing = torch.zeros(64)
    losses = [model.loss_of_step(rollout, nothing, step)[0] for step in range(4)]
    torch.testing.assert_close(torch.stack(losses).mean(), 2 * rollout.divergence.mean())
    optimizer: Any = model.optimizers()
    model._learn_from(rollout, nothing)
    optimizer.step()
    assert float(model.rolled_out(None, stream(64)).divergence.mean()) < float(rollout.divergence.mean())


def test_the_reference_stays_and_is_never_in_training_mode() -> None:
    model = learner(dropout=0.5).train()
    assert model.reference is not None
    before = {name: value.clone() for name, value in model.reference.state_dict().items()}
    assert not any(module.training for module in model.reference.modules())
    for _ in range(2):
        model.training_step(batch(8), 0)
    assert all(torch.equal(value, before[name]) for name, value in model.reference.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert {name.partition(".")[0] for name, _ in model.averaged()} == {"network"}


def test_with_an_adapter_the_reference_is_the_network_without_it() -> None:
    model = learner(adapter=LoRA(rank=2))
    assert model.reference is None
    assert model.base_is_reference
    assert model.eval().rolled_out(None, stream(4)).divergence.tolist() == [0] * 4
    kept = {n: p.clone() for n, p in model.network.named_parameters() if not p.requires_grad}
    for _ in range(3):
        model.training_step(batch(8), 0)
    assert all(torch.equal(p, kept[n]) for n, p in model.network.named_parameters() if n in kept)
    assert float(model.said[-1]["train/kl"]) > 0  # type: ignore[index]


# --- what may not matter ----------------------------------------------------------------------------------------------


def steps(model: DiffusionPolicy, sizes: list[int]) -> Tensor:
    """The weights after batches of these sizes, accumulated into one step each time that they sum up to 8."""
    for size in sizes:
        model.accumulation.every = 8 // size
        model.accumulation.begin_batch()
        given = batch(8, label=True)
        begin = model.progress.examples % 8
        model.training_step({key: value[begin : begin + size] for key, value in given.items()}, 0)
        model.progress.examples += size
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


@pytest.mark.parametrize("advantages", ["batch", "condition"])
def test_batches_that_are_accumulated_are_one_batch(advantages: str) -> None:
    given = {"told": LABELS, "advantages": advantages, "minibatches": 2, "passes": 2}
    one, two = (steps(learner(**given), sizes) for sizes in ([8, 8], [4, 4, 4, 4]))
    assert torch.equal(one, two)
    assert not torch.equal(one, steps(learner(**given), []))


def test_a_sample_is_a_function_of_its_number() -> None:
    """Whatever batch it is drawn in."""
    seen: dict[str, Tensor] = {}
    for name, sizes in (("whole", [8]), ("halves", [4, 4])):
        drawn: list[Tensor] = []
        told = Given(lambda images, kept=drawn: kept.append(images) or images.flatten(1).sum(1))
        model = learner(rewards={"told": told}, optimizer=functools.partial(torch.optim.SGD, lr=0.0))
        for size in sizes:
            model.training_step(batch(size), 0)
            model.progress.examples += size
        seen[name] = torch.cat(drawn)
    torch.testing.assert_close(seen["whole"], seen["halves"], atol=1e-5, rtol=1e-5)
    assert len(seen["whole"].unique(dim=0)) == 8


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": DDIM(5, Karras())}, "model.sampler.eta=1"),
        ({"sampler": Ancestral(1, Karras())}, "num_steps=2 or more"),
        ({"rewards": {"brightness": Brightness(weight=0.0)}}, "Use model/rewards="),
        ({"rewards": {}}, "Use model/rewards="),
        ({"advantages": "condition"}, "Use model.advantages=batch"),
        ({"passes": 0}, "must be >= 1"),
        ({"clip": 0.0}, "model.clip=0.0 must be"),
        ({"advantage_clip": math.inf}, "model.advantage_clip=inf must be"),
        ({"kl_weight": -1.0}, "model.kl_weight=-1.0 must be"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        learner(**changes)
    assert "\n" not in str(error.value)


def test_a_reward_of_the_label_needs_one() -> None:
    class OfLabels(Brightness):
        reads = frozenset({"label"})

    learner(told=LABELS, rewards={"label": OfLabels()})
    with pytest.raises(ValueError, match=r"^model\.rewards\.label reads the label .*Use model\.conditions=\[label\]"):
        learner(rewards={"label": OfLabels()})


def test_minibatches_divide_the_batch() -> None:
    model = learner(minibatches=3)
    data = SimpleNamespace(batch_size=8, spec=SimpleNamespace(shape=SHAPE))
    with pytest.raises(ConfigError, match=r"minibatches=3 does not divide the 8 samples.*Use model\.minibatches=2$"):
        model.check_data(data)
    data.batch_size = 9
    model.check_data(data)
    with pytest.raises(ConfigError, match=r"minibatches=3 does not divide"):
        model.training_step(batch(4), 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_ends_the_run(value: float) -> None:
    model = learner(rewards={"odd": Given(lambda images: torch.full((len(images),), value), weight=0.0),
                             "brightness": Brightness()})  # fmt: skip
    with pytest.raises(
        NumericsError, match=rf"^model\.rewards\.odd gave {value}. That was a sample after 0 examples"
    ) as error:
        model.training_step(batch(4), 0)
    assert error.value.exit_code == 6


def test_a_reward_that_fails_ends_the_run_in_a_line() -> None:
    model = learner(rewards={"odd": Given(lambda images: images @ torch.zeros(3, 3))})
    with pytest.raises(NumericsError, match=r"^model\.rewards\.odd failed \(") as error:
        model.training_step(batch(4), 0)
    assert "\n" not in str(error.value)
    model = learner(rewards={"odd": Given(lambda images: images)})
    with pytest.raises(NumericsError, match=r"gave numbers of shape \(4, 1, 2, 2\) for 4: it has to give"):
        model.training_step(batch(4), 0)


# --- rewards ----------------------------------------------------------------------------------------------------------


def test_noise_has_a_larger_jpeg_file_than_gray() -> None:
    reward = JpegSize()
    noise = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sizes = reward.score(torch.cat([noise, torch.zeros(1, 3, 16, 16)]), None)
    assert float(sizes[:2].min()) > 1.3 * float(sizes[2]) > 0.5
    assert JpegSize(quality=10).score(noise[:, :1], None).shape == (2,)
    assert float(JpegSize(quality=10).score(noise, None)[0]) < float(sizes[0])
    with pytest.raises(ConfigError, match="2 channels"):
        reward.check(SimpleNamespace(spec=SimpleNamespace(shape=(2, 4, 4))))


def test_the_probability_of_the_label_by_hand() -> None:
    class Classifier(nn.Module):
        shape, num_classes = SHAPE, 3

        def features(self, x: Tensor) -> Tensor:
            return x.flatten(1)

        def logits(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3]

    images, label = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, -1])
    log_prob = images.flatten(1)[:, :3].log_softmax(dim=1)
    wanted = torch.stack([log_prob[0, 2], log_prob[1, 0], torch.zeros(())])
    torch.testing.assert_close(LabelProbability(Classifier()).score(images, {"label": label}), wanted)
    found = LabelProbability(Classifier(), logarithm=False).score(images, {"label": label})
    torch.testing.assert_close(found[:2], wanted[:2].exp())
    spec = SimpleNamespace(shape=SHAPE, condition={"label": SimpleNamespace(size=4)})
    with pytest.raises(
        ConfigError, match=r"with 3 labels, the data have \(1, 2, 2\) with 4\. Name a run of model=classifier"
    ):
        LabelProbability(Classifier()).check(SimpleNamespace(spec=spec))
    spec.condition["label"].size = 3
    LabelProbability(Classifier()).check(SimpleNamespace(spec=spec))


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_learns_to_draw_what_is_rewarded() -> None:
    """A model of normal pictures learns to draw brighter ones; and the validation loss says so."""
    adam = functools.partial(torch.optim.Adam, lr=3e-3)
    model = learner(optimizer=adam, sampler=Ancestral(5, Karras(0.1, 10.0)), clip=0.01)
    pictures = 0.3 * torch.randn(1024, *SHAPE, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(model.network.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(100):
        optimizer.zero_grad()
        model.objective.loss(model.network, pictures[torch.randint(1024, (128,))], None, 0.0).backward()
        optimizer.step()
    assert model.reference is not None
    model.reference.load_state_dict(model.network.state_dict())
    torch.manual_seed(1)
    before = model.losses(batch(256))["loss"]
    for _ in range(20):
        model.training_step(batch(64), 0)
        model.progress.examples += 64
    torch.manual_seed(1)
    after = model.losses(batch(256))
    assert float(after["loss"]) == -float(after["reward_brightness"])
    assert float(before - after["loss"]) > 0.1
    told: Any = model.said
    assert float(told[-1]["train/reward"] - told[0]["train/reward"]) > 0.1
    assert float(told[-1]["train/kl"]) > 0
