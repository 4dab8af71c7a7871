"""Which examples come when, whatever the workers, ranks and interruptions; and what happens when something breaks."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from media_files import encode
from tubelet.data.augment import Augmentation
from tubelet.data.batch import Batch
from tubelet.data.dataset import Example, TrainSet, ViewSet
from tubelet.data.labels import ClassLabels
from tubelet.data.loader import LoaderError, train_batches, view_batches
from tubelet.data.manifest import Record
from tubelet.data.stream import Stream, slots
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.media.video import open_video
from tubelet.specs import VideoSpec

SPEC = VideoSpec(frames=4, stride=2, size=(24, 24), short_side=28)
COUNT = 5


@pytest.fixture(scope="module")
def videos(media: Path) -> list[str]:
    return [str(encode(media / f"loader{i}.mp4", 20 + 3 * i, size=(40, 32))) for i in range(COUNT)]


def train_set(paths: list[str], task: str = "a") -> TrainSet:
    records = [Record(path, {"label": (str(i % 2),)}, key=f"{i}") for i, path in enumerate(paths)]
    return TrainSet(records, ClassLabels(("0", "1")), {"video": SPEC}, Augmentation(), task=task, seed=3)


def load(paths: list[str], plan: str = "abaabba", **options) -> list[Batch]:
    sets = {"a": train_set(paths), "b": train_set(paths[:2], "b")}
    return list(train_batches(sets, list(plan), {"a": 4, "b": 2}, **{"seed": 7} | options))


def same(one: Batch, two: Batch) -> bool:
    return (
        (one.task, one.keys) == (two.task, two.keys)
        and torch.equal(one.targets, two.targets)
        and torch.equal(one.inputs["video"], two.inputs["video"])
    )


class Fake:
    """A train set without files: examples in ``bad`` cannot be read."""

    def __init__(self, count: int, bad: frozenset[int] = frozenset()) -> None:
        self.sizes, self.bad = (count,), bad

    def example(self, index: int, pass_: int) -> Example | MediaError:
        if index in self.bad:
            return MediaError(f"{index}", None, "bad")
        return Example({"x": torch.tensor([index, pass_])}, None, f"{index}")


def test_sources_have_equal_shares_whatever_their_sizes():
    """Two sources in each minibatch, each in passes of its own."""
    stream = Stream((3, 50), 0, "task")
    seen = [stream.at(position) for position in range(200)]
    assert [example < 3 for example, _ in seen] == [True, False] * 100
    assert sorted(seen[0:6:2]) == [(0, 0), (1, 0), (2, 0)]
    assert sorted(seen[1:100:2]) == [(3 + i, 0) for i in range(50)]
    assert {pass_ for example, pass_ in seen if example < 3} == set(range(34))


@given(st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 5))
def test_every_example_comes_once_per_pass(examples, seed, first_pass):
    stream = Stream((examples,), seed, "task")
    for pass_ in (first_pass, first_pass + 1):
        drawn = [stream.at(position) for position in range(pass_ * examples, (pass_ + 1) * examples)]
        assert sorted(drawn) == [(index, pass_) for index in range(examples)]


def test_passes_tasks_and_seeds_have_orders_of_their_own():
    def order(seed: int, task: str, pass_: int) -> list[int]:
        stream = Stream((30,), seed, task)
        return [stream.at(pass_ * 30 + i)[0] for i in range(30)]

    orders = [order(0, "a", 0), order(0, "a", 1), order(0, "b", 0), order(1, "a", 0)]
    assert len({tuple(one) for one in orders}) == 4
    assert order(0, "a", 0) == orders[0]


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.integers(0, 30),
    st.tuples(*[st.integers(4, 12)] * 3),
    st.integers(1, 4),
)
def test_ranks_share_minibatches_and_resuming_is_the_tail(plan, start, sizes, world):
    batch_sizes = dict(zip("abc", sizes, strict=True))
    whole = list(slots(plan, batch_sizes))
    assert [part.task for part in whole] == plan
    by_rank = [list(slots(plan, batch_sizes, start, rank, world)) for rank in range(world)]
    for step, full in enumerate(whole[start:]):
        parts = [ranks[step] for ranks in by_rank]
        assert [p for part in parts for p in range(part.first, part.end)] == list(range(full.first, full.end))
    for task, size in batch_sizes.items():
        seen = [p for part in whole if part.task == task for p in range(part.first, part.end)]
        assert seen == list(range(plan.count(task) * size))


@settings(max_examples=30)
@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 4), st.integers(0, 6), st.sets(st.integers(0, 8), max_size=4)
)
def test_the_minibatches_of_any_number_of_ranks_together_are_those_of_one(count, size, world, start, bad):
    data = {"a": Fake(count, frozenset(bad))}
    plan, sizes = ["a"] * 7, {"a": max(size, world)}
    if bad >= set(range(count)):
        return
    one = list(train_batches(data, plan, sizes, seed=1))
    ranks = [
        list(train_batches(data, plan, sizes, seed=1, start=start, rank=rank, world=world)) for rank in range(world)
    ]
    for step, full in enumerate(one[start:]):
        parts = [batches[step] for batches in ranks]
        assert torch.equal(torch.cat([part.inputs["x"] for part in parts]), full.inputs["x"])
        assert sum(len(part.replaced) for part in parts) == len(full.replaced)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(videos, workers):
    for one, other in zip(load(videos), load(videos, workers=workers), strict=True):
        assert same(one, other)


def test_resuming_gives_the_rest(videos):
    whole = load(videos)
    for start in (1, 4):
        assert all(same(a, b) for a, b in zip(whole[start:], load(videos, start=start, workers=2), strict=True))


def test_a_minibatch_is_what_a_trainer_wants(videos):
    batch = load(videos)[0]
    assert batch.inputs["video"].shape == (4, 4, 3, 24, 24)
    assert batch.inputs["video"].dtype == torch.uint8
    assert batch.targets.tolist() == [int(key) % 2 for key in batch.keys]
    assert batch.targets.dtype == torch.long
    assert batch.replaced == []


def test_a_decoder_that_the_parent_forgot_does_not_stop_a_worker(videos):
    """Threads don't cross a fork: a worker that collected this decoder would wait for its threads for ever."""
    gc.disable()
    try:
        forgotten = [open_video(videos[0], threads=4)]
        forgotten[0].frames_at([0.1])
        forgotten.append(forgotten)
        del forgotten
        data = {"a": Collecting(3)}
        assert len(list(train_batches(data, ["a"], {"a": 2}, seed=0, workers=1, timeout=20))) == 1
    finally:
        gc.enable()


