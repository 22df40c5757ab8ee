"""MovieLens 100K, in RecBole's atomic files, as our events in event time.

Protocol
- A rating at time t was seen and judged: an impression at t, in position 0 because the log does not
  say where on the page the film was, and one second later a rating event and, if the rating is 4 or
  more, a click. So CTR is the share of films shown that are liked.
- Request ids name the user and the film; event ids are UUIDv5 of user, film and kind. Neither
  depends on the shift, so producing the same history twice adds duplicates and nothing else.
- A user update with age and gender precedes the user's first event by a second.
- The category of a film is the rarest of its genres in the corpus (ties by name): most films are
  also Drama or Comedy, and the rarer genre says more.
- All times are shifted by one constant so that the last event falls on a given moment; intervals
  are those of the log. Ties keep the order of the file.

The data may be used for research and not redistributed: GroupLens, Harper and Konstan,
"The MovieLens Datasets: History and Context", ACM TiiS 2015.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.datasets.history import History, HistoryItem, event_ids
from rankstream.contracts.columns import EventColumns, Kind
from rankstream.errors import InvalidInput

LIKED: Final = 4.0
FEEDBACK_DELAY_MS: Final = 1_000
_LAYOUT: Final[Mapping[str, tuple[str, ...]]] = {
    "ml-100k.inter": ("user_id:token", "item_id:token", "rating:float", "timestamp:float"),
    "ml-100k.item": (
        "item_id:token",
        "movie_title:token_seq",
        "release_year:token",
        "class:token_seq",
    ),
    "ml-100k.user": (
        "user_id:token",
        "age:token",
        "gender:token",
        "occupation:token",
        "zip_code:token",
    ),
}
_YEARS: Final = (1850.0, 2100.0)


@dataclass(frozen=True)
class Film:
    """A line of ml-100k.item; `year` nan: unknown."""

    item_id: str
    title: str
    year: float
    genres: tuple[str, ...]


@dataclass(frozen=True)
class Viewer:
    """A line of ml-100k.user."""

    user_id: str
    age: float
    gender_male: float


@dataclass(frozen=True, eq=False)
class Ratings:
    """The log, in order of time and then of the file.

    `user` and `item` int64, shape (n,), are positions in `viewers` and `films`; `value` float64,
    shape (n,), 1 to 5; `time_ms` int64, shape (n,), UTC epoch, not shifted.
    """

    viewers: tuple[Viewer, ...]
    films: tuple[Film, ...]
    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    time_ms: npt.NDArray[np.int64]


def read_ratings(folder: Path) -> Ratings:
    """The three files of `folder`.

    Raises: InvalidInput naming file, line and reason; nothing is read.
    """
    viewers = [_viewer(*line) for line in _lines(folder / "ml-100k.user")]
    films = [_film(*line) for line in _lines(folder / "ml-100k.item")]
    user_row = _unique(folder / "ml-100k.user", [viewer.user_id for viewer in viewers])
    item_row = _unique(folder / "ml-100k.item", [film.item_id for film in films])
    path = folder / "ml-100k.inter"
    seen: set[tuple[int, int]] = set()
    rows: list[tuple[int, int, float, int]] = []
    for _, number, fields in _lines(path):
        user, item = user_row.get(fields[0]), item_row.get(fields[1])
        if user is None:
            raise _refuse(path, number, f"user {fields[0]!r} is not in ml-100k.user")
        if item is None:
            raise _refuse(path, number, f"item {fields[1]!r} is not in ml-100k.item")
        if (user, item) in seen:
            raise _refuse(path, number, f"user {fields[0]} has rated item {fields[1]} before")
        seen.add((user, item))
        value = _number(path, number, "rating", fields[2], 1.0, 5.0)
        time_s = _number(path, number, "timestamp", fields[3], 1.0, 2.0**40)
        rows.append((user, item, value, round(time_s * 1000)))
    if not rows:
        raise _refuse(path, 1, "there are no ratings")
    table = np.array(rows, dtype=np.float64)
    table = table[np.argsort(table[:, 3], kind="stable")]
    return Ratings(
        tuple(viewers),
        tuple(films),
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        table[:, 2],
        table[:, 3].astype(np.int64),
    )


def history(ratings: Ratings, *, until_ms: int) -> History:
    """The ratings as events and items, shifted so that the last event falls on `until_ms`."""
    liked = ratings.value >= LIKED
    last = int((ratings.time_ms + FEEDBACK_DELAY_MS).max())
    time_ms = ratings.time_ms + (until_ms - last)
    n = len(time_ms)
    everyone, likes = np.arange(n), np.flatnonzero(liked)
    _, first = np.unique(ratings.user, return_index=True)
    rating = np.concatenate([first, everyone, likes, everyone])
    kind = np.repeat(
        np.array([Kind.USER_UPDATE, Kind.IMPRESSION, Kind.CLICK, Kind.RATE], np.uint8),
        [len(first), n, len(likes), n],
    )
    delay = np.array([0] * (max(Kind) + 1))
    delay[[Kind.USER_UPDATE, Kind.CLICK, Kind.RATE]] = [-1000, FEEDBACK_DELAY_MS, FEEDBACK_DELAY_MS]
    event_time_ms = time_ms[rating] + delay[kind]
    order = np.lexsort((np.arange(len(kind)), rating, event_time_ms))
    columns = _columns(ratings, rating[order], kind[order], event_time_ms[order])
    return History(columns, tuple(_items(ratings.films, int(event_time_ms.min()))))


def _items(films: Sequence[Film], updated_ms: int) -> Iterator[HistoryItem]:
    category = categories(films)
    for film in films:
        yield HistoryItem(
            item_id=film.item_id,
            category=category[film.item_id],
            title=film.title,
            updated_ms=updated_ms,
            attributes={} if math.isnan(film.year) else {"year": film.year},
        )


def categories(films: Sequence[Film]) -> dict[str, str]:
    """item_id -> the rarest of the film's genres in the corpus, ties by name."""
    frequency = Counter(genre for film in films for genre in film.genres)
    return {
        film.item_id: min(film.genres, key=lambda genre: (frequency[genre], genre))
        for film in films
    }


