//! Tensors and their shards.

use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::{ExprId, ExprKind};

use super::expr::{Counters, Variables};
use super::fields::{Fields, all};
use super::{Context, Reader};
use crate::codes;
use crate::program::{
    Home, Packing, Recipe, Shard, StateInit, TensorDecl, TensorKind, dense_strides,
};
use crate::types::DType;

impl<'t> Reader<'t> {
    pub(super) fn tensor(&mut self, name: Arc<str>, decl: &'t g::Decl) -> TensorDecl {
        let loc = self.loc(decl.locs);
        let cx = &self.cx;
        let ty = decl.ty.and_then(|ty| cx.affine_type(ty, &Variables::new()));
        let (dtype, shape) = ty.unwrap_or((DType::F32, vec![]));
        let shards = decl
            .init
            .and_then(|init| all(cx.list(init)?, |item| cx.shard(*item, dtype)));
        let kind = cx.tensor_kind(decl);
        TensorDecl {
            name,
            kind,
            dtype,
            shape,
            shards: shards.unwrap_or_default(),
            loc,
        }
    }
}

impl<'t> Context<'t> {
    fn tensor_kind(&self, decl: &g::Decl) -> TensorKind {
        let fields =
            |owner, known: &[&str]| Fields::new(self, owner, decl.symbol.span, decl.attrs, known);
        match self.text(&decl.keyword) {
            "weight" => {
                let data = fields("a weight", &["data"]).required("data");
                let recipe = data.and_then(|data| self.recipe(data));
                TensorKind::Weight(recipe.unwrap_or_default())
            }
            "state" => {
                let init = fields("a state", &["init"]).required("init");
                let zeros = |id: ExprId| match self.tree[id].kind {
                    ExprKind::Ident(word) => &self.tree[word] == "zeros",
                    _ => false,
                };
                TensorKind::State(match init {
                    Some(id) if !zeros(id) => {
                        StateInit::Recipe(self.recipe(id).unwrap_or(Recipe { nodes: vec![] }))
                    }
                    _ => StateInit::Zeros,
                })
            }
            "output" => TensorKind::Output,
            "probe" => TensorKind::Probe,
            _ => TensorKind::Input,
        }
    }

    fn shard(&self, id: ExprId, dtype: DType) -> Option<Shard> {
        let span = self.tree[id].span;
        let ExprKind::Dict(attrs) = self.tree[id].kind else {
            let message = "expected `{on = @cores, at = .., slice = [..]}`";
            return self.error(codes::BAD_DECLARATION, span, message);
        };
        let known = ["on", "dram", "at", "slice", "strides", "packing"];
        let fields = Fields::new(self, "a shard", span, attrs, &known);
        let at = fields
            .required("at")
            .and_then(|e| self.index(e, &Counters::default()));
        let slice = fields.required("slice").and_then(|e| self.slice(e));
        let packing = match fields.get("packing") {
            Some(packing) => self.one_of(packing, &Packing::ALL)?,
            None => Packing::Strided,
        };
        let home = match (fields.get("on"), fields.get("dram")) {
            (Some(on), None) => Home::Sram {
                on: self.region(on)?,
                at: at?,
            },
            (None, Some(dram)) => Home::Dram {
                dram: self.dram_of(dram)?,
                at: at?,
            },
            _ => {
                let message = "a shard has either `on` or `dram`";
                return self.error(codes::BAD_DECLARATION, span, message);
            }
        };
        let slice = slice?;
        let strides = match fields.get("strides") {
            Some(strides) => self.ints(strides)?,
            None => {
                let extents = slice.iter().map(|(_, extent)| extent.as_constant());
                let extents = extents
                    .map(|e| u64::try_from(e?).ok())
                    .collect::<Option<Vec<u64>>>();
                let dense = extents.and_then(|extents| dense_strides(dtype, &extents, packing));
                match dense {
                    Some(dense) => dense,
                    None => {
                        let message = "without `strides` all extents of a slice are numbers";
                        return self.error(codes::BAD_DECLARATION, span, message);
                    }
                }
            }
        };
        Some(Shard {
            home,
            slice,
            strides,
            packing,
        })
    }

    fn slice(
        &self,
        id: ExprId,
    ) -> Option<Vec<(crate::program::IndexExpr, crate::program::IndexExpr)>> {
        let pair = |id: &ExprId| match self.list(*id)? {
            [start, extent] => {
                let counters = Counters::default();
                let (start, extent) = (
                    self.index(*start, &counters),
                    self.index(*extent, &counters),
                );
                Some((start?, extent?))
            }
            _ => {
                let message = "expected `[start, extent]`";
                self.error(codes::BAD_DECLARATION, self.tree[*id].span, message)
            }
        };
        all(self.list(id)?, pair)
    }
}
