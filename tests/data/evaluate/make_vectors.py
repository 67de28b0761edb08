#!/usr/bin/env python3
"""Makes the vectors of tests/evaluate.rs: random ground truths and predictions, and what other implementations score them.

    python3 -m venv venv && venv/bin/pip install numpy pillow pycocotools scikit-learn torch torchmetrics
    venv/bin/python make_vectors.py

AP: pycocotools. Anomalies: scikit-learn. mIoU: torchmetrics (confusion matrix). Panoptic quality: `panoptic_quality` below, written
from the definition (Kirillov et al., CVPR 2019, section 4) with plain loops over sets of pixels; where torchmetrics can express a case
(no crowds), it is compared with torchmetrics here.
"""
import json
import os
import shutil

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = os.path.dirname(os.path.abspath(__file__))
CATEGORIES = [
    {"id": 3, "name": "dog", "isthing": 1},
    {"id": 7, "name": "cat", "isthing": 1},
    {"id": 1, "name": "never seen", "isthing": 1},
    {"id": 20, "name": "grass", "isthing": 0},
    {"id": 11, "name": "sky", "isthing": 0},
]
SEEN = [3, 7, 20, 11]


def fresh(name):
    path = os.path.join(ROOT, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def write(path, value):
    with open(path, "w") as file:
        json.dump(value, file)
        file.write("\n")


def blobs(rng, height, width, count):
    """Overlapping ellipses; the later lie on top. Void in between."""
    y, x = np.mgrid[:height, :width]
    ids = np.zeros((height, width), np.int64)
    for index in range(count):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(2, height / 2), rng.uniform(2, width / 2)
        ids[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = index + 1
    return ids


def save_ids(path, ids):
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(rgb).save(path)


def relabel(rng, ids):
    """Ids as large as the format allows."""
    names = [int(name) for name in np.unique(ids) if name]
    new = {0: 0} | {name: int(rng.integers(1, 2**24)) for name in names}
    return np.vectorize(new.get)(ids), list(new.values())[1:]


def panoptic_case(rng, case):
    height, width = int(rng.integers(20, 40)), int(rng.integers(20, 40))
    truth, names = relabel(rng, blobs(rng, height, width, 0 if case == 3 else int(rng.integers(1, 7))))
    segments = [{"id": n, "category_id": int(rng.choice(SEEN)), "iscrowd": int(rng.random() < 0.25)} for n in names]
    for segment in segments:
        segment["iscrowd"] &= int(segment["category_id"] in (3, 7))
        segment["area"] = int((truth == segment["id"]).sum())
    # the prediction: the truth moved and eaten, some classes changed, something invented
    moved = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    if case == 5:
        moved = np.where(np.arange(width)[None] % 2 == 0, truth, 0)  # ties: an IoU of exactly one half or next to it
    extra = blobs(rng, height, width, 2 if case % 2 else 0)
    predicted = np.where((extra > 0) & (rng.random() < 0.7), extra + 2**24 - 10, moved)
    if case == 4:
        predicted = np.zeros_like(truth)
    category = {s["id"]: s["category_id"] for s in segments}
    found = []
    for name in [int(n) for n in np.unique(predicted) if n]:
        chosen = category.get(name) if name in category and rng.random() < 0.9 else int(rng.choice(SEEN))
        found.append({"id": name, "category_id": chosen})
    return truth, segments, predicted, found


def panoptic_quality(cases):
    """Per category: summed IoU, TP, FP, FN."""
    stat = {c["id"]: [0.0, 0, 0, 0] for c in CATEGORIES}
    for truth, segments, predicted, found in cases:
        void = truth == 0
        hit_truth, hit_found = set(), set()
        for g in segments:
            for p in found:
                if g["iscrowd"] or g["category_id"] != p["category_id"]:
                    continue
                a, b = truth == g["id"], predicted == p["id"]
                union = (a | b).sum() - (b & void).sum()
                iou = (a & b).sum() / union
                if iou > 0.5:
                    stat[g["category_id"]][0] += iou
                    stat[g["category_id"]][1] += 1
                    hit_truth.add(g["id"])
                    hit_found.add(p["id"])
        for g in segments:
            if not g["iscrowd"] and g["id"] not in hit_truth:
                stat[g["category_id"]][3] += 1
        for p in found:
            if p["id"] in hit_found:
                continue
            pixels = predicted == p["id"]
            crowds = [g["id"] for g in segments if g["iscrowd"] and g["category_id"] == p["category_id"]]
            # of several crowds of one class, the API's dictionary keeps the last
            free = (pixels & void).sum() + ((pixels & (truth == crowds[-1])).sum() if crowds else 0)
            if free / pixels.sum() <= 0.5:
                stat[p["category_id"]][2] += 1
    return stat


def quality(iou, tp, fp, fn):
    if tp + fp + fn == 0:
        return None
    rq = tp / (tp + fp / 2 + fn / 2)
    sq = iou / tp if tp else 0.0
    return {"pq": sq * rq, "sq": sq, "rq": rq}


def group(stat, things):
    rows = [quality(*stat[c["id"]]) for c in CATEGORIES if things is None or c["isthing"] == things]
    rows = [row for row in rows if row]
    return {key: float(np.mean([row[key] for row in rows])) for key in ("pq", "sq", "rq")}


def make_panoptic():
    path = fresh("panoptic")
    os.makedirs(f"{path}/truth")
    os.makedirs(f"{path}/predicted")
    rng = np.random.default_rng(5)
    cases = [panoptic_case(rng, case) for case in range(16)]
    truth_json = {"images": [], "annotations": [], "categories": CATEGORIES}
    predicted_json = {"annotations": []}
    for index, (truth, segments, predicted, found) in enumerate(cases):
        name = f"{index:02}.png"
        height, width = truth.shape
        truth_json["images"].append({"id": index + 100, "file_name": name, "width": width, "height": height})
        truth_json["annotations"].append({"image_id": index + 100, "file_name": name, "segments_info": segments})
        predicted_json["annotations"].append({"image_id": index + 100, "file_name": name, "segments_info": found})
        save_ids(f"{path}/truth/{name}", truth)
        save_ids(f"{path}/predicted/{name}", predicted)
    stat = panoptic_quality(cases)
    assert all(any(s[i] for s in stat.values()) for i in range(4)), "every count occurs"
    expected = {"all": group(stat, None), "things": group(stat, 1), "stuff": group(stat, 0)}
    expected["per_class"] = {c["name"]: quality(*stat[c["id"]]) for c in CATEGORIES}
    compare_with_torchmetrics(cases)
    expected["semantic"] = semantic_of_panoptic(cases)
    write(f"{path}/truth.json", truth_json)
    write(f"{path}/predicted.json", predicted_json)
    write(f"{path}/expected.json", expected)


def make_trimmed():
    """The same vectors when the truth's JSON lacks the first segment of each image: those pixels are neither void nor a segment."""
    path = os.path.join(ROOT, "panoptic")

    def ids(directory, name):
        rgb = np.asarray(Image.open(f"{path}/{directory}/{name}")).astype(np.int64)
        return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]

    truths, founds = (json.load(open(f"{path}/{name}.json"))["annotations"] for name in ("truth", "predicted"))
    cases = [
        (ids("truth", t["file_name"]), t["segments_info"][1:], ids("predicted", f["file_name"]), f["segments_info"])
        for t, f in zip(truths, founds)
    ]
    stat = panoptic_quality(cases)
    expected = {"all": group(stat, None), "things": group(stat, 1), "stuff": group(stat, 0)}
    expected["per_class"] = {c["name"]: quality(*stat[c["id"]]) for c in CATEGORIES}
    write(f"{path}/expected_trimmed.json", expected)


def compare_with_torchmetrics(cases):
    """Cases without crowds, which torchmetrics does not know, and with every pixel predicted: of predicted nothing, torchmetrics takes
    the truth below it out of the union, which the API does not. Stuff is one segment a class."""
    import torch
    from torchmetrics.detection import PanopticQuality

    plain = [case for case in cases if not any(s["iscrowd"] for s in case[1])]
    merged = []
    for truth, segments, predicted, found in plain:
        def colours(ids, rows, nothing):
            out = np.zeros((*ids.shape, 2), np.int64)
            out[...] = (nothing, 0)
            for place, row in enumerate(rows):
                thing = row["category_id"] in (3, 7)
                out[ids == row["id"]] = (row["category_id"], place + 1 if thing else 0)
            return out
        a, b = colours(truth, segments, 99), colours(predicted, found, 11)  # 99 is an unknown category: void
        merged.append((a, b))
    metric = PanopticQuality(things={3, 7}, stuffs={11, 20}, allow_unknown_preds_category=True, return_sq_and_rq=True, return_per_class=True)
    own = []
    for a, b in merged:
        metric.update(torch.from_numpy(b)[None], torch.from_numpy(a)[None])
        def segments_of(colour):
            ids = np.zeros(colour.shape[:2], np.int64)
            rows = []
            for category, place in sorted({tuple(c) for c in colour.reshape(-1, 2).tolist()}):
                if category != 99:
                    rows.append({"id": len(rows) + 1, "category_id": category, "iscrowd": 0})
                    ids[(colour == (category, place)).all(-1)] = len(rows)
            return ids, rows
        own.append((*segments_of(a), *segments_of(b)))
    stat = panoptic_quality(own)
    theirs = metric.compute().squeeze(0).numpy()  # sorted things, then sorted stuffs: pq, sq, rq
    for row, category in zip(theirs, (3, 7, 11, 20)):
        ours = quality(*stat[category]) or {"pq": 0.0, "sq": 0.0, "rq": 0.0}
        assert np.allclose(row, [ours["pq"], ours["sq"], ours["rq"]], atol=1e-6), (category, row, ours)
    print(f"panoptic quality: {len(plain)} cases equal torchmetrics")


def torch_iou(truth, predicted, classes):
    """IoU and mean over the classes that occur, from torchmetrics' confusion matrix; -1 counts nowhere."""
    import torch
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(num_classes=classes, ignore_index=-1)
    metric.update(torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)))
    matrix = metric.compute().numpy().astype(np.float64)
    right, rows, columns = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return right, rows, columns