def _columns(
    ratings: Ratings,
    rating: npt.NDArray[np.int64],
    kind: npt.NDArray[np.uint8],
    event_time_ms: npt.NDArray[np.int64],
) -> EventColumns:
    """Event j is of kind[j] and about rating[j]."""
    user_id = [viewer.user_id for viewer in ratings.viewers]
    item_id = [film.item_id for film in ratings.films]
    category = categories(ratings.films)
    genres = sorted(set(category.values()))
    requests = [
        f"ml-100k-{user_id[u]}-{item_id[i]}"
        for u, i in zip(ratings.user.tolist(), ratings.item.tolist(), strict=True)
    ]
    strings = ("", "age", "gender_male", *user_id, *item_id, *genres, *requests)
    first_user = 3
    first_item = first_user + len(user_id)
    first_genre = first_item + len(item_id)
    first_request = first_genre + len(genres)
    genre_of = np.array([genres.index(category[item]) for item in item_id])
    about_item = kind != Kind.USER_UPDATE
    feedback = (kind == Kind.IMPRESSION) | (kind == Kind.CLICK)
    item = ratings.item[rating]
    updates = np.flatnonzero(~about_item)
    zeros = np.zeros(len(kind), np.uint32)
    return EventColumns(
        strings=strings,
        kind=kind,
        event_id=_event_ids(requests, rating, kind),
        event_time_ms=event_time_ms,
        user_id=(first_user + ratings.user[rating]).astype(np.uint32),
        item_id=np.where(about_item, first_item + item, 0).astype(np.uint32),
        request_id=np.where(feedback, first_request + rating, 0).astype(np.uint32),
        position=np.zeros(len(kind), np.int32),
        value=np.where(kind == Kind.RATE, ratings.value[rating], 0.0),
        category=np.where(about_item, first_genre + genre_of[item], 0).astype(np.uint32),
        currency=zeros,
        session_id=zeros,
        device=zeros,
        query=zeros,
        location=zeros,
        attribute_row=np.repeat(updates, 2).astype(np.uint32),
        attribute_name=np.tile(np.array([1, 2], np.uint32), len(updates)),
        attribute_text=np.zeros(2 * len(updates), np.uint32),
        attribute_number=_demographics(ratings.viewers, ratings.user[rating[updates]]),
    )


def _event_ids(
    requests: Sequence[str], rating: npt.NDArray[np.int64], kind: npt.NDArray[np.uint8]
) -> bytes:
    suffix = {int(k): f"/{k.name.lower()}" for k in Kind}
    return event_ids(
        requests[r] + suffix[k] for r, k in zip(rating.tolist(), kind.tolist(), strict=True)
    )


def _demographics(
    viewers: Sequence[Viewer], user: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    return np.array(
        [number for u in user.tolist() for number in (viewers[u].age, viewers[u].gender_male)],
        np.float64,
    )


def _lines(path: Path) -> Iterator[tuple[Path, int, list[str]]]:
    """(path, line number, fields) of each line after the header, which must be the known one."""
    expected = _LAYOUT[path.name]
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"invalid_input: {path} cannot be read: {error.strerror}. Nothing was read."
            " Give the folder with ml-100k.inter, ml-100k.item and ml-100k.user."
        ) from None
    except UnicodeDecodeError as error:
        raise _refuse(path, 1, f"byte {error.start} is not UTF-8") from None
    header, *lines = text.removesuffix("\n").split("\n")
    if tuple(header.split("\t")) != expected:
        raise _refuse(path, 1, f"header {header[:80]!r}, expected {' '.join(expected)!r}")
    for number, line in enumerate(lines, start=2):
        fields = line.split("\t")
        if len(fields) != len(expected):
            raise _refuse(path, number, f"{len(fields)} fields, expected {len(expected)}")
        if not fields[0]:
            raise _refuse(path, number, "the id is empty")
        yield path, number, fields


def _viewer(path: Path, number: int, fields: list[str]) -> Viewer:
    if fields[2] not in ("M", "F"):
        raise _refuse(path, number, f"gender {fields[2]!r}, expected M or F")
    age = _number(path, number, "age", fields[1], 0.0, 150.0)
    return Viewer(fields[0], age, float(fields[2] == "M"))


def _film(path: Path, number: int, fields: list[str]) -> Film:
    item_id, title, year, genres = fields
    if not genres.strip():
        raise _refuse(path, number, "there is no genre")
    known = year[:1].isdigit()  # one film has "unkonwn"
    released = _number(path, number, "year", year, *_YEARS) if known else math.nan
    return Film(item_id, title, released, tuple(genres.split()))


def _unique(path: Path, ids: Sequence[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in rows:
            raise _refuse(path, row + 2, f"id {name!r} is also on line {rows[name] + 2}")
        rows[name] = row
    return rows


def _number(path: Path, line: int, name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _refuse(path, line, f"{name} {text[:40]!r} is not a number") from None
    if not low <= value <= high:
        raise _refuse(path, line, f"{name} {text[:40]} is outside {low:g}..{high:g}")
    return value


def _refuse(path: Path, line: int, reason: str) -> InvalidInput:
    return InvalidInput(f"invalid_input: {path}:{line}: {reason}. Nothing was read. Mend the file.")
