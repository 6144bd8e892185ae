//! What a pass is, and the one place that runs passes.
//!
//! A pass is a function from IR to IR with a name. It neither verifies, nor prints, nor measures:
//! [`Run`] does that for all passes, and counts fuel, so that a pass that breaks the IR is named by
//! the error and a pass that changes values can be found by `--fuel`.

mod validate;
mod widen;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dojoc_ir::codes::CANCELLED;
use dojoc_ir::diag::{CodeInfo, Diagnostic, Diagnostics, Kind};
use dojoc_ir::graph::Module;
use dojoc_ir::level::Level;
use dojoc_ir::machine::Machine;

pub use validate::{Agreement, Checker, RunLevel, Validation, Validator};
pub use widen::widen;

/// A pass left IR that breaks its level's rules.
pub const BROKEN_IR: u16 = 900;
/// A pass could not type a node of its own making.
pub const PASS_FAILED: u16 = 901;
/// A pass changed values by more than it declares.
pub const VALUES_DIFFER: u16 = 902;
/// Values before and after a pass could not be compared.
pub const NOT_VALIDATED: u16 = 903;

/// The codes of this module with their long forms.
pub const CODES: &[CodeInfo] = &[
    CodeInfo {
        code: BROKEN_IR,
        title: "A pass left inconsistent IR",
        explanation: "The verifier runs after every pass and found a broken rule after the one that \
                      the message names: a defect of dojoc, not of your input. Please report it with \
                      the dump.",
    },
    CodeInfo {
        code: PASS_FAILED,
        title: "A pass could not type a node of its own making",
        explanation: "A pass built a node whose op refuses the operands: a defect of dojoc, not of \
                      your input. `--fuel N` with the largest N that works shows the change before.",
    },
    CodeInfo {
        code: VALUES_DIFFER,
        title: "A pass changed values",
        explanation: "With `--validate` the model runs before and after every pass on the same \
                      inputs, and at the levels TILED and PROGRAM. The pass that the message names \
                      is the first after which an output, or a value that has a name in the source, \
                      is outside the bound: bit for bit for exact passes, otherwise the accumulated \
                      roundings against an evaluation in f64.",
    },
    CodeInfo {
        code: NOT_VALIDATED,
        title: "Values could not be compared",
        explanation: "The model does not run on the inputs of the validation (random ones unless \
                      some are given), so passes have not been validated on this function.",
    },
];

/// What a pass does to values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Every value stays as it is, bit for bit; only NaNs may become other NaNs.
    Exact,
    /// Values change within the roundings that the ops declare.
    Bounded,
}

/// A function from IR to IR.
#[derive(Debug)]
pub struct Pass<In, Out = In> {
    /// Name on the command line and in messages.
    pub name: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// What it does to values.
    pub effect: Effect,
    /// The pass itself.
    pub run: fn(In, &mut PassCx<'_>) -> Result<Out, Diagnostics>,
}

/// Element types of contractions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// As the model has them.
    #[default]
    Keep,
    /// Contractions of f32 take bf16 and accumulate f32; all else stays.
    Bf16,
}

/// What users may decide about passes.
#[derive(Clone, Debug)]
pub struct PassOptions {
    /// Element types of contractions.
    pub precision: Precision,
    /// Nodes (by the name of their source or of a result) whose precision stays.
    pub keep_precision: BTreeSet<Arc<str>>,
    /// Largest constant that folding may create, in bytes.
    pub fold_bytes: u64,
    /// Largest sum of the operands of one folded node, in bytes.
    pub fold_operand_bytes: u64,
    /// Largest sum of all constants that folding may create, in bytes.
    pub fold_total_bytes: u64,
    /// Largest weight that the folding of a batch normalisation may create, in bytes.
    pub fold_batch_norm_bytes: u64,
    /// Largest weight that a rule of equality saturation may make, in bytes.
    pub saturate_bytes: u64,
    /// Largest sum of all weights that such rules may make, in bytes.
    pub saturate_total_bytes: u64,
    /// Largest number of nodes of the e-graph of a region.
    pub saturate_nodes: usize,
    /// Largest number of rounds in which all rules are tried on a region; 0 turns them off.
    pub saturate_rounds: usize,
    /// Who chooses among the forms that saturation finds.
    pub extraction: Extraction,
}

/// How equality saturation chooses among equal forms of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Extraction {
    /// Bounds of single ops propose forms, the search of the mapper takes the best of them or keeps
    /// the region.
    #[default]
    Planned,
    /// By bounds of single ops alone.
    Bounds,
    /// All regions are kept.
    Keep,
}

