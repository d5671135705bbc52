"""How often the workers of a stage died, and when that is more than bad records and lost machines explain."""

from __future__ import annotations

from galatea.errors import RunError

_MAX_FRUITLESS = 16
"""Deaths in a row without a finished batch: more than a bisection needs, so it is not one record's fault."""
_MAX_IN_SETUP = 3


class WorkersDieError(RunError):
    """Workers keep dying, and not because of single records."""

    code = "workers_die"


class DeathToll:
    """Counts the deaths that show that a stage gets nowhere.

    Workers that die together, with their machine, count once: a death counts only where the worker was started after
    the last one that counted.
    """

    def __init__(self, stage: str, max_restarts: int) -> None:
        """Begin with none.

        Args:
            stage: its name, for messages.
            max_restarts: see `ExecutorConfig`.
        """
        self._stage = stage
        self._max_restarts = max_restarts
        self._num_counted = self._num_unpaid = self._num_fruitless = self._num_in_setup = 0

    @property
    def era(self) -> int:
        """To be kept with a worker that is started now, for `worker_died`."""
        return self._num_counted

    def worker_ready(self) -> None:
        """A worker has loaded its models."""
        self._num_in_setup = 0

    def batch_finished(self) -> None:
        """The stage moved on; that makes up for a death."""
        self._num_fruitless = 0
        self._num_unpaid = max(0, self._num_unpaid - 1)

    def worker_died(self, era: int, is_ready: bool, cause: str) -> None:
        """Count a death.

        Args:
            era: when the worker was started.
            is_ready: whether it had loaded its models.
            cause: for the message.

        Raises:
            WorkersDieError: it is one too many.
        """
        if era < self._num_counted:
            return
        self._num_counted += 1
        self._num_unpaid += 1
        self._num_fruitless += 1
        self._num_in_setup += not is_ready
        self._check(cause)

    def _check(self, cause: str) -> None:
        if self._num_in_setup > _MAX_IN_SETUP:
            raise WorkersDieError(f"stage {self._stage}: workers die while they load its models: {cause}")
        if self._num_fruitless > _MAX_FRUITLESS:
            raise WorkersDieError(
                f"stage {self._stage}: workers died {self._num_fruitless} times in a row without finishing anything: "
                f"{cause}"
            )
        if self._num_unpaid > self._max_restarts:
            raise WorkersDieError(
                f"stage {self._stage}: workers died {self._num_unpaid} times more often than they finished a batch, "
                f"expected {self._max_restarts} at most (executor.max_restarts); the last one: {cause}"
            )
