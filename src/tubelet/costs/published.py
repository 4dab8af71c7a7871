"""The papers' printed costs beside ours."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, cast

from tubelet.costs.cost import parameters, work
from tubelet.data.views import Views
from tubelet.models import ModelConfig, model_config
from tubelet.models.mtv import CrossViewFusion, MTVConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.models.tubevit import TubeViTConfig, scaled
from tubelet.models.vatt import LinearWords, Sense, VattConfig, Words
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig

Quantities = dict[str, float]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A printed row: ``published``, ``ours`` and ``ratio`` (ours / published) by quantity.

    Quantities: ``gflops`` (1e9 multiply-adds, one view), ``params_m`` (1e6), ``tokens``, or those of a modality, such
    as ``tokens of video``; ``tflops of 4x3 views`` (1e12 multiply-adds, all of these views); ``gflops_tf`` and
    ``tflops_tf_12_views``, in VATT's own count (see :func:`_tensorflow`).
    ``multiply_adds_g``: ours of all matrix products, one view, where work was counted. ``reason``: why ours must differ
    from the published figure, if it must.
    """

    source: str
    model: str
    input: str
    published: Quantities
    ours: Quantities
    ratio: Quantities
    multiply_adds_g: float | None = None
    reason: str = ""


def _named(name: str) -> Callable[[Row], Quantities]:
    return lambda row: _count(model_config(name, **_clip(row)), row["classes"])


def _average_pool(row: Row) -> Quantities:
    config = cast("ViViTConfig", model_config("vivit-b/16x2-fe", **_clip(row)))
    return _count(replace(config, temporal_depth=0), row["classes"])


def _clip(row: Row) -> dict[str, int]:
    frames, height, _ = (int(n) for n in row["input"].split("x"))
    return {"frames": frames, "size": height}


def _count(config: ModelConfig, classes: int, *inputs: str) -> Quantities:
    counted = work(config, classes, inputs)
    return {
        "gflops": counted.multiply_adds / 1e9,
        "params_m": counted.parameters / 1e6,
        "tokens": float(counted.tokens),
    }


# The classes of PolyViT's nine tasks (Table 6): ImageNet-1k, CIFAR 100 and 10, Pets, RESISC45; Kinetics 400, Moments in
# Time; Mini-AudioSet, VGGSound. Linear heads of several tasks have together the parameters of one with all classes.
_CLASSES = {"image": (1000, 100, 10, 37, 45), "video": (400, 339), "audio": (527, 309)}


def _one_for_all(name: str, adaptors: int = 0) -> Callable[[Row], Quantities]:
    return lambda _: _sum((_polyvit(name, *_CLASSES, adaptors=adaptors), sum(sum(n) for n in _CLASSES.values())))


def _one_per_modality(name: str) -> Callable[[Row], Quantities]:
    return lambda _: _sum(*((_polyvit(name, modality), sum(n)) for modality, n in _CLASSES.items()))


def _one_per_task(name: str) -> Callable[[Row], Quantities]:
    return lambda _: _sum(*((_polyvit(name, modality), n) for modality, tasks in _CLASSES.items() for n in tasks))


def _one_modality(name: str, modality: str, *classes: int) -> Callable[[Row], Quantities]:
    return lambda _: _sum((_polyvit(name, modality), sum(classes)))


def _polyvit(name: str, *modalities: str, adaptors: int = 0) -> PolyViTConfig:
    config = cast("PolyViTConfig", model_config(name))
    return replace(config, modalities={m: config.modalities[m] for m in modalities}, adaptor_depth=adaptors)


def _sum(*models: tuple[PolyViTConfig, int]) -> Quantities:
    """The parameters of several models together, each with so many classes."""
    return {"params_m": sum(parameters(config, classes) for config, classes in models) / 1e6}


def _sequence_lengths(_: Row) -> Quantities:
    config = model_config("polyvit-b/16x4")
    return {f"tokens of {' '.join(names)}": float(work(config, 1, names).tokens) for names in config.input_sets}


def _tubes(_: Row) -> Quantities:
    config = cast("TubeViTConfig", model_config("tubevit-b/16"))
    return {"tokens": float(sum(math.prod(tube.grid(config.video.extent)) for tube in (*config.tubes, config.patch)))}


def _tubevit(row: Row) -> Quantities:
    return _count(model_config("tubevit-b/16", **_clip(row)), row["classes"], "video")


