"""Goldens of VATT: towers of video, sound and text, the modality-agnostic variant, heads, and the whole model."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from bundle_files import write_bundle
from goldens_golden import Golden, close
from goldens_models import INNER_TOLERANCE
from tubelet.metrics import softmax
from tubelet.models import Encoder
from tubelet.models.vatt import LinearWords, Sense, VattConfig, Words
from tubelet.nn.attention import capture_attention
from tubelet.nn.axial_positions import resize_table
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.common_space import CommonSpace
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead
from tubelet.nn.joint_space import JointSpace
from tubelet.nn.relative_bias import relative_buckets
from tubelet.specs import SpectrogramSpec, TextSpec, VideoSpec, WaveformSpec
from tubelet.training.classification import balanced_cross_entropy, softmax_cross_entropy
from tubelet.weights.folder import load_model
from tubelet.weights.formats import scenic, vatt
from tubelet.weights.loaded import load_state

# The released code solves for its splines in float32, which is ill-conditioned: the goldens' own notes put the error at
# up to 1e-2, and it grows with the length of the table. Those of few rows are met within the usual tolerance.
SPLINE_TOLERANCE, FEW = 5e-3, 8
# Batch norms over three clips enlarge what float32 rounds off on either side, and gradients go through all of them.
SMALL_BATCH_TOLERANCE, GRADIENT_TOLERANCE = 5e-5, 1e-4


def check_positions(golden: Golden) -> None:
    for name, expected in golden.under("").items():
        if match := re.fullmatch(r"(\d+)to(\d+)/output_float64", name):
            table = golden.tensor(f"{match[1]}to{match[2]}/input").double()
            close(resize_table(table, int(match[2])), expected, 1e-6, what=name)


def check_buckets(golden: Golden) -> None:
    for name, expected in golden.under("").items():
        if match := re.fullmatch(r"nb(\d+)_md(\d+)_(bi|uni)/output/bucket", name):
            distance = golden.tensor(name.replace("output/bucket", "input/relative_position"))
            ours = relative_buckets(distance, int(match[1]), int(match[2]), match[3] == "bi")
            np.testing.assert_array_equal(ours, expected, name)


@torch.no_grad()
def check_sense(golden: Golden) -> None:
    """A tower of video, of a waveform or of a spectrogram: at test, in training with DropToken, on other sizes."""
    parameters = golden.under("param/")
    read = of_spectrogram if "spectrum_to_patch/kernel" in parameters else named
    inputs = {n: read(x) for n, x in golden.under("input/").items() if not n.startswith("droptoken")}
    main, name = min(inputs, key=len), "video" if "voxel_to_patch/kernel" in parameters else "audio"
    config = config_of(golden, {name: inputs[main]})
    encoder = loaded(golden, config, {name: ""})
    features = capture(encoder, golden, name, inputs[main])
    close(features.pooled, golden.arrays["output/aggregated"], INNER_TOLERANCE, what="aggregated")
    for key in ("tokens", "tokens_3d", "tokens_2d"):
        if key in (outputs := golden.under("output/")):
            close(features.tokens.reshape(outputs[key].shape), outputs[key], INNER_TOLERANCE, what=key)
    dropped = [n for n in golden.under("input/") if n.startswith("droptoken")]
    if dropped:
        kept = with_drop_token(golden, encoder, config)
        with drawing(golden.tensor(f"input/{dropped[0]}")):
            features = kept.train()({name: inputs[main]})
        close(features.pooled, golden.arrays["output/droptoken_aggregated"], INNER_TOLERANCE, what="DropToken")
        close(features.tokens, golden.arrays["output/droptoken_tokens"], INNER_TOLERANCE, what="DropToken's tokens")
    for other, x in inputs.items():
        if other == main:
            continue
        kind = other.removeprefix(f"{main}_").replace("image_tiled", "image")
        features = encoder({name: x}, interpolate=True)
        longest = max(len(x) for n, x in golden.under("param/").items() if n.endswith("position_embeddings/embeddings"))
        tolerance = INNER_TOLERANCE if kind == "ragged" or longest <= FEW else SPLINE_TOLERANCE
        close(features.pooled, golden.arrays[f"output/{kind}_aggregated"], tolerance, what=other)
        if f"output/{kind}_tokens_3d" in golden.arrays:
            expected = golden.arrays[f"output/{kind}_tokens_3d"]
            close(features.tokens.reshape(expected.shape), expected, tolerance, what=f"{other}: tokens")


def named(x: np.ndarray) -> Tensor:
    """A video (B, T, H, W, C) with its channels before its pixels, a waveform (B, S, 1) without its last axis."""
    tensor = torch.from_numpy(x)
    return rearrange(tensor, "B T H W C -> B T C H W") if x.ndim == 5 else tensor[..., 0] if x.ndim == 3 else tensor


def of_spectrogram(x: np.ndarray) -> Tensor:
    """(B, T, M), without an axis of one channel."""
    return torch.from_numpy(x).flatten(2)


def capture(encoder: Encoder, golden: Golden, name: str, x: Tensor) -> Features:
    """The features, the attention maps and the tokens on the way compared with those of the golden."""
    seen: dict[str, Tensor] = {}
    tower = encoder.get_submodule(f"modalities.{name}")
    for key, layer in {"patch_embeddings": "tokenizer", "after_pos": "position_dropout"}.items():
        tower.get_submodule(layer).register_forward_hook(lambda m, i, out, key=key: seen.update({key: out}))
    with capture_attention(encoder) as maps:
        features = encoder({name: x})
    for key, found in seen.items():
        if f"output/{key}" in golden.arrays:
            expected = golden.arrays[f"output/{key}"]
            close(found.reshape(expected.shape), expected, what=key)
    for i, weights in enumerate(maps.values()):
        if f"output/attention_{i}" in golden.arrays:
            close(weights, golden.arrays[f"output/attention_{i}"], what=f"attention {i}")
    return features


@contextmanager
def drawing(*orders: Tensor) -> Generator[None]:
    """DropToken draws these permutations, one after the other."""
    draws = iter(orders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.randperm", lambda *_, **__: next(draws).long())
        yield
    assert next(draws, None) is None, "a permutation for each modality"


def with_drop_token(golden: Golden, encoder: Encoder, config: VattConfig) -> Encoder:
    """The same weights with DropToken, and without dropout of any other kind."""
    share = golden.config.get("patch_sampling_rate", 0.5)  # where nothing says it, half
    other = replace(config.without_regularizers(), kept=share).build()
    other.load_state_dict(encoder.state_dict())
    return other


def loaded(golden: Golden, config: VattConfig, theirs: Mapping[str, str]) -> Encoder:
    """The encoder with the golden's weights; ``theirs`` is what stands before the released names of each modality."""
    encoder, tree = config.build().eval(), golden.tree("param/")
    state: dict[str, Tensor] = {}
    for name, prefix in theirs.items():
        state |= vatt.tower(tree, config, name, prefix)
    load_state(encoder, state, tree.origin)
    return encoder


