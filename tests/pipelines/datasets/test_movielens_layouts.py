"""MovieLens 1M and 25M: the same protocol from other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.datasets.movielens import history, read_ratings
from rankstream.errors import InvalidInput
from tests.pipelines.datasets.soundness import assert_sound, told
from tests.pipelines.datasets.test_movielens import a_folder as an_atomic_folder

USERS_DAT = "1::F::1::10::48067\n2::M::56::16::98107-1474\n"
MOVIES_DAT = "10::Star Wars: A New Hope (1977)::Action|War\n20::Am\xe9lie (2001)::Action\n"
RATINGS_DAT = "1::10::4::978300760\n2::20::3::978300700\n1::20::5::978300760\n"
RATINGS_CSV = "userId,movieId,rating,timestamp\n7,20,3.5,100\n7,10,4.0,90\n"
MOVIES_CSV = (
    "movieId,title,genres\n"
    '10,"American President, The (1995)",Comedy|Drama\n'
    "20,Untold,(no genres listed)\n"
)


def a_dat_folder(
    root: Path, *, ratings: str = RATINGS_DAT, movies: str = MOVIES_DAT, users: str = USERS_DAT
) -> Path:
    for name, text in (("ratings", ratings), ("movies", movies), ("users", users)):
        (root / f"{name}.dat").write_text(text, encoding="latin-1")
    return root


def a_csv_folder(root: Path, *, ratings: str = RATINGS_CSV, movies: str = MOVIES_CSV) -> Path:
    (root / "ratings.csv").write_text(ratings, encoding="utf-8")
    (root / "movies.csv").write_text(movies, encoding="utf-8")
    return root


def test_the_1m_layout_is_read_with_users_and_titles_in_latin_1(tmp_path: Path) -> None:
    ratings = read_ratings(a_dat_folder(tmp_path))

    assert [(v.user_id, v.age, v.gender_male) for v in ratings.viewers] == [
        ("1", 1.0, 0.0),
        ("2", 56.0, 1.0),
    ]
    assert [(f.item_id, f.title, f.year, f.genres) for f in ratings.films] == [
        ("10", "Star Wars: A New Hope (1977)", 1977.0, ("Action", "War")),
        ("20", "Amélie (2001)", 2001.0, ("Action",)),
    ]
    assert ratings.time_ms.tolist() == [978300700_000, 978300760_000, 978300760_000]
    assert ratings.user.tolist() == [1, 0, 0]
    assert ratings.item.tolist() == [1, 0, 1]
    assert ratings.value.tolist() == [3.0, 4.0, 5.0]


def test_the_csv_layout_is_read_without_users_and_without_genres_where_there_are_none(
    tmp_path: Path,
) -> None:
    found = history(read_ratings(a_csv_folder(tmp_path)))

    assert told(found) == [
        ("impression", "7", "10", 0),
        ("click", "7", "10", 1_000),
        ("rate", "7", "10", 1_000),
        ("impression", "7", "20", 10_000),
        ("rate", "7", "20", 11_000),
    ]
    assert found.columns.event_time_ms[0] == 90_000
    assert [(i.item_id, i.category, i.title, dict(i.attributes)) for i in found.items] == [
        ("10", "Comedy", "American President, The (1995)", {"year": 1995.0}),
        ("20", "", "Untold", {}),
    ]


def test_every_layout_makes_a_sound_history(tmp_path: Path) -> None:
    for name, make in (("a", an_atomic_folder), ("d", a_dat_folder), ("c", a_csv_folder)):
        folder = tmp_path / name
        folder.mkdir()

        assert_sound(history(read_ratings(make(folder))))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"ratings": "1::10::4\n"}, r"ratings\.dat:1: Expected 7 columns, got 5"),
        ({"ratings": RATINGS_DAT + "1::x::4::5\n"}, r"ratings\.dat:4: film: .*'x'"),
        ({"ratings": RATINGS_DAT + "\n"}, r"ratings\.dat:4: "),
        ({"ratings": RATINGS_DAT + "1::30::4::5\n"}, r"ratings\.dat:4: '30': there is no such id"),
        ({"ratings": RATINGS_DAT + "3::10::4::5\n"}, r"dat:4: '3': .* no such id in users\.dat"),
        ({"ratings": RATINGS_DAT + "2::10::6::5\n"}, r"ratings\.dat:4: '6\.0': rating is outside"),
        ({"ratings": RATINGS_DAT + "2::10::nan::5\n"}, r"ratings\.dat:4: 'nan': rating is outside"),
        ({"ratings": RATINGS_DAT + "2::10::5::0\n"}, r"ratings\.dat:4: '0': timestamp"),
        ({"ratings": RATINGS_DAT + "2::20::5::9\n"}, r"ratings\.dat:4: '20': the user has rated"),
        ({"ratings": ""}, r"ratings\.dat:1: "),
        ({"movies": "10::No genres (1999)\n"}, r"movies\.dat:1: 2 fields, expected 3"),
        ({"movies": MOVIES_DAT + "a::T::War\n"}, r"movies\.dat:3: id 'a' is not a number"),
        ({"movies": MOVIES_DAT + "10::T::War\n"}, r"movies\.dat:3: '10': the id is there twice"),
        ({"users": "1::X::1::10::48067\n"}, r"users\.dat:1: 'X': gender is not M or F"),
        ({"users": "1::M::200::10::48067\n"}, r"users\.dat:1: '200\.0': age is outside"),
    ],
)
def test_a_malformed_1m_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_ratings(a_dat_folder(tmp_path, **files))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"ratings": "userId,movieId,rating\n"}, r"ratings\.csv:1: header .* lacks timestamp"),
        ({"ratings": RATINGS_CSV + "7,10\n"}, r"ratings\.csv:4: Expected 4 columns, got 2"),
        ({"ratings": RATINGS_CSV + "7,,4,9\n"}, r"ratings\.csv:4: movieId: "),
        ({"movies": "movieId,title,genres\n"}, r"movies\.csv:2: .*there are no rows"),
    ],
)
def test_a_malformed_csv_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_ratings(a_csv_folder(tmp_path, **files))


def test_a_layout_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    (a_dat_folder(tmp_path) / "movies.dat").unlink()

    with pytest.raises(InvalidInput, match=r"movies\.dat cannot be read: No such file"):
        read_ratings(tmp_path)
