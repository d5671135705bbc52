import pytest

from pipeline.deaths import DeathToll, WorkersDieError


def die_one_after_the_other(toll: DeathToll, number: int, is_ready: bool = True) -> None:
    for _ in range(number):
        toll.worker_died(toll.era, is_ready, "killed")


def die_together(toll: DeathToll, number: int, is_ready: bool = True) -> None:
    era = toll.era
    for _ in range(number):
        toll.worker_died(era, is_ready, "the node died")


def test_workers_that_all_die_while_they_load_end_the_run() -> None:
    toll = DeathToll("align", max_restarts=64)
    die_one_after_the_other(toll, 3, is_ready=False)
    with pytest.raises(WorkersDieError, match=r"align.*while they load its models: killed"):
        die_one_after_the_other(toll, 1, is_ready=False)


def test_deaths_while_loading_are_forgotten_once_a_worker_is_ready() -> None:
    toll = DeathToll("align", max_restarts=64)
    for _ in range(5):
        die_one_after_the_other(toll, 3, is_ready=False)
        toll.worker_ready()


def test_workers_that_die_without_finishing_anything_end_the_run() -> None:
    toll = DeathToll("align", max_restarts=64)
    die_one_after_the_other(toll, 16)
    with pytest.raises(WorkersDieError, match=r"17 times in a row without finishing anything"):
        die_one_after_the_other(toll, 1)


@pytest.mark.parametrize("is_ready", [False, True])
def test_workers_that_die_with_their_machine_count_once(is_ready: bool) -> None:
    toll = DeathToll("align", max_restarts=64)
    for _ in range(3):
        die_together(toll, 100, is_ready)
    assert toll.era == 3


def test_a_pool_that_dies_again_and_again_ends_the_run() -> None:
    toll = DeathToll("align", max_restarts=64)
    for _ in range(16):
        die_together(toll, 40)
    with pytest.raises(WorkersDieError, match="without finishing anything"):
        die_together(toll, 40)


def test_finished_batches_make_up_for_deaths() -> None:
    toll = DeathToll("align", max_restarts=3)
    for _ in range(50):
        die_one_after_the_other(toll, 2)
        toll.batch_finished()
        toll.batch_finished()
    with pytest.raises(WorkersDieError, match=r"4 times more often.*expected 3 at most \(executor\.max_restarts\)"):
        die_one_after_the_other(toll, 4)


def test_no_restart_at_all_can_be_asked_for() -> None:
    toll = DeathToll("align", max_restarts=0)
    toll.batch_finished()
    with pytest.raises(WorkersDieError, match="max_restarts"):
        die_one_after_the_other(toll, 1)
