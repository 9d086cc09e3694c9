"""What a linear model of words says of held-out texts: the baseline of reward models."""

from typing import Any

import numpy as np
import torch

from genlab.data.base import Split
from genlab.data.preferences import Preferences
from genlab.data.ratings import Ratings
from genlab.metrics.pair_accuracy import pair_accuracy

_ALPHA = 1.0  # of ridge regression
_C = 10.0  # of logistic regression


def accuracy_of_texts(data: Ratings | Preferences) -> float:
    """The accuracy on held-out pairs of TF-IDF of words with ridge regression of mean ratings, or with logistic
    regression of which of two answers is preferred, fitted to the training texts."""
    return _of_ratings(data) if isinstance(data, Ratings) else _of_pairs(data)


def _of_ratings(data: Ratings) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    train, held_out = ([one.rated for one in data.encoded_ratings(split)] for split in ("train", "val"))
    words = TfidfVectorizer()
    known = words.fit_transform([one.answer for one in train])
    fitted = Ridge(alpha=_ALPHA).fit(known, [one.rating for one in train])
    predicted = fitted.predict(words.transform([one.answer for one in held_out]))
    truth = torch.tensor([one.rating for one in held_out], dtype=torch.float64)
    return float(pair_accuracy(torch.from_numpy(predicted), truth))


def _of_pairs(data: Preferences) -> float:
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer()
    sides = {split: _answers(data, split) for split in ("train", "val")}
    words.fit([text for side in sides["train"] for text in side])
    known, asked = (words.transform(sides[split][0]) - words.transform(sides[split][1]) for split in ("train", "val"))

    number = known.shape[0]
    fitted = LogisticRegression(C=_C, fit_intercept=False, max_iter=1000)
    fitted.fit(vstack([known, -known]), np.repeat([1, 0], number))
    margin = fitted.decision_function(asked)
    return float(np.mean((margin > 0) + (margin == 0) / 2))


def _answers(data: Preferences, split: Split) -> tuple[list[str], list[str]]:
    pairs: Any = [one.pair for one in data.encoded_pairs(split) if not one.pair.tie]
    chosen, rejected = ([" ".join(m["content"] for m in pair.answers[side]) for pair in pairs] for side in (0, 1))
    return chosen, rejected
