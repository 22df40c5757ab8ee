"""Everything that retrieval serves, fitted on training rows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import numpy as np

from pipelines.features.replay import TrainingRows
from pipelines.train.item_to_item import actions_before, fit_item_to_item
from pipelines.train.retrieval import Towers, fit_pure_svd, mean_towers
from rankstream.contracts.neighbours import Neighbours


class TowerFamily(StrEnum):
    """Towers that can be trained."""

    PURE_SVD = "pure_svd"
    TWO_TOWER = "two_tower"


def fit_sources(
    family: TowerFamily,
    rows: TrainingRows,
    item_id: tuple[str, ...],
    categories: Mapping[str, str],
    *,
    seed: int,
) -> tuple[Towers, tuple[Neighbours, ...]]:
    """Towers from likes (PureSVD) or actions (two towers), and neighbour lists from actions.

    Args:
        item_id: the item table; `rows.items` come first.
        categories: of items by id; those that are absent share one.

    Raises: InvalidInput: too few users or items; nothing is fitted.
    """
    actions = actions_before(rows, item_id)
    tables = fit_item_to_item(actions, items=len(item_id))
    liked = np.flatnonzero(rows.clicked)
    items = fit_pure_svd(
        item_id, rows.user[liked], rows.item[liked], users=len(rows.users), seed=seed
    )
    if family is TowerFamily.PURE_SVD:
        return mean_towers(items), tables
    # JAX takes seconds to import, which a run without it need not wait for.
    from pipelines.train.two_tower import fit_two_tower

    names = [categories.get(name, "") for name in item_id]
    category = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return fit_two_tower(item_id, category, actions, items.popularity, seed=seed), tables
