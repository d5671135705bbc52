"""Failures: what an exception means for the record that raised it, for its process, and for the run.

An error may be the record's own, and is then a row. Two kinds are not, and would make rows out of good records:

- An accelerator that reports an error, other than that its memory is full, answers every later call of the process with
  an error. The process is of no use any more. On Ray it is replaced as one that died, so that the record that does this
  is found and set aside; where the stage runs in the process of the command line, the run ends.
- Where one record after the other fails unexpectedly, it is what is around them: a full disk for temporary files, a
  broken installation. The run ends too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from galatea.errors import RecordError, RunError
from pipeline.manifest import FAILED, NO_FACE

_log = logging.getLogger(__name__)
_UNEXPECTED = "unexpected"
_MAX_UNEXPECTED_IN_A_ROW = 32
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")
"""In the words of the CPU allocator of torch, which raises a plain RuntimeError, and of accelerators."""


class BrokenDeviceError(RunError):
    """The accelerator failed, and this process cannot use it any more."""

    code = "broken_device"


class UnexpectedFailuresError(RunError):
    """So many records in a row failed unexpectedly that it cannot be the records' fault."""

    code = "unexpected_failures"


@dataclass(frozen=True)
class Failure:
    """Why a record has no result, as its row says it."""

    status: str
    code: str
    message: str


class FailureWatch:
    """Is told what became of one record after the other."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._num_in_a_row = 0

    def note(self, source_id: str, failure: Failure | None) -> None:
        """A record that the stage was given was done, or failed.

        Raises:
            UnexpectedFailuresError: so many in a row failed unexpectedly that the ones to come would too.
        """
        if failure is None or failure.code != _UNEXPECTED:
            self._num_in_a_row = 0
            return
        self._num_in_a_row += 1
        if self._num_in_a_row >= _MAX_UNEXPECTED_IN_A_ROW:
            raise UnexpectedFailuresError(
                f"stage {self._stage}: {self._num_in_a_row} records in a row failed unexpectedly, the last one "
                f"{source_id}: {failure.message}. Expected that single records fail: something around them is wrong. "
                "Mend it, and run again with executor.retry_failed=true, so that these records are tried again too"
            )


def failure_of(error: Exception) -> Failure:
    """What a record's row says of the error that the record raised alone."""
    if is_out_of_memory(error):
        return Failure(FAILED, "out_of_memory", f"not enough memory for this record alone: {error}")
    if isinstance(error, RecordError):
        status = NO_FACE if error.code == NO_FACE else FAILED
        return Failure(status, error.code, str(error))
    _log.warning("unexpected error in a stage", exc_info=error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})" if trace else ""
    return Failure(FAILED, _UNEXPECTED, f"{type(error).__name__}: {error}{where}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether fewer records at once may succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def free_memory(stage: str) -> None:
    """Give back what the accelerator's allocator holds and does not use.

    Raises:
        BrokenDeviceError: the accelerator failed before; not every library says so when it happens.
    """
    if torch.cuda.is_available():
        try:
            torch.cuda.empty_cache()
        except torch.AcceleratorError as error:
            check_device(error, stage)


def check_device(error: Exception, stage: str) -> None:
    """Stop where an error leaves an accelerator that this process cannot use any more.

    Raises:
        BrokenDeviceError: it does.
    """
    if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
        reason = str(error).partition("\n")[0]  # torch adds pages of advice for programmers.
        raise BrokenDeviceError(
            f"stage {stage}: the accelerator failed, and this process cannot use it any more: {reason}"
        ) from error
