"""Masks in Rerun.

    pip install 'eomt-edge-client[rerun]'

    import rerun
    from eomt_edge_client.rerun import log
    rerun.init("masks", spawn=True)
    for frame in masks:
        log(frame)
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from ._client import Frame
from .colours import class_colour

try:
    import rerun
except ImportError as error:
    raise ImportError(f"eomt_edge_client.rerun needs another package: pip install 'eomt-edge-client[rerun]' ({error})") from error

__all__ = ["log"]


def log(frame: Frame, entity: str = "masks", recording: Optional[rerun.RecordingStream] = None) -> None:
    """Logs ``ENTITY/segments``, and ``ENTITY/camera`` when the daemon publishes the picture as RGB, at the time of capture.

    Ids of segments are new in every frame, so every frame has its own annotation context: label and colour of each id. Id 0, no segment, is
    transparent: Rerun would paint it. The timeline ``capture`` is CLOCK_MONOTONIC, as all stamps of the ring.
    """
    nothing = rerun.AnnotationInfo(id=0, label="", color=(0, 0, 0, 0))
    infos = [nothing, *(
        rerun.AnnotationInfo(id=segment.id, label=segment.label or str(segment.category_id), color=class_colour(segment.category_id))
        for segment in frame.segments
    )]
    with frame.guard():
        segments = rerun.SegmentationImage(frame.ids)
        camera = None if frame.rgb is None else rerun.Image(frame.rgb)
    rerun.set_time("capture", duration=np.timedelta64(frame.captured_ns, "ns"), recording=recording)
    rerun.set_time("frame", sequence=frame.sequence, recording=recording)
    if camera is not None:
        rerun.log(f"{entity}/camera", camera, recording=recording)
    rerun.log(entity, rerun.AnnotationContext(infos), recording=recording)
    rerun.log(f"{entity}/segments", segments, recording=recording)
