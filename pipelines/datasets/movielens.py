"""MovieLens, in any layout that `movielens_files` reads, as our events in event time.

Protocol
- A rating at time t was seen and judged: an impression at t, in position 0 because the log does not
  say where on the page the film was, and one second later a rating event and, if the rating is 4 or
  more, a click. So CTR is the share of films shown that are liked.
- Request ids name the user and the film; event ids are UUIDv5 of user, film and kind. Neither
  depends on the shift, so producing the same history twice adds duplicates and nothing else.
- A user update with age and gender precedes the user's first event by a second; the layouts in CSV
  know nothing of users and have none.
- The category of a film is the rarest of its genres in the corpus (ties by name): most films are
  also Drama or Comedy, and the rarer genre says more. All of them are its tags.
- All times may be shifted by one constant so that the last event falls on a given moment; intervals
  are those of the log. Ties keep the order of the file.
- 25M ratings are about 57M events: 10 GB at the peak and two minutes, measured on 5M ratings.

The data may be used for research and not redistributed: GroupLens, Harper and Konstan,
"The MovieLens Datasets: History and Context", ACM TiiS 2015.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from pipelines.datasets.history import History
from pipelines.datasets.log import Facts, Log, Part, as_history, nowhere
from pipelines.datasets.movielens_files import Film, Ratings, Viewer, read_ratings
from pipelines.datasets.tables import joined
from rankstream.contracts.columns import Kind

__all__ = ["LIKED", "Film", "Ratings", "Viewer", "categories", "history", "read_ratings"]

LIKED: Final = 4.0
FEEDBACK_DELAY_MS: Final = 1_000


def history(ratings: Ratings, *, until_ms: int | None = None) -> History:
    """The ratings as events and items.

    Args:
        until_ms: the last event is shifted there; None keeps the times of the log.
    """
    everyone, likes = np.arange(len(ratings.user)), np.flatnonzero(ratings.value >= LIKED)
    then = ratings.time_ms + FEEDBACK_DELAY_MS
    parts = [
        Part(Kind.IMPRESSION, everyone, ratings.time_ms),
        Part(Kind.CLICK, likes, then[likes]),
        Part(Kind.RATE, everyone, then, ratings.value, named=False),
    ]
    return as_history(_log(ratings), parts, until_ms=until_ms)


def categories(films: Sequence[Film]) -> dict[str, str]:
    """item_id -> the rarest of the film's genres in the corpus, ties by name; "" of none."""
    frequency = Counter(genre for film in films for genre in film.genres)
    return {
        film.item_id: min(film.genres, key=lambda genre: (frequency[genre], genre), default="")
        for film in films
    }


def _log(ratings: Ratings) -> Log:
    n = len(ratings.user)
    user_id = [viewer.user_id for viewer in ratings.viewers]
    item_id = [film.item_id for film in ratings.films]
    category = categories(ratings.films)
    genres = sorted(set(category.values()) - {""})
    place = {"": -1} | {genre: k for k, genre in enumerate(genres)}
    requests = joined(
        ratings.name,
        pa.array(user_id).take(pa.array(ratings.user)),
        pa.array(item_id).take(pa.array(ratings.item)),
    )
    demographics = [(viewer.age, viewer.gender_male) for viewer in ratings.viewers]
    years = [(film.year,) for film in ratings.films]
    return Log(
        users=user_id,
        items=item_id,
        user=ratings.user,
        item=ratings.item,
        names=requests,
        requests=requests,
        request=np.arange(n),
        position=np.zeros(n, np.int32),
        category=np.array([place[category[item]] for item in item_id], np.int64),
        location=nowhere(n),
        categories=genres,
        titles=[film.title for film in ratings.films],
        tags=[film.genres for film in ratings.films],
        user_facts=Facts(("age", "gender_male"), np.array(demographics, np.float64)),
        item_facts=Facts(("year",), np.array(years, np.float64)),
    )
