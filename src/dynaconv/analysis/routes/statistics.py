"""What routing weights say: sums over images that are kept while they stream by, and the statistics of these sums.

Notation: ``w[n, k]`` is the weight of expert k for image n, ``c[n]`` the image's class; ``share = w / sum_k w``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BINS = 50
DEAD = 0.1  # of an equal share
TWIN = 0.95
STILL = 1e-6  # a standard deviation below this is rounding


class RoutingSums:
    """Sums over the images of one router; memory depends on classes and experts, not on the number of images.

    Attributes:
        count: ``(C,)`` images of every class.
        total, squares: ``(C, K)`` sums of ``w - shift`` and of its square; ``shift`` is the first image's weights, so
            that equal weights have a variance of exactly zero.
        products: ``(K, K)`` sums of ``(w_i - shift_i) (w_j - shift_j)``.
        share_total, share_most: ``(K,)`` sum and maximum of the shares.
        entropy, entropy_squares: sums of ``H(share) / log K`` and of its square.
        favourites: ``(C, K)`` images whose largest weight is that expert's.
        histogram: ``(BINS,)`` weights of all experts between 0 and 1; ``outside`` counts the others.
        most, most_image: ``(C, K)`` the largest weight in a class, and the image that has it (-1 for none).
    """

    def __init__(self, classes: int, experts: int) -> None:
        self.classes, self.experts = classes, experts
        self.count = np.zeros(classes, np.int64)
        self.shift = np.zeros(experts)
        self.total, self.squares = np.zeros((classes, experts)), np.zeros((classes, experts))
        self.products = np.zeros((experts, experts))
        self.share_total, self.share_most = np.zeros(experts), np.zeros(experts)
        self.entropy = self.entropy_squares = 0.0
        self.favourites = np.zeros((classes, experts), np.int64)
        self.histogram, self.outside = np.zeros(BINS, np.int64), 0
        self.most = np.full((classes, experts), -np.inf)
        self.most_image = np.full((classes, experts), -1, np.int64)

    def update(self, weights: Array, labels: Array, images: Array) -> None:
        """Add some images: ``(n, K)`` weights, ``(n,)`` labels, ``(n,)`` numbers of the images."""
        w = np.asarray(weights, np.float64)
        if not len(w):
            return
        if not self.count.any():
            self.shift = w[0].copy()
        moved = w - self.shift
        self.count += np.bincount(labels, minlength=self.classes)
        np.add.at(self.total, labels, moved)
        np.add.at(self.squares, labels, moved**2)
        self.products += moved.T @ moved
        share = shares(w)
        self.share_total += share.sum(axis=0)
        self.share_most = np.maximum(self.share_most, share.max(axis=0))
        entropy = normalised_entropy(share)
        self.entropy += float(entropy.sum())
        self.entropy_squares += float((entropy**2).sum())
        np.add.at(self.favourites, (labels, w.argmax(axis=1)), 1)
        inside = w[(w >= 0) & (w <= 1)]
        self.outside += int(w.size - inside.size)
        self.histogram += np.histogram(inside, bins=BINS, range=(0.0, 1.0))[0]
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            best = w[rows].argmax(axis=0)
            value = w[rows[best], np.arange(self.experts)]
            better = value > self.most[label]
            self.most[label] = np.where(better, value, self.most[label])
            self.most_image[label] = np.where(better, np.asarray(images)[rows[best]], self.most_image[label])

    @property
    def images(self) -> int:
        return int(self.count.sum())

    def class_mean(self) -> Array:
        """``(C, K)`` mean weights (CondConv, Figure 3); NaN for a class without images."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.total / self.count[:, None] + self.shift

    def class_deviation(self) -> Array:
        """``(C, K)`` standard deviations within each class, ``n - 1`` in the denominator (Figure 5); NaN below two."""
        with np.errstate(invalid="ignore", divide="ignore"):
            n = self.count[:, None]
            variance = (self.squares - self.total**2 / n) / (n - 1)
        return np.sqrt(np.where(n >= 2, np.maximum(variance, 0.0), np.nan))

    def mean(self) -> Array:
        """``(K,)`` mean weights of all images."""
        return self.total.sum(axis=0) / max(self.images, 1) + self.shift

    def deviation(self) -> Array:
        """``(K,)`` standard deviations over all images; NaN below two images."""
        n = self.images
        if n < 2:
            return np.full(self.experts, np.nan)
        variance = (self.squares.sum(axis=0) - self.total.sum(axis=0) ** 2 / n) / (n - 1)
        return np.sqrt(np.maximum(variance, 0.0))

    def entropy_mean(self) -> float:
        """Mean over images of ``H(share) / log K``: 1 is flat, 0 one expert alone."""
        return self.entropy / self.images if self.images else float("nan")

    def entropy_deviation(self) -> float:
        """Its standard deviation over images."""
        n = self.images
        if n < 2:
            return float("nan")
        return float(np.sqrt(max(self.entropy_squares - self.entropy**2 / n, 0.0) / (n - 1)))

    def usage(self) -> Array:
        """``(K,)`` mean share of every expert."""
        return self.share_total / max(self.images, 1)

    def class_share(self) -> float | None:
        """How class-specific the weights are; see :func:`class_share`."""
        return class_share(self.count, self.total, self.squares)

    def correlation(self) -> Array:
        """``(K, K)`` correlation of the weights of two experts over images; NaN where one does not vary."""
        n = max(self.images, 1)
        mean = self.total.sum(axis=0) / n
        covariance = self.products / n - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            found = covariance / np.outer(deviation, deviation)
        found[(deviation < STILL), :] = np.nan
        found[:, (deviation < STILL)] = np.nan
        return found


