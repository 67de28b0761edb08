//! A backend without numbers: lists the weights of a network.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::backend::{Activation, Attention, Backend, BatchNorm, Conv, Deformable, Linear, Map, Norm, Tokens, Weight, windows};
use super::{Sizes, run};

/// All weights of `sizes`, in the order of their names.
pub fn weights(sizes: &Sizes) -> Vec<Weight> {
    let mut list = List(BTreeMap::new());
    let Ok(_) = run(&mut list, sizes, [sizes.image; 2]);
    list.0.into_values().collect()
}

struct List(BTreeMap<String, Weight>);

impl List {
    fn weight(&mut self, weight: &Weight) {
        let known = self.0.entry(weight.name.clone()).or_insert_with(|| weight.clone());
        debug_assert_eq!(known, weight, "two weights of one name");
    }

    fn two(&mut self, norm: &Norm) {
        self.weight(&norm.scale);
        self.weight(&norm.shift);
    }

    fn layer(&mut self, layer: &Linear) {
        self.weight(&layer.weight);
        layer.bias.iter().for_each(|bias| self.weight(bias));
    }
}

fn map(channels: usize, size: [usize; 2]) -> Map<()> {
    Map { value: (), channels, size }
}

fn tokens(count: usize, width: usize) -> Tokens<()> {
    Tokens { value: (), count, width }
}

type Done<T> = Result<T, Infallible>;

impl Backend for List {
    type Value = ();
    type Error = Infallible;

    fn pixels(&mut self, size: [usize; 2]) -> Done<Map<()>> {
        Ok(map(3, size))
    }

    fn conv(&mut self, x: &Map<()>, conv: &Conv) -> Done<Map<()>> {
        self.weight(&conv.weight);
        conv.bias.iter().for_each(|bias| self.weight(bias));
        if let Some(norm) = &conv.norm {
            self.batch_norm(&map(0, [0; 2]), norm)?;
        }
        let kernel = conv.kernel();
        let out = map(conv.weight.shape[0], x.size.map(|side| windows(side, kernel, conv.stride, conv.padding)));
        Ok(out)
    }

    fn transposed_conv(&mut self, x: &Map<()>, weight: &Weight, bias: &Weight) -> Done<Map<()>> {
        self.weight(weight);
        self.weight(bias);
        Ok(map(weight.shape[1], x.size.map(|side| 2 * side)))
    }

    fn depthwise(&mut self, x: &Map<()>, weight: &Weight, bias: Option<&Weight>) -> Done<Map<()>> {
        self.weight(weight);
        bias.iter().for_each(|bias| self.weight(bias));
        Ok(x.clone())
    }

    fn max_pool(&mut self, x: &Map<()>, kernel: usize, stride: usize, padding: usize) -> Done<Map<()>> {
        Ok(map(x.channels, x.size.map(|side| windows(side, kernel, stride, padding))))
    }

    fn batch_norm(&mut self, x: &Map<()>, norm: &BatchNorm) -> Done<Map<()>> {
        self.two(&norm.norm);
        self.weight(&norm.mean);
        self.weight(&norm.variance);
        Ok(x.clone())
    }

    fn group_norm(&mut self, x: &Map<()>, norm: &Norm, _: usize) -> Done<Map<()>> {
        self.two(norm);
        Ok(x.clone())
    }

    fn map_norm(&mut self, x: &Map<()>, norm: &Norm) -> Done<Map<()>> {
        self.two(norm);
        Ok(x.clone())
    }

    fn resize(&mut self, x: &Map<()>, size: [usize; 2]) -> Done<Map<()>> {
        Ok(map(x.channels, size))
    }

    fn to_tokens(&mut self, x: &Map<()>) -> Done<Tokens<()>> {
        Ok(tokens(x.area(), x.channels))
    }

    fn to_map(&mut self, x: &Tokens<()>, size: [usize; 2]) -> Done<Map<()>> {
        debug_assert_eq!(x.count, size[0] * size[1]);
        Ok(map(x.width, size))
    }

    fn concat(&mut self, parts: &[&Tokens<()>]) -> Done<Tokens<()>> {
        Ok(tokens(parts.iter().map(|part| part.count).sum(), parts[0].width))
    }

    fn slice(&mut self, x: &Tokens<()>, start: usize, count: usize) -> Done<Tokens<()>> {
        debug_assert!(start + count <= x.count);
        Ok(tokens(count, x.width))
    }

    fn learned(&mut self, weight: &Weight) -> Done<Tokens<()>> {
        self.weight(weight);
        let [.., count, width] = weight.shape[..] else { unreachable!("tokens have two axes") };
        Ok(tokens(count, width))
    }

    fn add_row(&mut self, x: &Tokens<()>, weight: &Weight, _: usize) -> Done<Tokens<()>> {
        self.weight(weight);
        Ok(x.clone())
    }

    fn constant(&mut self, _: &dyn Fn() -> Vec<f32>, count: usize, width: usize) -> Done<Tokens<()>> {
        Ok(tokens(count, width))
    }

    fn add(&mut self, (): &(), (): &()) -> Done<()> {
        Ok(())
    }

    fn activate(&mut self, (): &(), _: Activation) -> Done<()> {
        Ok(())
    }

    fn linear(&mut self, x: &Tokens<()>, layer: &Linear) -> Done<Tokens<()>> {
        debug_assert_eq!(x.width, layer.from, "{}", layer.weight.name);
        self.layer(layer);
        Ok(tokens(x.count, layer.to))
    }

    fn residual(&mut self, x: &Tokens<()>, y: &Tokens<()>, layer: &Linear, scale: Option<&Weight>) -> Done<Tokens<()>> {
        scale.iter().for_each(|scale| self.weight(scale));
        self.linear(y, layer)?;
        Ok(x.clone())
    }

    fn norm(&mut self, x: &Tokens<()>, norm: &Norm) -> Done<Tokens<()>> {
        self.two(norm);
        Ok(x.clone())
    }

    fn attention(&mut self, attention: &Attention<()>) -> Done<Tokens<()>> {
        let Attention { queries, layers, .. } = attention;
        layers.iter().for_each(|layer| self.layer(layer));
        Ok(tokens(queries.count, layers[2].to))
    }

    fn deformable(&mut self, attention: &Deformable<()>) -> Done<Tokens<()>> {
        Ok(tokens(attention.offsets.count, attention.values.width))
    }

    fn mask_logits(&mut self, queries: &Tokens<()>, pixels: &Map<()>) -> Done<Tokens<()>> {
        Ok(tokens(queries.count, pixels.area()))
    }

    fn attention_mask(&mut self, _: &Tokens<()>, _: [usize; 2], _: [usize; 2]) -> Done<()> {
        Ok(())
    }

    fn wants_all(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Architecture;

    /// Millions of parameters in the EoMT paper's Table 1: ViT-L at 640x640, 200 queries, COCO's 133 classes.
    #[test]
    fn as_many_as_in_the_paper() {
        let millions = Architecture::ALL.map(|architecture| {
            let sizes = Sizes { classes: 133, ..Sizes::of_vit(architecture, 1024, 16, 24) };
            sizes.check().expect("a network");
            let recorded = |weight: &Weight| weight.name.contains(".running_");
            let count: usize =
                weights(&sizes).iter().filter(|weight| !recorded(weight)).map(|weight| weight.shape.iter().product::<usize>()).sum();
            (count as f64 / 1e6).round() as usize
        });
        assert_eq!(millions, [349, 342, 337, 328]);
    }
}
