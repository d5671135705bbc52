import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from galatea.errors import ConfigError
from pipeline.driving import DriverSpec
from pipeline.ingest import ingest
from pipeline.manifest import read_rows
from pipeline.run import run, run_one
from pipeline.settings import StorageConfig
from pipeline.storage import Store
from tests.pipeline.comparing import comparable_rows
from tests.pipeline.small_chain import DRIVERS, SmallStage, build_chain, photo_bytes, plan_chain, write_photos

PRUNING = StorageConfig(prune=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def test_every_photo_face_edit_and_driver_meets(photos: Path, store: Store) -> None:
    result = run(plan_chain([str(photos)], store))

    counts = {name: (summary.num_done, summary.num_failed) for name, summary in result.stages.items()}
    assert counts == {
        "ingest": (4, 0),
        "align": (4, 1),
        "invert": (4, 0),
        "edit": (8, 0),
        "drive": (2, 0),
        "animate": (16, 0),
        "evaluate": (20, 0),
    }


def test_records_carry_what_belongs_together(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))

    portraits = {row["portrait_id"]: row for row in read_rows(store, "align") if row["status"] == "done"}
    for row in read_rows(store, "animate"):
        portrait_id, edit, driver = row["clip_id"].split(".")
        crop = portraits[portrait_id]["crop"]
        assert store.read(row["clip"]) == edit.encode() + b"plain" + crop + b"|" + driver.encode() + b"|" + crop[:4]
    subjects = {row["subject_id"]: row for row in read_rows(store, "evaluate")}
    assert {row["kind"] for row in subjects.values()} == {"portrait", "clip"}
    for portrait_id, portrait in portraits.items():
        assert subjects[portrait_id]["psnr"] == portrait["camera"][0]
        assert subjects[f"{portrait_id}.older.turn"]["psnr"] == portrait["camera"][0]


def test_a_photo_without_a_face_stays_in_its_manifest_and_shifts_nothing(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))

    rows = read_rows(store, "align")
    assert [(Path(row["uri"]).stem, row["face_index"], row["status"]) for row in rows] == [
        ("ann", 0, "done"),
        ("bob", 0, "done"),
        ("group", 0, "done"),
        ("group", 1, "done"),
        ("landscape", None, "no_face"),
    ]


def test_a_second_run_computes_nothing_and_loads_nothing(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))
    before = {entry.path: entry.stamp for entry in store.files()}
    num_setups = SmallStage.num_setups

    result = run(plan_chain([str(photos)], store))

    assert result.num_computed == 0
    assert SmallStage.num_setups == num_setups
    assert {entry.path: entry.stamp for entry in store.files()} == before


def test_an_unchanged_run_does_not_even_import_ray(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))
    script = (
        "import sys\n"
        "from pipeline.run import run\n"
        "from pipeline.settings import ExecutorConfig\n"
        "from pipeline.storage import Store\n"
        "from tests.pipeline.small_chain import plan_chain\n"
        f"result = run(plan_chain([{str(photos)!r}], Store({store.url!r}), executor=ExecutorConfig(kind='ray')))\n"
        "print(result.num_computed, 'ray' in sys.modules)"
    )

    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert output.split() == ["0", "False"]


def test_a_new_photo_computes_only_itself(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))
    (photos / "zoe.png").write_bytes(photo_bytes(99, photos.parent))

    result = run(plan_chain([str(photos)], store))

    computed = {name: summary.num_records - summary.num_reused for name, summary in result.stages.items()}
    assert computed == {"ingest": 1, "align": 1, "invert": 1, "edit": 1, "drive": 0, "animate": 4, "evaluate": 5}


def test_a_moved_photo_is_not_computed_again_and_still_found(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))
    moved = photos.rename(photos.with_name("elsewhere"))
    more = (*DRIVERS, DriverSpec("frown", "preset", "frown"))

    result = run(plan_chain([str(moved)], store, drivers=more))

    computed = {name: summary.num_records - summary.num_reused for name, summary in result.stages.items()}
    assert computed == {"ingest": 5, "align": 0, "invert": 0, "edit": 0, "drive": 1, "animate": 8, "evaluate": 8}
    assert result.stages["animate"].num_failed == 0


