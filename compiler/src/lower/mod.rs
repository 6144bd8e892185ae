//! From level to level: thin, the work is done in [`tile`](crate::tile), [`place`](crate::place),
//! [`route`](crate::route) and [`emit`](crate::emit).

mod mesh_to_program;
mod tiled_to_mesh;

pub use mesh_to_program::{ProgramOptions, mesh_to_program};
pub use tiled_to_mesh::tiled_to_mesh;

use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Loc, Place};

use crate::emit::Unsupported;
use crate::emit::compute::Refused;
use crate::tile::NOT_TILED;

/// The diagnostic of something that there are no instructions for.
fn unsupported(cause: &Unsupported, loc: Option<&Arc<Loc>>) -> Diagnostics {
    let diagnostic = Diagnostic::new(NOT_TILED, Kind::Unsupported, format!("the machine has no instructions for {cause}"))
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
