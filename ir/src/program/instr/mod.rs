//! The instruction set.
//!
//! Tesla's instruction set is not public. This one is ours, at the level of what a Dojo core does as
//! one hardware sequence: a tile product, a vector operation over a view, a transfer. Every
//! instruction states what of the real core it stands for, how well that is known, and what it
//! costs.
//!
//! Two kinds of statements make a stream:
//!
//! - *Compute* instructions ([`Instr`]) read and write views. They are declared by [`InstrDef`], a
//!   family a file, and listed once, in this file. Operands come destination first.
//! - Everything else is structure that verifier and executor know by itself: transfers
//!   ([`network`]), memory beyond the core ([`memory`]), tokens ([`sync`]), loops and registers
//!   ([`control`]). These are variants of [`Stmt`], with the same documentation.
//!
//! An instruction acts as if it read all operands before it wrote any.

mod check;
pub mod control;
pub mod convert;
mod cost;
pub mod data;
pub mod matrix;
pub mod memory;
pub mod network;
mod product;
pub mod reduce;
mod sample;
pub mod sort;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod vector;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Affine, BufferId, DramId, FamilyId, TokenId, ViewId, ViewType};
use crate::attr::{AttrError, AttrSpec, Attrs};
use crate::machine::{Confidence, Machine};

/// An operand: a buffer as a whole, or a view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Ref {
    /// The whole buffer in its own layout.
    Buffer(BufferId),
    /// A view.
    View(ViewId),
}

/// A statement of a stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Stmt {
    /// Defines a view, for the statements that follow in the same body. Costs nothing.
    View(ViewId),
    /// A compute instruction.
    Compute {
        /// Which one, with its attributes.
        instr: Instr,
        /// Operands, as [`Instr::roles`] lists them.
        operands: Vec<Ref>,
        /// Scalars from the address generators, as [`Instr::scalars`] lists them.
        scalars: Vec<Affine>,
    },
    /// [`network`]: gives a slot to an incoming channel.
    Post {
        /// The family.
        family: FamilyId,
        /// Port at this core.
        port: Affine,
        /// The slot.
        slot: Ref,
    },
    /// [`network`]: sends a view.
    Send {
        /// The family.
        family: FamilyId,
        /// Port at this core.
        port: Affine,
        /// What is sent.
        from: Ref,
    },
    /// [`network`]: waits for the oldest slot to be filled.
    Receive {
        /// The family.
        family: FamilyId,
        /// Port at this core.
        port: Affine,
        /// The slot, as it was posted.
        slot: Ref,
    },
    /// [`network`]: receives and sends on.
    Relay {
        /// The family of the incoming channel.
        family: FamilyId,
        /// Its port at this core.
        port: Affine,
        /// The slot, as it was posted.
        slot: Ref,
        /// The family of the outgoing channel.
        to: FamilyId,
        /// Its port at this core.
        to_port: Affine,
    },
    /// [`sync`]: adds one to a token.
    Signal(TokenId),
    /// [`sync`]: waits for a token and takes one.
    Wait(TokenId),
    /// [`memory`]: the owner opens its instance for writing.
    DramBegin(DramId),
    /// [`memory`]: the owner publishes what it wrote.
    DramCommit(DramId),
    /// [`memory`]: a reader waits for the next epoch of an instance.
    DramAcquire {
        /// The region.
        dram: DramId,
        /// Index of the owner.
        owner: Affine,
    },
    /// [`memory`]: a reader gives an instance back.
    DramRelease {
        /// The region.
        dram: DramId,
        /// Index of the owner.
        owner: Affine,
    },
    /// [`memory`]: DRAM to SRAM.
    DramLoad {
        /// The region.
        dram: DramId,
        /// Index of the owner.
        owner: Affine,
        /// First byte in the instance.
        offset: Affine,
        /// Strides in bytes in DRAM, as many as the view has dimensions.
        strides: Vec<i64>,
        /// Where to.
        to: Ref,
    },
    /// [`memory`]: SRAM to the core's own instance.
    DramStore {
        /// The region.
        dram: DramId,
        /// First byte in the instance.
        offset: Affine,
        /// Strides in bytes in DRAM, as many as the view has dimensions.
        strides: Vec<i64>,
        /// Where from.
        from: Ref,
    },
    /// [`control`]: runs the next `len` statements `count` times.
    Loop {
        /// Name of the counter.
        name: Arc<str>,
        /// How often; nothing happens for zero or less.
        count: Affine,
        /// How many statements belong to it.
        len: u32,
    },
    /// [`control`]: reads a register from SRAM.
    Count {
        /// The register, by its position in [`Segment::registers`](super::Segment::registers).
        register: u16,
        /// An `i32` or `i64` view of one element.
        from: Ref,
        /// The largest value; a larger or negative one ends the run with an error.
        max: u64,
        /// The channel family that delivered the value to all members of a group, or that this core
        /// sent it through; `None` for a value that no channel operation may depend on.
        via: Option<FamilyId>,
    },
}

