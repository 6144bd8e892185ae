//! DRAM: a table that the host wrote, and what cores give each other in epochs.

use dojoc_ir::program::Packing;
use dojoc_ir::types::DType;

use super::Generator;
use super::segment::{Kind, SegmentText};

/// Elements of the table, in f32.
const TABLE: u64 = 64;
/// Bytes of what each core owns.
const OWN: u64 = 4096;

impl Generator<'_> {
    /// The declarations: `@table`, and `@shared` if there are other cores to read it.
    pub(super) fn dram(&mut self) -> String {
        let half = TABLE / 2;
        let [low, high] = [0; 2].map(|_| self.rng.unit());
        let mut text = format!(
            "dram @table {{dip = 0, bytes = {}}}\n\
             weight @table_of : f32[{TABLE}] = [{{dram = @table, at = 0, slice = [[0, {TABLE}]]}}] \
             {{data = concat(0, splat(f32[{half}], {low:?}), splat(f32[{half}], {high:?}))}}\n",
            4 * TABLE
        );
        if self.cores() > 1 {
            text +=
                &format!("dram @shared {{owners = @all, dip = 0, bytes = {OWN}, readers = 1}}\n");
        }
        text
    }
}

impl SegmentText<'_, '_> {
    /// Loads of the table, or gives a value to the core before and takes that of the core behind.
    pub(super) fn dram(&mut self) {
        let n = self.generator.cores();
        if n == 1 || self.rng().one_in(2) {
            let (count, step) = (self.rng().within(1, TABLE / 2), self.rng().within(1, 2));
            let offset = 4 * self.rng().within(0, TABLE - (count - 1) * step - 1);
            let strides = if step > 1 {
                format!(", strides = [{}]", 4 * step)
            } else {
                String::new()
            };
            let y = self.target(DType::F32, &[count], &[]);
            return self.act(Kind::Transfer, &[&y], 1, |o| {
                format!(
                    "dram.load {}, @table {{owner = 0, offset = {offset}{strides}}}\n",
                    o[0]
                )
            });
        }
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        let offset = 64 * self.rng().within(0, 16);
        let x = self.read(dtype, &shape);
        let line = format!(
            "dram.begin @shared\n{}dram.store @shared, %{} {{offset = {offset}}}\ndram.commit @shared\n",
            x.definition, x.name
        );
        self.in_dram(line, (&x, false));
        if self.rng().one_in(2) {
            // Not another epoch: its owner would wait for readers that come later.
            self.zip();
        }
        let owner = self.param(format!("mod(i + 1, {n})"));
        let y = self.scratch(dtype, &shape, Packing::Strided);
        let y = self.whole(y);
        let line = format!(
            "dram.acquire @shared {{owner = %{owner}}}\ndram.load %{}, @shared {{owner = %{owner}, offset = {offset}}}\ndram.release @shared {{owner = %{owner}}}\n",
            y.name
        );
        self.in_dram(line, (&y, true));
        self.arrays[y.array].defined = true;
    }
}
