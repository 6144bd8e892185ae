//! Codes of the importer's diagnostics: 310 to 349 for the user's input, 400 to 449 for what is
//! not supported. Problems of files and tensors keep the codes of [`crate::io`].

use dojoc_ir::diag::CodeInfo;

macro_rules! codes {
    ($($name:ident $code:literal $title:literal $explanation:literal;)+) => {
        $(#[doc = $title] pub const $name: u16 = $code;)+

        /// All codes of the importer with their long forms, ascending.
        pub const CODES: &[CodeInfo] = &[$(CodeInfo {
            code: $code,
            title: $title,
            explanation: $explanation,
        },)+];
    };
}

codes! {
    BAD_NODE 310 "A node does not fit its operands"
        "The operands, their shapes or the attributes of the node contradict each other or the \
         ONNX specification of the operator.";
    UNDEFINED_VALUE 311 "A value is used that nothing defines"
        "A node or an output names a value that is neither an input, nor a constant, nor an output \
         of a node before. Nodes must be in topological order: if a later node defines the value, \
         the message says so, and a cycle looks the same.";
    DUPLICATE_VALUE 312 "A value is defined twice"
        "ONNX graphs are in SSA form: every name is an input, a constant or an output of one node, \
         once.";
    BAD_ATTRIBUTE 313 "An attribute is missing or of the wrong kind"
        "A required attribute is not there, an attribute has another type than the operator \
         declares, or a function's body refers to an attribute that cannot be found.";
    UNBOUND_DIM 314 "A dimension of an input is not known"
        "The model has symbolic dimensions. Everything is planned when the model is compiled, so \
         each needs an extent (`--dim NAME=N`) or a bound (`--dim NAME<=N`). A dimension without \
         a name is called by its input and position: `--dim x.0=8`.";
    NO_SHAPE 315 "An input has no shape"
        "The model does not say of which rank an input is. Give its shape: `--shape NAME=8x3x224x224`.";
    SHAPE_CONFLICT 316 "A shape contradicts the model"
        "A shape or extent that was given on the command line, or that the given data has, differs \
         from what the model declares, or one symbolic dimension would have two extents.";
    BAD_OPSET 317 "The version of an operator set is not known"
        "The model imports no version of the operator set that a node is from, or imports one \
         twice with different versions.";
    RECURSION 318 "Functions call each other in a circle"
        "A function of the model calls itself, directly or through others. ONNX forbids it, since \
         a call means the function's body.";
    BAD_FUNCTION 319 "A function of the model is malformed"
        "Two functions have the same name, domain and overload, or a call has more operands or \
         results than the function.";
    TOO_LARGE 320 "A tensor is too large"
        "The size of a tensor in bytes must fit 63 bits, and its rank is at most 16. Shapes that \
         the model computes are checked too.";
    TOO_MANY_NODES 321 "The model is too large once its functions are expanded"
        "Functions are copied to where they are called. The number of nodes after that, or the \
         depth of calls and nested graphs, exceeds the limit of the importer.";
    BAD_GRAPH 322 "A nested graph does not fit its operator"
        "The body of an If, Loop or Scan has another number of inputs or outputs than the operator \
         asks for, or values whose types change from one iteration to the next.";
    UNKNOWN_NAME 323 "An option names something that the model does not have"
        "`--dim`, `--shape` and `--bound` name dimensions, inputs and values of the model. The \
         message lists those there are.";
    OLD_OPSET 340 "The operator set is old"
        "Models of operator sets before 13 are imported, but some operators changed their meaning \
         since, and such models are tested less. `onnx.version_converter` upgrades a model.";
    OUTPUT_TYPE 341 "An output has another type than the model declares"
        "The type that follows from the graph is used. The declaration is often stale, after a \
         batch size was changed for example.";
    TRAINING_INFO 342 "The training information is ignored"
        "The model stores training steps beside its graph (`training_info`), a deprecated part of \
         ONNX. Only the graph is imported.";
    BAD_OP 400 "An operator is not supported"
        "dojoc has no import rule for this operator or for this domain. `dojoc check` lists all \
         such operators of a model at once.";
    BAD_VERSION 401 "This version of an operator is not supported"
        "The operator is supported, but not as the operator set of the model defines it.";
    UNSUPPORTED_ATTRIBUTE 402 "An attribute is not supported"
        "The operator is supported, but it has an attribute that dojoc does not know and that \
         could change its result.";
    UNSUPPORTED_FORM 403 "This form of an operator is not supported"
        "The operator is supported, but not with these attributes, operands or ranks. The message \
         names the closest form that is.";
    UNSUPPORTED_TYPE 404 "An element type is not supported"
        "Tensors of strings, complex numbers, and the 2-, 4-, 6- and 8-bit formats of ONNX have no \
         counterpart.";
    UNSUPPORTED_KIND 405 "A value is not a dense tensor"
        "Sequences, maps, optional values and sparse tensors have no counterpart.";
    NEEDS_CONSTANT 406 "An operand must be known when the model is compiled"
        "The shapes of a result depend on the value of this operand, so that it must be a \
         constant, or be computed from constants and shapes.";
    NEEDS_BOUND 407 "A data-dependent extent has no bound"
        "The extent of a result is known at run time only, and nothing in the model bounds it. \
         Give a bound: `--bound VALUE=N`, VALUE being the name of the output.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_are_explained() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for info in CODES {
            assert!((310..350).contains(&info.code) || (400..450).contains(&info.code));
            assert!(info.explanation.len() > info.title.len());
        }
    }
}