impl Stmt {
    /// The buffers and views that it reads, writes, posts or sends.
    pub fn operands(&self) -> &[Ref] {
        match self {
            Self::Compute { operands, .. } => operands,
            Self::Post { slot, .. } | Self::Receive { slot, .. } | Self::Relay { slot, .. } => {
                std::slice::from_ref(slot)
            }
            Self::Send { from, .. } | Self::DramStore { from, .. } | Self::Count { from, .. } => {
                std::slice::from_ref(from)
            }
            Self::DramLoad { to, .. } => std::slice::from_ref(to),
            Self::View(_)
            | Self::Signal(_)
            | Self::Wait(_)
            | Self::DramBegin(_)
            | Self::DramCommit(_)
            | Self::DramAcquire { .. }
            | Self::DramRelease { .. }
            | Self::Loop { .. } => &[],
        }
    }

    /// The same, to be changed.
    pub fn operands_mut(&mut self) -> &mut [Ref] {
        match self {
            Self::Compute { operands, .. } => operands,
            Self::Post { slot, .. } | Self::Receive { slot, .. } | Self::Relay { slot, .. } => {
                std::slice::from_mut(slot)
            }
            Self::Send { from, .. } | Self::DramStore { from, .. } | Self::Count { from, .. } => {
                std::slice::from_mut(from)
            }
            Self::DramLoad { to, .. } => std::slice::from_mut(to),
            Self::View(_)
            | Self::Signal(_)
            | Self::Wait(_)
            | Self::DramBegin(_)
            | Self::DramCommit(_)
            | Self::DramAcquire { .. }
            | Self::DramRelease { .. }
            | Self::Loop { .. } => &mut [],
        }
    }
}

/// Whether an instruction reads or writes an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes all of it without reading it.
    Write,
    /// Reads and writes all of it.
    Update,
    /// Writes parts of it, which depend on data, and keeps the rest.
    Scatter,
}

/// What an operand is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role {
    /// Its name in documentation and messages.
    pub name: &'static str,
    /// Whether it is read or written.
    pub access: Access,
}

impl Role {
    /// An operand that is read.
    pub const fn read(name: &'static str) -> Self {
        Self {
            name,
            access: Access::Read,
        }
    }

    /// An operand that is written.
    pub const fn write(name: &'static str) -> Self {
        Self {
            name,
            access: Access::Write,
        }
    }
}

/// What an instruction occupies, in cycles of the core. Fractions arise from rates; the timing model
/// rounds sums.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// Front end and address generators.
    pub issue: f64,
    /// Matrix unit.
    pub matrix: f64,
    /// SIMD unit.
    pub simd: f64,
    /// Scalar side, for types without a unit.
    pub scalar: f64,
    /// SRAM load ports.
    pub load: f64,
    /// SRAM store port.
    pub store: f64,
    /// Beats of 64 bytes that enter the network.
    pub inject: f64,
    /// Beats of 64 bytes that leave it.
    pub eject: f64,
    /// From start to result, beyond what is occupied.
    pub latency: f64,
}

impl Cost {
    /// Cycles that it takes alone on a core: what the busiest unit is occupied for, and the latency.
    /// The network counts with the machine's beats per cycle.
    pub fn alone(&self, machine: &Machine) -> f64 {
        let inject = self.inject / f64::from(machine.noc.inject.value);
        let eject = self.eject / f64::from(machine.noc.eject.value);
        let units = [
            self.matrix,
            self.simd,
            self.scalar,
            self.load,
            self.store,
            inject,
            eject,
        ];
        units.into_iter().fold(self.issue, f64::max) + self.latency
    }
}

