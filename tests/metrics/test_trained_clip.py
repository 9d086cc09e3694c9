"""CLIPScore by a model of one's own: it reads the captions of samples, refuses others, and stays with the run."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genlab import cli
from genlab.data.image import to_float
from genlab.data.shapes import Shapes
from genlab.errors import CheckpointError, ConfigError, DataError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.caption_retrieval import CaptionRetrieval
from genlab.metrics.clip_score import CLIPScore
from genlab.metrics.trained_clip import TrainedCLIP
from genlab.model.augment.diffaugment import DiffAugment
from genlab.model.condition_kind import Caption
from genlab.model.contrastive_text import ContrastiveText
from genlab.model.network.text_encoder import TextEncoder
from genlab.model.network.vit import ViT
from genlab.model.schedule import Constant
from genlab.run import run_folder
from genlab.sampling.examples import Examples
from stand_ins import clip_folder
from tiny_run import MLP, small, train

DATA = Shapes(image_size=16, max_objects=2, num_train=8, num_val=24, fresh=False)
JUDGED = ("model=diffusion", *MLP, "model.conditions=[caption]", "metrics=[clip_score,caption_retrieval,fid]",
          "budget.value=8", "data=shapes", "data.image_size=16", "data.max_objects=1", "data.num_val=8")  # fmt: skip


def contrastive(data: Shapes = DATA) -> ContrastiveText:
    torch.manual_seed(0)
    shape = data.spec.shape
    return ContrastiveText(
        partial(ViT, shape, patch_size=4, width=16, depth=1, num_heads=2),
        partial(TextEncoder, width=16, depth=1, num_heads=2),
        DiffAugment(()), lambda p: torch.optim.SGD(p, lr=0.1), Constant(), shape, data.spec.to_config()["condition"],
    )  # fmt: skip


def real(data: Shapes = DATA, shift: int = 0) -> Examples:
    """Held-out pictures, with their captions or those of others."""
    table = data.table("val")
    assert table.captions is not None
    assert table.labels is not None
    captions = [" ".join(data.spec.condition["caption"].names[w] for w in row if w) for row in table.captions.tolist()]
    return Examples.of(image=torch.from_numpy(table.images), label=torch.from_numpy(table.labels),
                       caption=captions[shift:] + captions[:shift])  # fmt: skip


def score(metric: CLIPScore, examples: Examples, data: Any = DATA) -> Any:
    return Evaluation(None, {"clip_score": metric}).score(examples, data)


def test_it_reads_the_caption_of_each_sample() -> None:
    model = contrastive()
    metric = CLIPScore(model)  # type: ignore[arg-type]
    table = DATA.table("val")
    images, captions = to_float(torch.from_numpy(table.images)), torch.from_numpy(table.captions)
    with torch.no_grad():
        cosines = (model.embed_images(images) * model.embed_captions(captions)).sum(dim=1)
    result = score(metric, real())
    assert result.values["clip_score_24"] == pytest.approx(float(100 * cosines.clamp(min=0).mean()), rel=1e-5)
    told = result.protocol["metrics"]["clip_score"]
    assert {"clip_fingerprint", "texts", "reference_captions"} <= set(told)
    assert "template" not in told
    others = score(metric, real(shift=1))
    assert others.values["clip_score_24"] != pytest.approx(result.values["clip_score_24"], abs=1e-3)


def test_samples_without_a_caption_are_left_out() -> None:
    metric, examples = CLIPScore(contrastive()), real()  # type: ignore[arg-type]
    some = Examples({**examples.columns, "caption": [*examples["caption"][:10], *[""] * 14]})
    expected = score(metric, examples.rows(slice(10))).values["clip_score_10"]
    assert score(metric, some).values["clip_score_24"] == pytest.approx(expected, rel=1e-5)
    none = Examples({**examples.columns, "caption": [""] * 24})
    with pytest.raises(DataError, match="needs samples with captions or labels, and there are none"):
        score(metric, none)


def test_the_fingerprint_follows_weights_and_words() -> None:
    def fingerprint(model: ContrastiveText) -> str:
        return CLIPScore(model).clip.fingerprint  # type: ignore[arg-type]

    model = contrastive()
    first = fingerprint(model)
    assert fingerprint(contrastive()) == first
    model.logit_scale.log_scale.data += 1e-3
    assert fingerprint(model) != first
    other = contrastive()
    other.caption = type(other.caption)(**{**vars(other.caption), "names": [*other.caption.names[:-1], "or"]})
    assert fingerprint(other) != first


def test_a_published_clip_reads_captions_too(tmp_path: Path) -> None:
    metric = CLIPScore(str(clip_folder(tmp_path / "clip")))
    examples = real()
    with torch.no_grad():
        cosines = metric.clip.images(examples["image"]) * metric.clip.texts(examples["caption"], torch.device("cpu"))
    expected = 100 * cosines.sum(dim=1).clamp(min=0).mean()
    assert score(metric, examples).values["clip_score_24"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image_size": 32},
            r"trained on images of shape \(3, 16, 16\), the data have \(3, 32, 32\)\. Name another run",
        ),
        ({"max_objects": 3}, "captions of at most 10 words, and the data's have up to 17"),
    ],
)
def test_other_data_are_refused(options: dict[str, Any], message: str) -> None:
    data = Shapes(**{"image_size": 16, "max_objects": 2, "num_train": 8, "num_val": 8} | options)
    with pytest.raises(ConfigError, match=message):
        score(CLIPScore(contrastive()), real(data), data)  # type: ignore[arg-type]


def test_other_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, metric = contrastive(), CLIPScore(contrastive())  # type: ignore[arg-type]
    names = [word.replace("ring", "torus").replace("red", "scarlet") for word in model.caption.names]
    metric.clip.caption = type(model.caption)(**{**vars(model.caption), "names": names})  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"it does not know 'red' and 1 more of the data's\. Name a run"):
        score(metric, real())
    metric.clip.caption = type(model.caption)(**{**vars(model.caption), "names": ()})  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="only captions of words can be judged"):
        score(metric, real())


def test_captions_of_a_tokenizer_of_words_are_read_as_it_reads_them() -> None:
    model = contrastive()
    words = ["<nothing>", "red", "t-shirt", "cat"]
    model.caption = Caption(size=4, length=3, names=words, tokenized=True)
    judge = TrainedCLIP(model, "o")  # type: ignore[arg-type]
    found = judge.texts(["Red T-shirt!", "cat, cat"], torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(found, model.embed_captions(torch.tensor([[1, 2, 0], [3, 3, 0]])))
    with pytest.raises(DataError, match="o cannot read 'a dog': unknown word 'a'"):
        judge.texts(["a dog"], torch.device("cpu"))


def test_a_class_is_read_in_the_words_that_it_knows() -> None:
    examples = real()
    labelled = Examples({key: rows for key, rows in examples.columns.items() if key != "caption"})
    with pytest.raises(DataError, match="cannot read 'a photo of a circle': unknown word 'photo'"):
        score(CLIPScore(contrastive()), labelled)  # type: ignore[arg-type]
    model = contrastive()
    result = score(CLIPScore(model, "a {}"), labelled)  # type: ignore[arg-type]
    told = result.protocol["metrics"]["clip_score"]
    assert {"template", "names_sha256", "reference_labels"} <= set(told)
    with torch.no_grad():
        texts = model.embed_captions(torch.cat([model.caption.read(f"a {name}") for name in DATA.spec.label.names]))  # type: ignore[union-attr]
        cosines = (model.embed_images(to_float(labelled["image"])) * texts[labelled["label"]]).sum(dim=1)
    assert result.values["clip_score_24"] == pytest.approx(float(100 * cosines.clamp(min=0).mean()), rel=1e-5)


def test_data_of_nothing_are_refused() -> None:
    bare: Any = SimpleNamespace(spec=SimpleNamespace(condition={}))
    with pytest.raises(DataError, match="clip_score needs captions or names of classes and the data have none"):
        CLIPScore(contrastive()).prepare(bare)  # type: ignore[arg-type]


def test_samples_retrieve_their_captions() -> None:
    """The vectors of pictures and captions are swapped for known ones: 3 of 4 samples are nearest to their own."""
    metric = CaptionRetrieval(contrastive())  # type: ignore[arg-type]
    vectors = torch.eye(4)
    known = {"a": 0, "b": 1, "c": 2, "d": 3}
    metric.clip.images = lambda images: vectors[images[:, 0, 0, 0].long()]  # type: ignore[method-assign]
    metric.clip.texts = lambda texts, device: vectors[[known[text or "a"] for text in texts]]  # type: ignore[method-assign]
    pictures, captions = torch.tensor([0, 1, 3, 3, 1, 2]), ["a", "b", "c", "d", "b", ""]
    for rows in ([0, 1], [2, 3, 4, 5]):
        image = pictures[rows].view(-1, 1, 1, 1).expand(-1, 3, 16, 16).to(torch.uint8)
        metric.update({"image": image, "caption": [captions[i] for i in rows], "index": torch.tensor(rows)}, real=False)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["caption_r1"] == pytest.approx(4 / 5)
    assert found["caption_chance_r1"] == pytest.approx(1 / 4)
    assert found["caption_r5"] == found["caption_chance_r5"] == 1


def test_classes_without_names_are_refused() -> None:
    metric, labelled = CLIPScore(contrastive(), "a {}"), real()  # type: ignore[arg-type]
    batch = {"image": labelled["image"], "label": labelled["label"]}
    with pytest.raises(DataError, match=r"needs names of classes and the data have none\. Leave it out of metrics"):
        metric.update(batch, real=False)


# --- from the command line --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=contrastive_text"), "budget.value=8", "metrics=[retrieval]",
                 outputs=tmp_path_factory.mktemp("judge"))  # fmt: skip


def test_a_run_judges_another_and_stays_with_it(judge: Path, tmp_path: Path, capsys: Any) -> None:
    summary = json.loads((judge / "summary.json").read_text())
    assert 0 <= summary["metrics"]["image_to_text_r1_val"] <= 1
    kept = Path(shutil.copytree(judge, tmp_path / "judge"))
    run = train(*JUDGED, f"metrics.clip_score.model={kept}", f"metrics.extractor={kept}", "task=text_to_image",
                f"metrics.caption_retrieval.model={kept}", "evaluation.num_samples=6", outputs=tmp_path)  # fmt: skip
    found = json.loads((run / "summary.json").read_text())
    retrieved = {f"caption_{chance}r{k}_6" for chance in ("", "chance_") for k in (1, 5, 10)}
    assert set(found["metrics"]) == {"clip_score_6", "fid_contrastive8_6"} | retrieved
    pretrained = run_folder.read_config(run)["pretrained"]
    assert set(pretrained) == {f"metrics.{name}.model" for name in ("clip_score", "caption_retrieval", "extractor")}
    assert len(list((run / "parts").iterdir())) == 1  # one file for all
    shutil.rmtree(kept)
    capsys.readouterr()
    cli.run(["evaluate", f"run={run}", "baselines=true"])
    said = capsys.readouterr().out
    (report,) = run.glob("evaluation-*.json")
    measured = json.loads(report.read_text())
    assert measured["metrics"] == pytest.approx(found["metrics"], rel=1e-6)
    assert [line.split()[0] for line in said.splitlines()[1:6]] == [
        "this",
        "floor",
        "real",
        "shuffled",
        "uniform_noise",
    ]
    path = next((run / "parts").iterdir())
    path.unlink()
    again = re.escape(f"metrics.clip_score.model as trained by {kept}. Put it back, or name another: metrics.clip_")
    with pytest.raises(CheckpointError, match=again):
        cli.run(["evaluate", f"run={run}"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("{vae}", r"model=.*: a VAE does not compare images with captions\. Name a run of model=contrastive_text"),
        ("{above}", r"there is no run here \(no config\.yaml\)\. Its newest is metrics\.clip_score\.model="),
        ("{judge} data.image_size=32", r"was trained on images of shape \(3, 16, 16\), the data have"),
        ("{judge} data.max_objects=2", "captions of at most 4 words, and the data's have up to 10"),
        ("{judge} model.conditions=[]", "metrics=clip_score needs a model that takes captions or labels"),
    ],
)
def test_what_is_no_judge_is_refused_before_there_is_a_folder(
    more: str, message: str, judge: Path, outputs: Path, tmp_path: Path
) -> None:
    vae = tmp_path / "vae"
    if "{vae}" in more:
        vae = train(*small("model=vae"), "budget.value=8", outputs=tmp_path / "vaes")
    named = f"metrics.clip_score.model={more.format(vae=vae, judge=judge, above=judge.parent)}".split()
    with pytest.raises(ConfigError, match=message):
        train(*JUDGED, "metrics=[clip_score]", *named, outputs=outputs)
    assert not outputs.exists()
