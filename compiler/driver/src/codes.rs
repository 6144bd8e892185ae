//! Codes of the driver's own diagnostics, and the table of all codes of dojoc.

use dojoc_compiler::{import, io, pass, tile};
use dojoc_ir::diag::CodeInfo;
use dojoc_ir::machine::MachineError;

macro_rules! codes {
    ($($name:ident $code:literal $title:literal $explanation:literal;)+) => {
        $(#[doc = $title] pub const $name: u16 = $code;)+

        /// The codes of the driver with their long forms, ascending.
        pub const CODES: &[CodeInfo] = &[$(CodeInfo {
            code: $code,
            title: $title,
            explanation: $explanation,
        },)+];
    };
}

codes! {
    UNSUPPORTED_OUTPUT 450 "This kind of output does not exist"
        "The command was asked for a level or form that this version of dojoc does not produce. \
         The message names the closest one that it does.";
    UNSUPPORTED_STORAGE 451 "A tensor's type has no place in a file of this kind"
        "NumPy's files hold bool, integers and IEEE floats; bfloat16 is stored as uint16 under a \
         name that ends in `.bf16`. The configurable 8- and 16-bit formats have no counterpart: \
         convert the output to f32 in the model.";
    UNSUPPORTED_CASE 452 "A test case has values that are not tensors"
        "The case's inputs or outputs are sequences, maps or optional values, or an optional input \
         is left out. dojoc has dense tensors only.";
    UNKNOWN_KIND 950 "The file is not of a kind that the command reads"
        "A model is an ONNX file or the text form that `dojoc compile --emit graph` prints. The \
         kind is found by looking into the file, not by its name (but for executables, which are \
         called `.djx`); the message says what the file looks like instead.";
    NO_FUNCTION 951 "The model has no such function"
        "`--entry` names a function of the model. Models from ONNX have one, `main`; a text form \
         may have several.";
    BAD_INPUTS 952 "The given tensors do not go with the model's inputs"
        "Every input of the function needs one tensor, by name (`--input NAME=FILE`) or, where \
         names are left out, in the function's order. `--random SEED` fills those that are not \
         given.";
    UNKNOWN_ARRAY 953 "The file has no such array"
        "An `.npz` archive holds several arrays. `FILE.npz:KEY` takes one; without a key, the one \
         with the name of the input or output, or else the only one.";
    VALUES_DIFFER 954 "Values differ from the reference"
        "An output was compared with a reference and is outside the tolerance, or of another type \
         or shape. Floats may differ by `atol + rtol * |reference|` per element (`--atol`, \
         `--rtol`); integers and truth values must be equal, and infinities and NaN must stand in \
         the same places.";
    BAD_BATCH 955 "The data cannot be cut into batches"
        "With `--batched` or `--accuracy`, data with more rows than the model's fixed batch is run \
         batch by batch. All inputs must then have the same number of rows, or exactly the declared \
         shape, and every output that is asked for must have the batch as its first dimension. That \
         rows do not depend on each other cannot be seen in shapes, so it has to be asked for: a \
         model that adds over the batch would give wrong numbers.";
    BAD_LABELS 956 "The labels do not go with the output"
        "`--accuracy` compares the arg-max over the last dimension of a floating-point output with \
         integer labels: one label per row of the output.";
    NOT_FORMATTED 957 "The text is not in canonical form"
        "`dojoc fmt --check` found a file that `dojoc fmt` would change.";
    BAD_CASE 958 "A test case is malformed"
        "A case is a folder with `model.onnx` and folders `test_data_set_N` that hold \
         `input_K.pb` and `output_K.pb`, numbered from 0.";
    UNKNOWN_WORD 959 "There is nothing of this name"
        "The command was asked about an op, pass, machine, code or value that does not exist. The \
         message names the closest one or where to find the list.";
    BAD_OPTION 960 "An option does not apply"
        "The option is understood but says something that this command or this model cannot use.";
    BAD_STATE 961 "The states do not go with the model"
        "`--state-in` takes an `.npz` archive with one array per state, of the state's type; states \
         that are not in it start as the model says, with a warning.";
    BAD_WEIGHTS 962 "A file of weights does not fit the model"
        "`--weights` replaces weights by name: every tensor of the file must be a weight of the \
         model and have its type. `dojoc compile --emit import` shows the weights; small ones that \
         decide shapes are computed with at import and are no weights any more.";
    INTERNAL 999 "dojoc has a defect"
        "A part of dojoc panicked. This is never the fault of the input: please report it with the \
         message, the command line and, if you can, the model.";
}

/// The codes of all parts of dojoc with their long forms, ascending.
pub fn all_codes() -> Vec<CodeInfo> {
    let triples = dojoc_grammar::CODES.iter().chain(io::CODES);
    let triples = triples.map(|&(code, title, explanation)| CodeInfo {
        code,
        title,
        explanation,
    });
    let machine = MachineError::CODES.iter().map(|&(code, text)| {
        // The first sentence is the title.
        let end = text.find(". ").map_or(text.len(), |at| at + 1);
        CodeInfo {
            code,
            title: text[..end].trim_end_matches('.'),
            explanation: text,
        }
    });
    let infos = dojoc_ir::codes::CODES
        .iter()
        .chain(import::onnx::codes::CODES)
        .chain(pass::CODES)
        .chain(tile::CODES)
        .chain(dojoc_runtime::codes::CODES)
        .chain(CODES);
    let mut all: Vec<CodeInfo> = triples.chain(machine).chain(infos.copied()).collect();
    all.sort_by_key(|info| info.code);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_and_explained() {
        let all = all_codes();
        for pair in all.windows(2) {
            assert!(pair[0].code < pair[1].code, "{:?} {:?}", pair[0], pair[1]);
        }
        for info in all {
            assert!(!info.title.is_empty(), "{}", info.code);
            assert!(info.explanation.len() > 20, "{}", info.code);
        }
    }
}
