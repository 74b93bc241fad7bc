"""A linear classifier trained beside any method, without affecting it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sslax.types import Array, Batch, LossOutput, Method, PyTree, Variables

# The large epsilon keeps Adam from amplifying rounding noise where the gradient is nearly zero.
_TX = optax.adam(3e-3, eps=1e-3)


def attach(method: Method, *, classes: int) -> Method:
    """`method` with an online linear probe, whose accuracy joins the metrics.

    The probe sees the encoder's features without a gradient, standardized over the batch, and takes
    its own step of Adam inside the loss. It lives in `extra`, so neither the method's loss nor its
    gradient, optimizer or weights know of it. Its accuracy on a batch is measured before it learns
    from that batch.

    Args:
        method: returns `features` [B, V, D] from its loss; its batches have a 'label' [B].
        classes: number of classes.

    Returns:
        A method whose `extra` is {'method': the method's, 'probe': the probe's} and whose metrics
        also hold 'probe_accuracy' and 'probe_loss'.
    """

    def init(rng: Array, batch: Batch) -> Variables:
        variables = method.init(rng, batch)
        _, output = jax.eval_shape(method.loss, variables, batch, rng, jnp.zeros((), jnp.int32))
        width = output.features.shape[-1]
        weights = {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}
        probe = {"weights": weights, "opt_state": _TX.init(weights)}
        return variables._replace(extra={"method": variables.extra, "probe": probe})

    def probed(loss: Callable) -> Callable:
        """`Method.loss`, or `Method.couple`, after which the probe learns."""

        def with_probe(*arguments: Any) -> tuple[Array, LossOutput]:
            *outputs, variables, batch, rng, step = arguments
            value, output = loss(*outputs, _inner(variables), batch, rng, step)
            probe, metrics = _learn(variables.extra["probe"], output.features, batch["label"])
            extra = {"method": output.extra, "probe": probe}
            return value, output._replace(extra=extra, metrics={**output.metrics, **metrics})

        return with_probe

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[PyTree, Variables]:
        outputs, inner = method.embed(_inner(variables), batch, rng, step)
        return outputs, inner._replace(extra={**variables.extra, "method": inner.extra})

    def update(variables: Variables, step: Array) -> PyTree:
        return {**variables.extra, "method": method.update(_inner(variables), step)}

    def on_inner(function: Callable) -> Callable:
        """A function of the method's own variables, as one of the probed method's."""
        return lambda variables, *rest: function(_inner(variables), *rest)

    return method._replace(
        init=init,
        loss=probed(method.loss),
        embed=method.embed and embed,
        couple=method.couple and probed(method.couple),
        update=update,
        predict=on_inner(method.predict),
        visualize=on_inner(method.visualize),
        encoder=on_inner(method.encoder),
        references=on_inner(method.references),
    )


def _inner(variables: Variables) -> Variables:
    """The method's own variables."""
    return variables._replace(extra=variables.extra["method"])


def _learn(probe: PyTree, features: Array, labels: Array) -> tuple[PyTree, dict[str, Array]]:
    """One step of the probe on features `[B, V, D]`."""
    views, width = features.shape[1:]
    features = jax.lax.stop_gradient(features.astype(jnp.float32)).reshape(-1, width)
    labels = jnp.repeat(labels, views)
    deviation = jnp.std(features, axis=0, keepdims=True)
    features = (features - jnp.mean(features, axis=0, keepdims=True)) / (deviation + 1e-6)

    def cross_entropy(weights: PyTree) -> tuple[Array, Array]:
        logits = features @ weights["kernel"] + weights["bias"][None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), jnp.mean(jnp.argmax(logits, axis=-1) == labels)

    (value, accuracy), gradient = jax.value_and_grad(cross_entropy, has_aux=True)(probe["weights"])
    updates, opt_state = _TX.update(gradient, probe["opt_state"])
    weights = optax.apply_updates(probe["weights"], updates)
    metrics = {"probe_loss": value, "probe_accuracy": accuracy}
    return {"weights": weights, "opt_state": opt_state}, metrics
