"""Samples of text through the same evaluation as images: which prompts, which references, and what does not show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigrams import Bigrams
from genlab.errors import ConfigError, DataError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.bleu import BLEU
from genlab.metrics.chrf import ChrF
from genlab.metrics.distinct import Distinct
from genlab.metrics.extractor.ngrams import HashedNgrams
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.fid import FID
from genlab.metrics.mauve import Mauve
from genlab.metrics.perplexity import Perplexity
from genlab.metrics.repetition import Repetition
from genlab.model.base import GenerativeModel
from genlab.model.schedule import Constant
from genlab.sampling.examples import Examples
from genlab.task import continue_text
from genlab.task.continue_text import ContinueText
from given_text import GivenText

VOCABULARY = 98  # characters of one to four bytes


@pytest.fixture
def text() -> GivenText:
    return GivenText(np.random.default_rng(0).integers(0, VOCABULARY, 1000), context=16, vocab_size=VOCABULARY)


def evaluation(tmp_path: Path, batch_size: int = 64, num_samples: int = 20, **options: Any) -> Evaluation:
    metrics = {"distinct": Distinct(), "repetition": Repetition(1), "bleu": BLEU(), "chrf": ChrF(), "mauve": Mauve()}
    options = {"batch_size": batch_size, "cache_dir": str(tmp_path), **options}
    return Evaluation(HashedNgrams(), metrics, num_samples, **with_task(options))


def with_task(options: dict[str, Any]) -> dict[str, Any]:
    """``prompt_length`` among options of an evaluation as the task that has it."""
    prompt_length = options.pop("prompt_length", 0)
    return {**options, "task": ContinueText(prompt_length)}


class Watching(Distinct):
    """Keeps the texts that it is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[bool, list[str]] = {True: [], False: []}

    def update(self, batch: Any, real: bool) -> None:
        self.seen[real] += batch["text"]
        super().update(batch, real)


# --- prompts and references -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt_length", [0, 1, 7])
def test_sample_i_goes_on_where_reference_i_does(text: GivenText, prompt_length: int) -> None:
    """The first window begins the text, the last ends it, and the others are as far from each other."""
    model, metric = Bigrams(VOCABULARY), Watching()
    Evaluation(None, {"d": metric}, 11, task=ContinueText(prompt_length)).run(model, text, weights="raw")
    size = prompt_length + 12
    starts = [round(i * (1000 - size) / 10) for i in range(11)]
    decode = text.tokenizer.decode
    assert metric.seen[True] == [decode(text.given[s + prompt_length : s + size].tolist()) for s in starts]
    assert len(metric.seen[False]) == 11
    (asked,) = model.asked
    if prompt_length:
        assert asked is not None
        assert asked.tolist() == [text.given[s : s + prompt_length].tolist() for s in starts]
    else:
        assert asked is None


def test_neither_batches_nor_numbers_of_seeds_show(text: GivenText, tmp_path: Path) -> None:
    results = [
        evaluation(tmp_path, size, prompt_length=3).run(Bigrams(VOCABULARY), text, weights="raw") for size in (1, 7, 64)
    ]
    assert results[0].values == results[1].values == results[2].values
    assert results[0].ids == results[2].ids
    assert set(results[0].values) == {
        "distinct_1_20", "distinct_2_20", "distinct_3_20", "distinct_1_ratio_20", "distinct_2_ratio_20",
        "distinct_3_ratio_20", "repetition_20", "repetition_reference_20", "bleu_20", "chrf_20", "mauve_ngrams1024_20",
    }  # fmt: skip
    assert {name: results[0].directions[name] for name in ("distinct_1_ratio_20", "bleu_20")} == {
        "distinct_1_ratio_20": "one", "bleu_20": "higher"}  # fmt: skip
    several = evaluation(tmp_path, prompt_length=3, num_seeds=2).run(Bigrams(VOCABULARY), text, weights="raw")
    other = evaluation(tmp_path, prompt_length=3, seed=1).run(Bigrams(VOCABULARY), text, weights="raw")
    mean = (results[0].values["chrf_20"] + other.values["chrf_20"]) / 2
    assert several.values["chrf_20"] == pytest.approx(mean, rel=1e-12)


