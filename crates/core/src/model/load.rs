//! ONNX bytes to a runnable plan: decode, find out what it is, optimize.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use tract_linalg::multithread::Executor;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{InferenceModel, InferenceModelExt, OutletId, TypedModel, TypedSimplePlan};
use tract_onnx::tract_core::internal::{Datum, TypedFact};
use tract_onnx::tract_core::runtime::RunOptions;
use tract_onnx::tract_hir::internal::InferenceFact;

use super::carried::{Carried, QueryState};
use super::contain::contained;
use super::fuse::{self, MaskProduct};
use super::mask_output::MaskOutput;
use super::metadata::names;
use super::onnx::ExternalData;
use super::ops::Engine;
use super::reuse::{Reuse, ReuseConfig};
use super::third_party::{self, Companions};
use super::{Metadata, Model, ModelError, Origin, PRODUCER, Precision, Remarks, bounds, masks, onnx, token_merging};
use crate::data::{Normalization, TokenMerging};
use crate::kernels::arch::Isa;
use crate::kernels::workers::Workers;

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions<'a> {
    /// The instruction set of the kernels.
    pub isa: Isa,
    /// The threads of one inference.
    pub workers: Workers,
    /// The texts of the files beside a third-party export; unused when the file describes itself.
    pub companions: Companions<'a>,
    /// Where a third-party export's pixel values are normalized.
    pub normalization: Normalization,
    /// Reads weights in a second file (networks of more than 2 GiB); `None`: there is none.
    pub external_data: Option<&'a dyn ExternalData>,
    /// Compute what the file has in f32 in bfloat16, with sums in f32, where the CPU has such products; where it has none, a warning says so.
    pub bf16: bool,
    /// Patch tokens that are merged away.
    pub merging: TokenMerging,
    /// Compute only the masks of kept queries when the graph allows it. Off only to compare.
    pub prune_masks: bool,
    /// Keep what patches had that have not changed since the last frame; `None`: compute every frame anew.
    pub reuse: Option<ReuseConfig>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        LoadOptions {
            isa: Isa::detect(),
            workers: Workers::one(),
            companions: Companions::default(),
            normalization: Normalization::Auto,
            external_data: None,
            bf16: false,
            merging: TokenMerging::default(),
            prune_masks: true,
            reuse: None,
        }
    }
}

impl Model {
    /// Loads the bytes of an ONNX file: ours, or a third-party EoMT export with its `config.json`.
    ///
    /// # Errors
    /// [`ModelError::NotOnnx`], [`ModelError::NotEomt`] or a metadata error for files of another kind;
    /// [`ModelError::Engine`] when tract cannot handle the graph.
    pub fn load(bytes: &[u8], options: &LoadOptions) -> Result<Model, ModelError> {
        contained("load", || Model::read(decode(bytes)?, options))
    }

    /// [`Model::load`] that frees the bytes as soon as they are decoded: they are as many as the weights, and what is made of them comes to the
    /// same again twice.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_freeing(bytes: Vec<u8>, options: &LoadOptions) -> Result<Model, ModelError> {
        contained("load", || {
            let proto = decode(&bytes)?;
            drop(bytes);
            Model::read(proto, options)
        })
    }

    fn read(mut proto: ModelProto, options: &LoadOptions) -> Result<Model, ModelError> {
        if proto.graph.is_none() || proto.opset_import.is_empty() {
            return Err(ModelError::NotOnnx { reason: "it holds no graph".to_owned() });
        }
        let ours = proto.producer_name == PRODUCER;
        // first of all: what is widened or folded there is read by the description, too
        let prepared = onnx::prepare(&mut proto, options.external_data)?;
        let (metadata, remarks) = describe(&proto, options)?;
        let (model, outputs) = parse(proto, &metadata)?;
        let origin = Origin { third_party: !ours, ..Origin::default() };
        let mut model = assemble(model, outputs, metadata, remarks, origin, options)?;
        if prepared.widened > 0 {
            let arithmetic = if model.origin.bf16 { "products are computed in bfloat16" } else { "so is all arithmetic" };
            let fact = format!("{} tensors of half precision are f32 now, and {arithmetic}", prepared.widened);
            model.remarks.facts.push(fact);
        }
        if model.origin.third_party {
            remark_what_is_slow(&mut model);
        }
        Ok(model)
    }
}

