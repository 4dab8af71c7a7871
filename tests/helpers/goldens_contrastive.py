"""Checks of VATT's losses and of its metrics of retrieval and of events in sound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Barrier, Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goldens_golden import Golden, close
from tubelet.data.batch import Batch
from tubelet.metrics import cosine, multi_label, retrieval, single_label
from tubelet.models import Model
from tubelet.models.model import Inputs, Logits
from tubelet.training.contrastive import Contrastive
from tubelet.training.ranks import Ranks


class Together:
    """Ranks that are threads: what each of them gathers is there for all, with its gradient."""

    def __init__(self, ranks: int) -> None:
        self.parts: list[Tensor] = [torch.empty(0)] * ranks
        self.barrier = Barrier(ranks)


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    together: Together = field(default_factory=lambda: Together(1))

    def gather(self, values: Tensor) -> Tensor:
        self.together.parts[self.rank] = values
        self.together.barrier.wait()
        whole = torch.cat(self.together.parts)
        self.together.barrier.wait()
        return whole


class Vectors(Model):
    """A model that returns the vectors it was given."""

    def __init__(self, vectors: dict[str, Tensor]) -> None:
        nn.Module.__init__(self)
        self.vectors = vectors

    def preprocess(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(inputs)

    def forward(self, inputs: Inputs, task: str = "", *, interpolate: bool = False) -> Logits:
        return self.vectors


def losses(
    vectors: dict[str, Tensor], inputs: dict[str, Tensor], replicas: int, objective: Contrastive
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The loss and the metrics of each replica, whose rows follow each other."""
    found: list[Any] = [None] * replicas
    together = Together(replicas)

    def run(rank: int) -> None:
        mine = {name: x.chunk(replicas)[rank] for name, x in vectors.items()}
        given = {name: x.chunk(replicas)[rank] for name, x in inputs.items()}
        batch = Batch("t", given, None, [""] * len(next(iter(mine.values()))))
        ranks = ThreadRanks(torch.device("cpu"), rank, replicas, together=together)
        found[rank] = objective(Vectors(mine), batch, ranks)

    threads = [Thread(target=run, args=(rank,)) for rank in range(replicas)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def check_asymmetric(golden: Golden) -> None:
    """Losses of each replica, and the gradients of their mean."""
    data = json.loads(golden.path.read_text())
    for case in data["cases"]:
        name, texts, replicas = case["case"], case["texts_per_clip"], case["replicas"]
        given = {key: torch.from_numpy(x) for key, x in golden.under(f"{name}/input/").items()}
        leaves = {key: x.clone().requires_grad_() for key, x in given.items() if not key.endswith("mask")}
        clips = len(leaves["video_toaud"])
        vectors = {
            "video_audio": leaves["video_toaud"],
            "audio_video": leaves["audio_tovid"],
            "video_text": leaves["video_totxt"],
            "text_video": leaves["text_tovid"].unflatten(0, (clips, texts)),
        }
        inputs = {key: x for key, x in given.items() if key.endswith("mask")}
        inputs["text"] = torch.ones(clips, texts, 1, dtype=torch.long)
        objective = Contrastive(mean="rank", temperature=data["temperature"])
        found = losses(vectors, inputs, replicas, objective)
        expected = golden.under(f"{name}/output/")
        for ours, theirs in (
            (torch.stack([loss for loss, _ in found]), "loss_per_replica"),
            (torch.stack([metrics["video_text_loss"] for _, metrics in found]), "milnce_vidtxt_per_replica"),
            (torch.stack([metrics["video_audio_loss"] for _, metrics in found]), "nce_vidaud_per_replica"),
        ):
            close(ours, expected[theirs], what=f"{name} {theirs}")
        mean = torch.stack([loss for loss, _ in found]).mean()
        close(mean, expected["loss_mean"], what=f"{name} mean")
        mean.backward()
        for key, gradient in golden.under(f"{name}/grad/").items():
            close(leaves[key].grad, gradient, what=f"{name} gradient of {key}")


def check_metrics(golden: Golden) -> None:
    """Ranks of similarities, of vectors averaged over windows, and the metrics of AudioSet."""
    for name in sorted({key.split("/")[0] for key in golden.arrays if key.startswith("sim")}):
        scores = golden.arrays[f"{name}/input"]
        _check_ranks(retrieval(scores, np.arange(len(scores))), golden.under(f"{name}/output/"), name)
    text, video = golden.arrays["windows/input/text"], golden.arrays["windows/input/video"]
    mean = video.reshape(len(text), -1, video.shape[1]).mean(1)
    similarities = cosine(text, mean)
    close(similarities, golden.arrays["windows/output/avg_embd/similarity"], what="similarity")
    _check_ranks(retrieval(similarities, np.arange(len(text))), golden.under("windows/output/avg_embd/"), "windows")
    found = multi_label(golden.arrays["audioset/input/pred"], golden.arrays["audioset/input/gt"])
    for ours, theirs in (("map", "mAP"), ("auc", "AUC"), ("d_prime", "d-prime")):
        close(np.float64(found[ours]), np.float64(golden.arrays[f"audioset/output/{theirs}"]), what=theirs)
    top = single_label(golden.arrays["acc/input/pred"], golden.arrays["acc/input/gt"][:, 0])
    for name in ("top1", "top5"):
        close(np.float64(top[name]), np.float64(golden.arrays[f"acc/output/{name}"]), what=name)


def _check_ranks(found: dict[str, float], expected: dict[str, np.ndarray], what: str) -> None:
    for ours, theirs in (("r1", "R1"), ("r5", "R5"), ("r10", "R10"), ("median_rank", "MedianRank")):
        close(np.float64(found[ours]), np.float64(expected[theirs]), what=f"{what} {theirs}")
