#!/usr/bin/env python3
"""Makes tests/data/evaluate/scenes/expected.json: what the shipped model's checkpoint scores in PyTorch (transformers).

    venv/bin/python make_scenes.py CHECKPOINT [DATASET]

Panoptic: transformers' image processor. Semantic: `to_per_pixel_logits_semantic` of the EoMT authors. Instances: their top 100 of
query and class, then pycocotools. Anomalies: 1 - max and -sum tanh of the semantic class scores. DATASET is a folder in COCO panoptic layout;
without it, the scenes of this repository.
"""
import contextlib
import io
import json
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import average_precision_score, roc_curve
from transformers import EomtForUniversalSegmentation, EomtImageProcessorPil as Processor

import make_vectors

STUFF = [6, 7, 8]


def main(checkpoint, root, write):
    torch.manual_seed(0)
    model = EomtForUniversalSegmentation.from_pretrained(checkpoint).eval()
    processor = Processor(size={"shortest_edge": 160, "longest_edge": 160}, do_split_image=False, do_pad=True)
    truth = json.load(open(f"{root}/panoptic.json"))
    # the model's labels are the categories in their order, whatever their ids
    place = {category["id"]: index for index, category in enumerate(truth["categories"])}
    for category in truth["categories"]:
        category["id"] = place[category["id"]]
    for segment in (segment for annotation in truth["annotations"] for segment in annotation["segments_info"]):
        segment["category_id"] = place[segment["category_id"]]
    make_vectors.CATEGORIES[:] = truth["categories"]
    annotations = {a["image_id"]: a for a in truth["annotations"]}
    cases, detections, coco, confusion, foreign = [], [], [], np.zeros((9, 9)), ([], [], [])
    for image in truth["images"]:
        picture = Image.open(f"{root}/images/{image['file_name']}").convert("RGB")
        size = (picture.height, picture.width)
        inputs = processor(images=picture, return_tensors="pt")
        with torch.no_grad():
            output = model(pixel_values=inputs["pixel_values"])
        annotation = annotations[image["id"]]
        rgb = np.asarray(Image.open(f"{root}/panoptic/{annotation['file_name']}").convert("RGB")).astype(np.int64)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        found = processor.post_process_panoptic_segmentation(output, [size], threshold=0.5, stuff_classes=STUFF)[0]
        rows = [{"id": s["id"] + 1, "category_id": s["label_id"]} for s in found["segments_info"]]
        cases.append((ids, annotation["segments_info"], found["segmentation"].numpy() + 1, rows))
        # the pictures are square, so resizing needs no padding
        masks = F.interpolate(output.masks_queries_logits, (160, 160), mode="bilinear")
        classes = output.class_queries_logits.softmax(-1)[..., :-1]
        semantic = torch.einsum("bqhw,bqc->bchw", masks.sigmoid(), classes)
        semantic = F.interpolate(semantic, size, mode="bilinear")[0]
        category = np.zeros(size, np.int64)
        for segment in annotation["segments_info"]:
            category[ids == segment["id"]] = segment["category_id"]
        labelled = ids > 0
        np.add.at(confusion, (category[labelled], semantic.argmax(0).numpy()[labelled]), 1)
        bars = labelled & (category == 5)  # they play the foreign objects
        if write:
            os.makedirs(f"{root}/foreign", exist_ok=True)
            Image.fromarray(bars.astype(np.uint8)).save(f"{root}/foreign/{image['file_name']}")
        foreign[0].append(bars.ravel())
        foreign[1].append((1 - semantic.max(0).values).numpy().ravel())
        foreign[2].append(-semantic.tanh().sum(0).numpy().ravel())
        masks = F.interpolate(masks, size, mode="bilinear")[0]
        scores, pairs = classes[0].flatten().topk(100)
        for score, pair in zip(scores.tolist(), pairs.tolist()):
            logits = masks[pair // 9]
            inside = logits > 0
            mean = ((logits.sigmoid() * inside).sum() / (inside.sum() + 1e-6)).item()
            if pair % 9 not in STUFF:
                detections.append({"image_id": image["id"], "category_id": pair % 9, "segmentation": make_vectors.rle(inside.numpy()), "score": score * mean})
        for segment in annotation["segments_info"]:
            if segment["category_id"] not in STUFF:
                coco.append({"id": len(coco) + 1, "image_id": image["id"], "category_id": segment["category_id"], "iscrowd": segment["iscrowd"],
                             "area": segment["area"], "segmentation": make_vectors.rle(ids == segment["id"]), "bbox": segment["bbox"]})
    stat = make_vectors.panoptic_quality(cases)
    right, rows, columns = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    seen = rows + columns > 0
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {"images": truth["images"], "annotations": coco, "categories": [c for c in truth["categories"] if c["isthing"]]}
        gt.createIndex()
        evaluator = COCOeval(gt, gt.loadRes(detections), "segm")
        evaluator.evaluate(), evaluator.accumulate(), evaluator.summarize()
    expected = {
        "panoptic": {"all": make_vectors.group(stat, None), "things": make_vectors.group(stat, 1), "stuff": make_vectors.group(stat, 0)},
        "semantic": {"miou": float((right[seen] / (rows + columns - right)[seen]).mean())},
        "instance": {"ap": float(evaluator.stats[0]), "ap50": float(evaluator.stats[1]), "ar100": float(evaluator.stats[8])},
    }
    is_foreign = np.concatenate(foreign[0])
    for name, score in (("max", np.concatenate(foreign[1])), ("rba", np.concatenate(foreign[2]))):
        fpr, tpr, _ = roc_curve(is_foreign, score, drop_intermediate=False)
        expected[name] = {"ap": float(average_precision_score(is_foreign, score)), "fpr95": float(fpr[tpr >= 0.95].min())}
    print(json.dumps(expected, indent=1))
    if write:
        make_vectors.write(f"{root}/expected.json", expected)


if __name__ == "__main__":
    own = os.path.join(make_vectors.ROOT, "scenes")
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else own, len(sys.argv) == 2)
