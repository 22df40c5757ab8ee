"""MovieLens in its three layouts, each read into the same `Ratings`.

- 100K in RecBole's atomic files: `ml-100k.inter`, `ml-100k.item`, `ml-100k.user`.
- 1M: `ratings.dat`, `movies.dat`, `users.dat`; fields parted by `::`, titles in Latin-1.
- 20M, 25M, latest: `ratings.csv`, `movies.csv`; titles in quotes, nothing known of users.

The ratings of 1M and 25M are read by column: 32 bytes a rating are kept, about 170 at the peak, so
25M want 4.3 GB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.datasets.tables import (
    CODED,
    REAL,
    WHOLE,
    numbers,
    places,
    read_delimited,
    refusal,
    require,
    unreadable,
    whole,
)
from rankstream.errors import InvalidInput

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
_NO_GENRES: Final = "(no genres listed)"


@dataclass(frozen=True)
class Film:
    """A film; `year` nan: unknown; `genres` may be none."""

    item_id: str
    title: str
    year: float
    genres: tuple[str, ...]


@dataclass(frozen=True)
class Viewer:
    """A user; `age` and `gender_male` nan: unknown."""

    user_id: str
    age: float
    gender_male: float


@dataclass(frozen=True, eq=False)
class Ratings:
    """The log called `name`, in order of time and then of the file.

    `user` and `item` int64, shape (n,), are positions in `viewers` and `films`; `value` float64,
    shape (n,), 0.5 to 5; `time_ms` int64, shape (n,), UTC epoch, not shifted.
    """

    name: str
    viewers: tuple[Viewer, ...]
    films: tuple[Film, ...]
    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    time_ms: npt.NDArray[np.int64]


def read_ratings(folder: Path) -> Ratings:
    """The ratings of `folder`, in whichever layout it holds.

    Raises: InvalidInput naming file, line and reason; nothing is read.
    """
    if (folder / "ratings.dat").exists():
        return _read_dat(folder)
    if (folder / "ratings.csv").exists():
        return _read_csv(folder)
    return _read_atomic(folder)


def _read_atomic(folder: Path) -> Ratings:
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
            raise refusal(path, number, f"user {fields[0]!r} is not in ml-100k.user")
        if item is None:
            raise refusal(path, number, f"item {fields[1]!r} is not in ml-100k.item")
        if (user, item) in seen:
            raise refusal(path, number, f"user {fields[0]} has rated item {fields[1]} before")
        seen.add((user, item))
        value = _number(path, number, "rating", fields[2], 1.0, 5.0)
        time_s = _number(path, number, "timestamp", fields[3], 1.0, 2.0**40)
        rows.append((user, item, value, round(time_s * 1000)))
    if not rows:
        raise refusal(path, 1, "there are no ratings")
    table = np.array(rows, dtype=np.float64)
    table = table[np.argsort(table[:, 3], kind="stable")]
    return Ratings(
        "ml-100k",
        tuple(viewers),
        tuple(films),
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        table[:, 2],
        table[:, 3].astype(np.int64),
    )


def _read_dat(folder: Path) -> Ratings:
    """1M: `::` is read as ":" and an empty field between two."""
    path = folder / "users.dat"
    types = {"user": WHOLE, "_1": CODED, "gender": CODED, "_2": CODED, "age": REAL}
    rest = dict.fromkeys(("_3", "_occupation", "_4", "_zip"), CODED)
    table = read_delimited(path, types | rest, delimiter=":", header=False, quoted=False)
    users, gender, age = whole(table["user"]), table["gender"], numbers(table["age"])
    male = np.array([text == "M" for text in gender.to_pylist()], bool)
    female = np.array([text == "F" for text in gender.to_pylist()], bool)
    require(path, male | female, gender, "gender is not M or F", first=1)
    require(path, (age >= 0) & (age <= 150), age, "age is outside 0..150", first=1)
    viewers = tuple(
        Viewer(str(user), years, float(is_male))
        for user, years, is_male in zip(users.tolist(), age.tolist(), male.tolist(), strict=True)
    )
    path = folder / "movies.dat"
    films = _named_films(path, _split(path, "::", "latin-1"), first=1)
    path = folder / "ratings.dat"
    types = {"user": WHOLE, "_1": CODED, "film": WHOLE, "_2": CODED, "value": REAL, "_3": CODED}
    types |= {"time_s": WHOLE}
    table = read_delimited(path, types, delimiter=":", header=False, quoted=False)
    return _joined("ml-1m", path, table, viewers, films, first=1)


def _read_csv(folder: Path) -> Ratings:
    """20M, 25M and latest."""
    path = folder / "movies.csv"
    types = {"movieId": CODED, "title": pa.string(), "genres": CODED}
    table = read_delimited(path, types, delimiter=",", header=True, quoted=True)
    rows = zip(*(table[name].to_pylist() for name in types), strict=True)
    films = _named_films(path, ([*row] for row in rows), first=2)
    path = folder / "ratings.csv"
    types = {"userId": WHOLE, "movieId": WHOLE, "rating": REAL, "timestamp": WHOLE}
    table = read_delimited(path, types, delimiter=",", header=True, quoted=False)
    table = table.rename_columns(["user", "film", "value", "time_s"])
    users = np.unique(whole(table["user"])).tolist()
    viewers = tuple(Viewer(str(user), math.nan, math.nan) for user in users)
    return _joined("ml-csv", path, table, viewers, films, first=2)


def _joined(
    name: str,
    path: Path,
    table: pa.Table,
    viewers: tuple[Viewer, ...],
    films: tuple[Film, ...],
    *,
    first: int,
) -> Ratings:
    """Columns user, film, value and time_s as ratings; `first` is the line of row 0."""
    require(path, np.full(1, len(table) > 0), np.zeros(1), "there are no ratings", first=1)
    folder, suffix = path.parent, path.suffix
    known = np.array([viewer.user_id for viewer in viewers], np.int64)
    user = places(folder / f"users{suffix}", known, path, whole(table["user"]), first=first)
    known = np.array([film.item_id for film in films], np.int64)
    film = places(folder / f"movies{suffix}", known, path, whole(table["film"]), first=first)
    value, time_s = numbers(table["value"]), whole(table["time_s"])
    require(path, (value >= 0.5) & (value <= 5), value, "rating is outside 0.5..5", first=first)
    require(path, (time_s > 0) & (time_s < 2**40), time_s, "timestamp", first=first)
    pair = user * len(films) + film
    order = np.argsort(pair, kind="stable")
    once = np.ones(len(pair), bool)
    once[order[1:]] = pair[order[1:]] != pair[order[:-1]]
    require(path, once, table["film"], "the user has rated this item before", first=first)
    order = np.argsort(time_s, kind="stable")
    return Ratings(
        name, viewers, films, user[order], film[order], value[order], 1000 * time_s[order]
    )


def _named_films(path: Path, rows: Iterable[list[str]], *, first: int) -> tuple[Film, ...]:
    """Films of (id, title that ends in the year, genres parted by "|"), row 0 on line `first`."""
    films = []
    for line, (item_id, title, genres) in enumerate(rows, start=first):
        if not item_id.isascii() or not item_id.isdecimal():
            raise refusal(path, line, f"id {item_id[:40]!r} is not a number")
        year = re.search(r"\((\d{4})\)\s*$", title)
        named = () if genres in ("", _NO_GENRES) else tuple(genres.split("|"))
        films.append(Film(item_id, title.strip(), float(year[1]) if year else math.nan, named))
    return tuple(films)


def _split(path: Path, separator: str, encoding: str) -> Iterator[list[str]]:
    try:
        text = path.read_text(encoding=encoding)
    except OSError as error:
        raise unreadable(path, error) from None
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        fields = line.split(separator)
        if len(fields) != 3:
            raise refusal(path, number, f"{len(fields)} fields, expected 3")
        yield fields


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
        raise refusal(path, 1, f"byte {error.start} is not UTF-8") from None
    header, *lines = text.removesuffix("\n").split("\n")
    if tuple(header.split("\t")) != expected:
        raise refusal(path, 1, f"header {header[:80]!r}, expected {' '.join(expected)!r}")
    for number, line in enumerate(lines, start=2):
        fields = line.split("\t")
        if len(fields) != len(expected):
            raise refusal(path, number, f"{len(fields)} fields, expected {len(expected)}")
        if not fields[0]:
            raise refusal(path, number, "the id is empty")
        yield path, number, fields


def _viewer(path: Path, number: int, fields: list[str]) -> Viewer:
    if fields[2] not in ("M", "F"):
        raise refusal(path, number, f"gender {fields[2]!r}, expected M or F")
    age = _number(path, number, "age", fields[1], 0.0, 150.0)
    return Viewer(fields[0], age, float(fields[2] == "M"))


def _film(path: Path, number: int, fields: list[str]) -> Film:
    item_id, title, year, genres = fields
    if not genres.strip():
        raise refusal(path, number, "there is no genre")
    known = year[:1].isdigit()  # one film has "unkonwn"
    released = _number(path, number, "year", year, *_YEARS) if known else math.nan
    return Film(item_id, title, released, tuple(genres.split()))


def _unique(path: Path, ids: Sequence[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in rows:
            raise refusal(path, row + 2, f"id {name!r} is also on line {rows[name] + 2}")
        rows[name] = row
    return rows


def _number(path: Path, line: int, name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise refusal(path, line, f"{name} {text[:40]!r} is not a number") from None
    if not low <= value <= high:
        raise refusal(path, line, f"{name} {text[:40]} is outside {low:g}..{high:g}")
    return value
