"""Every family keeps the contract: it composes, trains, saves, is stopped and goes on bit-exactly, alone and in pairs.

So does a toy that asks more of it: a frozen network beside the trained one, samples drawn inside the training step, and
a condition that is a sequence. Families are found in the config tree.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.config.tree import ConfigTree
from genlab.model.base import (
    Classifies,
    ComparesCaptions,
    GenerativeModel,
    HasCaptionLikelihood,
    HasFeatures,
    HasLikelihood,
    HasPseudoLikelihood,
)
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.run import run_folder
from genlab.run.load import load_run
from test_ddp import finish
from text import text_file
from tiny_run import SignalAt, families, only_run, popen, resume, same, small, train

FAMILIES = families()
STOPS = {"first_step": 0, "mid_epoch": 16, "last_of_an_epoch": 32}
# Every family is stopped once by `make test`, in turn at each of these; `make matrix` has the other two.
STOPPED = [
    pytest.param(family, stop, id=f"{family}-{name}", marks=[pytest.mark.matrix] if (i - j) % len(STOPS) else [])
    for i, family in enumerate(FAMILIES)
    for j, (name, stop) in enumerate(STOPS.items())
]
TOY_CONFIG = """# A model of the tests.
defaults:
  - schedule: constant
  - _self_

_target_: toy_model.Toy
optimizer:
  _target_: torch.optim.AdamW
  _partial_: true
  lr: 1e-2
