"""Official pickles are read as data: everything arrives, nothing is executed, nothing damaged gets through."""

import collections
import dataclasses
import os
import pickle  # only to write hostile files
import pickletools
import random
import struct
import time
import tracemalloc

import numpy as np
import pytest
import torch

from galatea.eg3d import TriPlaneGenerator
from galatea.eg3d.checkpoint import load_generator
from galatea.eg3d.pickle_import import import_official, read_official
from galatea.eg3d.pickle_reader import PickleReader
from galatea.eg3d.pickle_records import Budget
from galatea.eg3d.triplane import CORRECTED_PLANE_AXES
from galatea.errors import WeightsError
from tests.galatea.eg3d.official_pickle import Called, official_bytes, storage_bytes

MAX_SECONDS = 20
MAX_EXTRA_BYTES = 64 << 20


@pytest.fixture
def official(tiny_generator) -> bytes:
    return official_bytes(tiny_generator)


def refuse(data: bytes, tmp_path, match: str | None = None) -> None:
    """Check that a file is refused, quickly and in little memory."""
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(WeightsError, match=match):
            read_official(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < MAX_SECONDS
    assert peak < MAX_EXTRA_BYTES + 4 * len(data)


def test_an_official_pickle_arrives_complete(tiny_generator, official, tmp_path) -> None:
    (tmp_path / "ffhq.pkl").write_bytes(official)
    facts = import_official(tmp_path / "ffhq.pkl", tmp_path / "out")
    loaded = load_generator(tmp_path / "out")
    assert loaded.config == tiny_generator.config
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in tiny_generator.state_dict().items())
    assert loaded.describe() == facts
    assert facts.name == "ffhq"
    assert "non-commercial" in facts.licence
    assert not facts.is_commercial_use_allowed
    assert len(facts.source_sha256) == 64


def test_plane_axes_belong_to_the_checkpoint(tiny_config, tmp_path) -> None:
    generator = TriPlaneGenerator(dataclasses.replace(tiny_config, plane_axes=CORRECTED_PLANE_AXES))
    (tmp_path / "a.pkl").write_bytes(official_bytes(generator))
    read = read_official(tmp_path / "a.pkl")
    assert read.config.plane_axes == CORRECTED_PLANE_AXES
    assert torch.equal(read.renderer.plane_axes, torch.tensor(CORRECTED_PLANE_AXES))


@pytest.mark.shared
def test_the_reference_pickle_equals_the_reference_state(reference, shared_dir, tmp_path) -> None:
    import_official(shared_dir / "reference" / "small_w512_official_nosrc.pkl", tmp_path)
    state = load_generator(tmp_path).state_dict()
    expected = {key.removeprefix("sd/") for key in reference.keys("sd/")} - {"superresolution.resample_filter"}
    assert state.keys() == expected
    assert all(np.array_equal(state[name].numpy(), reference.arrays[f"sd/{name}"]) for name in expected)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/executed-by-a-pickle",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_refused_by_name_and_not_run(tmp_path, monkeypatch, protocol) -> None:
    calls = []
    monkeypatch.setattr(os, "system", calls.append)
    data = pickle.dumps({"G_ema": Evil()}, protocol=protocol)
    refuse(data, tmp_path, match="(posix.system|builtins.getattr|asks for|expected)")
    assert not calls


def test_code_hidden_in_an_allowed_place_is_refused(tmp_path) -> None:
    inner = pickle.dumps(Evil(), protocol=2)
    data = official_bytes_with_storage(inner)
    refuse(data, tmp_path, match="asks for")


def official_bytes_with_storage(storage: bytes, shape=(3, 3, 3), strides=(9, 3, 1)) -> bytes:
    """A file whose first buffer has this storage."""
    from tests.galatea.eg3d.official_pickle import official_names

    with official_names() as names:
        tensor = Called(
            names.classes["torch._utils._rebuild_tensor_v2"],
            (
                Called(names.classes["torch.storage._load_from_bytes"], (storage,)),
                0,
                shape,
                strides,
                False,
                collections.OrderedDict(),
            ),
        )
        state = {"_parameters": {"weight": tensor}, "_buffers": {}, "_modules": {}}
        meta = {"type": "class", "version": 6, "module_src": "", "class_name": "TriPlaneGenerator", "state": state}
        root = Called(names.classes["torch_utils.persistence._reconstruct_persistent_obj"], (meta,))
        return pickle.dumps({"G_ema": root}, protocol=4)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((1 << 39,), (0,)),
        ((1 << 30, 1 << 30), (0, 0)),
        ((4, 4, 4), (16, 4, 1)),
        ((27,), (1 << 39,)),
        ((-1,), (1,)),
        ((3, 3, 3), (9, 3)),
        ((1,) * 200, (1,) * 200),
    ],
)
def test_shapes_beyond_the_stored_values_are_refused(tmp_path, shape, strides) -> None:
    storage = storage_bytes(torch.zeros(27))
    refuse(official_bytes_with_storage(storage, shape, strides), tmp_path, match="weight: (the shape|damaged shape)")


def test_a_storage_that_announces_more_than_it_holds_is_refused(tmp_path) -> None:
    storage = storage_bytes(torch.zeros(27))
    position = storage.rindex(struct.pack("<q", 27))
    for count in (28, 1 << 62, -1):
        damaged = storage[:position] + struct.pack("<q", count) + storage[position + 8 :]
        refuse(official_bytes_with_storage(damaged), tmp_path, match="announces")


