#!/bin/bash
# label-studio-sdk 2.1.2: the COCO export of a project with brush masks and polygons.
#
# One would guess: COCO has run-length masks, so that an export as COCO carries what was painted with the brush, or fails. It carries the
# polygons only: the category of the brush is listed, its annotation is not there, and the file is valid. A set of brush masks becomes
# a set without objects. ("Brush labels to COCO", or to PNG, are other exports.)
#
# Needs python3 with venv and PyPI; works in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
cat >"$work/try.py" <<'END'
import json
import sys

import numpy as np
from PIL import Image
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import mask2rle

out = sys.argv[1]
painted = np.zeros((40, 60), np.uint8)
painted[5:20, 10:30] = 255
Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(out + "/a.png")
config = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"><Label value="cat"/></BrushLabels>'
    '<PolygonLabels name="polygon" toName="image"><Label value="dog"/></PolygonLabels></View>'
)


def region(id, name, type, value):
    return {"id": id, "type": type, "from_name": name, "to_name": "image", "original_width": 60, "original_height": 40, "value": value}


regions = [
    region("1", "brush", "brushlabels", {"format": "rle", "rle": mask2rle(painted), "brushlabels": ["cat"]}),
    region("2", "polygon", "polygonlabels", {"points": [[50, 10], [90, 10], [90, 60]], "polygonlabels": ["dog"]}),
]
task = {"id": 1, "data": {"image": out + "/a.png"}, "annotations": [{"id": 1, "result": regions, "completed_by": {"email": "a@b.c"}}]}
with open(out + "/tasks.json", "w") as file:
    json.dump([task], file)
Converter(config, out, download_resources=False).convert_to_coco(out + "/tasks.json", out + "/coco", is_dir=False)
truth = json.load(open(out + "/coco/result.json"))
names = {category["id"]: category["name"] for category in truth["categories"]}
exported = [names[annotation["category_id"]] for annotation in truth["annotations"]]
print(f"labels: {sorted(names.values())}; annotated: a cat by brush, a dog by polygon; exported: {exported}")
assert sorted(names.values()) == ["cat", "dog"] and exported == ["dog"]
END
"$work/venv/bin/python" "$work/try.py" "$work"
