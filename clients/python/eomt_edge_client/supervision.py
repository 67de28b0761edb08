"""Masks as ``supervision.Detections``, for its annotators, zones and trackers.

    pip install 'eomt-edge-client[supervision]'

    from eomt_edge_client.supervision import to_detections
    detections = to_detections(frame)
"""

from __future__ import annotations

import numpy as np

from ._client import Frame

try:
    import supervision
except ImportError as error:
    raise ImportError(f"eomt_edge_client.supervision needs another package: pip install 'eomt-edge-client[supervision]' ({error})") from error

__all__ = ["to_detections"]


def to_detections(frame: Frame) -> supervision.Detections:
    """One detection for each segment, in the table's order, with what pixels the id map gives it.

    A segment under others has its whole box, but only its visible pixels. A class without a label is named by its number. ``tracker_id``
    is None when nothing is tracked. Of a ``copy=False`` frame the result is a copy, or ``Expired`` is raised.
    """
    count = len(frame.segments)
    with frame.guard():
        number = np.array([segment.id for segment in frame.segments], np.uint16)
        mask = frame.ids[None] == number[:, None, None]
    box = np.array([segment.bbox for segment in frame.segments], np.float32).reshape(count, 4)
    tracks = np.array([segment.track_id for segment in frame.segments], np.int64)
    return supervision.Detections(
        xyxy=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1),
        mask=mask,
        confidence=np.array([segment.score for segment in frame.segments], np.float32),
        class_id=np.array([segment.category_id for segment in frame.segments], np.int64),
        tracker_id=tracks if tracks.any() else None,
        data={"class_name": np.array([segment.label or str(segment.category_id) for segment in frame.segments], np.str_)},
    )
