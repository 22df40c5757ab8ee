"""Two towers in JAX: a query from the order of a user's last actions, a vector for each item.

Query: two attention heads over the last RECENT items. A head weighs an item by what it is and by
its place, one head starting flat and one steep; both means go through a small network that is added
to the first. An item is its id's vector plus its category's; one that nobody used has its
category's alone, and the least bias. The last dimension of an item vector is its bias.

Trained to tell each action's item from those of the other actions in its batch and from items drawn
for it from the same category, which are harder; sampled softmax with the logarithm of the mixture
that both are drawn from taken off. Training stops when the next action after each user's last known
one is no longer found better, and keeps the best round.

Sources: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations",
RecSys 2019; Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural Networks in
Recommendations", WWW 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from pipelines.train.graphs import AttentionTower, attention_tower_graph
from pipelines.train.item_to_item import Actions
from pipelines.train.retrieval import ItemVectors, Towers
from rankstream.errors import InvalidInput
from rankstream.features.rows import RECENT

FAMILY: Final = "two_tower"

# Chosen on MovieLens 100K as the constants of item_to_item were.
DIMENSIONS: Final = 32
SHARE: Final = 2.0
HEADS: Final = 2
LEARNING_RATE: Final = 3e-3
WEIGHT_DECAY: Final = 1e-4
BATCH: Final = 512
FORGOTTEN: Final = 0.2  # of a history's items, at random, while training
ROUNDS_MAX: Final = 12
PATIENCE: Final = 2
# Examples are the newest; each holds RECENT places of a history.
EXAMPLES_MAX: Final = 1_000_000
_FADING: Final = (0.97, 0.6)  # of the heads, at the start
_SPREAD: Final = 0.1
_MASKED: Final = -1e9

Ints = npt.NDArray[np.int64]
Weights = dict[str, jax.Array]


class Examples(NamedTuple):
    """Histories, newest first, -1 padded, int32, shape (n, RECENT); what came next, shape (n,)."""

    recent: jax.Array
    target: jax.Array


@dataclass(frozen=True, eq=False)
class _Draws:
    """How negatives are drawn: used items by category, and log of the chance of each item."""

    category: jax.Array  # of each item, shape (m,)
    members: jax.Array  # items of each category, repeated to one length
    size: jax.Array  # how many they are
    log_chance: jax.Array  # shape (m,)


def fit_two_tower(
    item_id: Sequence[str],
    category: Ints,
    actions: Actions,
    popularity: npt.NDArray[np.float32],
    *,
    seed: int,
) -> Towers:
    """Train both towers.

    Args:
        item_id: ids of m items; `actions.item` holds their positions.
        category: number of each item's category, shape (m,).
        popularity: shape (m,), kept beside the vectors.

    Raises: InvalidInput: fewer than two users with two actions; nothing is trained.
    """
    examples, last = _examples(actions)
    known, held = _take(examples, ~last), _take(examples, last)
    if not len(known.target) or len(held.target) < 2:
        raise InvalidInput(
            f"invalid_input: {len(held.target)} users with a history and an action after it, and"
            f" {len(known.target)} actions before those (at least 2 and 1). No towers were trained."
            " Give a longer history, or train pure_svd."
        )
    weights = _fit(known, held, _draws(known.target, category), len(item_id), seed)
    used = np.zeros(len(item_id), bool)
    used[actions.item] = True
    past, out = _settled(weights, jnp.asarray(category), used)
    graph = attention_tower_graph(_tower(weights, past))

    @jax.jit
    def embed(recent: jax.Array, weight: jax.Array) -> jax.Array:
        return _query(weights, past, recent, weight)

    def query(recent: Ints, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # One shape, so that it is compiled once.
        free = ((0, 0), (0, max(0, RECENT - recent.shape[1])))
        padded = np.pad(recent[:, :RECENT], free, constant_values=-1)
        shares = np.pad(weight[:, :RECENT], free)
        return np.asarray(embed(padded.astype(np.int32), shares))

    return Towers(FAMILY, ItemVectors(tuple(item_id), out, popularity), graph, query, SHARE)


def _examples(actions: Actions) -> tuple[Examples, npt.NDArray[np.bool_]]:
    """Every action that has a history, and which of them are their users' last."""
    user, item = actions.user, actions.item
    place = np.arange(len(user)) - np.searchsorted(user, user)
    asked = np.flatnonzero(place > 0)[-EXAMPLES_MAX:]
    back = np.arange(RECENT)
    before = item[np.maximum(asked[:, None] - 1 - back, 0)]
    recent = np.where(back < place[asked][:, None], before, -1).astype(np.int32)
    last = np.append(user[1:] != user[:-1], True)[asked]
    return Examples(jnp.asarray(recent), jnp.asarray(item[asked].astype(np.int32))), last


def _take(examples: Examples, chosen: npt.NDArray[np.bool_]) -> Examples:
    return Examples(examples.recent[chosen], examples.target[chosen])


def _draws(target: jax.Array, category: Ints) -> _Draws:
    used, times = np.unique(np.asarray(target), return_counts=True)
    kinds = int(category.max()) + 1
    size = np.bincount(category[used], minlength=kinds)
    members = np.zeros((kinds, max(1, int(size.max()))), np.int64)
    for kind in np.flatnonzero(size).tolist():
        members[kind] = np.resize(used[category[used] == kind], members.shape[1])
    asked = np.zeros(len(category))
    asked[used] = times / times.sum()
    hard = np.bincount(category, asked, kinds)[category] / np.maximum(size[category], 1)
    # Items without a use are neither targets nor drawn; their chance is never read.
    chance = np.maximum((asked + hard) / 2, 1e-12)
    return _Draws(
        jnp.asarray(category), jnp.asarray(members), jnp.asarray(size), jnp.log(jnp.asarray(chance))
    )


