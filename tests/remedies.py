"""Every message of the sources that advises something to type, and how its advice is tried.

``TRIED``: the command that shows the message, and what is advised, typed into the same command. ``OFFERED``: what
cannot be tried without another machine, a GPU, the network or a long training is at least an option of that command.
``ELSEWHERE``: another test tries it. tests/test_remedies.py holds the table against the sources.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from chats import lines, said
from genlab.config.tree import ConfigTree
from genlab.data.base import ConditionSpec, DataSpec
from genlab.data.shapes import Shapes
from genlab.data.tokenizer.bpe import BPE
from genlab.sampling.png import save_png
from genlab.trust.own_runs import seal
from stand_ins import clip_folder
from tiny_run import SHORT


def nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Tried:
    module: str
    fragment: str  # of the message, in the source and as it is shown
    typed: tuple[str, ...]
    remedies: tuple[str, ...]  # each tried on its own; a space stands between options that go together
    prepare: Callable[[], None] = nothing
    patch: Callable[[pytest.MonkeyPatch], None] = nothing  # the machine is another one


@dataclass(frozen=True)
class Offered:
    module: str
    fragment: str
    why: str  # it is not tried
    options: str = ""  # that are advised, with the choices that they need before them; nothing: no option is


@dataclass(frozen=True)
class Elsewhere:
    module: str
    fragment: str
    test: str  # file::function


# --- what is there ----------------------------------------------------------------------------------------------------


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def pictures(where: str = "p", count: int = 60, size: tuple[int, ...] = (18, 18, 3)) -> None:
    Path(where).mkdir(parents=True)
    for i, pixels in enumerate(noise(count, *size)):
        Image.fromarray(pixels).save(f"{where}/{i:03}.png")


def arrays() -> None:
    np.savez("a.npz", pictures=noise(20, 17, 17))
    np.savez("b.npz", images=noise(20, 17, 17, 3))
    np.save("x.npy", noise(60, 16, 16, 3))
    np.save("one.npy", noise(1, 16, 16, 3))
    np.save("labels.npy", np.arange(60) % 2)
    pictures("p", 12, (16, 16, 3))


def conversations() -> None:
    """Some, others in columns, templates that cannot be used, and the folder of a tokenizer without one."""
    rows = [said(f"{i}", "b") for i in range(40)]
    lines(({"messages": row} for row in rows), Path("c.jsonl"))
    lines(({"q": row[0]["content"], "a": "b"} for row in rows), Path("columns.jsonl"))
    lines([{"messages": said("a", "b")}] * 20, Path("same.jsonl"))
    lines([{"messages": said("€", "b")}] * 3, Path("euro.jsonl"))
    lines([{"prompt": "1", "answer": "b"}], Path("p.jsonl"))
    Path("endless.jinja").write_text("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    Path("attribute.jinja").write_text("{{ messages.__class__ }}")
    each = "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    Path("endings.jinja").write_text(each.replace("{{ eos_token }}", ""))
    Path("counts.jinja").write_text("{{ messages | length }} " + each)
    Path("t.txt").write_text("some text " * 60)
    for folder, marks in (("marked", ["<|im_start|>", "<|im_end|>"]), ("unmarked", [])):
        tokenizer = BPE(300)
        tokenizer.reserve(marks)
        tokenizer.train(["user assistant"])
        Path(folder).mkdir()
        Path(folder, "tokenizer.json").write_text(tokenizer.state())


def hasty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("genlab.data.chat_template.SECONDS", 0.3)


def oblong() -> None:
    pictures("p", 12, (16, 24, 3))


def mixed() -> None:
    pictures("p", 12, (16, 16, 3))
    Image.fromarray(noise(20, 20, 3)).save("p/zz.png")
    pictures("q", 12, (16, 16, 3))


def damaged() -> None:
    pictures("p", 1200, (4, 4, 3))
    Path("p/007.png").write_bytes(b"no picture")
    pictures("q", 12, (4, 4, 3))


def of_16_bits() -> None:
    Path("p").mkdir()
    for i in range(12):
        Image.fromarray(noise(16, 16).astype(np.uint16) * 256).save(f"p/{i:02}.png")


def color_of_16_bits() -> None:
    Path("p").mkdir()
    np.save("x.npy", noise(60, 16, 16, 3))
    for i, pixels in enumerate(noise(12, 16, 16, 3)):
        save_png(pixels.astype(np.uint16) * 256, Path(f"p/{i:02}.png"))


def with_alpha() -> None:
    pictures("p", 12, (16, 16, 4))


def splits() -> None:
    pictures("p/train", 12)
    pictures("p/test", 12)


def classes() -> None:
    pictures("p/a", 12, (16, 16, 3))
    pictures("p/b", 12, (16, 16, 3))
    pictures("q/a", 12, (16, 16, 3))
    pictures("q/b", 1, (16, 16, 3))


def one_class() -> None:
    pictures("p/a", 12, (16, 16, 3))
    pictures("q/a", 12, (16, 16, 3))


def a_class_without_held_out_images() -> None:
    arrays()
    np.save("v.npy", noise(20, 16, 16, 3))
    np.save("three.npy", np.arange(60) % 3)
    np.save("two.npy", np.arange(20) % 2)


def all_the_same() -> None:
    pictures("p", 12, (16, 16, 3))
    Path("same").mkdir()
    for i in range(12):
        Image.fromarray(noise(16, 16, 3)).save(f"same/{i:02}.png")


def with_clip() -> None:
    unlabelled()
    clip_folder(Path("clip"))


def with_clip_and_classes() -> None:
    classes()
    clip_folder(Path("clip"))


def unlabelled() -> None:
    pictures("p", 12, (16, 16, 3))
    pictures("q", 12, (16, 16, 3))


def labelled_and_not() -> None:
    classes()
    pictures("one", 12, (16, 16, 3))


def captioned(where: str = "p", caption: str = "a cat", count: int = 12) -> None:
    pictures(where, 12, (16, 16, 3))
    for i in range(count):
        Path(f"{where}/{i:03}.txt").write_text(caption)


def partly_captioned() -> None:
    captioned(count=10)


def captions_without_words() -> None:
    captioned(caption="...")


def other_letters() -> None:
    captioned()
    captioned("q", "a dog")


def text() -> None:
    Path("t.txt").write_text("abc\n" * 300 + "z", encoding="utf-8")
    Path("texts").mkdir()
    for name in "abcdef":
        Path(f"texts/{name}.md").write_text("abc\n" * 300, encoding="utf-8")


def runs() -> None:
    """Configs of runs; nothing was trained."""
    choices = {"gan": "model=gan", "vae": "model=vae", "judge": "model=classifier", "codes": "model=vq_vae"}
    for name, choice in choices.items():
        make_run(name, "data=digits", choice)


def bases() -> None:
    """Diffusion models of scenes and of digits, which others are put on."""
    runs()
    scenes = Shapes(image_size=16, num_val=20).spec.to_config()
    make_run("scenes", "data=shapes", "model=diffusion", "model.conditions=[caption]", spec=scenes)
    make_run("labels", "data=shapes", "model=diffusion", spec=scenes)
    make_run("mlp", "data=shapes", "model=diffusion", "model/network=mlp", spec=scenes)


def make_run(name: str, *choices: str, spec: Any = None) -> None:
    Path(name).mkdir()
    config = ConfigTree().compose(choices)
    config.run_dir, config.run_id = name, name
    config.spec = spec or SPEC
    OmegaConf.save(config, f"{name}/config.yaml", resolve=True)
    Path(name, "overrides.yaml").write_text("[]")


def a_judge_that_is_gone() -> None:
    runs()
    config = OmegaConf.load("gan/config.yaml")
    model = OmegaConf.load("judge/config.yaml").model
    target = "genlab.metrics.extractor.classifier.ClassifierFeatures"
    config.metrics.extractor = {"_target_": target, "model": model}
    config.pretrained["metrics.extractor.model"] = {"where": "gone", "sha256": "0" * 64}
    OmegaConf.save(config, "gan/config.yaml")
    seal(Path("gan"))


def recipe() -> None:
    """A finished run of one, of another budget than its bands are of."""
    make_run("recipe", "experiment=dcgan_cifar10_small", "budget.value=3", "data.download=false")
    Path("recipe/overrides.yaml").write_text("[experiment=dcgan_cifar10_small]")
    Path("recipe/summary.json").write_text("{}")


def recipe_without_numbers() -> None:
    """One that is finished, and whose curves somebody has deleted."""
    make_run("recipe", "experiment=dcgan_cifar10_small", "budget.value=64000", "data.download=false")
    Path("recipe/overrides.yaml").write_text("[experiment=dcgan_cifar10_small]")
    Path("recipe/summary.json").write_text("{}")


def problems() -> None:
    text()
    Path("p.jsonl").write_text(json.dumps({"prompt": "def f():", "entry_point": "f", "test": "def check(f): pass"}))


# --- another machine --------------------------------------------------------------------------------------------------


def one_gpu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "device_count", lambda: 1)
    patch.setattr(torch.cuda, "get_device_name", lambda _: "one")


def full_disk(patch: pytest.MonkeyPatch) -> None:
    Path("elsewhere").mkdir()
    patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 40 if "elsewhere" in str(path) else 0))


def no_sandbox(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("genlab.metrics.sandbox.best_way", lambda: None)
    patch.setattr("os.geteuid", lambda: 1000)


def root_without_bubblewrap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("genlab.metrics.sandbox.best_way", lambda: "namespaces")
    patch.setattr("os.geteuid", lambda: 0)


def no_linux(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("genlab.metrics.sandbox.sys", SimpleNamespace(platform="darwin"))


def no_network(patch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    patch.setattr("urllib.request.urlopen", offline)
    patch.setenv("TORCH_HOME", str(Path("torch").absolute()))
    patch.setenv("GENLAB_CACHE", str(Path("c").absolute()))


def no_answers(patch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(returncode=1, stderr="no module named x")
    patch.setattr("genlab.sweep.metric.subprocess", SimpleNamespace(run=lambda *_, **__: answer))


SPEC = DataSpec("image", (1, 16, 16), condition={"label": ConditionSpec(10)}).to_config()

# --- what is typed ----------------------------------------------------------------------------------------------------

CACHE = "data.cache_dir=cache"
RANDOM = "metrics/extractor=random"
MLP = ("model/network=mlp", "model.network.width=8")
DIGITS = ("train", *SHORT, "data=digits")
EDIT = ("edit", "run=x", "image=a.png")
CONCEPT = ("model=concept", "model.base=scenes", "model.prompts=[a sks]")
SCENES = ("train", *SHORT, "data=shapes", "data.image_size=16", "data.num_val=20")
IMAGES = ("train", *SHORT, CACHE, "data=image_folder", "data.root=p", *MLP)
CAPTIONED = ("train", *SHORT, CACHE, "data=captioned_folder", "data.root=p", "data.image_size=16", *MLP)
ARRAY = ("train", *SHORT, CACHE, "data=array", "data.path=x.npy", *MLP)
THREE_CLASSES = (
    "data.label_path=three.npy",
    "data.val_path=v.npy",
    "data.val_label_path=two.npy",
)
TEXT = (
    "train",
    *SHORT,
    CACHE,
    "model=transformer",
    "data=text_file",
    "data.path=t.txt",
    "data.context=8",
    "data.limit=null",
    "model.network.width=8",
    "model.network.num_heads=1",
    "model.network.depth=1",
)
MASKED_LANGUAGE = (*(line for line in TEXT if not line.startswith("callbacks.samples")), "model=masked_language")
TEXTS = (
    "train",
    *SHORT,
    CACHE,
    "model=transformer",
    "data=text_folder",
    "data.root=texts",
    "data.context=8",
    "data.limit=null",
    "data.val_fraction=0.2",
)
JUDGE = (
    "train",
    *(line for line in SHORT if not line.startswith("callbacks.samples")),
    "data=digits",
    "model=classifier",
)
CAPTIONER = (
    *("train", *SHORT, "data=shapes", "data.image_size=16", "data.max_objects=1", "data.num_val=8", "model=captioner"),
    *("model.encoder.width=8", "model.encoder.depth=1", "model.encoder.num_heads=1"),
)
VIEWS = (*JUDGE[:-1], "model=contrastive", "model.encoder.channels=8", "model.projector.widths=[8]")
DISTILLED = (*JUDGE[:-1], "model=self_distillation", "model.encoder.channels=8")
SMALL_VIT = ("model.encoder.width=8", "model.encoder.depth=1")
MASKED = (*DIGITS, "model=masked_autoencoder", *SMALL_VIT, "model.decoder.width=8", "model.decoder.depth=1")
BLOCKS = (*JUDGE[:-1], "model=jepa", *SMALL_VIT, "model.predictor.width=8", "model.predictor.depth=1")
COMPARED = ("evaluate", RANDOM, CACHE, "images=p", "reference=q")
UNTOLD = ("train", *SHORT, CACHE, "data=text_file", "data.path=t.txt", "data.context=8", "data.limit=null")
CHATS = (
    *("train", *SHORT, CACHE, "model=transformer", "data=conversations", "data.path=c.jsonl", "data.context=64"),
    *("data.limit=null", "model.network.width=8", "model.network.num_heads=1", "model.network.depth=1"),
)
COLUMNS = (*(line.replace("c.jsonl", "columns.jsonl") for line in CHATS),)
PROGRAMS = ("metrics=[pass_at_k]", "metrics.pass_at_k.problems=p.jsonl")
GIVEN = ("evaluate", RANDOM, "data=digits", "metrics=[]")
DRAW = "'model.optimizer.lr=tag(log, interval(1e-5, 1e-3))'"

TRIED = (
    Tried("cli.py", " Use ", (*DIGITS, "model=flow", "model/network=mlp"), ("model/network=real_nvp",)),
    Tried(
        "data/chat_template.py",
        "seconds for a conversation",
        (*CHATS, "data.template=endless.jinja"),
        ("data.template=chatml",),
        conversations,
        hasty,
    ),
    Tried(
        "data/chat_template.py",
        "Or use data.template=chatml",
        (*CHATS, "data.template=attribute.jinja"),
        ("data.template=chatml",),
        conversations,
    ),
    Tried(
        "data/chat_template.py",
        "is neither a file nor one of",
        (*CHATS, "data.template=chatlm"),
        ("data.template=chatml",),
        conversations,
    ),
    Tried(
        "data/chat_template.py",
        "has no chat template: neither",
        (*CHATS, "data/tokenizer=gpt2", "data.tokenizer.name=marked"),
        (
            "data.template=plain",
            "data.template=chatml",
        ),
        conversations,
    ),
    Tried(
        "data/chat_tokens.py",
        "the tokenizer has no special token",
        (*CHATS, "data/tokenizer=gpt2", "data.tokenizer.name=unmarked", "data.template=chatml"),
        ("data.template=plain",),
        conversations,
    ),
    Tried(
        "data/chat_tokens.py",
        "ends no answer with a special token",
        (*CHATS, "data.template=endings.jinja"),
        ("data.template=chatml",),
        conversations,
    ),
    Tried(
        "data/chat_tokens.py",
        "is not prefix-preserving",
        (*CHATS, "data.template=counts.jinja"),
        ("data.template=chatml",),
        conversations,
    ),
    Tried(
        "data/conversation.py",
        "have one question in all",
        (*(line.replace("c.jsonl", "same.jsonl") for line in CHATS),),
        ("data.val_path=c.jsonl",),
        conversations,
    ),
    Tried("data/conversation.py", "there are no messages", COLUMNS, ("data.prompt=q data.answer=a",), conversations),
    Tried(
        "data/conversations.py",
        "a question needs an answer",
        (*COLUMNS, "data.prompt=q"),
        ("data.prompt=q data.answer=a",),
        conversations,
    ),
    Tried(
        "data/conversation_data.py",
        "the training conversations have none",
        (*CHATS, "data.val_path=euro.jsonl", "data/tokenizer=characters"),
        (
            "data/tokenizer=bytes",
            "data.tokenizer.unknown=true",
        ),
        conversations,
    ),
    Tried(
        "data/conversation_data.py",
        "nothing is left to count",
        (*CHATS, "data.context=8"),
        ("data.context=64",),
        conversations,
    ),
    Tried(
        "metrics/best_of_n.py",
        "has no checker of answers. Leave it out",
        (*CHATS, "metrics=[best_of_n]"),
        ("metrics=[]",),
        conversations,
    ),
    Tried(
        "metrics/answer_score.py",
        "has no checker of answers",
        (*CHATS, "metrics=[answer_score]"),
        ("metrics=[exact_match]",),
        conversations,
    ),
    Tried(
        "metrics/exact_match.py",
        "the data have no conversations to answer",
        (*TEXT, "metrics=[exact_match]"),
        ("metrics.exact_match.problems=p.jsonl",),
        conversations,
    ),
    Tried(
        "metrics/exact_match.py",
        "is for a file of problems",
        (*CHATS, "metrics=[exact_match]", "metrics.exact_match.num_samples=2"),
        ("metrics.exact_match.num_samples=1",),
        conversations,
    ),
    Tried(
        "metrics/held_out_answers.py",
        "is for conversations; the data are text",
        (*TEXT, "metrics=[answer_score]"),
        ("metrics=[perplexity]",),
        conversations,
    ),
    Tried(
        "run/counted.py",
        "cannot be trained on conversations",
        (*("model=masked" if line.startswith("model=") else line for line in CHATS),),
        ("model=transformer",),
        conversations,
    ),
    Tried("task/answer.py", "is for conversations; the data are", (*DIGITS, "task=answer"), ("-task",)),
    Tried("task/answer.py", "has none. Use", (*TEXT, "task=answer"), ("task=continue_text",), conversations),
    Tried("config/tree.py", "Choose one that has: ", (*DIGITS, "model=gan", "model/network=mlp"), ("model=diffusion",)),
    Tried(
        "config/tree.py",
        "has no value. Set it",
        ("train", *SHORT, CACHE, "data=image_folder", *MLP),
        ("data.root=p",),
        pictures,
    ),
    Tried(
        "data/array.py",
        "). Set data.",
        ("train", *SHORT, CACHE, "data=array", "data.path=a.npz", *MLP),
        ("data.image_key=pictures",),
        arrays,
    ),
    Tried("command/options.py", "has no value. Set it", ("compare", "sort=fid"), ("runs=outputs",)),
    Tried(
        "model/augment/ada.py",
        "leaves nothing to augment by",
        (*DIGITS, "model=gan", "model/augment=ada", "model.augment.groups=[]"),
        ("model/augment=none -model.augment.groups", "model.augment.groups=[blit,geometry]"),
    ),
    Tried(
        "model/gan.py",
        "model.augment adapts by the signs of scores",
        (*DIGITS, "model=gan", "model/augment=ada", "model/objective=wgan_gp"),
        ("model/objective=non_saturating", "model.augment.target=null model.augment.p=0.2"),
    ),
    Tried(
        "model/gan.py",
        "measures styles, and model/generator has none",
        (*DIGITS, "model=gan", "model/generator_penalty=path_length"),
        ("model/generator=stylegan2", "model/generator_penalty=none"),
    ),
    Tried(
        "model/network/stylegan2.py",
        "leaves no channels at",
        (*DIGITS, "model=stylegan2", "model.generator.channel_base=8"),
        ("model.generator.channel_base=256 model.discriminator.channel_base=256",),
    ),
    Tried(
        "model/control.py",
        "cannot be controlled",
        (*SCENES, "model=control", "model.base=mlp"),
        ("model.base=scenes",),
        bases,
    ),
    Tried(
        "model/hint/layout.py",
        "know where their objects are",
        (*SCENES, "model=control", "model.base=scenes", "model/hint=layout"),
        ("data.layout=true", "model/hint=edges"),
        bases,
    ),
    Tried(
        "model/concept.py",
        "so it knows no words",
        (*SCENES, "model=concept", "model.base=labels", "model.prompts=[a sks]"),
        ("model.base=scenes",),
        bases,
    ),
    Tried(
        "model/concept.py",
        "needs the caption of the class",
        (*SCENES, *CONCEPT, "model/adapter=lora", "model.prior_weight=1"),
        ("'model.prior_prompt=a circle'",),
        bases,
    ),
    Tried(
        "model/concept.py",
        "model.prior_prompt is empty",
        (*SCENES, *CONCEPT, "model/adapter=lora", "model.prior_prompt=[]"),
        ("'model.prior_prompt=a circle'",),
        bases,
    ),
    Tried(
        "model/concept.py",
        "only the vector of the word is trained",
        (*SCENES, *CONCEPT, "model.prior_weight=1", "model.prior_prompt=a circle"),
        ("model/adapter=lora", "model.prior_weight=0"),
        bases,
    ),
    Tried(
        "model/condition_concept.py",
        "must be one word in lower case",
        (*SCENES, *CONCEPT, "model.word=Sks"),
        ("model.word=sks",),
        bases,
    ),
    Tried(
        "model/condition_concept.py",
        "the base knows this word",
        (*SCENES, "model=concept", "model.base=scenes", "model.word=red"),
        ("model.word=red2",),
        bases,
    ),
    Tried(
        "model/condition_concept.py",
        "no caption of the data has the word",
        (*SCENES, "model=concept", "model.base=scenes"),
        ("model.prompts=[sks]",),
        bases,
    ),
    Tried(
        "model/condition_concept.py",
        "which is to be learned",
        (*SCENES, "model=concept", "model.base=scenes", "model.prompts=[a circle]"),
        ("model.prompts=[sks]",),
        bases,
    ),
    *(
        Tried(
            "model/diffusion.py",
            fragment,
            (*DIGITS, "model=diffusion", "model/alignment=repa", "model.alignment.features=judge", *typed),
            remedies,
            runs,
        )
        for fragment, typed, remedies in (
            (
                "reads a block for one noisy image",
                ("model/objective=consistency", "model/sampler=consistency"),
                ("model.alignment.weight=0",),
            ),
            (
                "reads a block, which a compiled network does not show",
                ("model.compile=true",),
                ("model.compile=false", "model.alignment.weight=0"),
            ),
        )
    ),
    Tried("sweep/space.py", "is named twice", ("train", "-m", "data=digits", "seed=0,1", "seed=2"), ("seed=0,1,2",)),
    Tried(
        "run/elsewhere.py",
        ". Name a run of model=",
        ("train", *SHORT, "data=digits", "model=latent_diffusion", "model.autoencoder=gan"),
        ("model.autoencoder=vae",),
        runs,
    ),
    Tried(
        "run/assemble.py",
        "Or resize the images",
        (*IMAGES[:-2], "model/network=unet", "model.network.channel_mult=[1,1,1]"),
        ("data.image_size=20",),
        pictures,
    ),
    Tried(
        "run/assemble.py",
        ", such as model/network=dit",
        (*DIGITS, "model/network=unet", "model.network.channel_mult=[1,1,1,1,1,1]"),
        ("model/network=dit -model.network.channel_mult",),
    ),
    Tried(
        "model/gan.py",
        "torch does not compile gradients of gradients",
        (*DIGITS, "model=stylegan2", "model/generator_penalty=path_length", "model.compile=true"),
        ("model.compile=false", "model/generator_penalty=none"),
    ),
    Tried(
        "model/progan.py",
        "a batch is divided into steps",
        (*DIGITS, "model=progan", "data.batch_size=8", "model.growth.batch_size={8:3}"),
        ("data.batch_size=9",),
    ),
    Tried(
        "model/progan.py",
        "makes several optimizer steps of a batch",
        (*DIGITS, "model=progan", "model.growth.batch_size={8:4}", "trainer.accumulate_grad_batches=2"),
        ("trainer.accumulate_grad_batches=1",),
    ),
    Tried(
        "model/network/unet.py",
        "Use fewer entries in model.network.channel_mult",
        (*DIGITS, "model/network=unet", "model.network.channel_mult=[1,1,1,1,1,1]"),
        ("model.network.channel_mult=[1,1]",),
    ),
    Tried(
        "model/network/unet.py",
        "attention heads). Use model.network.channels=",
        (*DIGITS, "model/network=unet", "model.network.channels=6"),
        ("model.network.channels=8",),
    ),
    Tried(
        "model/network/dit.py",
        "cuts the image into squares",
        (*DIGITS, "model/network=dit", "model.network.patch_size=6"),
        ("model.network.patch_size=2",),
    ),
    Tried(
        "model/network/tarflow.py",
        "cuts the image into squares",
        (*DIGITS, "model=flow", "model/network=tarflow", "model.network.patch_size=6"),
        ("model.network.patch_size=2",),
    ),
    Tried(
        "model/vae.py",
        "which has no KL cost to weigh",
        (*DIGITS, "model=vae", "model.num_training_samples=4", "model.free_nats=1"),
        ("model.beta=1 model.free_nats=0 model.kl_warmup=0", "model.num_training_samples=1"),
    ),
    Tried("run/assemble.py", "shows samples, and a", (*JUDGE, "callbacks=[default]"), ("callbacks=[no_samples]",)),
    Tried(
        "run/assemble.py",
        "but nothing starts processes on other machines",
        (*DIGITS, *MLP, "trainer.num_nodes=2"),
        ("trainer.num_nodes=1",),
    ),
    Tried(
        "run/assemble.py",
        "needs a GPU. Use",
        (*DIGITS, *MLP, "trainer.precision=16-mixed"),
        ("trainer.precision=bf16-mixed",),
    ),
    Tried("run/assemble.py", "has no GPU that torch can use", (*DIGITS, *MLP, "trainer=gpu"), ("trainer=cpu",)),
    Tried(
        "data/array.py", "Set data.image_size=[", (*ARRAY, "data.val_path=b.npz"), ("data.image_size=[16,16]",), arrays
    ),
    Tried(
        "data/array.py",
        "is a .npy, which has no keys",
        (*ARRAY, "data.label_key=y"),
        ("data.label_path=labels.npy data.label_key=null",),
        arrays,
    ),
    Tried("data/caption_files.py", "have no caption", CAPTIONED, ("data=image_folder",), partly_captioned),
    Tried("data/captioned.py", "have no word", CAPTIONED, ("data=image_folder",), captions_without_words),
    Tried(
        "data/captions.py",
        ". Train with data/tokenizer=bytes",
        (*CAPTIONED, "data.val_root=q", "data/tokenizer=characters"),
        ("data/tokenizer=bytes", "data.tokenizer.unknown=true"),
        other_letters,
    ),
    Tried("data/decoding.py", "Remove it, or set", IMAGES, ("data.on_bad=skip",), damaged),
    Tried(
        "data/decoding.py", "Set data.bits=16 data.channels=1", IMAGES, ("data.bits=16 data.channels=1",), of_16_bits
    ),
    Tried("data/decode.py", "is gray with 16 bits, and", (*IMAGES, "data.bits=16"), ("data.channels=1",), of_16_bits),
    Tried(
        "data/decoding.py", "images must be square", IMAGES, ("data.image_size=16", "data.image_size=[16,24]"), oblong
    ),
    Tried("data/decoding.py", "images differ in size", IMAGES, ("data.image_size=16",), mixed),
    Tried(
        "data/image_files.py",
        "or classes? Splits",
        IMAGES,
        ("data.root=p/train data.val_root=p/test", "data.folders_are_classes=true"),
        splits,
    ),
    Tried(
        "data/image_files.py",
        "is not a folder. Set data.root",
        (*IMAGES, "data.root=nowhere"),
        ("data.root=p",),
        pictures,
    ),
    Tried(
        "data/text_files.py",
        "is not a folder. Set data.root",
        (*TEXTS, "data.root=nowhere"),
        ("data.root=texts",),
        text,
    ),
    Tried("data/text_files.py", "no texts found in", TEXTS, ("data.pattern=*.md",), text),
    Tried(
        "data/text.py",
        "the training text has none",
        (*TEXT, "data/tokenizer=characters"),
        ("data/tokenizer=bytes",),
        text,
    ),
    Tried("command/evaluate.py", "Make them like the data", (*GIVEN, "images=p"), ("reference=q -data",), mixed),
    Tried("command/evaluate.py", "needs a model, and", (*COMPARED, "metrics=[accuracy]"), ("metrics=[]",), classes),
    Tried(
        "command/evaluate.py",
        "the numbers go into a .json file",
        (*COMPARED, "metrics=[]", "out=x"),
        ("out=x.json",),
        classes,
    ),
    Tried("metrics/accuracy.py", "is not a classifier. Leave", (*DIGITS, *MLP, "metrics=[accuracy]"), ("metrics=[]",)),
    Tried("metrics/probe.py", "is for images; the data are", (*TEXT, "metrics=[knn_probe]"), ("metrics=[]",), text),
    Tried("metrics/probe.py", "split has a label. Leave", (*ARRAY, "metrics=[few_labels]"), ("metrics=[]",), arrays),
    Tried(
        "metrics/probe.py",
        "are read, without a",
        (*DIGITS, "model=vae", "metrics=[linear_probe]", "metrics.linear_probe.layer=0.5"),
        ("metrics.linear_probe.layer=null",),
    ),
    Tried(
        "metrics/knn_probe.py",
        "labelled training images. Use metrics.knn_probe.k=",
        (*DIGITS, *MLP, "metrics=[knn_probe]", "metrics.knn_probe.k=50"),
        ("metrics.knn_probe.k=40",),
    ),
    Tried("metrics/few_labels.py", "fewer than the", (*DIGITS, *MLP, "metrics=[few_labels]"), ("metrics=[]",)),
    Tried("metrics/text_probe.py", "reads programs", (*TEXT, "metrics=[text_probe]"), ("metrics=[]",), text),
    Tried(
        "metrics/bits_per_dim.py",
        "is for images; the data are",
        (*TEXT, "metrics=[bits_per_dim]"),
        ("metrics=[perplexity]",),
        text,
    ),
    Tried(
        "metrics/classes.py",
        "needs labels and the data have none",
        (*COMPARED, "metrics=[intra_fid]"),
        ("metrics=[]",),
        unlabelled,
    ),
    Tried(
        "metrics/classes.py",
        "examples of each class: class",
        (*COMPARED, "metrics=[intra_fid]"),
        ("metrics=[]",),
        classes,
    ),
    Tried(
        "metrics/classification_accuracy_score.py",
        "cas needs labels",
        (*COMPARED, "metrics=[cas]"),
        ("metrics=[]",),
        unlabelled,
    ),
    Tried(
        "metrics/classification_accuracy_score.py",
        "of two classes or more",
        (*COMPARED, "metrics=[cas]"),
        ("metrics=[]",),
        one_class,
    ),
    Tried(
        "metrics/judge.py",
        "class_balance needs labels",
        (*COMPARED, "metrics=[class_balance]"),
        ("metrics=[]",),
        unlabelled,
    ),
    Tried(
        "metrics/judge.py",
        "images correctly, too few",
        (*COMPARED, "reference=p", "metrics=[class_balance]"),
        ("metrics=[]", "metrics.class_balance.judge=logits"),
        classes,
    ),
    Tried(
        "metrics/label_accuracy.py",
        "label_accuracy needs labels",
        (*COMPARED, "metrics=[label_accuracy]"),
        ("metrics=[]",),
        unlabelled,
    ),
    Tried(
        "metrics/density_coverage.py",
        "density and coverage need",
        (*COMPARED, "reference=one.npy", "metrics=[density_coverage]"),
        ("metrics=[]",),
        arrays,
    ),
    Tried(
        "metrics/precision_recall.py",
        "precision and recall need",
        (*COMPARED, "reference=one.npy", "metrics=[precision_recall]"),
        ("metrics=[]",),
        arrays,
    ),
    Tried(
        "metrics/fid.py",
        "FID needs at least 2",
        (*COMPARED, "images=one.npy", "reference=p", "metrics=[fid]"),
        ("metrics=[]",),
        arrays,
    ),
    Tried(
        "metrics/kid.py",
        "KID needs at least 3",
        (*COMPARED, "images=one.npy", "reference=p", "metrics=[kid]"),
        ("metrics=[]",),
        arrays,
    ),
    Tried("evaluation/evaluation.py", "measures samples, and a", (*JUDGE, RANDOM, "metrics=[fid]"), ("metrics=[]",)),
    Tried(
        "metrics/extractor/digits.py",
        "is for images of shape",
        ("evaluate", CACHE, "images=p", "reference=q", "metrics=[fid]", "metrics/extractor=digits"),
        ("metrics/extractor=random",),
        classes,
    ),
    Tried(
        "evaluation/fitting.py",
        "or for texts with features of texts",
        (*TEXT, "metrics=[fid]"),
        ("metrics=[perplexity]", "metrics/extractor=ngrams"),
        text,
    ),
    Tried(
        "evaluation/fitting.py",
        "does not give. Use metrics/extractor=inception",
        (*DIGITS, *MLP, RANDOM, "metrics=[sfid]"),
        ("metrics/extractor=inception",),
    ),
    Tried(
        "metrics/ms_ssim.py",
        "Set metrics.ms_ssim.scales=",
        (*DIGITS, *MLP, "metrics=[ms_ssim]"),
        ("metrics.ms_ssim.scales=3",),
    ),
    Tried(
        "metrics/ms_ssim.py",
        "at least 2 samples, or of each class",
        (*DIGITS, *MLP, "metrics=[ms_ssim]", "metrics.ms_ssim.scales=3", "evaluation.num_samples=5"),
        ("evaluation.num_samples=40",),
    ),
    Tried(
        "metrics/sliced_wasserstein.py",
        "swd needs square images",
        (*SCENES, *MLP, "data.image_size=48", "metrics=[swd]"),
        ("metrics=[]",),
    ),
    Tried(
        "evaluation/pixels_allowed.py",
        "need gray or RGB images",
        (*IMAGES, "data.channels=4", RANDOM, "metrics=[fid]"),
        ("metrics=[nearest_neighbor,sharpness,noise_level]", "metrics=[]"),
        with_alpha,
    ),
    Tried(
        "evaluation/pixels_allowed.py",
        "needs 8 bits a channel",
        (*IMAGES, "data.bits=16", "data.channels=1", RANDOM, "metrics=[fid]"),
        ("metrics=[]",),
        of_16_bits,
    ),
    Tried(
        "run/pixel_levels.py",
        "has 256 levels per pixel",
        (*IMAGES[:-2], "data.bits=16", "data.channels=1", "model=vae"),
        ("model/likelihood=gaussian", "model=diffusion"),
        of_16_bits,
    ),
    Tried(
        "model/captioner.py",
        "needs pictures with captions, and the data have none",
        (*(w for w in CAPTIONER if not w.startswith(("data.image", "data.max", "data.num"))), "data=digits"),
        ("data=shapes",),
    ),
    Tried(
        "callbacks/caption_samples.py",
        "For no captions",
        (*CAPTIONER, "callbacks.samples.times=1", "callbacks.samples.count=0"),
        ("callbacks.samples.times=0",),
    ),
    Tried(
        "run/assemble.py",
        "does not show captions, which a",
        (*CAPTIONER, "callbacks=[default]"),
        ("callbacks=[captions]",),
    ),
    Tried(
        "run/assemble.py",
        "CaptionSamples shows captions, and a",
        (*DIGITS, *MLP, "callbacks=[captions]"),
        ("callbacks=[default]",),
    ),
    Tried(
        "model/sampler/beam_search.py",
        "must be 1 or more, length_penalty=",
        (*CAPTIONER, "model.sampler.num_beams=0"),
        ("+model.sampler.num_beams=1",),
    ),
    Tried(
        "metrics/caption_perplexity.py",
        "does not write captions",
        (*SCENES, *MLP, "metrics=[caption_perplexity]"),
        ("metrics=[]",),
    ),
    Tried("task/caption.py", "needs images with captions; the data are", (*DIGITS, *MLP, "task=caption"), ("-task",)),
    Tried(
        "model/contrastive_text.py",
        "needs captions, and the data have none",
        (*JUDGE[:-2], "model=contrastive_text", "data=digits"),
        ("data=shapes +data.image_size=16",),
    ),
    Tried(
        "model/masked_language.py",
        "must be above 0 and below 1: some tokens are predicted",
        (*MASKED_LANGUAGE, "model.mlm_probability=1"),
        ("model.mlm_probability=0.15",),
        text,
    ),
    Tried(
        "model/masked_language.py",
        "is a single one",
        (*MASKED_LANGUAGE, "data.context=1"),
        ("data.context=64",),
        text,
    ),
    Tried(
        "metrics/pseudo_perplexity.py",
        "does not predict a token from both sides",
        (*TEXT, "metrics=[pseudo_perplexity]"),
        ("metrics=[perplexity]",),
        text,
    ),
    Tried(
        "metrics/pseudo_perplexity.py",
        "conversations are not cut into windows",
        (*TEXT[:3], "model=transformer", "data=conversations", "data.path=c.jsonl", "metrics=[pseudo_perplexity]"),
        ("metrics=[]",),
        conversations,
    ),
    Tried(
        "model/augment/views.py",
        "must be 1 or more, and num_local",
        (*VIEWS, "model.views.count=0"),
        ("model.views.count=2 model.views.num_local=0",),
    ),
    Tried(
        "model/augment/views.py",
        "views have no settings",
        (*VIEWS, "model.views.num_local=2"),
        ("model.views.num_local=0",),
    ),
    Tried(
        "model/patches.py",
        "views are small, and masks are of whole images",
        (*MASKED, "model/views=dino", "model.views.num_local=2"),
        ("model.views.num_local=0",),
    ),
    Tried(
        "model/masked_autoencoder.py",
        "is the share of patches that are hidden",
        (*MASKED, "model.mask_ratio=1.0"),
        ("model.mask_ratio=0.75",),
    ),
    Tried(
        "model/masked_autoencoder.py",
        "the single number of a patch cannot be standardised",
        (*MASKED, "model.encoder.patch_size=1"),
        ("model.normalize_pixels=false", "model.encoder.patch_size=2"),
    ),
    Tried(
        "model/masked_autoencoder.py",
        "and some must be hidden and some seen",
        (*MASKED, "model.encoder.patch_size=8", "model.mask_ratio=0.9"),
        ("model.mask_ratio=0.75", "model.encoder.patch_size=4"),
    ),
    Tried("model/jepa.py", "is a share: use a value from", (*BLOCKS, "model.momentum=1.5"), ("model.momentum=0.996",)),
    Tried(
        "model/block_masks.py",
        "nothing to see. Use a smaller model.encoder.patch_size",
        (*BLOCKS, "model.encoder.patch_size=8", "model.masks.target_scale=[0.4,0.9]"),
        ("model.encoder.patch_size=2 model.masks.target_scale=[0.15,0.2]",),
    ),
    Tried(
        "callbacks/reconstructions.py",
        "For no reconstructions",
        (*MASKED, "callbacks.samples.times=1", "callbacks.samples.count=0"),
        ("callbacks.samples.times=0",),
    ),
    Tried(
        "run/assemble.py",
        "shows hidden parts of images filled in",
        (*(line for line in DIGITS if "samples" not in line), *MLP, "callbacks=[reconstructions]"),
        ("callbacks=[no_samples]",),
    ),
    Tried(
        "model/contrastive.py",
        "compares two views, and these are",
        (*VIEWS, "model/views=dino", "model.views.num_local=2"),
        ("model.views.count=2 model.views.num_local=0",),
    ),
    Tried(
        "model/self_distillation.py",
        "views of an image, and there is one",
        (*DISTILLED, "model/views=crop"),
        ("model/views=byol",),
    ),
    Tried(
        "model/self_distillation.py",
        "takes images of the size of the data alone",
        (
            *DISTILLED[:-1],
            "model/encoder=vit_features",
            "model/views=dino",
            "model.views.num_local=1",
            "model.views.small.size=8",
        ),
        ("model.views.num_local=0", "model/encoder=resnet"),
    ),
    Tried(
        "metrics/retrieval.py",
        "does not compare images with captions",
        (*DIGITS, *MLP, "metrics=[retrieval]"),
        ("metrics=[]",),
    ),
    Tried(
        "model/classifier.py",
        "needs labels, and the data have none",
        ("train", *JUDGE[1:-2], CACHE, "model=classifier", "data=image_folder", "data.root=one"),
        ("data=image_folder +data.root=p",),
        labelled_and_not,
    ),
    Tried(
        "model/condition.py",
        "the data have no",
        (*DIGITS, *MLP, "model.conditions=[caption]"),
        ("model.conditions=[label]",),
    ),
    Tried(
        "model/vq_vae.py",
        "counts its codes by label",
        ("train", *SHORT, "data=shapes", "model=vq_vae", "model.conditions=[caption]"),
        ("model.conditions=[]",),
    ),
    Tried("command/options.py", "must be a class, by", ("sample", "run=gan", "label=1.5"), ("label=[1,2]",), runs),
    Tried(
        "command/options.py",
        "edit needs to know what should change",
        EDIT,
        ("mask=mask.png", "box=[0,0,4,4]", "extend=[4,0,4,0]", "strength=0.5", "super_resolution=4", "method=invert"),
    ),
    Tried(
        "command/options.py",
        "needs to know what is missing",
        (*EDIT, "method=inpaint"),
        ("mask=mask.png", "box=[0,0,4,4]", "extend=[4,0,4,0]"),
    ),
    Tried(
        "command/options.py",
        ", or super_resolution=4, colorize=true or deblur=1.5",
        (*EDIT, "method=ddrm"),
        ("super_resolution=4", "colorize=true", "deblur=1.5"),
    ),
    Tried("command/options.py", "how much may change", (*EDIT, "method=sdedit"), ("strength=0.5",)),
    Tried("command/options.py", "is a share of the steps. Use", (*EDIT, "strength=3"), ("strength=1",)),
    Tried(
        "command/options.py",
        "takes mask= or box=",
        (*EDIT, "source_label=1", "mask=mask.png", "box=[0,0,4,4]"),
        ("-box",),
    ),
    Tried("command/options.py", "adds what is not there", (*EDIT, "extend=[1,1,1,1]", "strength=1"), ("-strength",)),
    Tried("command/options.py", "a way between two pictures", (*EDIT[:2], "image=[a.png,b.png]", "n=1"), ("n=2",)),
    Tried("command/options.py", "a moving picture is of", (*EDIT, "strength=1", "out=x.gif"), ("out=edited.png",)),
    Tried(
        "command/options.py", "is of a moving picture", (*EDIT[:2], "image=[a.png,b.png]", "fps=5"), ("out=way.gif",)
    ),
    Tried("command/options.py", "or change that", (*EDIT, "strength=0.5", "resamplings=3"), ("-resamplings",)),
    Tried(
        "command/options.py",
        "evaluate takes run=",
        ("evaluate", RANDOM, CACHE, "metrics=[]"),
        ("images=p reference=q",),
        classes,
    ),
    Tried(
        "command/options.py",
        "name one of them",
        ("evaluate", RANDOM, CACHE, "metrics=[]", "images=p"),
        ("reference=q",),
        classes,
    ),
    Tried("config/overrides.py", "put several folders into brackets", ("compare", "runs=a,b"), ("runs=[a,b]",)),
    Tried(
        "config/overrides.py",
        "Run folders are made in outputs=",
        (*DIGITS, *MLP, "hydra.run.dir=x"),
        ("outputs=x -hydra.run.dir",),
    ),
    Tried(
        "config/pointers.py",
        "Run folders are made in outputs=",
        (*DIGITS, *MLP, "output_dir=x"),
        ("outputs=x -output_dir",),
    ),
    Tried(
        "cli.py",
        "Continue a run with run=",
        ("train", "--experimental-rerun", "x"),
        ("run=gan ---experimental-rerun -x",),
        runs,
    ),
    Tried(
        "config/pointers.py", "A run is continued with run=", ("train", "ckpt_path=x"), ("run=gan -ckpt_path",), runs
    ),
    Tried("config/pointers.py", "The learning rate is", (*DIGITS, *MLP, "lr=1e-3"), ("model.optimizer.lr=1e-3 -lr",)),
    Tried(
        "config/pointers.py",
        "It belongs to the data",
        (*DIGITS, *MLP, "batch_size=3"),
        ("data.batch_size=3 -batch_size",),
    ),
    Tried(
        "config/pointers.py",
        "Give the run a budget",
        (*DIGITS, *MLP, "max_steps=3"),
        ("budget=examples budget.value=1000000 -max_steps",),
    ),
    Tried(
        "config/pointers.py", "Or limit the epochs too", (*DIGITS, *MLP, "epochs=3"), ("trainer.max_epochs=3 -epochs",)
    ),
    Tried(
        "config/pointers.py",
        "Data are chosen with data=",
        ("train", *SHORT, *MLP, "dataset=digits"),
        ("data=digits -dataset",),
    ),
    Tried(
        "config/pointers.py",
        "It belongs to the trainer: trainer.devices",
        (*DIGITS, *MLP, "devices=1"),
        ("trainer.devices=1 -devices",),
    ),
    Tried(
        "config/pointers.py",
        "It belongs to the trainer: trainer.precision",
        (*DIGITS, *MLP, "precision=16"),
        ("trainer.precision=bf16-mixed -precision",),
    ),
    Tried(
        "config/pointers.py",
        "Use trainer=gpu trainer.devices=",
        (*DIGITS, *MLP, "gpus=1"),
        ("trainer=gpu trainer.devices=1 -gpus",),
    ),
    Tried(
        "config/pointers.py",
        "model/optimizer=...",
        (*DIGITS, *MLP, "optimizer=adamw"),
        ("model/optimizer=adamw -optimizer",),
    ),
    Tried(
        "config/pointers.py",
        "model/schedule=...",
        (*DIGITS, *MLP, "scheduler=cosine"),
        ("model/schedule=cosine_decay -scheduler",),
    ),
    Tried(
        "config/pointers.py",
        "and launcher=local, ray or slurm",
        ("train", "data=digits", "hydra/launcher=x"),
        ("-m launcher=local +seed=0,1 -hydra/launcher",),
    ),
    Tried(
        "config/pointers.py",
        "and sweep=grid, optuna or wandb",
        ("train", "data=digits", "hydra/sweeper=x"),
        ("-m sweep=grid +seed=0,1 -hydra/sweeper",),
    ),
    Tried("config/pointers.py", "Every run writes metrics.csv", (*DIGITS, *MLP, "logger=csv"), ("logger=[none]",)),
    Tried("report/comparison.py", "names no folder", ("compare", "runs=[]"), ("runs=outputs",)),
    Tried(
        "sweep/plan.py",
        "and none are given. Name some",
        ("train", "-m"),
        ("seed=0,1,2", "model=gan,vae"),
    ),
    Tried(
        "sweep/search.py",
        "there is nothing to draw",
        ("train", "-m", "sweep=optuna", "seed=0"),
        ("model=gan,vae", DRAW),
    ),
    Tried("sweep/space.py", "is an interval", ("train", "-m", "data.limit=interval(1,4)"), ("sweep=optuna",)),
    Tried(
        "sweep/space.py",
        "combinations. Name fewer",
        ("train", "-m", "data=digits", "seed=range(0,2000)", "data.seed=range(0,2000)"),
        ("sweep=optuna sweep.n_trials=100",),
    ),
    Tried(
        "sweep/metric.py",
        "neither low nor high is better",
        ("train", "-m", "data=digits", "seed=0,1", "sweep.metric=kid_std"),
        ("sweep.direction=lower",),
    ),
    Tried(
        "sweep/metric.py",
        "cannot tell which direction",
        ("train", "-m", "data=digits", "seed=0,1", "sweep.metric=fid"),
        ("sweep.direction=lower",),
        patch=no_answers,
    ),
    Tried(
        "data/base.py",
        "has no such split",
        (*DIGITS, *MLP, RANDOM, "metrics=[fid]", "evaluation.reference=test"),
        ("evaluation.reference=val",),
    ),
    Tried(
        "config/overrides.py",
        "Put text with special characters into quotes",
        (*TEXTS, "data.pattern=a(b"),
        ("'data.pattern=\"a(b\"'",),
        text,
    ),
    Tried(
        "run/elsewhere.py",
        "name another: ",
        ("evaluate", "run=gan", "metrics=[fid]"),
        ("metrics.extractor=judge",),
        a_judge_that_is_gone,
    ),
    Tried(
        "run/assemble.py",
        " Use model=",
        (*UNTOLD, "model=diffusion", "model/network=mlp"),
        ("model=transformer -model/network",),
        text,
    ),
    Tried(
        "run/assemble.py",
        "Use trainer.devices=",
        (*DIGITS, *MLP, "trainer=gpu", "trainer.devices=2"),
        ("trainer.devices=1", "trainer=ddp_cpu"),
        patch=one_gpu,
    ),
    Tried(
        "callbacks/evaluation.py",
        "For no evaluation during training",
        (*DIGITS, *MLP, "callbacks.evaluation.times=1", "callbacks.evaluation.num_samples=1"),
        ("callbacks.evaluation.times=0",),
    ),
    Tried(
        "callbacks/samples.py",
        "For no grid",
        (*DIGITS, *MLP, "callbacks.samples.times=1", "callbacks.samples.columns=0", "callbacks.samples.count=3"),
        ("callbacks.samples.times=0",),
    ),
    Tried(
        "callbacks/text_samples.py",
        "For no texts",
        (*TEXT, "callbacks.samples.times=1", "callbacks.samples.count=0"),
        ("callbacks.samples.times=0",),
        text,
    ),
    Tried(
        "data/decode.py",
        "only 8-bit images are read, and gray",
        IMAGES,
        ("data=array +data.path=x.npy -data.root",),
        color_of_16_bits,
    ),
    Tried(
        "data/given.py",
        "has no held-out images",
        (*COMPARED, "metrics=[nearest_neighbor]"),
        ("metrics=[]", "data=image_folder +data.root=q -reference"),
        unlabelled,
    ),
    Tried(
        "metrics/bits_per_dim.py",
        "has no likelihood",
        ("train", *SHORT, "data=digits", "model=gan", "metrics=[bits_per_dim]"),
        ("metrics=[]",),
    ),
    Tried("task/continue_text.py", "is for text; the data are", (*DIGITS, *MLP, "task=continue_text"), ("-task",)),
    Tried("task/generate.py", "is for images; the data are", (*TEXT, "task=generate"), ("-task",), text),
    Tried(
        "task/text_to_image.py",
        "needs images with captions",
        (*DIGITS, *MLP, "task=text_to_image"),
        ("-task",),
    ),
    Tried(
        "task/text_to_image.py",
        "the model takes no captions",
        (*SCENES, *MLP, "task=text_to_image", "metrics=[scene_accuracy]"),
        ("model.conditions=[caption]",),
    ),
    Tried(
        "evaluation/fitting.py",
        "needs a model that takes",
        (*DIGITS, *MLP, "model.conditions=[]", RANDOM, "metrics=[label_accuracy]"),
        ("metrics=[]",),
    ),
    Tried(
        "metrics/extractor/weights.py",
        "use metrics/extractor=random",
        (*DIGITS, *MLP, "metrics=[fid]", "metrics/extractor=inception"),
        ("metrics/extractor=random",),
        patch=no_network,
    ),
    Tried(
        "evaluation/fitting.py",
        "needs features of images",
        (*DIGITS, *MLP, "metrics=[fid]", "metrics.extractor=null"),
        ("metrics/extractor=random -metrics.extractor",),
    ),
    Tried(
        "metrics/pass_at_k.py",
        "If they may run on this machine, set",
        (*TEXT, *PROGRAMS),
        ("metrics.pass_at_k.allow_code=true",),
        problems,
    ),
    Tried(
        "metrics/sandbox.py",
        "by means that only Linux has",
        (*TEXT, *PROGRAMS, "metrics.pass_at_k.allow_code=true"),
        ("metrics=[] -metrics.pass_at_k.problems -metrics.pass_at_k.allow_code",),
        problems,
        no_linux,
    ),
    Tried(
        "metrics/sandbox.py",
        "does not start with -I",
        (*TEXT, *PROGRAMS, "metrics.pass_at_k.allow_code=true"),
        ("metrics=[] -metrics.pass_at_k.problems -metrics.pass_at_k.allow_code",),
        problems,
        no_sandbox,
    ),
    Tried(
        "task/continue_text.py",
        "Let samples be shorter",
        (*TEXT, "metrics/extractor=ngrams", "metrics=[distinct]", "model.sample_length=5000"),
        ("model.sample_length=10",),
        text,
    ),
    Tried(
        "metrics/perceptual_path_length.py",
        "has no single latent",
        (*DIGITS, *MLP, "metrics=[path_length_pixels]"),
        ("metrics=[]",),
    ),
    Tried(
        "model/condition.py",
        "needs a model trained with",
        (*DIGITS, *MLP, "model.guidance=2", "model.condition_dropout=0"),
        ("model.condition_dropout=0.1",),
    ),
    Tried(
        "model/condition.py",
        "needs a model trained on each condition without the others",
        (*SCENES, *MLP, "model.conditions=[label,caption]", "model/guidance=each"),
        ("'model.condition_dropout={label:0.1,caption:0.1}'", "model/guidance=classifier_free"),
    ),
    Tried(
        "model/guidance/each.py",
        "has no weight for the",
        (
            *SCENES,
            *MLP,
            "model.conditions=[label,caption]",
            "model.condition_dropout={label:0.1,caption:0.1}",
            "model/guidance=each",
            "model.guidance.strength={label:2}",
        ),
        ("'model.guidance.strength={label:2,caption:0}'",),
    ),
    Tried(
        "model/guidance/perturbed_attention.py",
        "perturbs self-attention, and a",
        (*DIGITS, *MLP, "model/guidance=perturbed_attention"),
        ("model/guidance=classifier_free", "model/network=unet -model.network.width"),
    ),
    Tried(
        "model/guidance/perturbed_attention.py",
        "names no layer",
        (*DIGITS, "model/guidance=perturbed_attention", "model.guidance.layers=[]"),
        ("model.guidance.layers=null",),
    ),
    Tried(
        "model/guidance/perturbed_attention.py",
        "of self-attention, and a",
        (*DIGITS, "model/guidance=perturbed_attention", "model.guidance.layers=[40]"),
        ("model.guidance.layers=[0]",),
    ),
    Tried(
        "model/guidance/score.py",
        "which has no gradient",
        (*DIGITS, *MLP, "model/guidance=score", "model.guidance.score._target_=genlab.rewards.pictures.JpegSize"),
        ("model.guidance.score._target_=genlab.rewards.pictures.Brightness",),
    ),
    Tried(
        "model/guidance/score.py",
        "adds to an expected image",
        (
            *DIGITS,
            *MLP,
            "model/guidance=score",
            "model.guidance.score._target_=genlab.rewards.pictures.Brightness",
            "model/objective=consistency",
            "model/sampler=consistency",
        ),
        ("model/guidance=none -model.guidance.score._target_",),
    ),
    Tried(
        "model/sampler/next_token.py",
        "must be 0 or more, repetition_penalty",
        (*TEXT, "model.sampler.temperature=-1"),
        ("+model.sampler.temperature=0",),
        text,
    ),
    Tried(
        "model/sampler/next_token.py",
        "must be 1 or more, top_p",
        (*TEXT, "model.sampler.top_k=0"),
        ("+model.sampler.top_k=1",),
        text,
    ),
    Tried(
        "model/sampler/unmask.py",
        "must be 1 or more, temperature",
        ("train", *SHORT, "data=digits", "model=masked", "model.sampler.num_steps=0"),
        ("+model.sampler.num_steps=1",),
    ),
    Tried(
        "files/atomic.py",
        "choose another place with outputs=",
        (*DIGITS, *MLP, "outputs=here"),
        ("outputs=elsewhere",),
        patch=full_disk,
    ),
    Tried(
        "command/verify.py",
        "was trained with another budget",
        ("verify", "run=recipe"),
        ("experiment=dcgan_cifar10_small +data.download=false -run",),
        recipe,
    ),
    Tried(
        "command/verify.py",
        "nothing would be measured",
        ("verify", "experiment=shakespeare_cpu", "data.download=false", "~callbacks.evaluation"),
        ("callbacks=[default] -~callbacks.evaluation",),
    ),
    Tried(
        "metrics/class_balance.py",
        "the reference has no image of class",
        (*ARRAY, *THREE_CLASSES, RANDOM, "metrics=[class_balance]", "evaluation.balanced_classes=true"),
        ("metrics=[]",),
        a_class_without_held_out_images,
    ),
    Tried(
        "metrics/class_variety.py",
        "needs at least 2 real images",
        (*ARRAY, "data.val_path=one.npy", RANDOM, "metrics=[class_variety]"),
        ("metrics=[]",),
        arrays,
    ),
    Tried(
        "metrics/class_variety.py",
        "images of the reference do not differ",
        (*COMPARED, "reference=same", "metrics=[class_variety]"),
        ("metrics=[]",),
        all_the_same,
    ),
    Tried(
        "metrics/classes.py",
        "of two classes or more",
        (*IMAGES, RANDOM, "metrics=[class_balance]"),
        ("metrics=[]",),
        one_class,
    ),
    Tried(
        "metrics/clip_score.py",
        "needs captions or names of classes",
        (*COMPARED, "metrics=[clip_score]", "metrics.clip_score.model=clip"),
        ("metrics=[] -metrics.clip_score.model",),
        with_clip,
    ),
    Tried(
        "metrics/clip.py",
        "Name a folder that holds it",
        (*COMPARED, "metrics=[clip_score]", "metrics.clip_score.model=openai/nowhere"),
        ("metrics.clip_score.model=clip", "metrics=[] -metrics.clip_score.model"),
        with_clip_and_classes,
    ),
    Tried(
        "command/verify.py",
        "metrics.csv is missing",
        ("verify", "run=recipe"),
        ("experiment=dcgan_cifar10_small +data.download=false -run",),
        recipe_without_numbers,
    ),
)


OFFERED = (
    Offered(
        "model/condition_concept.py",
        "its captions are not made of whole words",
        "another base",
        "data=captioned_folder data/tokenizer=words",
    ),
    Offered(
        "model/concept.py",
        "is too small to be sharded",
        "several processes",
        "model=concept trainer.strategy=ddp",
    ),
    Offered(
        "run/adapters.py",
        "was trained on quantized weights",
        "another adapter",
        "model/adapter=lora model.adapter.quantization=null",
    ),
    Offered("command/options.py", "with best_of: a run of classifier", "help", "model=classifier"),
    Offered("interop/gguf.py", "are not read from .gguf files", "a file of such a model, and two packages"),
    Offered(
        "metrics/sandbox.py",
        "no process can be started",
        "a user with as many processes as it may have; root, as which tests may run, has no such bound",
        "data=text_file metrics=[pass_at_k] metrics.pass_at_k.workers=1",
    ),
    Offered(
        "model/policy.py",
        "cannot be sharded (trainer=fsdp)",
        "several GPUs",
        "model=policy data=prompts data.path=p.jsonl start=outputs/a/b trainer=ddp",
    ),
    Offered(
        "callbacks/policy_failures.py",
        "had the same reward",
        "only a long training shows whether answers differ",
        "model=policy data=prompts data.path=p.jsonl start=outputs/a/b model.answers=16",
    ),
    Offered(
        "callbacks/policy_failures.py",
        "most answers are cut",
        "only a long training shows whether answers end",
        "model=policy data=prompts data.path=p.jsonl start=outputs/a/b model/rewards=[checker,ended] "
        "model.sample_length=200",
    ),
    Offered(
        "callbacks/policy_failures.py",
        "the reward is gamed",
        "only a long training shows whether it is gamed",
        "model=policy data=prompts data.path=p.jsonl start=outputs/a/b model.objective.beta=0.1 budget.value=100",
    ),
    Offered(
        "callbacks/feature_collapse.py",
        "all images had nearly the same features",
        "only a long training shows whether features collapse",
        "model=contrastive model.optimizer.lr=1e-4",
    ),
    Offered(
        "callbacks/feature_collapse.py",
        "varied in about",
        "only a long training shows whether features collapse",
        "model=contrastive model/objective=vicreg model.optimizer.lr=1e-4",
    ),
    Offered(
        "model/diffusion_policy.py",
        "cannot be sharded (trainer=fsdp)",
        "several GPUs",
        "model=diffusion_policy start=outputs/a/b trainer=ddp",
    ),
    Offered("model/gan.py", "cannot be sharded (trainer=fsdp)", "several GPUs", "model=gan trainer=ddp"),
    Offered(
        "model/progan.py", "cannot be divided into the", "several devices", "model=progan model.growth.batch_size={8:8}"
    ),
    Offered(
        "callbacks/failure_monitor.py",
        "the discriminator wins",
        "only a long training shows whether a GAN recovers",
        "model=gan model/augment=diffaugment model/objective/penalty=r1 model.discriminator_optimizer.lr=1e-4",
    ),
    Offered(
        "callbacks/failure_monitor.py",
        "Use model/augment=diffaugment",
        "only a long training shows whether a GAN recovers",
        "model=gan model/augment=diffaugment model/objective/penalty=r1 model.optimizer.lr=1e-4",
    ),
    Offered(
        "callbacks/failure_monitor.py",
        "Lower model.optimizer.lr",
        "only a long training shows whether samples recover",
        "model=diffusion model.optimizer.lr=1e-4 model.guidance=1.0",
    ),
    Offered(
        "callbacks/preference_failures.py",
        "Use a larger model.objective.beta (of ipo: model.objective.tau)",
        "only a long training shows whether answers stay likely",
        "model=preference data=preferences data.path=pairs.jsonl start=outputs/a/b model.objective.beta=0.3 "
        "model.optimizer.lr=1e-5 budget.value=1000",
    ),
    Offered(
        "callbacks/preference_failures.py",
        "Use model/objective=dpo, which",
        "only a long training shows whether answers stay likely",
        "model=preference data=preferences data.path=pairs.jsonl start=outputs/a/b model/objective=dpo "
        "model.optimizer.lr=1e-5 budget.value=1000",
    ),
    Offered("launcher/ray.py", "Start one with ray start", "a Ray cluster"),
    Offered(
        "data/reasoning_gym.py",
        "are among the training problems too",
        "a package that is not installed; test_chat.py has another in its place",
        "data=reasoning_gym data.task=chain_sum data.num_train=2000 data.options={max_terms:2}",
    ),
    Offered(
        "machine/memory.py",
        "a smaller model, or",
        "a training of which one example fills the memory",
        "trainer.precision=bf16-mixed",
    ),
    Offered(
        "command/train.py",
        ", or trainer.activation_checkpointing=true",
        "a training that fills the memory",
        "trainer.activation_checkpointing=true",
    ),
    Offered("sweep/wandb.py", "W&B refuses it", "W&B, over the network"),
    Offered("command/verify.py", "Look at train/ and monitor/", "it names files to read, and no option"),
)
ELSEWHERE = (
    Elsewhere(
        "interop/stylegan2_pickle.py",
        "its networks are others than this model's",
        "model/test_stylegan2_pickle.py::test_a_run_begins_with_the_weights_of_a_file_and_says_what_it_needs",
    ),
    Elsewhere(
        "metrics/layout_iou.py",
        "is given no hint",
        "metrics/test_layout_iou.py::test_what_does_not_suit_it_is_refused",
    ),
    Elsewhere(
        "metrics/layout_iou.py",
        "needs scenes with layouts",
        "metrics/test_layout_iou.py::test_what_does_not_suit_it_is_refused",
    ),
    Elsewhere(
        "model/condition_concept.py",
        "which the base does not know",
        "model/test_concept.py::test_what_does_not_suit_the_base_is_refused",
    ),
    Elsewhere(
        "run/adapters.py",
        "it has no adapter",
        "test_on_a_base.py::test_adapters_of_several_runs",
    ),
    Elsewhere(
        "run/adapters.py",
        "it was trained on other weights than those",
        "test_on_a_base.py::test_adapters_of_several_runs",
    ),
    Elsewhere(
        "command/options.py",
        "whose base is this run",
        "test_on_a_base.py::test_adapters_of_several_runs",
    ),
    Elsewhere(
        "model/objective/policy.py",
        "kl=k1 in the loss has no gradient",
        "test_policy_runs.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "model/policy.py",
        "this objective compares answers to one prompt",
        "test_policy_runs.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "model/policy.py",
        "no reward has a weight",
        "test_policy_runs.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "model/policy.py",
        "do not fit after the longest prompt",
        "test_policy_runs.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "model/policy.py",
        "changes with what probability an answer is drawn",
        "test_policy_runs.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "model/policy.py",
        "does not divide the {} answers",
        "test_policy_runs.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "rewards/checker.py",
        "has no checker of answers",
        "test_policy_runs.py::test_data_without_a_checker_and_judges_of_other_tokens_are_refused",
    ),
    Elsewhere(
        "rewards/judged.py",
        "the reward model sees {} tokens",
        "test_policy_runs.py::test_data_without_a_checker_and_judges_of_other_tokens_are_refused",
    ),
    Elsewhere(
        "rewards/judged.py",
        "needs a reward model of several members",
        "test_policy_runs.py::test_caution_needs_an_ensemble",
    ),
    Elsewhere(
        "rewards/doctests.py",
        "runs programs that the model writes",
        "test_policy_runs.py::test_programs_need_permission",
    ),
    Elsewhere(
        "model/diffusion_policy.py",
        "no reward has a weight",
        "test_diffusion_policy_runs.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "model/diffusion_policy.py",
        "that a picture was drawn for, and the model has none",
        "test_diffusion_policy_runs.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "model/base.py",
        "say what guidance leads away from",
        "test_guided_runs.py::test_a_negative_label_needs_guidance",
    ),
    Elsewhere(
        "model/guidance/apg.py",
        "momentum makes a step depend",
        "model/test_guiders.py::test_momentum_is_not_for_steps_by_themselves",
    ),
    Elsewhere(
        "model/guidance/autoguidance.py",
        "compares expected images",
        "model/test_guiders.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "model/guidance/autoguidance.py",
        "was trained with other conditions",
        "model/test_guiders.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "model/guidance/classifier.py",
        "adds to an expected image",
        "model/test_guiders.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "model/guidance/classifier.py",
        "was trained on clean images",
        "test_guided_runs.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "model/guidance/classifier.py",
        "was trained on images of shape",
        "model/test_guiders.py::test_another_classifier_is_refused",
    ),
    Elsewhere(
        "model/latent_diffusion.py",
        "looks at pictures, and this model draws latents",
        "model/test_guiders.py::test_latents_are_no_pictures",
    ),
    Elsewhere(
        "model/diffusion_policy.py",
        "model.advantages=condition compares",
        "test_diffusion_policy_runs.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "model/diffusion_policy.py",
        "this sampler draws nothing on its way",
        "test_diffusion_policy_runs.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "model/diffusion_policy.py",
        "does not divide the {} samples",
        "test_diffusion_policy_runs.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "rewards/pictures.py",
        "is outside 1 to 100",
        "test_diffusion_policy_runs.py::test_what_does_not_fit_is_refused_in_a_line",
    ),
    Elsewhere(
        "rewards/pictures.py",
        "and a JPEG file has 1 or 3",
        "model/test_diffusion_policy.py::test_noise_has_a_larger_jpeg_file_than_gray",
    ),
    Elsewhere(
        "rewards/label.py",
        "the classifier was trained on pictures of shape",
        "model/test_diffusion_policy.py::test_the_probability_of_the_label_by_hand",
    ),
    Elsewhere(
        "model/diffusion_policy.py",
        "That was a sample after {}",
        "model/test_diffusion_policy.py::test_a_reward_that_fails_ends_the_run_in_a_line",
    ),
    Elsewhere(
        "command/export.py",
        "has no adapter (model/adapter=lora)",
        "test_adapter_refused.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "interop/peft.py",
        "Name the folder of an adapter, as peft's save_pretrained",
        "test_adapter_refused.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "run/adapter.py",
        "this model takes no adapter. Use model=transformer",
        "test_adapter_refused.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "run/adapter.py",
        "it was trained on other weights than start=",
        "test_adapter_refused.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "run/adapter.py",
        "its base is {}, and not start=",
        "test_adapter_refused.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "run/adapter.py",
        "it is not of this model ({})",
        "test_adapter_refused.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "run/start.py",
        "those here are random. Name some",
        "test_adapter_refused.py::test_what_does_not_fit_is_refused_with_what_does",
    ),
    Elsewhere(
        "run/start.py",
        "is merged, into all weights that it was trained on. Leave",
        "test_preference_adapter_runs.py::test_an_adapter_of_peft_is_part_of_the_reference",
    ),
    Elsewhere(
        "model/adapter/lora.py",
        "names no map to adapt. Use targets=",
        "model/test_lora.py::test_what_cannot_be_is_refused",
    ),
    Elsewhere(
        "command/chat.py", "was not trained on conversations", "test_chat.py::test_a_run_of_other_text_is_refused"
    ),
    Elsewhere(
        "run/counted.py",
        "does not tell apart several conversations",
        "model/test_counted.py::test_a_network_that_knows_no_segments_is_refused",
    ),
    Elsewhere(
        "model/answering.py", "does not answer. Use", "test_chat.py::test_answers_end_at_their_end_in_any_batches"
    ),
    Elsewhere(
        "run/elsewhere.py", "so it needs your consent", "test_hub_parts.py::test_a_changed_part_ends_with_exit_code_3"
    ),
    Elsewhere("run/start.py", "to put the weights into", "test_hub_networks.py::test_it_starts_nothing_else"),
    Elsewhere(
        "interop/unet2d_condition.py", "takes captions alone", "test_hub_networks.py::test_what_it_needs_is_said"
    ),
    Elsewhere(
        "interop/unet2d_condition.py", "needs a text encoder:", "test_hub_networks.py::test_what_it_needs_is_said"
    ),
    Elsewhere(
        "metrics/caption_perplexity.py",
        "the data have no captions",
        "test_captioning.py::test_a_perplexity_of_captions_needs_some",
    ),
    Elsewhere(
        "task/caption.py",
        "does not describe pictures. Use model=captioner",
        "test_captioning.py::test_a_model_of_pictures_writes_none",
    ),
    Elsewhere("sampling/captions.py", "out={}: ", "test_captioning.py::test_what_is_asked_of_it_is_a_picture"),
    Elsewhere("sampling/captions.py", "image=picture.png", "test_captioning.py::test_what_is_asked_of_it_is_a_picture"),
    Elsewhere("sampling/captions.py", "Leave task= out", "test_captioning.py::test_what_is_asked_of_it_is_a_picture"),
    Elsewhere("sampling/texts.py", "continues text. Leave image=", "test_captioning.py::test_texts_take_no_picture"),
    Elsewhere(
        "run/start.py", "None of them fits", "test_start.py::test_weights_that_do_not_fit_come_with_a_remedy_that_works"
    ),
    Elsewhere(
        "model/network/embedding.py", "and the model has none", "test_hub_parts.py::test_an_encoder_needs_captions"
    ),
    Elsewhere(
        "run/assemble.py", "and cannot use another", "test_remedies.py::test_a_run_writes_with_its_own_tokenizer"
    ),
    Elsewhere(
        "model/base.py",
        "whose activations could be computed twice",
        "model/test_activation_checkpointing.py::test_a_network_without_blocks_is_refused",
    ),
    Elsewhere("command/evaluate.py", "Nothing was measured", "test_remedies.py::test_what_measures_nothing_says_so"),
    Elsewhere(  # of data of the user's own: genlab's hold no half of labels
        "metrics/accuracy.py",
        "no held-out image has a label",
        "metrics/test_accuracy.py::test_what_cannot_be_measured_is_refused",
    ),
    Elsewhere(
        "config/overrides.py", "Write it without spaces", "test_remedies.py::test_a_comma_in_a_path_needs_quotes"
    ),
    Elsewhere("", "needs a package: pip install", "test_remedies.py::test_an_extra_that_is_advised_is_there"),
    Elsewhere(
        "model/tokens.py",
        "are neither text nor images",
        "test_third_modality.py::test_what_is_for_images_is_refused",
    ),
    Elsewhere("sampling/pictures.py", "out={}: ", "test_remedies.py::test_samples_go_where_it_is_advised"),
    Elsewhere("sampling/texts.py", "out={}: ", "test_remedies.py::test_samples_go_where_it_is_advised"),
    Elsewhere(
        "command/edit.py",
        "Name the one of the picture",
        "test_edit.py::test_a_model_that_always_knows_its_class_is_told",
    ),
    Elsewhere("command/edit.py", "which is no multiple", "test_edit.py::test_what_is_refused"),
    Elsewhere(
        "command/edit.py", "For the same picture use", "test_edit.py::test_noise_is_written_and_guidance_warned_of"
    ),
    Elsewhere(
        "editing/ddrm.py",
        "from 0 to 1.",
        "editing/test_inverse_problems.py::test_the_moments_of_ddrm_are_those_of_its_equations",
    ),
    Elsewhere(
        "editing/edit.py",
        "is a share of the steps of diffusion",
        "editing/test_edit_families.py::test_others_are_refused_with_a_reason",
    ),
    Elsewhere(
        "editing/edit.py",
        "both pictures are on the way",
        "editing/test_edit_families.py::test_others_are_refused_with_a_reason",
    ),
    Elsewhere(
        "editing/edit.py",
        "needs a denoiser, and a",
        "editing/test_edit_families.py::test_others_are_refused_with_a_reason",
    ),
    Elsewhere(
        "editing/edit.py",
        "needs the expected image at each",
        "editing/test_edit_families.py::test_others_are_refused_with_a_reason",
    ),
    Elsewhere(
        "editing/edit.py",
        "measures pixels, and a",
        "editing/test_edit_families.py::test_others_are_refused_with_a_reason",
    ),
    Elsewhere(
        "editing/edit.py",
        "a prior of its latents to fill in with",
        "editing/test_edit_families.py::test_others_are_refused_with_a_reason",
    ),
    Elsewhere("editing/picture.py", "Name a mask of", "test_edit.py::test_what_is_refused"),
    Elsewhere("editing/picture.py", "is not a rectangle", "test_edit.py::test_a_mask_is_cropped_with_its_picture"),
    Elsewhere("editing/picture.py", "leaves nothing of the model's", "test_edit.py::test_a_picture_is_extended"),
    Elsewhere(
        "command/options.py", "finds one picture. Leave", "test_walks_and_projections.py::test_what_the_command_refuses"
    ),
    Elsewhere(
        "command/options.py",
        "is of a projection. Name a picture",
        "test_walks_and_projections.py::test_what_the_command_refuses",
    ),
    Elsewhere(
        "command/options.py",
        "is of a walk. Say how long",
        "test_walks_and_projections.py::test_what_the_command_refuses",
    ),
    Elsewhere(
        "command/options.py",
        "two samples or more. Use n=2",
        "test_walks_and_projections.py::test_what_the_command_refuses",
    ),
    Elsewhere(
        "command/sample.py",
        "fills in one text",
        "test_masked_language_runs.py::test_what_cannot_be_filled_in_is_refused",
    ),
    Elsewhere(
        "sampling/fill.py",
        "fills in masked tokens. Type a text",
        "test_masked_language_runs.py::test_masked_tokens_are_filled_in",
    ),
    Elsewhere(
        "command/sample.py",
        "Or leave features= out",
        "test_walks_and_projections.py::test_a_missing_package_or_weights",
    ),
    Elsewhere(
        "sampling/projection.py",
        "has none. Use features=vgg",
        "test_walks_and_projections.py::test_what_cannot_be_projected",
    ),
    Elsewhere(
        "sampling/projection.py",
        "Name a run of model=stylegan2",
        "test_walks_and_projections.py::test_other_models_are_refused",
    ),
    Elsewhere(
        "sampling/projection.py",
        "Name the one of the picture",
        "test_walks_and_projections.py::test_what_the_command_refuses",
    ),
    Elsewhere(
        "sampling/projection.py",
        "with a .safetensors beside it",
        "test_walks_and_projections.py::test_what_the_command_refuses",
    ),
    Elsewhere("sampling/video.py", "shows at most", "test_walks_and_projections.py::test_what_the_command_refuses"),
    Elsewhere("sampling/video.py", "a walk goes into", "test_walks_and_projections.py::test_what_the_command_refuses"),
    Elsewhere(
        "sampling/walk.py", "nothing to walk along", "test_walks_and_projections.py::test_other_models_are_refused"
    ),
    Elsewhere(
        "command/directions.py", "is of directions of labels", "test_direction_runs.py::test_what_the_commands_refuse"
    ),
    Elsewhere(
        "command/directions.py", "dimensions. Use count=", "test_direction_runs.py::test_what_the_commands_refuse"
    ),
    Elsewhere(
        "command/directions.py",
        "principal components. Use samples=",
        "test_direction_runs.py::test_what_the_commands_refuse",
    ),
    Elsewhere(
        "command/directions.py",
        "gives pictures no labels",
        "test_direction_runs.py::test_attributes_are_typed_and_judged",
    ),
    Elsewhere(
        "command/directions.py",
        "have no labels. Use method=pca",
        "test_direction_runs.py::test_labels_that_are_not_there",
    ),
    Elsewhere(
        "command/directions.py",
        "and a direction needs",
        "test_direction_runs.py::test_labels_of_encoded_data_and_of_a_judge",
    ),
    Elsewhere("command/directions.py", "no label divides", "test_direction_runs.py::test_labels_that_are_not_there"),
    Elsewhere(
        "command/evaluate.py", "that a picture is asked for", "test_direction_runs.py::test_what_the_commands_refuse"
    ),
    Elsewhere(
        "command/options.py", "has no middle, where a sample", "test_direction_runs.py::test_what_the_commands_refuse"
    ),
    Elsewhere("command/options.py", "or several: {}=[1,2]", "test_direction_runs.py::test_what_the_commands_refuse"),
    Elsewhere(
        "command/options.py",
        "a walk goes through plain samples",
        "test_direction_runs.py::test_what_the_commands_refuse",
    ),
    Elsewhere(
        "command/sample.py",
        "draws no pictures. Leave",
        "test_direction_runs.py::test_a_model_of_text_has_no_directions",
    ),
    Elsewhere("command/sample.py", "and nothing says it", "test_direction_runs.py::test_what_the_commands_refuse"),
    Elsewhere("data/shapes.py", "shapes have no", "data/test_attributes.py::test_an_attribute_that_is_not_there"),
    Elsewhere(
        "data/shapes.py",
        "pictures of several objects have no factors",
        "data/test_attributes.py::test_factors_of_pictures_of_one_object",
    ),
    Elsewhere(
        "directions/space.py", "are shifts of the middle", "test_directions.py::test_a_model_without_a_space_is_refused"
    ),
    Elsewhere(
        "directions/space.py",
        "has none that is known",
        "test_directions.py::test_a_map_that_is_not_known_is_not_guessed",
    ),
    Elsewhere(
        "directions/space.py",
        "and a U-Net has none",
        "test_direction_runs.py::test_labels_of_encoded_data_and_of_a_judge",
    ),
    Elsewhere("directions/stored.py", "there is none.", "test_direction_runs.py::test_what_the_commands_refuse"),
    Elsewhere(
        "metrics/attribute_error.py",
        "reads size, x and y",
        "data/test_attributes.py::test_other_attributes_are_not_read",
    ),
    Elsewhere(
        "metrics/attribute_error.py",
        "attribute_error needs attributes",
        "data/test_attributes.py::test_other_attributes_are_not_read",
    ),
    Elsewhere(
        "metrics/disentanglement.py",
        "needs data that know their factors",
        "metrics/test_disentanglement.py::test_what_it_cannot_be_measured_on",
    ),
    Elsewhere(
        "metrics/disentanglement.py",
        "training images or more, got",
        "metrics/test_disentanglement.py::test_what_it_cannot_be_measured_on",
    ),
    Elsewhere(
        "metrics/disentanglement.py",
        "has no latents. Leave",
        "metrics/test_disentanglement.py::test_what_it_cannot_be_measured_on",
    ),
    Elsewhere(
        "metrics/disentanglement.py",
        "are read, without a",
        "metrics/test_disentanglement.py::test_what_it_cannot_be_measured_on",
    ),
    Elsewhere(
        "model/condition_kind.py", "Use attributes=", "model/test_numbers.py::test_numbers_that_cannot_be_asked_for"
    ),
    Elsewhere("model/factor_vae.py", "cannot be sharded", "model/test_factor_vae.py::test_what_is_refused"),
    Elsewhere("model/factor_vae.py", "permutes latents of a batch", "model/test_factor_vae.py::test_what_is_refused"),
    Elsewhere("run/judge.py", "judges no pictures", "test_direction_runs.py::test_what_the_commands_refuse"),
    Elsewhere("run/judge.py", "reads captions, and the data", "test_direction_runs.py::test_what_the_commands_refuse"),
    Elsewhere(
        "sampling/texts.py",
        "continues text. Leave attributes=",
        "test_direction_runs.py::test_a_model_of_text_has_no_directions",
    ),
    Elsewhere("command/train.py", "saved. Continue with", "test_resume.py::test_bit_identical"),
    Elsewhere("command/train.py", "Evaluate with", "test_resume.py::test_signal_in_the_final_evaluation"),
    Elsewhere(
        "run/resume.py",
        "was trained with other settings",
        "test_resuming.py::test_a_change_that_is_allowed_is_said_and_made",
    ),
    Elsewhere(
        "run/resume.py",
        "the training data are not those",
        "test_resuming.py::test_other_images_under_the_same_name_are_refused",
    ),
    Elsewhere(
        "report/protocol.py",
        "with allow_unequal=true",
        "report/test_comparison.py::test_unequal_numbers_are_marked_if_asked_for",
    ),
    Elsewhere(
        "report/protocol.py",
        "Measure it again: {} run={} {}",
        "report/test_comparison.py::test_unequal_numbers_are_refused",
    ),
    Elsewhere("run/run_folder.py", "already holds a run", "test_remedies.py::test_a_folder_of_a_run_is_continued"),
    Elsewhere("data/shapes.py", "of memory. Use data.", "test_remedies.py::test_scenes_that_memory_cannot_hold"),
    Elsewhere(
        "data/hf_images.py", "has no column", "data/test_hf_images.py::test_rows_are_decoded_in_order_with_their_labels"
    ),
    Elsewhere("data/hf_images.py", "has no label", "data/test_hf_images.py::test_rows_that_make_no_sense"),
    Elsewhere(
        "data/captions.py",
        "tokens, and cut",
        "data/test_captioned_folder.py::test_long_captions_are_cut_and_said_once",
    ),
    Elsewhere(
        "data/hf_captioned.py",
        "Name the column with captions",
        "data/test_hf_captioned.py::test_what_is_not_there_is_refused",
    ),
    Elsewhere(
        "data/hf_captioned.py", "has no caption in", "data/test_hf_captioned.py::test_what_is_not_there_is_refused"
    ),
    Elsewhere(
        "data/webdataset.py",
        "Set data.text_column",
        "data/test_webdataset.py::test_damaged_members_name_their_shard",
    ),
    Elsewhere(
        "data/webdataset.py",
        "is not a folder. Set data.root",
        "data/test_webdataset.py::test_what_is_no_folder_of_shards_is_refused",
    ),
    Elsewhere("data/hf_text.py", "has no column", "data/test_hf_text.py::test_what_is_not_there_is_refused"),
    Elsewhere("data/hub.py", "Set data.name to a folder", "data/test_hub.py::test_offline_is_one_line_at_once"),
    Elsewhere(
        "data/mnist.py",
        "leaves nothing to train on",
        "data/test_published.py::test_binary_mnist_is_drawn_once_and_split_in_three",
    ),
    Elsewhere("data/shakespeare.py", "Or set data.path", "data/test_text_sources.py::test_a_copy_needs_no_network"),
    Elsewhere(
        "data/shakespeare.py",
        "is not Tiny Shakespeare",
        "data/test_text_sources.py::test_another_text_is_not_shakespeare",
    ),
    Elsewhere(
        "data/tokenizer/byte_level.py",
        "has no special token",
        "data/test_tokenizers.py::test_files_of_other_tokenizers_are_refused",
    ),
    Elsewhere(
        "data/tokenizer/pretrained.py", "there is no file", "data/test_tokenizers.py::test_names_that_lead_nowhere"
    ),
    Elsewhere(
        "data/tokenizer/pretrained.py",
        "the Hugging Face Hub cannot be reached",
        "data/test_tokenizers.py::test_names_that_lead_nowhere",
    ),
    Elsewhere(
        "data/base.py",
        "is too large: the training set",
        "test_remedies.py::test_a_batch_that_was_typed_and_is_larger_than_the_data_is_refused_with_one_that_fits",
    ),
    Elsewhere("machine/home.py", "Set GENLAB_CACHE", "test_home.py::test_caches_are_kept_where_it_is_said"),
    Elsewhere("launcher/ray.py", "Ask for less, or set", "sweep/test_ray.py::test_what_no_machine_has_is_said_at_once"),
    Elsewhere("launcher/slurm.py", "seconds is all of", "sweep/test_slurm.py::test_what_cannot_be_is_said_at_once"),
    Elsewhere("trust/places.py", "If it is your own project", "test_own_project.py::test_a_project_outside_of_genlab"),
    Elsewhere(
        "report/comparison.py",
        "Choose another place: out=",
        "report/test_compare_command.py::test_a_place_that_cannot_be_written_to",
    ),
    Elsewhere(
        "report/protocol.py",
        "Averaged and raw weights",
        "report/test_comparison.py::test_averaged_weights_and_others_do_not_compare",
    ),
    Elsewhere(
        "trust/strangers.py", "If you want it, type", "test_strangers.py::test_what_watches_is_typed_or_left_out"
    ),
    Elsewhere(
        "trust/written_paths.py",
        "Say where yourself",
        "test_written_paths.py::test_a_path_that_is_typed_now_is_the_users_own",
    ),
    Elsewhere("metrics/ms_ssim.py", "Leave it out of metrics=[...]", "metrics/test_ms_ssim.py::test_refusals"),
    Elsewhere(
        "metrics/inception_score.py",
        "Set metrics.inception_score.splits=1",
        "metrics/test_inception_score.py::test_too_few_samples_for_the_splits",
    ),
    Elsewhere(
        "metrics/classes.py", "all are -1", "metrics/test_intra_class_fid.py::test_refusals"
    ),  # of data of the user's own: genlab's refuse -1
    Elsewhere(
        "callbacks/finite_guard.py",
        "This step was not saved",
        "callbacks/test_finite_guard.py::test_a_lower_learning_rate_is_a_way_out",
    ),
    Elsewhere(
        "checkpoint/write.py",
        "so it was not saved",
        "callbacks/test_finite_guard.py::test_a_lower_learning_rate_is_a_way_out",
    ),
    Elsewhere(
        "data/array_cache.py", "set GENLAB_CACHE to", "data/test_array_cache.py::test_another_folder_is_a_way_out"
    ),
    Elsewhere(
        "model/contrastive_text.py",
        "two pairs or more in a batch",
        "model/test_contrastive_text.py::test_a_single_pair_has_no_negatives",
    ),
    Elsewhere(
        "metrics/few_labels.py",
        "must be 2 or more, strength=",
        "metrics/test_probes.py::test_arguments_outside_their_range",
    ),
    Elsewhere(
        "metrics/fine_tuning.py", "must be 2 or more, lr=", "metrics/test_probes.py::test_arguments_outside_their_range"
    ),
    Elsewhere(
        "metrics/knn_probe.py",
        "must be 1 or more, temperature=",
        "metrics/test_probes.py::test_arguments_outside_their_range",
    ),
    Elsewhere(
        "metrics/probe.py", "classes: too few. Leave", "metrics/test_probes.py::test_bad_data_are_refused_in_a_line"
    ),
    Elsewhere(
        "metrics/probe.py", "has no features of images", "metrics/test_probes.py::test_models_that_cannot_be_probed"
    ),
    Elsewhere(
        "metrics/fine_tuning.py",
        "have no gradient",
        "metrics/test_probes.py::test_features_without_a_gradient_are_not_tuned",
    ),
    Elsewhere(
        "metrics/fine_tuning.py",
        "cannot copy a sharded model",
        "metrics/test_probes.py::test_models_that_cannot_be_probed",
    ),
    Elsewhere(
        "metrics/text_probe.py",
        "has no hidden states of tokens",
        "metrics/test_text_probe.py::test_only_programs_and_models_of_text",
    ),
    Elsewhere(
        "metrics/text_probe.py",
        "is as long as data.context",
        "metrics/test_text_probe.py::test_windows_are_spread_over_files_and_never_the_same",
    ),
    Elsewhere(
        "metrics/retrieval.py", "no held-out image has a caption", "metrics/test_retrieval.py::test_what_cannot_be"
    ),
    Elsewhere(
        "metrics/trained_clip.py",
        "only captions of words can be judged",
        "metrics/test_trained_clip.py::test_other_words_are_refused",
    ),
    Elsewhere(  # of a run that was told labels without names: genlab's data have none
        "metrics/clip_score.py",
        "needs names of classes and the data",
        "metrics/test_trained_clip.py::test_classes_without_names_are_refused",
    ),
    Elsewhere(
        "model/network/masked_vit.py",
        "features=class_token needs a class token",
        "model/test_masked_autoencoder.py::test_networks_that_cannot_be_are_refused",
    ),
    Elsewhere(
        "model/self_distillation.py",
        "two images or more on each device",
        "model/test_self_distillation.py::test_a_single_image_is_refused",
    ),
    Elsewhere(
        "model/contrastive.py",
        "two images or more on each device",
        "model/test_contrastive.py::test_a_single_image_has_nothing_to_be_compared_with",
    ),
    Elsewhere(
        "model/classifier.py",
        "two images or more on each device",
        "model/test_classifier.py::test_a_batch_of_one_is_too_few",
    ),
    Elsewhere(
        "command/options.py",
        "with images: the images to compare with",
        "test_remedies.py::test_files_that_are_compared_have_options_of_their_own",
    ),
    Elsewhere(
        "planning/plan.py", "no size fits", "planning/test_plan.py::test_where_nothing_fits_the_advice_fits_the_reason"
    ),
    Elsewhere(
        "sweep/ledger.py",
        "choose another sweep.name=",
        "sweep/test_ledger.py::test_another_name_or_storage_is_a_way_out",
    ),
    Elsewhere(
        "sweep/ledger.py",
        "the sweep's ledger cannot be used",
        "sweep/test_ledger.py::test_another_name_or_storage_is_a_way_out",
    ),
    Elsewhere(
        "machine/memory.py", "docker run --shm-size", "data/test_workers.py::test_without_workers_nothing_is_handed_on"
    ),
    Elsewhere(
        "report/protocol.py", "it is older", "report/test_comparison.py::test_an_older_run_is_measured_again_as_told"
    ),
    Elsewhere("run/processes.py", "rank 0 died", "test_ddp.py::test_stop_and_resume"),
    Elsewhere("command/verify.py", "and look at {}/metrics.csv", "test_verify.py::test_a_sound_recipe_holds"),
    Elsewhere(
        "command/export.py",
        "this folder is not empty. Name a new one",
        "test_language_models.py::test_a_run_is_exported_for_transformers",
    ),
    Elsewhere(
        "command/export.py",
        "holds no language model that transformers knows",
        "test_language_models.py::test_what_is_no_language_model_is_exported_as_a_file",
    ),
    Elsewhere(
        "command/export.py",
        "does not predict the next token",
        "test_language_models.py::test_what_is_no_language_model_is_exported_as_a_file",
    ),
    Elsewhere(
        "command/export.py",
        "has no equivalent there",
        "test_language_models.py::test_what_is_no_language_model_is_exported_as_a_file",
    ),
    Elsewhere(
        "model/network/positions.py",
        "tokens at once, and",
        "test_language_models.py::test_what_is_typed_against_the_folder_is_refused",
    ),
    Elsewhere(
        "run/language_model.py",
        "a language model needs text",
        "test_language_models.py::test_what_is_typed_against_the_folder_is_refused",
    ),
    Elsewhere(
        "run/language_model.py",
        "the network is that of start",
        "test_language_models.py::test_what_is_typed_against_the_folder_is_refused",
    ),
    Elsewhere(
        "run/language_model.py",
        "has another vocabulary than the model in start",
        "test_language_models.py::test_what_is_typed_against_the_folder_is_refused",
    ),
    Elsewhere(
        "data/image_preferences.py",
        "which is no picture below",
        "data/test_image_preferences.py::test_absolute_names_may_lie_below_another_root",
    ),
    Elsewhere(
        "data/image_preferences.py",
        "and not a class from 0 to",
        "data/test_image_preferences.py::test_a_row_that_is_no_pair_is_refused_by_its_line",
    ),
    Elsewhere(
        "data/preferences.py",
        "do not differ within data.context=",
        "data/test_preferences.py::test_answers_are_cut_at_the_context",
    ),
    Elsewhere(
        "data/rated.py",
        "give the scale",
        "data/test_ratings.py::test_the_scale_and_the_column_that_are_advised_are_read",
    ),
    Elsewhere(
        "data/rated.py",
        "Name the column of ratings",
        "data/test_ratings.py::test_the_scale_and_the_column_that_are_advised_are_read",
    ),
    Elsewhere(
        "data/ratings.py",
        "begin beyond data.context=",
        "data/test_ratings.py::test_long_texts_are_cut_and_most_must_begin_in_time",
    ),
    Elsewhere(
        "metrics/reward_accuracy.py",
        "is not a reward model",
        "metrics/test_reward_accuracy.py::test_it_is_for_reward_models_and_judged_texts",
    ),
    Elsewhere(
        "metrics/reward_accuracy.py",
        "nobody has judged the data",
        "metrics/test_reward_accuracy.py::test_it_is_for_reward_models_and_judged_texts",
    ),
    Elsewhere("run/judged.py", "cannot be trained on", "test_judged.py::test_it_needs_judgments"),
    Elsewhere("run/judged.py", "and the data have none", "test_judged.py::test_it_needs_judgments"),
    Elsewhere("run/judged.py", "its model knows no text", "test_judged.py::test_a_model_of_other_tokens_is_refused"),
    Elsewhere(
        "run/judged.py",
        "Use data/tokenizer=gpt2",
        "test_preference_runs.py::test_learned_tokens_are_taken_from_the_run",
    ),
    Elsewhere("run/judged.py", "Use data/tokenizer=bytes", "test_judged.py::test_a_model_of_other_tokens_is_refused"),
    Elsewhere(
        "run/start.py",
        "learns on from a model that has been trained",
        "test_judged.py::test_it_needs_a_beginning",
    ),
    Elsewhere(
        "feedback/asked.py",
        "prints what is judged: leave",
        "feedback/test_feedback_session.py::test_what_does_not_go_together",
    ),
    Elsewhere(
        "feedback/asked.py",
        "a folder for samples and judgments",
        "feedback/test_feedback_session.py::test_what_does_not_go_together",
    ),
    Elsewhere(
        "feedback/asked.py",
        "at most two are compared",
        "feedback/test_feedback_session.py::test_what_does_not_go_together",
    ),
    Elsewhere(
        "feedback/asked.py",
        "is one folder: name a second one",
        "feedback/test_feedback_session.py::test_what_does_not_go_together",
    ),
    Elsewhere(
        "feedback/server.py", "which takes any free one", "feedback/test_feedback_page.py::test_a_port_that_is_taken"
    ),
    Elsewhere(
        "feedback/session.py",
        "holds feedback on something else",
        "feedback/test_feedback_session.py::test_folders_of_something_else_are_refused",
    ),
    Elsewhere(
        "feedback/show.py",
        "preference data go into a .jsonl file",
        "feedback/test_feedback_session.py::test_a_report_reads_files_alone",
    ),
)
