//! Mask average precision as COCO defines it (cocodataset/cocoapi, `COCOeval`): IoU from 0.50 to 0.95 in steps of 0.05, precision
//! at 101 recalls, areas below 32², below 96² and above, at most 1, 10 and 100 objects a class and image; predictions on a
//! crowd are ignored.

use anyhow::{Context, Result};
use hotcoco::params::IouType;
use hotcoco::{Annotation, COCO, COCOeval, Category, Dataset, Image, Segmentation};

use super::scores::{Row, Scores};
use crate::datasets::labels::{Class, Instance, Instances};

/// Objects of many images.
#[derive(Default)]
pub struct Objects {
    images: Vec<Image>,
    ground_truth: Vec<Annotation>,
    predictions: Vec<Annotation>,
}

/// In the order of pycocotools' summary.
const METRICS: [&str; 12] =
    ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"];

type Summary = [Option<f64>; METRICS.len()];

impl Objects {
    pub fn add(&mut self, ground_truth: &Instances, prediction: &Instances) {
        let image_id = self.images.len() as u64 + 1;
        self.images.push(Image { id: image_id, width: ground_truth.width, height: ground_truth.height, ..Image::default() });
        let annotation = |id: usize, instance: &Instance, score: Option<f64>| Annotation {
            id: id as u64,
            image_id,
            category_id: instance.class as u64,
            area: Some(instance.area),
            segmentation: Some(Segmentation::UncompressedRle {
                size: [instance.mask.h, instance.mask.w],
                counts: instance.mask.counts.clone(),
            }),
            iscrowd: instance.crowd,
            score,
            ..Annotation::default()
        };
        for instance in &ground_truth.list {
            self.ground_truth.push(annotation(self.ground_truth.len() + 1, instance, None));
        }
        for instance in &prediction.list {
            self.predictions.push(annotation(self.predictions.len() + 1, instance, Some(instance.score)));
        }
    }

    /// The twelve numbers of the summary, and AP and AP50 of each class of `counted`.
    fn evaluate(self, counted: &[u64]) -> Result<(Summary, Vec<[Option<f64>; 2]>)> {
        let categories = counted.iter().map(|id| Category { id: *id, name: id.to_string(), ..Category::default() }).collect();
        let mut predictions = self.predictions;
        predictions.retain(|object| counted.contains(&object.category_id));
        let mut annotations = self.ground_truth;
        annotations.retain(|object| counted.contains(&object.category_id));
        let ground_truth = COCO::from_dataset(Dataset { images: self.images, annotations, categories, ..Dataset::default() });
        let predictions = ground_truth.load_res_anns(predictions).context("the predicted objects cannot be evaluated")?;
        let mut evaluator = COCOeval::new(ground_truth, predictions, IouType::Segm);
        evaluator.evaluate().context("the objects cannot be evaluated")?;
        evaluator.accumulate();
        evaluator.summarize_lines(); // computes, prints nothing
        let value = |value: f64| (value >= 0.0).then_some(value);
        let stats = evaluator.stats().unwrap_or_default();
        let summary = std::array::from_fn(|index| stats.get(index).copied().and_then(value));
        let curves = evaluator.accumulated().context("the objects cannot be evaluated")?;
        let (shape, all, most) = (curves.shape, evaluator.params.all_area_idx(), evaluator.params.max_det_idx());
        let mean = |class: usize, thresholds: std::ops::Range<usize>| {
            let precision = |t: usize| (0..shape.r).map(move |r| curves.precision[curves.precision_idx(t, r, class, all, most)]);
            let known: Vec<f64> = thresholds.flat_map(precision).filter(|precision| *precision >= 0.0).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        };
        let place = |id: &u64| curves.cat_ids.iter().position(|known| known == id);
        let classes = counted.iter().map(|id| place(id).map_or([None, None], |class| [mean(class, 0..shape.t), mean(class, 0..1)]));
        Ok((summary, classes.collect()))
    }

    /// AP of these images; `None` when they show no object. Only the classes that occur are looked at.
    pub fn average_precision(self) -> Result<Option<f64>> {
        let mut classes: Vec<u64> = self.ground_truth.iter().map(|object| object.category_id).collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.is_empty() {
            return Ok(None);
        }
        Ok(self.evaluate(&classes)?.0[0])
    }

    /// Of the classes that are not stuff.
    pub fn scores(self, classes: &[Class]) -> Result<Scores> {
        let images = self.images.len();
        let counted: Vec<usize> = (0..classes.len()).filter(|class| classes[*class].is_thing != Some(false)).collect();
        let ids: Vec<u64> = counted.iter().map(|class| *class as u64).collect();
        let (summary, per_class) = self.evaluate(&ids)?;
        let row = |(class, values): (&usize, [Option<f64>; 2])| Row { name: classes[*class].name.clone(), values: values.to_vec() };
        Ok(Scores {
            task: "instance",
            images,
            columns: METRICS.to_vec(),
            overall: vec![Row { name: String::new(), values: summary.to_vec() }],
            class_columns: vec!["ap", "ap50"],
            classes: counted.iter().zip(per_class).map(row).collect(),
        })
    }
}
