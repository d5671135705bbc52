"""The identity of a photo: what ingest names it by, and later stages know it again by."""

from __future__ import annotations

import hashlib

_NUM_DIGITS = 16


def photo_id_of(data: bytes) -> str:
    """The first 16 hex digits of the SHA-256 of a photo's bytes."""
    return hashlib.sha256(data).hexdigest()[:_NUM_DIGITS]
