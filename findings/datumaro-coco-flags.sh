#!/bin/bash
# datumaro 1.13.12: the flags in its COCO exports.
#
# One would guess: a mask (of a brush, say) is exported with "iscrowd": 0, as a polygon of the same object is, and "isthing" in the
# panoptic export says which categories are things. Neither is so: every mask gets "iscrowd": 1, so that pycocotools finds nothing to
# score in a set of masks (AP -1 for predictions equal to the truth), and "isthing" is 0 for every category, so that nothing is a thing.
#
# Needs python3 with venv and PyPI; works in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datumaro==1.13.12 pycocotools==2.0.11
cat >"$work/try.py" <<'END'
import contextlib
import io
import json
import sys

import numpy as np
import datumaro as dm
from datumaro.components.annotation import Mask, Polygon
from datumaro.components.media import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

out = sys.argv[1]
pixels = np.zeros((40, 60), bool)
pixels[5:20, 10:30] = True
shapes = [Mask(image=pixels, label=0, id=1, group=1), Polygon([35, 5, 55, 5, 55, 20, 35, 20], label=1, id=2, group=2)]


def export(name, format, annotations):
    item = dm.DatasetItem(id="a", subset="train", media=Image.from_numpy(data=np.zeros((40, 60, 3), np.uint8)), annotations=annotations)
    dm.Dataset.from_iterable([item], categories=["cat", "dog"]).export(f"{out}/{name}", format)
    kind = "panoptic" if format == "coco_panoptic" else "instances"
    return json.load(open(f"{out}/{name}/annotations/{kind}_train.json"))


instances = export("instances", "coco_instances", shapes)
crowds = [annotation["iscrowd"] for annotation in instances["annotations"]]
things = [category["isthing"] for category in export("panoptic", "coco_panoptic", shapes[:1])["categories"]]
masks = export("masks", "coco_instances", shapes[:1])
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO()
    coco.dataset = masks
    coco.createIndex()
    found = [{"image_id": masks["images"][0]["id"], "category_id": 1, "score": 0.9, "segmentation": coco.annToRLE(masks["annotations"][0])}]
    run = COCOeval(coco, coco.loadRes(found), "segm")
    run.evaluate()
    run.accumulate()
    run.summarize()
print(f"iscrowd of a mask and of a polygon: {crowds}; isthing of the categories: {things}; AP of a set of masks: {run.stats[0]}")
assert crowds == [1, 0] and set(things) == {0} and run.stats[0] == -1
END
"$work/venv/bin/python" "$work/try.py" "$work"
