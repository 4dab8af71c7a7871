"""Groups that files' names show, and holding examples out without splitting one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.data.manifest import Record
from tubelet.data.split import hold_out, with_name_groups


def named(names: dict[str, list[str]]) -> list[Record]:
    """Records by class."""
    return [
        Record(f"/data/{label}/{name}", {"label": (label,)}, key=f"{label}/{name}")
        for label, files in names.items()
        for name in files
    ]


def groups(names: dict[str, list[str]]) -> list[str]:
    return [record.group for record in with_name_groups(named(names))[0]]


SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def spoken(digits: int = 4, takes: int = 5) -> dict[str, list[str]]:
    return {str(d): [f"{d}_{who}_{take}.wav" for who in SPEAKERS for take in range(takes)] for d in range(digits)}


def test_a_speaker_in_the_names_is_a_group_and_is_told() -> None:
    records, said = with_name_groups(named(spoken()))
    assert {record.group for record in records} == set(SPEAKERS)
    assert all(record.group in record.path for record in records)
    assert "6 groups (george, jackson, lucas ...)" in said


def test_frames_of_a_film_are_a_group() -> None:
    found = groups({c: [f"film{c}{f}_{i:04d}.png" for f in range(4) for i in range(5)] for c in "ab"})
    assert len(set(found)) == 8
    assert Counter(found)["filma0"] == 5


@pytest.mark.parametrize(
    "names",
    [
        {c: [f"{i:04d}.png" for i in range(40)] for c in "ab"},
        {c: [f"IMG_{i:04d}.jpg" for i in range(40)] for c in "ab"},
        {c: [f"{c}.{i}.jpg" for i in range(40)] for c in ("cat", "dog")},
        {c: [f"{(i * 7919 + ord(c)) % 65536:04x}{i:03x}.jpg" for i in range(40)] for c in "ab"},
        {c: [f"left_{i}.png" for i in range(20)] + [f"right_{i}.png" for i in range(20)] for c in "ab"},
        {"a": ["x.png", "y.png"], "b": ["x.png", "y.png"]},
    ],
    ids=["numbers", "camera", "class", "hashes", "two words", "few"],
)
def test_names_that_show_no_groups_give_none(names: dict[str, list[str]]) -> None:
    records, said = with_name_groups(named(names))
    assert said == ""
    assert {record.group for record in records} == {""}


def test_groups_of_a_manifest_are_kept() -> None:
    records = [replace(record, group="mine") for record in named(spoken())]
    assert with_name_groups(records) == (records, "")


def test_whole_groups_are_held_out() -> None:
    records, _ = with_name_groups(named(spoken()))
    rest, held, how = hold_out(records, 0.2)
    assert how == "1 of 6 groups"
    assert len({record.group for record in held}) == 1
    assert not {record.group for record in held} & {record.group for record in rest}
    assert sorted(r.key for r in (*rest, *held)) == sorted(r.key for r in records)


def test_where_groups_are_too_large_files_are_held_out_and_told() -> None:
    records, _ = with_name_groups(named(spoken()))
    _, held, how = hold_out(records, 0.1)
    assert how == "files of the same groups as in training"
    assert Counter(r.labels["label"] for r in held) == {(str(d),): 3 for d in range(4)}


def test_parts_of_a_file_stay_together_and_small_classes_give_none() -> None:
    parts = [Record(f"/{i // 3}.mp4", {"label": ("long",)}, start=i % 3, end=i % 3 + 1, key=f"{i}") for i in range(30)]
    few = named({"rare": ["a.png", "b.png", "c.png"]})
    rest, held, _ = hold_out([*parts, *few], 0.2)
    assert not {r.path for r in rest} & {r.path for r in held}
    assert len(held) == 6
    assert all(record in rest for record in few)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=1, max_size=60), st.floats(0, 0.5))
def test_nothing_is_lost_and_no_class_is_emptied(drawn: list[tuple[str, int]], share: float) -> None:
    records = [
        Record(f"/{i}.wav", {"label": (label,)}, group=str(group), key=str(i)) for i, (label, group) in enumerate(drawn)
    ]
    rest, held, _ = hold_out(records, share)
    assert sorted([*rest, *held], key=lambda r: int(r.key)) == records
    assert {r.labels["label"] for r in rest} == {r.labels["label"] for r in records}
    assert hold_out(list(reversed(records)), share)[1] == list(reversed(held)), "the order of the files is nothing"
