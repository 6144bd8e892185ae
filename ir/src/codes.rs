//! Codes of this crate's diagnostics. Codes 1 to 99 belong to the grammar.

use crate::diag::CodeInfo;

macro_rules! codes {
    ($($name:ident $code:literal $title:literal $explanation:literal;)+) => {
        $(#[doc = $title] pub const $name: u16 = $code;)+

        /// All codes of this crate with their long forms, ascending.
        pub const CODES: &[CodeInfo] = &[$(CodeInfo {
            code: $code,
            title: $title,
            explanation: $explanation,
        },)+];
    };
}

codes! {
    BAD_LEVEL 100 "The text is of another level or version"
        "The first line of a text form names its level and version, as in `dojo graph 1`. The \
         command expected another level, or the version is newer than this dojoc understands.";
    UNKNOWN_OP 101 "There is no op of this name"
        "The text uses a mnemonic that no op has. `dojoc ops` lists all ops; the message names the \
         closest one.";
    BAD_ATTRIBUTE 102 "An attribute is missing, unknown or of the wrong kind"
        "Every op declares its attributes with their kinds; `dojoc ops NAME` shows them. All \
         attributes are written out, optional ones may be left out.";
    UNKNOWN_NAME 103 "A name is used that is not defined"
        "Values (`%x`) are defined by inputs, region parameters and results before they are used; \
         weights and states (`@w`) by declarations of the module. Regions see no values from \
         outside: they get them as operands and parameters.";
    DUPLICATE_NAME 104 "A name is defined twice"
        "Values are unique in a function; weights and states are unique in a module, functions \
         too.";
    BAD_TYPE 105 "A type is malformed"
        "A tensor type is an element type and extents: `f32[2, 3]`, `i64[]`, `f32[n<=128, 4]`. \
         The rank is at most 16.";
    BAD_DECLARATION 106 "A declaration is malformed"
        "A module holds `weight`, `state` and `func` declarations. A weight has a type and \
         `external(\"file\", offset, length)`, `dense(...)` or `hex(\"...\")`; a state has a type \
         and `zeros` or the name of a weight of the same type.";
    BAD_STRUCTURE 107 "A function or region is malformed"
        "A function's body ends with one `return` of as many values as the function declares \
         outputs; a region ends with one `yield`. Neither stands elsewhere.";
    TYPE_RULE 200 "An op cannot have these operands"
        "The op's shape rule refuses its operands, attributes or regions. `dojoc ops NAME` \
         describes what it takes.";
    TYPE_MISMATCH 201 "A result has another type than the op gives it"
        "The type written behind a statement differs from the one that the op's shape rule \
         computes from the operands.";
    DOMINANCE 202 "A value is used where it is not defined"
        "A value may be used after its definition, in the same region. Regions of control-flow \
         ops take what they need as operands.";
    OUTPUT_MISMATCH 203 "Outputs do not fit the function"
        "The values returned must be as many as the declared outputs and of the declared types; an \
         output that aliases a state has the state's type, and a state is updated at most once.";
    WEIGHT_MISMATCH 204 "A weight's bytes do not fit its type"
        "A weight has constant extents, and its source has exactly the bytes that its type needs.";
    STATE_MISMATCH 205 "A state does not fit its initialiser"
        "A state has constant extents; a weight that initialises it has the same type.";
    DIM_MISMATCH 206 "A symbol is used with different bounds"
        "A bounded symbol `n<=128` has one bound in the whole module, declared in the module's \
         `dims`.";
    TOO_DEEP 207 "Regions are nested too deeply"
        "Control-flow ops may be nested 32 deep.";
    TOO_LARGE 208 "A tensor is too large to address"
        "The size in bytes of a tensor must fit 63 bits and its rank is at most 16.";
    PROGRAM_MALFORMED 220 "A program's tables contradict each other"
        "A name of the program's tables refers to nothing, a body reaches behind the end of its \
         stream, a list has the wrong length. Text cannot say this; a damaged or foreign .djx can.";
    BAD_REGION 221 "A set of cores does not fit the machine"
        "The cores of a region exist and are alive, and no core occurs twice. `dojoc machine NAME` \
         shows a machine.";
    BAD_OPERANDS 222 "An instruction cannot have these operands"
        "Operand types, extents, layouts or attributes are not what the instruction takes. \
         `dojoc ops NAME` describes it.";
    OUT_OF_BOUNDS 223 "A view reaches outside its buffer"
        "Every view lies within its buffer, for every core, row and loop iteration. The message \
         names the offending bytes.";
    MISALIGNED 224 "A view or buffer is misaligned"
        "Buffers start at multiples of 64 bytes; views, and all their strides, at multiples of their \
         element size.";
    SRAM_EXCEEDED 225 "A buffer lies outside the SRAM of its core"
        "The address plus the size of a buffer or shard exceeds the SRAM of a core of this machine.";
    BAD_CHANNEL 226 "A channel family is malformed"
        "Every channel leads to a core of the family's receivers, no two channels lead to the same \
         port of one core, ports are at most 64, and a core has at most 64 open peers.";
    CHANNEL_BALANCE 227 "Posts, sends and receives of a channel do not match"
        "Within a call, every slot that is posted is received, with the same view; over a run, the \
         messages sent on a channel are those received at its other end, of the same sizes.";
    TOKEN_BALANCE 228 "Signals and waits of a token do not match"
        "A token has one signalling and one waiting stream, and within a call as many signals as \
         waits.";
    NON_UNIFORM 229 "A channel operation depends on a value that may differ between its endpoints"
        "Loop counts around post, send, recv and relay are constants, parameters, run parameters, or \
         registers whose value was delivered to all members by the family that `via` names.";
    STREAM_RACE 230 "Two streams of a core access the same bytes in no order"
        "One of the accesses is a write, and no token orders them. Add a token: `signal` behind the \
         first, `wait` before the second.";
    SLOT_REUSED 231 "Bytes are read through one buffer that were last written through another"
        "At any time a byte of SRAM belongs to one buffer. The message names both places.";
    UNINITIALISED 232 "Bytes are read that were never written"
        "The content of a buffer is undefined at the start of a call unless its role is `in` or \
         `inout` and an earlier call, an input, a weight or a state left it there.";
    UNDECIDED 233 "A rule could not be proved"
        "The verifier could neither prove nor refute a rule within its bounds, which is an error. The \
         message says what would make it decidable.";
    BAD_PLACEMENT 234 "The shards of a tensor are malformed"
        "Boxes lie within the tensor, those of an output are disjoint and cover it, and no bytes of a \
         core belong to two weights or states.";
    BAD_SCHEDULE 235 "A schedule is malformed"
        "A call has a row entry for each parameter; inputs and outputs are tensors of that kind.";
    BAD_DRAM 236 "A use of a DRAM region is malformed"
        "Only owners write, between `dram.begin` and `dram.commit`; others read between \
         `dram.acquire` and `dram.release`; offsets lie within the instance.";
    BAD_RECIPE 237 "A weight recipe is malformed"
        "The types of a recipe's steps do not fit each other or the tensor.";
    BAD_ROUTE 238 "A route is malformed"
        "A route leads from its sender to its receiver over neighbouring sites with live routers.";
    MACHINE_MISMATCH 239 "The program is made for another machine"
        "The name or the fingerprint of the machine differs from the one that the program was made \
         for. Compile for this machine, or give the description with `--machine`.";
    SLOT_OWNED 240 "A slot is used while it belongs to the network"
        "Between `post` and `recv` the bytes of a slot may be neither read nor written.";
    WRONG_UNIT 241 "An instruction stands in a stream that cannot run it"
        "Tile products need the matrix stream; everything else runs on any stream.";
    NOT_A_DJX 260 "This is not a dojoc executable"
        "The file does not begin as a .djx file does.";
    DJX_VERSION 261 "The executable has another version"
        "The file was written by a dojoc with another format. Assemble or compile it again.";
    DJX_DAMAGED 262 "The executable is damaged"
        "A checksum differs from the content: the file was changed or truncated after it was \
         written.";
    DJX_MALFORMED 263 "The executable's content is malformed"
        "The checksums are right but the content cannot be read: the file was not written by dojoc.";
    BAD_GRID 264 "A grid is malformed"
        "Axes have different names and at least one position; those of tiles come before those of \
         chips, and these before those of cores. The cores of a grid exist on the machine: the \
         positions of its core axes, counted from `first`, are live cores of every chip it uses.";
    BAD_LAYOUT 265 "A layout is malformed"
        "A layout has one split for each extent of its view; the view has as many elements as the \
         tensor. Units and strides are at least 1, axes exist in the layout's grid, and an axis \
         splits one dim or is pending, not both and not twice.";
    BAD_PENDING 266 "A value that is not combined yet is used as if it were"
        "Contributions along pending axes are combined by a reshard before a step or an output uses \
         the value. Inputs, weights and states are never pending; arg-max and arg-min are not \
         combinations of single values.";
    BAD_STEP 267 "A step is malformed"
        "A step's op is tiled by a loop nest or a kernel. Its merged loops are consecutive and walked \
         as one, its split loops can be split and stand in ascending order, each over axes of the \
         group's grid that split no other loop.";
    OPERAND_LAYOUT 268 "A core does not hold what it reads"
        "The layout of an operand gives every core the elements that its iterations read; nothing \
         moves inside a group. Put a reshard before it. The message names the core and the boxes.";
    RESULT_LAYOUT 269 "A result has another layout than the step computes"
        "The layout of a result follows from the split of the step's loops: a dim is split as its \
         loop is, and along the axes of split reductions the value is pending.";
    BAD_RESHARD 270 "A reshard is malformed"
        "A reshard keeps type and value: contributions stay apart along axes of the same grid along \
         which they are, with the same monoid, and every element that a core gets is held by \
         some core before.";
    BAD_VIEW 271 "A view changes more than the shape"
        "A view has as many elements of the same type as its input, and the same layout: the same \
         grid, view extents, splits and pending axes.";
    BAD_REPEAT 272 "A loop's carried values do not fit"
        "The first values, parameters, results of the body and last values of a loop are equally many, \
         of the same types and layouts. A body belongs to one loop.";
    REPLICAS_DIFFER 273 "Cores hold different bits for the same element"
        "Cores that hold the same element hold the same bits. This is a defect of dojoc, or the \
         module was changed by hand.";
    NOT_HELD 274 "An element is needed that no core holds"
        "A reshard or output asks for an element that is in no core's block. Widen the layout of the \
         value it comes from.";
    BAD_TEMPORAL 275 "A temporal factor is malformed"
        "A loop that is cut in time is one of the step's loops, cut into at least one part. At most one \
         operand shifts; then the parts are as many as the positions of the axis, which is no other \
         use of that axis by the step.";
    BAD_PLACE 276 "The place of a core is not one"
        "Every logical core has a place of its own: a core of the machine that is live. A schedule has \
         places for all cores of the grids of its function.";
    BAD_STORAGE 277 "A value's memory does not fit its layout"
        "A value that is used lies in memory, at a multiple of 64, under strides that give every \
         element of a core's window bytes of its own, all of them within the bytes that it has.";
    BEYOND_SRAM 278 "Memory is used that a core does not have"
        "A value or scratch memory ends behind the last byte of a core's SRAM. The machine file says \
         how many there are.";
    SHARED_BYTES 279 "Two values have the same bytes at the same time"
        "Values whose lives overlap, and scratch memory during its statement, lie apart. Only a view \
         of a value shares its bytes, and says so with `alias`.";
    DEAD_VALUE 280 "A value is used when its bytes may be another's"
        "The statements `live` hold all that write or read the value: inputs, weights and states from \
         the first one, results of the function to the end, which is one more than the last \
         statement. The life of a value that others alias holds theirs.";
    BAD_ALIAS 281 "A value shares the bytes of one that is not the same"
        "A view has the address and no more bytes than the value that it is a view of; this one is \
         no alias itself.";
    BAD_EXCHANGE 282 "An exchange does not fit its reshard"
        "Every reshard of a function has one exchange. Its view refines the views of both layouts; \
         what the text says of stages is what the rule makes of the layouts. In a stage, no core has \
         more than 64 peers in one direction.";
    BAD_FLOW 283 "A flow moves what its sender does not have"
        "The box of a flow lies in the tensor, in the sender's block of the input and in the \
         receiver's block of the output. What is forwarded has arrived in an earlier stage.";
    NOT_DELIVERED 284 "An element does not arrive exactly once"
        "The flows to a core are its block of the output, every element once: missing elements would be \
         rubbish, and elements that come twice would be a race.";
    BAD_SCRATCH 285 "Scratch memory of a statement that does not exist"
        "Scratch memory belongs to a statement of the function's body, each of which has it at most \
         once, at a multiple of 64.";
    CORRUPT 299 "The IR is inconsistent"
        "The tables of a function contradict each other: a defect of dojoc, not of your input. \
         Please report it with the dump that the message names.";
    WRONG_INPUTS 300 "The inputs do not fit the function"
        "The run needs one tensor per input of the declared element type and extents; symbolic \
         extents must agree among the inputs and stay within their bounds.";
    BAD_VALUE 301 "An op cannot take this value"
        "The types are right but a value is not: an index out of range, a shape that does not \
         multiply out, an extent above its bound.";
    NO_DATA 302 "The bytes of a weight are not at hand"
        "The module refers to a file for this weight, and the file has not been opened. Give the \
         model by its path, so that dojoc finds the files beside it.";
    OUT_OF_MEMORY 303 "The run needs more memory than allowed"
        "The tensors that are alive at one time exceed the limit of the run.";
    CANCELLED 304 "The run was cancelled"
        "The run was stopped from outside before it finished; there is no result.";
}
