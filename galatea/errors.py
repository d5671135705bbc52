"""Errors of Galatea: what fails one record, and what aborts a run.

A message says what went wrong, with which record, what was expected, what was found, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class GalateaError(Exception):
    """Base of every error that Galatea raises on purpose; `code` is stable and lands in manifests."""

    code: ClassVar[str] = "error"


class RecordError(GalateaError):
    """Fails one record; the records beside it are not disturbed."""

    code = "record_error"


class InputError(RecordError):
    """The bytes or values of a record cannot be used (corrupt, empty, too large, wrong kind)."""

    code = "bad_input"


class NoFaceError(RecordError):
    """No face was found where one is needed."""

    code = "no_face"


class FitError(RecordError):
    """A numerical fit (head model, inversion, expression) did not reach a usable state."""

    code = "fit_failed"


class DriverError(RecordError):
    """A driver (video, photo, coefficient file, preset) cannot be read or holds no usable motion."""

    code = "bad_driver"


class RunError(GalateaError):
    """Aborts the run: nothing that follows could succeed."""

    code = "run_error"


class ConfigError(RunError):
    """A configuration key or value is wrong; the message names the field."""

    code = "bad_config"


class WeightsError(RunError):
    """Model weights are missing, damaged, of another kind, or of another model."""

    code = "bad_weights"


class StorageError(RunError):
    """The input or run storage cannot be read or written (permissions, full disk, network)."""

    code = "storage"
