"""Metrics of captions: CIDEr-D against recorded values and by hand, matches, and several references."""

from typing import Any

import pytest
import torch

from genlab.data.shapes import Shapes
from genlab.errors import DataError
from genlab.metrics.bleu import BLEU
from genlab.metrics.caption_match import CaptionMatch
from genlab.metrics.chrf import ChrF
from genlab.metrics.cider import CIDEr, cider_d, tokens
from genlab.metrics.scene_captions import SceneCaptions

REFERENCES = [
    ["a large red circle above a small blue square", "there is a big red disc over a little blue square"],
    ["a small green ring", "one little green ring on black", "a green ring"],
    ["two white triangles left of a purple square"],
    ["a large red circle", "a big red circle in the middle of the picture, on black"],
    ["a small blue square below a ring"],
]
CANDIDATES = [
    "a large red circle above a small blue square",
    "a green green green ring ring",
    "a purple square right of two white triangles and more words than anybody asked for in this picture",
    "A big red circle, on black.",
    "",
]

RECORDED = [5.311566376, 1.475769545, 0.657370104, 1.741232958, 0.0]


def measured(metric: Any, candidates: list[str], references: list[list[str]], size: int = 2) -> dict[str, float]:
    """In batches, the later ones first."""
    places = list(range(len(candidates)))
    for start in reversed(range(0, len(places), size)):
        index = torch.tensor(places[start : start + size])
        own = references[start : start + size]
        metric.update({"text": [r[0] for r in own], "references": own, "index": index}, real=True)
        metric.update({"text": candidates[start : start + size], "index": index}, real=False)
    return {name: float(value) for name, value in metric.compute().items()}


def test_cider_d_equals_recorded_values() -> None:
    """Recorded from ``CiderScorer`` of pycocoevalcap 1.2, whose CIDEr has clipping and the length penalty, given the
    words that ``tokens`` finds."""
    found = cider_d([tokens(c) for c in CANDIDATES], [[tokens(r) for r in own] for own in REFERENCES])
    assert found == pytest.approx(RECORDED, abs=1e-6)
    assert measured(CIDEr(), CANDIDATES, REFERENCES)["cider_d"] == pytest.approx(sum(RECORDED) / 5, abs=1e-6)


def test_cider_d_by_hand() -> None:
    """Two pictures with one reference of one word each: words of one picture weigh log 2, those of both nothing."""
    assert cider_d([["ring"], ["a"]], [[["ring"]], [["a"]]]) == pytest.approx([10 / 4, 10 / 4])  # of n = 1 alone
    assert cider_d([["a"], ["a"]], [[["a"]], [["a"]]]) == [0, 0]
    five = ["b", "c", "d", "e", "f"]
    (exact, _) = cider_d([five, ["a"]], [[five], [["a"]]])
    assert exact == pytest.approx(10)
    (longer, _) = cider_d([[*five, *"ghijkl"], ["a"]], [[five], [["a"]]])  # six words more, of a single picture too
    cosines = [(5 + 1 - n) / ((5 + 1 - n) * (11 + 1 - n)) ** 0.5 for n in range(1, 5)]
    assert longer == pytest.approx(10 * sum(cosines) / 4 * 2.718281828**-0.5)


def test_a_match_is_one_of_the_references() -> None:
    references = [["a b", "C  d"], ["e"], ["f", "g", "h"]]
    assert measured(CaptionMatch(), ["c d", "e f", "H"], references)["caption_match"] == pytest.approx(2 / 3)
    alone = CaptionMatch()
    alone.update({"text": ["a"], "index": torch.tensor([0])}, real=True)
    alone.update({"text": ["a"], "index": torch.tensor([1])}, real=False)
    with pytest.raises(DataError, match="no sample has a reference"):
        alone.compute()


def test_several_references_are_as_sacrebleu_has_them() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    most = max(map(len, REFERENCES))
    streams = [[own[i] if i < len(own) else None for own in REFERENCES] for i in range(most)]
    bleu = sacrebleu.corpus_bleu(CANDIDATES, streams).score
    assert measured(BLEU(), CANDIDATES, REFERENCES)["bleu"] == pytest.approx(bleu)
    chrf = sacrebleu.corpus_chrf(CANDIDATES, streams).score
    assert measured(ChrF(), CANDIDATES, REFERENCES)["chrf"] == pytest.approx(chrf)
    firsts = [[own[0]] for own in REFERENCES]
    assert measured(BLEU(), CANDIDATES, firsts)["bleu"] < bleu


def test_seen_and_held_out_scenes_are_told_apart() -> None:
    """By the captions alone, as the scenes themselves say; wrong words count where they are."""
    data = Shapes(image_size=16, max_objects=3, num_train=8, num_val=64)
    scenes = data.scenes("val", 0, range(64))
    captions, held_out = data.captions(scenes), scenes.has_held_out
    references = [[caption] for caption in captions]
    right = measured(SceneCaptions(), captions, references)
    assert all(value == 1 for name, value in right.items() if name != "held_out_scenes")
    assert right["held_out_scenes"] == pytest.approx(held_out.mean())
    wrong = [
        caption.replace("small", "large") if new else caption for caption, new in zip(captions, held_out, strict=True)
    ]
    found = measured(SceneCaptions(), wrong, references)
    share = sum("small" in caption for caption, new in zip(captions, held_out, strict=True) if new) / held_out.sum()
    assert found["caption_match_held_out"] == pytest.approx(1 - share)
    assert found["caption_match_seen"] == found["caption_color"] == found["caption_shape"] == 1
    assert found["caption_size"] < 1
    nonsense = measured(SceneCaptions(), ["ring ring"] * 64, references)
    assert nonsense["caption_match"] == nonsense["caption_color"] == nonsense["caption_objects"] == 0
    with pytest.raises(DataError, match="scene_captions reads captions of data=shapes"):
        measured(SceneCaptions(), ["x"], [["a cat"]])
