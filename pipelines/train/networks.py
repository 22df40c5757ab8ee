"""Two networks on encoded features: Wide & Deep, and MMoE with a head for clicks and purchases.

Parameters are plain trees of arrays, so that an export reads them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from pipelines.train.encoding import Encoding
from pipelines.train.shapes import CLICK, PURCHASE, Shape

Array: TypeAlias = jax.Array
Layer: TypeAlias = dict[str, Array]  # weight, shape (inputs, outputs), and bias, shape (outputs,)
Parameters: TypeAlias = Any  # a tree of arrays, as the network's `initial` makes it


@dataclass(frozen=True)
class Network:
    """A function of encoded features, shape (n, k), to logits, shape (n, len(heads))."""

    family: str
    heads: tuple[str, ...]
    initial: Callable[[Array, int], Parameters]  # of a key and k
    logits: Callable[[Parameters, Array], Array]


def wide_deep(shape: Shape) -> Network:
    """A linear model beside a deep one, trained together.

    Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016. Its wide part
    crosses ids, and no id is a feature here: ours is the linear model on the pieces.
    """

    def initial(key: Array, width: int) -> Parameters:
        wide, deep = jax.random.split(key)
        return {
            "wide": _layer(wide, width, 1),
            "deep": _layers(deep, (width, *shape.deep, 1)),
        }

    def logits(parameters: Parameters, encoded: Array) -> Array:
        wide = _dense(parameters["wide"], encoded)
        return wide + _stack(parameters["deep"], encoded)

    return Network("wide_deep", (CLICK,), initial, logits)


def mmoe(shape: Shape) -> Network:
    """Experts that all tasks share, mixed for each task by a gate of its own.

    Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018.
    """

    def initial(key: Array, width: int) -> Parameters:
        experts, gates, towers = jax.random.split(key, 3)
        return {
            "experts": [
                _layers(one, (width, *shape.expert))
                for one in jax.random.split(experts, shape.experts)
            ],
            "gates": {
                head: _layer(one, width, shape.experts)
                for head, one in zip(heads, jax.random.split(gates, len(heads)), strict=True)
            },
            "towers": {
                head: _layers(one, (shape.expert[-1], *shape.tower, 1))
                for head, one in zip(heads, jax.random.split(towers, len(heads)), strict=True)
            },
        }

    def logits(parameters: Parameters, encoded: Array) -> Array:
        told = [jax.nn.relu(_stack(layers, encoded)) for layers in parameters["experts"]]
        found = []
        for head in heads:
            share = jax.nn.softmax(_dense(parameters["gates"][head], encoded))
            mixed = jnp.einsum("nk,knw->nw", share, jnp.stack(told))
            found.append(_stack(parameters["towers"][head], mixed))
        return jnp.concatenate(found, axis=1)

    heads = (CLICK, PURCHASE)
    return Network("mmoe", heads, initial, logits)


def encoded(encoding: Encoding, features: Array) -> Array:
    """Pieces of each row, shape (n, k)."""
    pieces = (features[:, encoding.feature] - encoding.low) * encoding.scale
    return jnp.clip(pieces, 0.0, 1.0)


def size_of(parameters: Parameters) -> int:
    """How many numbers the parameters are."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def _layer(key: Array, inputs: int, outputs: int) -> Layer:
    """He et al., "Delving Deep into Rectifiers", ICCV 2015."""
    weight = jax.random.normal(key, (inputs, outputs)) * jnp.sqrt(2.0 / inputs)
    return {"weight": weight, "bias": jnp.zeros(outputs)}


def _layers(key: Array, widths: Sequence[int]) -> list[Layer]:
    keys = jax.random.split(key, len(widths) - 1)
    return [_layer(keys[k], widths[k], widths[k + 1]) for k in range(len(keys))]


def _dense(layer: Layer, values: Array) -> Array:
    return values @ layer["weight"] + layer["bias"]


def _stack(layers: Sequence[Layer], values: Array) -> Array:
    """Dense layers with a rectifier between each two."""
    for layer in layers[:-1]:
        values = jax.nn.relu(_dense(layer, values))
    return _dense(layers[-1], values)