def test_the_true_continuations_are_perfect(text: GivenText, tmp_path: Path) -> None:
    """And what the model writes is not."""
    judge = evaluation(tmp_path, prompt_length=3)
    truth = ContinueText(3).on(text, "val").sized(20, Examples.of(12, text=[])).reference()
    values = judge.score(truth, text).values
    for name in ("distinct_1_ratio_20", "distinct_3_ratio_20", "mauve_ngrams1024_20"):
        assert values[name] == 1
    assert values["bleu_20"] == pytest.approx(100)
    assert values["chrf_20"] == pytest.approx(100)
    assert values["repetition_20"] == values["repetition_reference_20"]
    of_model = judge.run(Bigrams(VOCABULARY), text, weights="raw").values
    assert of_model["chrf_20"] < 50


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_the_protocol_says_what_was_asked(text: GivenText, tmp_path: Path) -> None:
    result = evaluation(tmp_path, prompt_length=3).run(Bigrams(VOCABULARY), text, weights="raw")
    expected = {"prompt_length": 3, "sample_length": 12, "num_windows": 20, "num_samples": 20, "reference": "val",
                "context": 16, "tokenizer": text.tokenizer.fingerprint(), "seed": 0,
                "reference_sha256": text.text_hash("val")[:16], "extractor": "ngrams1024"}  # fmt: skip
    assert expected.items() <= result.protocol.items()
    assert "version:" in result.protocol["metrics"]["bleu"]["signature"]


def test_a_number_compares_where_what_it_depends_on_is_the_same(text: GivenText) -> None:
    """What samples are asked for has no part in how well a text is predicted, nor have other metrics."""

    def ids(metrics: dict[str, Any], num_samples: int = 20, **options: Any) -> dict[str, str]:
        judge = Evaluation(None, metrics, num_samples, **with_task(options))
        found = judge.run(Bigrams(VOCABULARY), text, weights="raw").ids
        return {name.removesuffix(f"_{num_samples}"): value for name, value in found.items()}

    alone = ids({"perplexity": Perplexity()})
    first = ids({"perplexity": Perplexity(), "distinct": Distinct()})
    for changed in ({"num_samples": 21}, {"seed": 1}, {"prompt_length": 3}):
        other = ids({"perplexity": Perplexity(), "distinct": Distinct()}, **changed)
        assert other["perplexity_estimate_val"] == first["perplexity_estimate_val"] == alone["perplexity_estimate_val"]
        assert other["distinct_1"] != first["distinct_1"]


def test_the_reference_follows_the_number_of_samples(text: GivenText, tmp_path: Path) -> None:
    """As cheap evaluations during training and the full one after it take turns."""
    judge, model = evaluation(tmp_path), Bigrams(VOCABULARY)
    full = judge.run(model, text, weights="raw")
    assert judge.run(model, text, 5, weights="raw").protocol["num_windows"] == 5
    assert judge.run(model, text, weights="raw").values == full.values
    judge.reference = "val"


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_training(text: GivenText) -> None:
    def check(metric: Any, extractor: Any = None, model: Any = None, data: Any = text, **options: Any) -> None:
        Evaluation(extractor, {"m": metric}, **with_task(options)).check(model or Bigrams(VOCABULARY), data)

    check(Distinct())
    for_images = "metrics=m is for images, or for texts with features of texts; the data are text"
    for extractor in (None, RandomConv()):
        with pytest.raises(ConfigError, match=for_images):
            check(FID(), extractor)
    with pytest.raises(ConfigError, match=r"prompt_length=17 must be at most data\.context=16"):
        check(Distinct(), prompt_length=17)
    with pytest.raises(ConfigError, match=r"prompt_length=-1 must be a whole number >= 0"):
        check(Distinct(), prompt_length=-1)
    with pytest.raises(ConfigError, match="metrics=m measures samples, and a Linear draws none"):
        check(Distinct(), model=torch.nn.Linear(1, 1))

    contract = dict.fromkeys(("configure_model", "training_step", "sample", "losses"), lambda self, *given: None)
    mute = type("Mute", (GenerativeModel,), contract)(seed=0, schedule=Constant())  # type: ignore[operator]
    with pytest.raises(ConfigError, match="Mute does not generate text"):
        check(Distinct(), model=mute)
    short = GivenText(text.given[:17], 16, VOCABULARY)
    with pytest.raises(DataError, match="has 17 tokens; a prompt and a sample of the model have 6"):
        check(Distinct(), data=short, prompt_length=6)


def test_windows_that_overlap_are_told_of_once(text: GivenText, caplog: pytest.LogCaptureFixture) -> None:
    continue_text._warn_once.cache_clear()
    judge = Evaluation(None, {"d": Distinct()}, 84)
    judge.run(Bigrams(VOCABULARY), text, 83, weights="raw")  # 83 * 12 <= 1000
    assert [record.message[:28] for record in caplog.records] == ["84 windows of 12 tokens over"]
    judge.run(Bigrams(VOCABULARY), text, weights="raw")
    assert len(caplog.records) == 1


def test_a_text_is_what_its_tokens_say(text: GivenText) -> None:
    sized = ContinueText().on(text, "val").sized(4, Examples.of(5, text=["a", "b"]))
    assert (sized.count, sized.length) == (4, 5)
    assert sized.windows("train").shape == (4, 5)
    mine = Examples.of(5, text=list("abcdefg")).mine(1, 3)
    assert (mine["text"], mine.length) == (["b", "e"], 5)