shape: ${spec.shape}
vocabulary: ${spec.condition.caption.size}
seed: ${seed}
"""
SHAPES = ("data=shapes", "data.image_size=16", "data.num_train=40", "data.num_val=8", "data.limit=null")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=vae", "model.latent_shape=[2,4,4]"), outputs=tmp_path_factory.mktemp("autoencoder"))


@pytest.fixture(scope="module")
def toy_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder of configs."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "model").mkdir()
    (folder / "model" / "toy.yaml").write_text(TOY_CONFIG)
    return folder


# All that StyleGAN2 draws, each penalty in every other step.
STYLES = (
    "model/augment=ada",
    "model.augment.p=0.5",
    "model.augment.kimg=0.1",
    "model.generator.style_mixing=0.9",
    "model/generator_penalty=path_length",
    "model.generator_penalty.every=2",
    "model.objective.penalty.every=2",
)


@pytest.fixture(scope="module")
def overrides(autoencoder: Path) -> Any:
    def of(family: str) -> tuple[str, ...]:
        needed = (f"model.autoencoder={autoencoder}",) if family == "latent_diffusion" else ()
        # Some chance of everything that chance touches.
        chance = {
            "gan": ("model/augment=diffaugment", "model.discriminator_steps=2"),
            "stylegan2": STYLES,
            "progan": ("model.growth.fade=24", "model.growth.stable=16"),
            "contrastive": ("model/encoder=resnet18",),
            "self_distillation": ("model/objective=dino", "model.objective.held=0.2", "model/encoder=resnet18"),
            "transformer": ("model/optimizer=muon", "model.network.dropout=0.3"),
            "masked_language": ("model.network.dropout=0.3",),
        }
        return small(f"model={family}", *needed, *chance.get(family, ()))

    return of


@pytest.fixture(scope="module")
def never_stopped(overrides: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(family: str) -> Path:
        return train(*overrides(family), outputs=tmp_path_factory.mktemp(family))

    return run


def state(run: Path) -> dict[str, Any]:
    """All of a checkpoint that training depends on, but for the clock and what callbacks say."""
    content = dict(read.newest(run).content)
    content["progress"] = content["progress"] | {"seconds": None}
    kept = {"state_dict", "ema", "optimizer_states", "progress", "discriminator_steps_made", "augment"}
    return {key: value for key, value in content.items() if key in kept}


@pytest.mark.parametrize(("family", "stop"), STOPPED)
def test_stopped_and_continued(family: str, stop: int, overrides: Any, never_stopped: Any, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*overrides(family), SignalAt.override(stop), outputs=tmp_path)
    run = only_run(tmp_path)
    assert read.newest(run).progress.examples == stop + 8
    resume(run)
    assert same(state(run), state(never_stopped(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_is(family: str, never_stopped: Any) -> None:
    run = never_stopped(family)
    model, weights = load_run(run_config(run), run)
    assert weights == "ema"
    assert set(read.newest(run).content["ema"]) <= set(model.state_dict())
    if isinstance(model, ComparesCaptions):
        images, captions = torch.zeros(3, 3, 16, 16), torch.tensor([[1, 2, 0, 0]] * 3)
        assert model.embed_images(images).shape == model.embed_captions(captions).shape == (3, model.width)
        return
    if isinstance(model, HasPseudoLikelihood):
        nats = model.pseudo_log_probs(torch.zeros(3, 16, dtype=torch.long))
        assert nats.shape == (3, 16)
        assert torch.isfinite(nats).all()
        return
    if not isinstance(model, GenerativeModel):
        assert isinstance(model, HasFeatures)
        if not isinstance(model, Classifies):
            assert model.features(torch.zeros(3, 1, 16, 16)).shape == (3, model.encoder.num_features)
            return
        assert model.logits(torch.zeros(3, 1, 16, 16)).shape == (3, 10)
        return
    if isinstance(model, HasCaptionLikelihood):
        pictures = {"image": torch.zeros(3, 3, 16, 16)}
        captions = model.sample(3, pictures)
        assert captions.shape == (3, 4)
        assert torch.isfinite(model.caption_log_probs(captions, pictures)).all()
        assert model.sample(3).shape == (3, 4)
        return
    label = {"label": torch.tensor([0, 1, -1])} if model.num_classes is not None else None
    images = model.sample(3, label)
    assert images.shape == (3, 1, 16, 16)
    assert torch.isfinite(images).all()
    if isinstance(model, HasLikelihood) and model.likelihood_kind != "estimate":
        nats = model.log_likelihood(images.clamp(-1, 0.99), label)
        assert nats.shape == (3,)
        assert torch.isfinite(nats).all()


# What draws, where it is not called `network`; and what a sample costs: two steps of DPM-Solver, 16 x 16 pixels, two of
# unmasking, an inverse and a denoising.
DRAWS = {"gan": "generator", "stylegan2": "generator", "progan": "generator", "vae": "decoder", "vq_vae": "decoder",
         "factor_vae": "decoder",
         "hierarchical_vae": "ladder", "latent_diffusion": "diffusion.network", "captioner": "decoder"}  # fmt: skip
COST = {"diffusion": 2, "latent_diffusion": 2, "transformer": 256, "masked": 2, "flow": 2}


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_evaluation_is_counted(
    family: str, guidance: float, never_stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = never_stopped(family)
    model, _ = load_run(run_config(run), run)
    guided = model.diffusion if family == "latent_diffusion" else model
    if not isinstance(model, GenerativeModel) or (guidance != 1 and not hasattr(guided, "guidance")):
        return
    network: Any = model.get_submodule(DRAWS.get(family, "network"))
    rows: list[int] = []

    def watched(name: str) -> None:
        original = getattr(network, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            rows.append(len(result[0] if isinstance(result, tuple) else result))
            return result

        monkeypatch.setattr(network, name, call)

    watched("forward")
    if family == "flow":
        watched("inverse")
    if guidance != 1:
        guided.guidance = ClassifierFree(guidance)
    model.sample(3, {"label": torch.tensor([0, 1, 2])} if model.num_classes is not None else None)
    expected = COST.get(family, 1) * 3
    if family == "captioner":  # a beam of so many words as it takes
        assert 3 * guidance <= model.evaluations == sum(rows) <= guidance * 3 * (1 + 3 * 4)
        return
    if guidance != 1 and family == "flow":  # its inverse passes twice below one call; its denoising is not guided
        assert (model.evaluations, sum(rows)) == (3 * 3, 2 * 3)
    else:
        assert model.evaluations == sum(rows) == expected * guidance


def run_config(run: Path) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create(run_folder.read_config(run))


# --- two processes ----------------------------------------------------------------------------------------------------

# Noise, augmentation and penalties are of the global batch, so only rounding tells two ranks from one. Gradient descent
# rather than Adam, which turns the rounding of a gradient near 0 into a step of full length.
SGD = ("model.optimizer._target_=torch.optim.SGD", "~model.optimizer.betas", "~model.optimizer.fused")
CRITIC_SGD = tuple(line.replace("optimizer", "discriminator_optimizer") for line in SGD)
PLAIN_GAN = ("model=gan", "model/generator=dcgan", "model/discriminator=dcgan", "model/augment=diffaugment", *SGD,
             *CRITIC_SGD, "model.discriminator_steps=2",
             "model.generator.batch_norm=false", "model.discriminator.batch_norm=false")  # fmt: skip
FEATURES = "model.discriminator.features="  # and a run
ALIKE = {
    "non_saturating": (*PLAIN_GAN, "model/objective=non_saturating", "model.optimizer.lr=0.1",
                       "model.discriminator_optimizer.lr=0.1"),
    "wgan_gp": (*PLAIN_GAN, "model/objective=wgan_gp", "model.optimizer.lr=0.01",
                "model.discriminator_optimizer.lr=0.01"),
    # p changes with each step, and by the ranks' real images together
    "ada": (*PLAIN_GAN, "model/augment=ada", "model.augment.p=0.5", "model.augment.interval=1",
            "model.augment.kimg=0.1", "model.augment.groups=[blit,geometry,color,filter,noise,cutout]",
            "model/objective/penalty=r1", "model.optimizer.lr=0.1", "model.discriminator_optimizer.lr=0.1"),
    # groups of images, whose deviation it sees, are of one rank
    "styles": ("model=stylegan2", *STYLES, *SGD, "~model.optimizer.eps", *CRITIC_SGD,
               "~model.discriminator_optimizer.eps", "model.discriminator.group_size=1", "model.optimizer.lr=0.01",
               "model.discriminator_optimizer.lr=0.01"),
    # through the frozen features of another run
    "projected": ("model=gan", *CRITIC_SGD, *SGD, "model.generator.batch_norm=false", "model/discriminator=projected",
                  FEATURES, "model/objective=hinge", "model/augment=diffaugment", "model.optimizer.lr=0.001",
                  "model.discriminator_optimizer.lr=0.001"),
    # The groups whose deviation is taken are the same: two images, every fourth of a batch. Where both are nearly alike
    # its slope is steep, so that larger steps make more of rounding.
    "progan": ("model=progan", "model.growth.fade=24", "model.growth.stable=16", "model.growth.batch_size={16:4}",
               "model.discriminator.group_size=2", *SGD,
               *(line.replace("optimizer", "discriminator_optimizer") for line in SGD), "model.optimizer.lr=0.001",
               "model.discriminator_optimizer.lr=0.001"),
    # without dropout, which is of a rank; with a fixed scale, since one that learns has steep gradients at the start
    "factors": ("model=factor_vae", "model.encoder.dropout=0", "model.decoder.dropout=0",
                   "model.likelihood.scale=0.5", *SGD, *CRITIC_SGD, "model.optimizer.lr=0.01",
                   "model.discriminator_optimizer.lr=0.01"),
    "text": ("model=transformer", *SGD, "model.optimizer.lr=0.3", "model.network.zero_init=false",
             "model/schedule=constant", "metrics=[perplexity]"),
    # Few tokens are predicted, so gradients are large, and larger steps make more of rounding.
    "masked_text": ("model=masked_language", *SGD, "model.optimizer.lr=0.05", "model.network.zero_init=false",
                    "model/schedule=constant", "metrics=[pseudo_perplexity]"),
    "pairs": ("model=contrastive_text", *SGD, "model.optimizer.lr=0.1", "trainer.gradient_clip_val=1.0",
              "model/schedule=constant", "metrics=[retrieval]"),
    # with batch norm of both ranks, and a center of both; the last layer moves after a fifth of the run
    "byol": ("model=self_distillation", *SGD, "model.optimizer.lr=0.001", "model/schedule=constant",
             "model/encoder=resnet18", "model.encoder.stages=[1,1]", "model.momentum=0.9"),
    "dino": ("model=self_distillation", "model/objective=dino", *SGD, "model.optimizer.lr=0.00001",
             "model/schedule=constant", "model/encoder=resnet18", "model.encoder.stages=[1,1]", "model/views=dino",
             "model.views.num_local=1", "model.momentum=0.9", "model.objective.held=0.2",
             "model.objective.head.batch_norm=true"),
    # masks are of an image's index, and of its own patches
    "masks": ("model=masked_autoencoder", *SGD, "model.optimizer.lr=0.1", "model/schedule=constant"),
    "blocks": ("model=jepa", *SGD, "model.optimizer.lr=0.1", "model/schedule=constant", "model.momentum=0.9"),
    # views are of an image's index, and batch norm and negatives of both ranks
    "views": ("model=contrastive", "model/encoder=resnet18", "model.encoder.stages=[1,1]", *SGD,
              "model.optimizer.lr=0.001", "model/schedule=constant"),
}  # fmt: skip
TRAIN_ALL = """
import genlab
import json, sys
from pathlib import Path
import tiny_run
for name, overrides in json.loads(Path(sys.argv[1]).read_text()).items():
    tiny_run.train(*overrides, "trainer=ddp_cpu", outputs=Path(sys.argv[2]) / name)