# Configs -------------------------------------------------------------------------------------------------------------


def config_of(golden: Golden, inputs: Mapping[str, Tensor]) -> VattConfig:
    """The config of one tower."""
    ((name, x),) = inputs.items()
    c = golden.config
    sense = sense_of(c, name, x)
    return VattConfig(modalities={name: sense}, projection=c["d_post_proj"] if c.get("post_projection") else 0)


def sense_of(c: dict[str, Any], name: str, x: Tensor) -> Sense:
    if name == "video":
        t, side = c["temporal_patch_size"], c["spatial_patch_size"]
        frames, height, width = (
            c["max_temporal_buckets"] * t,
            c["max_vertical_buckets"] * side,
            c["max_horizontal_buckets"] * side,
        )
        spec = VideoSpec(frames=frames, size=(height, width), short_side=min(height, width))
        return Sense(spec=spec, patch=(t, side, side), backbone=backbone(c))
    samples = c["temporal_patch_size"] * c["max_temporal_buckets"]
    if x.ndim == 2:
        return Sense(spec=WaveformSpec(samples=samples), patch=(1, 1, c["temporal_patch_size"]), backbone=backbone(c))
    bins = c["spectoral_patch_size"] * c["max_spectoral_buckets"]
    spec = SpectrogramSpec(frames=samples, bins=bins, channels=1, fft=4096)
    return Sense(spec=spec, patch=(1, c["temporal_patch_size"], c["spectoral_patch_size"]), backbone=backbone(c))


def backbone(c: dict[str, Any]) -> TransformerConfig:
    return TransformerConfig(
        width=c["d_model"],
        depth=c["num_layers"],
        heads=c["num_heads"],
        mlp=c["d_ff"],
        head_width=c["d_kv"],
        dropout=0.1,
        attention_dropout=0.1,
        gelu="exact",
        norm_eps=c.get("layer_norm_epsilon", 1e-6),
    )


