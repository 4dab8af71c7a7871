"""What comes out of a run: evaluations on the way, results at the end, and the model's folder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from tubelet.cards import TaskCard
from tubelet.data.manifest import Record
from tubelet.models import Model
from tubelet.training.average import MovingAverage, learned_tensors, set_weights
from tubelet.training.experiment import Experiment
from tubelet.training.logger import MetricLogger
from tubelet.training.loop import Update
from tubelet.training.ranks import Ranks
from tubelet.training.validation import Score
from tubelet.weights.folder import save_model

Evaluate = Callable[[Model, Experiment, Ranks], Mapping[str, Any]]
"""Scores a model on the tasks' test splits: {"tasks": {task: {"metrics": {...}, "views": ..., "coverage": ...}}}.

With several ranks all of them call it, and it must run the same number of forwards on each.
"""


Validate = Callable[[Model, Experiment, Mapping[str, Sequence[Record]], Ranks], Mapping[str, Any]]
"""Scores a model on examples by task, in the form of :data:`Evaluate`; called often, it may keep what it has read."""


class EvalAndExport:
    """The model as it is evaluated and exported: with the moving average of its weights, where there is one.

    ``values``: the tensors by parameter that it is then made of.
    """

    def __init__(
        self,
        model: Model,
        experiment: Experiment,
        average: MovingAverage | None,
        evaluate: Evaluate | None,
        ranks: Ranks,
    ) -> None:
        self.model, self.experiment, self.average, self.ranks = model, experiment, average, ranks
        self._evaluate = evaluate
        self.weights = learned_tensors(model)
        self.values = average.average if average else self.weights

    def validate(self, validate: Validate, examples: Mapping[str, Sequence[Record]]) -> Score:
        """How the model does on validation examples now."""
        with self._evaluating():
            tasks = validate(self.model, self.experiment, examples, self.ranks)["tasks"]
        heads = cards(self.experiment, {})
        metrics = {name: tasks[name]["metrics"][heads[name].metric] for name in examples}
        errors = [heads[n].standard_error(m, tasks[n]["coverage"]["scored"]) for n, m in metrics.items()]
        return Score.mean(list(metrics.values()), errors)

    def settle(self, values: Mapping[str, Tensor]) -> None:
        """End the training with these weights."""
        set_weights(self.weights, values)
        self.average = None

    def every(self, updates: int, total: int, records: MetricLogger) -> Callable[[Update], None]:
        """A hook that evaluates every so many updates, though not after the last; 0 never does."""

        def hook(update: Update) -> None:
            if updates and update.step % updates == 0 and update.step < total:
                with records.paused():
                    results, problem = self.evaluate()
                records.write({"step": update.step, "evaluation": results or problem})
                if problem:
                    records.say(f"the evaluation after update {update.step} failed: {problem}")

        return hook

    def evaluate(self) -> tuple[Mapping[str, Any], str]:
        """What the evaluation says now, and what kept it from saying anything; nothing without one.

        With several ranks an error is raised, as the others would wait for this one.
        """
        if self._evaluate is None:
            return {}, ""
        try:
            with self._evaluating():
                return self._evaluate(self.model, self.experiment, self.ranks), ""
        except Exception as error:
            if self.ranks.control is not None:
                raise
            return {}, f"{type(error).__name__}: {error}"

    @contextmanager
    def _evaluating(self) -> Generator[None]:
        self.model.eval()
        try:
            with self._final_weights():
                yield
        finally:
            self.model.train()

    def export(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write the model's folder, from the first rank; every rank must call this."""
        with self._final_weights():
            state = {name: whole(tensor).cpu().clone() for name, tensor in self.model.state_dict().items()}
        if self.ranks.is_main:
            encoder = self.experiment.model.build()
            described = cards(self.experiment, {})
            model = Model(encoder, {name: card.head(encoder) for name, card in described.items()})
            model.load_state_dict(state)
            save_model(folder, model, self.experiment.model, described, provenance)
        self.ranks.barrier()

    def _final_weights(self) -> AbstractContextManager[None]:
        return self.average.in_place() if self.average else nullcontext()


def cards(experiment: Experiment, results: Mapping[str, Any]) -> dict[str, TaskCard]:
    """The heads as a model folder describes them, with their metrics where ``results`` has them."""
    found = results.get("tasks", {})
    return {
        name: task.objective.card(task.inputs).measured(found.get(name, {})) for name, task in experiment.tasks.items()
    }


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over ranks; every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
