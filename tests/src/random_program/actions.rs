//! Random compute instructions.

use dojoc_ir::program::Packing;
use dojoc_ir::types::DType;

use super::segment::{Kind, Operand, SegmentText};

const FLOATS: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

impl SegmentText<'_, '_> {
    /// Adds a random instruction.
    pub fn compute(&mut self) {
        self.unpin();
        let product = self.has_matrix();
        match self.rng().below(18) {
            0..4 => self.zip(),
            4 | 5 => self.map(),
            6 => self.several_sources(),
            7 => self.compare_and_select(),
            8 => self.reduce(),
            9 => self.arg_or_scan(),
            10 => self.convert(),
            11 => self.copy_or_pad(),
            12 => self.gather_or_scatter(),
            13 => self.sort(),
            14 if self.may_count() => self.counted(),
            15 if self.options().dram => self.dram(),
            _ if product => self.product(),
            _ => self.zip(),
        }
    }

    /// Whether a register is added. A segment is verified with all values of all of them, so there is
    /// one, and not in a loop.
    fn may_count(&self) -> bool {
        self.options().registers && !self.has_register && self.loops.is_empty()
    }

    fn number(&mut self, dtype: DType) -> String {
        if dtype.is_float() {
            format!("{:?}", self.rng().unit())
        } else {
            self.rng().within(0, 6).to_string()
        }
    }

    fn float_or(&mut self, dtype: DType) -> DType {
        if dtype.is_float() && dtype != DType::F64 {
            dtype
        } else {
            self.rng().pick(&FLOATS)
        }
    }

    pub(super) fn zip(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        let names: &[&str] = match (dtype.is_float(), self.rng().one_in(2)) {
            (true, _) => &["add", "sub", "mul", "div", "min", "max", "pow"],
            (false, true) => &["and", "or", "xor", "shl", "shr", "rem"],
            (false, false) => &["add", "sub", "mul", "div", "min", "max"],
        };
        let name = self.rng().pick(names);
        let a = self.read(dtype, &shape);
        let with_value = self.rng().one_in(3);
        let b = if with_value {
            None
        } else {
            Some(self.read(dtype, &shape))
        };
        let value = self.number(dtype);
        let sources: Vec<&Operand> = std::iter::once(&a).chain(&b).collect();
        let in_place = self.rng().one_in(3) && self.may_write(&a);
        let y = if in_place {
            a.clone().again()
        } else {
            self.target(dtype, &shape, &sources)
        };
        match &b {
            Some(b) => self.act(Kind::Compute, &[&y, &a, b], 1, |o| {
                format!("{name} {}, {}, {}\n", o[0], o[1], o[2])
            }),
            None => self.act(Kind::Compute, &[&y, &a], 1, |o| {
                format!("{name} {}, {} {{value = {value}}}\n", o[0], o[1])
            }),
        }
    }

    fn map(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        let name = if dtype.is_float() {
            self.rng().pick(&[
                "neg",
                "abs",
                "relu",
                "exp",
                "tanh",
                "sigmoid",
                "silu",
                "erf",
                "gelu",
                "gelu_tanh",
                "sqrt",
                "rsqrt",
                "recip",
                "log",
                "sin",
                "cos",
                "floor",
                "ceil",
                "round",
            ])
        } else {
            self.rng().pick(&["neg", "abs", "not"])
        };
        self.one_to_one(name, "", dtype, &shape);
    }

    /// An instruction `y, x` of equal extents and types.
    fn one_to_one(&mut self, name: &str, attributes: &str, dtype: DType, shape: &[u64]) {
        let x = self.read(dtype, shape);
        let y = self.target(dtype, shape, &[&x]);
        self.act(Kind::Compute, &[&y, &x], 1, |o| {
            format!("{name} {}, {}{attributes}\n", o[0], o[1])
        });
    }

    fn several_sources(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        if self.rng().one_in(2) {
            let (low, high) = (self.number(dtype), self.number(dtype));
            let attributes = format!(" {{low = {low}, high = {high}}}");
            return self.one_to_one("clamp", &attributes, dtype, &shape);
        }
        let dtype = self.float_or(dtype);
        let [a, b, c] = [0; 3].map(|_| self.read(dtype, &shape));
        let y = self.target(dtype, &shape, &[&a, &b, &c]);
        self.act(Kind::Compute, &[&y, &a, &b, &c], 1, |o| {
            format!("fma {}, {}, {}, {}\n", o[0], o[1], o[2], o[3])
        });
    }