def _tubevit_of(size: str) -> Callable[[Row], Quantities]:
    """Huge is created of an image ViT and the tubes of Base."""

    def count(row: Row) -> Quantities:
        config = cast("TubeViTConfig", model_config(f"tubevit-{size}/{14 if size == 'h' else 16}", **_clip(row)))
        if size == "h":
            config = scaled(config, cast("TubeViTConfig", model_config("tubevit-b/16", **_clip(row))))
        return _count(config, row["classes"], "video")

    return count


def _all_views(count: Callable[[Row], Quantities]) -> Callable[[Row], Quantities]:
    """The slides and TubeViT's Table 1 print TFLOPs of all views together."""

    def counted(row: Row) -> Quantities:
        one = count(row)
        return one | {f"tflops of {v}": one["gflops"] * _number(v) / 1000 for v in row["tflops"]}

    return counted


def _number(views: str) -> int:
    """12, of "4x3 views"."""
    return len(Views.parse(views.removesuffix(" views")))


def _mtv(name: str, global_mlp: int = 3072) -> Callable[[Row], Quantities]:
    """Cross-view attention has the width of the stream that it reads from, which fits the printed GFLOPs."""

    def count(row: Row) -> Quantities:
        config = cast("MTVConfig", model_config(name, **_clip(row)))
        if isinstance(config.fusion, CrossViewFusion):
            config = replace(config, fusion=replace(config.fusion, width="source"))
        config = replace(config, global_encoder=replace(config.global_encoder, mlp=global_mlp))
        return _count(config, row["classes"])

    return count


def _ensemble(*counts: Callable[[Row], Quantities]) -> Callable[[Row], Quantities]:
    def count(row: Row) -> Quantities:
        models = [count(row) for count in counts]
        return {name: sum(model[name] for model in models) for name in models[0]}

    return count


def _vit_by_mean(name: str) -> Callable[[Row], Quantities]:
    return lambda row: _count(
        replace(cast("ViTConfig", model_config(name, size=_clip(row)["size"])), pool="mean"), row["classes"]
    )


def _token_learner(name: str) -> Callable[[Row], Quantities]:
    return lambda row: _count(model_config(name, size=_clip(row)["size"]), row["classes"])


def _image_vit(name: str) -> Callable[[Row], Quantities]:
    """TubeViT's Table 11 prints the image models' parameters, with ImageNet's head."""
    return lambda _: {"params_m": parameters(model_config(name), 1000) / 1e6}


def _vatt(name: str, *inputs: str) -> Callable[[Row], Quantities]:
    """One tower, or several at once; the share of tokens that DropToken keeps stands in the row's name."""

    def count(row: Row) -> Quantities:
        frames, height, _ = (int(n) for n in row["input"].split(",")[0].split("x"))
        kept = float(match[1]) / 100 if (match := re.search(r"(\d+) % of tokens kept", row["model"])) else 1.0
        config = cast("VattConfig", model_config(name, frames=frames, size=height)).with_only(inputs)
        config = replace(config, kept=kept)
        counted = _count(config, row["classes"] or 1, *inputs)
        operations = _tensorflow(config, counted["gflops"])
        return {**counted, "gflops_tf": operations, "tflops_tf_12_views": operations * 12 / 1000}

    return count


def _tensorflow(config: VattConfig, gflops: float) -> float:
    """VATT's figures are TensorFlow's: two operations for a multiply-add, and the products of queries and keys, which
    it computes as an einsum, are not counted."""
    scores = 0
    for modality in config.modalities.values():
        match modality:
            case Sense():
                times, tokens = 1, int(config.kept * math.prod(modality.grid))
            case _:
                times, tokens = modality.spec.shape
        if not isinstance(modality, LinearWords):
            scores += times * modality.backbone.depth * (tokens + 1) ** 2 * modality.backbone.inner
    return 2 * (gflops - scores / 1e9)


def _vatt_size(name: str, modality: str) -> Callable[[Row], Quantities]:
    """Table 7 prints the sizes of towers, those of video with Kinetics 600's head; word vectors are not counted."""

    def count(row: Row) -> Quantities:
        config = cast("VattConfig", model_config(name)).with_only([modality])
        words = config.modalities[modality]
        frozen = words.spec.ids * words.vectors if isinstance(words, Words) else 0
        return {"params_m": (parameters(config, row["classes"]) - frozen) / 1e6}

    return count


