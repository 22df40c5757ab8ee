"""MovieLens 100K with films that no model has seen: are they found for those who liked them?

150 liked films are hidden, with all that was done with them. An artefact is made of the others as
training makes it, and the hidden ones reach its catalogue as new items do; each user who liked one
asks with the last 50 known films. Beside content, the mean vector of the category alone. Three
draws of hidden films; means of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import Figure
from pipelines.datasets.history import HistoryItem
from pipelines.datasets.movielens import LIKED, Ratings, history, read_ratings
from pipelines.train.artefact import Origin, write_retrieval
from pipelines.train.cold import fit_cold
from pipelines.train.index import QUERIES_MAX
from pipelines.train.item_to_item import Actions, fit_item_to_item
from pipelines.train.retrieval import Towers, fit_pure_svd, mean_towers, queries_of
from pipelines.train.two_tower import fit_two_tower
from rankstream.adapters.cold_vectors import ColdVectors
from rankstream.candidates.catalog import Catalog, Question
from rankstream.candidates.origins import Fresh
from rankstream.contracts.content import content_of
from rankstream.contracts.ids import id64
from rankstream.contracts.sources import AS_TUNED, FRESH, Source, Sources
from rankstream.features.rating_table import NO_RATINGS
from rankstream.features.rows import RECENT

HIDDEN: Final = 150
DEPTH: Final = 500
SHOWN: Final = 100
QUOTA: Final = 0.1  # of SHOWN, for new items: 10 of 150
DRAWS: Final = (1, 2, 3)
_RESERVED: Final = Sources(
    sources=tuple(
        Source(name=FRESH, min_share=QUOTA) if source.name == FRESH else source
        for source in AS_TUNED.sources
    )
)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draw:
    """What is known without the hidden films: `user`, `item`, `liked`, shape (n,), rows of `films`,
    in order of time. `wanted`: hidden films that each user liked.
    """

    films: list[HistoryItem]
    hidden: list[HistoryItem]
    users: int
    user: Ints
    item: Ints
    liked: npt.NDArray[np.bool_]
    wanted: Mapping[int, set[str]]

    def newest_first(self, user: int) -> Ints:
        """All known films of a user."""
        newest: Ints = self.item[self.user == user][::-1]
        return newest


def drawn(ratings: Ratings, items: tuple[HistoryItem, ...], *, seed: int) -> Draw:
    """Films to hide, among those that anybody liked."""
    liked = ratings.value >= LIKED
    rng = np.random.default_rng(seed)
    hidden = np.zeros(len(items), bool)
    hidden[rng.permutation(np.unique(ratings.item[liked]))[:HIDDEN]] = True
    kept = ~hidden[ratings.item]
    wanted: dict[int, set[str]] = {}
    for at in np.flatnonzero(~kept & liked).tolist():
        wanted.setdefault(int(ratings.user[at]), set()).add(items[ratings.item[at]].item_id)
    row = np.cumsum(~hidden) - 1
    return Draw(
        [item for item, out in zip(items, hidden, strict=True) if not out],
        [item for item, out in zip(items, hidden, strict=True) if out],
        len(ratings.viewers),
        ratings.user[kept],
        row[ratings.item[kept]].astype(np.int64),
        liked[kept],
        wanted,
    )


def pure_svd(draw: Draw) -> Towers:
    """The product's index and its query."""
    names = tuple(film.item_id for film in draw.films)
    user, item = draw.user[draw.liked], draw.item[draw.liked]
    return mean_towers(fit_pure_svd(names, user, item, users=draw.users, seed=1))


def two_tower(draw: Draw) -> Towers:
    """What `--retrieval two_tower` makes."""
    names = tuple(film.item_id for film in draw.films)
    category = np.unique([film.category for film in draw.films], return_inverse=True)[1]
    likes = np.bincount(draw.item[draw.liked], minlength=len(names)).astype(np.float32)
    actions = Actions.of(draw.user, draw.item)
    return fit_two_tower(names, category.astype(np.int64), actions, likes, seed=1)


