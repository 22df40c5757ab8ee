"""Which films are hidden, and what counts as found."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.quality import cold
from bench.quality.cold import Draw, catalog_of, drawn, found, pure_svd
from pipelines.datasets.movielens import history, read_ratings
from tests.pipelines.datasets.test_movielens import INTER, ITEM, USER, a_folder

USERS, FILMS = 30, 12


def a_draw(root: Path) -> Draw:
    """Two of twelve films hidden; even users rate and like even films, odd ones odd films."""
    ratings = "".join(
        f"{user}\t{film}\t5\t{100 * user + film}\n"
        for user in range(1, USERS + 1)
        for film in range(1, FILMS + 1)
        if (user + film) % 2 == 0
    )
    films = "".join(
        f"{f}\tFilm\t1990\t{'War' if f % 2 else 'Drama'}\n" for f in range(1, FILMS + 1)
    )
    users = "".join(f"{user}\t30\tM\tother\t1\n" for user in range(1, USERS + 1))
    folder = a_folder(root, inter=INTER + ratings, item=ITEM + films, user=USER + users)
    read = read_ratings(folder)
    return drawn(read, history(read).items, seed=1)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "HIDDEN", 2)
    monkeypatch.setattr(cold, "DEPTH", 1)


def test_of_hidden_films_nothing_is_known_but_who_should_find_them(tmp_path: Path) -> None:
    draw = a_draw(tmp_path)

    hidden = {film.item_id for film in draw.hidden}
    assert len(hidden) == 2
    assert not hidden & {film.item_id for film in draw.films}
    for user in range(USERS):
        liked = {name for name in hidden if (user + 1 + int(name)) % 2 == 0}
        assert draw.wanted.get(user, set()) == liked
        known = [draw.films[row].item_id for row in draw.newest_first(user).tolist()]
        own = [str(film) for film in range(FILMS, 0, -1) if (user + 1 + film) % 2 == 0]
        assert known == [film for film in own if film not in hidden]


def test_a_hidden_film_is_found_by_those_who_like_its_like(tmp_path: Path) -> None:
    draw = a_draw(tmp_path)
    assert {film.category for film in draw.hidden} == {"War", "Drama"}
    catalog = catalog_of(draw, pure_svd(draw))

    values = found(draw, catalog, catalog.cold)

    # One candidate each: the right one for all.
    assert values["recall500"] == 1.0
    assert values["hidden500"] == 1.0
    assert values["everywhere"] == 0.0