    fn compare_and_select(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        let name = self.rng().pick(&["eq", "ne", "lt", "le", "gt", "ge"]);
        let (a, b) = (self.read(dtype, &shape), self.read(dtype, &shape));
        let mask = self.scratch(DType::Bool, &shape, Packing::Strided);
        let mask = self.whole(mask);
        self.act(Kind::Compute, &[&mask, &a, &b], 1, |o| {
            format!("{name} {}, {}, {}\n", o[0], o[1], o[2])
        });
        let mask = self.read(DType::Bool, &shape);
        let (a, b) = (self.read(dtype, &shape), self.read(dtype, &shape));
        let y = self.target(dtype, &shape, &[&a, &b]);
        self.act(Kind::Compute, &[&y, &mask, &a, &b], 1, |o| {
            format!("select {}, {}, {}, {}\n", o[0], o[1], o[2], o[3])
        });
    }

    fn reduce(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        let name = self.rng().pick(&["sum", "prod", "min", "max"]);
        let dims = self.rng().within(1, shape.len() as u64) as usize;
        let kept = &shape[..shape.len() - dims];
        let x = self.read(dtype, &shape);
        let wide = matches!(dtype, DType::Bf16 | DType::F16) && self.rng().one_in(2);
        let y = self.target(if wide { DType::F32 } else { dtype }, kept, &[&x]);
        let accumulate = if self.arrays[y.array].defined && self.rng().one_in(2) {
            ", accumulate = true"
        } else {
            ""
        };
        self.act(Kind::Compute, &[&y, &x], 1, |o| {
            format!(
                "reduce.{name} {}, {} {{dims = {dims}{accumulate}}}\n",
                o[0], o[1]
            )
        });
    }

    fn arg_or_scan(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        if self.rng().one_in(2) {
            let name = self
                .rng()
                .pick(&["scan.sum", "scan.prod", "scan.max", "scan.min"]);
            let attributes = self.rng().pick(&[
                "",
                " {exclusive = true}",
                " {reverse = true}",
                " {exclusive = true, reverse = true}",
            ]);
            return self.one_to_one(name, attributes, dtype, &shape);
        }
        let name = self.rng().pick(&["argmax", "argmin"]);
        let last = self.rng().pick(&["", " {last = true}"]);
        let x = self.read(dtype, &shape);
        let y = self.target(DType::I32, &shape[..shape.len() - 1], &[&x]);
        self.act(Kind::Compute, &[&y, &x], 1, |o| {
            format!("{name} {}, {}{last}\n", o[0], o[1])
        });
    }

    fn convert(&mut self) {
        let (from, to) = (self.generator.dtype(), self.generator.dtype());
        let shape = self.generator.shape();
        if self.rng().one_in(3) {
            return self.convert_with_bias(&shape);
        }
        let stochastic = from == DType::F32 && matches!(to, DType::Bf16 | DType::F16);
        let attributes = if stochastic && self.rng().one_in(2) {
            let index = self.param("10 * i".into());
            format!(" {{stochastic = 7, index = %{index}}}")
        } else {
            String::new()
        };
        let x = self.read(from, &shape);
        let y = self.target(to, &shape, &[&x]);
        self.act(Kind::Compute, &[&y, &x], 1, |o| {
            format!("convert {}, {}{attributes}\n", o[0], o[1])
        });
    }

    /// To an 8-bit format and back.
    fn convert_with_bias(&mut self, shape: &[u64]) {
        let format = self
            .rng()
            .pick(&[DType::Cfp8E4M3, DType::Cfp8E5M2, DType::Shp]);
        let [code, bias] = self.coded(format, shape);
        let y = self.target(DType::Bf16, shape, &[&code, &bias]);
        self.act(Kind::Compute, &[&y, &code, &bias], 1, |o| {
            format!("convert {}, {}, {} {{bias = true}}\n", o[0], o[1], o[2])
        });
    }

    /// Values in an 8-bit format, and their exponent bias.
    pub(super) fn coded(&mut self, format: DType, shape: &[u64]) -> [Operand; 2] {
        let bias = self.scratch(DType::U8, &[1], Packing::Strided);
        let bias = self.whole(bias);
        let value = self.rng().within(10, 20);
        self.act(Kind::Compute, &[&bias], 1, |o| {
            format!("fill {} {{value = {value}}}\n", o[0])
        });
        self.pin(&bias);
        let x = self.read(DType::F32, shape);
        let code = self.scratch(format, shape, Packing::Strided);
        let code = self.whole(code);
        self.act(Kind::Compute, &[&code, &x, &bias], 1, |o| {
            format!("convert {}, {}, {} {{bias = true}}\n", o[0], o[1], o[2])
        });
        self.pin(&code);
        [code, bias]
    }