def catalog_of(draw: Draw, towers: Towers) -> Catalog:
    """The artefact of the films that are known, loaded."""
    users = np.random.default_rng(1).permutation(draw.users)[:QUERIES_MAX]
    histories = [draw.newest_first(user)[:RECENT] for user in users.tolist()]
    queries = queries_of(towers, histories)
    contents = [content_of(film) for film in draw.films]
    with tempfile.TemporaryDirectory() as folder:
        artifact = write_retrieval(
            Path(folder),
            towers,
            fit_item_to_item(Actions.of(draw.user, draw.item), items=len(draw.films)),
            NO_RATINGS,
            Origin(1, "bench", 1, 2),
            queries=queries,
            cold=fit_cold(towers.items, contents, queries, seed=1),
            metrics={},
            parity=0.0,
            seed=1,
        )
        return Catalog.load(artifact.uri, artifact.sha256)


def found(draw: Draw, catalog: Catalog, cold: ColdVectors) -> dict[str, float]:
    """Shares of the likes of hidden films that are found.

    recall500: among DEPTH candidates, as sources are tuned; hidden500: how many hidden films those
    hold; everywhere: how many hidden films are in the lists of 95 % of users; recall_quota: among
    SHOWN candidates of which QUOTA is kept for new items.
    """
    vectors = np.array([cold.of(content_of(film))[0] for film in draw.hidden])
    fresh = Fresh([film.item_id for film in draw.hidden], vectors)
    hashes = np.array([id64(film.item_id) for film in draw.films], np.uint64)
    hits, shown, likes, asked = 0, 0, 0, 0
    lists: dict[str, int] = dict.fromkeys(fresh.item_id, 0)
    for user, wanted in draw.wanted.items():
        known = draw.newest_first(user)
        if not len(known):
            continue
        question = Question(hashes[known[:RECENT]], DEPTH, known, fresh=fresh)
        named = lists.keys() & set(catalog.retrieve(question).item_ids)
        for film in named:
            lists[film] += 1
        reserved = question._replace(k=SHOWN, sources=_RESERVED)
        hits += len(named & wanted)
        shown += len(wanted.intersection(catalog.retrieve(reserved).item_ids))
        likes, asked = likes + len(wanted), asked + 1
    return {
        "recall500": hits / likes,
        "hidden500": sum(lists.values()) / asked,
        "everywhere": float(sum(times >= 0.95 * asked for times in lists.values())),
        "recall_quota": shown / likes,
    }


FAMILIES: Final[Mapping[str, Callable[[Draw], Towers]]] = {
    "pure_svd": pure_svd,
    "two_tower": two_tower,
}


def cold_items(folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """quality.ml100k.cold.FAMILY.{content,category}.{recall500,hidden500,everywhere,recall_quota}."""
    ratings = read_ratings(folder)
    items = history(ratings).items
    draws = [drawn(ratings, items, seed=seed) for seed in DRAWS]
    figures = []
    for family, towers in FAMILIES.items():
        values: dict[str, list[dict[str, float]]] = {"content": [], "category": []}
        for draw in draws:
            catalog = catalog_of(draw, towers(draw))
            alone = replace(catalog.cold, by_content=None)
            values["content"].append(found(draw, catalog, catalog.cold))
            values["category"].append(found(draw, catalog, alone))
        for name, rows in values.items():
            means = {metric: float(np.mean([row[metric] for row in rows])) for metric in rows[0]}
            told = ", ".join(f"{metric} {value:.3f}" for metric, value in means.items())
            say(f"movielens, hidden films, {family} by {name}: {told}")
            figures += [
                Figure(f"quality.ml100k.cold.{family}.{name}.{metric}", value, "")
                for metric, value in means.items()
            ]
    return figures