def _initial(key: jax.Array, items: int, categories: int) -> Weights:
    d, width = DIMENSIONS, HEADS * DIMENSIONS
    keys = jax.random.split(key, 4)
    return {
        "item": jax.random.normal(keys[0], (items, d)) * _SPREAD,
        "category": jax.random.normal(keys[1], (categories, d)) * _SPREAD,
        "attention": jnp.zeros((d, HEADS)),
        "place": jnp.log(jnp.array(_FADING)) * jnp.arange(RECENT)[:, None],
        "hidden": jax.random.normal(keys[2], (width, width)) / jnp.sqrt(width),
        "hidden_bias": jnp.zeros(width),
        "out": jax.random.normal(keys[3], (width, d)) * _SPREAD / jnp.sqrt(width),
        "bias": jnp.zeros(items),
    }


def _items(weights: Weights, category: jax.Array) -> jax.Array:
    return weights["item"] + weights["category"][category]


def _query(weights: Weights, past: jax.Array, recent: jax.Array, weight: jax.Array) -> jax.Array:
    """Queries, shape (b, DIMENSIONS + 1), the last one 1 for the bias; -1 is nothing."""
    share = weight * (recent >= 0)
    seen = past[jnp.maximum(recent, 0)] * (recent >= 0)[..., None]
    score = seen @ weights["attention"] + weights["place"][: recent.shape[1]]
    odds = jnp.exp(score - score.max(axis=1, keepdims=True)) * share[..., None]
    heads = odds / jnp.maximum(odds.sum(axis=1, keepdims=True), 1e-12)
    means = jnp.einsum("bhk,bhd->bkd", heads, seen)
    both = means.reshape(len(recent), -1)
    hidden = jax.nn.relu(both @ weights["hidden"] + weights["hidden_bias"])
    query = means[:, 0] + hidden @ weights["out"]
    return jnp.concatenate([query, jnp.ones((len(recent), 1))], axis=1)


def _logits(
    weights: Weights, category: jax.Array, examples: Examples, candidates: jax.Array
) -> jax.Array:
    past = _items(weights, category)
    query = _query(weights, past, examples.recent, jnp.ones(examples.recent.shape))
    logits: jax.Array = query[:, :-1] @ past[candidates].T + weights["bias"][candidates]
    return logits


def _loss(weights: Weights, batch: Examples, draws: _Draws, key: jax.Array) -> jax.Array:
    forget, choose = jax.random.split(key)
    target = batch.target
    lost = jax.random.bernoulli(forget, FORGOTTEN, batch.recent.shape)
    kind = draws.category[target]
    drawn = jax.random.randint(choose, target.shape, 0, draws.size[kind])
    candidates = jnp.concatenate([target, draws.members[kind, drawn]])
    history = Examples(jnp.where(lost, -1, batch.recent), target)
    logits = _logits(weights, draws.category, history, candidates) - draws.log_chance[candidates]
    own = jnp.eye(len(target), len(candidates), dtype=bool)
    again = (candidates[None] == target[:, None]) & ~own
    chance = jax.nn.log_softmax(jnp.where(again, _MASKED, logits), axis=1)
    missed: jax.Array = -jnp.diagonal(chance).mean()
    return missed


def _fit(known: Examples, held: Examples, draws: _Draws, items: int, seed: int) -> Weights:
    batch = min(BATCH, len(known.target))
    batches = len(known.target) // batch
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    @jax.jit
    def round_(weights: Weights, state: Any, key: jax.Array) -> tuple[Weights, Any]:
        order, noise = jax.random.split(key)
        places = jax.random.permutation(order, len(known.target))[: batches * batch]

        def step(carried: tuple[Weights, Any], at: tuple[jax.Array, jax.Array]) -> Any:
            weights, state = carried
            chosen = Examples(known.recent[at[0]], known.target[at[0]])
            change = jax.grad(_loss)(weights, chosen, draws, at[1])
            updates, state = optimizer.update(change, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        steps = (places.reshape(batches, batch), jax.random.split(noise, batches))
        return jax.lax.scan(step, (weights, state), steps)[0]

    @jax.jit
    def missed(weights: Weights) -> jax.Array:
        chance = jax.nn.log_softmax(
            _logits(weights, draws.category, held, jnp.arange(items)), axis=1
        )
        return -jnp.take_along_axis(chance, held.target[:, None], axis=1).mean()

    key = jax.random.key(seed)
    weights = best = _initial(key, items, len(draws.size))
    state, least, stale = optimizer.init(weights), np.inf, 0
    for number in range(ROUNDS_MAX):
        weights, state = round_(weights, state, jax.random.fold_in(key, number))
        loss = float(missed(weights))
        stale = 0 if loss < least else stale + 1
        if loss < least:
            least, best = loss, weights
        if stale == PATIENCE:
            break
    return best


def _settled(
    weights: Weights, category: jax.Array, used: npt.NDArray[np.bool_]
) -> tuple[jax.Array, npt.NDArray[np.float32]]:
    """Items as the query sees them, shape (m, d), and as the index holds them, (m, d + 1)."""
    known = {**weights, "item": jnp.where(used[:, None], weights["item"], 0.0)}
    past = _items(known, category)
    bias = np.array(weights["bias"])
    bias[~used] = bias[used].min()
    return past, np.concatenate([np.asarray(past), bias[:, None]], axis=1).astype(np.float32)


def _tower(weights: Weights, past: jax.Array) -> AttentionTower:
    names = ("attention", "place", "hidden", "hidden_bias", "out")
    return AttentionTower(np.asarray(past), *(np.asarray(weights[name]) for name in names))
