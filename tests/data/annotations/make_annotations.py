#!/usr/bin/env python3
"""Makes the folders beside it: two small pictures, annotated, as real tools export them, and what pycocotools scores.

    python3 -m venv venv && venv/bin/pip install datumaro==1.13.12 cityscapesscripts==2.3.0 label-studio-sdk==2.1.2 \
        labelme2coco==0.2.6 pycocotools==2.0.11 numpy pillow
    venv/bin/python make_annotations.py

Every export shows the same objects. `datumaro` also has masks, which its COCO export calls crowds, and `isthing` 0 everywhere.
"""
import contextlib
import io
import json
import os
import shutil
import tempfile

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = os.path.dirname(os.path.abspath(__file__))
WIDTH, HEIGHT = 48, 36
NAMES = ["cat", "dog"]
# name, then polygons as (class, corners): the dog lies on the cat in the first picture
PICTURES = [
    ("a.one two", [("cat", [(4, 4), (30, 5), (28, 28), (6, 30)]), ("dog", [(20, 12), (40, 12), (40, 24), (20, 24)])]),
    ("b", [("dog", [(3, 20), (20, 8), (24, 30)]), ("cat", [(30, 3), (45, 3), (45, 12), (30, 12)]), ("cat", [(32, 18), (46, 20), (38, 34)])]),
]


def flat(corners):
    return [float(value) for corner in corners for value in corner]


def mask(corners):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([flat(corners)], HEIGHT, WIDTH)))


