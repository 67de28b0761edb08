"""The daemon's colours, so that a class looks the same in its own pictures and in yours."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np

__all__ = ["class_colour"]


def class_colour(category_id: int) -> Tuple[int, int, int]:
    """Red, green, blue of a class: as ``eomt-edge view --save`` and the display paint it."""
    # crates/overlay/src/lib.rs, step by step: in single precision, so that no colour is off by one
    single = np.float32
    hue = np.modf(single(category_id) * single(0.618034) + single(0.02))[0] * single(6)
    value = single(1 if category_id % 2 == 0 else 0.78)

    def ramp(shift: int) -> int:
        distance: Any = abs((hue + single(shift)) % single(6) - single(3)) - single(1)
        pure = min(max(distance, single(0)), single(1))
        return int(single(255) * value * (single(0.15) + single(0.85) * pure))

    return ramp(0), ramp(4), ramp(2)
