"""The verdict: what a person is told about a result, the bad news first, and what to do about it."""

from __future__ import annotations

import pytest

from tubelet.cards import Answer
from tubelet.evaluation.predictions import Scored
from tubelet.reports.verdict import Evidence, Learning, Verdict, verdict


def task(model: float, baseline: float | None = None, scored: int = 100, expected: int = 100):
    found = {
        "inputs": ["image"],
        "metrics": {"top1": model},
        "coverage": {"scored": scored, "expected": expected},
    }
    if baseline is not None:
        found["baseline"] = {"name": "trees on colors", "metrics": {"top1": baseline}}
    return found


def example(label: str, answer: str) -> Scored:
    top = {"label": (Answer(answer, 0.9),)}
    return Scored(task="t", key="k", path="", start=0.0, end=None, labels={"label": (label,)}, top=top)


def of(examples, model=0.6, baseline=0.8, lines=(), **experiment):
    seen = task(model, baseline, scored=len(examples) or 100)
    learning = Learning.of(lines, "t", planned=100)
    return Verdict.of(seen, Evidence.of("t", seen, examples, {"chosen": {"seconds": 60.0}, **experiment}, learning))


@pytest.mark.parametrize(
    ("model", "baseline", "begins"),
    [
        (0.5, 0.8, "A simple classifier does better. Of 100 test files, the model names 50 right (50.0%)."),
        (0.5, 0.53, "The model is about as good as a simple classifier."),
        (0.9, 0.5, "The model beats the best simple classifier."),
    ],
)
def test_the_outcome_is_said_first(model, baseline, begins):
    said = verdict(task(model, baseline))
    assert str(said).startswith(begins)
    assert f"{baseline:.1%}" in str(said)


def test_without_a_baseline_nothing_is_compared():
    assert verdict(task(0.5)) is None
    assert str(Verdict.of(task(0.5))) == "The model names 50 of 100 test files right."


def test_a_model_that_knows_nothing_is_told_so_though_the_classifier_is_worse():
    told = of([example("a", "a")] * 60 + [example("b", "a")] * 40, baseline=0.4)
    assert told.title == "The model has not learned anything useful."
    assert "Answering 'a' every time reaches 60.0%." in told.text


def test_advice_names_the_pair_that_is_confused_most_with_counts():
    mistakes = [example("cat", "dog")] * 3 + [example("dog", "cat")] * 2 + [example("owl", "dog")]
    first = of([*mistakes, *[example("cat", "cat"), example("dog", "dog")] * 5]).advice()[0]
    assert "3 files of 'cat' were taken for 'dog', 2 the other way round" in first
    assert "owl" not in first


def test_a_class_that_is_never_named_right_and_too_few_files():
    examples = [example("a", "a")] * 10 + [example("b", "a"), example("b", "c")]
    note = "Class 'b': fewer than 5 training files, from which nothing reliable can be learned."
    advice = of(examples, notes=f"12 files.\n{note}").advice()
    assert any("'b' (0 of 2)" in sentence for sentence in advice)
    assert note in advice
    assert "12 files." not in advice


def scores(training: float, validation: list[float], kept: int = 100):
    lines = [{"step": 5 * i, "task": "t", "loss": 1.0, "top1": training} for i in range(1, 21)]
    n = len(validation)
    at = [100 * (i + 1) // n for i in range(n)]
    return lines + [
        {"step": step, "validation": value, "standard_error": 0.03, "kept": kept}
        for step, value in zip(at, validation, strict=True)
    ]


def test_what_is_learned_by_heart_needs_files_and_not_time():
    advice = " ".join(of([], lines=scores(0.99, [0.6] * 10)).advice())
    assert "99.0% of them were named right in training, but 60.0% of the test files" in advice
    assert "--minutes" not in advice


def test_test_files_that_are_unlike_the_training_files():
    advice = " ".join(of([], lines=scores(0.99, [0.95] * 10)).advice())
    assert "the model reaches 95.0% on the validation files" in advice
    assert "by heart" not in advice


def test_what_is_hardly_learned_needs_time():
    advice = " ".join(of([], lines=scores(0.5, [0.1 * i for i in range(1, 7)])).advice())
    assert "Give it more time: `--minutes 10`. Even of the training files" in advice
    assert "like the test files" not in advice


def test_a_curve_rises_only_where_it_ends_above_all_that_was_before():
    assert Learning.of(scores(0.5, [0.1 * i for i in range(1, 7)])).trend == "rising"
    assert Learning.of(scores(0.5, [0.2, 0.5, 0.1, 0.1, 0.3, 0.3])).trend == "flat"
    assert Learning.of(scores(0.5, [0.5, 0.6, 0.6, 0.6, 0.3, 0.3])).trend == "falling"


def test_weights_to_start_from_are_not_advised_to_who_has_some():
    assert any("--init" in sentence for sentence in of([]).advice())
    assert not any("--init" in sentence for sentence in of([], init=[{"source": "x"}]).advice())


def test_a_good_result_needs_nothing():
    assert of([example("a", "a"), example("b", "b")] * 50, model=1.0, baseline=0.8).advice() == ()


def test_nothing_is_left_to_do_where_both_are_always_right() -> None:
    assert of([example("a", "a"), example("b", "b")] * 50, model=1.0, baseline=1.0).advice() == ()