/// Documentation of an instruction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct InstrInfo {
    /// The word in the text.
    pub mnemonic: &'static str,
    /// Which family it is of: the name of its module.
    pub family: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// Operands, their shapes, types and units, and all rules, in one paragraph.
    pub rules: &'static str,
    /// What of the real core it stands for.
    pub stands_for: &'static str,
    /// How well that is known.
    pub confidence: Confidence,
    /// How it is priced.
    pub cost: &'static str,
}

/// The declaration of a family of compute instructions that share attributes.
pub trait InstrDef: Sized + Clone {
    /// The documentation of every mnemonic of the family.
    fn infos() -> Vec<InstrInfo>;
    /// The word in the text.
    fn mnemonic(&self) -> &'static str;
    /// The attributes with their kinds and meanings.
    fn schema() -> Vec<AttrSpec>;
    /// Reads the instruction of a mnemonic; unknown attributes are errors.
    ///
    /// # Errors
    /// The first attribute that is missing, unknown or of another kind.
    fn parse(mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError>;
    /// The attributes in order of declaration.
    fn attrs(&self) -> Attrs;
    /// Operands in order, destinations first.
    fn roles(&self) -> Vec<Role>;
    /// Names of the scalars it takes from the address generators; in the text they are attributes.
    fn scalars(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// Whether operands of these types can be computed with, and on which units.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the instruction.
    fn check(&self, operands: &[ViewType]) -> Result<(), String>;
    /// What it occupies on a machine, for operands that `check` accepts.
    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost;
    /// Whether it needs the matrix unit.
    fn needs_matrix(&self) -> bool {
        false
    }
    /// Instances with operand types, which test suites walk.
    fn samples() -> Vec<(Self, Vec<ViewType>)>;
}

macro_rules! instrs {
    ($($module:ident :: $name:ident,)+) => {
        /// A compute instruction.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Instr {
            $(
                #[doc = concat!("See [`", stringify!($module), "::", stringify!($name), "`].")]
                $name($module::$name),
            )+
        }

        $(
            impl From<$module::$name> for Instr {
                fn from(instr: $module::$name) -> Self {
                    Self::$name(instr)
                }
            }
        )+

        impl Instr {
            /// Documentation of all compute instructions, in the order of the list.
            pub fn infos() -> Vec<InstrInfo> {
                let mut all = Vec::new();
                $(all.extend($module::$name::infos());)+
                all
            }

            /// The word in the text.
            pub fn mnemonic(&self) -> &'static str {
                match self { $(Self::$name(instr) => instr.mnemonic(),)+ }
            }

            /// Attributes with their kinds and meanings, `None` if there is no such instruction.
            pub fn schema(mnemonic: &str) -> Option<Vec<AttrSpec>> {
                $(
                    if $module::$name::infos().iter().any(|info| info.mnemonic == mnemonic) {
                        return Some($module::$name::schema());
                    }
                )+
                None
            }

            /// Reads the instruction of a mnemonic; `None` if there is none.
            pub fn parse(mnemonic: &str, attrs: &Attrs) -> Option<Result<Self, AttrError>> {
                $(
                    if $module::$name::infos().iter().any(|info| info.mnemonic == mnemonic) {
                        return Some($module::$name::parse(mnemonic, attrs).map(Self::$name));
                    }
                )+
                None
            }

            /// The attributes in order of declaration.
            pub fn attrs(&self) -> Attrs {
                match self { $(Self::$name(instr) => instr.attrs(),)+ }
            }

            /// Operands in order, destinations first.
            pub fn roles(&self) -> Vec<Role> {
                match self { $(Self::$name(instr) => instr.roles(),)+ }
            }

            /// Names of the scalars it takes from the address generators.
            pub fn scalars(&self) -> Vec<&'static str> {
                match self { $(Self::$name(instr) => instr.scalars(),)+ }
            }

            /// Whether operands of these types can be computed with.
            ///
            /// # Errors
            /// What is wrong, as the end of a sentence that begins with the instruction.
            pub fn check(&self, operands: &[ViewType]) -> Result<(), String> {
                if operands.len() != self.roles().len() {
                    let expected = self.roles().len();
                    return Err(format!("has {expected} operands, found {}", operands.len()));
                }
                match self { $(Self::$name(instr) => instr.check(operands),)+ }
            }

            /// What it occupies on a machine, for operands that [`Instr::check`] accepts.
            pub fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
                match self { $(Self::$name(instr) => instr.cost(operands, machine),)+ }
            }

