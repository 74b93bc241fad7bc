"""Linear classifiers on a frozen encoder: what the linear protocol of papers trains."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sslax.methods.common import Augmentation, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def linear_probe(
    encoder: Model,
    classifiers: Mapping[str, Model],
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    weights: tuple[PyTree, PyTree],
) -> Method:
    """Sum of the mean cross-entropies of classifiers, each trained on the same frozen features.

    The encoder is in evaluation mode, and its weights are in `extra`: the optimizer does not see
    them. Gradients of the classifiers do not depend on each other.

    Args:
        encoder: images to an `Encoding`.
        classifiers: features to K logits, by name.
        augmentation: adds 'views' `[B, V, H, W, C]`, each an example; batches have a 'label' `[B]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        weights: the encoder's parameters and state.
    """
    network = Network({"encoder": encoder, **classifiers})

    def classify(net: Parts, features: Array) -> dict[str, Array]:
        return {name: getattr(net, name)(features) for name in classifiers}

    def forward(net: Parts, images: Array) -> dict[str, Array]:
        return classify(net, net.encoder(images).features.astype(jnp.float32))

    def init(rng: Array, batch: Batch) -> Variables:
        variables = network.init(forward, rng, merge_views(batch["views"]))
        params, model_state = (
            {name: tree[name] for name in classifiers}
            for tree in (variables.params, variables.model_state)
        )
        # Copies, since the state is donated and the caller keeps the weights.
        return Variables(params, model_state, {"encoder": jax.tree.map(jnp.copy, weights)})

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        views = batch["views"].shape[1]
        features = encode(encoder, variables, merge_views(batch["views"]))
        logits, variables = network.apply(classify, variables, features, train=True)
        labels = jnp.repeat(batch["label"], views)
        scores = [common.classification(x, labels) for x in logits.values()]
        values = jnp.stack([value for value, _ in scores])
        metrics = {"best_loss": jnp.min(values)}
        output = LossOutput(
            variables.model_state, variables.extra, metrics, split_views(features, views)
        )
        return jnp.sum(values), output

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        encoder=lambda variables: variables.extra["encoder"],
    )


def encode(encoder: Model, variables: Variables, images: Array) -> Array:
    """Features `[N, D]` float32 of the frozen encoder, without a gradient."""
    encoding, _ = encoder.apply(*variables.extra["encoder"], images, False)
    return jax.lax.stop_gradient(encoding.features.astype(jnp.float32))


def classify(classifier: Model, variables: Variables, name: str, features: Array) -> Array:
    """Logits `[N, K]` of the classifier of that name."""
    logits, _ = classifier.apply(
        variables.params[name], variables.model_state[name], features, False
    )
    return logits
