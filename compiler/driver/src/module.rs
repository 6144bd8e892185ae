//! Models: read from files or text, printed, verified, asked for their signatures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dojoc_compiler::import::onnx::{self, GivenShape, ImportOptions};
use dojoc_compiler::io::{ModelFiles, SourceFile};
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::graph::{self, SourceMap, WeightSource};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::Type;

use crate::codes;
use crate::error::{Error, Result, SourceText, io_diagnostic};
use crate::options::CompileOptions;
use crate::sniff::{FileKind, sniff};

/// Where a model is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source<'a> {
    /// In a file; external data is looked up beside it.
    Path(&'a Path),
    /// In memory, under a name for messages.
    Bytes(&'a str, Bytes),
}

/// A tensor that a model will be run on: a name, unless it goes by position.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// Name of the input.
    pub name: Option<String>,
    /// Values.
    pub tensor: Tensor,
}

/// Name and type of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Name, as in the user's model.
    pub name: Arc<str>,
    /// Element type and extents.
    pub ty: Type,
}

/// What a function takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signature {
    /// Name of the function.
    pub name: Arc<str>,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
}

/// A model at the GRAPH level. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Module {
    data: Arc<Data>,
}

#[derive(Debug)]
struct Data {
    graph: graph::Module,
    map: SourceMap,
    source: Option<Arc<SourceText>>,
    warnings: Diagnostics,
    /// Why bytes of weights are not at hand.
    missing: Diagnostics,
    specialized: Vec<String>,
}

impl From<graph::Module> for Module {
    fn from(graph: graph::Module) -> Self {
        Self::new(graph, Diagnostics::default())
    }
}

impl Module {
    fn new(graph: graph::Module, warnings: Diagnostics) -> Self {
        let data = Data {
            graph,
            map: SourceMap::new(),
            source: None,
            warnings,
            missing: Diagnostics::default(),
            specialized: vec![],
        };
        Self {
            data: Arc::new(data),
        }
    }

    /// Reads a model, an ONNX file or the text form; which of them is found by looking into it.
    ///
    /// # Errors
    /// All problems of the model. A file of another kind is refused with what it looks like.
    pub fn from_path(path: impl AsRef<Path>, options: &CompileOptions) -> Result<Self> {
        Self::read(Source::Path(path.as_ref()), options, &[])
    }

    /// As [`from_path`](Self::from_path) for any source, for data at hand: dimensions that neither
    /// the model nor the options fix are those of `inputs`. If the model cannot be imported because
    /// shapes depend on the values of small inputs, these values are taken as constants
    /// ([`specialized`](Self::specialized) names them).
    ///
    /// # Errors
    /// As [`from_path`](Self::from_path).
    pub fn read(
        source: Source<'_>,
        options: &CompileOptions,
        inputs: &[NamedTensor],
    ) -> Result<Self> {
        let files = open(source)?;
        let file = files.model();
        match sniff(&file.path, &file.bytes) {
            FileKind::Text => {
                options.check_for_text()?;
                let name = file.path.to_string_lossy();
                let text = std::str::from_utf8(&file.bytes).map_err(|_| {
                    let message = format!("{name}: the text is not UTF-8");
                    Error::input(codes::UNKNOWN_KIND, message)
                })?;
                Self::from_text(text, &name, Some(&files))
            }
            FileKind::Onnx => import(&files, options, inputs),
            FileKind::Other(what) => {
                let message = format!("{} is {what}, not a model", file.path.display());
                Err(Diagnostic::input(codes::UNKNOWN_KIND, message)
                    .help("a model is an ONNX file or a text that begins with `dojo graph 1`")
                    .into())
            }
        }
    }

    /// Imports an ONNX model.
    ///
    /// # Errors
    /// All problems of the model: all unsupported operators, shapes that are not known, malformed
    /// tensors.
    pub fn from_onnx(source: Source<'_>, options: &CompileOptions) -> Result<Self> {
        import(&open(source)?, options, &[])
    }