class Collecting(Fake):
    def example(self, index: int, pass_: int) -> Example | MediaError:
        gc.collect()
        return super().example(index, pass_)


def test_the_global_random_numbers_are_left_alone(videos):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(videos, "a", workers=1)
    load(videos, "a")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_example_is_replaced_and_listed(videos, tmp_path, workers):
    broken = str(tmp_path / "broken.mp4")
    Path(broken).write_bytes(b"nothing")
    batches = load([*videos, broken], "a" * 6, workers=workers)
    assert all(len(batch) == 4 for batch in batches)
    replaced = [error for batch in batches for error in batch.replaced]
    assert {error.path for error in replaced} == {broken}
    assert len(replaced) >= 4  # six examples, 24 places: it comes up in each of four passes
    assert Counter(key for batch in batches for key in batch.keys)["5"] == 0
    assert all(same(a, b) for a, b in zip(batches, load([*videos, broken], "a" * 6), strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_is_an_error_with_a_reason(workers):
    with pytest.raises(LoaderError, match=r"task 'a': 32 examples in a row cannot be read; the last: \d: bad"):
        list(train_batches({"a": Fake(4, frozenset(range(4)))}, ["a"], {"a": 2}, seed=0, workers=workers))


class Deadly(Fake):
    def example(self, index: int, pass_: int) -> Example | MediaError:
        os._exit(9)


class Hung(Fake):
    def example(self, index: int, pass_: int) -> Example | MediaError:
        time.sleep(60)
        raise AssertionError


class Buggy(Fake):
    def example(self, index: int, pass_: int) -> Example | MediaError:
        raise KeyError("a mistake in the program")


@pytest.mark.parametrize(("data", "words"), [(Deadly(3), "exited unexpectedly"), (Hung(3), "timed out")])
def test_a_dead_or_hung_worker_is_told(data, words):
    with pytest.raises(LoaderError, match=rf"{words}[\s\S]*task='a'[\s\S]*fewer workers"):
        list(train_batches({"a": data}, ["a"], {"a": 2}, seed=0, workers=1, timeout=1.5))


def test_a_mistake_in_the_program_is_not_hidden():
    with pytest.raises(KeyError, match="a mistake in the program"):
        list(train_batches({"a": Buggy(3)}, ["a"], {"a": 2}, seed=0, workers=1))


def test_impossible_plans_are_refused():
    with pytest.raises(ValueError, match="no data: b"):
        train_batches({"a": Fake(3)}, ["b"], {"a": 2}, seed=0)
    with pytest.raises(ValueError, match="batch_sizes"):
        train_batches({"a": Fake(3)}, ["a"], {"a": 2}, seed=0, rank=0, world=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_counts_every_video_once(videos, tmp_path, workers):
    records = [Record(path, key=str(i)) for i, path in enumerate([*videos, str(tmp_path / "missing.mp4")])]
    data = ViewSet(records, None, {"video": SPEC}, Views(2, 3))
    seen: list[str] = []
    for rank in range(4):
        for found in view_batches(data, rank=rank, world=4, workers=workers):
            if isinstance(found, MediaError):
                seen.append("5")
                assert found.path.endswith("missing.mp4")
            else:
                seen.append(found.key)
                assert found.inputs["video"].shape == (6, 4, 3, 24, 24)
    assert sorted(seen) == ["0", "1", "2", "3", "4", "5"]
    assert seen[:2] == ["0", "4"]
