//! The sections of a machine description: every figure once, with its type, unit and range.
//!
//! One declaration gives the struct field, the key in the file, the reader, the row of
//! [`Machine::describe`](super::Machine::describe) and of the canonical text.

use super::figure::{Datum, Figure, FigureRow, FigureSpec, choice};
use super::read::SectionReader;

/// What all sections have in common.
pub(super) trait Section: Sized {
    /// The section's key in the file.
    const KEY: &'static str;
    /// Title in reports.
    const TITLE: &'static str;
    /// Its figures, in order.
    const FIGURES: &'static [FigureSpec];
    /// Reads all figures; `None`, with the reasons reported, where one is missing or bad.
    fn read(reader: &mut SectionReader<'_, '_>) -> Option<Self>;
    /// Its figures as rows, in the order of [`Section::FIGURES`].
    fn rows(&self) -> Vec<FigureRow<'_>>;
}

macro_rules! section {
    ($(#[$meta:meta])* $name:ident $key:literal $title:literal {
        $($(#[doc = $doc:literal])+ $field:ident: $ty:ty, $unit:literal $(, $lo:literal..=$hi:literal)?;)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nUnit: `", $unit, "`.")] pub $field: Figure<$ty>,)+
        }

        impl Section for $name {
            const KEY: &'static str = $key;
            const TITLE: &'static str = $title;
            const FIGURES: &'static [FigureSpec] = &[$(FigureSpec {
                key: stringify!($field),
                unit: $unit,
                limits: section!(@limits $($lo $hi)?),
                doc: concat!($($doc),+),
            },)+];

            fn read(reader: &mut SectionReader<'_, '_>) -> Option<Self> {
                let mut specs = Self::FIGURES.iter();
                $(let $field = specs.next().and_then(|spec| reader.figure::<$ty>(spec));)+
                Some(Self { $($field: $field?,)+ })
            }

            fn rows(&self) -> Vec<FigureRow<'_>> {
                let values: Vec<(&dyn Datum, _, _, _)> = vec![$((
                    &self.$field.value,
                    self.$field.sources.as_slice(),
                    self.$field.confidence,
                    self.$field.note.as_deref(),
                ),)+];
                Self::FIGURES
                    .iter()
                    .zip(values)
                    .map(|(spec, (value, sources, confidence, note))| {
                        FigureRow { spec, value, sources, confidence, note }
                    })
                    .collect()
            }
        }
    };
    (@limits) => { None };
    (@limits $lo:literal $hi:literal) => { Some(($lo as f64, $hi as f64)) };
}

section! {
    /// The front end, the scalar side and the register files of one core.
    Core "core" "Core: front end, scalar side, registers" {
        /// Clock of the whole chip.
        clock: f64, "GHz", 0.001..=100.0;
        /// Hardware threads.
        threads: u32, "threads", 1..=64;
        /// Threads a program may use for matrix and vector streams.
        compute_threads: u32, "threads", 1..=64;
        /// Threads a program may use for communication streams.
        communication_threads: u32, "threads", 1..=64;
        /// Instruction fetch window.
        fetch: u32, "B/cycle", 1..=4096;
        /// Instructions decoded per cycle over all threads.
        decode: u32, "instr/cycle", 1..=256;
        /// Threads that decode in the same cycle.
        decode_threads: u32, "threads", 1..=64;
        /// Scalar instructions issued per cycle.
        scalar_issue: u32, "instr/cycle", 1..=64;
        /// Integer ALUs.
        integer_alus: u32, "units", 1..=64;
        /// Address generation units.
        address_units: u32, "units", 1..=64;
        /// Vector and matrix instructions issued per cycle.
        vector_issue: u32, "instr/cycle", 1..=64;
        /// Scalar registers of one thread.
        scalar_registers: u32, "registers/thread", 1..=65536;
        /// Width of a scalar register.
        scalar_register_width: u32, "bit", 8..=1024;
        /// Vector registers of one thread.
        vector_registers: u32, "registers/thread", 1..=65536;
        /// Width of a vector register.
        vector_register_width: u32, "B", 4..=65536;
        /// Instruction cache.
        icache: u32, "B", 64..=1073741824;
        /// Whether the instruction cache sees stores to code.
        icache_coherent: bool, "";
        /// Time to flush the instruction cache before newly loaded code runs.
        icache_flush: u32, "cycles", 0..=1000000;
        /// Back-end issue slots of one list-parsing instruction (a transfer sequence run by the
        /// front end).
        list_parse_slots: u32, "slots", 0..=64;
    }
}

