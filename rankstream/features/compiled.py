"""How functions of this package are compiled: once, when their module is loaded, and kept on disk.

The types of the arguments are said beforehand, so no call ever waits for a compiler.

What is kept is made anew when its own file or its types change. So what hangs on the configuration,
as places of columns do, is an argument; a constant would be that of the process that compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

types: Any = numba.types  # some of it has no types


def read_only(dtype: Any, dimensions: int) -> Any:
    """An array that is read, whatever its strides and whether or not it may be written to."""
    return types.Array(dtype, dimensions, "A", readonly=True, aligned=False)


def written(dtype: Any, dimensions: int) -> Any:
    """An array that is written to, contiguous; `dtype` is one of numba's or a record's."""
    if isinstance(dtype, np.dtype):
        return types.Array(numba.from_dtype(dtype), dimensions, "C", aligned=False)
    return types.Array(dtype, dimensions, "C")


def compiled(*arguments: Any, returns: Any = types.void) -> Callable[[Any], Any]:
    """Compile the function below for arguments of these types; it runs without the interpreter."""
    decorated: Callable[[Any], Any] = numba.njit([returns(*arguments)], nogil=True, cache=True)
    return decorated