    /// Reads the text form. `name` is what messages call the text. Weights in other files have no
    /// bytes then; [`from_path`](Self::from_path) finds them.
    ///
    /// # Errors
    /// All syntax errors, or if there are none all errors of meaning, or else all broken rules.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        Self::from_text(text, name, None)
    }

    fn from_text(text: &str, name: &str, files: Option<&ModelFiles>) -> Result<Self> {
        let source = Arc::new(SourceText {
            name: name.to_owned(),
            text: text.to_owned(),
        });
        let (mut graph, map) = graph::parse(text)
            .map_err(|diagnostics| Error::new(diagnostics, Some(source.clone())))?;
        let mut missing = Diagnostics::default();
        if let Some(files) = files {
            missing = load_weights(&mut graph, files);
        }
        let data = Data {
            graph,
            map,
            source: Some(source),
            warnings: Diagnostics::default(),
            missing,
            specialized: vec![],
        };
        let module = Self {
            data: Arc::new(data),
        };
        module.verify()?;
        Ok(module)
    }

    /// The text form; [`parse`](Self::parse) reads it back.
    pub fn print(&self) -> String {
        self.data.graph.to_string()
    }

    /// Checks every rule of the GRAPH level. Modules that came through this crate keep them.
    ///
    /// # Errors
    /// All broken rules.
    pub fn verify(&self) -> Result<()> {
        let data = &self.data;
        let violations = graph::verify(&data.graph).into_iter();
        let diagnostics = violations.map(|v| v.into_diagnostic(&data.graph, &data.map));
        let diagnostics = Diagnostics(diagnostics.collect());
        diagnostics
            .ok(())
            .map_err(|diagnostics| Error::new(diagnostics, data.source.clone()))
    }

    /// What the functions take and give, in the module's order.
    pub fn functions(&self) -> impl Iterator<Item = Signature> + '_ {
        self.data.graph.functions.values().map(signature)
    }

    /// What a function takes and gives; by default `main`, or else the first.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn signature(&self, entry: Option<&str>) -> Result<Signature> {
        let func = self.function(entry)?;
        Ok(signature(&self.data.graph.functions[func]))
    }

    /// The module itself.
    pub fn graph(&self) -> &graph::Module {
        &self.data.graph
    }

    /// What the user should know, but did not stop the import.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.data.warnings.0
    }

    /// Names of the inputs whose values are part of the module: it gives the right results for
    /// these values only. See [`read`](Self::read).
    pub fn specialized(&self) -> &[String] {
        &self.data.specialized
    }

    /// The same model computed in f32 where it says f16 or bf16. The values of weights stay what
    /// they are. `None` where an op depends on the width of its types, or weights have no bytes.
    pub fn in_f32(&self) -> Option<Self> {
        let graph = dojoc_compiler::pass::widen(self.graph(), dojoc_ir::types::DType::F32)?;
        Some(self.with_graph(graph))
    }

    /// The same model after a pass.
    pub(crate) fn with_graph(&self, graph: graph::Module) -> Self {
        let data = Data {
            graph,
            map: SourceMap::new(),
            source: None,
            warnings: self.data.warnings.clone(),
            missing: self.data.missing.clone(),
            specialized: self.data.specialized.clone(),
        };
        Self {
            data: Arc::new(data),
        }
    }

    pub(crate) fn missing(&self) -> &Diagnostics {
        &self.data.missing
    }

    pub(crate) fn function(&self, entry: Option<&str>) -> Result<graph::FuncId> {
        let graph = &self.data.graph;
        let found = match entry {
            Some(name) => graph.function(name),
            None => graph.main(),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = graph.functions.values().map(|f| &*f.name).collect();
            let message = match entry {
                Some(name) => format!("the model has no function `{name}`"),
                None => "the model has no function".to_owned(),
            };
            let diagnostic = Diagnostic::input(codes::NO_FUNCTION, message);
            match names.is_empty() {
                true => diagnostic.into(),
                false => diagnostic
                    .help(format!("there are: {}", names.join(", ")))
                    .into(),
            }
        })
    }
}

fn signature(func: &graph::Function) -> Signature {
    let inputs = func.inputs().iter().enumerate();
    let outputs = func.outputs.iter().zip(func.results());
    Signature {
        name: func.name.clone(),
        inputs: inputs
            .map(|(position, value)| Port {
                name: func.input_name(position),
                ty: func.ty(*value).clone(),
            })
            .collect(),
        outputs: outputs
            .map(|(output, value)| Port {
                name: output.name.clone(),
                ty: func.ty(*value).clone(),
            })
            .collect(),
    }
}

