"""KuaiRand-Pure, log of 25 April to 4 May 2022: what can be had from it, and what we get.

Train until 1 May, test 2 to 4 May (local dates). The references are LightGBM on counters of many
keys and the users' history before the log, with the outcomes known
- daily: before the day of the impression began,
- live: strictly before the impression,
- file_order: in the rows above. 4,681 groups of rows repeat an exposure: same user, video and
  millisecond, same outcome. The second of them finds the outcome of the first in its counters, so
  this tells a ranker what it is to predict; it is here because published figures count so.

`stream` is the product: the log as events, and before it the users' last exposures, whose order is
known and whose times are not; replayed through the state and `snapshot` that serve, with the log's
numbers of users and videos as features (ATTRIBUTES). Rows are of the log alone. `mmoe` is one
network on both labels beside a LightGBM on each, on the same rows.

A repeated exposure is one event, so the product learns it once and answers it once. What is tested
is each row of the file, as published figures are: the repeats are easy (16 % are clicked), which is
worth .004 of AUC to whoever is asked about them. Figures `.once` are of each exposure once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.figures import Figure, figure
from bench.quality.scores import SEEDS, calibrated, figures, fitted, scored, scores_of
from pipelines.datasets.kuairand import USER_FACTS, history
from pipelines.evaluate.metrics import ranker_metrics
from pipelines.features.replay import ItemFacts, TrainingRows, Windows, training_rows
from pipelines.train.calibration import Method
from pipelines.train.neural_rankers import fit_mmoe
from pipelines.train.sampling import fit_on_fewer
from pipelines.train.trees import fit_lightgbm
from rankstream.features.attributes import ITEM_ATTRIBUTES

TEST_FROM_DATE: Final = 20220502
TEST_FROM_MS: Final = 1_651_420_800_000  # its midnight, UTC+8
DAY_MS: Final = 86_400_000
UTC8_MS: Final = 8 * 3_600_000
LABELS: Final = ("is_click", "long_view")
EXPOSURE: Final = ("user_id", "video_id", "time_ms")
# In the environment of the process that measures: rows are laid out by them.
ATTRIBUTES: Final[Mapping[str, str]] = {
    "RANKSTREAM_USER_ATTRIBUTES": ",".join(
        name for name in USER_FACTS if name not in ("is_live_streamer", "is_video_author")
    ),
    "RANKSTREAM_ITEM_ATTRIBUTES": "duration_s,upload_day,video_type,music_type",
}
STRENGTH: Final = 8.0
DOWNSAMPLED: Final = 0.1  # share of impressions without a click
PARAMETERS: Final[Mapping[str, Any]] = {
    "n_estimators": 250,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_child_samples": 100,
    "subsample": 0.8,
    "subsample_freq": 1,
    "colsample_bytree": 0.2,
    "reg_lambda": 10.0,
    "verbose": -1,
}
KEYS: Final = (
    ("user_id",),
    ("video_id",),
    ("author_id",),
    ("tag",),
    ("tab",),
    ("music_id",),
    ("length",),
    ("user_id", "tab"),
    ("video_id", "tab"),
    ("author_id", "tab"),
    ("user_id", "tag"),
    ("user_id", "author_id"),
    ("user_id", "video_id"),
    ("tab", "length"),
    ("tag", "tab"),
)
NUMBERS: Final = (
    "tab",
    "duration_ms",
    "music_type",
    "register_days",
    "follow_user_num",
    "fans_user_num",
    "friend_user_num",
    *(f"onehot_feat{k}" for k in range(18)),
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Before:
    """Sums over earlier rows of the same key; earlier by `place`, ascending with the rows."""

    place: npt.NDArray[np.int64]  # shape (n,), of each row in the order of what is known
    asked: npt.NDArray[np.int64]  # shape (n,): rows whose place is below this are known

    def sums(self, key: npt.NDArray[np.int64], values: Array) -> Array:
        """Shape (n, k + 1): the sums of `values`, shape (n, k), and how many rows."""
        width = int(self.place.max()) + 2
        code = key * width + self.place
        order = np.argsort(code, kind="stable")
        total = np.zeros((len(key) + 1, values.shape[1] + 1))
        np.cumsum(np.hstack([values, np.ones((len(key), 1))])[order], axis=0, out=total[1:])
        until = np.searchsorted(code[order], key * width + self.asked)
        return total[until] - total[np.searchsorted(code[order], key * width)]


def regimes(time_ms: npt.NDArray[np.int64]) -> dict[str, Before]:
    """What is known of each row, by regime; rows are in order of time."""
    since_ms = time_ms - time_ms[0] // DAY_MS * DAY_MS
    midnight_ms = (since_ms + UTC8_MS) // DAY_MS * DAY_MS - UTC8_MS
    row = np.arange(len(time_ms))
    return {
        "daily": Before(since_ms, np.maximum(midnight_ms, 0)),
        "live": Before(since_ms, since_ms),
        "file_order": Before(row, row),
    }


def references(folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """quality.kuairand.{label}.{regime}.{auc,logloss,ece}."""
    rows = _joined(folder)
    test = (rows["date"] >= TEST_FROM_DATE).to_numpy()
    first = np.flatnonzero(~rows[test].duplicated(list(EXPOSURE)).to_numpy())
    fixed = _fixed(rows, folder)
    found = []
    for regime, before in regimes(rows["time_ms"].to_numpy()).items():
        features = np.hstack([fixed, _counters(rows, before, train=~test)])
        for label in LABELS:
            observed = rows[label].to_numpy(np.uint8)
            scores, once = [], []
            for seed in SEEDS:
                model = lgb.LGBMClassifier(**PARAMETERS, random_state=seed)
                model.fit(features[~test], observed[~test])
                pctr = np.asarray(model.predict_proba(features[test]))[:, 1]
                scores.append(ranker_metrics(observed[test], pctr))
                once.append(ranker_metrics(observed[test][first], pctr[first]))
            say(f"kuairand {label}, {regime}: {scores[0]}")
            found += figures(f"quality.kuairand.{label}.{regime}", scores)
            found += figures(f"quality.kuairand.{label}.{regime}.once", once)
    return found


def _times_shown(folder: Path, rows: TrainingRows) -> npt.NDArray[np.int64]:
    """How many rows of the file each exposure is, shape (n,); 0: it is of the history."""
    listed = pd.read_parquet(folder / "impressions.parquet", columns=list(EXPOSURE))
    ids = (np.array(names)[of] for names, of in ((rows.users, rows.user), (rows.items, rows.item)))
    user, video = (column.astype(np.int64) for column in ids)
    asked = pd.MultiIndex.from_arrays([user, video, rows.time_ms])
    times = listed.groupby(list(EXPOSURE)).size().reindex(asked, fill_value=0)
    return np.asarray(times, np.int64)


def stream(folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """quality.kuairand.{label}.{auc,logloss,ece} of the product's own features.

    Those of is_click are calibrated; .uncalibrated is the same without, and
    quality.kuairand.is_click.downsampled_ece is of a ranker fitted on a tenth of the impressions
    without a click, corrected for it and calibrated.

    The process must have ATTRIBUTES in its environment.
    """
    assert set(ITEM_ATTRIBUTES) >= set(ATTRIBUTES["RANKSTREAM_ITEM_ATTRIBUTES"].split(","))
    log = history(folder, with_history=True)
    items = {item.item_id: ItemFacts(item.category, item.attributes) for item in log.items}
    windows = Windows()
    until_ms = int(log.columns.event_time_ms.max()) + windows.conversion_window_ms
    rows = training_rows(log.columns, items, until_ms=until_ms, windows=windows)
    times = _times_shown(folder, rows)
    before = rows.time_ms < TEST_FROM_MS
    train = rows.take(np.flatnonzero(before & (times > 0)))
    once = rows.take(np.flatnonzero(~before))
    every = np.repeat(np.arange(len(once)), times[~before])
    test = once.take(every)
    learned = train.features, train.clicked
    found = []
    prefix = "quality.kuairand.is_click"
    rankers = fitted(calibrated(fit_lightgbm, Method.BEST), learned)
    plain = fitted(calibrated(fit_lightgbm, Method.NONE), learned)
    for name, of, asked in (
        ("", rankers, test),
        (".once", rankers, once),
        (".uncalibrated", plain, test),
    ):
        scores = scores_of(of, (asked.features, asked.clicked))
        say(f"kuairand is_click, stream{name}: {scores[0]}")
        found += figures(f"{prefix}{name}", scores)
    fewer = partial(fit_on_fewer, fit_lightgbm, share=DOWNSAMPLED)
    scores = scored(calibrated(fewer, Method.BEST), learned, (test.features, test.clicked))
    say(f"kuairand is_click, stream, downsampled: {scores[0]}")
    found.append(figure(f"{prefix}.downsampled_ece", [score["ece"] for score in scores], ""))
    return [*found, *tasks(train, test, once, say)]


def tasks(
    train: TrainingRows, test: TrainingRows, once: TrainingRows, say: Callable[[str], None]
) -> list[Figure]:
    """quality.kuairand.long_view.{auc,logloss,ece} of a tree, and .mmoe of both labels."""
    observed = {"is_click": test.clicked, "long_view": test.purchased.astype(np.uint8)}
    found = []
    trees = fitted(fit_lightgbm, (train.features, train.purchased.astype(np.uint8)))
    for name, asked in (("", test), (".once", once)):
        of_trees = scores_of(trees, (asked.features, asked.purchased.astype(np.uint8)))
        say(f"kuairand long_view, stream{name}: {of_trees[0]}")
        found += figures(f"quality.kuairand.long_view{name}", of_trees)
    scores: dict[str, list[dict[str, float]]] = {label: [] for label in LABELS}
    for seed in SEEDS:
        ranker = fit_mmoe(train.features, train.clicked, train.purchased, seed=seed)
        assert ranker.predict_pcvr is not None
        heads = {"is_click": ranker.predict, "long_view": ranker.predict_pcvr}
        for label, predict in heads.items():
            scores[label].append(ranker_metrics(observed[label], predict(test.features)))
            say(f"kuairand {label}, mmoe, seed {seed}: {scores[label][-1]}")
    for label in LABELS:
        found += figures(f"quality.kuairand.{label}.mmoe", scores[label])
    return found


def gains(found: list[Figure]) -> list[Figure]:
    """How far the product is from the counters that are refreshed daily."""
    value = {one.id: one.value for one in found}
    return [
        figure(
            f"quality.kuairand.{label}.{name}_gain",
            [
                sign
                * (
                    value[f"quality.kuairand.{label}.{name}"]
                    - value[f"quality.kuairand.{label}.daily.{name}"]
                )
            ],
            "",
        )
        for label in LABELS
        for name, sign in (("auc", 1.0), ("logloss", -1.0))
    ]


def _joined(folder: Path) -> pd.DataFrame:
    rows = pd.read_parquet(folder / "impressions.parquet")
    rows = rows.sort_values("time_ms", kind="stable").reset_index(drop=True)
    rows = rows.merge(pd.read_parquet(folder / "video_features_basic.parquet"), "left", "video_id")
    rows = rows.merge(pd.read_parquet(folder / "user_features.parquet"), "left", "user_id")
    rows["length"] = np.minimum(rows["duration_ms"] // 5_000, 40)
    return rows


def _counters(rows: pd.DataFrame, before: Before, train: Array) -> Array:
    played = np.minimum(rows["play_time_ms"] / np.maximum(rows["duration_ms"], 1), 2.0)
    values = np.stack(
        [rows["is_click"], rows["long_view"], played, np.log1p(rows["play_time_ms"] / 1000)], axis=1
    ).astype(np.float64)
    prior = values[train].mean(axis=0)
    columns = []
    for names in KEYS:
        key = rows.groupby(list(names), dropna=False, sort=False).ngroup().to_numpy()
        sums = before.sums(key, values)
        count = sums[:, -1:]
        columns += [np.log1p(count), (sums[:, :-1] + prior * STRENGTH) / (count + STRENGTH)]
    return np.hstack(columns)


def _fixed(rows: pd.DataFrame, folder: Path) -> Array:
    """What does not change during the log: attributes, the hour, the history before it."""
    numbers = rows[list(NUMBERS)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    hour = (rows["time_ms"].to_numpy() + UTC8_MS) // 3_600_000 % 24
    uploaded = pd.to_datetime(rows["upload_dt"]).to_numpy("datetime64[D]").astype(np.int64)
    age_days = rows["time_ms"].to_numpy() / DAY_MS - uploaded
    return np.column_stack([numbers, hour, age_days, _history(rows, folder)])


def _history(rows: pd.DataFrame, folder: Path) -> Array:
    """Of each row's user and video in the sequences before the log."""
    path = folder / "user_history_before_20220425.parquet"
    users = pd.read_parquet(path).set_index("user_id").reindex(rows["user_id"])
    watched, long_watched = (
        users[name].map(lambda seq: len(seq) if isinstance(seq, np.ndarray) else 0).to_numpy()
        for name in ("watch_seq", "long_watch_seq")
    )
    everyone = pd.read_parquet(path)
    seen, seen_long = (
        everyone[name].explode().dropna().value_counts() for name in ("watch_seq", "long_watch_seq")
    )
    views, longs = (
        rows["video_id"].map(counts).fillna(0).to_numpy(np.float64) for counts in (seen, seen_long)
    )
    return np.column_stack(
        [
            np.log1p(users["history_len"].fillna(0).to_numpy(np.float64)),
            (long_watched + 2) / (np.maximum(watched, long_watched) + 5),
            np.log1p(long_watched),
            np.log1p(views),
            (longs + 2) / (views + 5),
        ]
    )
