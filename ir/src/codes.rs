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