fn decode(bytes: &[u8]) -> Result<ModelProto, ModelError> {
    ModelProto::decode(bytes).map_err(|error| ModelError::NotOnnx { reason: error.to_string() })
}

/// The graph as it was read, with class logits, masks and the next state (of a network for video) as its outputs.
pub(super) fn plain(bytes: &[u8], metadata: &Metadata, options: &LoadOptions) -> Result<TypedModel, ModelError> {
    let mut proto = decode(bytes)?;
    onnx::prepare(&mut proto, options.external_data)?;
    let (mut model, outputs) = parse(proto, metadata)?;
    model.select_output_outlets(&outputs.all()).map_err(ModelError::engine("analyse"))?;
    Ok(model)
}

/// From this share of the multiply-adds on it is worth a warning.
const UNFUSED_SHARE: f64 = 0.01;

fn remark_what_is_slow(model: &mut Model) {
    let Origin { roundings, int8, .. } = model.origin;
    if roundings > 0 {
        let instead = if int8 { "int8 layers quantize their inputs anew, token by token" } else { "activations stay in f32" };
        model.remarks.warnings.push(format!(
            "{roundings} roundings of activations (QuantizeLinear, DequantizeLinear) with constant scales are left out: {instead}"
        ));
    }
    let Some(unfused) = model.unfused() else { return };
    if unfused.share >= UNFUSED_SHARE {
        model.remarks.warnings.push(format!("not recognized, so computed by slower general operators: {unfused}"));
    } else {
        model.remarks.facts.push(format!("computed by general operators: {unfused}"));
    }
}

fn not_eomt(reason: impl Into<String>) -> ModelError {
    ModelError::NotEomt { reason: reason.into() }
}

/// Metadata from the file itself, else from its graph and the files beside it.
fn describe(proto: &ModelProto, options: &LoadOptions) -> Result<(Metadata, Remarks), ModelError> {
    let props: BTreeMap<_, _> = proto.metadata_props.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    match Metadata::from_props(&props)? {
        Some(_) if options.normalization != Normalization::Auto => Err(ModelError::NotThirdParty),
        Some(metadata) => {
            let graph = proto.graph.as_ref().expect("checked by the caller");
            metadata.state.iter().try_for_each(|state| state.check(graph))?;
            let is_state = |name: &str| metadata.state.as_ref().is_some_and(|state| state.input == name);
            let input = graph.input.iter().find(|input| !is_state(&input.name)).ok_or_else(|| not_eomt("its graph names no input"))?;
            let wrong = |reason| ModelError::InvalidMetadata { key: "input_size", reason };
            bounds::check_graph(graph, &input.name, metadata.input_size).map_err(wrong)?;
            Ok((metadata, Remarks::default()))
        }
        None => third_party::describe(proto, &props, &options.companions, options.normalization),
    }
}

/// Outlets of class logits, mask logits, and the state of the next frame.
struct Outputs {
    class: OutletId,
    masks: OutletId,
    state: Option<OutletId>,
}

impl Outputs {
    fn all(&self) -> Vec<OutletId> {
        [self.class, self.masks].into_iter().chain(self.state).collect()
    }
}

fn parse(proto: ModelProto, metadata: &Metadata) -> Result<(TypedModel, Outputs), ModelError> {
    let reading = ModelError::engine("read");
    let graph_outputs: Vec<String> =
        proto.graph.as_ref().map(|graph| graph.output.iter().map(|output| output.name.clone()).collect()).unwrap_or_default();
    let parsed = onnx::parser().parse(&proto, None).map_err(&reading)?;
    drop(proto); // the weights are in the model now
    let mut model: InferenceModel = parsed.model;
    set_inputs(&mut model, metadata)?;
    let model = model.into_typed().map_err(ModelError::engine("analyse"))?;
    let outputs = find_outputs(&model, &graph_outputs, metadata.state.as_ref())?;
    Ok((model, outputs))
}

