//! Compares the values of a module before and after every pass, and at every level below GRAPH.
//!
//! The same inputs are run through the module before the first pass and after each one, and values
//! are compared at the outputs of functions and at values of function bodies that have a name both
//! before and after. The first pass after which a value is outside its bound is named.
//!
//! - After an exact pass every value must have the bits that it had before the pass. A NaN may be
//!   any NaN.
//! - After a bounded pass floats are compared with an evaluation of the original module in f64
//!   ([`widen`]), if it can be made, else with the values as imported. A value may be as far
//!   off as twice what it was before the pass, plus [`SLACK`] times its accumulated roundings. Those
//!   are the largest sum, over all paths from an input, of what each op declares
//!   ([`Tolerance`](dojoc_ir::ops::Tolerance), at least one rounding of the narrowest type in it),
//!   times the largest magnitude on the path. That is not a proof (a cancellation may amplify what a
//!   sum of roundings does not), but wrong arithmetic is far outside of it. Integers and truth
//!   values that depend on floats may jump, and are not compared; all others must be equal.
//!
//! Levels below GRAPH do what a bounded pass may: their values are compared with the same evaluation
//! in f64, and may be as far from it as twice what the optimised GRAPH is, plus the same slack. They
//! keep names, and so are compared at the names that the optimised GRAPH still has. Values are
//! compared as the level computes them, so that those of a whole network are not held twice.

mod differ;
mod inputs;
mod snapshot;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dojoc_ir::codes::CANCELLED;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Place};
use dojoc_ir::graph::{FuncId, Module};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;
use dojoc_ir::{graph, mesh, tiled};

use super::widen::{widen, widened};
use super::{Effect, NOT_VALIDATED, VALUES_DIFFER};
use differ::{bounded_difference, distance, exact_difference};
use inputs::random_inputs;
use snapshot::{Point, Snapshot, snapshot};

/// Factor between accumulated roundings and the bound.
pub const SLACK: f64 = 16.0;

/// What values a validation runs on.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// Inputs of the main function; random ones for every function where there are none.
    pub inputs: Option<Vec<Tensor>>,
    /// Seed of random inputs.
    pub seed: u64,
    /// Largest size in bytes of the tensors alive at one time.
    pub max_bytes: Option<u64>,
    /// Set from outside to stop a run.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// That the values of a level are within their bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// The level.
    pub level: &'static str,
    /// Number of outputs and named values that were compared.
    pub points: usize,
    /// Largest distance of a value from the evaluation in f64, relative to its largest magnitude.
    pub worst: f64,
    /// The value that is so far away, as messages call it; `None` if all are equal.
    pub value: Option<String>,
}

struct Case {
    func: Arc<str>,
    inputs: Vec<Tensor>,
    outputs: Vec<Arc<str>>,
    /// In f64, where the module can be widened.
    reference: Snapshot,
    before: Snapshot,
}

/// Compares the values of a module with those it had before.
pub struct Validator {
    cases: Vec<Case>,
    options: Validation,
    /// What could not be compared.
    pub warnings: Diagnostics,
    /// The levels that agree, in the order in which they were checked.
    pub agreements: Vec<Agreement>,
}

impl Validator {
    /// Runs a module that no pass has changed yet.
    pub fn new(validation: Validation, module: &Module) -> Self {
        let wide = widen(module, DType::F64);
        let chosen: Vec<(FuncId, Vec<Tensor>)> = match (&validation.inputs, module.main()) {
            (Some(inputs), Some(main)) => vec![(main, inputs.clone())],
            _ => {
                let ids = module.functions.ids();
                ids.map(|id| (id, random_inputs(&module.functions[id], validation.seed)))
                    .collect()
            }
        };
        let mut validator = Self {
            cases: vec![],
            options: validation,
            warnings: Diagnostics::default(),
            agreements: vec![],
        };
        for (id, inputs) in chosen {
            let func = module.functions[id].name.clone();
            match snapshot(module, id, &inputs, &validator.options) {
                Ok(before) => {
                    let reference = wide.as_ref().and_then(|wide| {
                        let inputs: Vec<Tensor> =
                            inputs.iter().map(|t| widened(t, DType::F64)).collect();
                        snapshot(wide, id, &inputs, &validator.options).ok()
                    });
                    let outputs = module.functions[id].outputs.iter();
                    validator.cases.push(Case {
                        func,
                        inputs,
                        outputs: outputs.map(|o| o.name.clone()).collect(),
                        reference: reference.unwrap_or_else(|| before.clone()),
                        before,
                    });
                }
                Err(reason) => {
                    let message = format!("function `{func}` is not validated: it does not run");
                    let diagnostic = Diagnostic::input(NOT_VALIDATED, message);
                    validator.warnings.push(diagnostic.note(reason.to_string()));
                }
            }
        }
        validator.agree("import");
        validator
    }

