"""Weights of tokens in the loss, which is then the mean of the weighted losses of tokens."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable

LOSS_WEIGHTS = "loss_weights"
"""Column with the weight of every token, float32: above 0 for tokens that carry a loss, 0 for all others. Data without
it weigh every trained token 1."""

_REFUSED = re.compile(
    r"'(weight|loss_weight|loss_scale)' of message N must be N or N, not |'train(ing)?_detail' of message N trains"
)


def loss_weight(value: object) -> float | None:
    """Return a weight in the precision of the column; None if it is not a number from 0 to the largest float32.

    Example:
        >>> loss_weight(0.5), loss_weight(2), loss_weight(-1), loss_weight(float("nan")), loss_weight("0.5")
        (0.5, 2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        [weight] = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return None
    return float(weight) if 0 <= weight < math.inf else None


def refuses_weights(reasons: Iterable[str]) -> bool:
    """Return whether rows are quarantined for weights or ranges of messages that are valid now, by generic reasons.

    Example:
        >>> refuses_weights(["'weight' of message N must be N or N, not N.N"])
        True
        >>> refuses_weights(["'train_detail' of message N trains parts of it, which sftkit cannot do"])
        True
        >>> refuses_weights(["'weight' of message N must be a number, N or more, not -N"])
        False
    """
    return any(_REFUSED.match(reason) for reason in reasons)
