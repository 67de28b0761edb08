#!/bin/bash
# pycocotools 2.0.11 and faster-coco-eval 1.8.0 on a truth whose annotation ids begin with 0, as Label Studio's COCO export has them.
#
# One would guess: an id is a name, and predictions equal to the truth score an AP of 1.0 whatever the ids are. They do not: the id of
# the annotation that a prediction matches stands in a table in which 0 means "none", so that the annotation with id 0 is never found
# and the prediction on it counts as wrong. Three objects found perfectly score 0.44, and 1.0 with ids from 1. faster-coco-eval warns.
#
# Needs python3 with venv and PyPI; works in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0
cat >"$work/try.py" <<'END'
import contextlib
import io

from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOXES = [[5, 5, 40, 30], [60, 10, 30, 50], [20, 50, 25, 25]]


def polygon(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def score(library, evaluation, first):
    annotations = [
        {"id": first + n, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": box, "area": box[2] * box[3], "segmentation": polygon(*box)}
        for n, box in enumerate(BOXES)
    ]
    truth = {"images": [{"id": 1, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "cat"}], "annotations": annotations}
    masks = [coco_mask.merge(coco_mask.frPyObjects(polygon(*box), 100, 100)) for box in BOXES]
    masks = [{"size": mask["size"], "counts": mask["counts"].decode()} for mask in masks]
    found = [{"image_id": 1, "category_id": 1, "segmentation": mask, "score": 0.9 - n / 10} for n, mask in enumerate(masks)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = library()
        coco.dataset = truth
        coco.createIndex()
        run = evaluation(coco, coco.loadRes(found), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 4)


seen = {}
for name, library, evaluation in [("pycocotools", COCO, COCOeval), ("faster-coco-eval", FasterCOCO, COCOeval_faster)]:
    seen[name] = [score(library, evaluation, first) for first in (1, 0)]
    print(f"{name}: AP {seen[name][0]} with ids from 1, {seen[name][1]} with ids from 0")
assert all(one == 1.0 and zero < 0.7 for one, zero in seen.values()), seen
END
"$work/venv/bin/python" "$work/try.py"
