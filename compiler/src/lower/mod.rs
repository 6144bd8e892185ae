//! From level to level: thin, the work is done in [`tile`](crate::tile), [`place`](crate::place),
//! [`route`](crate::route) and [`emit`](crate::emit).

mod memory;
mod mesh_to_program;
mod tiled_to_mesh;

pub use mesh_to_program::{Probes, ProgramOptions, mesh_to_program};

use std::sync::Arc;
use std::time::Instant;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Loc, Place};
use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::Program;
use dojoc_ir::{graph, mesh, tiled};

use crate::emit::Unsupported;
use crate::emit::compute::Refused;
use crate::tile::{
    Failure, NOT_TILED, Plan, SEVERAL_CHIPS, TileOptions, Tiled, Tiler, keep_used, used_grids,
};
use mesh_to_program::{Plans, planned_to_program};
use tiled_to_mesh::{Check, Placer};

/// A model at every level below GRAPH.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// TILED.
    pub tiled: tiled::Module,
    /// MESH.
    pub mesh: mesh::Module,
    /// PROGRAM.
    pub program: Program,
    /// The decisions that were made.
    pub plan: Plan,
    /// Seconds of tiling, of placing, and of emission beside the checks of what was placed.
    pub seconds: [f64; 3],
}

/// What users decide about lowering.
#[derive(Clone, Debug, Default)]
pub struct LowerOptions {
    /// Of tiling.
    pub tile: TileOptions,
    /// Of emission.
    pub program: ProgramOptions,
}

/// Prices of a byte of weights, in cycles, which are tried in turn until the model fits: the higher,
/// the less weights are replicated. The last attempts gather what is replicated just in time.
const ATTEMPTS: [(f64, Option<u64>); 5] = [
    (0.0, None),
    (0.02, None),
    (0.2, None),
    (0.02, Some(64 << 10)),
    (0.02, Some(4 << 10)),
];

/// A model that has been tiled, and placed if it is on one chip.
enum Placed {
    /// With the plans of its exchanges, by function.
    OneChip(mesh::Module, Vec<Plans>),
    Chips(tiled::Module),
}

/// Takes a model (after the passes of [`LOWER`](crate::pipeline::LOWER)) through all levels.
///
/// # Errors
/// Those of the levels; that a model does not fit only when no attempt to save memory helped, with
/// the attempt that came closest; a plan over several chips.
pub fn lower(
    module: &graph::Module,
    machine: &Machine,
    options: &LowerOptions,
) -> Result<Lowered, Diagnostics> {
    let mut seconds = [0.0; 3];
    let (placed, plan) = place(module, machine, options, &mut seconds)?;
    let (mesh, plans) = match placed {
        Placed::OneChip(mesh, plans) => (mesh, plans),
        Placed::Chips(_) => {
            let message = format!(
                "the plan is over several chips of {}, for which no routes are made",
                machine.name
            );
            let found = Diagnostic::new(SEVERAL_CHIPS, Kind::Unsupported, message);
            return Err(found
                .help("`--chips 1` plans for one chip; `--emit tiled` prints the plan")
                .into());
        }
    };
    let start = Instant::now();
    let (verified, program) = rayon::join(
        || verify(&mesh, machine),
        || planned_to_program(&mesh, machine, &options.program, &plans),
    );
    verified?;
    let program = program?;
    seconds[2] = start.elapsed().as_secs_f64();
    Ok(Lowered {
        tiled: mesh.tiled.clone(),
        mesh,
        program,
        plan,
        seconds,
    })
}

/// Takes a model to TILED, as [`lower`] would, on any number of chips.
///
/// # Errors
/// As [`lower`].
pub fn lower_to_tiled(
    module: &graph::Module,
    machine: &Machine,
    options: &LowerOptions,
) -> Result<Tiled, Diagnostics> {
    let (placed, plan) = place(module, machine, options, &mut [0.0; 3])?;
    let module = match placed {
        Placed::OneChip(mesh, _) => {
            verify(&mesh, machine)?;
            mesh.tiled
        }
        Placed::Chips(tiled) => tiled,
    };
    Ok(Tiled { module, plan })
}

/// The first attempt whose values have places.
fn place(
    module: &graph::Module,
    machine: &Machine,
    options: &LowerOptions,
    seconds: &mut [f64; 3],
) -> Result<(Placed, Plan), Diagnostics> {
    let start = Instant::now();
    let mut tools = Tools {
        tiler: Tiler::new(module, machine, options.tile.chips)?,
        placer: Placer::new(machine),
        full: vec![],
    };
    seconds[0] += start.elapsed().as_secs_f64();
    for number in 0..ATTEMPTS.len() {
        let check = (number, Check::Early);
        match attempt(&mut tools, machine, options, check, seconds) {
            Err(Failure::Full(_)) => {}
            Err(Failure::Found(found)) => return Err(found),
            Ok(placed) => return Ok(placed),
        }
    }
    // The attempt that comes closest, now with all that it needs.
    let mut best: Option<(u64, usize)> = None;
    for number in 0..ATTEMPTS.len() {
        let check = (number, Check::Values);
        match attempt(&mut tools, machine, options, check, seconds) {
            Err(Failure::Full(needed)) => {
                if best.is_none_or(|(bytes, _)| needed < bytes) {
                    best = Some((needed, number));
                }
            }
            Err(Failure::Found(found)) => return Err(found),
            Ok(placed) => return Ok(placed),
        }
    }
    let check = (best.map_or(0, |(_, number)| number), Check::Whole);
    attempt(&mut tools, machine, options, check, seconds).map_err(Diagnostics::from)
}

