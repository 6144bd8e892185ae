//! Whether instructions can have their operands, and stand in their stream.

use std::collections::BTreeSet;

use super::super::instr::Ref;
use super::super::{Affine, Env, Segment, Stmt, Unit, Var, ViewType};
use super::walk::{Site, sites};
use super::{Context, Scope, Violation, unit_name};
use crate::codes;
use crate::types::DType;

/// Variables of extents of which all combinations of least and greatest values are tried; of
/// more, each goes to its ends while the others stay at theirs.
const MAX_CORNER_VARIABLES: usize = 6;

pub(super) fn check(cx: &mut Context<'_>) {
    let program = cx.program;
    for id in program.segments.ids() {
        for site in sites(program, id) {
            check_unit(cx, &site);
            check_operands(cx, &site);
        }
    }
}

fn check_unit(cx: &mut Context<'_>, site: &Site<'_>) {
    if let Stmt::Compute { instr, .. } = site.stmt
        && instr.needs_matrix()
        && site.unit != Unit::Matrix
    {
        let message = format!(
            "`{}` needs the matrix unit, the {} stream does not drive it",
            instr.mnemonic(),
            unit_name(site.unit)
        );
        cx.report(Violation::new(codes::WRONG_UNIT, site.place(), message));
    }
}

/// The operands whose types the rules of a statement are about.
fn operands(stmt: &Stmt) -> Vec<Ref> {
    match stmt {
        Stmt::Compute { operands, .. } => operands.clone(),
        Stmt::Post { slot, .. } | Stmt::Receive { slot, .. } | Stmt::Relay { slot, .. } => {
            vec![*slot]
        }
        Stmt::DramLoad { to, .. } => vec![*to],
        Stmt::Count { from, .. } => vec![*from],
        _ => Vec::new(),
    }
}

/// What is wrong with operands of these types.
fn judge(stmt: &Stmt, types: &[ViewType]) -> Result<(), String> {
    match stmt {
        Stmt::Compute { instr, .. } => instr.check(types),
        Stmt::Post { .. } | Stmt::Receive { .. } | Stmt::Relay { .. } => {
            if types.iter().all(ViewType::is_dense) {
                Ok(())
            } else {
                Err("needs a slot whose elements lie side by side in row-major order".into())
            }
        }
        Stmt::DramLoad { .. } => {
            if types.iter().all(ViewType::distinct_places) {
                Ok(())
            } else {
                Err("writes elements of its operand that share bytes".into())
            }
        }
        Stmt::Count { .. } => {
            let fits =
                |ty: &ViewType| matches!(ty.dtype, DType::I32 | DType::I64) && ty.elements() == 1;
            if types.iter().all(fits) {
                Ok(())
            } else {
                Err("needs one element of type i32 or i64".into())
            }
        }
        _ => Ok(()),
    }
}

/// Types are checked where extents are least and greatest. The conditions of instructions are
/// equations and limits of extents, and extents are affine: two of them that agree at these points
/// agree at all others.
fn check_operands(cx: &mut Context<'_>, site: &Site<'_>) {
    let segment = &cx.program.segments[site.segment];
    let operands = operands(site.stmt);
    if operands.is_empty() {
        return;
    }
    let extents: Vec<&Affine> = operands
        .iter()
        .filter_map(|operand| match operand {
            Ref::View(view) => Some(&segment.views[*view].shape),
            Ref::Buffer(_) => None,
        })
        .flatten()
        .collect();
    let place = site.place();
    let variable = extents.iter().any(|extent| !extent.terms.is_empty());
    if !variable {
        let types = types_at(segment, &operands, &Env::default());
        // What has no type was reported with the view.
        if let Some(Err(message)) = types.map(|types| judge(site.stmt, &types)) {
            let message = format!("`{}` {message}", site.stmt.mnemonic());
            cx.report(Violation::new(codes::BAD_OPERANDS, place, message));
        }
        return;
    }
    let params = site.params(extents.iter().copied());
    let used: BTreeSet<Var> = extents
        .iter()
        .flat_map(|extent| extent.terms.iter().map(|(var, _)| *var))
        .collect();
    let Some(rows) = cx.rows_of(site.segment, &params) else {
        return;
    };
    for row in rows.iter() {
        if !cx.spend(16, place) {
            return;
        }
        let scope = site.scope(Scope::of_row(cx.program, segment, &params, row));
        if scope.is_dead() {
            continue;
        }
        for point in scope.corners(&used, MAX_CORNER_VARIABLES) {
            let Some(types) = types_at(segment, &operands, &point.env()) else {
                continue;
            };
            if let Err(message) = judge(site.stmt, &types) {
                let extents: Vec<String> =
                    types.iter().map(|ty| format!("{:?}", ty.shape)).collect();
                let message = format!(
                    "`{}` {message}, with extents {} {}",
                    site.stmt.mnemonic(),
                    extents.join(", "),
                    cx.example(row)
                );
                cx.report(Violation::new(codes::BAD_OPERANDS, place, message));
                return;
            }
        }
    }
}

fn types_at(segment: &Segment, operands: &[Ref], env: &Env<'_>) -> Option<Vec<ViewType>> {
    operands
        .iter()
        .map(|operand| match operand {
            Ref::Buffer(buffer) => segment.buffers[*buffer].view_type(),
            Ref::View(view) => segment.views[*view].view_type(env),
        })
        .collect()
}