def test_a_changed_configuration_computes_its_stage_and_what_follows(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))

    result = run(plan_chain([str(photos)], store, stages=build_chain(edit="x")))

    computed = {name: summary.num_records - summary.num_reused for name, summary in result.stages.items()}
    assert computed == {"ingest": 0, "align": 0, "invert": 0, "edit": 4, "drive": 0, "animate": 16, "evaluate": 16}
    assert all(b"x|" in store.read(row["clip"]) for row in read_rows(store, "animate"))
    assert len(store.files("edit/files")) == 8


def test_a_removed_photo_leaves_the_manifests_and_files(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))
    (photos / "group.png").unlink()

    result = run(plan_chain([str(photos)], store, storage=PRUNING))

    assert result.num_computed == 0
    assert result.stages["align"].status == {"done": 2, "no_face": 1}
    assert result.stages["animate"].num_rows == 8
    assert len(store.files("animate/files")) == 8


def test_other_photos_or_drivers_do_not_delete_earlier_clips(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos / "ann.png")], store))
    before = {entry.path: entry.stamp for entry in store.files("animate")}
    other = plan_chain([str(photos / "bob.png")], store)
    fewer = plan_chain([str(photos / "ann.png")], store, drivers=DRIVERS[:1])

    for plan, message in ((other, r"results of 1 photo .*ann\.png"), (fewer, r"results of 1 driver .*\(turn\)")):
        with pytest.raises(ConfigError, match=message + r".*another --out, or say storage\.prune=true"):
            run(plan)
        assert {entry.path: entry.stamp for entry in store.files("animate")} == before
    with pytest.raises(ConfigError, match="results of 1 driver"):
        run_one(fewer, fewer.stages[3])

    assert run(plan_chain([str(photos / "ann.png")], store)).num_computed == 0
    assert run(replace(other, storage=PRUNING)).stages["animate"].num_rows == 4
    assert run(replace(other, storage=PRUNING, drivers=DRIVERS[:1])).stages["animate"].num_rows == 2
    assert len(store.files("animate/files")) == 2


def test_a_driver_whose_file_is_gone_does_not_take_its_clips_along(photos: Path, store: Store, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"moving")
    plan = plan_chain([str(photos)], store, drivers=(*DRIVERS, DriverSpec("film", "video", "film", str(film))))
    run(plan)
    film.unlink()

    with pytest.raises(ConfigError, match=r"results of 1 driver .*\(film\)"):
        run(plan)

    assert len(store.files("animate/files")) == 24


def test_a_file_that_is_gone_from_the_run_folder_is_made_again(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))
    before = {entry.path: entry.num_bytes for entry in store.files()}
    capsule, clip = store.files("invert/files")[1].path, store.files("animate/files")[5].path
    store.delete(capsule)
    store.delete(clip)

    result = run(plan_chain([str(photos)], store))

    computed = {name: summary.num_records - summary.num_reused for name, summary in result.stages.items()}
    assert computed == {"ingest": 0, "align": 0, "invert": 1, "edit": 0, "drive": 0, "animate": 1, "evaluate": 0}
    assert {entry.path for entry in store.files()} == set(before)
    assert run(plan_chain([str(photos)], store)).num_computed == 0


def test_a_file_that_is_gone_fails_its_record_alone_until_it_is_made_again(photos: Path, store: Store) -> None:
    run(plan_chain([str(photos)], store))
    capsule = store.files("invert/files")[1].path
    store.delete(capsule)
    plan = plan_chain([str(photos)], store, stages=build_chain(edit="x"))

    first, second = run_one(plan, plan.stages[2]), run_one(plan, plan.stages[2])

    assert first.status == second.status == {"done": 6, "failed": 1}
    assert (first.num_reused, second.num_reused) == (0, 3)
    [failed] = [row for row in read_rows(store, "edit") if row["status"] == "failed"]
    assert failed["error_code"] == "lost_file"
    assert f"{capsule}: no such file" in failed["error_message"]
    assert "must compute it again" in failed["error_message"]

    result = run(plan)

    assert result.stages["invert"].num_records - result.stages["invert"].num_reused == 1
    assert result.stages["edit"].status == {"done": 8}
    assert result.stages["animate"].status == {"done": 16}
    assert run(plan).num_computed == 0


