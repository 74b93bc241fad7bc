"""Shared by DINO, iBOT and DINOv2, in which a student matches the output of its own slow copy.

The head of such a method is a perceptron to a bottleneck and, on unit vectors there, a last layer
of K unit prototypes; its outputs are cosines.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops, ranges
from sslax.methods import schedules
from sslax.methods.common import Augmentation, at_step, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, Positive, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


class Head(NamedTuple):
    """A head.

    Attributes:
        projector: features to the bottleneck.
        prototypes: bottleneck to K logits; the last layer.
    """

    projector: Model
    prototypes: Model


def cross_view_loss(student: Array, teacher: Array, **knobs: Any) -> Array:
    """Mean of `losses.distillation_cross_entropy` over all pairs of two different views.

    Args:
        student: logits `[B, V + L, K]`, of the views in the teacher's order, and of further ones.
        teacher: logits `[B, V, K]`.
        **knobs: of that loss.
    """
    pairs = losses.distillation_cross_entropy(student[:, None], teacher[:, :, None], **knobs)
    others = ~jnp.eye(teacher.shape[1], student.shape[1], dtype=bool)
    return jnp.sum(jnp.mean(pairs, axis=0) * others) / jnp.sum(others)


def entropy(targets: Array) -> Array:
    """Mean entropy of distributions `[..., K]`: 0 in a collapse to one output, log K to all."""
    return jnp.mean(jnp.sum(jax.scipy.special.entr(targets), axis=-1))


def masked_distillation(
    encoder: Model,
    head: Head,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    patch_head: Head | None = None,
    teacher: Model | None = None,
    patch: int,
    student_temperature: float,
    teacher_temperature: float | Schedule,
    momentum: float | Schedule,
    center_momentum: float,
    freeze_steps: int,
    mask_ratio: tuple[float, float],
    mask_probability: float,
    smallest_block: int | None = None,
    center_on_masked: bool = False,
    iterations: int = 0,
    koleo_weight: float = 0.0,
    koleo_group: int = 0,
) -> Method:
    """The class tokens of crops match across crops, and masked patches match within a large one.

    `loss = cross_view_loss(class tokens) + mean over large crops of
    losses.masked_patch_distillation(patches) + koleo_weight * sum over large crops of
    losses.koleo(class tokens before the head)`

    The student sees large crops with masked patches, and small ones; the teacher whole large ones.

    Args:
        encoder: a vision transformer with a mask token, of {'image', 'masked'} to an `Encoding`
            with the class token as features and 'tokens'.
        head: of class tokens.
        augmentation: as in `dino`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        patch_head: of patches; None for that of class tokens.
        teacher: as in `dino`.
        patch: side of the patches in pixels.
        student_temperature: as in `dino`, likewise `teacher_temperature`, `momentum`,
            `center_momentum` and `freeze_steps`.
        mask_ratio: as in `augment.blockwise_masking`, likewise `mask_probability` and
            `smallest_block`.
        center_on_masked: the center of patches is the mean of masked ones rather than of all.
        iterations: of Sinkhorn-Knopp in place of centering; 0 for centering.
        koleo_weight: 0 for none.
        koleo_group: images among which neighbors are searched.
    """
    separate = patch_head is not None
    of_patches = ("patch_projector", "patch_prototypes") if separate else head._fields
    parts = {"encoder": encoder, **head._asdict()}
    if patch_head is not None:
        parts |= dict(zip(of_patches, patch_head))
    network = Network(parts, momentum={**parts, "encoder": teacher or encoder})

    def add_masks(rng: Array, batch: Batch) -> Batch:
        views_rng, masks_rng = jax.random.split(rng)
        batch = augmentation(views_rng, batch)
        _, views, height, width, _ = batch["views"].shape

        def mask(key: Array) -> Array:
            return augment.blockwise_masking(
                key,
                (height // patch, width // patch),
                ratio=mask_ratio,
                probability=mask_probability,
                smallest=smallest_block,
            )

        keys = augment.batch_keys(masks_rng, batch)
        masked = jax.vmap(lambda key: jax.vmap(mask)(jax.random.split(key, views)))(keys)
        return {**batch, "masked": masked}

    def chosen(batch: Batch) -> Array:
        """`[B·V, M, T]`: which patch is the m-th masked one of a crop; none for m above theirs."""
        masked = merge_views(batch["masked"])
        slots = max(int(mask_ratio[1] * masked.shape[1]), 1)
        rank = jnp.cumsum(masked, axis=1) - 1
        return (rank[:, None] == jnp.arange(slots)[:, None]) & masked[:, None]

    def bottlenecks(net: Parts, batch: Batch) -> tuple[Array, ...]:
        """Features `[B, V, D]`, bottlenecks of student `[B, V + L, d]` and teacher `[B, V, d]`, and
        of patches: the student's masked ones `[B, V, M, d]` and all of the teacher's."""
        student, encodings = [], []
        for views, encoding in common.encode_crops(net, batch):
            student.append(split_views(net.projector(encoding.features), views))
            encodings.append(encoding)
        whole, views = net.momentum.encoder(merge_views(batch["views"])), batch["views"].shape[1]
        # A product with a one-hot matrix: the derivative of a gather would lose the sharding.
        one_hot = chosen(batch).astype(jnp.float32)
        masked = jnp.matmul(one_hot, encodings[0].stages["tokens"][:, 1:], precision="highest")
        ours = _on_tokens(getattr(net, of_patches[0]), masked)
        theirs = whole.stages["tokens"][:, 1:]
        theirs = _on_tokens(getattr(net.momentum, of_patches[0]), theirs)
        targets = net.momentum.projector(whole.features)
        features = split_views(encodings[0].features, views)
        patches = (split_views(tokens, views) for tokens in (ours, theirs))
        return features, jnp.concatenate(student, axis=1), split_views(targets, views), *patches

    def logits(net: Parts, *bottlenecks: Array) -> tuple[Array, ...]:
        """Logits of the bottlenecks of student and teacher, and of their patches."""
        last, of_patch = net.prototypes, getattr(net, of_patches[1])
        copies = net.momentum.prototypes, getattr(net.momentum, of_patches[1])
        layers = last, copies[0], of_patch, copies[1]
        return tuple(_on_tokens(layer, z) for layer, z in zip(layers, bottlenecks))

    def forward(net: Parts, batch: Batch) -> tuple[Array, ...]:
        _, *vectors = bottlenecks(net, batch)
        return logits(net, *vectors)

    def init(rng: Array, batch: Batch) -> Variables:
        batch = common.with_keys(rng, batch, teacher is not None)
        variables = network.init(forward, rng, batch)
        if iterations:
            return variables
        (student, _, patches, _), _ = network.apply(forward, variables, batch)
        centers = {"center": student, "patch_center": patches}
        centers = {name: jnp.zeros(outputs.shape[-1]) for name, outputs in centers.items()}
        return variables._replace(extra={**variables.extra, **centers})

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[tuple[Array, ...], Variables]:
        batch = common.with_keys(rng, batch, teacher is not None)
        return network.apply(bottlenecks, variables, batch, train=True)

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, *vectors = outputs
        last = {name: variables.params[name] for name in ("prototypes", of_patches[1])}
        last = common.freeze_until(last, step, freeze_steps)
        variables = variables._replace(params={**variables.params, **last})
        found, variables = network.apply(logits, variables, *vectors, train=True)
        student, target, *of_views = found
        patches, patch_target = (merge_views(x) for x in of_views)
        one_hot = chosen(batch)
        real, index = jnp.any(one_hot, axis=2), jnp.argmax(one_hot, axis=2)
        masked_target = jnp.take_along_axis(patch_target, index[..., None], axis=1)
        sharpness = at_step(teacher_temperature, step)
        temperatures = {
            "student_temperature": student_temperature,
            "teacher_temperature": sharpness,
        }
        center, patch_center = (variables.extra.get(n) for n in ("center", "patch_center"))
        if iterations:
            flat = jax.lax.stop_gradient(merge_views(target)) / sharpness
            balanced = ops.sinkhorn(flat, epsilon=1.0, iterations=iterations)
            targets = split_views(balanced, target.shape[1])
            known = {"student_temperature": student_temperature, "teacher_temperature": 1.0}
            across = cross_view_loss(student, _log(targets), **known)
        else:
            targets = jax.nn.softmax((target - center[None, None]) / sharpness)
            across = cross_view_loss(student, target, center=center, **temperatures)
        knobs = {"iterations": iterations, **temperatures}
        within = jnp.mean(
            losses.masked_patch_distillation(
                patches, masked_target, real, center=patch_center, **knobs
            )
        )
        value = across + within
        metrics = {
            "accuracy": common.contrastive_accuracy(vectors[0][:, 0], vectors[1][:, 1]),
            "class_token_loss": across,
            "patch_loss": within,
            "teacher_entropy": entropy(targets),
            # Crops without masked patches have a patch loss of 0.
            "loss_at_chance": jnp.log(jnp.float32(student.shape[-1]))
            + jnp.mean(jnp.any(real, axis=1)) * jnp.log(jnp.float32(patches.shape[-1])),
            **common.embedding_metrics(vectors[1][:, 0]),
        }
        if koleo_weight:
            spread = _koleo(features, koleo_group)
            metrics["koleo"] = spread
            value += koleo_weight * spread
        extra = dict(variables.extra)
        if not iterations:
            moving = {"momentum": center_momentum}
            extra["center"] = losses.update_center(center, target, **moving)
            of_center = (masked_target, real) if center_on_masked else (patch_target, None)
            extra["patch_center"] = losses.update_center(
                patch_center, of_center[0], mask=of_center[1], **moving
            )
        metrics, features = jax.lax.stop_gradient((metrics, features))
        return value, LossOutput(variables.model_state, extra, metrics, features)

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, at_step(momentum, step))

    return common.encoder_method(
        network,
        augmentation=add_masks,
        evaluation_view=evaluation_view,
        init=init,
        embed=embed,
        couple=couple,
        update=update,
        encoder=network.momentum_encoder,
    )


def _on_tokens(layer: Any, tokens: Array) -> Array:
    """A layer for vectors `[N, D]` on tokens `[..., D]`."""
    return layer(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:-1], -1)


def _log(targets: Array) -> Array:
    """Logits whose softmax the targets are."""
    return jnp.log(jnp.maximum(targets, jnp.finfo(targets.dtype).tiny))


def _koleo(features: Array, group: int) -> Array:
    """Sum over views of the mean KoLeo of features `[B, V, D]`, in groups of consecutive images."""
    groups = features.reshape(-1, group, *features.shape[1:])
    per_image = jax.vmap(jax.vmap(losses.koleo, in_axes=1))(groups)  # [G, V, group]
    return jnp.sum(jnp.mean(per_image, axis=(0, 2)))


# From the sections of a config.

HEAD = {**ranges.kinds_of(models.DINOHead), "outputs": PositiveInt}
SECTION = {
    "teacher_temperature": tuple[Positive, Positive],
    "teacher_warmup": Fraction,
    "freeze": Fraction,
    "projector": HEAD,
}
"""Ranges of the entries that stand for schedules and for a head, for `knobs_of`."""

# Batch norm would count the slots for masked patches that a crop does not fill.
MASKED_HEAD = {name: kind for name, kind in HEAD.items() if name != "norm"}
MASKED_SECTION = {**SECTION, "projector": MASKED_HEAD}
"""The same for methods with masked patches, whose head has no batch norm."""


def build_encoders(section: ConfigDict) -> tuple[Model, Model | None]:
    """The encoder, and the same without drop path; None where nothing is dropped."""
    encoder = models.build_encoder(section)
    if not section.drop_path:
        return encoder, None
    whole = section.copy_and_resolve_references()
    whole.drop_path = 0.0
    return encoder, models.build_encoder(whole)


def build_head(section: dict[str, Any], dtype: str) -> Head:
    """The head of a section: fields of `models.DINOHead`, and the number of `outputs`."""
    fields = {name: value for name, value in section.items() if name != "outputs"}
    projector = models.DINOHead(**fields, dtype=jnp.dtype(dtype))
    prototypes = models.Prototypes(section["outputs"], jnp.dtype(dtype))
    return Head(models.from_linen(projector), models.from_linen(prototypes))


def scheduled(knobs: dict[str, Any], steps: int) -> dict[str, Any]:
    """A section's knobs with schedules: the teacher's temperature rises from the first value to the
    second in a first part of the run, momentum rises to 1, the last layer is frozen at first."""
    rest = {
        name: value for name, value in knobs.items() if name not in ("teacher_warmup", "freeze")
    }
    warmup = max(round(knobs["teacher_warmup"] * steps), 1)
    return {
        **rest,
        "teacher_temperature": schedules.linear(*knobs["teacher_temperature"], warmup),
        "momentum": schedules.cosine(knobs["momentum"], 1.0, steps),
        "freeze_steps": round(knobs["freeze"] * steps),
    }
