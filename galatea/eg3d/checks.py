"""What the generator's methods check once, where a caller's tensors come in: shapes that fit, and finite numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from galatea.errors import InputError


def check_shape(name: str, value: object, expected: tuple[int | str, ...], hint: str) -> None:
    """Check a tensor's shape; names in `expected` stand for any size.

    Raises:
        ValueError: saying what was expected and found, and what to do.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor of shape {_text(expected)}, got {type(value).__name__}; {hint}")
    sizes = zip(value.shape, expected, strict=False)
    if value.ndim != len(expected) or any(isinstance(size, int) and found != size for found, size in sizes):
        raise ValueError(f"{name}: expected shape {_text(expected)}, got {tuple(value.shape)}; {hint}")


def check_finite_input(name: str, value: Tensor) -> None:
    """Check that a tensor has neither NaN nor infinity (their sum would not be finite).

    Raises:
        InputError: if it has.
    """
    if not bool(torch.isfinite(value.detach().sum())):
        count = int((~torch.isfinite(value)).sum())
        raise InputError(
            f"{name}: expected finite numbers, got NaN or infinity in {count} of {value.numel()} places; "
            "look at the step that made them (a learning rate that is too high?)"
        )


def check_batch(name: str, found: int, expected: int, of: str) -> None:
    """Check that a batch is 1 or as large as another.

    Raises:
        ValueError: if it is not.
    """
    if found not in (1, expected):
        raise ValueError(f"{name}: expected a batch of 1 or {expected} (as {of}), got {found}; repeat or select rows")


def _text(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