choice! {
    /// An operand format of the matrix unit.
    Operand {
        /// bfloat16.
        Bf16 = "bf16",
        /// Tesla's 8-bit formats, with a bias per operand.
        Cfp8 = "cfp8",
        /// IEEE binary16.
        F16 = "f16",
        /// IEEE binary32.
        F32 = "f32",
    }
}

section! {
    /// The matrix unit: `rows x columns x depth` multiply-accumulates per step.
    Matrix "matrix" "Matrix unit" {
        /// Matrix units of a core.
        units: u32, "units", 1..=64;
        /// Rows of the output block of one step.
        rows: u32, "rows", 1..=1024;
        /// Columns of the output block of one step.
        columns: u32, "columns", 1..=1024;
        /// Reduction depth of one step.
        depth: u32, "steps", 1..=1024;
        /// Cycles between the starts of two steps.
        interval: u32, "cycles", 1..=1024;
        /// Cycles from the start of a step to its result.
        latency: u32, "cycles", 1..=10000;
        /// Cycles after which a step that accumulates onto the same block may start.
        accumulate_forward: u32, "cycles", 1..=10000;
        /// Output blocks that stay in the unit while being accumulated.
        accumulators: u32, "blocks", 1..=1024;
        /// Width of one accumulated element.
        accumulator_width: u32, "bit", 16..=64;
        /// Operand formats.
        operands: Vec<Operand>, "";
    }
}

section! {
    /// The SIMD unit.
    Simd "simd" "SIMD unit" {
        /// SIMD pipes of a core.
        pipes: u32, "pipes", 1..=64;
        /// Lanes of fused multiply-add on f32.
        f32_lanes: u32, "lanes", 1..=16384;
        /// Lanes of fused multiply-add on bf16.
        bf16_lanes: u32, "lanes", 1..=16384;
        /// Lanes of fused multiply-add on f16.
        f16_lanes: u32, "lanes", 1..=16384;
        /// Lanes of arithmetic on 32-bit integers.
        i32_lanes: u32, "lanes", 1..=16384;
        /// Lanes on cfp8.
        cfp8_lanes: u32, "lanes", 1..=16384;
        /// Whether cfp8 can be computed with, and not only be converted.
        cfp8_arithmetic: bool, "";
        /// Cycles from issue to result.
        latency: u32, "cycles", 1..=10000;
    }
}

choice! {
    /// Who wins a bank conflict.
    Arbitration {
        /// The core's own accesses.
        CoreFirst = "core-first",
        /// The mesh's accesses.
        NetworkFirst = "network-first",
        /// In turn.
        RoundRobin = "round-robin",
    }
}

section! {
    /// The local memory of one core.
    Sram "sram" "Local SRAM" {
        /// Size.
        size: u64, "B", 1024..=1073741824;
        /// Width of a local address.
        address_width: u32, "bit", 10..=64;
        /// Cycles from a load's issue to its data.
        latency: u32, "cycles", 1..=10000;
        /// Vector load ports.
        load_ports: u32, "ports", 1..=64;
        /// Width of a vector load port.
        load_port: u32, "B/cycle", 1..=65536;
        /// Vector store ports.
        store_ports: u32, "ports", 1..=64;
        /// Width of a vector store port.
        store_port: u32, "B/cycle", 1..=65536;
        /// Width of the scalar read path.
        scalar_read: u32, "B/cycle", 1..=65536;
        /// Width of the scalar write path.
        scalar_write: u32, "B/cycle", 1..=65536;
        /// Width of the mesh stop's read port.
        network_read: u32, "B/cycle", 1..=65536;
        /// Width of the mesh stop's write port.
        network_write: u32, "B/cycle", 1..=65536;
        /// Banks.
        banks: u32, "banks", 1..=65536;
        /// Bytes a bank serves per cycle, and the interleave.
        bank_width: u32, "B", 1..=65536;
        /// Who wins a bank conflict.
        arbitration: Arbitration, "";
    }
}

section! {
    /// The gather engine, which feeds the vector registers.
    Gather "gather" "Gather engine" {
        /// Sizes of the pieces it can gather.
        granules: Vec<u32>, "B", 1..=4096;
        /// Pieces per cycle.
        rate: u32, "granules/cycle", 1..=1024;
    }
}

