"""Receive segmentation masks of a running eomt-edge daemon: see ``Subscriber``, and ``eomt_edge_client.aio`` for asyncio."""

from ._client import (
    DEFAULT_SOCKET, Closed, ConnectError, DescriptorsLost, Drops, Ended, Error, Expired, Frame, ProtocolError, Segment, Subscriber, TimedOut,
    __version__, main,
)

__all__ = [
    "DEFAULT_SOCKET", "Closed", "ConnectError", "DescriptorsLost", "Drops", "Ended", "Error", "Expired", "Frame", "ProtocolError", "Segment",
    "Subscriber", "TimedOut", "__version__", "main",
]
