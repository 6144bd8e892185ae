//! The walk over the shards of a tensor.

use std::collections::HashMap;
use std::sync::Arc;

use dojoc_ir::codes::BAD_PLACEMENT;
use dojoc_ir::diag::{Diagnostic, Place};
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{
    DramId, Env, Home as ShardHome, IndexEnv, IndexExpr, Program, Region, Shard, TensorDecl,
    ViewType,
};

use crate::compute::Layout;

/// A core in a message.
pub fn core_name(core: CoreAddress) -> String {
    let CoreAddress { chip, row, column } = core;
    format!("core (chip {chip}, row {row}, column {column})")
}

/// Whose memory holds a piece of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// The SRAM of a core.
    Sram(CoreAddress),
    /// An instance of a DRAM region.
    Dram {
        /// The region.
        dram: DramId,
        /// Index of the owner; 0 in a region without owners.
        instance: u64,
        /// The owner, if there is one.
        owner: Option<CoreAddress>,
    },
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sram(core) => f.write_str(&core_name(*core)),
            Self::Dram {
                owner: Some(core), ..
            } => write!(f, "the DRAM of {}", core_name(*core)),
            Self::Dram { owner: None, .. } => f.write_str("the DRAM of the host"),
        }
    }
}

/// A box of a tensor in one memory.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The memory.
    pub home: Home,
    /// Address of the box's first element.
    pub at: u64,
    /// First index in each dimension of the tensor. Pieces of equal boxes may share it.
    pub start: Arc<[u64]>,
    /// Extents and layout.
    pub layout: Arc<Layout>,
}

impl Piece {
    /// Bytes of its elements.
    pub fn bytes(&self) -> usize {
        self.layout.elements * self.layout.view.dtype.bytes() as usize
    }
}

/// The extents of a tensor under run parameters.
///
/// # Errors
/// Where an extent overflows or is negative.
pub fn shape_of(decl: &TensorDecl, dims: &[i64]) -> Result<Vec<u64>, Diagnostic> {
    let env = Env {
        dims,
        ..Env::default()
    };
    let extent = |e: &dojoc_ir::program::Affine| u64::try_from(e.eval(&env)?).ok();
    let shape: Option<Vec<u64>> = decl.shape.iter().map(extent).collect();
    let bytes = shape.as_ref().and_then(|shape| {
        let mut nonzero = shape.iter().map(|d| (*d).max(1));
        nonzero.try_fold(decl.dtype.bytes(), |n, d| n.checked_mul(d))
    });
    match shape {
        Some(shape) if bytes.is_some_and(|b| i64::try_from(b).is_ok()) => Ok(shape),
        _ => Err(malformed(
            decl,
            "has extents that are negative or too large",
        )),
    }
}

pub(super) fn malformed(decl: &TensorDecl, what: &str) -> Diagnostic {
    Diagnostic::input(BAD_PLACEMENT, format!("tensor @{} {what}", decl.name))
}

/// `diagnostic` at the source of a tensor, if that is known.
pub(super) fn located(program: &Program, decl: &TensorDecl, diagnostic: Diagnostic) -> Diagnostic {
    match decl.loc.and_then(|loc| program.locs.get(loc)) {
        Some(loc) if diagnostic.place.is_none() => {
            diagnostic.at(Place::Node(Arc::new(loc.clone())))
        }
        _ => diagnostic,
    }
}

/// A box: first index in each dimension, extents and layout.
type Cut = (Arc<[u64]>, Arc<Layout>);

/// Boxes by start and extents, each made once.
type Boxes = HashMap<(Vec<u64>, Vec<u64>), Cut>;

/// Distinct boxes that are remembered at a time: what is shared are boxes of many cores, and those
/// are few.
const REMEMBERED: usize = 4096;

struct Walk<'a> {
    program: &'a Program,
    decl: &'a TensorDecl,
    shape: &'a [u64],
    dims: &'a [i64],
    boxes: Boxes,
    start: Vec<u64>,
    extents: Vec<u64>,
}

