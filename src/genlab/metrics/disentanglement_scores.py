"""Scores of how far each latent stands for one factor of the data, where the factors are known.

``latents``: (N, D); ``factors``: by name, whole numbers (N,) of categories or floats (N,) of continuous ones.
"""

from collections.abc import Mapping

import numpy as np

FACTOR_BINS = 10  # equally frequent parts of a continuous factor, where a score needs categories
_FLAT = 1e-10  # of the largest variance: latents of less say nothing
TREES = 20  # of a random forest

Factors = Mapping[str, np.ndarray]


def mig(latents: np.ndarray, factors: Factors, bins: int) -> float:
    """The mutual information gap (Chen et al. 2018, arXiv:1802.04942, eq. 6): of each factor, how much more of it the
    latent that knows most of it knows than the next, in units of its entropy; the mean over factors. In [0, 1].

    Latents are cut into ``bins`` parts of equal width.
    """
    codes = np.stack([_cut(column, bins) for column in latents.T])
    gaps = []
    for values in factors.values():
        category = as_categories(values)
        known = np.sort([_mutual_information(code, category) for code in codes])[::-1]
        gaps.append((known[0] - (known[1] if len(known) > 1 else 0.0)) / _mutual_information(category, category))
    return float(np.mean(gaps))


def sap(latents: np.ndarray, factors: Factors) -> float:
    """The separated attribute predictability (Kumar et al. 2018, arXiv:1711.00848, section 3.3): of each factor, how
    much better the best latent alone predicts it than the next; the mean over factors.

    A continuous factor is predicted by a line, whose score is R^2; a category by thresholds, as many as tell K of them
    apart, whose score is the balanced accuracy on every fifth example: at best 1 where chance is 1 / K.
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    gaps, held_out = [], np.arange(len(latents)) % 5 == 4
    for values in factors.values():
        if is_continuous(values):
            scores = [_r_squared(column, values) for column in latents.T]
        else:
            count, scores = max(2, len(np.unique(values))), []
            for column in latents.T[:, :, None]:
                tree = DecisionTreeClassifier(max_leaf_nodes=count, class_weight="balanced", random_state=0)
                tree.fit(column[~held_out], values[~held_out])
                scores.append(balanced_accuracy_score(values[held_out], tree.predict(column[held_out])))
        ranked = np.sort(scores)[::-1]
        gaps.append(ranked[0] - (ranked[1] if len(ranked) > 1 else 0.0))
    return float(np.mean(gaps))


def dci(latents: np.ndarray, factors: Factors) -> tuple[float, float, float]:
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018): how few factors each latent is
    important for, how few latents are important for each factor, and how well all latents predict factors, each in
    [0, 1].

    Predictors are random forests, whose importances they are; informativeness is the accuracy, or of continuous
    factors R^2 where that is above 0, on every fifth example.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    held_out, importances, right = np.arange(len(latents)) % 5 == 4, [], []
    for values in factors.values():
        kind = RandomForestRegressor if is_continuous(values) else RandomForestClassifier
        forest = kind(n_estimators=TREES, max_features=None, min_samples_leaf=5, random_state=0)
        forest.fit(latents[~held_out], values[~held_out])
        importances.append(forest.feature_importances_)
        right.append(max(0.0, forest.score(latents[held_out], values[held_out])))
    return (*of_importances(np.stack(importances, axis=1)), float(np.mean(right)))


def of_importances(importances: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness of the importances (D, K) of latents for factors (ibid., section 2): 1 minus the
    entropy of a latent's row, in units of log K, weighted by how important it is at all; and of a factor's column, in
    units of log D. Of a single factor, or latent, there is nothing to tell apart: 1."""
    size, count = importances.shape
    total = importances.sum()
    if total == 0:
        return 0.0, 0.0
    rows = 1 - _entropies(importances) / np.log(count) if count > 1 else np.ones(size)
    columns = 1 - _entropies(importances.T) / np.log(size) if size > 1 else np.ones(count)
    weights = importances.sum(axis=1) / total, importances.sum(axis=0) / total
    return float((rows * weights[0]).sum()), float((columns * weights[1]).sum())


def factor_vae_score(latents: np.ndarray, factors: Factors, votes: int, seed: int, group: int = 64) -> float:
    """The accuracy of naming the factor that ``group`` examples share by the latent that varies least among them, in
    units of its variance over all (Kim and Mnih 2018, arXiv:1802.05983, section 4). Which factor a latent stands for is
    the majority of ``votes`` of them, tested on half as many. 1 / K is chance for K factors; latents that are constant
    do not vote.
    """
    variances = latents.var(axis=0)
    latents = latents[:, variances > _FLAT * max(variances.max(), _FLAT)]
    if not latents.shape[1]:
        return 1 / len(factors)
    rng, variances = np.random.default_rng(seed), latents.var(axis=0)
    categories = [as_categories(values) for values in factors.values()]
    counts = np.zeros((2, latents.shape[1], len(categories)), dtype=np.int64)
    for number in range(votes + votes // 2):
        factor = int(rng.integers(len(categories)))
        alike = np.flatnonzero(categories[factor] == categories[factor][rng.integers(len(latents))])
        rows = latents[rng.choice(alike, group)]
        counts[int(number >= votes), (rows.var(axis=0) / variances).argmin(), factor] += 1
    named = counts[0].argmax(axis=1)
    return float(counts[1][np.arange(len(named)), named].sum() / counts[1].sum())


def is_continuous(values: np.ndarray) -> bool:
    return bool(np.issubdtype(values.dtype, np.floating))


def as_categories(values: np.ndarray) -> np.ndarray:
    """Whole numbers (N,): continuous factors in FACTOR_BINS equally frequent parts."""
    if not is_continuous(values):
        return np.unique(values, return_inverse=True)[1]
    edges = np.quantile(values, np.linspace(0, 1, FACTOR_BINS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def _cut(values: np.ndarray, bins: int) -> np.ndarray:
    edges = np.linspace(values.min(), values.max(), bins + 1)[1:-1]
    return np.searchsorted(edges, values, side="right")


def _mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """In nats, of whole numbers (N,)."""
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1 / len(first))
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / product[there])).sum())


def _r_squared(first: np.ndarray, second: np.ndarray) -> float:
    covariance = np.cov(first, second, bias=True)
    scale = covariance[0, 0] * covariance[1, 1]
    return float(covariance[0, 1] ** 2 / scale) if scale > 0 else 0.0


def _entropies(rows: np.ndarray) -> np.ndarray:
    """Of each row, taken as probabilities, in nats; of a row of zeros that of equal ones."""
    sums = rows.sum(axis=1, keepdims=True)
    p = np.where(sums > 0, rows / np.where(sums > 0, sums, 1), 1 / rows.shape[1])
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
