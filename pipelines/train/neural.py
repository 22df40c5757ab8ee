"""Fitting a network: mini-batches, early stopping on the newest rows, a checkpoint per epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from pipelines.train import checkpoint
from pipelines.train.checkpoint import Run
from pipelines.train.encoding import Encoding
from pipelines.train.networks import Array, Network, Parameters, encoded
from pipelines.train.trees import VALIDATION_SHARE

BATCH_ROWS_MAX: Final = 1_024
BATCH_ROWS_MIN: Final = 64
BATCHES: Final = 64  # of an epoch, at least, if rows suffice
PREDICT_ROWS: Final = 8_192
# An epoch is that many rows at most, so a long log is stopped early as a short one is.
EPOCH_ROWS_MAX: Final = 1_000_000
VALIDATION_ROWS_MAX: Final = 200_000
EPOCHS_MAX: Final = 20
PATIENCE_EPOCHS: Final = 2
LEARNING_RATE: Final = 1e-3
WEIGHT_DECAY: Final = 1.0
# Of the moving average of parameters, per batch: it remembers some 200 batches, fewer at first.
AVERAGE_DECAY: Final = 0.995

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]
Doubles = npt.NDArray[np.float64]
# Parameters, their moving average, the optimizer's moments, batches done.
State = tuple[Parameters, Parameters, optax.OptState, Array]


@dataclass(frozen=True, eq=False)
class Examples:
    """n rows in order of time: `features`, shape (n, d); `labels`, shape (n, heads), 1: seen, or 0;
    `seen`, shape (n, heads), in [0, 1], P(seen by now | it happens); `weight`, shape (n,), of each
    in the loss."""

    features: Floats
    labels: Labels
    seen: Floats
    weight: Floats


@dataclass(frozen=True, eq=False)
class Fitted:
    """The parameters of the best epoch, and which one that was."""

    parameters: Parameters
    epochs: int


@dataclass(eq=False)
class _Progress:
    state: State
    best: Parameters
    loss: float = float("inf")  # of `best` on the validation rows
    best_epoch: int = 0
    epoch: int = 0


def fit_network(
    network: Network, encoding: Encoding, examples: Examples, *, seed: int, run: Run
) -> Fitted:
    """Parameters by AdamW on log loss, summed over the heads; the last tenth of the rows stops it.

    What is kept is their moving average, of the epoch that it was best in. The same rows and seed
    give the same bits, whether or not the fit was interrupted.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; Polyak and
    Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control 1992.
    """
    rows = round(len(examples.features) * (1 - VALIDATION_SHARE))
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    parameters = network.initial(jax.random.key(seed), len(encoding))
    progress = _Progress(
        (parameters, parameters, optimizer.init(parameters), jnp.zeros(())), parameters
    )
    path, version = None, ""
    if run.folder is not None:
        version = _version(network, encoding, examples, seed, run.data_version)
        path = run.folder / f"{network.family}-{version[:16]}.npz"
        progress = _resumed(path, version, progress)
    update = jax.jit(partial(_update, network, encoding, optimizer))
    losses = jax.jit(partial(_losses, network, encoding))
    while progress.epoch < EPOCHS_MAX:
        if progress.epoch - progress.best_epoch >= PATIENCE_EPOCHS:
            break
        run.step(network.family, progress.epoch, EPOCHS_MAX)
        rng = np.random.default_rng([seed, progress.epoch])
        for batch in _batches(rows, rng):
            progress.state = update(progress.state, *_taken(examples, batch))
        progress.epoch += 1
        average = progress.state[1]
        loss = _validation(losses, average, examples, rows)
        if loss < progress.loss:
            progress.loss, progress.best = loss, average
            progress.best_epoch = progress.epoch
        if path is not None:
            _save(path, version, progress)
    run.step(network.family, EPOCHS_MAX, EPOCHS_MAX)
    return Fitted(progress.best, progress.best_epoch)


def probabilities(
    network: Network, encoding: Encoding, parameters: Parameters
) -> Callable[[Floats], Doubles]:
    """A function of features, shape (n, d), to a probability for each head, shape (n, heads)."""

    @jax.jit
    def score(features: Array) -> Array:
        return jax.nn.sigmoid(network.logits(parameters, encoded(encoding, features)))

    def predict(features: Floats) -> Doubles:
        parts = [
            np.asarray(score(jnp.asarray(features[start : start + PREDICT_ROWS])), np.float64)
            for start in range(0, len(features), PREDICT_ROWS)
        ]
        return np.concatenate([np.empty((0, len(network.heads))), *parts])

    return predict


def _update(
    network: Network,
    encoding: Encoding,
    optimizer: optax.GradientTransformation,
    state: State,
    features: Array,
    labels: Array,
    seen: Array,
    weight: Array,
) -> State:
    def loss(parameters: Parameters) -> Array:
        sums, weights = _losses(network, encoding, parameters, features, labels, seen, weight)
        return jnp.sum(sums / jnp.maximum(weights, 1e-6))

    parameters, average, moments, batches = state
    gradient = jax.grad(loss)(parameters)
    change, moments = optimizer.update(gradient, moments, parameters)
    parameters = optax.apply_updates(parameters, change)
    decay = jnp.minimum(AVERAGE_DECAY, (1.0 + batches) / (10.0 + batches))
    average = optax.incremental_update(parameters, average, 1.0 - decay)
    return parameters, average, moments, batches + 1.0


def _losses(
    network: Network,
    encoding: Encoding,
    parameters: Parameters,
    features: Array,
    labels: Array,
    seen: Array,
    weight: Array,
) -> tuple[Array, Array]:
    """Of each head the sum of losses and of weights; a row counts as far as it could be seen.

    The loss is -log of the probability of what is seen: p if it happened, else 1 - seen * p.
    """
    logits = network.logits(parameters, encoded(encoding, features))
    happened = labels.astype(jnp.float32)
    loss = optax.sigmoid_binary_cross_entropy(logits, happened)
    # 1 - seen * p = (1 + (1 - seen) * exp(logit)) / (1 + exp(logit)).
    loss -= (1.0 - happened) * jax.nn.softplus(logits + jnp.log1p(-seen))
    counted = weight[:, None] * jnp.where(labels > 0, 1.0, seen)
    return jnp.sum(weight[:, None] * loss, axis=0), jnp.sum(counted, axis=0)


def _validation(
    losses: Callable[..., tuple[Array, Array]],
    parameters: Parameters,
    examples: Examples,
    first: int,
) -> float:
    places = np.arange(first, len(examples.features))
    places = places[:: -(-len(places) // VALIDATION_ROWS_MAX)]
    total = np.zeros((2, examples.labels.shape[1]))
    for start in range(0, len(places), PREDICT_ROWS):
        found = losses(parameters, *_taken(examples, places[start : start + PREDICT_ROWS]))
        total += np.asarray(found, np.float64)
    return float((total[0] / np.maximum(total[1], 1e-6)).sum())


def _batches(rows: int, rng: np.random.Generator) -> list[npt.NDArray[np.intp]]:
    """An epoch's rows in random order; the rest that fills no batch waits for another epoch."""
    size = min(max(rows // BATCHES, BATCH_ROWS_MIN), BATCH_ROWS_MAX, rows)
    order = rng.permutation(rows)[:EPOCH_ROWS_MAX]
    return np.split(order[: len(order) // size * size], len(order) // size)


def _taken(examples: Examples, places: npt.NDArray[np.intp]) -> tuple[Any, ...]:
    columns = examples.features, examples.labels, examples.seen, examples.weight
    return tuple(column[places] for column in columns)


def _version(
    network: Network, encoding: Encoding, examples: Examples, seed: int, data_version: str
) -> str:
    """Hash of what decides the bits of a fit."""
    sizes = (BATCH_ROWS_MAX, EPOCH_ROWS_MAX, VALIDATION_ROWS_MAX)
    settings = (*sizes, LEARNING_RATE, WEIGHT_DECAY, AVERAGE_DECAY)
    shape = jax.eval_shape(lambda: network.initial(jax.random.key(0), len(encoding)))
    told = repr((data_version, network.family, str(shape), seed, settings))
    digest = hashlib.sha256(told.encode())
    for array in (*astuple(encoding), examples.labels, examples.seen, examples.weight):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _save(path: Path, version: str, progress: _Progress) -> None:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((progress.state, progress.best))]
    counted = [np.array(progress.loss), np.array(progress.best_epoch)]
    checkpoint.save(path, version, progress.epoch, [*counted, *leaves])


def _resumed(path: Path, version: str, fresh: _Progress) -> _Progress:
    """Where the fit of this version stopped; `fresh` if it never began."""
    found = checkpoint.load(path, version)
    if found is None:
        return fresh
    epoch, (loss, best_epoch, *leaves) = found
    shape = jax.tree.structure((fresh.state, fresh.best))
    state, best = jax.tree.unflatten(shape, [jnp.asarray(leaf) for leaf in leaves])
    return _Progress(state, best, float(loss), int(best_epoch), epoch)