section! {
    /// Semaphores and outstanding transfers.
    Sync "sync" "Synchronisation" {
        /// Width of a semaphore's counter, which is a word in SRAM.
        counter_width: u32, "bit", 1..=64;
        /// Cycles of an operation on a semaphore of the same core.
        local_operation: u32, "cycles", 1..=10000;
        /// Request beats of an operation on another core's semaphore, the hops come on top.
        remote_operation: u32, "beats", 1..=16;
        /// Transfers a core may have under way.
        outstanding_transfers: u32, "transfers", 1..=65536;
    }
}

choice! {
    /// Multicast in the routers.
    Multicast {
        /// None: cores relay.
        None = "none",
        /// Routers copy packets along a tree.
        Tree = "tree",
    }
}

choice! {
    /// How packets find their way.
    Routing {
        /// A static table per router, dimension order (along the row, then the column) by default.
        TableXy = "table-xy",
    }
}

choice! {
    /// Which packets stay in order.
    Ordering {
        /// Those of one source, destination and virtual channel.
        PerFlow = "per-flow",
        /// None.
        Unordered = "unordered",
    }
}

section! {
    /// The mesh of one chip. Links and ports are per direction.
    Noc "noc" "Mesh" {
        /// Rows of sites on a chip.
        rows: u32, "sites", 1..=1024;
        /// Columns of sites on a chip.
        columns: u32, "sites", 1..=1024;
        /// Sites of a chip with a live core.
        enabled: u32, "sites", 1..=1048576;
        /// Cycles per hop.
        hop: u32, "cycles", 1..=10000;
        /// Bandwidth of a link between neighbours, one direction.
        link: u32, "B/cycle", 1..=65536;
        /// Size of a beat.
        beat: u32, "B", 1..=65536;
        /// Longest data packet.
        data_packet: u32, "beats", 1..=65536;
        /// Length of a request packet.
        request_packet: u32, "beats", 1..=65536;
        /// Virtual channels: low requests, high requests, data, in that order.
        virtual_channels: u32, "channels", 1..=64;
        /// Buffer of one virtual channel at one router port.
        fifo: u32, "beats", 1..=65536;
        /// Beats a core can put into the mesh.
        inject: u32, "beats/cycle", 1..=64;
        /// Beats a core can take from the mesh.
        eject: u32, "beats/cycle", 1..=64;
        /// Routing.
        routing: Routing, "";
        /// Ordering.
        ordering: Ordering, "";
        /// Multicast.
        multicast: Multicast, "";
    }
}

choice! {
    /// The router of a site without a live core.
    DeadRouter {
        /// Passes traffic.
        PassThrough = "pass-through",
        /// Is dead too; routes go around it.
        Dead = "dead",
    }
}

section! {
    /// Which sites have no live core. Explicit lists stand in
    /// [`Machine::explicit_defects`](super::Machine::explicit_defects).
    Harvest "harvest" "Harvested sites" {
        /// Seed of the default mask, see [`Machine::dead_sites`](super::Machine::dead_sites).
        seed: u64, "", 0.0..=4294967295.0;
        /// What the router of such a site does.
        router: DeadRouter, "";
    }
}

section! {
    /// The edges of a chip inside a tile.
    Chip "chip" "Chip" {
        /// Bandwidth of one edge, one direction.
        edge: f64, "GB/s", 0.001..=1000000.0;
        /// Time to cross from one chip to the next, without hops on either.
        crossing: u32, "cycles", 0..=1000000;
        /// Power.
        power: f64, "W", 0.001..=1000000.0;
    }
}

choice! {
    /// Which value exponent field zero scales by, see
    /// [`Subnormals`](crate::formats::Subnormals).
    SubnormalScale {
        /// `2^(1 - bias)`.
        Gradual = "gradual",
        /// `2^-bias`, as printed.
        Literal = "literal",
    }
}

choice! {
    /// A rounding that conversions offer, see [`Rounding`](crate::formats::Rounding).
    RoundingMode {
        /// To nearest, ties to even.
        NearestEven = "nearest-even",
        /// Stochastic.
        Stochastic = "stochastic",
    }
}

