"""The statistics of routing weights: known routing must give known figures, and sums must equal the formulas."""

from __future__ import annotations

import numpy as np
import pytest

from dynaconv.analysis.routes.statistics import (
    RoutingSums,
    class_share,
    dead_experts,
    kernel_similarity,
    mutual_information,
    normalised_entropy,
    top_classes,
    twin_experts,
)


def summed(weights: np.ndarray, labels: np.ndarray, classes: int, batch: int = 7) -> RoutingSums:
    sums = RoutingSums(classes, weights.shape[1])
    for start in range(0, len(weights), batch):
        part = slice(start, start + batch)
        sums.update(weights[part], labels[part], np.arange(len(weights))[part])
    return sums


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    return random.random((300, 5)) * (1 + labels[:, None]) / 4, labels


def test_streamed_sums_equal_the_formulas(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    weights, labels = drawn
    sums = summed(weights, labels, 4)
    by_class = [weights[labels == label] for label in range(4)]
    np.testing.assert_allclose(sums.class_mean(), [some.mean(0) for some in by_class])
    np.testing.assert_allclose(sums.class_deviation(), [some.std(0, ddof=1) for some in by_class])
    np.testing.assert_allclose(sums.mean(), weights.mean(0))
    np.testing.assert_allclose(sums.deviation(), weights.std(0, ddof=1))
    np.testing.assert_allclose(sums.correlation(), np.corrcoef(weights.T))
    share = weights / weights.sum(1, keepdims=True)
    entropy = -(share * np.log(share)).sum(1) / np.log(5)
    assert sums.entropy_mean() == pytest.approx(entropy.mean())
    assert sums.entropy_deviation() == pytest.approx(entropy.std(ddof=1))
    np.testing.assert_allclose(sums.usage(), share.mean(0))
    np.testing.assert_allclose(sums.share_most, share.max(0))
    np.testing.assert_array_equal(sums.histogram, np.histogram(weights, bins=50, range=(0, 1))[0])
    assert sums.histogram.sum() + sums.outside == weights.size
    for label in range(4):
        rows = np.flatnonzero(labels == label)
        np.testing.assert_array_equal(sums.most_image[label], rows[weights[rows].argmax(0)])
        np.testing.assert_array_equal(sums.favourites[label], np.bincount(weights[rows].argmax(1), minlength=5))


def test_class_share_is_kelleys_epsilon_squared(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    weights, labels = drawn
    total = ((weights - weights.mean(0)) ** 2).sum()
    within = sum(((weights[labels == label] - weights[labels == label].mean(0)) ** 2).sum() for label in range(4))
    assert summed(weights, labels, 4).class_share() == pytest.approx(1 - (within / 296) / (total / 299))


def test_routing_that_is_the_class_is_wholly_class_specific() -> None:
    labels = np.arange(40) % 4
    sums = summed(np.eye(4)[labels], labels, 4)
    assert sums.class_share() == pytest.approx(1)
    assert mutual_information(sums.favourites) == pytest.approx(1)
    assert sums.entropy_mean() == 0
    np.testing.assert_allclose(sums.class_mean(), np.eye(4))
    np.testing.assert_array_equal(sums.class_deviation(), np.zeros((4, 4)))


def test_routing_that_has_nothing_to_do_with_the_class_is_not_class_specific() -> None:
    """Without the degrees of freedom the share would be (C - 1) / (N - 1), far from 0 with many classes."""
    random = np.random.default_rng(1)
    shares = []
    for _ in range(30):
        labels = random.integers(0, 50, 200)
        sums = summed(random.random((200, 4)), labels, 50)
        shares.append(sums.class_share())
    assert abs(np.mean(np.array(shares, float))) < 0.01


def test_flat_routing_has_entropy_one_and_no_class_share() -> None:
    sums = summed(np.full((20, 4), np.float32(0.25)), np.arange(20) % 2, 2)
    assert sums.entropy_mean() == pytest.approx(1)
    assert sums.class_share() is None
    assert np.isnan(sums.correlation()).all()
    assert mutual_information(sums.favourites) is None
    np.testing.assert_array_equal(sums.deviation(), 0)


def test_one_image_one_class_an_empty_class_and_no_image() -> None:
    one = summed(np.array([[0.2, 0.8]]), np.array([1]), 3)
    assert one.class_share() is None
    np.testing.assert_allclose(one.class_mean()[1], [0.2, 0.8])
    assert np.isnan(one.class_mean()[0]).all()
    assert np.isnan(one.class_deviation()).all()
    assert np.isnan(one.deviation()).all()
    assert np.isnan(one.entropy_deviation())
    assert one.most_image[0].tolist() == [-1, -1]
    assert top_classes(one.class_mean(), 0) == [1]
    single = summed(np.random.default_rng(0).random((9, 3)), np.zeros(9, int), 1)
    assert single.class_share() is None
    empty = RoutingSums(2, 3)
    assert np.isnan(empty.entropy_mean())
    assert class_share(empty.count, empty.total, empty.squares) is None
    assert mutual_information(empty.favourites) is None


def test_a_single_expert_and_weights_outside_of_zero_to_one() -> None:
    sums = summed(np.ones((4, 1)), np.arange(4) % 2, 2)
    assert sums.entropy_mean() == 0
    assert dead_experts(sums.share_most) == []
    wild = summed(np.array([[-1.0, 3.0], [0.0, 0.0]]), np.zeros(2, int), 1)
    assert wild.outside == 2
    assert wild.entropy_mean() >= 0


def test_entropy() -> None:
    shares = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(normalised_entropy(shares), [0, 1, 0.5], atol=1e-12)


def test_dead_is_who_is_never_used_and_not_who_is_used_rarely() -> None:
    weights = np.tile([0.5, 0.48, 0.02, 0.0], (100, 1))
    weights[7] = [0.2, 0.2, 0.0, 0.6]  # expert 3 is for one image in a hundred
    assert dead_experts(summed(weights, np.zeros(100, int), 1).share_most) == [2]


def test_twins_have_kernels_of_one_direction() -> None:
    random = np.random.default_rng(0)
    bank = random.standard_normal((4, 6, 3, 3, 3))
    bank[2] = 1.7 * bank[0] + 0.01 * bank[1]
    bank[3] = -bank[0]
    similarity = kernel_similarity(bank)
    np.testing.assert_allclose(np.diag(similarity), 1)
    assert similarity[0, 3] == pytest.approx(-1)
    assert twin_experts(similarity) == [(0, 2)]
    bank[1] = 0
    assert np.isnan(kernel_similarity(bank)[1]).all()
    assert twin_experts(kernel_similarity(bank)) == [(0, 2)]


def test_mutual_information_of_a_known_table() -> None:
    # two classes, two experts, each class has its favourite in three of four images
    table = np.array([[3, 1], [1, 3]])
    expected = (np.log(2) - (-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))) / np.log(2)
    assert mutual_information(table) == pytest.approx(expected)


def test_top_classes_by_mean_weight() -> None:
    means = np.array([[0.1, 0.9], [0.7, np.nan], [0.5, 0.2]])
    assert top_classes(means, 0, 2) == [1, 2]
    assert top_classes(means, 1) == [0, 2]
