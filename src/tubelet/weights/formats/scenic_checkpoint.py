"""A whole checkpoint of the released JAX code, as flax or NumPy wrote it: which model it is, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.models import (
    ASTConfig,
    MBTConfig,
    ModelConfig,
    MTVConfig,
    PolyViTConfig,
    TokenLearnerConfig,
    ViTConfig,
    ViViTConfig,
)
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.scenic import head, head_name, vit, vit_config
from tubelet.weights.formats.scenic_mbt import is_mbt, mbt, mbt_config
from tubelet.weights.formats.scenic_mtv import mtv, mtv_config
from tubelet.weights.formats.scenic_polyvit import ast, polyvit, polyvit_config, polyvit_head, polyvit_tasks
from tubelet.weights.formats.scenic_token_learner import learner_form, token_learner, token_learner_config
from tubelet.weights.formats.scenic_vivit import is_vivit, vivit, vivit_config
from tubelet.weights.formats.tree import Tree, foreign
from tubelet.weights.loaded import LoadedModel, filled_model

_AROUND = ("optimizer", "opt", "target", "params")
_EPIC = {"noun": 300, "verb": 97}

Tasks = dict[str, ClassCard]
State = dict[str, Tensor]


LOADS = "ViT, ViViT, MTV, TokenLearner, PolyViT and MBT of the released JAX code (flax's checkpoints, .npz files)"


def recognizes(checkpoint: Checkpoint) -> bool:
    names = ("embedding/kernel", "embedding_view0/kernel", "embedding_spectrogram/kernel")
    return not checkpoint.config and any(name.endswith(names) for name in checkpoint.tensors)


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViT, ViViT, MTV, TokenLearner, PolyViT, MBT or AST.

    Names and shapes tell which model it is; ``like`` says what they do not, such as the frames of a clip
    (:mod:`~tubelet.weights.formats.scenic_shapes`). The parameters are found below whatever a trainer put around them,
    and the state of its optimizer is left alone.

    A head is the task "label", its classes named by their numbers; of a video model's 397, the first 300 are
    EPIC-Kitchens' nouns, the others its verbs. A PolyViT has a task for each data set. MBT and AST are released for
    AudioSet, so that an example may have several classes.
    """
    arrays = _parameters(checkpoint.tensors)
    tree = Tree(arrays, checkpoint.origin)
    with foreign(tree.origin):
        config = config_of(tree, checkpoint.like)
        state = {f"encoder.{name}": x for name, x in encoder_state(tree, config).items()}
        tasks, heads = _heads(tree, arrays, config)
        dropped = tree.finish(may_drop=("bottleneck",) if isinstance(config, ASTConfig) else ())
    model = filled_model(config, tasks, state | heads, tree.origin)
    return LoadedModel(model, config, tasks, {"source": tree.origin}, dropped)


def _parameters(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters by their names in the model: without what a trainer's state has around and beside them."""
    for around in _AROUND:
        inside = {name.removeprefix(f"{around}/"): x for name, x in arrays.items() if name.startswith(f"{around}/")}
        arrays = inside or arrays
    return dict(arrays)


def config_of(tree: Tree, like: ModelConfig | None = None) -> ModelConfig:
    """Which model has these parameters."""
    if "embedding_view0/kernel" in tree:
        return mtv_config(tree, like)
    if "vit_encoder/encoder_norm/scale" in tree:
        return polyvit_config(tree, like)
    if is_mbt(tree, like):
        return mbt_config(tree, like)
    if learner_form(tree):
        return token_learner_config(tree, like)
    return vivit_config(tree, like) if is_vivit(tree, like) else vit_config(tree, like)


def encoder_state(tree: Tree, config: ModelConfig) -> State:
    """The parameters of the encoder by our names."""
    match config:
        case MTVConfig():
            return mtv(tree, config)
        case PolyViTConfig():
            return polyvit(tree, config)
        case MBTConfig():
            return mbt(tree, config)
        case ASTConfig():
            return ast(tree, config)
        case TokenLearnerConfig():
            return token_learner(tree, config)
        case ViViTConfig():
            return vivit(tree, config)
        case ViTConfig():
            return vit(tree, config)
        case _:
            raise TypeError(f"no released checkpoint has a {config.kind}")


def _heads(tree: Tree, arrays: Mapping[str, Tensor], config: ModelConfig) -> tuple[Tasks, State]:
    if isinstance(config, PolyViTConfig):
        return _polyvit_heads(tree, arrays, config)
    if (name := f"{head_name(tree)}/bias") not in tree:
        return {}, {}
    count, state = tree.shape(name, 1)[0], head(tree)
    if count == sum(_EPIC.values()) and isinstance(config, ViViTConfig | MTVConfig):
        parts = {name: x.split(list(_EPIC.values())) for name, x in state.items()}
        heads = {
            f"heads.label.heads.{label}.{name}": x
            for name, both in parts.items()
            for label, x in zip(_EPIC, both, strict=True)
        }
        return {"label": ClassCard(classes={label: _numbers(n) for label, n in _EPIC.items()})}, heads
    card = ClassCard(classes=_numbers(count), multilabel=isinstance(config, MBTConfig | ASTConfig))
    return {"label": card}, {f"heads.label.{name}": x for name, x in state.items()}


def _polyvit_heads(tree: Tree, arrays: Mapping[str, Tensor], config: PolyViTConfig) -> tuple[Tasks, State]:
    tasks, state = polyvit_tasks(tree, arrays, config), State()
    for task, (name, _) in tasks.items():
        state |= {f"heads.{task}.{part}": x for part, x in polyvit_head(tree, name).items()}
    return {task: card for task, (_, card) in tasks.items()}, state


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
