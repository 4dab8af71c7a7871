"""Goldens of PolyViT (models, starting from an image ViT, task sampling) and of AST, MBT's model of sound alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from goldens_checkpoint import check_checkpoint, loaded_from
from goldens_golden import Golden, close
from goldens_initialization import KERNELS, positions, resized
from goldens_models import INNER_TOLERANCE, check_logits, pool
from tubelet.models import ASTConfig, Modality, Model, PolyViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead, build_head
from tubelet.nn.positions import LearnedPositions
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec
from tubelet.training.schedules import Weighted, learning_rate
from tubelet.weights.formats.scenic_polyvit import ast, polyvit, polyvit_head
from tubelet.weights.formats.tree import Tree
from tubelet.weights.loaded import load_state
from tubelet.weights.transfer import Init, initialize_from

TOKENIZERS = {"image": "tokenizer2d", "video": "tokenizer3d", "audio": "tokenizer_spec"}


@torch.no_grad()
def check_polyvit(golden: Golden) -> None:
    """Every task of a PolyViT.

    A defect that is not copied: where its body is frozen, the released model returns nothing, its heads being an
    alternative to freezing. Ours freezes by leaving parameters out of the training.
    """
    c, tree = golden.config, golden.tree("param/")
    inputs = task_inputs(golden)
    config = polyvit_config(
        c["modalities"],
        backbone=TransformerConfig(
            width=c["modalities"]["hidden_size"],
            depth=c["encoder"]["num_layers"],
            heads=c["encoder"]["num_heads"],
            mlp=c["encoder"]["mlp_dim"],
        ),
        adaptors=c["encoder"]["num_tokenizer_layers"],
        classifier="token" if c["modalities"]["add_cls_token"] else "gap",
        shapes={modality: x.shape for modality, x in inputs.values()},
    )
    encoder = config.build().eval()
    load_state(encoder, polyvit(tree, config), tree.origin)
    check_checkpoint(golden.under("param/"), config, encoder.state_dict())
    features = {name: encoder({modality: channels_first(x)}) for name, (modality, x) in inputs.items()}
    for name, x in features.items():
        if c["encoder"].get("freeze_body"):
            assert f"output/{name}/logits" not in golden.arrays
        elif golden.under(f"output/{name}/"):
            check_task(golden, tree, name, x, config)
    for name, expected in golden.under("output/fewshot_on_").items():
        how = c["heads"]["fewshot"]["pooling_type"]
        close(pooled(features[name], how, config), expected, what=f"fewshot on {name}")
    assert tree.finish() == (), "the golden's parameters are all used"


def check_task(golden: Golden, tree: Tree, name: str, features: Features, config: PolyViTConfig) -> None:
    kinds = {"label": "classification_head_", "bow": "bag_of_words_head_"}
    kind = next(kind for kind in kinds if name in golden.config["heads"].get(kind, {}))
    c, arrays = golden.config["heads"][kind][name], golden.under(f"output/{name}/")
    state = polyvit_head(tree, kinds[kind] + name)
    head = released_head(config.backbone.width, state)
    hidden = c["hid_sizes"] if isinstance(c["hid_sizes"], list) else [c["hid_sizes"]]
    assert [layer.out_features for layer in getattr(head, "hidden", [])] == hidden
    bottleneck = pooled(features, c["classifier"], config)
    logits = head(Features(features.tokens, bottleneck))
    close(logits, arrays["logits"], what=f"logits of {name}")
    for part in ("vit_encoder", "vit_encoder/encoder_norm"):
        if f"inter/{part}" in arrays:
            close(sequence(features, config), arrays[f"inter/{part}"], INNER_TOLERANCE, what=f"{name}: {part}")
    if f"inter/{kinds[kind]}{name}/bottleneck" in arrays:
        close(bottleneck, arrays[f"inter/{kinds[kind]}{name}/bottleneck"], INNER_TOLERANCE, what=f"{name}: pooled")


def released_head(width: int, state: dict[str, Tensor]) -> LinearHead:
    weights = [state[f"hidden.{i}.weight"] for i in range((len(state) - 2) // 2)]
    head = build_head(width, len(state["projection.bias"]), hidden=[len(weight) for weight in weights])
    load_state(head, state, "head")
    return head


def sequence(features: Features, config: PolyViTConfig) -> Tensor:
    """All tokens, the class token first where there is one."""
    if config.pool == "mean":
        return features.tokens
    return torch.cat([features.pooled[:, None], features.tokens], dim=1)


def pooled(features: Features, classifier: str, config: PolyViTConfig) -> Tensor:
    """What a released head sees. It averages over the class token too where other tasks have one; ours never does."""
    if pool(classifier) == config.pool and classifier in ("token", "gap"):
        return features.pooled
    how = {"token": lambda x: x[:, 0], "0": lambda x: x[:, 0], "gap": lambda x: x.mean(1)}
    how |= {"gmp": lambda x: x.amax(1), "gsp": lambda x: x.sum(1)}
    return how[classifier](sequence(features, config))


def task_inputs(golden: Golden) -> dict[str, tuple[str, Tensor]]:
    """The modality and the input of every task."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name in golden.under("input/"):  # such as "img(image,label)"
        task, modality = re.fullmatch(r"(\w+)\((\w+),\w+\)", name).groups()
        found[task] = modality, golden.tensor(f"input/{name}")
    return found