    /// Runs the module after a pass and compares.
    ///
    /// # Errors
    /// The first value outside its bound.
    pub fn check(
        &mut self,
        pass: &str,
        effect: Effect,
        module: &Module,
    ) -> Result<(), Box<Diagnostic>> {
        for case in &mut self.cases {
            let Some(id) = module.function(&case.func) else {
                let message = format!("pass `{pass}` removed function `{}`", case.func);
                return Err(wrong(message));
            };
            let after = snapshot(module, id, &case.inputs, &self.options)
                .map_err(|reason| does_not_run(pass, &case.func, (*reason).into()))?;
            let mut checker = Checker::new(case, pass, None, effect);
            for record in after.records() {
                checker.compare(&record.point, &record.value, record.slack);
            }
            checker.failure.map_or(Ok(()), Err)?;
            // No pass gives a name back, so nothing else will be compared.
            case.reference.retain(&after);
            case.before = after;
        }
        Ok(())
    }

    /// Notes that the module is within its bounds as it is now.
    pub fn agree(&mut self, level: &'static str) {
        let mut agreement = Agreement::new(level);
        for case in &self.cases {
            let mut checker = Checker::new(case, "", Some(level), Effect::Bounded);
            for record in case.before.records() {
                checker.measure(&record.point, &record.value);
            }
            agreement.add(checker);
        }
        self.push(agreement);
    }

    fn push(&mut self, agreement: Agreement) {
        if !self.cases.is_empty() {
            self.agreements.push(agreement);
        }
    }

    /// Names that are compared below GRAPH, besides outputs.
    pub fn names(&self) -> BTreeSet<Arc<str>> {
        let records = self.cases.iter().flat_map(|case| case.before.records());
        let names = records.filter_map(|record| match &record.point {
            Point::Named(name) => Some(name.clone()),
            Point::Output(_) => None,
        });
        names.collect()
    }

    /// Compares a level below GRAPH, which `stage` has made: `run` runs the function of the name on
    /// the inputs and shows the checker what it computes, in that order.
    ///
    /// # Errors
    /// The first value outside its bound; why the function does not run.
    pub fn check_level(
        &mut self,
        level: &'static str,
        stage: &str,
        run: &mut RunLevel<'_>,
    ) -> Result<(), Box<Diagnostic>> {
        let mut agreement = Agreement::new(level);
        for case in &self.cases {
            let mut checker = Checker::new(case, stage, Some(level), Effect::Bounded);
            let result = run(&case.func, &case.inputs, &mut checker);
            // A value outside its bound may be why the rest does not run.
            if let Some(failure) = checker.failure.take() {
                return Err(failure);
            }
            result.map_err(|reason| does_not_run(stage, &case.func, reason))?;
            if let Some(name) = checker.missing_output() {
                let func = &case.func;
                let message = format!("{level} gives no output `{name}` of function `{func}`");
                return Err(wrong(message));
            }
            agreement.add(checker);
        }
        self.push(agreement);
        Ok(())
    }

    /// Compares a module at the TILED level, as its cores would run it.
    ///
    /// # Errors
    /// As [`check_level`](Self::check_level).
    pub fn check_tiled(&mut self, module: &tiled::Module) -> Result<(), Box<Diagnostic>> {
        let run: &RunBlocks<'_> =
            &|id, inputs, states, options| tiled::eval::run(module, id, inputs, states, options);
        self.check_blocks(("TILED", "tile"), module, run)
    }

    /// Compares a module at the MESH level, byte by byte in the memory of its cores.
    ///
    /// # Errors
    /// As [`check_level`](Self::check_level).
    pub fn check_mesh(&mut self, module: &mesh::Module) -> Result<(), Box<Diagnostic>> {
        let run: &RunBlocks<'_> =
            &|id, inputs, states, options| mesh::eval::run(module, id, inputs, states, options);
        self.check_blocks(("MESH", "place"), &module.tiled, run)
    }

    fn check_blocks(
        &mut self,
        (level, stage): (&'static str, &str),
        module: &tiled::Module,
        run: &RunBlocks<'_>,
    ) -> Result<(), Box<Diagnostic>> {
        let cancel = self.options.cancel.clone();
        self.check_level(level, stage, &mut |name, inputs, checker| {
            let mut functions = module.functions.iter();
            let Some((id, func)) = functions.find(|(_, f)| &*f.name == name) else {
                return Err(Diagnostic::input(NOT_VALIDATED, "it is not there").into());
            };
            let mut states = tiled::eval::initial_states(module).map_err(|e| *e)?;
            let mut observe = |value: tiled::ValueId, tensor: &Tensor| {
                if let Some(name) = &func.values[value].name {
                    checker.named(name, tensor);
                }
            };
            let options = tiled::eval::Options {
                cancel: cancel.as_deref(),
                observe: Some(&mut observe),
            };
            let results = run(id, inputs, &mut states, options);
            for (position, value) in results.map_err(|e| *e)?.iter().enumerate() {
                checker.output(position, value);
            }
            Ok(())
        })
    }
}

/// Runs a function of a distributed module.
type RunBlocks<'a> = dyn Fn(
        tiled::FuncId,
        &[Tensor],
        &mut graph::eval::States,
        tiled::eval::Options<'_>,
    ) -> Result<Vec<Tensor>, Box<Diagnostic>>
    + 'a;

