"""Id switches of eomt-edge's tracker, of box overlap alone, and of ByteTrack (PyPI `trackers`), on the same predictions of the same clips.

Clips are drawn by `eomt-edge scenes --clip`. Predictions are those of a model, and the ground truth's masks of which some are left out and some
have another class, in random order. Every tracker gets the same segments; `eomt-edge evaluate --video` scores all of them. Segments to which
ByteTrack gives no id are left out of its score, which favours it: `matched` tells how many things are left.

    python3 -m venv venv && venv/bin/pip install trackers==2.6.1 pillow
    venv/bin/python benches/track.py --program target/release/eomt-edge --model models/eomt-nano-scenes.onnx
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import supervision as sv
from PIL import Image
from trackers import ByteTrackTracker, OCSORTTracker

FRAMES, SIZE, SEEDS = 60, 256, 6
KINDS = {
    "still camera": [],
    "pan": ["--pan", "0.3", "--noise", "4"],
    "5 frames a second": ["--fps", "5"],
    "cuts": ["--cuts", "2"],
}


def read(folder):
    """Frames of a clip: ids `[height, width]`, segments."""
    document = json.loads((folder / "panoptic.json").read_text())
    png = {a["image_id"]: a for a in document["annotations"]}
    for image in sorted(document["images"], key=lambda image: image["file_name"]):
        rgb = np.asarray(Image.open(folder / "panoptic" / png[image["id"]]["file_name"])).astype(np.int64)
        yield image, rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2], png[image["id"]]["segments_info"], document["categories"]


def write(folder, frames):
    """Frames as (image, ids, segments, categories)."""
    (folder / "panoptic").mkdir(parents=True)
    images, annotations = [], []
    for number, (image, ids, segments, categories) in enumerate(frames):
        name = f"{number:06}.png"
        Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(folder / "panoptic" / name)
        images.append({**image, "id": number})
        annotations.append({"image_id": number, "file_name": name, "segments_info": segments})
    (folder / "panoptic.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def worsen(folder, rng):
    """The ground truth without some things, with wrong classes, numbered anew in each frame."""
    for image, ids, segments, categories in read(folder):
        thing = {c["id"]: c["isthing"] for c in categories}
        things = [c["id"] for c in categories if c["isthing"]]
        kept = [s for s in segments if not thing[s["category_id"]] or rng.random() >= 0.15]
        rng.shuffle(kept)
        new, rows = np.zeros_like(ids), []
        for number, segment in enumerate(kept, 1):
            new[ids == segment["id"]] = number
            wrong = thing[segment["category_id"]] and rng.random() < 0.05
            category = int(rng.choice(things)) if wrong else segment["category_id"]
            rows.append({"id": number, "category_id": category, "iscrowd": 0, "area": segment["area"], "score": 0.9})
        yield image, new, rows, categories


def follow(folder, tracker):
    """Segments with the ids of a tracker of boxes; stuff keeps one id per class."""
    for image, ids, segments, categories in read(folder):
        thing = {c["id"]: c["isthing"] for c in categories}
        new, rows, boxes = np.zeros_like(ids), [], []
        things = [s for s in segments if thing[s["category_id"]]]
        for segment in segments:
            ys, xs = np.nonzero(ids == segment["id"])
            if thing[segment["category_id"]]:
                boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            else:
                new[ys, xs] = segment["category_id"] + 1
                rows.append({**segment, "id": segment["category_id"] + 1})
        detections = sv.Detections(
            xyxy=np.array(boxes, float).reshape(-1, 4),
            class_id=np.array([s["category_id"] for s in things], int),
            confidence=np.array([s.get("score") or 0.9 for s in things], float),
            data={"place": np.arange(len(things))},
        )
        found = tracker.update(detections)
        for place, track in zip(found.data.get("place", []), found.tracker_id if found.tracker_id is not None else []):
            if track >= 0:
                new[ids == things[place]["id"]] = 1000 + track
                rows.append({**things[place], "id": int(1000 + track)})
        present = set(np.unique(new))
        yield image, new, [row for row in rows if row["id"] in present], categories


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", default="target/release/eomt-edge")
    arguments.add_argument("--model", default="models/eomt-nano-scenes.onnx")
    arguments.add_argument("--seed", type=int, default=5000, help="of the first clip; the tracker was tuned on 100 to 105")
    options = arguments.parse_args()
    program = [options.program]
    scratch = pathlib.Path(tempfile.mkdtemp())
    rows = []
    for kind, how in KINDS.items():
        fps = how[how.index("--fps") + 1] if "--fps" in how else "15"
        clips = scratch / kind.replace(" ", "-")
        for seed in range(SEEDS):
            command = ["scenes", "--clip", "--count", str(FRAMES), "--size", str(SIZE), "--seed", str(options.seed + seed), *how, str(clips / f"{seed}")]
            subprocess.run(program + command, check=True, capture_output=True)

        def score(*more):
            command = ["evaluate", "--json", "--video", str(clips), "--fps", fps, *map(str, more)]
            result = json.loads(subprocess.run(program + command, check=True, capture_output=True).stdout)
            return result["id_switches"], result["matched"], result["stq"]

        worse, of_model = scratch / "worse", scratch / "of-model"
        rng = np.random.default_rng(5)
        for clip in sorted(clips.iterdir()):
            write(worse / clip.name, worsen(clip, rng))
        score("--model", options.model, "--tracker", "none", "--save", of_model)
        for name, predictions, lasting in [
            ("masks", worse, ("--predictions", worse)),
            ("model", of_model, ("--model", options.model)),
        ]:
            results = {"lasting": score(*lasting, "--tracker", "lasting"), "iou": score("--predictions", predictions, "--tracker", "iou")}
            peers = {
                "ByteTrack": lambda: ByteTrackTracker(frame_rate=float(fps)),
                "ByteTrack, tuned": lambda: ByteTrackTracker(frame_rate=float(fps), lost_track_buffer=150, minimum_consecutive_frames=1,
                                                          track_activation_threshold=0.3, high_conf_det_threshold=0.3),
                "OC-SORT": lambda: OCSORTTracker(frame_rate=float(fps)),
            }
            for peer, tracker in peers.items():
                out = scratch / "peer"
                for clip in sorted(clips.iterdir()):
                    write(out / clip.name, follow(predictions / clip.name, tracker()))
                results[peer] = score("--predictions", out)
                shutil.rmtree(out)
            rows.append((kind, name, results))
            print(kind, name, results, flush=True)
        shutil.rmtree(worse)
        shutil.rmtree(of_model)
    names = list(rows[0][2])
    print("| clips | predictions | " + " | ".join(names) + " |\n|" + "---|" * (2 + len(names)))
    for kind, name, results in rows:
        print(f"| {kind} | {name} | " + " | ".join("{} / {} ({:.1f})".format(a, b, 100 * c) for a, b, c in results.values()) + " |")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