def semantic_of_panoptic(cases):
    """Every segment as its class. A predicted nothing is one more class, that no truth has and no mean counts."""
    order = [c["id"] for c in CATEGORIES]
    def classes(ids, rows, nothing):
        out = np.full(ids.shape, nothing)
        for row in rows:
            out[ids == row["id"]] = order.index(row["category_id"])
        return out.ravel()
    truth = np.concatenate([classes(t, s, -1) for t, s, _, _ in cases])
    predicted = np.concatenate([classes(p, f, len(order)) for _, _, p, f in cases])
    right, rows, columns = (x[: len(order)] for x in torch_iou(truth, predicted, len(order) + 1))
    union = rows + columns - right
    iou = {c["name"]: float(r / u) if u else None for c, r, u in zip(CATEGORIES, right, union)}
    return {"miou": float(np.mean([v for v in iou.values() if v is not None])), "per_class": iou}


def make_semantic():
    """Class maps as ADE20K has them (0 ignored, class 0 = 1), and the same as Cityscapes has them (class = value, 255 ignored)."""
    from torchmetrics import JaccardIndex
    import torch

    path = fresh("semantic")
    rng = np.random.default_rng(6)
    classes = 6  # the last never occurs
    truths, predictions = [], []
    for kind in ("ade", "ade_predicted", "cityscapes", "cityscapes_predicted"):
        os.makedirs(f"{path}/{kind}")
    for index in range(6):
        height, width = int(rng.integers(15, 30)), int(rng.integers(15, 30))
        truth = np.minimum(blobs(rng, height, width, 4 if index else 0), 4)
        noise = rng.random(truth.shape) < 0.2
        predicted = np.where(noise, rng.integers(1, classes, truth.shape), np.maximum(truth, 1))
        name = f"{index}.png"
        Image.fromarray(truth.astype(np.uint8)).save(f"{path}/ade/{name}")
        Image.fromarray(predicted.astype(np.uint8)).save(f"{path}/ade_predicted/{name}")
        shifted = np.where(truth == 0, 255, truth - 1).astype(np.uint8)
        palette = Image.fromarray(shifted, mode="P")
        palette.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        palette.save(f"{path}/cityscapes/{name}")
        Image.fromarray((predicted - 1).astype(np.uint8)).save(f"{path}/cityscapes_predicted/{name}")
        truths.append(truth.ravel() - 1)
        predictions.append(predicted.ravel() - 1)
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    right, rows, columns = torch_iou(truth, predicted, classes)
    union = rows + columns - right
    seen = union > 0
    iou = [float(r / u) if u else None for r, u in zip(right, union)]
    jaccard = JaccardIndex(task="multiclass", num_classes=classes, ignore_index=-1, average="none")
    theirs = jaccard(torch.from_numpy(predicted), torch.from_numpy(truth)).numpy()
    assert np.allclose(theirs[seen], np.array(iou, float)[seen], atol=1e-6)
    expected = {"miou": float(np.mean(np.array(iou, float)[seen])), "pixel_accuracy": float(right.sum() / rows.sum())}
    expected["per_class"] = {f"class {index}": value for index, value in enumerate(iou) if value is not None}
    write(f"{path}/expected.json", expected)


