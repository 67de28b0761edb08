"""Expectations for `evaluate --video`: VPQ, STQ and id switches of small random clips, with numpy alone and pixel by pixel.

Written from the definitions: Kim et al. 2020 (VPQ; tubes of k frames matched as in PQ), Weber et al. 2021 (STQ), and CLEAR MOT as
TrackEval computes it (the pairs of the frame before are kept where they can be, then the sum of IoU is the largest; all assignments are
tried here).

usage: make_vectors.py > vectors.json
"""
import itertools
import json

import numpy as np

IS_THING = [True, True, False, False]
HEIGHT, WIDTH = 12, 16


def clip(rng, frames):
    """Rectangles that move over two kinds of stuff, with void and a crowd; predictions are moved, renamed, left out and of other classes."""
    things = [dict(id=5 + i, cls=int(rng.integers(0, 2)), at=rng.uniform(0, [HEIGHT, WIDTH]), by=rng.uniform(-1.5, 1.5, 2),
                   size=rng.integers(4, 8, 2)) for i in range(4)]
    crowd, renames, result = rng.random() < 0.7, {}, []
    for t in range(frames):
        gt, pred = np.full((HEIGHT, WIDTH), 1), np.full((HEIGHT, WIDTH), 1)
        gt[6:], pred[5 + int(rng.integers(0, 3)):] = 2, 2
        gt_table, pred_table = {1: (2, 0), 2: (3, 0)}, {1: 2, 2: 3}
        if crowd:
            gt[:3, :4] = 3
            gt_table[3] = (0, 1)
        for thing in things:
            y, x = (thing["at"] + t * thing["by"]).astype(int)
            h, w = thing["size"]
            gt[max(y, 0):max(y + h, 0), max(x, 0):max(x + w, 0)] = thing["id"]
            gt_table[thing["id"]] = (thing["cls"], 0)
            if rng.random() < 0.15:
                continue
            if rng.random() < 0.35 or thing["id"] not in renames:
                renames[thing["id"]] = 20 + len(renames) + 10 * t
            name, (dy, dx) = renames[thing["id"]], rng.choice([-1, 0, 0, 0, 1], 2)
            pred[max(y + dy, 0):max(y + dy + h, 0), max(x + dx, 0):max(x + dx + w, 0)] = name
            pred_table[name] = thing["cls"] if rng.random() < 0.85 else 1 - thing["cls"]
        gt[9:, 12:] = 0
        if rng.random() < 0.5:
            pred[:2, 13:] = 0
        gt_table = {i: row for i, row in gt_table.items() if (gt == i).any()}
        pred_table = {i: row for i, row in pred_table.items() if (pred == i).any()}
        result.append((gt, pred, gt_table, pred_table))
    return result


def vpq(clips, k):
    iou, tp, fp, fn = (np.zeros(len(IS_THING)) for _ in range(4))
    for frames in clips:
        for start in range(len(frames) - k + 1):
            window = frames[start:start + k]
            gt, pred = np.stack([f[0] for f in window]), np.stack([f[1] for f in window])
            gt_class, pred_class = {}, {}
            for _, _, gt_table, pred_table in window:
                for i, row in gt_table.items():
                    gt_class.setdefault(i, row)
                for i, cls in pred_table.items():
                    pred_class.setdefault(i, cls)
            matched_gt, matched_pred = set(), set()
            for g, (cls, is_crowd) in gt_class.items():
                for p, found in pred_class.items():
                    both = ((gt == g) & (pred == p)).sum()
                    union = ((gt == g) | ((pred == p) & (gt != 0))).sum()
                    if cls == found and not is_crowd and both / union > 0.5:
                        iou[cls] += both / union
                        tp[cls] += 1
                        matched_gt.add(g)
                        matched_pred.add(p)
            crowds = {cls: g for g, (cls, is_crowd) in gt_class.items() if is_crowd}
            for g, (cls, is_crowd) in gt_class.items():
                fn[cls] += g not in matched_gt and not is_crowd
            for p, cls in pred_class.items():
                free = (pred == p) & ((gt == 0) | (gt == crowds.get(cls, -1)))
                fp[cls] += p not in matched_pred and free.sum() <= 0.5 * (pred == p).sum()
    seen = tp + fp + fn > 0
    pq = np.where(seen, iou / np.maximum(tp + fp / 2 + fn / 2, 1e-9), np.nan)
    things = np.array(IS_THING)
    return [float(np.nanmean(pq)), float(np.nanmean(pq[things])), float(np.nanmean(pq[~things]))]