/// Runs the function of a name at some level and shows its values to a checker.
pub type RunLevel<'a> =
    dyn FnMut(&str, &[Tensor], &mut Checker<'_>) -> Result<(), Diagnostics> + 'a;

/// Compares the values of one function at one level, in the order in which it is given them.
pub struct Checker<'a> {
    case: &'a Case,
    stage: &'a str,
    level: Option<&'static str>,
    effect: Effect,
    seen: BTreeSet<Point>,
    worst: f64,
    value: Option<String>,
    failure: Option<Box<Diagnostic>>,
}

impl<'a> Checker<'a> {
    fn new(case: &'a Case, stage: &'a str, level: Option<&'static str>, effect: Effect) -> Self {
        Self {
            case,
            stage,
            level,
            effect,
            seen: BTreeSet::new(),
            worst: 0.0,
            value: None,
            failure: None,
        }
    }

    /// A value of the function's body, under its shape or another one of as many elements. Several may
    /// have one name; names that GRAPH does not have are passed over.
    pub fn named(&mut self, name: &Arc<str>, value: &Tensor) {
        let point = Point::Named(name.clone());
        match self.case.before.get(&point).map(|before| &before.value) {
            Some(before) if before.len() == value.len() => {
                self.compare(&point, &value.reshape(before.shape()), 0.0);
            }
            _ => self.compare(&point, value, 0.0),
        }
    }

    /// An output, by its position.
    pub fn output(&mut self, position: usize, value: &Tensor) {
        self.compare(&Point::Output(position), value, 0.0);
    }

    fn compare(&mut self, point: &Point, value: &Tensor, slack: f64) {
        let (Some(before), None) = (self.case.before.get(point), &self.failure) else {
            return;
        };
        let difference = match self.effect {
            Effect::Exact => exact_difference(&before.value, value),
            Effect::Bounded => {
                let reference = self.case.reference.get(point).unwrap_or(before);
                let slack = slack.max(before.slack);
                bounded_difference(&reference.value, &before.value, value, slack)
            }
        };
        let Some(difference) = difference else {
            self.measure(point, value);
            return;
        };
        let (stage, func, place) = (self.stage, &self.case.func, self.describe(point));
        let mut diagnostic = wrong(match self.level {
            None => format!("pass `{stage}` changed {place} of function `{func}`: {difference}"),
            Some(level) => format!(
                "after `{stage}` {place} of function `{func}` is outside its bound at {level}: \
                 {difference}"
            ),
        });
        diagnostic.place = before.loc.clone().map(Place::Node);
        self.failure = Some(diagnostic);
    }

    /// Counts a value that is within its bound.
    fn measure(&mut self, point: &Point, value: &Tensor) {
        let Some(reference) = self.case.reference.get(point) else {
            return;
        };
        self.seen.insert(point.clone());
        let far = distance(value, &reference.value);
        if far > self.worst {
            self.worst = far;
            self.value = Some(self.describe(point));
        }
    }

    fn describe(&self, point: &Point) -> String {
        match point {
            Point::Named(name) => format!("value `%{name}`"),
            Point::Output(n) => {
                let output = self.case.outputs.get(*n);
                format!("output `{}`", output.map_or("", |name| name))
            }
        }
    }

    /// An output that was not given.
    fn missing_output(&self) -> Option<&Arc<str>> {
        let mut outputs = self.case.outputs.iter().enumerate();
        let missing = outputs.find(|(n, _)| !self.seen.contains(&Point::Output(*n)));
        missing.map(|(_, name)| name)
    }
}

impl Agreement {
    fn new(level: &'static str) -> Self {
        Self {
            level,
            points: 0,
            worst: 0.0,
            value: None,
        }
    }

    /// What a function adds.
    fn add(&mut self, checker: Checker<'_>) {
        self.points += checker.seen.len();
        if checker.worst > self.worst {
            self.worst = checker.worst;
            self.value = checker.value;
        }
    }
}

fn wrong(message: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(VALUES_DIFFER, Kind::Bug, message))
}

/// The error of a function that ran before.
fn does_not_run(stage: &str, func: &str, reason: Diagnostics) -> Box<Diagnostic> {
    if let [only] = &reason.0[..]
        && only.code.0 == CANCELLED
    {
        return Box::new(only.clone());
    }
    let message = format!("after `{stage}` function `{func}` no longer runs");
    let notes = reason.0.iter().map(ToString::to_string);
    Box::new(notes.fold(*wrong(message), Diagnostic::note))
}
