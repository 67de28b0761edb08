"""Frames in shared memory (`copy=False`), with a real daemon that overtakes them."""

from __future__ import annotations

import gc
import os
import signal
import unittest
from typing import Any, List

import numpy as np
import numpy.typing as npt
from daemon import PATIENCE, Daemon, descriptors_and_mappings, until

from eomt_edge_client import Expired, Frame, Subscriber


def segments_add_up(frame: Frame) -> bool:
    """Panoptic areas are the pixels of the map, so half a map of another frame gives itself away."""
    return all(int((frame.ids == segment.id).sum()) == segment.area for segment in frame.segments)


class Views(unittest.TestCase):
    def test_a_view_is_the_copy_of_the_same_frame(self) -> None:
        with Daemon("ring.include_frame=true", "ring.checksum=true") as daemon:
            with Subscriber(daemon.socket, PATIENCE, copy=False) as views, Subscriber(daemon.socket, PATIENCE) as copies:
                daemon.pause()  # writes over nothing
                view, own = views.latest(), copies.latest()
                assert view is not None and own is not None
                self.assertEqual(view.sequence, own.sequence)
                self.assertTrue(view.valid and own.valid)
                assert view.rgb is not None and own.rgb is not None
                np.testing.assert_array_equal(view.ids, own.ids)
                np.testing.assert_array_equal(view.rgb, own.rgb)
                assert view.frame_bytes is not None
                np.testing.assert_array_equal(view.frame_bytes, own.rgb.ravel())
                self.assertEqual((view.frame_format, view.drops, view.failed), ("RGB3", own.drops, own.failed))
                self.assertEqual((view.segments, view.width, view.height, view.checksum_ok), (own.segments, own.width, own.height, True))
                self.assertTrue(segments_add_up(view))
                copied = view.copy()
                self.assertIs(copied.copy(), copied)
                for array in (view.ids, view.rgb, view.frame_bytes):
                    self.assertFalse(array.flags.owndata)
                    with self.assertRaises(ValueError):
                        array[0] = 7
                    with self.assertRaises(ValueError):
                        array.flags.writeable = True
                daemon.signal(signal.SIGCONT)
                until("the writer to come round", lambda: not view.valid)
                self.assertTrue(copied.valid and own.valid)
                np.testing.assert_array_equal(copied.ids, own.ids)

    def test_an_overtaken_view_says_so(self) -> None:
        with Daemon("ring.slots=2", "ring.include_frame=true", "ring.checksum=true") as daemon, \
                Subscriber(daemon.socket, PATIENCE, copy=False) as masks:
            view = next(masks)
            escaped = view.ids
            until("the writer to come round", lambda: not view.valid)
            for use in (lambda: view.ids, lambda: view.rgb, lambda: view.frame_bytes, lambda: view.checksum_ok, view.check, view.copy):
                with self.assertRaisesRegex(Expired, "the daemon has written over it"):
                    use()
            with self.assertRaises(Expired), view.guard():
                self.fail("a guard that begins too late")
            # what stays readable: numbers, and memory (of other frames by now)
            self.assertEqual((view.width, view.height, escaped.shape), (64, 48, (48, 64)))
            self.assertIn(f"frame {view.sequence} ", repr(view))

    def test_a_guard_ends_with_the_truth(self) -> None:
        with Daemon("ring.slots=2") as daemon, Subscriber(daemon.socket, PATIENCE, copy=False) as masks:
            with self.assertRaises(Expired), next(masks).guard():
                self.overtaken(masks)
            # an error that half of another frame may have caused
            with self.assertRaises(Expired) as caught, next(masks).guard():
                self.overtaken(masks)
                raise IndexError("of torn data")
            self.assertIsInstance(caught.exception.__context__, IndexError)
        with Daemon() as daemon, Subscriber(daemon.socket, PATIENCE, copy=False) as masks:
            daemon.pause()
            view = next(masks)
            with self.assertRaisesRegex(IndexError, "of sound data"), view.guard():
                raise IndexError("of sound data")
            with view.guard():
                self.assertTrue(segments_add_up(view))

    def overtaken(self, masks: Subscriber) -> None:
        """Waits until the writer has come round, without taking a frame."""
        with Subscriber(masks.path, PATIENCE) as witness:
            until("the writer to come round", lambda: next(witness).sequence > masks._last + 4)

    def test_what_a_guard_lets_pass_is_of_one_frame(self) -> None:
        """At full speed through two slots, with a wait in the midst of every third computation."""
        passed = expired = 0
        with Daemon("ring.slots=2") as daemon, Subscriber(daemon.socket, PATIENCE, copy=False) as masks:
            for number, view in enumerate(masks):
                try:
                    with view.guard():
                        ids = view.ids  # escapes, as into a library
                        upper = ids[:24].copy()
                        if number % 3 == 2:
                            until("the writer to come round", lambda: not view.valid)
                        whole = np.concatenate([upper, ids[24:]])
                    self.assertTrue(all(int((whole == s.id).sum()) == s.area for s in view.segments), f"frame {view.sequence} is torn")
                    passed += 1
                except Expired:
                    expired += 1
                if passed >= 100 and expired >= 50:
                    break

    def test_the_next_frame_ends_the_last_one(self) -> None:
        with Daemon("ring.slots=64") as daemon, Subscriber(daemon.socket, PATIENCE, copy=False) as masks:
            first = next(masks)
            second = next(masks)
            self.assertTrue(second.valid)
            with self.assertRaisesRegex(Expired, f"frame {first.sequence} of .*masks.sock has gone from shared memory: a later one was taken"):
                first.ids
            masks.close()
            with self.assertRaisesRegex(Expired, "the subscriber was closed"):
                second.ids

    def test_views_outlive_the_daemon_but_not_a_reconnection(self) -> None:
        with Daemon("ring.slots=64") as daemon, Subscriber(daemon.socket, PATIENCE, reconnect=True, copy=False) as masks:
            daemon.pause()
            view = next(masks)
            daemon.end(signal.SIGKILL)
            self.assertTrue(view.valid and segments_add_up(view))
            until("the socket to go", lambda: not os.path.exists(daemon.socket))
            daemon.start()
            after = next(masks)
            self.assertTrue(after.segments is not None and not view.valid)
            with self.assertRaisesRegex(Expired, "connected again"):
                view.ids

    def test_closing_with_live_arrays_neither_crashes_nor_leaks(self) -> None:
        def hold(socket: str) -> List[npt.NDArray[Any]]:
            kept: List[npt.NDArray[Any]] = []
            with Subscriber(socket, PATIENCE, copy=False) as masks:
                for _ in range(3):
                    view = next(masks)
                    assert view.rgb is not None
                    kept += [view.ids, view.rgb[::2, ::2]]
            return kept

        with Daemon("ring.include_frame=true") as daemon:
            gc.collect()  # of other tests
            before = descriptors_and_mappings()
            for _ in range(20):
                kept = hold(daemon.socket)
                self.assertEqual([array.max() <= 255 for array in kept], [True] * 6)
                # the mapping and its descriptor
                self.assertEqual(len(descriptors_and_mappings()), len(before) + 2)
                del kept
                self.assertEqual(descriptors_and_mappings(), before)


if __name__ == "__main__":
    unittest.main()
