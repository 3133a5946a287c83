"""Options that are a number of rows, or below 1 a fraction of all rows."""

from __future__ import annotations


def amount_problem(key: str, value: float | None) -> str | None:
    """Say why a value of such an option is not valid; None if it is.

    Example:
        >>> amount_problem("val_size", 100), amount_problem("val_size", 0.1)
        (None, None)
        >>> amount_problem("val_size", 1.0)
        'val_size=1.0 is ambiguous; write 1 for one row, or a fraction below 1, such as 0.99'
        >>> amount_problem("val_size", 1.5)
        'val_size must be a whole number of rows, or a fraction below 1, not 1.5'
    """
    if isinstance(value, float) and value == 1:
        return f"{key}=1.0 is ambiguous; write 1 for one row, or a fraction below 1, such as 0.99"
    if value is not None and value > 1 and value != int(value):
        return f"{key} must be a whole number of rows, or a fraction below 1, not {value:g}"
    return None
