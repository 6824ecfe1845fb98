"""What a network knows that it does not know: scores, rankings, coverage, against other libraries and by definition."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppe import InputError, outcomes
from steppe.measures import measure
from support.properties import cheap


def scored(seed=0, count=60, ties=False):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 5, count).astype(float) if ties else random.random(count)
    return scores, random.random(count) < 0.3 + 0.6 * scores / max(scores.max(), 1)


def test_auroc_and_the_false_positive_rate_are_those_of_scikit_learn():
    random = np.random.RandomState(7)
    logits = 2 * random.randn(400, 5)
    p = outcomes.probabilities(logits)
    true = p**0.6 / (p**0.6).sum(axis=1, keepdims=True)
    labels = np.minimum((true.cumsum(axis=1) < random.rand(400, 1)).sum(axis=1), 4)
    right, confidence = p.argmax(axis=1) == labels, p.max(axis=1)
    # scikit-learn: roc_auc_score(right, confidence); of roc_curve the first rate at which the recall is 0.95
    assert outcomes.auroc(confidence[right], confidence[~right]) == pytest.approx(0.6693774397, rel=1e-9)
    assert outcomes.fpr_at_recall(confidence[right], confidence[~right]) == pytest.approx(0.9123711340, rel=1e-9)


@cheap
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_a_ranking_is_what_all_pairs_say(seed, n, m, ties):
    random = np.random.default_rng(seed)
    draw = (lambda k: random.integers(0, 4, k).astype(float)) if ties else random.random
    a, b = draw(n), draw(m)
    pairs = (a[:, None] > b[None]).mean() + 0.5 * (a[:, None] == b[None]).mean()
    assert outcomes.auroc(a, b) == pytest.approx(pairs, abs=1e-12)
    assert outcomes.auroc(b, a) == pytest.approx(1 - pairs, abs=1e-12)
    passing = [t for t in a if (a >= t).mean() >= 0.95]
    assert outcomes.fpr_at_recall(a, b) == pytest.approx((b >= max(passing)).mean())


@cheap
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_with_ties_coverage_is_the_mean_over_their_orders(seed, count):
    scores, right = scored(seed, count, ties=True)
    random, total = np.random.default_rng(seed), np.zeros(count)
    for _ in range(400):
        order = np.lexsort((random.random(count), -scores))
        total += np.cumsum(right[order]) / np.arange(1, count + 1)
    found = outcomes.coverage_curve(scores, right)
    np.testing.assert_allclose(found.accuracy, total / 400, atol=0.15)
    assert found.coverage[-1] == 1 and found.accuracy[-1] == pytest.approx(right.mean())


def test_the_area_is_the_mean_error_of_the_surest_answers():
    scores, right = scored()
    order = np.argsort(-scores)
    errors = np.cumsum(~right[order]) / np.arange(1, 61)
    assert outcomes.aurc(scores, right) == pytest.approx(errors.mean(), rel=1e-12)
    assert outcomes.aurc(np.zeros(60), right) == pytest.approx(1 - right.mean())
    assert outcomes.excess_aurc(right.astype(float), right) == 0 < outcomes.excess_aurc(scores, right)
    assert outcomes.aurc(scores, np.ones(60, bool)) == 0


def test_scores_are_their_formulas_and_know_the_features_that_they_have_seen():
    logits = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(outcomes.energy(logits, temperature=2), 2 * np.log(np.exp(logits / 2).sum(1)))
    np.testing.assert_allclose(outcomes.maximum_logit(logits), [4, 0])
    np.testing.assert_allclose(outcomes.maximum_logit([[-1.0], [3.0]]), [0, 3])
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    train = random.normal(size=(80, 3)) @ np.diag([1.0, 5.0, 0.0]) + labels[:, None] * [4.0, 0.0, 0.0]
    found = outcomes.mahalanobis([[0.0, 5.0, 0.0], [0.0, 0.0, 9.0], [40.0, 0.0, 0.0]], train, labels)
    assert found[2] < -100 < found[0] <= 0
    means = [train[labels == k].mean(0)[:2] for k in (0, 1)]
    within = train[:, :2] - np.stack(means)[labels]
    inverse = np.linalg.inv(within.T @ within / 80)
    away = [np.array([0.0, 5.0]) - mean for mean in means]
    assert found[0] == pytest.approx(-min(d @ inverse @ d for d in away), rel=1e-8)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: outcomes.auroc([], [1.0]), "known must be numbers"),
        (lambda: outcomes.auroc([1.0], [np.nan]), "got nan in place 0"),
        (lambda: outcomes.fpr_at_recall([1.0], [1.0], recall=0.0), "recall must be above 0"),
        (lambda: outcomes.aurc([1.0, 2.0], [True]), r"of shape \(2,\)"),
        (lambda: outcomes.aurc([1.0], [2]), "bools"),
        (lambda: outcomes.energy([[1.0, 2.0]], temperature=0), "temperature must be above 0"),
        (lambda: outcomes.maximum_probability([[np.inf, 1.0]]), "finite, got inf in row 0"),
        (lambda: outcomes.mahalanobis([[1.0, 2.0]], [[1.0]], [0]), "of 1 columns"),
    ],
)
def test_what_is_no_score_is_refused_in_a_sentence(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def test_measures_are_the_functions_and_say_where_nothing_is_to_be_told_apart():
    random = np.random.default_rng(1)
    logits, y = random.normal(size=(40, 3)).astype(np.float32), random.integers(0, 3, 40).astype(np.int32)
    right = logits.argmax(1) == y
    ask = lambda labels, **more: {
        row.quantity: row
        for row in measure(["aurc", "auroc", "fpr_at_recall"], apply=lambda p, x: x @ p, params=jnp.eye(3),
                           batches={"x": logits, "y": labels}, **more)
    }  # fmt: skip
    found, sure = ask(y, settings={"aurc": {"score": "energy"}}), outcomes.maximum_probability(logits)
    assert found["aurc"].value == pytest.approx(outcomes.aurc(outcomes.energy(logits), right), abs=0.02)
    assert found["auroc"].value == pytest.approx(outcomes.auroc(sure[right], sure[~right]), rel=1e-6)
    best = ask(logits.argmax(1).astype(np.int32))
    assert (
        best["aurc"].value == 0 and np.isnan(best["auroc"].value) and "all predictions are right" in best["auroc"].note
    )
    with pytest.raises(InputError, match="no training part is known"):
        ask(y, settings={"aurc": {"score": "mahalanobis"}})