# How the library counts a printed row, by its (source, model).
_COUNTS: Mapping[tuple[str, str], Callable[[Row], Quantities]] = {
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 1 spatio-temporal"): _named("vivit-b/16x2"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 2 factorized encoder, L_t=4"): _named("vivit-b/16x2-fe"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 3 factorized self-attention"): _named("vivit-b/16x2-fsa"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 4 factorized dot-product"): _named("vivit-b/16x2-fdp"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 2 average-pool baseline, L_t=0"): _average_pool,
    ("ViViT Tab. 5", "ViViT-L/16x2 Model 1"): _named("vivit-l/16x2"),
    ("slides, MTV", "MTV B/4"): _mtv("mtv-b/4"),
    ("slides, MTV", "MTV S/8"): _mtv("mtv-s/8"),
    ("slides, MTV", "MTV Ti/16"): _mtv("mtv-ti/16", 768),
    ("slides, MTV", "MTV B/4+S/8+Ti/16 ensemble"): _ensemble(_mtv("mtv-b/4"), _mtv("mtv-s/8"), _mtv("mtv-ti/16", 768)),
    ("slides, MTV", "MTV B/4+S/8+Ti/16 late fusion"): _mtv("mtv-b/4+s/8+ti/16-late"),
    ("slides, MTV", "MTV B/4+S/8+Ti/16 MLP fusion"): _mtv("mtv-b/4+s/8+ti/16-mlp"),
    ("slides, MTV", "MTV B/4+S/8+Ti/16 bottleneck"): _mtv("mtv-b/4+s/8+ti/16-bottleneck"),
    ("slides, MTV", "MTV B/4+S/8+Ti/16 CVA"): _mtv("mtv-b/4+s/8+ti/16"),
    ("slides, MTV", "MTV B/8+Ti/2"): _mtv("mtv-b/8+ti/2"),
    ("slides, MTV", "MTV B/2+Ti/8"): _mtv("mtv-b/2+ti/8"),
    ("slides, MTV", "MTV B/8+S/4+Ti/2"): _mtv("mtv-b/8+s/4+ti/2"),
    ("slides, MTV", "MTV B/2+S/4+Ti/8"): _mtv("mtv-b/2+s/4+ti/8"),
    ("slides, MTV", "MTV B/4+B/8+B/16"): _mtv("mtv-b/4+b/8+b/16"),
    ("slides, MTV", "MTV B/2+B/8"): _mtv("mtv-b/2+b/8"),
    ("slides, MTV", "MTV B/2+B/4+B/8"): _mtv("mtv-b/2+b/4+b/8"),
    **{
        ("slides, MTV, state of the art", model): _all_views(count)
        for model, count in {
            "ViViT-L FE, 128 frames": _named("vivit-l/16x2-fe"),
            "ViViT-H": _named("vivit-h/14x2"),
            "TokenLearner-L/10": _named("vivit-l/10x2-tl16@18+11"),
            "MTV-B": _mtv("mtv-b/2+s/4+ti/8"),
            "MTV-B (320p)": _mtv("mtv-b/2+s/4+ti/8"),
            "MTV-L": _mtv("mtv-l/2+b/4+s/8+ti/16"),
            "MTV-H": _mtv("mtv-h/2+b/4+s/8+ti/16"),
            "MTV-H (280p)": _mtv("mtv-h/2+b/4+s/8+ti/16"),
        }.items()
    },
    ("slides, TokenLearner", "ViT-L/16"): _vit_by_mean("vit-l/16"),
    ("slides, TokenLearner", "ViT-L/16, 16 tokens learned at layer 12"): _token_learner("vit-l/16-tl16@12"),
    ("slides, TokenLearner", "ViT-L/16, 24+11 layers, 16 tokens learned at layer 12"): _token_learner(
        "vit-l/16-tl16@12+11"
    ),
    ("slides, TokenLearner", "ViT-L/14, 24+11 layers, 16 tokens learned at layer 18"): _token_learner(
        "vit-l/14-tl16@18+11"
    ),
    ("slides, TokenLearner", "TokenLearner L/10 (24+11)"): _token_learner("vit-l/10-tl16@12+11"),
    ("TubeViT Tab. 1", "TubeViT-B"): _all_views(_tubevit_of("b")),
    ("TubeViT Tab. 1", "TubeViT-L"): _all_views(_tubevit_of("l")),
    ("TubeViT Tab. 1", "TubeViT-H (created)"): _all_views(_tubevit_of("h")),
    ("TubeViT Sec. 4.1", "TubeViT, 4 tubes"): _tubes,
    ("TubeViT Tab. 7b", "TubeViT-B, 4 tubes, one view"): _tubevit,
    ("TubeViT Tab. 11", "ViT-Base"): _image_vit("vit-b/16"),
    ("TubeViT Tab. 11", "ViT-Large"): _image_vit("vit-l/16"),
    ("TubeViT Tab. 11", "ViT-Huge"): _image_vit("vit-h/14"),
    ("PolyViT Tab. 2", "9 single-task Base baselines, total"): _one_per_task("polyvit-b/16x4"),
    ("PolyViT Tab. 2", "PolyViT-Base, one model per modality, total of 3"): _one_per_modality("polyvit-b/16x4"),
    ("PolyViT Tab. 2", "PolyViT-Base, 9 tasks, L_adapt=0"): _one_for_all("polyvit-b/16x4"),
    ("PolyViT Tab. 2", "PolyViT-Base, 9 tasks, L_adapt=L/2"): _one_for_all("polyvit-b/16x4", adaptors=6),
    ("PolyViT Tab. 8", "9 single-task Large baselines, total"): _one_per_task("polyvit-l/16x4"),
    ("PolyViT Tab. 8", "PolyViT-Large, one model per modality, total of 3"): _one_per_modality("polyvit-l/16x4"),
    ("PolyViT Tab. 8", "PolyViT-Large, 9 tasks, L_adapt=0"): _one_for_all("polyvit-l/16x4"),
    ("PolyViT Tab. 8", "PolyViT-Large, 9 tasks, L_adapt=L/2"): _one_for_all("polyvit-l/16x4", adaptors=12),
    ("PolyViT Tab. 5", "PolyViT-L/16x2, K400+K600+MiT"): _one_modality("polyvit-l/16x2", "video", 400, 600, 339),
    ("PolyViT Tab. 4", "PolyViT-Base, AS-500k+VGGSound"): _one_modality("polyvit-b/16x4", "audio", 527, 309),
    ("VATT Tab. 1", "VATT-Base"): _vatt("vatt-bbs", "video"),
    ("VATT Tab. 1", "VATT-Medium"): _vatt("vatt-mbs", "video"),
    ("VATT Tab. 1", "VATT-Large"): _vatt("vatt-lbs", "video"),
    ("VATT Tab. 1", "VATT-MA-Medium"): _vatt("vatt-ma-medium", "video"),
    **{
        ("VATT Tab. 5", f"VATT-MBS, {kept} % of tokens kept"): _vatt("vatt-mbs", "video", "audio", "text")
        for kept in (25, 50, 75, 100)
    },
    **{
        ("VATT Tab. 6", f"VATT-Medium, {kept} % of tokens kept"): _vatt("vatt-mbs", "video")
        for kept in (25, 50, 75, 100)
    },
    ("VATT Tab. 7", "Small, text"): _vatt_size("vatt-bbs", "text"),
    ("VATT Tab. 7", "Base"): _vatt_size("vatt-bbs", "video"),
    ("VATT Tab. 7", "Medium"): _vatt_size("vatt-mbs", "video"),
    ("VATT Tab. 7", "Large"): _vatt_size("vatt-lbs", "video"),
    ("PolyViT Tab. 7", "sequence lengths, patches of 16x16 and 4x16x16"): _sequence_lengths,
}


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every printed row, with ours beside it."""
    text = files("tubelet.costs").joinpath("published_costs.json").read_text(encoding="utf-8")
    rows = list[PublishedRow]()
    for row in json.loads(text)["rows"]:
        published, counted = _published(row), _COUNTS[row["source"], row["model"]](row)
        ours = {name: counted[name] for name in published}
        rows.append(
            PublishedRow(
                source=row["source"],
                model=row["model"],
                input=row["input"],
                published=published,
                ours=ours,
                ratio={name: ours[name] / published[name] for name in published},
                multiply_adds_g=counted.get("gflops"),
                reason=row.get("reason", ""),
            )
        )
    return tuple(rows)


def _published(row: Row) -> Quantities:
    """The row's figures; sequence lengths are by modality."""
    found: Quantities = {}
    for name in ("gflops", "tflops", "gflops_tf", "tflops_tf_12_views", "params_m", "tokens"):
        if isinstance(value := row.get(name), dict):
            found |= {f"{name} of {modality}": float(n) for modality, n in cast("dict[str, float]", value).items()}
        elif value is not None:
            found[name] = float(value)
    return found
