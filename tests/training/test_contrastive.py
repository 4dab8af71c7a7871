"""Contrastive learning: what counts as a negative, what is left out, and several ranks against one."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from goldens_contrastive import Vectors, losses
from tubelet.data.batch import Batch
from tubelet.training.contrastive import Contrastive, nce
from tubelet.training.ranks import Ranks


def vectors(clips: int = 6, captions: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"video_audio": (16,), "audio_video": (16,), "video_text": (8,), "text_video": (captions, 8)}
    return {name: torch.randn(clips, *shape) for name, shape in shapes.items()}


def words(clips: int = 6, captions: int = 3) -> Tensor:
    return torch.ones(clips, captions, 4, dtype=torch.long)


def test_both_directions_lie_in_one_denominator() -> None:
    """Written out with loops, as the formula reads."""
    given, t = vectors(), 0.07
    video = given["video_text"] / given["video_text"].norm(dim=-1, keepdim=True)
    text = given["text_video"] / given["text_video"].norm(dim=-1, keepdim=True)
    s = torch.einsum("ic,jlc->ijl", video, text).div(t).exp()
    both, once = [], []
    for i in range(6):
        own = s[i, i].sum()
        everything = s[i].sum() + s[:, i].sum()
        both.append(-(own / everything).log())
        once.append(-(own / (everything - own)).log())
    present = torch.ones(6, 3, dtype=torch.bool)
    for formula, expected in (("released", both), ("paper", once)):
        found, _ = nce(given["video_text"], given["text_video"], present, formula=formula)
        torch.testing.assert_close(found, torch.stack(expected))


def test_one_clip_alone_has_the_smallest_loss_there_is() -> None:
    given = {name: x[:1] for name, x in vectors(captions=1).items()}
    ((loss, _),) = losses(given, {"text": words(1, 1)}, 1, Contrastive())
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_what_a_clip_lacks_is_neither_query_nor_negative() -> None:
    given = vectors()
    masks = {"text_mask": torch.tensor([1.0, 1, 0, 1, 0, 1]), "audio_mask": torch.ones(6), "text": words()}
    ((loss, _),) = losses(given, masks, 1, Contrastive(video_audio=0))
    other = {**given, "text_video": given["text_video"].clone()}
    other["text_video"][[2, 4]] = 100.0
    ((same, _),) = losses(other, masks, 1, Contrastive(video_audio=0))
    torch.testing.assert_close(loss, same)


def test_empty_captions_count_or_do_not() -> None:
    given, ids = vectors(), words()
    ids[1, 1:] = 0
    ids[3] = 0
    changed = {**given, "text_video": given["text_video"].clone()}
    changed["text_video"][1, 1:] = changed["text_video"][3] = -5.0
    found = {
        kind: [losses(v, {"text": ids}, 1, Contrastive(empty_captions=kind))[0][0] for v in (given, changed)]
        for kind in ("positives", "ignored")
    }
    torch.testing.assert_close(*found["ignored"])
    assert abs(found["positives"][0] - found["positives"][1]) > 0.01


def test_a_minibatch_without_captions_learns_from_sound_alone() -> None:
    given = {name: x.requires_grad_() for name, x in vectors().items()}
    ((loss, metrics),) = losses(given, {"text_mask": torch.zeros(6), "text": words()}, 1, Contrastive())
    assert metrics["video_text_loss"] == 0
    loss.backward()
    assert given["text_video"].grad is not None
    assert not given["text_video"].grad.any()
    assert given["audio_video"].grad is not None
    assert given["audio_video"].grad.any()


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_number_of_ranks_changes_nothing(ranks: int) -> None:
    """Loss and gradients, though the ranks have unequal numbers of captions."""
    masks = {"text_mask": torch.tensor([1.0, 1, 1, 0, 0, 1]), "audio_mask": torch.tensor([0.0, 1, 1, 1, 1, 1])}
    found: list[tuple[Tensor, dict[str, Tensor | None]]] = []
    for count in (1, ranks):
        given = {name: x.requires_grad_() for name, x in vectors().items()}
        said = losses(given, {**masks, "text": words()}, count, Contrastive())
        mean = torch.stack([loss for loss, _ in said]).mean()
        mean.backward()
        found.append((mean, {name: x.grad for name, x in given.items()}))
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-5)


def test_each_rank_by_its_own_count_is_another_loss() -> None:
    masks = {"text_mask": torch.tensor([1.0, 1, 1, 0, 0, 1]), "text": words()}
    means = [
        torch.stack([loss for loss, _ in losses(vectors(), masks, 2, Contrastive(mean=mean))]).mean()
        for mean in ("batch", "rank")
    ]
    assert abs(means[0] - means[1]) > 1e-3


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="temperature"):
        Contrastive(temperature=0)
    with pytest.raises(ValueError, match="both 0"):
        Contrastive(video_audio=0, video_text=0)
    model, batch = Vectors({"video_audio": torch.randn(2, 4)}), Batch("t", {"video": torch.zeros(2)}, None, ["", ""])
    with pytest.raises(ValueError, match="nothing to compare"):
        Contrastive()(model, batch, Ranks(torch.device("cpu")))


_TWO = """
import sys, torch, torch.distributed as dist
from tubelet.nn.batch_norm import BatchNorm
from tubelet.training.ranks import init_distributed

torch.manual_seed(0)
x, weights = torch.randn(8, 5, dtype=torch.float64).float(), torch.randn(8, 5)
alone, whole = BatchNorm(5), x.clone().requires_grad_()
(alone(whole) * weights).sum().backward()
with init_distributed() as ranks:
    rows = slice(4 * ranks.rank, 4 * ranks.rank + 4)
    norm, part = BatchNorm(5), x[rows].clone().requires_grad_()
    (norm(part) * weights[rows]).sum().backward()
    torch.testing.assert_close(part.grad, whole.grad[rows], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(norm.mean, alone.mean)
    torch.testing.assert_close(norm.variance, alone.variance)
    grad = norm.weight.grad.clone()
    dist.all_reduce(grad)
    torch.testing.assert_close(grad, alone.weight.grad, atol=1e-6, rtol=1e-5)

    mine, all_ = x[rows].clone().requires_grad_(), x.clone().requires_grad_()
    scale = torch.arange(8.0)[:, None] * (ranks.rank + 1)
    (ranks.gather(mine) * scale).sum().backward()
    torch.testing.assert_close(mine.grad, (torch.arange(8.0)[rows, None] * 3).expand(4, 5))
"""


def test_ranks_gather_and_normalize_as_one() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*command, sys.executable, "-c", _TWO], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