impl Default for PassOptions {
    fn default() -> Self {
        Self {
            precision: Precision::Keep,
            keep_precision: BTreeSet::new(),
            fold_bytes: 64 << 10,
            fold_operand_bytes: 4 << 20,
            fold_total_bytes: 16 << 20,
            fold_batch_norm_bytes: u64::MAX,
            saturate_bytes: 32 << 20,
            saturate_total_bytes: 256 << 20,
            saturate_nodes: 5_000,
            saturate_rounds: 8,
            extraction: Extraction::Planned,
        }
    }
}

/// What a pass may use besides the IR.
#[derive(Debug)]
pub struct PassCx<'a> {
    /// The target, where there is one yet.
    pub machine: Option<&'a Machine>,
    /// What users decided.
    pub options: &'a PassOptions,
    /// Warnings of the pass.
    pub warnings: Diagnostics,
    fuel: Option<u64>,
    cancel: Option<&'a AtomicBool>,
    changes: u64,
}

impl<'a> PassCx<'a> {
    /// A context with fuel for any number of changes.
    pub fn new(options: &'a PassOptions) -> Self {
        Self {
            machine: None,
            options,
            warnings: Diagnostics::default(),
            fuel: None,
            cancel: None,
            changes: 0,
        }
    }

    /// The same with fuel for this many changes.
    pub fn with_fuel(mut self, fuel: u64) -> Self {
        self.fuel = Some(fuel);
        self
    }

    /// Whether one more change may be made. To be asked right before each change, and not without
    /// making it: the number of changes is what `--fuel` bisects.
    pub fn spend(&mut self) -> bool {
        if let Some(fuel) = &mut self.fuel {
            match fuel.checked_sub(1) {
                Some(rest) => *fuel = rest,
                None => return false,
            }
        }
        self.changes += 1;
        true
    }

    /// Number of changes so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// To be asked now and then by passes that take long.
    ///
    /// # Errors
    /// When the compilation was cancelled.
    pub fn check_cancelled(&self) -> Result<(), Diagnostics> {
        match self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => {
                Err(Diagnostic::input(CANCELLED, "the compilation was cancelled").into())
            }
            _ => Ok(()),
        }
    }
}

/// After which passes the IR is dumped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum DumpAfter {
    /// After none.
    #[default]
    None,
    /// After every pass.
    All,
    /// After the pass of this name.
    Pass(String),
}

/// Takes the name of a pass and the text of the IR after it.
pub type DumpSink<'a> = dyn FnMut(&str, &str) + 'a;

/// How passes are run.
pub struct RunOptions<'a> {
    /// Whether the IR is verified after every pass.
    pub verify: bool,
    /// After which passes the IR is dumped.
    pub dump_after: DumpAfter,
    /// Where dumps go.
    pub dump: Option<&'a mut DumpSink<'a>>,
    /// Number of changes that all passes together may make; `None` for no limit.
    pub fuel: Option<u64>,
    /// Set from outside to stop the compilation.
    pub cancel: Option<&'a AtomicBool>,
    /// The target, where there is one yet.
    pub machine: Option<&'a Machine>,
    /// What users decided about passes.
    pub passes: PassOptions,
    /// Evaluates the module before and after every pass.
    pub validate: Option<Validation>,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        Self {
            verify: true,
            dump_after: DumpAfter::None,
            dump: None,
            fuel: None,
            cancel: None,
            machine: None,
            passes: PassOptions::default(),
            validate: None,
        }
    }
}

/// What one pass did.
#[derive(Clone, Debug)]
pub struct PassStats {
    /// Name of the pass.
    pub pass: &'static str,
    /// Number of changes it made.
    pub changes: u64,
    /// How long it took, without verification and dumps.
    pub time: Duration,
}

/// Why passes stopped.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What is wrong; each message names the pass where the pass is at fault.
    pub diagnostics: Diagnostics,
    /// The pass.
    pub pass: &'static str,
    /// The text of the IR, if a pass broke it or changed its values.
    pub dump: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.diagnostics.fmt(f)
    }
}

impl std::error::Error for Failure {}

/// Runs passes: the only place that verifies, dumps, measures and counts fuel.
pub struct Run<'a> {
    options: RunOptions<'a>,
    fuel: Option<u64>,
    /// Of the last passes that [`graph`](Self::graph) ran, if the options ask for validation: it
    /// compares the levels below.
    pub validator: Option<Validator>,
    /// What every pass did, in order.
    pub stats: Vec<PassStats>,
    /// Warnings of all passes, in order.
    pub warnings: Diagnostics,
}

