"""Networks of several parts, composed by an ordinary function: the forward pass."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import optax

from sslax.types import Array, Model, PyTree, Variables

Parts = SimpleNamespace  # the argument `net` of a forward pass
Forward = Callable[..., Any]

_MOMENTUM = "momentum"  # key of the momentum copies in `Variables.extra`


class Copy(NamedTuple):
    """A momentum copy of some parts: parameters and state by the parts' names."""

    params: PyTree
    model_state: PyTree


class Network:
    """Several models, and momentum copies of some, that any forward pass can put together.

    A forward pass is a function `(net, *inputs) -> output` that calls the parts by name, as often
    and in whatever order it likes: `net.encoder(x)`; momentum copies are `net.momentum.encoder(x)`.
    `apply` threads parameters and model state through it; `init` runs the same function and
    initializes each part with the first input it meets there, so there is no second description of
    the wiring that could disagree with the first. Both are pure.

    Args:
        parts: models by name. The name is the key of the part's parameters, of its model state,
            and of `config.optimizer.rates`.
        momentum: models, by the name of the part whose momentum copy they apply; usually the part
            itself, or a model of the same parameters that normalizes in another way.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import models
        >>> layer = models.from_linen(models.Classifier(4))
        >>> network = Network({"first": layer, "second": layer}, momentum={"first": layer})
        >>> def forward(net, x):
        ...     return net.second(net.first(x)), net.momentum.first(x)
        >>> variables = network.init(forward, jax.random.key(0), jnp.ones((2, 3)))
        >>> sorted(variables.params), sorted(variables.extra["momentum"].params)
        (['first', 'second'], ['first'])
        >>> (output, target), variables = network.apply(forward, variables, jnp.ones((2, 3)))
        >>> output.shape, target.shape
        ((2, 4), (2, 4))
    """

    def __init__(
        self, parts: Mapping[str, Model], *, momentum: Mapping[str, Model] | None = None
    ) -> None:
        self.parts = dict(parts)
        self.momentum = dict(momentum or {})
        if unknown := self.momentum.keys() - self.parts.keys():
            raise ValueError(f"There is no part {sorted(unknown)[0]!r} to make a momentum copy of.")

    def init(self, forward: Forward, rng: Array, *inputs: Any) -> Variables:
        """Initializes every part that `forward` calls, on the inputs that it is called with there.

        A momentum copy starts equal to its part, which the forward pass must call before it.

        Args:
            forward: the forward pass, `(net, *inputs) -> output`.
            rng: a key, split into one for each part in the order of `parts`.
            *inputs: for the forward pass.

        Returns:
            Variables; `extra` holds the momentum copies, or is {}.

        Raises:
            ValueError: a momentum copy is called before its part, or a part is not called at all.
        """
        keys = dict(zip(self.parts, jax.random.split(rng, len(self.parts))))
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}

        def call(name: str, x: Any) -> Any:
            model = self.parts[name]
            if name not in params:
                params[name], state[name] = model.init(keys[name], x)
            return model.apply(params[name], state[name], x, False)[0]

        def call_copy(name: str, x: Any) -> Any:
            if name not in params:
                raise ValueError(f"The momentum copy of {name!r} is called before {name!r} itself.")
            return self.momentum[name].apply(params[name], state[name], x, False)[0]

        forward(_handle(self, call, call_copy), *inputs)
        if missing := self.parts.keys() - params.keys():
            raise ValueError(f"The forward pass does not call {sorted(missing)}.")
        params, state = ({name: tree[name] for name in self.parts} for tree in (params, state))
        if not self.momentum:
            return Variables(params, state, {})
        copy = Copy(*({name: tree[name] for name in self.momentum} for tree in (params, state)))
        return Variables(params, state, {_MOMENTUM: copy})

    def apply(
        self, forward: Forward, variables: Variables, *inputs: Any, train: bool = False
    ) -> tuple[Any, Variables]:
        """Runs a forward pass.

        Args:
            forward: the forward pass, `(net, *inputs) -> output`; it may call fewer parts than
                `init`'s did.
            variables: as `init` returns them; further entries of `extra` are left alone.
            *inputs: for the forward pass.
            train: batch statistics are the batch's, and their averages move.

        Returns:
            The output, and the variables with the model state, and that of the momentum copies,
            after the pass.
        """
        state = dict(variables.model_state)
        copy = variables.extra.get(_MOMENTUM, Copy({}, {}))
        copy_state = dict(copy.model_state)

        def call(name: str, x: Any) -> Any:
            output, state[name] = self.parts[name].apply(
                variables.params[name], state[name], x, train
            )
            return output

        def call_copy(name: str, x: Any) -> Any:
            output, copy_state[name] = self.momentum[name].apply(
                copy.params[name], copy_state[name], x, train
            )
            return output

        output = forward(_handle(self, call, call_copy), *inputs)
        extra = variables.extra
        if self.momentum:
            extra = {**extra, _MOMENTUM: copy._replace(model_state=copy_state)}
        return output, Variables(variables.params, state, extra)

    def as_model(self, forward: Forward) -> Model:
        """The parts put together by `forward(net, x)`, as one model that can be a part itself."""

        def init(rng: Array, x: Any) -> tuple[PyTree, PyTree]:
            variables = self.init(forward, rng, x)
            return variables.params, variables.model_state

        def apply(params: PyTree, model_state: PyTree, x: Any, train: bool) -> tuple[Any, PyTree]:
            variables = Variables(params, model_state, {})
            output, variables = self.apply(forward, variables, x, train=train)
            return output, variables.model_state

        return Model(init, apply)

    def move(self, variables: Variables, momentum: float | Array) -> PyTree:
        """`extra` with the momentum copies moved: `momentum · copy + (1 - momentum) · params`."""
        copy = variables.extra[_MOMENTUM]
        params = {name: variables.params[name] for name in copy.params}
        moved = optax.incremental_update(params, copy.params, 1 - momentum)
        return {**variables.extra, _MOMENTUM: copy._replace(params=moved)}

    def encoder(self, variables: Variables, name: str = "encoder") -> tuple[PyTree, PyTree]:
        """Parameters and state of the part that the gradient trains."""
        return variables.params[name], variables.model_state[name]

    def momentum_encoder(
        self, variables: Variables, name: str = "encoder"
    ) -> tuple[PyTree, PyTree]:
        """Parameters and state of that part's momentum copy."""
        copy = variables.extra[_MOMENTUM]
        return copy.params[name], copy.model_state[name]


def _handle(network: Network, call: Callable, call_copy: Callable) -> Parts:
    """What a forward pass calls the parts by."""

    def bound(call: Callable, name: str) -> Callable[[Any], Any]:
        return lambda x: call(name, x)

    copies = {name: bound(call_copy, name) for name in network.momentum}
    parts = {name: bound(call, name) for name in network.parts}
    return Parts(**parts, momentum=Parts(**copies))