def channels_first(x: Tensor) -> Tensor:
    """(B, [T,] H, W, C) as (B, [T,] C, H, W); also a spectrogram whose three channels differ: it goes as an image."""
    return x.movedim(-1, -3)


def polyvit_config(
    modalities: dict[str, Any],
    *,
    backbone: TransformerConfig,
    adaptors: int,
    classifier: str,
    shapes: dict[str, torch.Size],
) -> PolyViTConfig:
    """``shapes``: of an input of every modality; those without an input take no part."""
    made: dict[str, Modality] = {}
    for name, shape in shapes.items():
        h, w, *t = modalities[name]["patches"]["size"]
        made[name] = Modality(spec=spec_of(name, tuple(shape[1:])), patch=(t[0] if t else 1, h, w))
    return PolyViTConfig(backbone=backbone, modalities=made, adaptor_depth=adaptors, pool=pool(classifier))


def spec_of(name: str, shape: tuple[int, ...]) -> InputSpec:
    *frames, height, width, channels = shape
    if name == "audio":
        return SpectrogramSpec(frames=height, bins=width, channels=channels)
    scale = (0.5,) * channels
    size = {"size": (height, width), "short_side": min(height, width), "mean": scale, "std": scale}
    return VideoSpec(frames=frames[0], **size) if frames else ImageSpec(**size)


@torch.no_grad()
def check_polyvit_from_image(golden: Golden) -> None:
    """All three tokenizers, the adaptors and the shared layers, started from an image ViT with the released choices.

    The released code restores the embedding of images and of sound even where told to leave the embedding: an option
    that it reads for videos only.
    """
    c, released = golden.config["model"], golden.config["init_from"]
    fresh, expected = golden.tree("fresh/"), golden.tree("initialised/")
    inputs = named_inputs(golden)
    shapes = {modality: x.shape for modality, x in inputs.values()}
    config = polyvit_config(
        c["modalities"],
        backbone=sizes(fresh, c["modalities"]),
        adaptors=c["modalities"]["num_layers"] or 0,
        classifier="token" if f"tokenizer/{TOKENIZERS[next(iter(shapes))]}/cls" in fresh else "gap",
        shapes=shapes,
    )
    model = Model(config.build(), {}).eval()
    load_state(model.encoder, polyvit(fresh, config), fresh.origin)
    left = [] if released.get("restore_positional_embedding", True) else ["*.positions.table"]
    if "video" in shapes and not released.get("restore_input_embedding", True):
        left.append("modalities.video.tokenizer.*")
    method = c["modalities"].get("video", {}).get("kernel_init_method") or "central_frame_initializer"
    source = loaded_from(golden.under("restored/"))
    initialize_from(source, model, config, Init(source="golden", kernel=KERNELS[method], fresh=tuple(left)))

    state, table = model.encoder.state_dict(), "modalities.video.positions.table"
    for name, value in polyvit(expected, config).items():
        if name == table and not left and not check_video_positions(golden, source.model, config, state[name]):
            state[name].copy_(value)
        close(state[name], value, tolerance=1e-6, what=name)
    for name, (modality, x) in inputs.items():
        head = released_head(config.backbone.width, polyvit_head(expected, f"classification_head_{name}"))
        logits = head(model.encoder({modality: channels_first(x)}))
        close(logits, golden.arrays[f"output/{name}"], what=f"logits of {name}")