HOSTILE = {
    "giant bytes": b"\x8e" + struct.pack("<Q", 1 << 62),
    "giant text": b"X" + struct.pack("<I", 0xFFFFFFFF),
    "giant memo index": b"Nr" + struct.pack("<I", 0xFFFFFFFF) + b".",
    "giant number": b"\x8b" + struct.pack("<i", 0x7FFFFFFF),
    "giant frame": b"\x95" + struct.pack("<Q", (1 << 64) - 1),
    "nothing": b".",
    "missing mark": b"NNu.",
    "reference to nothing": b"h\x05.",
    "items for a number": b"K\x01K\x02K\x03s.",
    "call of a number": b"K\x01)R.",
    "state for a number": b"K\x01}b.",
    "extension registry": b"\x82\x01.",
    "legacy instance": b"(cos\nsystem\no.",
    "mutable key": b"}]K\x01s.",
    "nested tuple key": b"}" + b")" + b"\x85" * 50 + b"K\x01s.",
    "unended name": b"c" + b"a" * 1000,
    "broken text": b"X\x02\x00\x00\x00\xff\xfe.",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_instructions_are_refused(tmp_path, body) -> None:
    refuse(b"\x80\x04" + body, tmp_path)


def test_exponential_structures_do_not_explode(tmp_path) -> None:
    doubling = (
        b")" + b"\x940h\x00" + b"".join(b"h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"\x86\x94" for i in range(200))
    )
    refuse(b"\x80\x04" + doubling.replace(b"\x940h\x00", b"\x94") + b".", tmp_path)


def test_modules_that_contain_themselves_are_refused(tmp_path) -> None:
    from tests.galatea.eg3d.official_pickle import official_names

    with official_names() as names:
        children: dict = {}
        state = {"_parameters": {}, "_buffers": {}, "_modules": children}
        meta = {"type": "class", "version": 6, "module_src": "", "class_name": "TriPlaneGenerator", "state": state}
        for index in range(50):
            children[f"part{index}"] = Called(
                names.classes["training.triplane.OSGDecoder"], (), {"_parameters": {}, "_modules": children}
            )
        root = Called(names.classes["torch_utils.persistence._reconstruct_persistent_obj"], (meta,))
        data = pickle.dumps({"G_ema": root}, protocol=4)
    refuse(data, tmp_path, match="nested deeper|far more instructions")


def test_endless_instructions_end() -> None:
    with pytest.raises(WeightsError, match="far more instructions"):
        PickleReader(memoryview(b"\x80\x04" + b"N" * 1000), frozenset(), Budget(100)).read()


def test_truncated_files_are_refused(official, tmp_path) -> None:
    rng = random.Random(0)
    for length in [0, 1, 2, 3, 10, *(rng.randrange(len(official)) for _ in range(40)), len(official) - 1]:
        refuse(official[:length], tmp_path)


def test_flipped_bits_never_do_harm(official, tmp_path) -> None:
    # Weights may hold any bits: flips go to instructions, lengths and names.
    places = [place + 1 for _, _, place in pickletools.genops(official) for place in range(place, place + 8)]
    rng = random.Random(1)
    path = tmp_path / "flipped.pkl"
    num_refused = 0
    for _ in range(60):
        damaged = bytearray(official)
        for place in rng.sample(places[:-16], 2):
            damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read_official(path)
        except WeightsError:
            num_refused += 1
    assert num_refused > 30


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"PK\x03\x04rest", "torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xff\xd8\xff\xe0 a photo", "not a pickle"),
        (b"(dp0\n.", "not a pickle"),
        (b"\x80\x01N.", "protocol 1"),
    ],
)
def test_other_files_are_named(tmp_path, data, reason) -> None:
    refuse(data, tmp_path, match=reason)


def test_other_networks_are_named(tmp_path, tiny_generator) -> None:
    from tests.galatea.eg3d.official_pickle import official_names

    with official_names() as names:
        meta = {"type": "class", "version": 6, "module_src": "", "class_name": "Generator", "state": {}}
        stylegan = Called(names.classes["torch_utils.persistence._reconstruct_persistent_obj"], (meta,))
        data = pickle.dumps({"G_ema": stylegan}, protocol=4)
    refuse(data, tmp_path, match="'Generator'; expected 'TriPlaneGenerator'")
    refuse(pickle.dumps({"D": None}, protocol=4), tmp_path, match="no 'G_ema'")
    refuse(pickle.dumps([1, 2], protocol=4), tmp_path, match="expected a dictionary, found list")
    wrong = official_bytes(tiny_generator, _init_kwargs={"z_dim": 9, "c_dim": 25, "w_dim": 16, "channel_base": 64})
    refuse(wrong, tmp_path, match="do not fit the configuration; wrong shape")


def test_unsupported_settings_are_named(tmp_path, tiny_generator) -> None:
    tiny_generator.backbone.mapping.fc0.weight_gain = 7.0
    refuse(
        official_bytes(tiny_generator), tmp_path, match=r"backbone\.mapping\.fc0\.weight_gain: expected .* found 7\.0"
    )


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_official(tmp_path / "none.pkl")
