"""A model and the tasks that it learns."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tubelet.configs import ConfigError
from tubelet.data.batch import Batch
from tubelet.models import Model
from tubelet.nn.depth import StochasticDepth, set_stochastic_depth
from tubelet.training.experiment import Task
from tubelet.training.ranks import Ranks


class TrainingModule(nn.Module):
    """The module that the ranks share: takes a minibatch, returns its loss and what is logged of it."""

    def __init__(self, model: Model, tasks: Mapping[str, Task], ranks: Ranks) -> None:
        super().__init__()
        self.model, self.tasks, self.ranks = model, tasks, ranks
        self._task = ""
        _check_depth(model, tasks)
        # All tasks' rates are set here once, so that what drops anything later draws its random numbers from the first
        # step on; and kept, for looking through all modules again costs milliseconds.
        self._drops = [module for module in model.modules() if isinstance(module, StochasticDepth)]
        self._rates: dict[str, list[float]] = {}
        for name, task in tasks.items():
            set_stochastic_depth(model, task.stochastic_depth)
            self._rates[name] = [float(drop.rate) for drop in self._drops]

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if batch.task != self._task:
            for drop, rate in zip(self._drops, self._rates[batch.task], strict=True):
                drop.rate.fill_(rate)
            self._task = batch.task
        return self.tasks[batch.task].objective(self.model, batch, self.ranks)


def _check_depth(model: Model, tasks: Mapping[str, Task]) -> None:
    own = max((float(m.rate) for m in model.modules() if isinstance(m, StochasticDepth)), default=0.0)
    if own > 0 and all(own > task.stochastic_depth + 1e-6 for task in tasks.values()):
        raise ConfigError(
            f"model: its stochastic depth of {own:g} would be replaced by the tasks' own rates, which are lower; "
            "give the rate as stochastic_depth of each task"
        )