impl<'a> Run<'a> {
    /// A run that has not started.
    pub fn new(options: RunOptions<'a>) -> Self {
        let fuel = options.fuel;
        Self {
            options,
            fuel,
            validator: None,
            stats: vec![],
            warnings: Diagnostics::default(),
        }
    }

    /// Number of changes that all passes have made.
    pub fn changes(&self) -> u64 {
        self.stats.iter().map(|s| s.changes).sum()
    }

    /// Runs one pass on IR that verifies, then verifies and dumps.
    ///
    /// # Errors
    /// What the pass reports, and broken IR as our fault.
    pub fn step<In, Out: Level>(
        &mut self,
        pass: &Pass<In, Out>,
        input: In,
    ) -> Result<Out, Box<Failure>> {
        let mut cx = PassCx {
            machine: self.options.machine,
            options: &self.options.passes,
            warnings: Diagnostics::default(),
            fuel: self.fuel,
            cancel: self.options.cancel,
            changes: 0,
        };
        let start = Instant::now();
        let result = cx
            .check_cancelled()
            .and_then(|()| (pass.run)(input, &mut cx));
        let time = start.elapsed();
        let changes = cx.changes;
        self.fuel = cx.fuel;
        self.warnings.0.append(&mut cx.warnings.0);
        self.stats.push(PassStats {
            pass: pass.name,
            changes,
            time,
        });
        let output = result.map_err(|diagnostics| {
            Box::new(Failure {
                diagnostics: blame(pass.name, diagnostics, None),
                pass: pass.name,
                dump: None,
            })
        })?;
        if self.options.verify
            && let Err(diagnostics) = output.verify()
        {
            return Err(Box::new(Failure {
                diagnostics: blame(pass.name, diagnostics, Some(BROKEN_IR)),
                pass: pass.name,
                dump: Some(output.to_string()),
            }));
        }
        let wanted = match &self.options.dump_after {
            DumpAfter::None => false,
            DumpAfter::All => true,
            DumpAfter::Pass(name) => name == pass.name,
        };
        if wanted && let Some(dump) = &mut self.options.dump {
            dump(pass.name, &output.to_string());
        }
        Ok(output)
    }

    /// Runs passes of the GRAPH level one after the other, each as [`step`](Self::step) does it,
    /// and compares values after each if the options ask for validation.
    ///
    /// # Errors
    /// What a pass reports, broken IR, and values that differ.
    pub fn graph<'p>(
        &mut self,
        passes: impl IntoIterator<Item = &'p Pass<Module>>,
        mut module: Module,
    ) -> Result<Module, Box<Failure>> {
        let mut validator = self
            .options
            .validate
            .clone()
            .map(|validation| Validator::new(validation, &module));
        module = module.compact();
        for pass in passes {
            module = self.step(pass, module)?;
            let changed = self.stats.last().is_none_or(|stats| stats.changes > 0);
            if changed {
                // Passes leave behind what they no longer need; nothing of that is reachable.
                module = module.compact();
            }
            let (Some(validator), true) = (&mut validator, changed) else {
                continue;
            };
            if let Err(diagnostic) = validator.check(pass.name, pass.effect, &module) {
                return Err(Box::new(Failure {
                    diagnostics: (*diagnostic).into(),
                    pass: pass.name,
                    dump: Some(module.to_string()),
                }));
            }
        }
        if let Some(validator) = &mut validator {
            validator.agree("GRAPH");
            self.warnings.0.append(&mut validator.warnings.0);
        }
        self.validator = validator;
        Ok(module)
    }
}

/// Names the pass in messages about defects of the pass. With a code, all of them are.
fn blame(pass: &str, diagnostics: Diagnostics, code: Option<u16>) -> Diagnostics {
    let blame = |diagnostic: Diagnostic| {
        if code.is_none() && diagnostic.kind != Kind::Bug {
            return diagnostic;
        }
        let number = code.unwrap_or(diagnostic.code.0);
        let message = match code {
            Some(_) => format!(
                "after pass `{pass}`: {}: {}",
                diagnostic.code, diagnostic.message
            ),
            None => format!("pass `{pass}`: {}", diagnostic.message),
        };
        Diagnostic {
            message,
            ..Diagnostic {
                code: dojoc_ir::diag::Code(number),
                kind: Kind::Bug,
                ..diagnostic
            }
        }
    };
    Diagnostics(diagnostics.0.into_iter().map(blame).collect())
}

#[cfg(test)]
mod tests;