def words_of(c: dict[str, Any], words: int, captions: int = 1) -> Words:
    return Words(
        spec=TextSpec(captions=captions, words=words, ids=c["vocab_size"]),
        backbone=backbone(c),
        vectors=c["d_embedding"],
        buckets=c["num_relative_buckets"],
        farthest=c["max_relative_distance"],
    )


# Text, the modality-agnostic variant ---------------------------------------------------------------------------------


@torch.no_grad()
def check_text(golden: Golden) -> None:
    """T5's encoder as released, or MMV's linear map; padding, captions of one word and of none."""
    c, ids = golden.config, golden.tensor("input/ids").long()[:, None]
    if "base_lm/conv1d/kernel" in golden.under("param/"):
        width = golden.arrays["param/base_lm/conv1d/bias"].shape[0]
        spec = TextSpec(captions=1, words=ids.shape[-1], ids=c["vocab_size"])
        modality = LinearWords(spec=spec, width=width, vectors=c["d_embedding"])
    else:
        modality = words_of(c, ids.shape[-1])
    encoder = loaded(golden, VattConfig(modalities={"text": modality}), {"text": ""})
    tower = encoder.get_submodule("modalities.text")
    with capture_attention(encoder) as maps:
        features = encoder({"text": ids})
    outputs = golden.under("output/")
    close(features.pooled, outputs["sentence"], INNER_TOLERANCE, what="sentence")
    close(features.tokens, outputs["words"], INNER_TOLERANCE, what="words")
    for i, weights in enumerate(maps.values()):
        close(weights, outputs[f"attention_{i}"], what=f"attention {i}")
    if "relative_bias" in outputs:
        close(tower.bias(ids.shape[-1] + 1), outputs["relative_bias"], what="relative bias")


@torch.no_grad()
def check_unified(golden: Golden) -> None:
    inputs = agnostic_inputs(golden)
    config = agnostic(golden.config, inputs)
    tree = golden.tree("param/")
    encoder = config.build().eval()
    load_state(encoder, vatt.unified(tree, config), tree.origin)
    assert tree.finish() == (), "the golden's parameters are all used"
    check_parts(golden, "output/", encoder(inputs))
    kept = with_drop_token(golden, encoder, config).train()
    with drawing(golden.tensor("input/droptoken_perm_video"), golden.tensor("input/droptoken_perm_audio")):
        check_parts(golden, "output/droptoken/", kept(inputs))


def agnostic_inputs(golden: Golden) -> dict[str, Tensor]:
    video, sound, ids = (named(golden.arrays[f"input/{name}"]) for name in ("video", "audio", "ids"))
    return {"video": video, "audio": sound, "text": ids.long().unflatten(0, (len(video), -1))}


def check_parts(golden: Golden, prefix: str, features: Features) -> None:
    for name, part in features.parts.items():
        for ours, key in {"pooled": "features_pooled", "tokens": "features"}.items():
            if f"{prefix}{name}/{key}" in golden.arrays:
                expected = golden.arrays[f"{prefix}{name}/{key}"]
                found = getattr(part, ours).reshape(expected.shape)
                close(found, expected, INNER_TOLERANCE, what=f"{prefix}{name}/{key}")


def agnostic(c: dict[str, Any], inputs: Mapping[str, Tensor]) -> VattConfig:
    t, side, samples = c["vid_temporal_patch_size"], c["vid_spatial_patch_size"], c["aud_temporal_patch_size"]
    size = (c["max_vid_spatial_buckets"] * side,) * 2
    _, captions, words = inputs["text"].shape
    spec = TextSpec(captions=captions, words=c.get("max_txt_temporal_buckets", words), ids=c["txt_vocab_size"])
    video = VideoSpec(frames=c["max_vid_temporal_buckets"] * t, size=size, short_side=size[0])
    sound = WaveformSpec(samples=samples * c["max_aud_temporal_buckets"])
    return VattConfig(
        modalities={
            "video": Sense(spec=video, patch=(t, side, side), backbone=backbone(c)),
            "audio": Sense(spec=sound, patch=(1, 1, samples), backbone=backbone(c)),
            "text": Words(spec=spec, backbone=backbone(c), vectors=c["txt_embedding_dim"]),
        },
        projection=c["d_post_proj"],
    )


# Heads ---------------------------------------------------------------------------------------------------------------


