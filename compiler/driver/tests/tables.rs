//! The commands about dojoc itself, usage, streams.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::Read as _;

use support::{ADD, Lab, command};

#[test]
fn wrong_usage_ends_with_2() {
    let lab = Lab::new();
    for args in [
        &[][..],
        &["nope"],
        &["eval"],
        &["compile"],
        &["compile", "x.dojo", "--emit", "nope"],
        &["eval", "x.dojo", "--dim", "n"],
        &["eval", "x.dojo", "--repeat", "0"],
        &["eval", "x.dojo", "--rtol", "1"],
        &["fmt"],
        &["ops", "add", "--onnx"],
    ] {
        let ran = lab.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains("--help"), "{args:?}: {}", ran.err);
    }
    assert!(lab.run(&["--help"]).ok().contains("Exit codes"));
}

#[test]
fn fmt_checks_and_changes() {
    let lab = Lab::new();
    let ugly = ADD.replace("  weight", "weight  ");
    lab.write("ugly.dojo", &ugly);
    lab.write(
        "good.dojo",
        lab.run_with(&["fmt", "-"], ADD.as_bytes()).ok(),
    );
    let err = lab
        .run(&["fmt", "--check", "good.dojo", "ugly.dojo"])
        .fails(1);
    insta::assert_snapshot!(err, @"
    error[D0957]: ugly.dojo: not in canonical form, first at line 4
      help: dojoc fmt ugly.dojo
    ");
    assert_eq!(lab.read("ugly.dojo"), ugly);
    lab.run(&["fmt", "ugly.dojo", "good.dojo"]).ok();
    assert_eq!(lab.read("ugly.dojo"), lab.read("good.dojo"));
    lab.run(&["fmt", "--check", "good.dojo", "ugly.dojo"]).ok();
    lab.write("broken.dojo", "dojo graph 1 module @m {");
    let ran = lab.run(&["fmt", "broken.dojo", "none.dojo"]);
    assert!(
        ran.err.contains("broken.dojo:1:") && ran.err.contains("none.dojo"),
        "{}",
        ran.err
    );
    assert_eq!(ran.code, 1);
    assert_eq!(lab.read("broken.dojo"), "dojo graph 1 module @m {");
}

#[test]
fn ops_are_documented() {
    let lab = Lab::new();
    insta::assert_snapshot!(lab.run(&["ops", "softmax"]).ok(), @r"
    softmax

    Shares along one dim: `out[i] = exp(x[i] - m) / sum over j of exp(x[j] - m)`, where m is the
    largest x. 16-bit floats are computed in f32. Where all are -inf the result is NaN.

    Attributes
      axis  a small non-negative integer. The dim whose shares add up to 1.

    Tiling: expand
    Gradient: yes
    ");
    let all = lab.run(&["ops", "--format", "json"]).ok();
    for line in all.lines() {
        let op: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(!op["doc"].as_str().unwrap().is_empty(), "{op}");
    }
    assert_eq!(all.lines().count(), lab.run(&["ops"]).ok().lines().count());
    let err = lab.run(&["ops", "sofmax"]).fails(1);
    assert!(err.contains("did you mean `softmax`?"), "{err}");
}

#[test]
fn instructions_are_documented() {
    let lab = Lab::new();
    insta::assert_snapshot!(lab.run(&["ops", "mm"]).ok(), @r#"
    mm

    C = A B with sums in f32, then bias, residual, activation and rounding.

    `mm c, a, b, [sums], [bias], [residual], [bias_a], [bias_b]`: C = A B, accumulated in f32, then the
    epilogue: `+ bias`, `+ residual` if before, activation, `+ residual` if after, rounding to the type
    of C. A is `[m.., k..]` with `split` dimensions of m (1 if not given), or `[k.., m..]` if
    transposed, where `split` still counts those of m; there is at least one dimension of k. B is `[k..,
    n]`, or `[n, k..]` if transposed. C, `sums` and `residual` are `[m.., n]` with the dimensions of m
    as A has them. Only the products of the k extents of A and B must agree. So a convolution is one
    product per kernel row over overlapping rows, or one product over a 5-dimensional view. A, B, C,
    `sums` and `residual` may be packed. Operand types: A and B both bf16; or each of the cfp8 formats,
    with a `u8` view of one element each, `bias_a` and `bias_b`, for the exponent bias; or both f32. C
    is f32 or bf16. `bias` is f32 `[n]`; `residual` is f32 or bf16. `accumulate`: an f32 C starts from
    its earlier values, a bf16 C from the f32 operand `sums`, which is there in this case only. The
    order of accumulation is part of the meaning. With k counted row-major over the k dimensions of A:
    bf16 and cfp8 (converted to bf16 first, exactly) take pairs of steps, the odd one first; f32 takes
    steps in order. Every step is a fused multiply-add in f32, subnormal values are zero. The runtime's
    `kernels` module states it to the bit.

    Operands
      c         written or updated
      a         read
      b         read
      sums      read, optional
      bias      read, optional
      residual  read, optional
      bias_a    read, optional
      bias_b    read, optional

    Scalars
      index  an expression of the address generators, optional
      row    an expression of the address generators, optional

    Attributes
      transpose_a  a bool, optional. A is stored with the k dimensions first.
      transpose_b  a bool, optional. B is stored with n first.
      split        a small non-negative integer, optional. Dimensions of A that make up m; 1 if not
                   given.
      accumulate   a bool, optional. Start from earlier values instead of zero.
      bias         a bool, optional. There is a `bias` operand.
      activation   one of "relu" "gelu" "gelu_tanh" "silu" "tanh" "sigmoid", optional. Function of the
                   sums.
      residual     one of "before" "after", optional. There is a `residual` operand.
      sums         a bool, optional. There is a `sums` operand: C is bf16 and accumulates onto it.
      cfp8         a bool, optional. A and B are cfp8 and there are operands with their exponent biases.
      stochastic   a non-negative integer, optional. Round to bf16 stochastically, with random bits of
                   this site: the op of the source model. Element (i, j) of C, i counted row-major over
                   the m dimensions, has the logical index `index + i * row + j` of the scalars.

    Stands for: A loop over steps of the matrix unit, 8 x 8 outputs by 4 products each: the unit, its
    bf16 and 8-bit operands and its rate of 256 multiply-adds per cycle are Tesla's figures. That its
    sums stay in f32 accumulators, and how many of them there are, is proposed; f32 operands run in the
    SIMD unit at the rate Tesla states for them, and so does the epilogue.

    Confidence: T2, said by Tesla, read through press or notes of the slides

    Cost: Matrix unit: ceil(m/rows) ceil(n/columns) ceil(k/depth) steps, and for each macro tile (as
    many blocks as there are accumulators) the unit's latency and the read of one block, and its write
    when accumulating. Loads: each block of A and B once per macro tile, one access per load port width
    if it is packed as the unit reads it, else in granules of the gather engine; one shuffle per block
    if transposed. SIMD: registers of all accumulators in and out, plus the epilogue's operations per
    register. Operands that the unit does not take: m k ceil(n/lanes) SIMD operations.
    "#);
    insta::assert_snapshot!(lab.run(&["ops", "exp", "--level", "program"]).ok(), @"
    exp

    e^x.

    `exp y, x` and the like: y = f(x) for every element. y and x have the same extents and element type:
    f32, bf16 or f16; `neg` and `abs` also integers (wrapping), `not` bool and integers only. bf16 and
    f16 are computed in f32 and rounded once. Errors are those of the runtime's `kernels`.

    Operands
      y  written
      x  read

    Stands for: A sequence of instructions of the SIMD unit, 64 bytes wide; nothing is public about
    instructions for such functions, and none are assumed.

    Confidence: P, nothing public, value proposed

    Cost: SIMD: the operations of the sequence per vector of f32 lanes (16-bit floats are widened and
    rounded); a division or root counts as 8. Loads and stores as for other vector instructions.
    ");
    insta::assert_snapshot!(lab.run(&["ops", "send", "--format", "md"]).ok(), @"
    ## send

    Sends a view over a channel, waiting for a slot.

    `send @family, view {port = p}`: waits until the receiver (all receivers of a multicast) has posted
    a slot that no earlier message has taken, then sends the elements of the view, row-major and dense.
    The slot has as many bytes. When it is done the view may be overwritten.

    Stands for: A network transfer instruction from local to remote memory, run by the list parser of
    the front end on a thread of its own, and a semaphore operation at the receiver.

    Confidence: T2, said by Tesla, read through press or notes of the slides

    Cost: Into the network: ceil(bytes/beat) beats of data and one request. From the network: one
    request per receiver, for its slot. Latency: a semaphore operation and a read of SRAM; hops come on
    top. Back-end slots of the front end's list parser, one list per packet.
    ");
    insta::assert_snapshot!(lab.run(&["ops", "--level", "program"]).ok(), @"
    mm            C = A B with sums in f32, then bias, residual, activation and rounding.
    neg           -x.
    abs           |x|.
    relu          max(x, 0).
    exp           e^x.
    log           Natural logarithm.
    tanh          Hyperbolic tangent.
    sigmoid       1 / (1 + e^-x).
    silu          x / (1 + e^-x).
    erf           Error function.
    gelu          x/2 * (1 + erf(x / sqrt 2)).
    gelu_tanh     x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
    rsqrt         1 / sqrt(x).
    sqrt          Square root.
    recip         1 / x.
    sin           Sine of x in radians.
    cos           Cosine of x in radians.
    floor         The largest integer that is not above x.
    ceil          The smallest integer that is not below x.
    round         The nearest integer, ties to even.
    not           Not x, for bool; all bits flipped, for integers.
    add           a + b.
    sub           a - b.
    mul           a * b.
    div           a / b; for integers towards zero, and 0 for a divisor of 0.
    rem           The remainder of `div` for integers, with the sign of a; 0 for a divisor of 0.
    min           The smaller; NaN if either is NaN; of two zeros the negative one.
    max           The larger; NaN if either is NaN; of two zeros the positive one.
    pow           a to the power of b, for floats.
    and           Both, for bool; bit by bit, for integers.
    or            Either, for bool; bit by bit, for integers.
    xor           One of both, for bool; bit by bit, for integers.
    shl           a shifted left by b bits, for integers; 0 for b outside the width.
    shr           a shifted right by b bits, for integers, with the sign of a; by the width (0, or -1 for negative a) for b outside it.
    fma           y = a b + c, rounded once.
    clamp         y = min(max(x, low), high).
    eq            a = b.
    ne            a is not b.
    lt            a < b.
    le            a <= b.
    gt            a > b.
    ge            a >= b.
    select        y = a where the mask holds, else b.
    fill          y = value everywhere.
    iota          y = start + step i, i being the index along one dimension.
    reduce.sum    The sum; 0 of nothing.
    reduce.prod   The product; 1 of nothing.
    reduce.min    The smallest, as `min`; the largest number (Inf) of nothing.
    reduce.max    The largest, as `max`; the smallest number (-Inf) of nothing.
    reduce.and    All, for bool; 1 of nothing.
    reduce.or     Any, for bool; 0 of nothing.
    argmax        Position of the largest; the first NaN if there is one.
    argmin        Position of the smallest; the first NaN if there is one.
    scan.sum      Running sum.
    scan.prod     Running product.
    scan.max      Running maximum, as `max`.
    scan.min      Running minimum, as `min`.
    convert       y = x in another element type, rounded to nearest or stochastically.
    copy          y = x element by element, in another layout if the views differ.
    pad           y = x with a border of one value.
    gather        y = x[indices]: rows of x in the order of the indices.
    scatter       y[indices] = updates, or += updates, in the order of the indices.
    sort          x sorted along its last dimension, stable, with the positions where elements were.
    topk          The k largest (or smallest) of x along its last dimension, with their positions.
    post          Gives a slot to an incoming channel. Does not wait.
    send          Sends a view over a channel, waiting for a slot.
    recv          Waits until the oldest slot of an incoming channel is filled, and takes it back.
    relay         Receives a message and sends it on.
    dram.begin    The owner opens its instance of a region for writing.
    dram.commit   The owner publishes what it wrote.
    dram.acquire  A reader waits for the next epoch of an instance.
    dram.release  A reader gives an epoch back.
    dram.load     Copies from DRAM to SRAM.
    dram.store    Copies from SRAM to the core's own instance.
    signal        Adds one to a token.
    wait          Waits until a token is not zero and takes one.
    for           Runs its body so many times.
    count         Reads an integer from SRAM into a uniform register.
    ");
    // A name of both levels is the op's unless the level is given.
    assert!(lab.run(&["ops", "exp"]).ok().contains("Gradient"));
    let all = lab
        .run(&["ops", "--level", "program", "--format", "json"])
        .ok();
    for line in all.lines() {
        let one: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in [
            "name",
            "family",
            "doc",
            "rules",
            "stands_for",
            "confidence",
            "cost",
        ] {
            assert!(!one[key].as_str().unwrap().is_empty(), "{key} of {one}");
        }
        let name = one["name"].as_str().unwrap();
        let shown = lab
            .run(&["ops", "--level", "program", "--format", "json", name])
            .ok();
        assert_eq!(shown.trim_end(), line);
    }
    let table = lab
        .run(&["ops", "--level", "program", "--format", "md"])
        .ok();
    assert_eq!(table.lines().count(), all.lines().count() + 2);
    let err = lab.run(&["ops", "--level", "program", "sendd"]).fails(1);
    assert!(err.contains("did you mean `send`?"), "{err}");
    let err = lab.run(&["ops", "--level", "graph", "mm"]).fails(1);
    assert!(err.contains("there is no op `mm`"), "{err}");
}

#[test]
fn a_filter_without_measurements_is_an_error() {
    let lab = Lab::new();
    let bench = |filter: &str| lab.run(&["bench", filter]).fails(1);
    insta::assert_snapshot!(bench("nomatch"), @"
    error[D0959]: no measurement has `nomatch` in its name
      help: there are: kernel, dispatch, channels, program, mesh_gemm
    ");
    insta::assert_snapshot!(bench("chanels"), @"
    error[D0959]: no measurement has `chanels` in its name
      help: did you mean `channels`?
    ");
    insta::assert_snapshot!(bench("kernel/f32 32x32x6x"), @"
    error[D0959]: no measurement has `kernel/f32 32x32x6x` in its name
      help: did you mean `kernel/f32 32x32x64`, `kernel/bf16 32x32x64`, `kernel/f32 64x64x64`?
    ");
}

/// One object a measurement, each with all keys.
#[test]
fn measurements_are_objects() {
    let lab = Lab::new();
    let args = ["bench", "dispatch", "--runs", "1", "--format", "json"];
    let text = lab.run(&args).ok();
    let object: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    let expected = "gflops host_peak_gflops megabytes name ns_per_instr seconds threads";
    let expected: Vec<&str> = expected.split(' ').collect();
    assert_eq!(keys, expected);
    assert!(object["gflops"].is_null() && object["host_peak_gflops"].is_null());
    assert!(object["ns_per_instr"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_table_of_onnx_operators_is_current() {
    let lab = Lab::new();
    let made = lab.run(&["ops", "--onnx", "--format", "md"]).ok();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/onnx-ops.md");
    if std::env::var_os("DOJOC_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap();
        std::fs::write(path, &made).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(made == checked_in, "run this test with DOJOC_BLESS=1");
}

#[test]
fn codes_passes_and_machines_are_explained() {
    let lab = Lab::new();
    for code in ["D0314", "d0314", "314"] {
        assert!(
            lab.run(&["explain", code])
                .ok()
                .starts_with("D0314: A dimension")
        );
    }
    let err = lab.run(&["explain", "D9999"]).fails(1);
    assert!(err.contains("no code `D9999`"), "{err}");
    assert!(lab.run(&["explain"]).ok().lines().count() > 80);
    assert!(lab.run(&["passes"]).ok().contains("fold-constants"));
    assert!(lab.run(&["passes", "--pipeline"]).ok().lines().count() > 5);
    assert!(lab.run(&["machine"]).ok().contains("exapod"));
    assert!(lab.run(&["machine", "d1"]).ok().starts_with("machine d1\n"));
    let err = lab.run(&["machine", "d2"]).fails(1);
    assert!(err.contains("did you mean `d1`?"), "{err}");
    lab.write("m.toml", "base = \"d1\"\n[noc]\nlink = 3\n");
    let err = lab.run(&["machine", "./m.toml"]).fails(1);
    assert!(err.contains("./m.toml:3"), "{err}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(lab.run(&["completions", shell]).ok().contains("dojoc"));
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let lab = Lab::new();
    let mut child = command(&lab.path("."), &["explain"]).spawn().unwrap();
    let mut first = [0; 1];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn colours_are_for_those_who_want_them() {
    let lab = Lab::new();
    let coloured = lab.run(&["eval", "none", "--color", "always"]).fails(1);
    assert!(coloured.contains('\u{1b}'));
    assert!(!lab.run(&["eval", "none"]).fails(1).contains('\u{1b}'));
}