impl Walk<'_> {
    fn eval(&self, e: &IndexExpr, env: &IndexEnv<'_>, what: &str) -> Result<u64, Diagnostic> {
        let value = e.eval(env, &self.program.tables);
        value.and_then(|v| u64::try_from(v).ok()).ok_or_else(|| {
            let message = format!("has a shard whose {what} is negative or cannot be computed");
            malformed(self.decl, &message)
        })
    }

    /// The box of a core; `None` if it is empty.
    fn cut(&mut self, shard: &Shard, env: &IndexEnv<'_>) -> Result<Option<Cut>, Diagnostic> {
        if shard.slice.len() != self.shape.len() || shard.strides.len() != self.shape.len() {
            return Err(malformed(self.decl, "has a shard of another rank"));
        }
        self.start.clear();
        self.extents.clear();
        for (start, extent) in &shard.slice {
            let start = self.eval(start, env, "start")?;
            let extent = self.eval(extent, env, "extent")?;
            self.start.push(start);
            self.extents.push(extent);
        }
        if self.extents.contains(&0) {
            return Ok(None);
        }
        let inside = |((start, extent), whole): ((&u64, &u64), &u64)| {
            start.checked_add(*extent).is_some_and(|end| end <= *whole)
        };
        if !self
            .start
            .iter()
            .zip(&self.extents)
            .zip(self.shape)
            .all(inside)
        {
            let what = format!(
                "has a shard of extents {:?} at {:?}, outside its extents {:?}",
                self.extents, self.start, self.shape
            );
            return Err(malformed(self.decl, &what));
        }
        let key = (self.start.clone(), self.extents.clone());
        if let Some((start, layout)) = self.boxes.get(&key) {
            return Ok(Some((start.clone(), layout.clone())));
        }
        let layout = Layout::new(ViewType {
            dtype: self.decl.dtype,
            shape: self.extents.clone(),
            strides: shard.strides.clone(),
            packing: shard.packing,
        });
        let Some(layout) = layout else {
            return Err(malformed(self.decl, "has a shard whose layout overflows"));
        };
        let made = (Arc::from(self.start.as_slice()), Arc::new(layout));
        if self.boxes.len() >= REMEMBERED {
            self.boxes.clear();
        }
        self.boxes.insert(key, made.clone());
        Ok(Some(made))
    }
}

/// Calls `visit` for every piece of a tensor, shard by shard and core by core in the order of
/// regions; empty boxes are left out. `shape` are the tensor's extents under `dims`.
///
/// # Errors
/// A shard that does not fit the tensor, and what `visit` returns, which ends the walk; with the
/// tensor's source as place.
pub fn walk(
    program: &Program,
    decl: &TensorDecl,
    shape: &[u64],
    dims: &[i64],
    mut visit: impl FnMut(&Piece) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    let mut walk = Walk {
        program,
        decl,
        shape,
        dims,
        boxes: HashMap::new(),
        start: Vec::new(),
        extents: Vec::new(),
    };
    let result = decl.shards.iter().try_for_each(|shard| {
        // Layouts differ between shards.
        walk.boxes.clear();
        walk_shard(&mut walk, shard, &mut visit)
    });
    result.map_err(|d| located(program, decl, d))
}

fn walk_shard(
    walk: &mut Walk<'_>,
    shard: &Shard,
    visit: &mut impl FnMut(&Piece) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    let program = walk.program;
    let missing = |decl: &TensorDecl| malformed(decl, "lies in a region that does not exist");
    let (at, dram, region) = match &shard.home {
        ShardHome::Sram { on, at } => {
            let region = program.regions.get(*on).ok_or_else(|| missing(walk.decl))?;
            (at, None, Some(region))
        }
        ShardHome::Dram { dram, at } => {
            let region = program.dram.get(*dram).ok_or_else(|| missing(walk.decl))?;
            let owners = match region.owners {
                None => None,
                Some(id) => Some(program.regions.get(id).ok_or_else(|| missing(walk.decl))?),
            };
            (at, Some(*dram), owners)
        }
    };
    // A box that is the same for all cores is cut once.
    let same = shard
        .slice
        .iter()
        .all(|(start, extent)| !start.depends_on_core() && !extent.depends_on_core());
    let mut cut = None;
    let dims = walk.dims;
    let mut step = |index: u64, core: Option<CoreAddress>| {
        let env = index_env(index, core, dims);
        if cut.is_none() || !same {
            cut = Some(walk.cut(shard, &env)?);
        }
        let Some(Some((start, layout))) = &cut else {
            return Ok(());
        };
        let home = match (dram, core) {
            (None, Some(core)) => Home::Sram(core),
            (None, None) => return Ok(()),
            (Some(dram), owner) => Home::Dram {
                dram,
                instance: index,
                owner,
            },
        };
        visit(&Piece {
            home,
            at: walk.eval(at, &env, "address")?,
            start: start.clone(),
            layout: layout.clone(),
        })
    };
    match region {
        None => step(0, None),
        Some(region) => each_core(region, |index, core| step(index, Some(core))),
    }
}

fn each_core(
    region: &Region,
    mut visit: impl FnMut(u64, CoreAddress) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    for (index, core) in region.cores().enumerate() {
        visit(index as u64, core)?;
    }
    Ok(())
}

/// Coordinates of a core for expressions of shards.
fn index_env(index: u64, core: Option<CoreAddress>, dims: &[i64]) -> IndexEnv<'_> {
    IndexEnv {
        index: index as i64,
        chip: core.map_or(0, |c| c.chip.into()),
        row: core.map_or(0, |c| c.row.into()),
        column: core.map_or(0, |c| c.column.into()),
        dims,
        ..IndexEnv::default()
    }
}