def check_head(golden: Golden) -> None:
    """The common spaces, at test and in training; the running statistics after one step."""
    tree = golden.tree("param/")
    pooled = {name: golden.tensor(f"input/{name}") for name in ("video", "audio", "text")}
    captions = len(pooled["text"]) // len(pooled["video"])
    pooled["text"] = pooled["text"].unflatten(0, (-1, captions))
    widths = {name: x.shape[-1] for name, x in pooled.items()}
    video, text = (golden.config[f"{kind}_kwargs"]["d_model"] for kind in ("vid_to_aud_txt", "txt_to_vid_aud"))
    joint = "vid_to_vat/dense/kernel" in golden.under("param/")
    head = (JointSpace(widths, video) if joint else CommonSpace(widths, video, text)).eval()
    load_state(head, vatt.joint_space(tree) if joint else vatt.common_space(tree), tree.origin)
    assert tree.finish() == (), "the golden's parameters are all used"
    some = next(iter(pooled.values()))
    features = Features(some[:, None], some, parts={name: Features(x[:, None], x) for name, x in pooled.items()})
    check_vectors(golden, "output/eval/", head(features))
    check_vectors(golden, "output/train/", head.train()(features))
    check_statistics(golden, "output/after_one_train_step/", head)


VECTORS = {
    "video/toaud": "video_audio",
    "video/totxt": "video_text",
    "audio/tovid": "audio_video",
    "text/tovid": "text_video",
}


def check_vectors(
    golden: Golden, prefix: str, vectors: Mapping[str, Tensor], tolerance: float = INNER_TOLERANCE
) -> None:
    for theirs, ours in VECTORS.items():
        expected = golden.arrays[f"{prefix}{theirs}"]
        close(vectors[ours].reshape(expected.shape), expected, tolerance, what=f"{prefix}{theirs}")


def check_statistics(golden: Golden, prefix: str, head: CommonSpace | JointSpace) -> None:
    norms = {"video_in_norm": "hid_to_va/pre_bn", "video_audio_norm": "hid_to_va/bn", "video_text_norm": "va_to_vat/bn"}
    if isinstance(head, JointSpace):
        norms = {"norms.video": "vid_to_vat/bn", "norms.audio": "aud_to_vat/bn", "norms.text": "txt_to_vat/bn"}
    for ours, theirs in norms.items():
        for number, released in {"mean": "moving_mean", "variance": "moving_variance"}.items():
            close(head.get_buffer(f"{ours}.{number}"), golden.arrays[f"{prefix}{theirs}/{released}"], what=theirs)


# Fine-tuning ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_video_classifier(golden: Golden) -> None:
    """Logits averaged over the views of a video, then the softmax; the loss of smoothed labels."""
    logits, _ = view_logits(golden, "video")
    close(softmax(logits.numpy()).astype(np.float32), golden.arrays["output/probabilities"], what="probabilities")
    loss = softmax_cross_entropy(logits, golden.tensor("input/labels_smoothed"))
    close(loss, golden.arrays["output/loss"], what="loss")


@torch.no_grad()
def check_audio_classifier(golden: Golden) -> None:
    """Logits averaged over windows, then the sigmoid; the class-balanced loss; where the biases start."""
    logits, _ = view_logits(golden, "audio")
    close(logits.sigmoid(), golden.arrays["output/probabilities"], what="probabilities")
    for kind in ("hard", "soft"):
        loss = balanced_cross_entropy(logits, golden.tensor(f"input/labels_{kind}"))
        close(loss, golden.arrays[f"output/loss_{kind}"], what=f"loss of {kind} labels")
    classes = golden.config["num_classes"]
    head = LinearHead(4, classes, bias=-math.log(classes - 1))
    close(head.projection.bias, golden.arrays["output/cls_bias_at_init"], what="bias at the start")


def check_checkpoint(golden: Golden, config: VattConfig, encoder: Encoder) -> None:
    """TensorFlow's checkpoint of the golden's parameters is read as the same model, bit for bit."""
    parameters = golden.under("param/")
    slots = {f"{name}/.OPTIMIZER_SLOT/optimizer/m": -x for name, x in parameters.items()}
    arrays = {**parameters, **slots, "save_counter": np.int64(3)}
    with TemporaryDirectory() as folder:
        path = write_bundle(Path(folder) / "ckpt-500000", arrays, "model/layer_with_weights-0/")
        loaded = load_model(path, config)
    assert loaded.config == config
    found = loaded.model.encoder.state_dict()
    for name, x in encoder.state_dict().items():
        assert torch.equal(found[name], x), name
    assert len(loaded.model.heads) == 1


