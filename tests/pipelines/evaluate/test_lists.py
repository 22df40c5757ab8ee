"""Ranked lists against ir-measures, which calls trec_eval."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG

from pipelines.evaluate.lists import (
    LIST_METRICS,
    hit_rate,
    ndcg,
    rank_lists,
    recall,
    reciprocal_rank,
)
from rankstream.errors import InvalidInput

LIBRARY = {"ndcg": nDCG, "map": AP, "mrr": RR, "hit_rate": Success, "recall": R}


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    candidates=st.integers(1, 12),
    k=st.integers(1, 12),
    grades=st.integers(1, 4),
)
def test_metrics_of_lists_agree_with_ir_measures(
    seed: int, queries: int, candidates: int, k: int, grades: int
) -> None:
    rng = np.random.default_rng(seed)
    n = queries * candidates
    query = rng.integers(0, queries, n)
    relevance = rng.integers(0, grades + 1, n)
    score = rng.permutation(n).astype(np.float64)  # distinct: trec_eval breaks ties by document id
    qrels = [
        ir_measures.Qrel(str(q), f"d{row}", int(relevance[row])) for row, q in enumerate(query)
    ]
    run = [ir_measures.ScoredDoc(str(q), f"d{row}", score[row]) for row, q in enumerate(query)]
    measures = {measure @ k: name for name, measure in LIBRARY.items()}
    expected = {
        (measures[found.measure], int(found.query_id)): found.value
        for found in ir_measures.iter_calc(list(measures), qrels, run)
    }

    lists = rank_lists(query, score, relevance, k)

    for name, metric in LIST_METRICS.items():
        for q, value, relevant in zip(lists.query, metric(lists, k), lists.relevant, strict=True):
            if relevant:
                assert value == pytest.approx(expected[name, int(q)], abs=1e-6)
            else:
                assert np.isnan(value)
                assert expected[name, int(q)] == 0


def test_ties_are_broken_by_chance_not_by_the_order_of_the_log() -> None:
    query = np.repeat(np.arange(2_000), 4)
    logged_first_is_clicked = np.tile([1, 0, 0, 0], 2_000)

    lists = rank_lists(query, np.zeros(len(query)), logged_first_is_clicked, 1)

    assert hit_rate(lists, 1).mean() == pytest.approx(0.25, abs=0.04)


def test_a_short_list_is_padded_with_what_earns_nothing() -> None:
    lists = rank_lists(["a", "b", "b"], [1.0, 2.0, 1.0], [1, 0, 3], 3)

    assert lists.relevance.tolist() == [[1, 0, 0], [0, 3, 0]]
    assert lists.ideal.tolist() == [[1, 0, 0], [3, 0, 0]]
    assert recall(lists, 1).tolist() == [1, 0]
    assert reciprocal_rank(lists, 3).tolist() == [1, 0.5]
    assert ndcg(lists, 3)[1] == pytest.approx(1 / np.log2(3))


def test_lists_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"lists of 0 candidates"):
        rank_lists([], [], [], 3)
    with pytest.raises(InvalidInput, match=r"lists of 2 candidates with scores \(1,\)"):
        rank_lists([1, 1], [1.0], [0, 1], 3)
    with pytest.raises(InvalidInput, match=r"1 scores are nan \(limit 0\) and 1 relevances"):
        rank_lists([1, 1], [1.0, float("nan")], [-1, 1], 3)
    with pytest.raises(InvalidInput, match=r"k=5 of lists ranked to depth 2"):
        ndcg(rank_lists([1, 1], [1.0, 2.0], [0, 1], 2), 5)
