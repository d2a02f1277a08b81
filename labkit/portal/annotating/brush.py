"""Masks that were painted, as Label Studio packs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def unpack(packed: Sequence[int], height: int, width: int) -> np.ndarray:
    """Return a painted mask.

    Parameters
    ----------
    packed : sequence of int
        Bytes of the run-length code.
    height, width : int
        Size of the picture, pixels.

    Returns
    -------
    numpy.ndarray
        Rows x columns of bool: where something was painted.

    Raises
    ------
    ValueError
        It is damaged, or of another size.

    Notes
    -----
    The code is that of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack: number
    of values (32 bits), bits of a value less 1 (5 bits), four lengths less 1 (4 bits each); then
    runs: whether one value is repeated (1 bit), which length its count has (2 bits), count less 1,
    and the value or values. The values are the picture's pixels, red, green, blue and opacity.
    Label Studio's own export to arrays is not used: it names masks by their labels alone, with
    ``/`` replaced, so that one can take another's place.
    """
    import numpy as np

    bits = "".join(format(byte, "08b") for byte in packed)
    place = 0

    def read(size: int) -> int:
        nonlocal place
        place += size
        if place > len(bits):
            raise ValueError("the mask ends too early")
        return int(bits[place - size : place], 2)

    count, size = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    if count != height * width * 4:
        raise ValueError(f"the mask has {count} values, not {height} x {width} x 4")
    values = np.zeros(count, np.uint32)
    done = 0
    while done < count:
        repeated = read(1)
        end = done + read(lengths[read(2)]) + 1
        if end > count:
            raise ValueError("the mask is longer than it says")
        values[done:end] = read(size) if repeated else [read(size) for _ in range(done, end)]
        done = end
    return values.reshape(height, width, 4)[:, :, 3] > 0