def rle(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def runs(mask):
    """Uncompressed run lengths."""
    flat = mask.astype(np.uint8).ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], ends, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + counts}


def make_instances():
    path = fresh("instances")
    rng = np.random.default_rng(7)
    categories = [{"id": c["id"], "name": c["name"]} for c in CATEGORIES[:3]] + [{"id": 50, "name": "only predicted"}]
    truth = {"images": [], "annotations": [], "categories": categories}
    results = []
    for image in range(14):
        low = 200 if image > 9 else 60
        height, width = int(rng.integers(low, 220)), int(rng.integers(low, 220))
        truth["images"].append({"id": image, "file_name": f"{image}.png", "width": width, "height": height})
        ids = blobs(rng, height, width, 0 if image == 4 else 2 if image > 9 else int(rng.integers(1, 9)))
        for name in [n for n in np.unique(ids) if n]:
            mask = ids == name
            crowd = int(rng.random() < 0.2)
            category = int(rng.choice([3, 7]))
            if rng.random() < 0.3 and not crowd:
                y, x = np.nonzero(mask)
                cy, cx, ry, rx = y.mean(), x.mean(), np.ptp(y) / 2 + 0.5, np.ptp(x) / 2 + 0.5
                angle = np.linspace(0, 2 * np.pi, 13)[:-1]
                polygon = np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], -1).round(2).ravel().tolist()
                segmentation = [polygon] if rng.random() < 0.7 else [polygon, [1.0, 1.0, 9.5, 1.2, 5.0, 8.8]]
                encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
                mask = coco_mask.decode(encoded).astype(bool)
            else:
                segmentation = runs(mask) if crowd or rng.random() < 0.5 else rle(mask)
            # as in COCO, the area is the annotator's word and need not be that of the mask
            area = float(mask.sum()) + (0.5 if rng.random() < 0.3 else 0.0)
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image, "category_id": category, "iscrowd": crowd, "area": area,
                "segmentation": segmentation, "bbox": [0, 0, width, height],
            })
            for _ in range(int(rng.integers(0, 3))):
                moved = np.roll(mask, rng.integers(-6, 7, 2), (0, 1)) & (rng.random() < 0.95)
                score = round(float(rng.random()), 1 if rng.random() < 0.5 else 4)  # many ties
                results.append({
                    "image_id": image, "category_id": category if rng.random() < 0.85 else int(rng.choice([3, 7, 50])),
                    "segmentation": rle(moved), "score": score,
                })
    # more than 100 detections of one class on one image, and ones on the image without objects
    height, width = truth["images"][0]["height"], truth["images"][0]["width"]
    for index in range(115):
        small = np.zeros((height, width), bool)
        y, x = int(rng.integers(0, height - 8)), int(rng.integers(0, width - 8))
        small[y : y + 8, x : x + 8] = True
        results.append({"image_id": 0, "category_id": 3, "segmentation": rle(small), "score": round(0.2 + 0.001 * index, 4)})
    height, width = truth["images"][4]["height"], truth["images"][4]["width"]
    results.append({"image_id": 4, "category_id": 7, "segmentation": rle(np.ones((height, width), bool)), "score": 0.99})
    write(f"{path}/truth.json", truth)
    write(f"{path}/results.json", results)
    gt = COCO(f"{path}/truth.json")
    evaluator = COCOeval(gt, gt.loadRes(f"{path}/results.json"), "segm")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    names = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]
    expected = {name: float(value) if value >= 0 else None for name, value in zip(names, evaluator.stats)}
    expected["per_class"] = {}
    for place, category in enumerate(evaluator.params.catIds):
        def mean(values):
            values = values[values > -1]
            return float(values.mean()) if values.size else None
        precision = evaluator.eval["precision"][:, :, place, 0, -1]
        name = next(c["name"] for c in categories if c["id"] == category)
        expected["per_class"][name] = {"ap": mean(precision), "ap50": mean(precision[0])}
    write(f"{path}/expected.json", expected)