/// Pixel values first, then the state of a network for video.
fn set_inputs(model: &mut InferenceModel, metadata: &Metadata) -> Result<(), ModelError> {
    let (height, width) = metadata.input_size;
    let mut inputs = model.input_outlets().map_err(ModelError::engine("read"))?.to_vec();
    let is_state = |outlet: &OutletId| metadata.state.as_ref().is_some_and(|state| model.node(outlet.node).name == state.input);
    inputs.sort_by_key(is_state);
    let (count, expected) = (inputs.len(), 1 + usize::from(metadata.state.is_some()));
    if count != expected {
        let allowed = if expected == 1 { "pixel values are one" } else { "pixel values and the query state are two" };
        return Err(not_eomt(format!("it has {count} inputs; {allowed}")));
    }
    let mut shapes = vec![vec![1, 3, height, width]];
    shapes.extend(metadata.state.iter().map(|state| state.shape.to_vec()));
    model.set_input_outlets(&inputs).map_err(ModelError::engine("read"))?;
    for (index, shape) in shapes.iter().enumerate() {
        let fact = InferenceFact::dt_shape(f32::datum_type(), shape.as_slice());
        model.set_input_fact(index, fact).map_err(|_| not_eomt(format!("its input does not take {shape:?} f32 values")))?;
    }
    Ok(())
}

/// Class logits and mask logits by name, else by shape: of rank 4, `[1, Q, h, w]`, and of rank 3, `[1, Q, _]`; the state by name.
fn find_outputs(model: &TypedModel, graph_outputs: &[String], state: Option<&QueryState>) -> Result<Outputs, ModelError> {
    let outlets = model.output_outlets().map_err(ModelError::engine("analyse"))?;
    let shape = |outlet: OutletId| -> Vec<usize> {
        let fact = model.outlet_fact(outlet).ok();
        fact.and_then(|fact| fact.shape.as_concrete().map(<[usize]>::to_vec)).unwrap_or_default()
    };
    let by_name = |name: &str| graph_outputs.iter().position(|output| output == name).and_then(|index| outlets.get(index).copied());
    let masks = by_name(names::MASK_LOGITS)
        .or_else(|| outlets.iter().copied().find(|&outlet| shape(outlet).len() == 4))
        .ok_or_else(|| not_eomt("no output has the shape [1, queries, height, width] of mask logits"))?;
    let mask_shape = shape(masks);
    let [_, queries, _, _] = mask_shape[..] else {
        return Err(not_eomt(format!("its mask logits have the shape {mask_shape:?}, not [1, queries, height, width]")));
    };
    let next = state.and_then(|state| by_name(&state.output));
    let is_class = |outlet: OutletId| Some(outlet) != next && shape(outlet).len() == 3 && shape(outlet)[1] == queries;
    let class = by_name(names::CLASS_LOGITS)
        .or_else(|| outlets.iter().copied().find(|&outlet| is_class(outlet)))
        .ok_or_else(|| not_eomt(format!("no output has the shape [1, {queries}, classes] of class logits")))?;
    if let Some(state) = state
        && next.is_none_or(|next| next == class || shape(next) != state.shape || state.shape[1] != queries)
    {
        return Err(not_eomt(format!("its state for the next frame is not {:?}, one row for each of {queries} queries", state.shape)));
    }
    Ok(Outputs { class, masks, state: next })
}

