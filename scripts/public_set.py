"""The photographs of hazelnuts in a source package of OTX, as a class-map folder and as COCO instances.

usage: public_set.py FOLDER OUTPUT    (FOLDER is tests/assets/anomaly_hazelnut of otx 2.6.0; needs numpy and Pillow)

OUTPUT/images: all 51 photographs, of sound hazelnuts and of those with paint on them. OUTPUT/maps: their masks, 0 = sound, 1 = paint.
OUTPUT/instances.json: the same masks, each connected region of 64 pixels or more an object, as run lengths. Photographs without paint have no object, so
training on instances leaves them out. OUTPUT/calibration: the photographs that `--validate 3` does not hold out.
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

REGION_MIN = 64


def regions(mask):
    """Connected regions (by sides), each as a mask: labels go to the smallest neighbour until nothing changes."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(np.where(mask, labels, mask.size + 1), 1, constant_values=mask.size + 1)
        around = [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        lower = np.where(mask, np.minimum.reduce(around), 0)
        # whole runs at once: what a label has become, everything with it becomes
        table = np.arange(mask.size + 2)
        np.minimum.at(table, labels[mask], lower[mask])
        lower = np.where(mask, table[lower], 0)
        if (lower == labels).all():
            break
        labels = lower
    for label in np.unique(labels[mask]):
        yield labels == label


def run_lengths(mask):
    """COCO's, uncompressed: by columns, the first run of zeros."""
    flat = mask.flatten(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return ([0] if flat[0] else []) + counts


def main():
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    for name in ["images", "maps", "calibration"]:
        (output / name).mkdir(parents=True)
    categories = [{"id": 1, "name": "paint"}]
    coco = {"images": [], "annotations": [], "categories": categories}
    pictures = [(kind, path) for kind in ["test/colour", "test/good", "train/good"] for path in sorted((source / kind).glob("*.jpg"))]
    for number, (kind, path) in enumerate(pictures, 1):
        name = f"{kind.replace('/', '-')}-{path.stem}"
        shutil.copyfile(path, output / "images" / f"{name}.jpg")
        if number % 3:
            shutil.copyfile(path, output / "calibration" / f"{name}.jpg")
        with Image.open(path) as image:
            width, height = image.size
        mask = np.zeros((height, width), bool)
        if kind == "test/colour":
            with Image.open(source / "ground_truth" / "colour" / f"{path.stem}.png") as image:
                mask = np.asarray(image.convert("L")) > 127
        Image.fromarray(mask.astype(np.uint8)).save(output / "maps" / f"{name}.png")
        coco["images"].append({"id": number, "file_name": f"{name}.jpg", "width": width, "height": height})
        for region in regions(mask):
            area = int(region.sum())
            if area < REGION_MIN:
                continue
            rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
            box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
            annotation = {"id": len(coco["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "area": area, "bbox": box}
            annotation["segmentation"] = {"size": [height, width], "counts": run_lengths(region)}
            coco["annotations"].append(annotation)
    (output / "instances.json").write_text(json.dumps(coco))
    print(f"{len(coco['images'])} photographs, {len(coco['annotations'])} regions of paint")


if __name__ == "__main__":
    main()
