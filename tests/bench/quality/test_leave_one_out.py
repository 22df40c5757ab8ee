"""Who is left out, and what counts as found."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.quality.leave_one_out import Task, ease, left_out, lists, ranks, read_task, successors
from pipelines.datasets.movielens import read_ratings
from tests.pipelines.datasets.test_movielens import INTER, a_folder


def a_task() -> Task:
    return Task(
        users=2,
        items=5,
        user=np.array([0, 0, 0, 1, 1]),
        item=np.array([0, 1, 2, 0, 1]),
        liked=np.ones(5, bool),
        time_ms=np.arange(5),
        category=np.zeros(5, np.int64),
        held_user=np.array([1]),
        held_item=np.array([2]),
    )


def test_the_last_film_liked_is_left_out_and_what_came_after_is_known(tmp_path: Path) -> None:
    log = INTER + "1\t10\t5\t100\n1\t20\t4\t200\n1\t30\t2\t300\n2\t10\t3\t50\n"

    task = read_task(a_folder(tmp_path, inter=log))

    assert (task.held_user.tolist(), task.held_item.tolist()) == ([0], [1])
    assert sorted(zip(task.user.tolist(), task.item.tolist(), strict=True)) == [
        (0, 0),
        (0, 2),
        (1, 0),
    ]


def test_an_earlier_like_is_left_out_with_all_later_ones_unknown(tmp_path: Path) -> None:
    log = INTER + "1\t10\t5\t100\n1\t20\t4\t200\n1\t30\t2\t300\n2\t10\t3\t50\n"

    task = left_out(read_ratings(a_folder(tmp_path, inter=log)), earlier=1)

    assert (task.held_user.tolist(), task.held_item.tolist()) == ([0], [0])
    assert sorted(zip(task.user.tolist(), task.item.tolist(), strict=True)) == [(0, 2), (1, 0)]


def test_films_that_were_rated_are_no_candidates_and_ties_are_before() -> None:
    task = a_task()
    scores = np.array([[0.0] * 5, [9.0, 9.0, 1.0, 1.0, 0.0]])

    assert ranks(task, scores).tolist() == [1]


def test_a_film_that_followed_the_user_s_last_ones_is_found_first() -> None:
    task = a_task()

    for score in (successors, ease, lists):
        assert ranks(task, score(task)).tolist() == [0]
