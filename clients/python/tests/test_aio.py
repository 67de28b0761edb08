"""The asyncio reader with a real daemon: on asyncio's own loop, and on uvloop with EOMT_EDGE_TEST_LOOP=uvloop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import threading
import time
import unittest
from typing import Any, Coroutine, List, Optional

from daemon import PATIENCE, Daemon, descriptors_and_mappings, until

from eomt_edge_client import Closed, ConnectError, Ended, Error, Expired, Frame, TimedOut
from eomt_edge_client.aio import AsyncSubscriber


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    if os.environ.get("EOMT_EDGE_TEST_LOOP") == "uvloop":
        import uvloop
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    # a callback's exception would only be logged
    problems: List[str] = []
    loop.set_exception_handler(lambda _loop, context: problems.append(str(context)))
    try:
        loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    assert not problems, problems


async def elsewhere(daemon: Daemon, number: int) -> None:
    """Ends a daemon without holding up the loop."""
    await asyncio.get_running_loop().run_in_executor(None, daemon.end, number)


class Asyncio(unittest.TestCase):
    def setUp(self) -> None:
        self.before = descriptors_and_mappings()

    def tearDown(self) -> None:
        self.assertEqual(descriptors_and_mappings(), self.before)

    def test_frames_come_while_other_tasks_run(self) -> None:
        async def main(daemon: Daemon) -> None:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            task = asyncio.ensure_future(other())
            sequences = []
            async with AsyncSubscriber(daemon.socket, PATIENCE) as masks:
                async for frame in masks:
                    self.assertEqual(frame.checksum_ok, True)
                    sequences.append((frame.sequence, turns))
                    if len(sequences) == 50:
                        break
                self.assertGreater(len(masks.labels), 2)
            task.cancel()
            for (a, turns_a), (b, turns_b) in zip(sequences, sequences[1:]):
                self.assertTrue(a < b and turns_a < turns_b, sequences)

        with Daemon("ring.checksum=true") as daemon:
            run(main(daemon))

    def test_waiting_is_not_polling(self) -> None:
        class Counting(AsyncSubscriber):
            waits = 0

            async def _park(self, fd: Optional[int], seconds: Optional[float]) -> bool:
                self.waits += 1
                return await super()._park(fd, seconds)

        async def main(daemon: Daemon) -> None:
            async with Counting(daemon.socket) as masks:
                daemon.pause()
                await masks.next()
                masks.waits = 0
                self.assertIsNone(await masks.next(3.0))
                self.assertLessEqual(masks.waits, 5, "a look each second, and one for what the event said before")

        with Daemon() as daemon:
            run(main(daemon))

    def test_the_end_is_told(self) -> None:
        async def main(number: int, clean: bool) -> None:
            with Daemon() as daemon:
                async with AsyncSubscriber(daemon.socket, PATIENCE) as masks:
                    await masks.next()
                    ending = asyncio.ensure_future(elsewhere(daemon, number))
                    with self.assertRaises(Ended) as caught:
                        async for _frame in masks:
                            pass
                    self.assertEqual(caught.exception.clean, clean)
                    await ending

        run(main(signal.SIGTERM, True))
        run(main(signal.SIGKILL, False))

    def test_it_waits_for_a_daemon_that_comes_back(self) -> None:
        async def main(daemon: Daemon) -> None:
            async with AsyncSubscriber(daemon.socket, PATIENCE, reconnect=True) as masks:
                first = await masks.next()
                assert first is not None
                await elsewhere(daemon, signal.SIGKILL)
                gone = time.monotonic_ns()
                waiting = asyncio.ensure_future(take(masks, lambda frame: frame.captured_ns > gone))
                await asyncio.sleep(0.2)
                self.assertFalse(waiting.done())
                await asyncio.get_running_loop().run_in_executor(None, daemon.start)
                self.assertEqual((await waiting).source_id, first.source_id)
            short = AsyncSubscriber(daemon.socket, 0.3, reconnect=True)
            await short.connect()
            await elsewhere(daemon, signal.SIGKILL)
            with self.assertRaisesRegex(TimedOut, "did not come back within 0.3 s"):
                async for _frame in short:
                    pass
            short.close()

        with Daemon() as daemon:
            run(main(daemon))

    def test_cancelling_loses_no_frame_and_leaks_nothing(self) -> None:
        async def main(daemon: Daemon) -> None:
            async with AsyncSubscriber(daemon.socket, PATIENCE, reconnect=True) as masks:
                daemon.pause()
                frame = await masks.next()
                assert frame is not None
                for _ in range(50):
                    waiting = asyncio.ensure_future(masks.next())
                    await asyncio.sleep(0.001)
                    waiting.cancel()
                    with self.assertRaises(asyncio.CancelledError):
                        await waiting
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(masks.next(), 0.05)
                daemon.signal(signal.SIGCONT)
                after = await masks.next()
                assert after is not None
                # cancelled while it waits for the daemon's return: the next call goes on waiting
                await elsewhere(daemon, signal.SIGKILL)
                until("the socket to go", lambda: not os.path.exists(daemon.socket))
                for _ in range(20):
                    waiting = asyncio.ensure_future(take(masks, lambda frame: False))
                    await asyncio.sleep(0.01)
                    waiting.cancel()
                    with self.assertRaises(asyncio.CancelledError):
                        await waiting
                await asyncio.get_running_loop().run_in_executor(None, daemon.start)
                self.assertEqual((await take(masks, lambda frame: True)).source_id, frame.source_id)

        with Daemon() as daemon:
            run(main(daemon))

    def test_a_connection_that_is_cancelled_is_closed(self) -> None:
        """Something listens, and says nothing."""
        async def main(path: str) -> None:
            masks = AsyncSubscriber(path, 0.2)
            with self.assertRaisesRegex(TimedOut, "no hello came in time"):
                await masks.connect()
            held = descriptors_and_mappings()
            for timeout in (None, PATIENCE):
                masks = AsyncSubscriber(path, timeout)
                connecting = asyncio.ensure_future(masks.connect())
                await asyncio.sleep(0.05)
                self.assertEqual(len(descriptors_and_mappings()), len(held) + 1)
                connecting.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await connecting
                self.assertEqual(descriptors_and_mappings(), held)
            with self.assertRaisesRegex(ConnectError, "No such file"):
                await AsyncSubscriber(path + "-none").connect()

        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"{directory}/masks.sock")
            listener.listen(64)
            run(main(f"{directory}/masks.sock"))

    def test_misuse_is_told(self) -> None:
        async def main(daemon: Daemon) -> None:
            masks = AsyncSubscriber(daemon.socket)
            with self.assertRaisesRegex(Closed, "is not connected"):
                await masks.next()
            async with masks:
                daemon.pause()
                await masks.next()
                waiting = asyncio.ensure_future(masks.next())
                await asyncio.sleep(0.01)
                with self.assertRaisesRegex(Error, "another task waits"):
                    await masks.next()
                masks.close()
                with self.assertRaisesRegex(Closed, "was closed"):
                    await waiting
                with self.assertRaisesRegex(Closed, "is not connected"):
                    await masks.next()

        with Daemon() as daemon:
            run(main(daemon))

    def test_views_expire_here_too(self) -> None:
        async def main(daemon: Daemon) -> None:
            async with AsyncSubscriber(daemon.socket, PATIENCE, copy=False) as masks:
                first = await masks.next()
                second = await masks.next()
                assert first is not None and second is not None
                self.assertEqual(second.copy().sequence, second.sequence)
                with self.assertRaises(Expired):
                    first.ids

        with Daemon("ring.slots=64") as daemon:
            run(main(daemon))

    def test_no_thread_is_started(self) -> None:
        async def main(daemon: Daemon) -> None:
            before = set(threading.enumerate())
            async with AsyncSubscriber(daemon.socket, PATIENCE) as masks:
                await masks.next()
                self.assertLessEqual(set(threading.enumerate()), before)

        with Daemon() as daemon:
            run(main(daemon))


async def take(masks: AsyncSubscriber, wanted: Any) -> Frame:
    async for frame in masks:
        if wanted(frame):
            return frame
    raise AssertionError("iteration ends with an error only")


if __name__ == "__main__":
    unittest.main()