def make_anomalies():
    from sklearn.metrics import average_precision_score, roc_curve

    path = fresh("anomalies")
    for kind in ("truth", "scores"):
        os.makedirs(f"{path}/{kind}")
    rng = np.random.default_rng(8)
    truths, scores = [], []
    for index in range(4):
        height, width = int(rng.integers(30, 50)), int(rng.integers(30, 50))
        truth = (blobs(rng, height, width, 2 if index else 0) > 0).astype(np.uint8)
        score = (rng.normal(300 + 250 * truth.astype(float), 200).clip(0, 1023)).astype(np.uint16) // 4  # many ties
        truth[rng.random(truth.shape) < 0.1] = 255
        Image.fromarray(truth).save(f"{path}/truth/{index}.png")
        Image.fromarray(score).save(f"{path}/scores/{index}.png")
        truths.append(truth.ravel())
        scores.append(score.ravel())
    truth, score = np.concatenate(truths), np.concatenate(scores)
    kept = truth != 255
    fpr, tpr, _ = roc_curve(truth[kept], score[kept], drop_intermediate=False)
    expected = {"ap": float(average_precision_score(truth[kept], score[kept])), "fpr95": float(fpr[tpr >= 0.95].min())}
    write(f"{path}/expected.json", expected)


if __name__ == "__main__":
    make_panoptic()
    make_trimmed()
    make_semantic()
    make_instances()
    make_anomalies()
