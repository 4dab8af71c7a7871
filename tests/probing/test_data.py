"""What a probe learns and is tested on, and how errors in the data are told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe_toys import write_rows
from tubelet.data.manifest import ManifestError, Record
from tubelet.probing.data import ProbeData, ProbeExamples, data_name, read_examples
from tubelet.probing.training import PAPER, ProbeOptions, settings_for
from tubelet.training.classification import Classification
from tubelet.training.experiment import Length


def rows(**splits):
    """Rows of a manifest: the labels of each split, a picture each."""
    return [(f"{split}{i}.png", label, split) for split, labels in splits.items() for i, label in enumerate(labels)]


def examples_of(count, validation=()):
    train = tuple(Record(f"{i}.png", {"label": (str(i % 2),)}, key=f"{i}.png") for i in range(count))
    return ProbeExamples(
        name="toys",
        path="toys.csv",
        modality="image",
        train=train,
        validation=validation,
        test=train[:1],
        test_split="test",
        objective=Classification(classes=("0", "1")),
    )


def keys(records):
    return {record.key for record in records}


@pytest.mark.parametrize(("count", "kept"), [(2_000, 40), (1_000, 20), (400, 20), (60, 12), (5, 1)])
def test_two_per_cent_are_kept_for_choosing_and_more_of_a_small_set(count, kept):
    fit, chosen_by, told = examples_of(count).for_choosing(0.02, seed=0)
    assert (len(fit), len(chosen_by)) == (count - kept, kept)
    assert keys(fit) | keys(chosen_by) == keys(examples_of(count).train)
    assert f"{kept} of the {count:,} training examples" in told


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_what_is_kept_depends_on_keys_and_seed_and_not_on_the_order(seed):
    examples = examples_of(100)
    turned = ProbeExamples(**{**vars(examples), "train": examples.train[::-1]})
    first, second = (e.for_choosing(0.05, seed)[1] for e in (examples, turned))
    assert keys(first) == keys(second)
    assert keys(first) != keys(examples.for_choosing(0.05, seed + 1)[1])


def test_a_validation_split_of_its_own_is_used(tmp_path):
    manifest = write_rows(tmp_path / "m.csv", rows(train="abab", val="ab", test="aabb"))
    examples = read_examples(ProbeData(path=str(manifest)))
    assert (examples.test_split, len(examples.test)) == ("test", 4)
    fit, chosen_by, told = examples.for_choosing(0.02, 0)
    assert (fit, chosen_by) == (examples.train, examples.validation)
    assert "2 examples of the split 'val'" in told
    examples = read_examples(ProbeData(path=str(manifest), test="val"))
    assert (len(examples.test), examples.validation) == (2, ())


def test_labels_decide_the_loss(tmp_path):
    (tmp_path / "several.csv").write_text(
        "path,labels,split\na.png,x;y,train\nb.png,x,train\nc.png,y,val\nd.png,x;y,val\n"
    )
    objective = read_examples(ProbeData(path=str(tmp_path / "several.csv"))).objective
    assert (objective.labels, objective.loss, objective.metric) == ("several", "sigmoid", "map")
    (tmp_path / "sets.csv").write_text(
        "path,label.verb,label.noun,split\na.mp4,cut,egg,train\nb.mp4,fry,ham,train\nc.mp4,cut,ham,val\n"
    )
    examples = read_examples(ProbeData(path=str(tmp_path / "sets.csv")))
    assert (examples.modality, examples.objective.metric) == ("video", "action_top1")
    assert examples.objective.classes == {"verb": ("cut", "fry"), "noun": ("egg", "ham")}


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": "abab"}, "no split 'test' or 'val' .splits: 'train'.*column 'split'"),
        ({"fit": "ab", "val": "ab"}, "no split 'train'; it has 'fit', 'val'"),
        ({"train": "aaa", "val": "a"}, "at least two classes; train has 'a'"),
        ({"train": "abab", "val": "abc"}, "'c': no training example shows it"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(tmp_path, splits, says):
    with pytest.raises(ManifestError, match=says):
        read_examples(ProbeData(path=str(write_rows(tmp_path / "m.csv", rows(**splits)))))


def test_classes_that_are_never_tested_are_noted(tmp_path):
    manifest = write_rows(tmp_path / "m.csv", rows(train="abcd", val="ab"))
    (note,) = read_examples(ProbeData(path=str(manifest))).notes
    assert note == "2 of 4 classes have no example in 'val', untested: 'c', 'd'"


def test_files_of_several_kinds_need_a_choice(tmp_path):
    mixed = write_rows(tmp_path / "m.csv", [*rows(train="abab", val="ab"), ("x.mp4", "a", "train")])
    with pytest.raises(ValueError, match="several kinds"):
        read_examples(ProbeData(path=str(mixed)))
    videos = write_rows(tmp_path / "v.csv", [("a.mp4", "a", "train"), ("b.mp4", "b", "train"), ("c.mp4", "b", "val")])
    assert read_examples(ProbeData(path=str(videos), input="audio")).modality == "audio"


def test_data_sets_are_called_after_their_files(tmp_path):
    assert data_name(ProbeData(path="runs/digits/motion.csv")) == "motion"
    assert data_name(ProbeData(path="photos/manifest.csv")) == "photos"
    assert data_name(ProbeData(path="my photos.v2/")) == "my_photos"
    assert data_name(ProbeData(path="a.csv", name="b-c")) == "b_c"


def test_the_settings_are_the_papers_where_the_data_are_large():
    for kind, paper in PAPER.items():
        assert settings_for(kind, 100_000) == paper
    image, video, audio = (PAPER[kind] for kind in ("image", "video", "audio"))
    assert (image.length.steps, image.warmup.steps, image.batch_size, image.head_init) == (2500, 200, 512, "lecun")
    assert (image.rates, video.rates, audio.rates) == ((0.03, 0.1, 0.3), (0.1,), (0.5,))
    assert [str(s.views) for s in (image, video, audio)] == ["1x1", "4x3", "4x1"]
    assert [s.augments for s in (image, video, audio)] == [False, True, True]


def test_small_data_get_smaller_minibatches_and_steps_bring_their_warmup():
    assert settings_for("image", 300).batch_size == 300
    assert [settings_for("video", n).batch_size for n in (5, 100, 320, 5_000)] == [5, 8, 20, 64]
    short = settings_for("image", 300, ProbeOptions(steps=100, batch_size=32))
    assert (short.length, short.warmup, short.batch_size) == (Length(steps=100), Length(steps=8), 32)
    assert settings_for("video", 300, ProbeOptions(steps=120)).warmup == Length(steps=10)
    assert not settings_for("audio", 300, ProbeOptions(fast=True)).augments
    assert not settings_for("video", 300, ProbeOptions(augment=False)).augments


@pytest.mark.parametrize(
    "wrong", [{"rates": (0.1, 0.0)}, {"validation": 1.0}, {"neighbors": 0}, {"steps": -1}, {"size": -4}]
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProbeOptions(**wrong)