def stq(clips):
    void = len(IS_THING)
    confusion, qualities = np.zeros((void + 1, void + 1)), []
    for frames in clips:
        gt_class = np.stack([np.vectorize(lambda i: f[2].get(i, (void, 0))[0])(f[0]) for f in frames])
        pred_class = np.stack([np.vectorize(lambda i: f[3].get(i, void))(f[1]) for f in frames])
        crowd = np.stack([np.vectorize(lambda i: f[2].get(i, (void, 0))[1])(f[0]) for f in frames]) == 1
        np.add.at(confusion, (gt_class.ravel(), pred_class.ravel()), 1)
        thing = np.array(IS_THING + [False])
        gt_track = np.where(thing[gt_class] & ~crowd, np.stack([f[0] for f in frames]), 0)
        # an id with a class is a track
        pred_track = np.where(thing[pred_class] & ~(crowd & thing[gt_class]), np.stack([f[1] for f in frames]) * 10 + pred_class + 1, 0)
        for g in np.unique(gt_track[gt_track > 0]):
            inside, total = gt_track == g, 0.0
            for p in np.unique(pred_track[inside]):
                if p > 0:
                    both = (inside & (pred_track == p)).sum()
                    total += both * both / (inside | (pred_track == p)).sum()
            qualities.append(total / inside.sum())
    confusion[void] = 0
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    sq = (confusion.diagonal()[union > 0] / union[union > 0]).mean()
    aq = np.mean(qualities)
    return [float(np.sqrt(aq * sq)), float(aq), float(sq)]


def switches(clips):
    count = matched_count = things = 0
    for frames in clips:
        for cls in (c for c, thing in enumerate(IS_THING) if thing):
            last, before = {}, {}
            for gt, pred, gt_table, pred_table in frames:
                gts = [g for g, (c, is_crowd) in gt_table.items() if c == cls and not is_crowd]
                preds = [p for p, c in pred_table.items() if c == cls]
                things += len(gts)
                score = {}
                for g, p in itertools.product(gts, preds):
                    value = ((gt == g) & (pred == p)).sum() / ((gt == g) | ((pred == p) & (gt != 0))).sum()
                    if value >= 0.5:
                        score[g, p] = value + 1000 * (before.get(g) == p)
                best, best_pairs = 0.0, []
                slots = preds + [None] * len(gts)
                for choice in set(itertools.permutations(slots, len(gts))):
                    pairs = [(g, p) for g, p in zip(gts, choice) if (g, p) in score]
                    total = sum(score[pair] for pair in pairs)
                    if total > best:
                        best, best_pairs = total, pairs
                matched_count += len(best_pairs)
                count += sum(last.get(g, p) != p for g, p in best_pairs)
                before = dict(best_pairs)
                last.update(before)
    return [count, matched_count, things]


def main():
    rng = np.random.default_rng(7)
    cases = []
    for case in range(6):
        clips = [clip(rng, 3 + case) for _ in range(1 + case % 2)]
        frame = lambda f: {"gt": f[0].ravel().tolist(), "pred": f[1].ravel().tolist(),
                           "gt_table": [[i, c, k] for i, (c, k) in f[2].items()], "pred_table": [[i, c] for i, c in f[3].items()]}
        windows = [vpq(clips, k) if any(len(frames) >= k for frames in clips) else None for k in (1, 2, 3, 4)]
        cases.append({"clips": [[frame(f) for f in frames] for frames in clips], "vpq": windows, "stq": stq(clips), "switches": switches(clips)})
    print(json.dumps({"is_thing": IS_THING, "height": HEIGHT, "width": WIDTH, "cases": cases}, separators=(",", ":")))


if __name__ == "__main__":
    main()