def fresh(name):
    path = os.path.join(ROOT, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def write(path, value):
    with open(path, "w") as file:
        json.dump(value, file)
        file.write("\n")


def pictures(path):
    rng = np.random.default_rng(1)
    for name, objects in PICTURES:
        rgb = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        for label, corners in objects:
            rgb[mask(corners) == 1] = (200, 60, 40) if label == "cat" else (40, 80, 210)
        Image.fromarray(rgb + rng.integers(0, 9, rgb.shape, np.uint8)).save(os.path.join(path, f"{name}.png"))


def average_precision(truth, results, first=1):
    """pycocotools' AP and AP50. Ids of annotations are made anew from `first`, because pycocotools loses the one with id 0."""
    for number, annotation in enumerate(truth["annotations"]):
        annotation["id"] = first + number
        annotation["iscrowd"] = 0
        if isinstance(annotation["segmentation"], dict) and isinstance(annotation["segmentation"]["counts"], list):
            size = annotation["segmentation"]["size"]
            annotation["segmentation"] = coco_mask.frPyObjects(annotation["segmentation"], *size)
            annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"].decode()
        shape = annotation["segmentation"]
        shapes = coco_mask.frPyObjects(shape, HEIGHT, WIDTH) if isinstance(shape, list) else [shape]
        annotation["area"] = float(coco_mask.area(coco_mask.merge(shapes)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return {"ap": evaluator.stats[0], "ap50": evaluator.stats[1]}


def results(truth):
    """Every object found, moved by up to two pixels, and one that is none."""
    by_name = {os.path.basename(image["file_name"]): image["id"] for image in truth["images"]}
    ids = {category["name"]: category["id"] for category in truth["categories"]}
    found, score = [], 0.9
    for name, objects in PICTURES:
        image = next(id for file, id in by_name.items() if file.endswith(f"{name}.png"))
        for number, (label, corners) in enumerate(objects):
            moved = mask([(x + number, y + 1) for x, y in corners])
            rle = coco_mask.encode(np.asfortranarray(moved))
            found.append({"image_id": image, "category_id": ids[label], "score": round(score, 3), "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}})
            score -= 0.1
        stray = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        stray[:6, :6] = 1
        rle = coco_mask.encode(stray)
        found.append({"image_id": image, "category_id": ids["cat"], "score": 0.85, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}})
    return found


def score(folder, truth):
    found = results(truth)
    write(os.path.join(folder, "results.json"), found)
    write(os.path.join(folder, "expected.json"), average_precision(truth, found))


def datumaro(images):
    import datumaro as dm
    from datumaro.components.annotation import Mask, Polygon
    from datumaro.components.media import Image as Media

    for name, masks in [("datumaro", False), ("datumaro-masks", True)]:
        out, items = fresh(name), []
        for picture, objects in PICTURES:
            shapes = []
            for number, (label, corners) in enumerate(objects, 1):
                common = {"label": NAMES.index(label), "id": number, "group": number, "z_order": number}
                shapes.append(Mask(image=mask(corners).astype(bool), **common) if masks else Polygon(flat(corners), **common))
            media = Media.from_file(path=os.path.join(images, f"{picture}.png"))
            items.append(dm.DatasetItem(id=picture, subset="train", media=media, annotations=shapes))
        dataset = dm.Dataset.from_iterable(items, categories=NAMES)
        with tempfile.TemporaryDirectory() as scratch:
            for format in ["coco_instances"] + (["coco_panoptic", "voc_segmentation"] if masks else []):
                dataset.export(os.path.join(scratch, format), format)
            shutil.copy(os.path.join(scratch, "coco_instances/annotations/instances_train.json"), out)
            if masks:
                shutil.copy(os.path.join(scratch, "coco_panoptic/annotations/panoptic_train.json"), out)
                shutil.copytree(os.path.join(scratch, "coco_panoptic/annotations/panoptic_train"), os.path.join(out, "panoptic_train"))
                shutil.copytree(os.path.join(scratch, "voc_segmentation/SegmentationClass"), os.path.join(out, "SegmentationClass"))
                shutil.copy(os.path.join(scratch, "voc_segmentation/labelmap.txt"), out)
        score(out, json.load(open(os.path.join(out, "instances_train.json"))))


def labelme(images):
    from labelme2coco import convert

    out = fresh("labelme")
    with tempfile.TemporaryDirectory() as scratch:
        for name, objects in PICTURES:
            shutil.copy(os.path.join(images, f"{name}.png"), scratch)
            shapes = [{"label": label, "points": corners, "group_id": None, "shape_type": "polygon", "flags": {}} for label, corners in objects]
            document = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
            write(os.path.join(scratch, f"{name}.json"), document)
        write(os.path.join(out, "raw.json"), document)
        convert(scratch, scratch + "/out")
        truth = json.load(open(scratch + "/out/dataset.json"))
    for image in truth["images"]:  # where the folder was is different every time
        image["file_name"] = image["file_name"].replace(scratch, "/home/anna/labelme")
    write(os.path.join(out, "dataset.json"), truth)
    score(out, truth)


def label_studio(images):
    from label_studio_sdk.converter import Converter

    config = '<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image"><Label value="cat"/><Label value="dog"/></PolygonLabels></View>'
    out = fresh("label-studio")
    tasks = []
    for number, (name, objects) in enumerate(PICTURES):
        result = []
        for label, corners in objects:
            points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners]
            value = {"points": points, "polygonlabels": [label]}
            result.append({"id": str(len(result)), "type": "polygonlabels", "from_name": "label", "to_name": "image", "original_width": WIDTH, "original_height": HEIGHT, "value": value})
        tasks.append({"id": number + 1, "data": {"image": os.path.join(images, f"{name}.png")}, "annotations": [{"id": number, "result": result, "completed_by": {"email": "a@b"}}]})
    with tempfile.TemporaryDirectory() as scratch:
        write(scratch + "/tasks.json", tasks)
        converter = Converter(config, scratch, download_resources=False)
        converter.convert_to_coco(scratch + "/tasks.json", scratch + "/coco", output_image_dir=scratch + "/coco/images", is_dir=False)
        converter.convert_to_yolo(scratch + "/tasks.json", scratch + "/yolo", is_dir=False)
        truth = json.load(open(scratch + "/coco/result.json"))
        shutil.copytree(scratch + "/yolo", os.path.join(out, "yolo"), ignore=shutil.ignore_patterns("images", "notes.json"))
    for image in truth["images"]:  # as a server with local files names them
        image["file_name"] = "images\\" + os.path.basename(image["file_name"])
    for task in tasks:
        task["data"]["image"] = "/data/upload/1/" + os.path.basename(task["data"]["image"])
    truth["info"] = {}
    write(os.path.join(out, "raw.json"), tasks)
    write(os.path.join(out, "result.json"), truth)
    score(out, truth)


def cityscapes():
    """What cityscapesScripts makes of polygons: labelIds, labelTrainIds, instanceIds and the panoptic JSON."""
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
    from cityscapesscripts.preparation.json2instanceImg import json2instanceImg
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    out = fresh("cityscapes")
    left, fine = os.path.join(out, "leftImg8bit/val/ulm"), os.path.join(out, "gtFine/val/ulm")
    os.makedirs(left), os.makedirs(fine)
    for name, objects in PICTURES:
        stem = f"ulm_{PICTURES.index((name, objects)):06}_000019"
        everything = [("road", [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)])] + [({"cat": "car", "dog": "persongroup"}[label], corners) for label, corners in objects]
        shapes = [{"label": label, "polygon": corners} for label, corners in everything]
        polygons = os.path.join(out, f"{stem}_gtFine_polygons.json")
        write(polygons, {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": shapes})
        json2labelImg(polygons, os.path.join(fine, f"{stem}_gtFine_labelIds.png"), "ids")
        json2labelImg(polygons, os.path.join(fine, f"{stem}_gtFine_labelTrainIds.png"), "trainIds")
        json2instanceImg(polygons, os.path.join(fine, f"{stem}_gtFine_instanceIds.png"), "ids")
        os.remove(polygons)
        shutil.copy(os.path.join(ROOT, "images", f"{name}.png"), os.path.join(left, f"{stem}_leftImg8bit.png"))
    with contextlib.redirect_stdout(io.StringIO()):
        convert2panoptic(os.path.join(out, "gtFine"), out, False, ["val"])


def yolo():
    """Roboflow's layout, whose paths lead out of the folder, and what Ultralytics reads: polygons in parts of the picture."""
    out = fresh("yolo")
    os.makedirs(os.path.join(out, "valid/images")), os.makedirs(os.path.join(out, "valid/labels"))
    for name, objects in PICTURES:
        shutil.copy(os.path.join(ROOT, "images", f"{name}.png"), os.path.join(out, "valid/images"))
        lines = [" ".join([str(NAMES.index(label))] + [f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners]) for label, corners in objects]
        with open(os.path.join(out, "valid/labels", f"{name}.txt"), "w") as file:
            file.write("\n".join(lines))
    with open(os.path.join(out, "data.yaml"), "w") as file:
        file.write("train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n")


def main():
    pictures(fresh("images"))
    images = os.path.join(ROOT, "images")
    datumaro(images)
    labelme(images)
    label_studio(images)
    cityscapes()
    yolo()


if __name__ == "__main__":
    main()
