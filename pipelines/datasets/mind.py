"""MIND, the log of a news page, as our events in event time.

Protocol
- A line of behaviors.tsv is a request; each news in it was shown at the time of the line: an
  impression and, if it is marked 1, a click one second later (the log has no time of clicks).
- Position is 0. The publisher shuffled the order of the news in a line, so the place there is no
  position: using it would teach that positions do not matter.
- The request id names line id, user and time: the parts train, dev and test count lines anew.
- A news that repeats in a line is one impression, clicked if one of the repeats is.
- Times are taken as UTC; the log does not name their zone.
- `history` (clicks before the log) has an order but no times and is not used; it is the same in
  all lines of a user.
- Items are the lines of news.tsv: category, title, the subcategory as a tag, the abstract as the
  description, cut where an item update's must end. Of users nothing is known.
- The test part has no marks and is refused.

Wu et al., "MIND: A Large-scale Dataset for News Recommendation", ACL 2020; Microsoft Research
licence, for research only. A news shown takes 400 bytes while it is read: 2.3 GB for the 5.8
million of MIND-small's training part. Measured on 1.5 million generated ones, 5 s a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.history import History
from pipelines.datasets.log import Log, Part, as_history, nowhere
from pipelines.datasets.tables import (
    CODED,
    SHOWN_MAX,
    TEXT,
    WHOLE,
    first_of_each,
    joined,
    numbered,
    read_delimited,
    refusal,
    require,
    whole,
)
from rankstream.contracts.base import (
    DESCRIPTION_CHARACTERS_MAX,
    TAG_CHARACTERS_MAX,
    TITLE_CHARACTERS_MAX,
)
from rankstream.contracts.columns import Ints, Kind

FEEDBACK_DELAY_MS: Final = 1_000
_TIME: Final = "%m/%d/%Y %I:%M:%S %p"
_BEHAVIORS: Final = {
    "line": TEXT,
    "user": CODED,
    "time": TEXT,
    "_history": TEXT,
    "impressions": TEXT,
}
_NEWS: Final = {
    "news": TEXT,
    "category": CODED,
    "subcategory": TEXT,
    "title": TEXT,
    "abstract": TEXT,
    **dict.fromkeys(("_url", "_title_entities", "_abstract_entities"), TEXT),
}


def history(folder: Path, *, until_ms: int | None = None) -> History:
    """The impressions and clicks as events, and the news.

    Args:
        folder: holds behaviors.tsv and news.tsv of one part of the log.
        until_ms: the last event is shifted there; None keeps the times of the log.

    Raises: InvalidInput naming file, line and reason; nothing is read.
    """
    news_path, path = folder / "news.tsv", folder / "behaviors.tsv"
    news = read_delimited(news_path, _NEWS, delimiter="\t", header=False, quoted=False)
    once = np.zeros(len(news), bool)
    once[first_of_each(news["news"].combine_chunks())] = True
    require(news_path, once, news["news"], "the news is there twice", first=1)
    for name, most in (("title", TITLE_CHARACTERS_MAX), ("subcategory", TAG_CHARACTERS_MAX)):
        short = pc.less_equal(pc.utf8_length(news[name]), most).to_numpy().astype(bool)
        require(news_path, short, news[name], f"{name} is over {most} characters", first=1)
    lines = read_delimited(path, _BEHAVIORS, delimiter="\t", header=False, quoted=False)
    require(path, np.full(1, len(lines) > 0), np.zeros(1), "there are no impressions", first=1)
    named = pc.not_equal(lines["user"].cast(TEXT), "").to_numpy().astype(bool)
    require(path, named, lines["user"], "the user is empty", first=1)
    shown = _shown(path, lines)
    log = _log(news_path, news, lines, shown)
    clicks = np.flatnonzero(shown.clicked)
    parts = [
        Part(Kind.IMPRESSION, np.arange(len(shown.line)), shown.time_ms),
        Part(Kind.CLICK, clicks, shown.time_ms[clicks] + FEEDBACK_DELAY_MS),
    ]
    return as_history(log, parts, until_ms=until_ms)


@dataclass(frozen=True, eq=False)
class _Shown:
    """n news shown, in order of time: on which line, which news, when, and was it clicked."""

    line: Ints
    news: pa.StringArray
    time_ms: Ints
    clicked: npt.NDArray[np.bool_]


def _shown(path: Path, lines: pa.Table) -> _Shown:
    moment = pc.strptime(lines["time"], format=_TIME, unit="ms", error_is_null=True)
    require(path, moment.is_valid().to_numpy(), lines["time"], f"time is not {_TIME}", first=1)
    time_ms = whole(moment.cast(WHOLE))
    require(path, time_ms > 0, lines["time"], "time is before 1970", first=1)
    order = np.argsort(time_ms, kind="stable")
    marks = pc.split_pattern(lines["impressions"].take(pa.array(order)).combine_chunks(), " ")
    line = order[pc.list_parent_indices(marks).to_numpy()]
    marks = pc.list_flatten(marks)
    marked = pc.match_substring_regex(marks, r"^\S+-[01]$").to_numpy(zero_copy_only=False)
    if not marked.all():
        place = int(np.flatnonzero(~marked)[0])
        reason = f"impression {marks[place].as_py()[:SHOWN_MAX]!r} is not <news>-0 or <news>-1"
        raise refusal(path, int(line[place]) + 1, reason)
    news = pc.utf8_slice_codeunits(marks, 0, -2)
    clicked = pc.ends_with(marks, "-1").to_numpy(zero_copy_only=False)
    # A click of a repeat counts for the first.
    pair = joined(pa.array(line), news).dictionary_encode().indices.to_numpy()
    any_click = np.zeros(len(pair), bool)
    any_click[pair[clicked]] = True
    _, first = np.unique(pair, return_index=True)
    first.sort()
    line = line[first]
    return _Shown(line, news.take(pa.array(first)), time_ms[line], any_click[pair[first]])


def _log(news_path: Path, news: pa.Table, lines: pa.Table, shown: _Shown) -> Log:
    users, user = numbered(lines["user"])
    item = pc.index_in(shown.news, news["news"].combine_chunks())
    if item.null_count:
        missing = shown.news.filter(item.is_null())[0].as_py()
        raise refusal(news_path, len(news), f"there is no line for {missing!r}, which was shown")
    categories, category = numbered(news["category"])
    n = len(shown.line)
    when = pc.strptime(lines["time"], format=_TIME, unit="ms").cast(WHOLE).combine_chunks()
    users_of = pa.array(users).take(pa.array(user))
    requests = joined("mind", lines["line"].combine_chunks(), users_of, when)
    return Log(
        users=users,
        items=news["news"].to_pylist(),
        user=user[shown.line],
        item=whole(item),
        names=joined(requests.take(pa.array(shown.line)), shown.news),
        requests=requests,
        request=shown.line,
        position=np.zeros(n, np.int32),
        category=np.where(np.array(categories)[category] == "", -1, category),
        location=nowhere(n),
        categories=categories,
        titles=news["title"].to_pylist(),
        descriptions=pc.utf8_slice_codeunits(
            news["abstract"], 0, DESCRIPTION_CHARACTERS_MAX
        ).to_pylist(),
        tags=[(tag,) if tag else () for tag in news["subcategory"].to_pylist()],
    )
