//! Codes of this crate's diagnostics.

use dojoc_ir::diag::CodeInfo;

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
    DEADLOCK 700 "The program waits for itself"
        "No core can go on, and not all have ended. The message shows a cycle of cores, each waiting \
         for the next: for a message, a slot, a token, or an epoch of a DRAM region.";
    STEP_LIMIT 701 "The run needs more steps than allowed"
        "The run carried out as many statements as its limit allows and was stopped. Loops are \
         counted, so that every run ends by itself, but a count may be huge.";
    DATA_FAULT 702 "An instruction cannot compute with its data"
        "The operands have the right types but a value does not fit: an index out of range, for \
         example. The message names core and instruction.";
    COUNT_RANGE 703 "A count is outside its range"
        "`count` read a number that is negative or above its `max`.";
    MEMORY_LIMIT 704 "The run needs more memory than allowed"
        "The bytes of SRAM and DRAM that the program touches and the messages on their way exceed the \
         limit of the run. So may right operands of tile products, of which the executor keeps a copy \
         for the host's kernels, with columns filled up to a multiple of 32.";
    MESSAGE_SIZE 705 "A message does not have the size of its slot"
        "The n-th message of a channel fills the n-th slot that the receiver posts, and has its size. \
         The message names the receiver and its instruction.";
    UNVERIFIED 706 "The program breaks a rule of its level"
        "The executor met something that the verifier refuses: a view outside the memory, a port that \
         does not exist. Run `dojoc asm` on the text, or report the compiler that made the program.";
    UNKNOWN_ENTRY 720 "The program has no such entry"
        "A run names an entry of the program, which `dojoc dis` shows. A program with one entry is \
         run without naming it.";
    BAD_DIM 721 "A run parameter is unknown or out of range"
        "A program states its run parameters with the largest value of each; a run may choose any \
         value from 1 to it.";
    UNKNOWN_TENSOR 722 "The program has no such tensor"
        "A state was asked for or given under a name that the program does not have for one; or a \
         probe under a name that is none of a declared probe, an input or output, of an op that gives one \
         or that instructions of the entry come from, and of a buffer, SEGMENT.BUFFER. A compiled program \
         has every named value of the model that it computes; what passes merged with another value, \
         folded into weights or computed in another form is gone, and the message names what is near it. \
         `dojoc compile --probes none` leaves all of them out.";
    BAD_TENSOR 723 "A tensor does not fit its declaration"
        "An input or state has the element type and extents that the program declares; extents may \
         depend on run parameters. `--batched` runs data of another number of rows batch by batch.";
    REPLICAS_DIFFER 724 "Copies of a state differ"
        "Cores that hold the same element of a state must hold the same bits after every run. The \
         message names the element and two of the cores.";
}
