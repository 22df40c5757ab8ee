"""The trees of an ONNX graph, walked for many rows at once.

ONNX Runtime takes a row and a tree at a time. Here a block of rows goes down one tree together, a
level at a time, which the processor does many rows per instruction. Before that, what the rows have
in common (they are one request's: same user, same context, same time) is decided once: a branch on
a column that is equal in all rows is cut out of the tree. Neither changes which leaf a row reaches.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

Floats = npt.NDArray[np.float32]
types: Any = numba.types  # some of it has no types

OPERATOR: Final = "TreeEnsembleRegressor"
SUMS: Final = "sums"  # what the rest of a graph takes
# Rows of a block: their columns stay in the first cache.
BLOCK: Final = 64
# With fewer rows, pruning takes longer than it saves.
PRUNED_ROWS_MIN: Final = 64
LEAF: Final = b"LEAF"
_MODES: Final = (b"BRANCH_LT", b"BRANCH_LEQ", LEAF)


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees whose leaves are summed, each laid out level by level, both children side by side.

    Tree t has nodes first[t] to first[t + 1], its root first, and `depth[t]` levels of branches.
    Arrays of nodes have shape (k,): a row goes to the tree's node number `child` if row[feature] <
    threshold, and to the one behind it if not. A leaf has threshold inf and is its own child.
    """

    first: npt.NDArray[np.int64]
    depth: npt.NDArray[np.int64]
    child: npt.NDArray[np.uint32]
    feature: npt.NDArray[np.uint32]
    threshold: Floats
    leaf: Floats
    base: np.float32

    def sums(self, features: Floats) -> Floats:
        """The sum of each row's leaves and `base`, shape (n, 1).

        Added in float32 in the order of the trees, whatever rows come together.

        Args:
            features: shape (n, d), finite, n >= 0.
        """
        rows = np.ascontiguousarray(features, np.float32)
        out = np.full((len(rows), 1), self.base, np.float32)
        nodes = (self.first, self.depth, self.child, self.feature, self.threshold, self.leaf)
        if len(rows) < PRUNED_ROWS_MIN:
            _add(rows, np.arange(rows.shape[1]), nodes, out[:, 0])
        else:
            _prune_and_add(rows, nodes, _scratch(len(self.child)), out[:, 0])
        return out


def split(graph: bytes) -> tuple[Forest, bytes] | None:
    """A ranker's graph as its forest and the graph of what is made of the sums; None: no forest.

    That graph takes `sums` float32 [n, 1] in place of `features`. A forest of another form than
    the one that training exports (one sum, compared with < or <=) is left to ONNX Runtime.
    """
    model = onnx.load_model_from_string(graph)
    found = [node for node in model.graph.node if "features" in node.input]
    if len(found) != 1 or (found[0].op_type, list(found[0].output)) != (OPERATOR, [SUMS]):
        return None
    node = found[0]
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    forest = _forest(given)
    if forest is None:
        return None
    model.graph.node.remove(node)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(SUMS, TensorProto.FLOAT, ["n", 1]))
    rest: bytes = model.SerializeToString()
    return forest, rest


def _forest(given: dict[str, Any]) -> Forest | None:
    modes = given["nodes_modes"]
    plain = (
        given.get("n_targets") == 1
        and given.get("aggregate_function", b"SUM") == b"SUM"
        and given.get("post_transform", b"NONE") == b"NONE"
        and set(modes) <= set(_MODES)
    )
    if not plain:
        return None
    keys = list(zip(given["nodes_treeids"], given["nodes_nodeids"], strict=True))
    place = {key: k for k, key in enumerate(keys)}
    below = zip(given["nodes_truenodeids"], given["nodes_falsenodeids"], modes, keys, strict=True)
    children = [
        None if mode == LEAF else (place[tree, yes], place[tree, no])
        for yes, no, mode, (tree, _) in below
    ]
    inner = {k for pair in children if pair is not None for k in pair}
    source, child, first, depth = _laid_out(
        [k for k in range(len(keys)) if k not in inner], children
    )
    value = np.array(given["nodes_values"], np.float32)
    # x <= v is x < the next float: one comparison serves both.
    ties_left = np.array([mode == b"BRANCH_LEQ" for mode in modes])
    value = np.where(ties_left, np.nextafter(value, np.float32(np.inf)), value)
    value[[mode == LEAF for mode in modes]] = np.inf
    leaf = np.zeros(len(keys), np.float32)
    targets = zip(given["target_treeids"], given["target_nodeids"], strict=True)
    leaf[[place[key] for key in targets]] = np.array(given["target_weights"], np.float32)
    return Forest(
        first=np.array(first, np.int64),
        depth=np.array(depth, np.int64),
        child=np.array(child, np.uint32),
        feature=np.array(given["nodes_featureids"], np.uint32)[source],
        threshold=value[source],
        leaf=leaf[source],
        base=np.float32(given.get("base_values", [0.0])[0]),
    )