"""


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """What must be the same on any number of processes."""
    text = text_file(tmp_path_factory.mktemp("text"))
    found = {name: small(*(text if "text" in name else ()), *choices) for name, choices in ALIKE.items()}
    features = train(*small("model=classifier", "budget.value=8"), outputs=tmp_path_factory.mktemp("features"))
    return {
        name: tuple(f"{FEATURES}{features}" if choice == FEATURES else choice for choice in choices)
        for name, choices in found.items()
    }


@pytest.fixture(scope="module")
def two_processes(overrides: Any, alike: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CPU processes, which train all of these, one after the other, each into one folder below this one."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "train_all.py").write_text(TRAIN_ALL)
    runs = {family: overrides(family) for family in FAMILIES} | alike
    (folder / "runs.json").write_text(json.dumps(runs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               str(folder / "train_all.py"), str(folder / "runs.json"), str(folder)]  # fmt: skip
    finish(popen(command), seconds=400)
    return folder


@pytest.mark.matrix  # two processes that start anew and train every family; test_ddp has one run of the kind
@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes(family: str, two_processes: Path, never_stopped: Any) -> None:
    """They train it, into one folder, through the same examples."""
    together = read.newest(only_run(two_processes / family))
    alone = read.newest(never_stopped(family))
    assert together.progress.examples == alone.progress.examples == 104
    assert {k: v.shape for k, v in together.state.items()} == {k: v.shape for k, v in alone.state.items()}
    assert all(torch.isfinite(value).all() for value in together.state.values() if value.is_floating_point())


@pytest.mark.matrix
@pytest.mark.parametrize("name", ALIKE)
def test_the_same_on_two_processes(name: str, alike: Any, two_processes: Path, tmp_path: Path) -> None:
    rates = [line.partition("=")[0] for line in alike[name] if line.partition("=")[0].endswith("optimizer.lr")]
    alone = train(*alike[name], outputs=tmp_path / "one")
    together = only_run(two_processes / name)
    began = read.newest(train(*alike[name], *(f"{rate}=0" for rate in rates), outputs=tmp_path / "zero")).state
    moved: dict[str, float] = {}
    for weight_name, weight in read.newest(alone).state.items():
        torch.testing.assert_close(read.newest(together).state[weight_name], weight, rtol=0, atol=1e-6)
        part, distance = weight_name.split(".")[0], (weight - began[weight_name]).abs().max().item()
        moved[part] = max(moved.get(part, 0.0), distance)
    assert min(moved.values()) > 1e-4, "every network was trained"
    one, two = (json.loads((run / "summary.json").read_text())["metrics"] for run in (alone, together))
    assert two == pytest.approx(one, rel=1e-5)
    assert bool(one) == (name in ("text", "masked_text", "pairs"))


def test_the_toy(toy_tree: Path, tmp_path: Path) -> None:
    """Composes from a user's folder of configs, trains, checkpoints, and resumes bit-exactly."""
    from genlab.command import train as train_command
    from genlab.run.assemble import check_config
    from tiny_run import command

    def start_toy(*more: str, outputs: Path) -> None:
        given = command("model=toy", *SHAPES, *more, outputs=outputs)
        config = ConfigTree(str(toy_tree)).compose(given)
        check_config(config)
        train_command.train(config, given)

    start_toy(outputs=tmp_path / "straight")
    with pytest.raises(Interrupted):
        start_toy(SignalAt.override(48), outputs=tmp_path / "stopped")
    run, straight = only_run(tmp_path / "stopped"), only_run(tmp_path / "straight")
    config = ConfigTree(str(toy_tree)).change(run_folder.read_config(run), run_folder.read_overrides(run), [])
    train_command.train(config, run_folder.read_overrides(run), run)
    assert same(state(run), state(straight))
    last = read.newest(straight)
    frozen = {name for name in last.state if name.startswith("reference.")}
    assert frozen
    assert set(last.content["ema"]) == set(last.state) - frozen
    assert any(not torch.equal(last.state[n], last.state[n.replace("reference", "policy")]) for n in frozen)