def test_a_missing_driver_fails_alone_and_is_used_once_it_is_there(photos: Path, store: Store, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    plan = plan_chain([str(photos)], store, drivers=(*DRIVERS, DriverSpec("film", "video", "film", str(film))))

    first = run(plan)
    film.write_bytes(b"moving")
    second = run(plan)

    assert first.stages["drive"].status == {"done": 2, "failed": 1}
    assert first.stages["animate"].num_rows == 16
    assert second.stages["drive"].status == {"done": 3}
    assert second.stages["animate"].num_rows == 24
    assert second.stages["animate"].num_reused == 16


def test_photos_that_are_away_for_a_while_are_computed_once_they_are_back(photos: Path, store: Store) -> None:
    plan = plan_chain([str(photos)], store)
    ingest(plan.inputs, store, plan.storage)
    away = photos.rename(photos.with_name("away"))

    meanwhile = run_one(plan, plan.stages[0])
    away.rename(photos)
    after = run(plan)

    assert meanwhile.errors == {"unreadable_input": 4}
    assert after.stages["align"].status == {"done": 4, "no_face": 1}
    assert after.stages["animate"].status == {"done": 16}
    assert run(plan).num_computed == 0


def test_a_photo_that_is_replaced_after_ingest_is_taken_in_by_the_next_run(
    photos: Path, store: Store, tmp_path: Path
) -> None:
    plan = plan_chain([str(photos)], store)
    ingest(plan.inputs, store, plan.storage)
    (photos / "bob.png").write_bytes(photo_bytes(50, tmp_path))

    meanwhile = run_one(plan, plan.stages[0])
    after = run(plan)

    assert meanwhile.errors == {"replaced_input": 1, "no_face": 1}
    assert after.stages["align"].status == {"done": 4, "no_face": 1}
    assert after.stages["align"].num_reused == 3


def test_photos_without_any_face_end_in_a_whole_run(tmp_path: Path, store: Store) -> None:
    (tmp_path / "landscape.png").write_bytes(photo_bytes(40, tmp_path))

    result = run(plan_chain([str(tmp_path / "landscape.png")], store))

    assert result.stages["align"].num_failed == 1
    assert result.stages["animate"].num_records == 0
    assert result.stages["evaluate"].num_records == 0


def test_without_drivers_portraits_are_still_scored(photos: Path, store: Store) -> None:
    result = run(plan_chain([str(photos)], store, drivers=()))

    assert result.stages["animate"].num_rows == 0
    assert result.stages["evaluate"].num_done == 4


def test_two_runs_of_the_same_make_the_same_manifests(photos: Path, tmp_path: Path) -> None:
    stores = [Store(str(tmp_path / name)) for name in ("one", "two")]
    for store in stores:
        run(plan_chain([str(photos)], store))

    for stage in ("align", "invert", "edit", "drive", "animate", "evaluate"):
        assert comparable_rows(stores[0], stage) == comparable_rows(stores[1], stage)


def test_a_stage_that_requires_an_unknown_column_says_so(photos: Path, store: Store) -> None:
    chain = build_chain()
    chain[1].requires = ("portrait_id", "crpo")  # type: ignore[misc]

    with pytest.raises(ConfigError, match=r"invert requires .'crpo'.*no stage before it makes"):
        run(plan_chain([str(photos)], store, stages=chain))


def test_a_stage_whose_predecessor_has_not_run_says_so(photos: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match="stage align has not finished"):
        run(plan_chain([str(photos)], store, stages=build_chain()[1:]))


def test_two_drivers_of_one_name_are_refused(photos: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match="two drivers are called 'smile'"):
        run(plan_chain([str(photos)], store, drivers=(*DRIVERS, *DRIVERS)))