/// Refuses a plan whose tensors no machine holds.
fn check_tensors(model: &TypedModel) -> Result<(), ModelError> {
    for node in model.nodes() {
        for output in &node.outputs {
            let dims: Vec<i64> = concrete(&output.fact).into_iter().map(|dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect();
            bounds::values(&dims).map_err(|reason| {
                let name = bounds::short(&node.name);
                ModelError::Unsupported { reason: format!("what its node '{name}' computes {reason}") }
            })?;
        }
    }
    Ok(())
}

fn concrete(fact: &TypedFact) -> Vec<usize> {
    fact.shape.as_concrete().map(<[usize]>::to_vec).unwrap_or_default()
}

/// Rewrites the graph for reuse over time, when that is wanted.
fn reuse(model: &mut TypedModel, std: [f32; 3], merges_tokens: bool, options: &LoadOptions) -> Result<Option<Reuse>, ModelError> {
    let Some(config) = options.reuse else { return Ok(None) };
    if merges_tokens {
        return Err(ModelError::NoReuse { reason: "it merges tokens, and other ones in each frame".to_owned() });
    }
    let rewritten = Reuse::rewrite(model, std, config).map_err(ModelError::engine("optimize"))?;
    rewritten.map(Some).map_err(|reason| ModelError::NoReuse { reason })
}

/// With products in bfloat16 where the file or the caller allows them and the CPU has them.
fn engine(options: &LoadOptions, metadata: &Metadata, remarks: &mut Remarks) -> Engine {
    let mut engine = Engine::new(options.isa, options.workers.clone());
    engine.bf16 = (options.bf16 || metadata.precision == Precision::Bf16) && options.isa.has_bf16();
    if options.bf16 && !engine.bf16 {
        let isa = options.isa.name();
        remarks
            .warnings
            .push(format!("bfloat16 is allowed, but the kernels '{isa}' have no products of it: what is not int8 stays in f32"));
    }
    engine
}

fn assemble(
    mut model: TypedModel,
    outputs: Outputs,
    mut metadata: Metadata,
    mut remarks: Remarks,
    origin: Origin,
    options: &LoadOptions,
) -> Result<Model, ModelError> {
    let optimizing = ModelError::engine("optimize");
    let class_shape = concrete(model.outlet_fact(outputs.class).map_err(&optimizing)?);
    let mask_shape = concrete(model.outlet_fact(outputs.masks).map_err(&optimizing)?);
    bounds::check_outputs(&class_shape, &mask_shape, metadata.input_size).map_err(not_eomt)?;
    let (queries, classes) = (class_shape[1], class_shape[2]);
    if metadata.labels.is_empty() {
        metadata.labels = (0..classes - 1).map(|class| format!("class {class}")).collect();
    }
    if metadata.labels.len() + 1 != classes {
        return Err(not_eomt(format!(
            "it has {} labels but scores {classes} classes, of which the last is 'no object'",
            metadata.labels.len()
        )));
    }
    model.select_output_outlets(&outputs.all()).map_err(&optimizing)?;
    let engine = engine(options, &metadata, &mut remarks);
    let fuse::Rewritten { quantized, roundings } = fuse::rewrite(&mut model, &engine).map_err(&optimizing)?;
    let merged = token_merging::merge_tokens(&mut model, options.merging, &engine)?;
    let merges_tokens = merged.is_some();
    remarks.facts.extend(merged);
    let mut masks = match options.prune_masks.then(|| MaskProduct::split(&mut model)).transpose().map_err(&optimizing)? {
        Some(Ok(sizes)) => MaskOutput::product(sizes, &engine, quantized || engine.bf16),
        Some(Err(reason)) => {
            let remark = format!("masks of all {queries} queries are computed for every frame, not only of those that are kept: {reason}");
            remarks.warnings.push(remark);
            MaskOutput::Dense
        }
        None => MaskOutput::Dense,
    };
    // with reuse, pixels that have not changed are kept
    let outside = if options.reuse.is_none() { masks.take_scale_block(&mut model, &engine).map_err(&optimizing)? } else { 0 };
    let unmasked = masks::unmasked(&model).map_err(&optimizing)?;
    let reuse = reuse(&mut model, metadata.image_std, merges_tokens, options)?;
    let model = model.into_optimized().map_err(&optimizing)?;
    let mask_cost = unmasked.and_then(|unmasked| masks::cost(&model, outside, unmasked));
    remarks.warnings.extend(mask_cost.map(|cost| cost.to_string()));
    let executor = options.workers.thread_pool().map_or(Executor::SingleThread, |pool| Executor::MultiThread(Arc::clone(pool)));
    let run_options = RunOptions { executor: Some(executor), ..RunOptions::default() };
    check_tensors(&model)?;
    let plan = TypedSimplePlan::new_with_options(model, &run_options).map_err(&optimizing)?;
    let state = plan.spawn().map_err(&optimizing)?;
    let origin = Origin { int8: quantized, bf16: engine.bf16, roundings, ..origin };
    let mask_size = (mask_shape[2], mask_shape[3]);
    let carried = metadata.state.as_ref().map(Carried::first);
    Ok(Model {
        metadata,
        origin,
        plan,
        state,
        masks,
        engine,
        carried,
        queries,
        classes,
        mask_size,
        mask_cost,
        merges_tokens,
        remarks,
        reuse,
    })
}
