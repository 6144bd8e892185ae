//! Random tile products.

use dojoc_ir::program::Packing;
use dojoc_ir::types::DType;

use super::segment::{Kind, Operand, SegmentText};

impl SegmentText<'_, '_> {
    /// Adds a product.
    pub(super) fn product(&mut self) {
        let (m, k, n) = (self.dims(), self.dims(), self.extent());
        let steps = k.iter().product();
        // Only the numbers of steps must agree.
        let b_k = if self.rng().one_in(2) {
            vec![steps]
        } else {
            k.clone()
        };
        let (transpose_a, transpose_b) = (self.rng().one_in(3), self.rng().one_in(3));
        let cfp8 = self.rng().one_in(4);
        let dtype = self.rng().pick(&[DType::Bf16, DType::F32]);
        let turned = |turn: bool, first: &[u64], second: &[u64]| match turn {
            true => [second, first].concat(),
            false => [first, second].concat(),
        };
        let a_shape = turned(transpose_a, &m, &k);
        let b_shape = turned(transpose_b, &b_k, &[n]);
        let [(a, bias_a), (b, bias_b)] =
            [(a_shape, Packing::Packed8x4), (b_shape, Packing::Packed4x8)]
                .map(|(shape, packing)| self.matrix((dtype, cfp8), &shape, packing));
        let shape = [&m[..], &[n]].concat();
        let to = self.rng().pick(&[DType::F32, DType::Bf16]);
        let narrow = to == DType::Bf16;
        let sums = (narrow && self.rng().one_in(3)).then(|| self.read(DType::F32, &shape));
        let bias = self.rng().one_in(3).then(|| self.read(DType::F32, &[n]));
        let residual = self.rng().one_in(4).then(|| self.read(to, &shape));
        let mut sources: Vec<&Operand> = vec![&a, &b];
        sources.extend(sums.iter().chain(&bias).chain(&residual));
        sources.extend(bias_a.iter().chain(&bias_b));
        let c = self.target(to, &shape, &sources);
        let mut attributes: Vec<String> = Vec::new();
        let mut flag = |is: bool, name: &str| {
            if is {
                attributes.push(format!("{name} = true"));
            }
        };
        flag(transpose_a, "transpose_a");
        flag(transpose_b, "transpose_b");
        flag(bias.is_some(), "bias");
        flag(cfp8, "cfp8");
        flag(sums.is_some(), "sums");
        let onto_c = !narrow && self.arrays[c.array].defined && self.rng().one_in(2);
        flag(sums.is_some() || onto_c, "accumulate");
        if m.len() > 1 {
            attributes.push(format!("split = {}", m.len()));
        }
        if narrow && self.rng().one_in(3) {
            let index = self.param("100 * i".into());
            attributes.push(format!("stochastic = 7, index = %{index}, row = {n}"));
        }
        if self.rng().one_in(3) {
            let activation = self.rng().pick(&["relu", "gelu_tanh"]);
            attributes.push(format!("activation = \"{activation}\""));
        }
        if residual.is_some() {
            let place = self.rng().pick(&["before", "after"]);
            attributes.push(format!("residual = \"{place}\""));
        }
        let operands: Vec<&Operand> = std::iter::once(&c).chain(sources).collect();
        self.act(Kind::Product, &operands, 1, |o| {
            format!("mm {} {{{}}}\n", o.join(", "), attributes.join(", "))
        });
    }

    fn extent(&mut self) -> u64 {
        match self.rng().below(3) {
            0 => 8,
            1 => 16,
            _ => self.rng().within(1, 13),
        }
    }

    /// Extents of m or k: mostly one.
    fn dims(&mut self) -> Vec<u64> {
        match self.rng().below(4) {
            0 => vec![self.rng().within(1, 4), self.rng().within(1, 5)],
            _ => vec![self.extent()],
        }
    }

    /// A matrix, perhaps packed, with its exponent bias if it is of an 8-bit format.
    fn matrix(
        &mut self,
        (dtype, cfp8): (DType, bool),
        shape: &[u64],
        packing: Packing,
    ) -> (Operand, Option<Operand>) {
        let (dtype, x, bias) = if cfp8 {
            let format = self.rng().pick(&[DType::Cfp8E4M3, DType::Cfp8E5M2]);
            let [code, bias] = self.coded(format, shape);
            (format, code, Some(bias))
        } else {
            (dtype, self.read(dtype, shape), None)
        };
        let (rows, columns) = packing.block();
        let whole = matches!(shape, [r, c] if r.is_multiple_of(rows) && c.is_multiple_of(columns));
        if !whole || !self.rng().one_in(3) {
            return (x, bias);
        }
        let packed = self.scratch(dtype, shape, packing);
        let y = self.whole(packed);
        self.act(Kind::Compute, &[&y, &x], 1, |o| {
            format!("copy {}, {}\n", o[0], o[1])
        });
        self.pin(&y);
        (y, bias)
    }
}
