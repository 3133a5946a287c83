"""How signatures are divided into bands, so that similar rows meet and others rarely do.

Two rows are candidates if they agree in all bytes of at least one band: locality-sensitive hashing (P. Indyk and
R. Motwani, "Approximate nearest neighbors: towards removing the curse of dimensionality", 1998). With `bands` bands of
`width` bytes, rows of the similarity s are candidates with the probability 1 - (1 - s^width)^bands, an S-curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_MISSED = 0.01
"""At most this share of the pairs at the threshold are no candidates."""
_FEWEST, _MOST = 128, 256
"""Bytes of a signature. Fewer estimate badly."""
_WIDEST = 16
_DEVIATIONS = 2.5


@dataclass(frozen=True)
class Banding:
    """Bands of signatures for a threshold.

    Example:
        >>> banding = Banding.for_threshold(0.8)
        >>> banding.bands, banding.width, banding.fewest_matches
        (26, 8, 152)
        >>> [round(banding.candidate_probability(similarity), 3) for similarity in (0.5, 0.7, 0.8, 0.9)]
        [0.097, 0.786, 0.992, 1.0]
    """

    threshold: float
    """The Jaccard similarity of duplicates."""
    bands: int
    width: int
    """Bytes of a band."""

    @classmethod
    def for_threshold(cls, threshold: float) -> Banding:
        """Choose the widest bands, and so the steepest S-curve, that find 99% of the pairs at the threshold.

        A signature has at most 256 bytes.

        Args:
            threshold: 0.5 to 1.
        """
        for width in range(_WIDEST, 0, -1):
            agrees = threshold**width
            needed = 1 if agrees >= 1 else math.ceil(math.log(_MISSED) / math.log1p(-agrees))
            bands = max(needed, math.ceil(_FEWEST / width))
            if bands * width <= _MOST:
                return cls(threshold, bands, width)
        raise ValueError(f"a threshold of {threshold} is too low")

    @property
    def hashes(self) -> int:
        """Bytes of a signature."""
        return self.bands * self.width

    @property
    def fewest_matches(self) -> int:
        """How many bytes of two signatures must be equal, in any bands, for rows to be duplicates.

        This is 2.5 standard deviations below the mean at the threshold, so 99% of the pairs there reach it.
        """
        mean = self.threshold * self.hashes
        return math.ceil(mean - _DEVIATIONS * math.sqrt(mean * (1 - self.threshold)))

    def candidate_probability(self, similarity: float) -> float:
        """Return the probability that two rows agree in a band."""
        return float(1 - (1 - similarity**self.width) ** self.bands)