def shares(weights: Array) -> Array:
    """``w / sum_k w``; weights below 0 count as 0, and a row without any above it has shares of 0."""
    weights = np.maximum(weights, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def normalised_entropy(share: Array) -> Array:
    """``-sum_k s_k log s_k / log K`` of every row, between 0 (one expert) and 1 (flat); 0 for a single expert."""
    if share.shape[1] < 2:
        return np.zeros(len(share))
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(-(share * logarithm).sum(axis=1) / np.log(share.shape[1]))


def class_share(count: Array, total: Array, squares: Array) -> float | None:
    """The share of the variance of routing weights that lies between classes: Kelley's epsilon squared.

    ``epsilon^2 = 1 - (SSW / (N - C)) / (SST / (N - 1))``, where SST is the sum of squares about the mean of all images,
    SSW that about the means of the classes, both summed over the experts; N images, C classes that have any. 1: all
    images of a class have the same weights, and classes differ. 0: the class says nothing about the weights. (It may
    fall a little below 0 by chance. Without the two degrees of freedom it is Pearson's correlation ratio eta squared,
    whose expectation without any effect is (C - 1) / (N - 1), not 0.)

    Source: T. L. Kelley, "An unbiased correlation ratio measure", PNAS 21 (1935).

    Args:
        count: ``(C,)`` images of the classes.
        total, squares: ``(C, K)`` sums of the weights (about any centre) and of their squares.

    Returns:
        None where it is not defined: fewer than two classes, no class with two images, weights that do not vary.
    """
    here = count > 0
    images, classes = int(count.sum()), int(here.sum())
    if classes < 2 or images <= classes:
        return None
    whole = float((squares.sum(axis=0) - total.sum(axis=0) ** 2 / images).sum())
    within = float((squares[here] - total[here] ** 2 / count[here][:, None]).sum())
    if whole <= images * STILL**2:
        return None
    return 1.0 - max(within, 0.0) / (images - classes) / (whole / (images - 1))


def mutual_information(table: Array) -> float | None:
    """``I(class; favourite) / sqrt(H(class) H(favourite))`` of a table of counts, between 0 and 1.

    The favourite of an image is the expert with the largest weight. Source: Strehl and Ghosh, "Cluster ensembles",
    JMLR 3 (2002), eq. 3. None where one of the two does not vary.
    """
    if not table.sum():
        return None
    joint = table / table.sum()
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    of_rows, of_columns = _entropy(rows), _entropy(columns)
    if min(of_rows, of_columns) <= 0:
        return None
    return max(of_rows + of_columns - _entropy(joint.reshape(-1)), 0.0) / float(np.sqrt(of_rows * of_columns))


def _entropy(probabilities: Array) -> float:
    some = probabilities[probabilities > 0]
    return float(-(some * np.log(some)).sum())


def dead_experts(share_most: Array, threshold: float = DEAD) -> list[int]:
    """Experts that no image uses: whose largest share of any image is below ``threshold / K``."""
    return [int(k) for k in np.flatnonzero(share_most < threshold / len(share_most))] if len(share_most) > 1 else []


def kernel_similarity(bank: Array) -> Array:
    """``(K, K)`` cosines of the angles between the expert kernels of a bank ``(K, *kernel)``: ``<a, b> / (|a| |b|)``.

    NaN for a kernel of zeros.
    """
    flat = np.asarray(bank, np.float64).reshape(len(bank), -1)
    length = np.linalg.norm(flat, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return flat @ flat.T / np.outer(length, length)


def twin_experts(similarity: Array, threshold: float = TWIN) -> list[tuple[int, int]]:
    """Pairs of experts whose similarity is above ``threshold``: one of them would do."""
    rows, columns = np.nonzero(np.triu(np.nan_to_num(similarity, nan=0.0), 1) > threshold)
    return [(int(one), int(two)) for one, two in zip(rows, columns, strict=True)]


def top_classes(class_mean: Array, expert: int, many: int = 10) -> list[int]:
    """The classes with the highest mean weight of an expert (CondConv, Figure 6), highest first."""
    means = np.where(np.isnan(class_mean[:, expert]), -np.inf, class_mean[:, expert])
    return [int(label) for label in np.argsort(-means, kind="stable")[:many] if np.isfinite(means[label])]
