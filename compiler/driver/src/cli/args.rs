//! Options that several commands share.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use dojoc::{CompileOptions, Module, NamedTensor, Precision, Result, Source};
use dojoc_compiler::io::IoError;

/// Options about a model's extents.
#[derive(Args, Clone, Debug, Default)]
pub struct ModelArgs {
    /// Extent (NAME=N) or bound (NAME<=N) of a symbolic dimension; INPUT.AXIS where it has no name.
    #[arg(long, value_name = "NAME=N|NAME<=N")]
    pub dim: Vec<Dim>,
    /// Largest extent of a data-dependent result, by the name of the value.
    #[arg(long, value_name = "VALUE=N")]
    pub bound: Vec<Assign<u64>>,
    /// Shape of an input that the model leaves open.
    #[arg(long, value_name = "INPUT=AxBxC")]
    pub shape: Vec<Assign<Extents>>,
    /// Values for weights of the model, by name; later files win.
    #[arg(long, value_name = "F.safetensors|F.npz")]
    pub weights: Vec<PathBuf>,
}

/// Options about passes.
#[derive(Args, Clone, Debug)]
pub struct PassArgs {
    /// Element types of contractions.
    #[arg(long, value_enum, default_value_t = PrecisionArg::Keep)]
    pub precision: PrecisionArg,
    /// Keep the precision of a node, by its name or that of its result.
    #[arg(long, value_name = "NAME")]
    pub keep_precision: Vec<String>,
    /// Let all passes together make N changes only; to find the one that breaks a model.
    #[arg(long, value_name = "N")]
    pub fuel: Option<u64>,
    /// Leave a pass out, to see what it is worth; `dojoc passes` lists them.
    #[arg(long, value_name = "PASS")]
    pub skip_pass: Vec<String>,
    /// Run the model before and after every pass, and as TILED, MESH and PROGRAM, and compare all
    /// values that have names.
    #[arg(long)]
    pub validate: bool,
    /// Seed of the random inputs of --validate.
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "validate")]
    pub validate_seed: u64,
    /// Do not verify the IR after every pass; a program that breaks rules is run with --sanitize only.
    #[arg(long)]
    pub no_verify: bool,
}

/// Element types of contractions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// As the model has them.
    Keep,
    /// Operands in bf16, sums in f32; all else stays.
    Bf16,
}

impl PassArgs {
    /// Adds the options to those of the facade.
    pub fn apply(&self, mut options: CompileOptions) -> CompileOptions {
        options = options
            .verify(!self.no_verify)
            .precision(match self.precision {
                PrecisionArg::Keep => Precision::Keep,
                PrecisionArg::Bf16 => Precision::Bf16,
            });
        for name in &self.keep_precision {
            options = options.keep_precision(name);
        }
        for name in &self.skip_pass {
            options = options.skip_pass(name);
        }
        if let Some(fuel) = self.fuel {
            options = options.fuel(fuel);
        }
        match self.validate {
            true => options.validate(self.validate_seed),
            false => options,
        }
    }
}

/// `NAME=N` or `NAME<=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dim {
    name: String,
    exact: bool,
    extent: u64,
}

impl Dim {
    /// Name and extent, unless it is a bound.
    pub fn exact(&self) -> Option<(&str, u64)> {
        self.exact.then_some((&*self.name, self.extent))
    }
}

impl FromStr for Dim {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, extent) = text
            .split_once('=')
            .ok_or("expected NAME=N or NAME<=N (quote the latter, < is special in shells)")?;
        let (name, exact) = match name.strip_suffix('<') {
            Some(name) => (name, false),
            None => (name, true),
        };
        if name.is_empty() {
            return Err("the name is missing".to_owned());
        }
        let extent = extent
            .parse()
            .map_err(|_| format!("`{extent}` is no extent"))?;
        Ok(Self {
            name: name.to_owned(),
            exact,
            extent,
        })
    }
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign<T> {
    /// Name.
    pub name: String,
    /// Value.
    pub value: T,
}

impl<T: FromStr> FromStr for Assign<T> {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        // Values are numbers, so that names may contain the sign.
        let (name, value) = text.rsplit_once('=').ok_or("expected NAME=VALUE")?;
        Ok(Self {
            name: name.to_owned(),
            value: value
                .parse()
                .map_err(|_| format!("`{value}` is no value for `{name}`"))?,
        })
    }
}

/// `8x3x224x224`; `scalar` for a scalar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents(pub Vec<u64>);

impl FromStr for Extents {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "scalar" {
            return Ok(Self(vec![]));
        }
        let extents = text.split(['x', ',']).map(|e| e.trim().parse());
        match extents.collect() {
            Ok(extents) => Ok(Self(extents)),
            Err(_) => Err(format!("`{text}` is no shape")),
        }
    }
}

impl ModelArgs {
    /// The options for the facade.
    pub fn options(&self) -> CompileOptions {
        let mut options = CompileOptions::default();
        for dim in &self.dim {
            options = match dim.exact {
                true => options.dim(&dim.name, dim.extent),
                false => options.dim_at_most(&dim.name, dim.extent),
            };
        }
        for bound in &self.bound {
            options = options.bound(&bound.name, bound.value);
        }
        for shape in &self.shape {
            options = options.shape(&shape.name, &shape.value.0);
        }
        options
    }
}

/// Whether a path means standard input or output.
pub fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The contents of standard input.
pub fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = vec![];
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(IoError::reading("standard input", &error).into()),
    }
}

/// Reads a model from a path or standard input.
pub fn read_model(
    path: &Path,
    args: &ModelArgs,
    options: &CompileOptions,
    inputs: &[NamedTensor],
) -> Result<Module> {
    let model = if is_dash(path) {
        let bytes = read_stdin()?.into();
        Module::read(Source::Bytes("<stdin>", bytes), options, inputs)?
    } else {
        Module::read(Source::Path(path), options, inputs)?
    };
    args.weights
        .iter()
        .try_fold(model, |model, file| model.with_weights(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_shapes_and_assignments() {
        let dim: Dim = "n<=8".parse().unwrap();
        assert_eq!((dim.name.as_str(), dim.exact, dim.extent), ("n", false, 8));
        assert!("n=8".parse::<Dim>().unwrap().exact);
        for bad in ["n", "n=", "=8", "n=-1", "n=x"] {
            assert!(bad.parse::<Dim>().is_err(), "{bad}");
        }
        let shape: Assign<Extents> = "a=b=2x3".parse().unwrap();
        assert_eq!((shape.name.as_str(), shape.value.0), ("a=b", vec![2, 3]));
        assert_eq!("scalar".parse::<Extents>(), Ok(Extents(vec![])));
        assert!("2x".parse::<Extents>().is_err());
    }
}