def view_logits(golden: Golden, name: str) -> tuple[Tensor, Encoder]:
    """The mean of the logits of each example's views, which follow each other."""
    x = named(golden.arrays[f"input/{name}"])
    config = config_of(golden, {name: x})
    encoder, tree = loaded(golden, config, {name: "_base/"}), golden.tree("param/")
    check_checkpoint(golden, config, encoder)
    head = LinearHead(encoder.width, golden.config["num_classes"])
    load_state(head, vatt.classifier(tree), tree.origin)
    logits = head(encoder({name: x})).unflatten(0, (-1, golden.config["num_test_samples"])).mean(1)
    close(logits, golden.arrays["output/logits"], what="logits")
    return logits, encoder


# The whole model -----------------------------------------------------------------------------------------------------

HEADS = "_head_layer/_bridge_heads/0/"


def check_end_to_end(golden: Golden) -> None:
    """Towers, common spaces and loss, at test and in training; the gradient of every parameter."""
    inputs = agnostic_inputs(golden)
    config = whole_config(golden.config, inputs)
    tree = golden.tree("param/")
    encoder = config.build().eval()
    load_state(encoder, vatt.vatt(tree, config), tree.origin)
    check_checkpoint(golden, config, encoder)
    vectors = golden.under("output/eval/")
    head = CommonSpace(encoder.widths, vectors["audio/tovid"].shape[1], vectors["text/tovid"].shape[1]).eval()
    load_state(head, vatt.common_space(tree, HEADS), tree.origin)
    assert tree.finish() == (), "the golden's parameters are all used"
    with torch.no_grad():
        check_pass(golden, "output/eval/", encoder, head, inputs)
    kept = with_drop_token(golden, encoder, config).train()
    with drawing(golden.tensor("input/droptoken_perm_video"), golden.tensor("input/droptoken_perm_audio")):
        loss = check_pass(golden, "output/train/", kept, head.train(), inputs)
    check_statistics(golden, f"output/after_train_step/{HEADS}", head)
    loss.backward()
    check_gradients(golden, config, kept, head)


def whole_config(c: dict[str, Any], inputs: Mapping[str, Tensor]) -> VattConfig:
    """A tower for each modality, or one transformer for all; the goldens learn the word vectors, too."""
    if "video" in c and "audio" in c:
        _, captions, words = inputs["text"].shape
        text = words_of(c["text"], words, captions)
        modalities = {name: sense_of(c[name], name, inputs[name]) for name in ("video", "audio")}
        return VattConfig(modalities={**modalities, "text": replace(text, learned=True)})
    config = agnostic(c if "d_model" in c else next(iter(c.values())), inputs)
    text = replace(config.modalities["text"], learned=True)
    return replace(config, modalities={**config.modalities, "text": text})


def check_pass(
    golden: Golden, prefix: str, encoder: Encoder, head: CommonSpace, inputs: Mapping[str, Tensor]
) -> Tensor:
    """The pooled features, the vectors and the losses of one forward pass; its loss."""
    from goldens_contrastive import losses
    from tubelet.training.contrastive import Contrastive

    features = encoder(inputs)
    check_parts(golden, prefix, features)
    vectors = head(features)
    check_vectors(golden, prefix, vectors, SMALL_BATCH_TOLERANCE if head.training else INNER_TOLERANCE)
    masks = {f"{name}_mask": golden.tensor(f"input/{name}_mask") for name in ("text", "audio")}
    ((loss, found),) = losses(vectors, {**masks, "text": inputs["text"]}, 1, Contrastive())
    released = golden.under(f"{prefix}loss/bridge_losses/")
    close(loss, released["total_loss"], INNER_TOLERANCE, what=f"{prefix}loss")
    for name, key in {"video_text_loss": "vidtxt_loss", "video_audio_loss": "vidaud_loss"}.items():
        close(found[name], released[f"asymmetric_nce/{key}"], INNER_TOLERANCE, what=f"{prefix}{name}")
    return loss


def check_gradients(golden: Golden, config: VattConfig, encoder: Encoder, head: CommonSpace) -> None:
    """Those of all parameters, by our names. What the released code does not learn has none there."""
    gradients = golden.under("grad/")
    unknown = {name: np.full_like(x, np.nan) for name, x in golden.under("param/").items()}
    tree = scenic.as_tree({**unknown, **gradients}, golden.path.name)
    expected = {**vatt.vatt(tree, config), **vatt.common_space(tree, HEADS)}
    ours = {**dict(encoder.named_parameters()), **dict(head.named_parameters())}
    for name, parameter in ours.items():
        assert parameter.grad is not None, name
        if expected[name].isnan().all():
            assert name.endswith("words.table"), f"{name} has a gradient in the golden"
            continue
        close(parameter.grad, expected[name], GRADIENT_TOLERANCE, what=f"gradient of {name}")