            /// Whether it needs the matrix unit.
            pub fn needs_matrix(&self) -> bool {
                match self { $(Self::$name(instr) => instr.needs_matrix(),)+ }
            }

            /// Instances of all instructions with operand types.
            pub fn samples() -> Vec<(Self, Vec<ViewType>)> {
                let mut all = Vec::new();
                $(all.extend(
                    $module::$name::samples().into_iter().map(|(i, types)| (Self::$name(i), types)),
                );)+
                all
            }
        }
    };
}

instrs! {
    matrix::MatMul,
    vector::Map,
    vector::Zip,
    vector::MulAdd,
    vector::Clamp,
    vector::Compare,
    vector::Select,
    vector::Fill,
    vector::Iota,
    reduce::Reduce,
    reduce::ArgReduce,
    reduce::Scan,
    convert::Convert,
    data::Copy,
    data::Pad,
    data::Gather,
    data::Scatter,
    sort::Sort,
    sort::TopK,
}

impl Instr {
    /// Floating-point operations of a tile product, two per step of a sum; 0 for everything else.
    /// `operands` are those that [`Instr::check`] accepts.
    pub fn flops<'a>(&self, mut operands: impl Iterator<Item = &'a ViewType>) -> u64 {
        if !self.needs_matrix() {
            return 0;
        }
        let (Some(c), Some(a)) = (operands.next(), operands.next()) else {
            return 0;
        };
        let columns = c.shape.last().copied().unwrap_or(1);
        a.elements().saturating_mul(columns).saturating_mul(2)
    }
}

impl Stmt {
    /// The word in the text.
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Self::View(_) => "view",
            Self::Compute { instr, .. } => instr.mnemonic(),
            Self::Post { .. } => "post",
            Self::Send { .. } => "send",
            Self::Receive { .. } => "recv",
            Self::Relay { .. } => "relay",
            Self::Signal(_) => "signal",
            Self::Wait(_) => "wait",
            Self::DramBegin(_) => "dram.begin",
            Self::DramCommit(_) => "dram.commit",
            Self::DramAcquire { .. } => "dram.acquire",
            Self::DramRelease { .. } => "dram.release",
            Self::DramLoad { .. } => "dram.load",
            Self::DramStore { .. } => "dram.store",
            Self::Loop { .. } => "for",
            Self::Count { .. } => "count",
        }
    }

    /// The operands that it has written when it is done.
    pub fn writes(&self) -> Vec<Ref> {
        match self {
            Self::Compute {
                instr, operands, ..
            } => instr
                .roles()
                .iter()
                .zip(operands)
                .filter(|(role, _)| role.access != Access::Read)
                .map(|(_, operand)| *operand)
                .collect(),
            Self::Receive { slot, .. } | Self::Relay { slot, .. } => vec![*slot],
            Self::DramLoad { to, .. } => vec![*to],
            _ => Vec::new(),
        }
    }
}

/// Documentation of all statements, compute instructions first.
pub fn infos() -> Vec<InstrInfo> {
    let mut all = Instr::infos();
    all.extend(network::INFOS);
    all.extend(memory::INFOS);
    all.extend(sync::INFOS);
    all.extend(control::INFOS);
    all
}

/// Declares the struct of a family whose only mnemonic is a literal, with serialisation and its
/// attributes: `instr_struct! { /// doc  Copy "copy" { /// doc  field: Type, } }`.
macro_rules! instr_struct {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $fdoc:literal])+ $field:ident : $ty:ty),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(
            Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
        )]
        pub struct $name { $($(#[doc = $fdoc])+ pub $field: $ty,)* }

        impl $name {
            /// The documentation above, in one paragraph.
            const RULES: &'static str = concat!($($doc),*).trim_ascii();

            fn field_schema() -> Vec<$crate::attr::AttrSpec> {
                vec![$($crate::attr::AttrSpec {
                    name: stringify!($field),
                    kind: <$ty as $crate::attr::AttrField>::kind(),
                    doc: concat!($($fdoc),+).trim_ascii(),
                },)*]
            }

            fn parse_fields(attrs: &$crate::attr::Attrs) -> Result<Self, $crate::attr::AttrError> {
                let known: &[&str] = &[$(stringify!($field)),*];
                $crate::attr::refuse_unknown(attrs, known)?;
                Ok(Self { $($field: $crate::attr::read_field(attrs, stringify!($field))?,)* })
            }

            fn to_attrs(&self) -> $crate::attr::Attrs {
                $crate::attr::Attrs(
                    [$((stringify!($field), $crate::attr::AttrField::to_attr(&self.$field)),)*]
                        .into_iter()
                        .filter_map(|(name, value): (&str, Option<$crate::attr::Attr>)| {
                            Some((name.into(), value?))
                        })
                        .collect(),
                )
            }
        }
    };
}
pub(crate) use instr_struct;

/// Declares the functions of a family, whose names are mnemonics.
macro_rules! functions {
    ($(#[doc = $doc:literal])+ $name:ident { $(#[doc = $vdoc:literal] $variant:ident $mnemonic:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize,
            serde::Deserialize,
        )]
        pub enum $name { $(#[doc = $vdoc] $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The mnemonic.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $mnemonic,)+ }
            }

            /// What it computes.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $vdoc.trim_ascii(),)+ }
            }

            /// The function of a mnemonic.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|function| function.name() == name)
            }
        }
    };
}
pub(crate) use functions;

