"""Masks of a daemon in an asyncio program.

    from eomt_edge_client.aio import AsyncSubscriber

    async with AsyncSubscriber("/run/eomt-edge/masks.sock", reconnect=True) as masks:
        async for frame in masks:
            print(frame.sequence, [s.label for s in frame.segments])

It waits on the loop's own poll (``loop.add_reader``): no thread, nothing that polls. Whatever waits may be cancelled: a frame that was not
handed out yet is there at the next call, or a newer one.
"""

from __future__ import annotations

import asyncio
from typing import AsyncIterator, Optional, Tuple, TypeVar

from ._client import _T, Closed, Error, Frame, _deadline, _Reader, _Steps

__all__ = ["AsyncSubscriber"]


_A = TypeVar("_A", bound="AsyncSubscriber")


class AsyncSubscriber(_Reader):
    """As ``eomt_edge_client.Subscriber``, for one task at a time. It connects in ``async with``, or in ``connect``.

    Iteration raises ``Ended`` when the daemon ends, unless ``reconnect=True``, and ``TimedOut`` after ``timeout`` seconds without a frame.
    """

    _parked: Optional[Tuple[asyncio.AbstractEventLoop, Optional[int], asyncio.Future[None]]] = None
    _busy = False
    _open = False

    async def connect(self) -> None:
        """Connects, within ``timeout`` (five seconds when it is None)."""
        self.close()
        await self._walk(self._connecting(self._connect_deadline()))
        self._open = True

    async def __aenter__(self: _A) -> _A:
        await self.connect()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Frame]:
        return self

    async def __anext__(self) -> Frame:
        return await self._take(self._following(_deadline(self.timeout)))

    async def next(self, timeout: Optional[float] = None) -> Optional[Frame]:
        """Waits for a frame newer than the last one; None when ``timeout`` (seconds) passed. Raises ``Ended``."""
        return await self._take(self._newer(_deadline(timeout)))

    def close(self) -> None:
        """Leaves the ring. A task that waits for a frame gets ``Closed``."""
        self._open = False
        parked, self._parked = self._parked, None
        if parked is not None:
            loop, fd, ready = parked
            if fd is not None:
                loop.remove_reader(fd)
            if not ready.done():
                ready.set_exception(Closed("the subscriber was closed"))
        super().close()

    async def _take(self, steps: _Steps[_T]) -> _T:
        if not self._open:
            raise Closed(f"the subscriber of {self.path} is not connected: use `async with`, or connect()")
        # a daemon that is faster than this task must not keep others from running
        await asyncio.sleep(0)
        return await self._walk(steps)

    async def _walk(self, steps: _Steps[_T]) -> _T:
        """Does all steps, and lets other tasks run in between."""
        if self._busy:
            raise Error(f"another task waits for masks of {self.path} already: a subscriber serves one")
        self._busy = True
        try:
            fd, seconds = next(steps)
            while True:
                fd, seconds = steps.send(await self._park(fd, seconds))
        except StopIteration as end:
            value: _T = end.value
            return value
        finally:
            self._busy = False
            steps.close()  # a cancelled wait must not leave half a connection

    async def _park(self, fd: Optional[int], seconds: Optional[float]) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        if fd is not None:
            loop.add_reader(fd, _wake, ready)
        self._parked = (loop, fd, ready)
        try:
            # not wait_for, which before Python 3.12 can lose a cancellation that comes together with the result
            done, _ = await asyncio.wait({ready}, timeout=seconds)
        finally:
            # close() has taken both back already
            if self._parked is not None:
                self._parked = None
                if fd is not None:
                    loop.remove_reader(fd)
        for future in done:
            future.result()
        return bool(done)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