fn open(source: Source<'_>) -> Result<ModelFiles> {
    Ok(match source {
        Source::Path(path) => ModelFiles::open(path)?,
        Source::Bytes(name, bytes) => ModelFiles::in_memory(SourceFile::from_bytes(name, bytes)),
    })
}

fn has_code(diagnostics: &Diagnostics, codes: &[u16]) -> bool {
    diagnostics.0.iter().any(|d| codes.contains(&d.code.0))
}

/// Values that decide shapes are few.
const SHAPE_LIKE: usize = 1024;

fn import(files: &ModelFiles, options: &CompileOptions, inputs: &[NamedTensor]) -> Result<Module> {
    let run = |options: &ImportOptions| onnx::import(files, options);
    let mut import = options.import();
    let mut result = run(&import);
    let unknown_extents = [onnx::codes::UNBOUND_DIM, onnx::codes::NO_SHAPE];
    if !inputs.is_empty() && matches!(&result, Err(d) if has_code(d, &unknown_extents)) {
        let given = inputs.iter().map(|input| GivenShape {
            name: input.name.clone(),
            shape: input.tensor.shape().to_vec(),
        });
        import.bind_from_inputs = given.collect();
        result = run(&import);
    }
    let unknown_values = [onnx::codes::NEEDS_CONSTANT, onnx::codes::NEEDS_BOUND];
    let mut specialized = vec![];
    if matches!(&result, Err(d) if has_code(d, &unknown_values)) {
        let small = |input: &NamedTensor| input.tensor.len() <= SHAPE_LIKE;
        let integer = |input: &NamedTensor| {
            let dtype = input.tensor.dtype();
            small(input) && (dtype.is_int() || dtype == dojoc_ir::types::DType::Bool)
        };
        let list = |input: &NamedTensor| small(input) && input.tensor.rank() <= 1;
        // Extents and axes are integers; scales, depths and ratios are short lists of floats.
        let attempts: [&dyn Fn(&NamedTensor) -> bool; 2] =
            [&integer, &|input| integer(input) || list(input)];
        for chosen in attempts {
            let known = inputs.iter().filter(|input| chosen(input));
            let known = known.filter_map(|i| Some((i.name.clone()?, i.tensor.clone())));
            import.constant_inputs = known.collect();
            if import.constant_inputs.is_empty() {
                continue;
            }
            if let Ok(imported) = run(&import) {
                specialized = import.constant_inputs.keys().cloned().collect();
                result = Ok(imported);
                break;
            }
            // The first failure is the one to show: it is about the model, not about an attempt.
        }
    }
    let imported = result?;
    let mut module = Module::new(imported.module, imported.warnings);
    if let Some(data) = Arc::get_mut(&mut module.data) {
        data.specialized = specialized;
    }
    if options.verify {
        module.verify()?;
    }
    Ok(module)
}

/// Gives external weights of a text their bytes, and returns why some have none: a problem a file.
fn load_weights(graph: &mut graph::Module, files: &ModelFiles) -> Diagnostics {
    let mut missing = BTreeMap::<Arc<str>, (Diagnostic, usize)>::new();
    for (_, weight) in graph.weights.iter_mut() {
        let WeightSource::External {
            file,
            offset,
            length,
        } = &weight.source
        else {
            continue;
        };
        let bytes = files
            .external(&weight.name, file)
            .and_then(|file| file.slice(*offset, *length));
        match (bytes, weight.ty.shape.as_const()) {
            (Ok(bytes), Some(shape)) => {
                weight.data = Tensor::from_bytes(weight.ty.dtype, &shape, bytes).ok();
            }
            // The verifier reports extents that are not constant.
            (Ok(_), None) => {}
            (Err(error), _) => {
                let first = || (io_diagnostic(&error), 0);
                missing.entry(file.clone()).or_insert_with(first).1 += 1;
            }
        }
    }
    let missing = missing
        .into_iter()
        .map(|(file, (diagnostic, count))| match count {
            1 => diagnostic,
            _ => diagnostic.note(format!("{count} weights are in `{file}`")),
        });
    Diagnostics(missing.collect())
}