/// As [`instr_struct!`] for a family with a mnemonic per function: `Zip(ZipFunction) { ... }`.
macro_rules! function_struct {
    ($(#[doc = $doc:literal])+ $name:ident($function:ident) { $($(#[doc = $fdoc:literal])+ $field:ident : $ty:ty),* $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(
            Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
        )]
        pub struct $name {
            /// The function, which the mnemonic names.
            pub function: $function,
            $($(#[doc = $fdoc])+ pub $field: $ty,)*
        }

        impl $name {
            /// The documentation above, in one paragraph.
            const RULES: &'static str = concat!($($doc),*).trim_ascii();

            fn field_schema() -> Vec<$crate::attr::AttrSpec> {
                vec![$($crate::attr::AttrSpec {
                    name: stringify!($field),
                    kind: <$ty as $crate::attr::AttrField>::kind(),
                    doc: concat!($($fdoc),+).trim_ascii(),
                },)*]
            }

            fn parse_fields(
                function: Option<$function>,
                attrs: &$crate::attr::Attrs,
            ) -> Result<Self, $crate::attr::AttrError> {
                let known: &[&str] = &[$(stringify!($field)),*];
                $crate::attr::refuse_unknown(attrs, known)?;
                let function = function.ok_or_else(|| $crate::attr::AttrError {
                    attr: String::new(),
                    message: "there is no such function".into(),
                })?;
                Ok(Self {
                    function,
                    $($field: $crate::attr::read_field(attrs, stringify!($field))?,)*
                })
            }

            fn to_attrs(&self) -> $crate::attr::Attrs {
                $crate::attr::Attrs(
                    [$((stringify!($field), $crate::attr::AttrField::to_attr(&self.$field)),)*]
                        .into_iter()
                        .filter_map(|(name, value): (&str, Option<$crate::attr::Attr>)| {
                            Some((name.into(), value?))
                        })
                        .collect(),
                )
            }
        }
    };
}
pub(crate) use function_struct;

/// The text methods of an [`InstrDef`] declared by [`instr_struct!`].
macro_rules! instr_text {
    ($mnemonic:literal) => {
        fn mnemonic(&self) -> &'static str {
            $mnemonic
        }

        fn schema() -> Vec<$crate::attr::AttrSpec> {
            Self::field_schema()
        }

        fn parse(
            _mnemonic: &str,
            attrs: &$crate::attr::Attrs,
        ) -> Result<Self, $crate::attr::AttrError> {
            Self::parse_fields(attrs)
        }

        fn attrs(&self) -> $crate::attr::Attrs {
            self.to_attrs()
        }
    };
}
pub(crate) use instr_text;

/// The text methods of an [`InstrDef`] declared by [`function_struct!`].
macro_rules! function_text {
    ($function:ident) => {
        fn mnemonic(&self) -> &'static str {
            self.function.name()
        }

        fn schema() -> Vec<$crate::attr::AttrSpec> {
            Self::field_schema()
        }

        fn parse(
            mnemonic: &str,
            attrs: &$crate::attr::Attrs,
        ) -> Result<Self, $crate::attr::AttrError> {
            Self::parse_fields($function::from_name(mnemonic), attrs)
        }

        fn attrs(&self) -> $crate::attr::Attrs {
            self.to_attrs()
        }
    };
}
pub(crate) use function_text;
