"""Our models and methods against reference vectors that the papers' released code computed, one test per file.

The folder is named by TUBELET_GOLDENS (default ../shared/goldens) and walked with its subfolders. What a file is about
is told by its ``module`` and ``config``, never by its name; a kind that is unknown here fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import goldens_initialization as initialization
import goldens_layers as layers
import goldens_mbt as mbt
import goldens_models as models
import goldens_mtv as mtv
import goldens_polyvit as polyvit
import goldens_token_learner as token_learner
import goldens_training as training
import goldens_vatt as vatt
from goldens_golden import Golden, describe, read

ROOT = Path(os.environ.get("TUBELET_GOLDENS") or Path(__file__).parents[2] / "shared" / "goldens")

Check = Callable[[Golden], None]

MBT = "scenic.projects.mbt.model.MBT"


def check_mbt(golden: Golden) -> None:
    """An MBT; one of sound alone is also an AST."""
    if golden.config["modality_fusion"] == ["spectrogram"]:
        polyvit.check_ast(golden)
    mbt.check_mbt(golden)


# By module; a name that ends with a full stop is that of all modules below it.
CHECKS: dict[str, Check] = {
    "scenic.projects.baselines.vit.ViT": models.check_vit,
    "scenic.projects.vivit.model.ViViT": models.check_vivit,
    "scenic.projects.vivit.model.SpaceTimeViViT": models.check_vivit,
    "ViViT Model 1": models.check_vivit_short,
    "flax MHDPA (self) / scenic MultiHeadAttention (cross, as in MTV CVA)": layers.check_attention,
    "flax Conv": layers.check_conv3d,
    "flax LayerNorm / nn.gelu": layers.check_layernorm_gelu,
    "scenic.projects.baselines.vit.Encoder1DBlock (used by MTV / TokenLearner)": layers.check_rescaled_depth,
    "scenic.projects.vivit.model.EncoderBlock": layers.check_unscaled_depth,
    "scenic.model_lib.layers.attention_layers": layers.check_sinusoids,
    "scenic.common_lib.video_utils": layers.check_uniform_frames,
    "ViViT": initialization.check_from_image,
    "SpaceTimeViViT": initialization.check_from_image,
    "scenic.projects.vivit.model_utils.init_embedding": initialization.check_inflation,
    "scenic.projects.vivit.model_utils.init_posemb": initialization.check_positions,
    "vivit.model_utils / mbt.model_utils": initialization.check_position_helpers,
    "scenic.projects.vivit.model_utils": initialization.check_from_scratch,
    "jax.grad through ViViT Model 3 zero init": initialization.check_dead_saddle,
    "scenic.model_lib.base_models.model_utils / vivit.model_utils": training.check_losses,
    "scenic.train_lib.lr_schedules": training.check_learning_rates,
    "scenic.dataset_lib.dataset_utils.mixup": training.check_mixup,
    "jax clip_grads, scenic optimizers": training.check_clip_and_momentum,
    "scenic.projects.polyvit.model.PolyVit": polyvit.check_polyvit,
    "scenic.projects.polyvit.model_utils.initialise_from_vit_train_state": polyvit.check_polyvit_from_image,
    "scenic.projects.polyvit.trainer (expressions copied)": polyvit.check_task_schedule,
    MBT: check_mbt,
    "scenic.projects.mbt.model_utils.initialise_from_train_state": mbt.check_from_image,
    "scenic.projects.mtv.model.MTV": mtv.check_mtv,
    "scenic.projects.mtv.model_utils.initialize_one_view_from_vit_parameters": mtv.check_from_images,
    "scenic.projects.mtv.model_utils": mtv.check_helpers,
    "scenic.projects.token_learner.model.TokenLearnerModule": token_learner.check_convolutions,
    "scenic.projects.token_learner.model.TokenLearnerModuleV11": token_learner.check_mlp,
    "scenic.projects.token_learner.model.TokenFuser": token_learner.check_fuser,
    "scenic.projects.token_learner.model.TokenLearnerViT": token_learner.check_model,
    "TokenLearnerViTRepresentation": token_learner.check_representation,
    "vatt.video.ViTx3D": vatt.check_sense,
    "vatt.audio.": vatt.check_sense,
    "vatt.text.": vatt.check_text,
    "vatt.unified.": vatt.check_unified,
    "vatt.positions": vatt.check_positions,
    "vatt.relative_buckets": vatt.check_buckets,
    "vatt.heads.": vatt.check_head,
    "vatt.VideoModel": vatt.check_video_classifier,
    "vatt.AudioModel": vatt.check_audio_classifier,
    "vatt.EndToEnd": vatt.check_end_to_end,
}

# Systems that are still to be built, by the beginning of the module's name: strict expected failures.
LATER = {
    f"vatt.{kind}": "VATT is not built yet"
    for kind in (
        "EndToEnd",
        "data_ops",
        "losses",
        "lr_schedules",
        "metrics",
    )
}


def reason_to_wait(path: Path) -> str | None:
    """Why a golden's system cannot be checked yet; None where it can."""
    module, _ = describe(path)
    return next((LATER[start] for start in LATER if module.startswith(start)), None)


def check(path: Path) -> None:
    if reason := reason_to_wait(path):
        raise NotImplementedError(reason)
    golden = read(path)
    below = (kind for kind in CHECKS if kind.endswith(".") and golden.module.startswith(kind))
    kind = golden.module if golden.module in CHECKS else next(below, None)
    if kind is None:
        pytest.fail(f"{path}: no check for goldens of {golden.module!r}; add one to CHECKS, or its system to LATER")
    CHECKS[kind](golden)


def case(path: Path):
    reason = reason_to_wait(path)
    marks = [pytest.mark.xfail(raises=NotImplementedError, strict=True, reason=reason)] if reason else []
    return pytest.param(path, id=path.stem, marks=marks)


def one_per_file(paths: list[Path]) -> Callable[[Path], None]:
    @pytest.mark.parametrize("path", [case(path) for path in sorted(paths)])
    def test(path: Path) -> None:
        check(path)

    return test


# One test function per folder, because two folders may hold files of the same name.
FOLDERS = sorted({path.parent for path in ROOT.rglob("*.json")})
for _folder in FOLDERS:
    _name = "_".join(["test_golden", *_folder.relative_to(ROOT).parts])
    globals()[_name] = one_per_file(list(_folder.glob("*.json")))


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no folder {ROOT}: set TUBELET_GOLDENS to one with the goldens")
def test_goldens_are_there() -> None:
    assert FOLDERS, f"{ROOT} holds no goldens"