def _laid_out(
    roots: list[int], children: list[tuple[int, int] | None]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Which node comes where, and `child`, `first` and `depth` of a Forest."""
    source: list[int] = []
    child: list[int] = []
    first, depth = [0], []
    for root in roots:
        level, levels, begin = [root], 0, len(source)
        while level:
            below: list[int] = []
            end = len(source) - begin + len(level)
            for k in level:
                pair = children[k]
                child.append(len(source) - begin if pair is None else end + len(below))
                source.append(k)
                below.extend(pair or ())
            levels += bool(below)
            level = below
        first.append(len(source))
        depth.append(levels)
    return source, child, first, depth


_local = threading.local()


def _scratch(nodes: int) -> tuple[npt.NDArray[Any], ...]:
    """Room for the nodes of a forest, each thread's own; what is in it is of no account."""
    kept: tuple[npt.NDArray[Any], ...] | None = getattr(_local, "arrays", None)
    if kept is None or len(kept[0]) < nodes:
        types = (np.int64, np.uint32, np.uint32, np.float32, np.float32)
        _local.arrays = kept = tuple(np.empty(nodes, dtype) for dtype in types)
    return kept


def _array(dtype: Any, dimensions: int = 1, *, readonly: bool = False) -> Any:
    return types.Array(dtype, dimensions, "C", readonly=readonly)


# Compiled when this module is loaded, not when the first answer waits.
_ROWS: Final = _array(types.float32, 2, readonly=True)
_SIZES, _NUMBERS, _FLOATS = _array(types.int64), _array(types.uint32), _array(types.float32)
_NODES: Final = types.Tuple((_SIZES, _SIZES, _NUMBERS, _NUMBERS, _FLOATS, _FLOATS))
_SCRATCH: Final = types.Tuple((_SIZES, _NUMBERS, _NUMBERS, _FLOATS, _FLOATS))


@numba.njit([types.void(_ROWS, _SIZES, _NODES, _FLOATS)], nogil=True, cache=True)
def _add(rows: Any, columns: Any, nodes: Any, out: Any) -> None:
    """Add to each of `out`, shape (n,), the leaves that its row reaches.

    `columns`: of rows, shape (n, d), those that `feature` numbers; `nodes`: the fields of a Forest.
    """
    first, depth, child, feature, threshold, leaf = nodes
    n, wide = len(rows), len(columns)
    block = np.empty(max(wide, 1) * BLOCK, np.float32)
    at, total = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.float32)
    for start in range(0, n, BLOCK):
        width = min(BLOCK, n - start)
        for c in range(wide):
            for i in range(width):
                block[c * BLOCK + i] = rows[start + i, columns[c]]
        for i in range(width):
            total[i] = out[start + i]
        for tree in range(len(depth)):
            begin, end = first[tree], first[tree + 1]
            # Slices: the compiler then knows that what is written is none of what is read.
            children, features = child[begin:end], feature[begin:end]
            thresholds, leaves = threshold[begin:end], leaf[begin:end]
            for i in range(width):
                at[i] = 0
            for _ in range(depth[tree]):
                for i in range(width):
                    node = np.uint64(at[i])
                    x = block[np.uint64(features[node]) * np.uint64(BLOCK) + np.uint64(i)]
                    at[i] = children[node] + np.uint32(x >= thresholds[node])
            for i in range(width):
                total[i] += leaves[np.uint64(at[i])]
        for i in range(width):
            out[start + i] = total[i]


@numba.njit(nogil=True, cache=True)
def _decided(node: Any, begin: Any, nodes: Any, equal: Any, row: Any) -> Any:
    """Where a walk comes to that does not look at a column in which rows differ."""
    _, _, child, feature, threshold, _ = nodes
    below = begin + child[node]
    while below != node and equal[feature[node]]:
        node = below + np.int64(row[feature[node]] >= threshold[node])
        below = begin + child[node]
    return node


@numba.njit([types.void(_ROWS, _NODES, _SCRATCH, _FLOATS)], nogil=True, cache=True)
def _prune_and_add(rows: Any, nodes: Any, scratch: Any, out: Any) -> None:
    """As `_add`, without the branches that all rows take alike."""
    first, depth, child, feature, threshold, leaf = nodes
    source, new_child, new_feature, new_threshold, new_leaf = scratch
    n, d = rows.shape
    equal = np.ones(d, np.bool_)
    for i in range(1, n):
        for j in range(d):
            equal[j] &= rows[i, j] == rows[0, j]
    columns, number = np.flatnonzero(~equal), np.zeros(d, np.uint32)
    for c in range(len(columns)):
        number[columns[c]] = c
    new_first, new_depth = np.empty_like(first), np.empty_like(depth)
    new_end = 0
    for tree in range(len(depth)):
        begin = new_end
        new_first[tree] = begin
        source[begin] = _decided(first[tree], first[tree], nodes, equal, rows[0])
        new_end += 1
        at, levels, last = begin, 0, begin
        while at < new_end:
            k = source[at]
            below = first[tree] + child[k]
            new_leaf[at], new_threshold[at] = leaf[k], threshold[k]
            if below == k:
                new_child[at], new_feature[at] = at - begin, 0
            else:
                new_child[at], new_feature[at] = new_end - begin, number[feature[k]]
                source[new_end] = _decided(below, first[tree], nodes, equal, rows[0])
                source[new_end + 1] = _decided(below + 1, first[tree], nodes, equal, rows[0])
                new_end += 2
            if at == last and new_end > at + 1:
                levels, last = levels + 1, new_end - 1
            at += 1
        new_depth[tree] = levels
    new_first[len(depth)] = new_end
    pruned = (new_first, new_depth, new_child, new_feature, new_threshold, new_leaf)
    _add(rows, columns, pruned, out)
