"""What type checkers must see of the package: run by mypy --strict and pyright, not by Python.

Each `ignore` stands on a line that must be an error; a needless one is an error itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import rerun
import supervision
from typing_extensions import assert_type

import eomt_edge_client
from eomt_edge_client import Drops, Ended, Expired, Frame, Segment, Subscriber
from eomt_edge_client.aio import AsyncSubscriber
from eomt_edge_client.rerun import log
from eomt_edge_client.supervision import to_detections


def frames() -> None:
    with Subscriber(Path("/run/eomt-edge/masks.sock"), timeout=2.0, reconnect=True, copy=False) as masks:
        assert_type(masks, Subscriber)
        assert_type(masks.labels, List[str])
        assert_type(masks.metadata, Dict[str, Any])
        assert_type(masks.skipped, int)
        assert_type(masks.fileno(), int)
        assert_type(masks.next(0.0), Optional[Frame])
        assert_type(masks.latest(), Optional[Frame])
        for frame in masks:
            one(frame)
        masks.nxt()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    Subscriber(3.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Subscriber("/run/masks.sock", None, False, False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def one(frame: Frame) -> None:
    assert_type(frame.ids, npt.NDArray[np.uint16])
    assert_type(frame.rgb, Optional[npt.NDArray[np.uint8]])
    assert_type(frame.frame_bytes, Optional[npt.NDArray[np.uint8]])
    assert_type(frame.drops, Drops)
    assert_type(frame.stamp_ns, Optional[int])
    assert_type(frame.width, int)
    assert_type(frame.segments, List[Segment])
    assert_type(frame.segments[0].label, Optional[str])
    assert_type(frame.segments[0].bbox, Tuple[int, int, int, int])
    assert_type(frame.stage_us, Tuple[int, ...])
    assert_type(frame.checksum_ok, Optional[bool])
    assert_type(frame.valid, bool)
    assert_type(frame.copy(), Frame)
    with frame.guard():
        frame.check()
    frame.rgb.shape  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    frame.sequence = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(to_detections(frame), supervision.Detections)
    log(frame, "masks", rerun.get_data_recording())


async def tasks() -> None:
    async with AsyncSubscriber("/run/eomt-edge/masks.sock", timeout=2.0) as masks:
        assert_type(masks, AsyncSubscriber)
        assert_type(await masks.next(), Optional[Frame])
        async for frame in masks:
            one(frame)
        for _frame in masks:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
            pass


def errors(error: Exception) -> None:
    if isinstance(error, Ended):
        assert_type(error.clean, bool)
    if isinstance(error, (Expired, eomt_edge_client.TimedOut)):
        raise error
