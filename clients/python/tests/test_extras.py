"""Frames of a real daemon in the real packages supervision and rerun-sdk, against computations by hand."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import unittest
from typing import Any, Dict, List, Tuple

import numpy as np
import rerun
import rerun.chunk
import supervision
from daemon import PATIENCE, Daemon

from eomt_edge_client import Expired, Frame, Segment, Subscriber
from eomt_edge_client.colours import class_colour
from eomt_edge_client.rerun import log
from eomt_edge_client.supervision import to_detections


def changed(frame: Frame, **values: Any) -> Frame:
    return Frame(**{**{field.name: frame.__dict__[field.name] for field in dataclasses.fields(Frame)}, **values})


class Supervision(unittest.TestCase):
    def test_detections_are_the_segments(self) -> None:
        with Daemon() as daemon, Subscriber(daemon.socket, PATIENCE) as masks:
            frame = next(masks)
        self.assertGreaterEqual(len(frame.segments), 3, "a frame of few segments proves little")
        got = to_detections(frame)
        self.assertEqual(len(got), len(frame.segments))
        assert got.mask is not None and got.class_id is not None and got.confidence is not None
        for index, segment in enumerate(frame.segments):
            pixels = {(x, y) for y in range(frame.height) for x in range(frame.width) if frame.ids[y, x] == segment.id}
            self.assertEqual({(int(x), int(y)) for y, x in zip(*np.nonzero(np.asarray(got.mask)[index]))}, pixels)
            # supervision's own box of a mask ends at its last pixel, ours behind it
            tight = supervision.mask_to_xyxy(np.asarray(got.mask)[index][None])[0]
            np.testing.assert_array_equal(got.xyxy[index], tight + np.array([0, 0, 1, 1]))
            self.assertEqual((got.class_id[index], got.data["class_name"][index]), (segment.category_id, segment.label))
            self.assertAlmostEqual(float(got.confidence[index]), segment.score)
        self.assertEqual([float(area) for area in got.area], [float(s.area) for s in frame.segments])
        assert got.tracker_id is not None
        self.assertEqual(got.tracker_id.tolist(), [segment.track_id for segment in frame.segments])
        self.assertEqual(len(set(got.tracker_id.tolist()) - {0}), len(frame.segments), "the daemon tracks all of them")
        # what people do with them
        picture = np.zeros((frame.height, frame.width, 3), np.uint8)
        painted = supervision.MaskAnnotator(opacity=1.0).annotate(picture.copy(), got)
        np.testing.assert_array_equal(painted.any(axis=2), frame.ids != 0)
        category = frame.segments[0].category_id
        chosen = got[got.class_id == category]
        assert isinstance(chosen, supervision.Detections)
        self.assertEqual(len(chosen), sum(segment.category_id == category for segment in frame.segments))

    def test_empty_frames_tracks_and_nameless_classes(self) -> None:
        with Daemon() as daemon, Subscriber(daemon.socket, PATIENCE) as masks:
            frame = next(masks)
        empty = to_detections(changed(frame, segments=[], ids=np.zeros_like(frame.ids)))
        self.assertEqual((len(empty), empty.tracker_id), (0, None))
        segment = Segment(id=1, category_id=300, label=None, score=0.5, area=2, bbox=(3, 4, 2, 1), track_id=4_000_000_000)
        ids = np.zeros_like(frame.ids)
        ids[4, 3:5] = 1
        tracked = to_detections(changed(frame, segments=[segment], ids=ids))
        assert tracked.tracker_id is not None
        self.assertEqual((tracked.tracker_id.tolist(), list(tracked.data["class_name"])), ([4_000_000_000], ["300"]))
        self.assertEqual(tracked.xyxy.tolist(), [[3, 4, 5, 5]])
        untracked = Segment(id=1, category_id=300, label=None, score=0.5, area=2, bbox=(3, 4, 2, 1), track_id=0)
        self.assertIsNone(to_detections(changed(frame, segments=[untracked], ids=ids)).tracker_id)

    def test_a_view_that_was_overtaken_gives_nothing(self) -> None:
        with Daemon("ring.slots=64") as daemon, Subscriber(daemon.socket, PATIENCE, copy=False) as masks:
            first = next(masks)
            self.assertEqual(len(to_detections(first)), len(first.segments))
            next(masks)
            with self.assertRaises(Expired):
                to_detections(first)


def read_back(path: str) -> Dict[Tuple[str, str], List[Tuple[int, Any]]]:
    """(frame, value) of a recording by entity and component, read by Rerun."""
    values: Dict[Tuple[str, str], List[Tuple[int, Any]]] = {}
    for chunk in rerun.chunk.RrdReader(path).stream():
        batch = chunk.to_record_batch()
        if "frame" not in batch.schema.names:
            continue
        captures = [stamp.value for stamp in batch.column("capture")]
        for column in batch.schema.names:
            if ":" in column:
                for number, (frame, value) in enumerate(zip(batch.column("frame").to_pylist(), batch.column(column).to_pylist())):
                    values.setdefault((chunk.entity_path, column), []).append((frame, value[0]))
                    values.setdefault((chunk.entity_path, "capture"), []).append((frame, captures[number]))
    return values


class Rerun(unittest.TestCase):
    def test_a_recording_holds_the_frames(self) -> None:
        with Daemon("ring.include_frame=true") as daemon, Subscriber(daemon.socket, PATIENCE) as masks, \
                tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "masks.rrd")
            recording = rerun.RecordingStream("test")
            recording.save(path)
            frames = {}
            for frame in masks:
                log(frame, "board/masks", recording)
                frames[frame.sequence] = frame
                if len(frames) == 3:
                    break
            recording.disconnect()
            got = read_back(path)
        pictures = dict(got["/board/masks/segments", "SegmentationImage:buffer"])
        formats = dict(got["/board/masks/segments", "SegmentationImage:format"])
        contexts = dict(got["/board/masks", "AnnotationContext:context"])
        cameras = dict(got["/board/masks/camera", "Image:buffer"])
        captures = dict(got["/board/masks/segments", "capture"])
        self.assertEqual([sorted(seen) for seen in (pictures, contexts, cameras)], [sorted(frames)] * 3)
        for number, frame in frames.items():
            self.assertEqual((formats[number]["width"], formats[number]["height"]), (frame.width, frame.height))
            np.testing.assert_array_equal(np.array(pictures[number], np.uint8).view(np.uint16).reshape(frame.ids.shape), frame.ids)
            assert frame.rgb is not None
            np.testing.assert_array_equal(np.array(cameras[number], np.uint8).reshape(frame.rgb.shape), frame.rgb)
            self.assertEqual(captures[number], frame.captured_ns)
            infos = {pair["class_id"]: pair["class_description"]["info"] for pair in contexts[number]}
            self.assertEqual(sorted(infos), [0, *sorted(segment.id for segment in frame.segments)])
            self.assertEqual(infos[0]["color"] & 0xFF, 0, "no segment is transparent")
            for segment in frame.segments:
                r, g, b = class_colour(segment.category_id)
                self.assertEqual((infos[segment.id]["label"], infos[segment.id]["color"]), (segment.label, r << 24 | g << 16 | b << 8 | 0xFF))

    def test_without_pictures_and_by_the_active_recording(self) -> None:
        with Daemon() as daemon, Subscriber(daemon.socket, PATIENCE, copy=False) as masks, tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "masks.rrd")
            rerun.init("test")
            rerun.save(path)
            frame = next(masks)
            with frame.guard():
                ids = frame.ids.copy()
            log(changed(frame, ids=ids))
            rerun.disconnect()
            got = read_back(path)
        self.assertFalse([entity for entity, _ in got if "camera" in entity])
        ((_, picture),) = got["/masks/segments", "SegmentationImage:buffer"]
        np.testing.assert_array_equal(np.array(picture, np.uint8).view(np.uint16).reshape(ids.shape), ids)


class Colours(unittest.TestCase):
    def test_they_are_the_daemons(self) -> None:
        """Printed by class_colour of crates/overlay."""
        self.assertEqual([class_colour(number) for number in range(4)], [(255, 64, 38), (29, 58, 198), (138, 255, 38), (198, 29, 157)])
        self.assertEqual(class_colour(65535), (198, 29, 152))


if __name__ == "__main__":
    unittest.main()