    /// An addition as often as a register says, which differs from core to core and may be zero.
    fn counted(&mut self) {
        self.has_register = true;
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        let limit_type = self.rng().pick(&[DType::I32, DType::I64]);
        let limit = self.scratch(limit_type, &[1], Packing::Strided);
        let limit = self.whole(limit);
        let start = self.param("mod(i + 1, 4)".into());
        self.act(Kind::Compute, &[&limit], 1, |o| {
            format!("iota {} {{axis = 0, step = 1, start = %{start}}}\n", o[0])
        });
        self.pin(&limit);
        let x = self.read(dtype, &shape);
        let y = self.target(dtype, &shape, &[&x, &limit]);
        self.pin(&y);
        let [register, counter] = ["n", "i"].map(|prefix| self.generator.name(prefix));
        // What is copied is left if nothing is added.
        self.act(Kind::Compute, &[&y, &x, &limit], 1, |o| {
            format!(
                "copy {y}, {x}\n%{register} = count {limit} {{max = 3}}\nfor {{count = %{register}}} (\n\
                 {{ ^(%{counter} : index)\nadd {y}, {y}, {x}\n}}\n)\n",
                y = o[0],
                x = o[1],
                limit = o[2],
            )
        });
    }

    fn copy_or_pad(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        if self.rng().one_in(2) {
            return self.one_to_one("copy", "", dtype, &shape);
        }
        let [low, high] =
            [0; 2].map(|_| -> Vec<u64> { shape.iter().map(|_| self.rng().within(0, 2)).collect() });
        let padded: Vec<u64> = (0..shape.len())
            .map(|d| shape[d] + low[d] + high[d])
            .collect();
        let value = self.number(dtype);
        let x = self.read(dtype, &shape);
        let y = self.target(dtype, &padded, &[&x]);
        self.act(Kind::Compute, &[&y, &x], 1, |o| {
            format!(
                "pad {}, {} {{low = {low:?}, high = {high:?}, value = {value}}}\n",
                o[0], o[1]
            )
        });
    }

    fn gather_or_scatter(&mut self) {
        let dtype = self.generator.dtype();
        let (n, inner) = (self.rng().within(1, 8), self.rng().within(1, 6));
        let count = self.rng().within(1, 7);
        let index_type = if self.rng().one_in(4) {
            DType::I64
        } else {
            DType::I32
        };
        let indices = self.read(index_type, &[count]);
        let (whole, part) = ([n, inner], [count, inner]);
        if self.rng().one_in(2) {
            let fill = self.number(dtype);
            let x = self.read(dtype, &whole);
            let y = self.target(dtype, &part, &[&x, &indices]);
            return self.act(Kind::Compute, &[&y, &x, &indices], 1, |o| {
                format!("gather {}, {}, {} {{fill = {fill}}}\n", o[0], o[1], o[2])
            });
        }
        let updates = self.read(dtype, &part);
        let y = self.target(dtype, &whole, &[&updates, &indices]);
        let was_defined = self.arrays[y.array].defined;
        if !was_defined {
            // It keeps what is there.
            self.act(Kind::Compute, &[&y], 1, |o| {
                format!("fill {} {{value = 1}}\n", o[0])
            });
        }
        let add = self.rng().pick(&["", ", add = true"]);
        let y = if was_defined { y } else { y.again() };
        self.act(Kind::Compute, &[&y, &updates, &indices], 1, |o| {
            format!(
                "scatter {}, {}, {} {{skip = true{add}}}\n",
                o[0], o[1], o[2]
            )
        });
    }

    fn sort(&mut self) {
        let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
        let x = self.read(dtype, &shape);
        let mut kept = shape.clone();
        let (name, attributes) = if self.rng().one_in(2) {
            ("sort", self.rng().pick(&["", " {descending = true}"]))
        } else {
            if let Some(last) = kept.last_mut() {
                *last = self.rng().within(1, *last);
            }
            ("topk", self.rng().pick(&["", " {smallest = true}"]))
        };
        let values = self.target(dtype, &kept, &[&x]);
        self.pin(&values);
        let indices = self.scratch(DType::I32, &kept, Packing::Strided);
        let indices = self.whole(indices);
        self.act(Kind::Compute, &[&values, &indices, &x], 2, |o| {
            format!("{name} {}, {}, {}{attributes}\n", o[0], o[1], o[2])
        });
    }
}