choice! {
    /// A floating-point format that the machine stores and converts.
    StorageFormat {
        /// Tesla's 1-4-3.
        Cfp8143 = "cfp8_143",
        /// Tesla's 1-5-2.
        Cfp8152 = "cfp8_152",
        /// Tesla's 1-5-10.
        Shp = "shp",
        /// Tesla's 0-6-10.
        Uhp = "uhp",
        /// bfloat16.
        Bf16 = "bf16",
        /// IEEE binary16.
        F16 = "f16",
        /// IEEE binary32.
        F32 = "f32",
    }
}

section! {
    /// Number formats, whose software models are in [`formats`](crate::formats).
    Formats "formats" "Number formats" {
        /// Formats the machine stores and converts.
        storage: Vec<StorageFormat>, "";
        /// Largest exponent bias of the configurable formats.
        bias_max: u32, "", 0..=63;
        /// Formats alive at once.
        live: u32, "formats", 1..=65536;
        /// Reading of exponent field zero in cfp8 and shp.
        subnormal_scale: SubnormalScale, "";
        /// Roundings of conversions to narrower formats.
        rounding: Vec<RoundingMode>, "";
    }
}

section! {
    /// A training tile: a grid of chips.
    Tile "tile" "Tile" {
        /// Rows of chips.
        rows: u32, "chips", 1..=32;
        /// Columns of chips.
        columns: u32, "chips", 1..=32;
        /// Bandwidth of one chip edge that lies on the tile's boundary, one direction.
        chip_edge: f64, "GB/s", 0.001..=1000000.0;
        /// Time to cross from one tile to the next, without hops on either.
        crossing: u32, "cycles", 0..=1000000;
        /// Power.
        power: f64, "W", 0.001..=10000000.0;
    }
}

choice! {
    /// A side of a rectangle of chips. Row 0 is in the north, column 0 in the west.
    Side {
        /// Row 0.
        North = "north",
        /// Last column.
        East = "east",
        /// Last row.
        South = "south",
        /// Column 0.
        West = "west",
    }
}

section! {
    /// Interface processors: memory and the way out, at the edges of a tray (or of what there is
    /// where the machine has no tray).
    Dip "dip" "Interface processors" {
        /// Sides where they sit.
        sides: Vec<Side>, "";
        /// Interface processors per boundary chip.
        per_boundary_chip: u32, "cards", 1..=16;
        /// Memory of one.
        hbm: f64, "GB", 0.001..=1000000.0;
        /// Bandwidth of that memory.
        hbm_bandwidth: f64, "GB/s", 0.001..=1000000.0;
        /// Bandwidth between one and its chip, one direction.
        link: f64, "GB/s", 0.001..=1000000.0;
        /// Ethernet bandwidth of one.
        ethernet: f64, "GB/s", 0.001..=1000000.0;
        /// PCIe bandwidth of one to its host.
        pcie: f64, "GB/s", 0.001..=1000000.0;
        /// Round trip of a memory read from the edge chip.
        read_round_trip: f64, "us", 0.0..=1000000.0;
    }
}

section! {
    /// The switched network that joins interface processors.
    ZPlane "zplane" "Switched network (Z-plane)" {
        /// One-way latency; transfer time at [`Dip::ethernet`] comes on top.
        latency: f64, "us", 0.0..=1000000.0;
        /// Largest payload of a packet.
        payload: u32, "B", 1..=1048576;
    }
}

section! {
    /// A system tray: a grid of tiles and its hosts.
    Tray "tray" "Tray" {
        /// Rows of tiles.
        rows: u32, "tiles", 1..=32;
        /// Columns of tiles.
        columns: u32, "tiles", 1..=32;
        /// Host servers.
        hosts: u32, "servers", 1..=1024;
        /// Power.
        power: f64, "W", 0.001..=100000000.0;
    }
}

section! {
    /// A cabinet: a grid of trays joined tile edge to tile edge.
    Cabinet "cabinet" "Cabinet" {
        /// Rows of trays.
        rows: u32, "trays", 1..=32;
        /// Columns of trays.
        columns: u32, "trays", 1..=32;
        /// Power.
        power: f64, "W", 0.001..=100000000.0;
    }
}

choice! {
    /// How cabinets are joined.
    Plane {
        /// Through the Z-plane only: each cabinet is a mesh of its own.
        ZPlane = "zplane",
        /// Chained north to south: one mesh.
        Seamless = "seamless",
    }
}

section! {
    /// The whole installation.
    ExaPod "exapod" "ExaPOD" {
        /// Cabinets.
        cabinets: u32, "cabinets", 1..=1024;
        /// How they are joined.
        plane: Plane, "";
    }
}