def check_video_positions(golden: Golden, source: Model, config: PolyViTConfig, ours: Tensor) -> bool:
    """Ours is the image's table resized to a frame and repeated; whether the released table means the same.

    A defect that is not copied: the released code guesses grids from lengths. "tile" does not resize, "resize" takes
    all frames for one square picture, and a table of equal length is copied whatever its grid.
    """
    t, h, w = model_grid = config.build().modalities["video"].positions.grid
    given = source.encoder.encoder.positions
    frame = resized(positions(given.grid, given.special, given.table), per_frame(model_grid, config))
    special = int(config.pool == "token")
    close(ours, torch.cat([frame[:special], frame[special:].repeat(t, 1)]), tolerance=1e-6, what="video positions")
    how = golden.config["init_from"]["positional_embed_size_change"]
    as_meant = {"tile": (1, h, w) == given.grid, "resize": t == 1, "resize_tile": h == w}[how]
    return as_meant and (math.prod(given.grid) != t * h * w or given.grid == model_grid)


def per_frame(grid: tuple[int, int, int], config: PolyViTConfig) -> LearnedPositions:
    return LearnedPositions((1, *grid[1:]), config.backbone.width, special=int(config.pool == "token"))


def named_inputs(golden: Golden) -> dict[str, tuple[str, Tensor]]:
    """The modality and the input of every dataset: videos have frames, sounds the shape that the config says."""
    audio = golden.config["model"]["modalities"].get("audio")
    sound = (audio["spec_shape"][0] * audio["num_spec_frames"], audio["spec_shape"][1]) if audio else ()
    found: dict[str, tuple[str, Tensor]] = {}
    for name in golden.under("input/"):
        x = golden.tensor(f"input/{name}")
        modality = "video" if x.ndim == 5 else "audio" if tuple(x.shape[1:3]) == sound else "image"
        found[name] = modality, x
    return found


def sizes(tree: Tree, modalities: dict[str, Any]) -> TransformerConfig:
    """The size of the whole transformer: the adaptors, and the shared blocks, which are numbered after them."""
    first = depth = modalities["num_layers"] or 0
    while f"vit_encoder/encoderblock_{depth}/LayerNorm_0/scale" in tree:
        depth += 1
    assert depth > 0, f"{first} adaptors and no shared block"
    return TransformerConfig(
        width=modalities["hidden_size"], depth=depth, heads=modalities["num_heads"], mlp=modalities["mlp_dim"]
    )


def check_task_schedule(golden: Golden) -> None:
    """Given the released permutation, our plan: every task exactly its own number of steps, each at its own rate.

    Two defects that are not copied. The released trainer counts its steps from 1 into an array counted from 0, so that
    the first minibatch of the permutation is never used and the last one twice; and its rate at that last step is the
    full one again, the cosine having wrapped. Ours takes every element once, the first at rate 0.
    """
    lengths, coefficients = golden.config["batch_sampling_strategy_steps"], golden.config["lr_coefs"]
    total, warmup = golden.config["lr"]["total_steps"], golden.config["lr"]["warmup_steps"]
    names = list(lengths)
    plan = [names[i] for i in golden.arrays["output/perm"]]
    assert Counter(plan) == Counter(Weighted().plan(lengths, seed=0)) == Counter(lengths)

    (released,) = golden.under("output/dataset_at_step").values()
    assert [names[i] for i in released] == [*plan[1:], plan[-1]]
    (rates,) = golden.under("output/lr_at_global_step").values()
    base = golden.config["lr"]["base_learning_rate"]
    for step in range(1, total):
        ours = learning_rate(step, base * coefficients[plan[step]], warmup, total)
        assert abs(ours - rates[step - 1]) < 5e-7 * base, step
    assert learning_rate(total, base, warmup, total) == 0.0
    assert abs(rates[-1] - base * coefficients[plan[-1]]) < 5e-7 * base, "the released rate at the last step"


def check_ast(golden: Golden) -> None:
    """MBT with sound alone: an AST, and a bottleneck that nothing uses. Its three channels differ, as an image's do."""
    c, tree = golden.config, golden.tree("param/")
    x = golden.tensor("input/spectrogram")
    config = ASTConfig(
        backbone=TransformerConfig(
            width=c["hidden_size"], depth=c["num_layers"], heads=c["num_heads"], mlp=c["mlp_dim"]
        ),
        patch=tuple(c["patches"][:2]),
        audio=SpectrogramSpec(frames=x.shape[1], bins=x.shape[2], channels=x.shape[3]),
        pool=pool(c["classifier"]),
    )
    encoder = config.build()
    load_state(encoder, ast(tree, config), tree.origin)
    check_checkpoint(golden.under("param/"), config, encoder.state_dict())
    if "bottleneck" in tree:
        tree.take("bottleneck")
    check_logits(golden, tree, encoder, {"audio": channels_first(x)}, c["classifier"])