/// What attempts share.
struct Tools<'m> {
    tiler: Tiler<'m>,
    placer: Placer<'m>,
    /// What did not fit: other prices often lead to the same.
    full: Vec<PrimaryMap<tiled::FuncId, tiled::Function>>,
}

/// Tiles and places with the prices of one of [`ATTEMPTS`].
fn attempt(
    tools: &mut Tools<'_>,
    machine: &Machine,
    options: &LowerOptions,
    (number, check): (usize, Check),
    seconds: &mut [f64; 3],
) -> Result<(Placed, Plan), Failure> {
    let (weight_price, gather_above) = ATTEMPTS[number];
    let start = Instant::now();
    let attempt = TileOptions {
        weight_price: options.tile.weight_price.max(weight_price),
        gather_above,
        memory: (check == Check::Early).then(|| machine.core_sram_bytes()),
        ..options.tile.clone()
    };
    let tiled = tools.tiler.tile(&attempt);
    seconds[0] += start.elapsed().as_secs_f64();
    let (mut tiled, choices) = tiled?;
    let used = used_grids(&tiled);
    let mut axes = used.iter().flat_map(|grid| &tiled.grids[*grid].axes);
    if axes.any(|axis| axis.level != tiled::AxisLevel::Core) {
        keep_used(&mut tiled);
        return Ok((Placed::Chips(tiled), tools.tiler.plan(&choices)));
    }
    if check == Check::Early && tools.full.contains(&tiled.functions) {
        return Err(Failure::Full(machine.core_sram_bytes()));
    }
    let start = Instant::now();
    let placed = tools.placer.place(&tiled, check);
    seconds[1] += start.elapsed().as_secs_f64();
    let (schedules, plans) = match placed {
        Ok(placed) => placed,
        Err(failure) => {
            tools.full.push(tiled.functions);
            return Err(failure);
        }
    };
    keep_used(&mut tiled);
    let mesh = mesh::Module { tiled, schedules };
    Ok((Placed::OneChip(mesh, plans), tools.tiler.plan(&choices)))
}

/// Checks the rules of MESH; what breaks one is our fault.
fn verify(module: &mesh::Module, machine: &Machine) -> Result<(), Diagnostics> {
    let violations = mesh::verify_on(module, machine);
    let verified = mesh::diagnostics(module, violations, &mesh::SourceMap::new());
    verified.map_err(|mut broken| {
        broken.0.iter_mut().for_each(|d| d.kind = Kind::Bug);
        broken
    })
}

/// The diagnostic of something that there are no instructions for.
fn unsupported(cause: &Unsupported, loc: Option<&Arc<Loc>>) -> Diagnostics {
    let diagnostic = Diagnostic::new(
        NOT_TILED,
        Kind::Unsupported,
        format!("the machine has no instructions for {cause}"),
    )
    .help("`dojoc eval` runs the model on the reference interpreter");
    Diagnostics::from(match loc {
        Some(loc) => diagnostic.at(Place::Node(loc.clone())),
        None => diagnostic,
    })
}

fn refused(refused: &Refused) -> Diagnostics {
    let cause = Unsupported::new(format!("`{}`: {}", refused.op, refused.cause));
    unsupported(&cause, refused.loc.as_ref())
}

/// The statements of a body as phases: a reshard, or groups on one grid with the views between them.
fn phases(body: &dojoc_ir::tiled::Body) -> Vec<std::ops::Range<usize>> {
    use dojoc_ir::tiled::Stmt;
    let mut phases: Vec<std::ops::Range<usize>> = vec![];
    // The grid of the phase being extended; a phase of views alone has none yet.
    let mut open: Option<Option<dojoc_ir::tiled::GridId>> = None;
    for (at, stmt) in body.stmts.iter().enumerate() {
        let joins = match (stmt, &open) {
            (Stmt::View { .. }, Some(_)) => true,
            (Stmt::Group(group), Some(grid)) => grid.is_none_or(|g| g == group.grid),
            _ => false,
        };
        match phases.last_mut() {
            Some(last) if joins => last.end = at + 1,
            _ => phases.push(at..at + 1),
        }
        open = match (stmt, open) {
            (Stmt::Group(group), _) => Some(Some(group.grid)),
            (Stmt::View { .. }, Some(grid)) => Some(grid),
            (Stmt::View { .. }, None) => Some(None),
            _ => None,
        };
    }
    phases
}
