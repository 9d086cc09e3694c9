"""Every guidance against its formula, on a mixture of Gaussians whose denoisers have closed forms."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gaussian import Function, ideal
from torch import Tensor, nn

from genlab.config.build import build
from genlab.config.tree import ConfigTree, resolved
from genlab.errors import ConfigError
from genlab.model.base import LeadsAway
from genlab.model.diffusion import Diffusion
from genlab.model.guidance.apg import AdaptiveProjectedGuidance
from genlab.model.guidance.autoguidance import Autoguidance
from genlab.model.guidance.classifier import ClassifierGuidance
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.guidance.each import EachCondition
from genlab.model.guidance.interval import Interval
from genlab.model.guidance.none import NoGuidance
from genlab.model.guidance.perturbed_attention import PerturbedAttention, values_passed
from genlab.model.guidance.score import ScoreGuidance
from genlab.model.latent_diffusion import LatentDiffusion
from genlab.model.network.dit import DiT
from genlab.model.network.mlp import MLP
from genlab.model.network.mmdit import MMDiT
from genlab.model.network.unet import UNet
from genlab.model.objective.edm import EDM
from genlab.model.parts import DenoisingObjective, Sampler
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.consistency import Consistency as ConsistencySampler
from genlab.model.sampler.grid import Karras
from genlab.model.sampler.heun import Heun
from genlab.model.schedule import Constant
from genlab.rewards.pictures import Brightness, JpegSize
from genlab.seeding import RandomStream

SHAPE = (1, 2, 2)
TOLD = {"label": {"size": 3}, "caption": {"size": 3, "length": 1, "names": ["", "low", "high"]}}
CENTERS = torch.tensor([[-0.6, 0.2, 0.1, -0.3], [0.5, 0.4, -0.2, 0.1], [0.1, -0.7, 0.6, 0.2],
                        [-0.1, 0.8, 0.3, -0.8], [0.9, -0.2, 0.4, 0.5], [-0.4, -0.1, -0.9, 0.7]])  # fmt: skip
SHARES = torch.tensor([0.1, 0.2, 0.15, 0.25, 0.2, 0.1])
ASKED = {"label": torch.tensor([0, 1, 2, -1]), "caption": torch.tensor([[1], [2], [0], [1]])}


def allowed(condition: Mapping[str, Tensor] | None, rows: int) -> Tensor:
    """Which of the six components each row may be of: of label i, 2 i and 2 i + 1; of the word w, every second."""
    components = torch.arange(6)
    found = torch.ones(rows, 6, dtype=torch.bool)
    if condition is not None:
        label, word = condition["label"][:, None], condition["caption"]
        found &= (label < 0) | (components // 2 == label)
        found &= (word == 0) | (components % 2 == word - 1)
    return found


def weights(x: Tensor, sigma: Tensor, std: float, condition: Mapping[str, Tensor] | None) -> Tensor:
    """log p(component, x; sigma | condition), but for a constant. -> (N, 6)."""
    square = (x.flatten(1)[:, None] - CENTERS.to(x.dtype)).square().sum(dim=2)
    nats = SHARES.to(x.dtype).log() - square / (2 * (std**2 + sigma**2))[:, None]
    return nats.masked_fill(~allowed(condition, len(x)), -torch.inf)


class Mixture(nn.Module):
    """D(x; sigma) of the components that are asked for."""

    def __init__(self, std: float = 0.2):
        super().__init__()
        self.std = std
        self.rows: list[int] = []

    def forward(self, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        self.rows.append(len(x))
        share = weights(x, sigma, self.std, condition).softmax(dim=1)  # (N, 6)
        gain = self.std**2 / (self.std**2 + sigma**2)
        y = x.flatten(1)[:, None]
        means = CENTERS.to(x.dtype) + gain[:, None, None] * (y - CENTERS.to(x.dtype))  # (N, 6, 4)
        return (share[:, :, None] * means).sum(dim=1).view_as(x)


class Direct:
    """An objective whose network is the denoiser."""

    def loss(self, network: nn.Module, x: Tensor, condition: Any, progress: float) -> Tensor:
        raise NotImplementedError

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        return network(x, sigma, condition)


class Posterior(nn.Module):
    """log p(label | x; sigma), by Bayes' rule."""

    noise = "any"
    shape = SHAPE
    num_classes = 3

    def configure_model(self) -> None:
        pass

    def condition_log_prob(self, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        word = {**condition, "label": torch.full_like(condition["label"], -1)}
        of_label = weights(x, sigma, 0.2, condition).logsumexp(dim=1)
        return of_label - weights(x, sigma, 0.2, word).logsumexp(dim=1)


class SimpleModule(nn.Module):
    """An autoencoder, as far as its shape."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape


class Linear:
    """r(x), the inner product with a constant."""

    along = torch.tensor([0.3, -0.1, 0.2, 0.5]).view(SHAPE)

    def score(self, images: Tensor, condition: Any) -> Tensor:
        return (images * self.along).flatten(1).sum(dim=1)


def diffusion(guidance: Any = None, std: float = 0.2, **changes: Any) -> Diffusion:
    arguments: dict[str, Any] = {
        "network": lambda: Mixture(std),
        "objective": Direct(),
        "sampler": Heun(4, Karras(0.05, 5.0)),
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "schedule": Constant(),
        "shape": SHAPE,
        "told": TOLD,
        "conditions": ["label", "caption"],
        "condition_dropout": {"label": 0.1, "caption": 0.1},
    }
    model = Diffusion(guidance=guidance, **{**arguments, **changes})
    model.configure_model()
    return model.eval()


def weak() -> Diffusion:
    return diffusion(std=0.5)


GUIDERS: dict[str, tuple[Callable[..., Any], float]] = {  # how one is made, and its strength that changes nothing
    "classifier_free": (ClassifierFree, 1.0),
    "interval": (functools.partial(Interval, low=0.1, high=2.0), 1.0),
    "autoguidance": (lambda strength=2.0: Autoguidance(weak(), strength), 1.0),
    "apg": (AdaptiveProjectedGuidance, 1.0),
    "classifier": (lambda strength=1.5: ClassifierGuidance(Posterior(), strength), 0.0),
    "score": (lambda strength=0.7: ScoreGuidance(Linear(), strength), 0.0),
}
MODEL = Mixture()
X = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.1, 0.4, 1.0, 3.0])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GUIDERS)
def test_the_neutral_strength_is_the_model_itself_at_its_cost(name: str) -> None:
    make, neutral = GUIDERS[name]
    plain, guided, other = diffusion(), diffusion(make(neutral)), diffusion(make())
    drawn = [model.sample(4, ASKED, RandomStream.for_samples(0, range(4))) for model in (plain, guided, other)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-3)
    assert guided.evaluations == plain.evaluations == sum(guided.network.rows) == 4 * 7  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GUIDERS)
def test_a_sample_is_the_same_in_any_batch_and_at_any_time(name: str) -> None:
    model = diffusion(GUIDERS[name][0]())
    whole = model.sample(4, ASKED, RandomStream.for_samples(0, range(4)))
    parts = [slice(0, 1), slice(1, 4)]
    again = [
        model.sample(len(range(4)[part]), {key: value[part] for key, value in ASKED.items()},
                     RandomStream.for_samples(0, range(4)[part]))
        for part in parts
    ]  # fmt: skip
    close(torch.cat(again), whole)
    assert torch.equal(model.sample(4, ASKED, RandomStream.for_samples(0, range(4))), whole)


def test_autoguidance_extrapolates_from_the_weak_model() -> None:
    model = diffusion(Autoguidance(weak(), 3.0))
    worse = Mixture(0.5)(X, SIGMA, ASKED)
    close(model.denoiser(ASKED)(X, SIGMA), worse + 3 * (MODEL(X, SIGMA, ASKED) - worse))
    assert model.evaluations == 8, "both networks count"
    free = Mixture(0.5)(X, SIGMA, None)
    close(model.denoiser(None)(X, SIGMA), free + 3 * (MODEL(X, SIGMA, None) - free))


def test_a_weak_model_is_not_guided_itself() -> None:
    guided = diffusion(ClassifierFree(9.0), std=0.5)
    close(diffusion(Autoguidance(guided, 3.0)).denoiser(ASKED)(X, SIGMA),
          diffusion(Autoguidance(weak(), 3.0)).denoiser(ASKED)(X, SIGMA))  # fmt: skip


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_exact_classifier_is_classifier_free_guidance(strength: float) -> None:
    """By Bayes' rule sigma^2 grad log p(y | x) = D_y - D, so that w of it added to D_y is classifier-free 1 + w."""
    asked = {"label": ASKED["label"], "caption": torch.zeros(4, 1, dtype=torch.long)}
    x = X + 0.5
    by_classifier = diffusion(ClassifierGuidance(Posterior(), strength))
    with torch.inference_mode():
        found = by_classifier.denoiser(asked)(x, SIGMA)
    close(found, diffusion(ClassifierFree(1 + strength)).denoiser(asked)(x, SIGMA))
    assert by_classifier.evaluations == 4
    assert not found.requires_grad


def test_a_classifier_guides_no_row_without_a_label() -> None:
    model = diffusion(ClassifierGuidance(Posterior(), 2.0))
    assert torch.equal(model.denoiser(ASKED)(X, SIGMA)[3], MODEL(X, SIGMA, ASKED)[3])
    assert torch.equal(model.denoiser(None)(X, SIGMA), MODEL(X, SIGMA, None))


def test_a_score_moves_by_its_gradient() -> None:
    """Of a Gaussian D is linear, and the slope of a linear score is the gain times its direction."""
    model = diffusion(
        ScoreGuidance(Linear(), 0.7), network=lambda: Function(ideal), told={}, conditions=None, condition_dropout=0.1
    )
    gain = 0.5**2 / (0.5**2 + SIGMA**2)
    moved = (0.7 * SIGMA**2 * gain)[:, None, None, None] * Linear.along
    with torch.inference_mode():
        found = model.denoiser(None)(X, SIGMA)
    close(found, ideal(X, SIGMA) + moved)
    assert not found.requires_grad


def test_a_score_leaves_the_weights_their_gradients() -> None:
    """A family that learns from its own samples takes gradients through what guidance gives."""
    model = diffusion(
        ScoreGuidance(Brightness(), 0.7),
        network=lambda: nn.Sequential(),
        told={},
        conditions=None,
        condition_dropout=0.1,
    )
    scale = torch.tensor(0.5, requires_grad=True)
    model.objective.denoise = lambda network, x, sigma, condition: scale * x  # type: ignore[method-assign]
    model.denoiser(None)(X, SIGMA).sum().backward()
    assert scale.grad is not None
    close(scale.grad, X.sum())


def test_each_condition_has_its_weight() -> None:
    nothing = {"label": torch.full((4,), -1), "caption": torch.zeros(4, 1, dtype=torch.long)}
    free = MODEL(X, SIGMA, nothing)
    by_label = MODEL(X, SIGMA, {**nothing, "label": ASKED["label"]}) - free
    by_caption = MODEL(X, SIGMA, {**nothing, "caption": ASKED["caption"]}) - free
    model = diffusion(EachCondition({"label": 2.0, "caption": -0.5}))
    close(model.denoiser(ASKED)(X, SIGMA), free + 2 * by_label - 0.5 * by_caption)
    assert (model.evaluations, model.network.rows) == (12, [12])
    close(diffusion(EachCondition(3.0)).denoiser(ASKED)(X, SIGMA), free + 3 * by_label + 3 * by_caption)
    close(diffusion(EachCondition(3.0)).denoiser({"label": ASKED["label"]})(X, SIGMA), free + 3 * by_label)
    alone = diffusion(EachCondition({"label": 1.0, "caption": 0.0}))
    assert torch.equal(alone.denoiser(ASKED)(X, SIGMA), MODEL(X, SIGMA, {**nothing, "label": ASKED["label"]}))
    assert torch.equal(diffusion(EachCondition(0.0)).denoiser(ASKED)(X, SIGMA), free)
    assert alone.evaluations == 4


def by_algorithm_1(told: Tensor, untold: Tensor, before: Tensor, w: float, eta: float, r: float, beta: float) -> Any:
    """Adaptive projected guidance of one example, as the paper has it, in float64. -> what is guided, the average."""
    told, untold = told.double().flatten(), untold.double().flatten()
    average = told - untold + beta * before
    difference = average * min(1.0, r / float(average.norm()))
    direction = told / told.norm()
    parallel = torch.dot(difference, direction) * direction
    return told + (w - 1) * (difference - parallel + eta * parallel), average


def test_apg_is_its_algorithm_over_a_trajectory() -> None:
    model = diffusion(AdaptiveProjectedGuidance(5.0, eta=0.3, norm_threshold=0.4, momentum=-0.6))
    denoise = model.denoiser(ASKED)
    nothing = {"label": torch.full((4,), -1), "caption": torch.zeros(4, 1, dtype=torch.long)}
    before = torch.zeros(4, 4, dtype=torch.float64)
    lengths = []
    for step, sigma in enumerate((2.0, 1.0, 0.4)):
        x, level = X + 0.1 * step, torch.full((4,), sigma)
        told, untold = MODEL(x, level, ASKED), MODEL(x, level, nothing)
        expected = [by_algorithm_1(told[i], untold[i], before[i], 5.0, 0.3, 0.4, -0.6) for i in range(4)]
        before = torch.stack([average for _, average in expected])
        lengths.append(before.norm(dim=1))
        close(denoise(x, level), torch.stack([row for row, _ in expected]).float().view_as(x))
    limited = torch.cat(lengths) > 0.4
    assert limited.any()
    assert not limited.all()


def test_apg_without_its_changes_is_classifier_free() -> None:
    plain = AdaptiveProjectedGuidance(3.0, eta=1.0, norm_threshold=0.0, momentum=0.0)
    close(diffusion(plain).denoiser(ASKED)(X, SIGMA), diffusion(ClassifierFree(3.0)).denoiser(ASKED)(X, SIGMA))
    same = {key: value[-1:] for key, value in ASKED.items()}
    nowhere = diffusion(AdaptiveProjectedGuidance(3.0, norm_threshold=1.0, momentum=0.0))
    nothing = {"label": torch.tensor([-1]), "caption": torch.zeros(1, 1, dtype=torch.long)}
    assert nowhere.denoiser(nothing)(X[:1], SIGMA[:1]).isfinite().all(), "of no difference, too"
    assert nowhere.denoiser(same)(torch.zeros(1, *SHAPE), SIGMA[:1]).isfinite().all()


RANGED = ["autoguidance", "apg", "classifier", "score"]


@pytest.mark.parametrize("name", RANGED)
def test_guidance_keeps_to_its_noise_levels(name: str) -> None:
    make = {
        "autoguidance": lambda **ends: Autoguidance(weak(), 3.0, **ends),
        "apg": lambda **ends: AdaptiveProjectedGuidance(3.0, **ends),
        "classifier": lambda **ends: ClassifierGuidance(Posterior(), 2.0, **ends),
        "score": lambda **ends: ScoreGuidance(Linear(), 2.0, **ends),
    }[name]
    everywhere, model = diffusion(make()), diffusion(make(low=0.3, high=1.5))
    plain, guided = MODEL(X, SIGMA, ASKED), everywhere.denoiser(ASKED)(X, SIGMA)
    close(model.denoiser(ASKED)(X, SIGMA), torch.stack([plain[0], guided[1], guided[2], plain[3]]))
    model.evaluations = 0
    outside = torch.full((4,), 3.0)
    assert torch.equal(model.denoiser(ASKED)(X, outside), MODEL(X, outside, ASKED))
    assert model.evaluations == 4, "outside, a call costs what it costs without guidance"


# --- perturbed attention ----------------------------------------------------------------------------------------------

LABELS = {"label": {"size": 3}}
NETWORKS: dict[str, Callable[..., Any]] = {
    "unet": functools.partial(UNet, (1, 8, 8), channels=8, channel_mult=(1, 1), attention_resolutions=(8,), num_heads=2,
                              num_blocks=1, dropout=0.0),
    "dit": functools.partial(DiT, (1, 8, 8), width=16, depth=3, num_heads=2),
    "mmdit": functools.partial(MMDiT, (1, 8, 8), width=16, depth=3, num_heads=2),
}  # fmt: skip
LAYERS = {"unet": 4, "dit": 3, "mmdit": 3}


def attentive(name: str, guidance: Any = None, **changes: Any) -> Diffusion:
    model = diffusion(guidance, network=NETWORKS[name], objective=EDM(), shape=(1, 8, 8), told=LABELS,
                      conditions=["label"], condition_dropout=0.1, **changes)  # fmt: skip
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_perturbed_attention_leads_away_from_values_alone(name: str) -> None:
    x, sigma, asked = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 1.0]), {"label": torch.tensor([0, 2])}
    model = attentive(name, PerturbedAttention(3.0))
    layers = PerturbedAttention().perturbed_in(model.network)
    found = [module for module in model.network.modules() if hasattr(module, "passes_values")]
    assert (len(found), layers) == (LAYERS[name], [found[(LAYERS[name] - 1) // 2]])
    with torch.no_grad():
        for condition in (asked, None):
            model.guidance = NoGuidance()
            clean = model.denoiser(condition)(x, sigma)
            with values_passed(layers):
                perturbed = model.denoiser(condition)(x, sigma)
            model.guidance, model.evaluations = PerturbedAttention(3.0), 0
            close(model.denoiser(condition)(x, sigma), clean + 3 * (clean - perturbed))
            assert model.evaluations == 4
            assert not torch.allclose(clean, perturbed, atol=1e-4)
        model.guidance, model.evaluations = PerturbedAttention(0.0), 0
        assert torch.equal(model.denoiser(None)(x, sigma), clean)
        assert model.evaluations == 2
    assert not any(layer.passes_values for layer in found)


def test_self_attention_of_values_alone_by_hand() -> None:
    (layer,) = PerturbedAttention(layers=[0]).perturbed_in(attentive("dit").network)
    x = torch.randn(2, 5, 16)
    value = x @ layer.qkv.weight[32:].T + layer.qkv.bias[32:]
    with values_passed([layer]):
        close(layer(x), layer.out(value))


def test_image_tokens_of_both_streams_heed_themselves_alone_and_words_heed_all() -> None:
    block = attentive("mmdit").network.blocks[0]  # type: ignore[union-attr, index]
    image, text, seen, told = torch.randn(1, 6, 16), torch.randn(1, 2, 16), torch.ones(1, 2).bool(), torch.randn(1, 16)
    other = image.clone()
    other[:, 3] = torch.randn(16)
    with torch.no_grad(), values_passed([block]):
        (first, words), (second, others) = block(image, text, seen, told), block(other, text, seen, told)
        deaf, _ = block(image, torch.randn(1, 2, 16), seen, told)
    changed = (first - second).abs().sum(dim=2)[0] > 1e-6
    assert changed.tolist() == [False, False, False, True, False, False]
    assert torch.equal(first, deaf)
    assert not torch.allclose(words, others)


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_perturbed_sample_is_the_same_in_any_batch(name: str) -> None:
    model = attentive(name, PerturbedAttention(1.5), sampler=Ancestral(3, Karras(0.1, 5.0)))
    whole = model.sample(3, None, RandomStream.for_samples(0, range(3)))
    for i in range(3):
        close(model.sample(1, None, RandomStream.for_samples(0, [i])), whole[i : i + 1])


# --- what does not fit ------------------------------------------------------------------------------------------------


def consistency(**changes: Any) -> Any:
    ended = SimpleNamespace(denoises_to_the_end=True, loss=None, denoise=Direct().denoise)
    return diffusion(objective=ended, sampler=ConsistencySampler(2, Karras()), **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: consistency(guidance=Autoguidance(weak())), "this model was trained with model/objective=consistency"),
        (lambda: diffusion(Autoguidance(consistency())), "the run of model.guidance.weak was trained with"),
        (lambda: consistency(guidance=ClassifierGuidance(Posterior())), "D of model/objective=consistency is none"),
        (lambda: consistency(guidance=ScoreGuidance(Linear())), "D of model/objective=consistency is none"),
        (lambda: diffusion(Autoguidance(diffusion(shape=(1, 4, 4)))), r"shape \(1, 4, 4\), this model on \(1, 2, 2\)"),
        (lambda: diffusion(Autoguidance(diffusion(told=LABELS, conditions=None, condition_dropout=0.1))),
         r"other conditions \(label of 3\) than this model \(label of 3 and caption of 3\)"),
        (lambda: diffusion(AdaptiveProjectedGuidance(), condition_dropout=0.0), "condition_dropout above 0"),
        (lambda: AdaptiveProjectedGuidance(norm_threshold=-1.0), "norm_threshold=-1.0 is a length"),
        (lambda: AdaptiveProjectedGuidance(momentum=1.0), r"momentum=1.0 is outside \(-1, 1\)"),
        (lambda: AdaptiveProjectedGuidance(low=2.0, high=1.0), "0 <= low <= high"),
        (lambda: PerturbedAttention(layers=[]), "names no layer"),
        (lambda: diffusion(ScoreGuidance(JpegSize())), "is a JpegSize, which has no gradient"),
        (lambda: diffusion(EachCondition({"label": 2.0})), r"strength=\{label:2.0,caption:0\}', where 0 leaves it out"),
        (lambda: diffusion(EachCondition({"label": 2.0, "size": 1.0})), "the model is not conditioned on a size"),
        (lambda: diffusion(EachCondition(), condition_dropout=0.1), r"condition_dropout=\{label:0.1,caption:0.1\}"),
        (lambda: diffusion(EachCondition(), condition_dropout={"label": 0.1}), "on each condition without the others"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("changes", "message"), [
    ({"noise": None}, "was trained on clean images"),
    ({"shape": (3, 8, 8)}, r"images of shape \(3, 8, 8\) with 3 labels"),
    ({"num_classes": 10}, r"with 10 labels, this model on \(1, 2, 2\) with 3"),
])  # fmt: skip
def test_another_classifier_is_refused(changes: dict[str, Any], message: str) -> None:
    classifier = Posterior()
    for name, value in changes.items():
        setattr(classifier, name, value)
    with pytest.raises(ValueError, match=message):
        diffusion(ClassifierGuidance(classifier))


def test_a_network_without_these_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a MLP has none\. Use model/guidance=classifier_free, or a network"):
        diffusion(
            PerturbedAttention(),
            network=functools.partial(MLP, SHAPE, width=8),
            told=LABELS,
            conditions=None,
            condition_dropout=0.1,
        )
    with pytest.raises(ConfigError, match=r"layer 3 .* has 3, counted from 0\. Use model\.guidance\.layers=\[0\]"):
        attentive("dit", PerturbedAttention(layers=[1, 3]))


def test_momentum_is_not_for_steps_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Diffusion, "repeats_steps", True)
    with pytest.raises(ValueError, match=r"Use model\.guidance\.momentum=0"):
        diffusion(AdaptiveProjectedGuidance())
    diffusion(AdaptiveProjectedGuidance(momentum=0.0))


def test_latents_are_no_pictures() -> None:
    latent = functools.partial(LatentDiffusion, SimpleModule(SHAPE), lambda: Mixture(), Direct(), Heun(2, Karras()),
                               torch.optim.AdamW, Constant(), SHAPE, SHAPE, TOLD)  # fmt: skip
    for guidance in (ClassifierGuidance(Posterior()), ScoreGuidance(Linear())):
        with pytest.raises(ValueError, match=r"draws latents\. Use model/guidance=classifier_free\."):
            latent(guidance=guidance)
    latent(guidance=ClassifierFree())


# --- a negative prompt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [ClassifierFree(3.0), Interval(3.0), AdaptiveProjectedGuidance(3.0)])
def test_a_negative_condition_stands_in_place_of_none(guidance: Any) -> None:
    model = diffusion(guidance)
    model.avoid({"label": torch.tensor([2])})
    away = {"label": torch.full((4,), 2), "caption": torch.zeros(4, 1, dtype=torch.long)}
    expected = guidance.guide(MODEL, ASKED, away)(X, SIGMA)
    close(model.denoiser(ASKED)(X, SIGMA), expected)
    assert not torch.allclose(expected, diffusion(guidance).denoiser(ASKED)(X, SIGMA), atol=1e-3)
    assert isinstance(guidance, LeadsAway)


@pytest.mark.parametrize("guidance", [
    NoGuidance(), ClassifierFree(1.0), Interval(1.0), EachCondition(), PerturbedAttention(0.0),
    GUIDERS["autoguidance"][0](), GUIDERS["classifier"][0](), GUIDERS["score"][0](),
])  # fmt: skip
def test_guidance_away_from_nothing_takes_no_negative_condition(guidance: Any) -> None:
    model = diffusion()
    model.guidance = guidance
    with pytest.raises(
        ConfigError, match=r"negative= and negative_label= .* Use model/guidance=classifier_free, of a run"
    ) as found:
        model.avoid({"label": torch.tensor([2])})
    assert "\n" not in str(found.value)


# --- every objective and sampler --------------------------------------------------------------------------------------

OBJECTIVES = ("edm", "ddpm", "ddpm_v", "ddpm_x0", "flow_matching", "consistency")
SAMPLERS = ("ancestral", "consistency", "ddim", "dpm_solver", "euler", "heun")
OF_UNETS: dict[str, Callable[[], Any]] = {
    "none": NoGuidance,
    "classifier_free": ClassifierFree,
    "interval": lambda: Interval(2.0, 0.1, 2.0),
    "autoguidance": lambda: Autoguidance(attentive("unet")),
    "apg": AdaptiveProjectedGuidance,
    "perturbed_attention": PerturbedAttention,
    "classifier": lambda: ClassifierGuidance(Ringed()),
    "score": lambda: ScoreGuidance(Brightness()),
    "each": EachCondition,
}
NO_MEAN = {"autoguidance", "classifier", "score"}  # what needs an expected image
PAIRWISE = {
    ("autoguidance", "edm", "heun"), ("apg", "ddpm", "ddim"), ("perturbed_attention", "edm", "heun"),
    ("classifier", "ddpm", "ddim"), ("score", "edm", "heun"), ("each", "ddpm", "ddim"),
    ("score", "consistency", "consistency"), ("apg", "consistency", "consistency"),
}  # fmt: skip


class Ringed(Posterior):
    """A classifier of images of 8 x 8, of no meaning."""

    shape = (1, 8, 8)

    def condition_log_prob(self, x: Tensor, sigma: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        logits = torch.stack([x.mean(dim=(1, 2, 3)) * k / (1 + sigma) for k in range(3)], dim=1)
        nats = logits.log_softmax(dim=1).gather(1, condition["label"].clamp(min=0)[:, None])[:, 0]
        return torch.where(condition["label"] < 0, 0.0, nats)


@functools.cache
def composed(objective: str, sampler: str) -> dict[str, Any]:
    typed = (f"model/objective={objective}", f"model/sampler={sampler}", "model.sampler.num_steps=3")
    model = ConfigTree().compose(["data=digits", *typed]).model
    return {name: resolved(model[name]) for name in ("objective", "sampler")}


def objective_and_sampler(objective: str, sampler: str) -> dict[str, Any]:
    node = composed(objective, sampler)
    return {
        "objective": build(node["objective"], DenoisingObjective, "objective"),
        "sampler": build(node["sampler"], Sampler, "sampler"),
    }


@pytest.mark.parametrize(("guider", "objective", "sampler"), [
    pytest.param(*three, id="-".join(three), marks=[] if three in PAIRWISE else [pytest.mark.matrix])
    for three in itertools.product(OF_UNETS, OBJECTIVES, SAMPLERS)
])  # fmt: skip
def test_every_guidance_with_every_objective_and_sampler(guider: str, objective: str, sampler: str) -> None:
    pair = [objective == "consistency", sampler == "consistency"]
    fits = not any(pair) or (all(pair) and guider not in NO_MEAN)

    def drawn() -> Tensor:
        parts = objective_and_sampler(objective, sampler)
        model = diffusion(OF_UNETS[guider](), network=NETWORKS["unet"], shape=(1, 8, 8), told=LABELS,
                          conditions=["label"], condition_dropout=0.1, **parts)  # fmt: skip
        return model.sample(2, {"label": torch.tensor([0, 2])}, RandomStream.for_samples(0, range(2)))

    if fits:
        assert drawn().isfinite().all()
        return
    with pytest.raises(ValueError, match=r"\w\. (Use|Choose) ") as refused:
        drawn()
    assert "\n" not in str(refused.value)


def test_the_mixture_has_the_scores_of_its_density() -> None:
    """D = x + sigma^2 grad log p(x; sigma), by automatic differentiation."""
    x = X.clone().requires_grad_()
    nats = weights(x, SIGMA, 0.2, ASKED).logsumexp(dim=1).sum()
    (score,) = torch.autograd.grad(nats, x)
    close(MODEL(X, SIGMA, ASKED), X + (SIGMA**2)[:, None, None, None] * score)
    assert math.isclose(float(SHARES.sum()), 1.0, rel_tol=1e-6)
