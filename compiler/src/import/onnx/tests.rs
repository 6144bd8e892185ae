//! The framework: names, constants, extents, graphs in nodes, functions, and what is reported.

use dojoc_ir::graph::WeightSource;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;
use prost::Message as _;

use super::testing::*;
use super::wire::{FunctionProto, GraphProto, OperatorSetIdProto};
use super::{DimBinding, GivenShape, ImportOptions, import_bytes, import_file};

fn vector(values: &[f32]) -> Tensor {
    f32s(&[values.len() as u64], values)
}

fn two_nodes() -> TestModel {
    TestModel::new(17)
        .input("x", DType::F32, &["2"])
        .init("w", &vector(&[10.0, 20.0]))
        .node("Add", &["x", "w"], &["s"], vec![])
        .node("Relu", &["s"], &["y"], vec![])
        .output("y")
}

#[test]
fn names_and_places_survive() {
    let imported = two_nodes().import().unwrap();
    assert_eq!(imported.warnings.0, []);
    let func = &imported.module.functions.values().as_slice()[0];
    assert_eq!(&*func.input_name(0), "x");
    assert_eq!(&*func.outputs[0].name, "y");
    let names: Vec<&str> = func
        .values
        .values()
        .filter_map(|v| v.name.as_deref())
        .collect();
    assert_eq!(names, ["x", "s", "y"]);
    let places: Vec<String> = func
        .nodes
        .values()
        .map(|n| n.loc.as_ref().map(ToString::to_string).unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "n_s (test.onnx:0)",
            "n_y (test.onnx:1)",
            "n_y (test.onnx:1)"
        ]
    );
    assert_eq!(
        run_module(&imported, &[vector(&[1.0, -30.0])]),
        [vector(&[11.0, 0.0])]
    );
}

#[test]
fn weights_refer_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let bytes = two_nodes().proto.encode_to_vec();
    std::fs::write(&path, &bytes).unwrap();
    let imported = import_file(&path, &ImportOptions::default()).unwrap();
    let weight = &imported.module.weights.values().as_slice()[0];
    let WeightSource::External {
        file,
        offset,
        length,
    } = &weight.source
    else {
        panic!("the weight should be in the file");
    };
    assert_eq!((&*weight.name, &**file, *length), ("w", "m.onnx", 8));
    let found = &bytes[*offset as usize..][..8];
    assert_eq!(found, weight.data.as_ref().unwrap().bytes().as_ref());
    assert_eq!(found[..4], 10f32.to_le_bytes());
}

#[test]
fn problems_are_grouped_and_do_not_cascade() {
    let text = two_nodes()
        .node("Foo", &["x"], &["a"], vec![])
        .node("Foo", &["a"], &["b"], vec![])
        .node("Add", &["b", "x"], &["c"], vec![])
        .node("Relu", &["x"], &["d"], vec![attr("slope", 2i64)])
        .node("Relu", &["nothing"], &["e"], vec![])
        .node("Relu", &["f"], &["g"], vec![])
        .node("Relu", &["x"], &["f"], vec![])
        .node("Relu", &["x"], &["f"], vec![])
        .node("Add", &["x", "w", "w"], &["h"], vec![])
        .node("other::Foo", &["x"], &["i"], vec![])
        .output("c")
        .output("none")
        .errors();
    let expected = "\
D0400: operator Foo (opset 17) is not supported: 2 nodes, \"n_a\", \"n_b\"
  at n_a (test.onnx:2)
D0402: Relu: attribute `slope` is not supported
  at n_d (test.onnx:5)
D0311: Relu: value `nothing` is not defined
  at n_e (test.onnx:6)
D0311: Relu: value `f` is used before node \"n_f\" defines it
  at n_g (test.onnx:7)
D0312: value `f` is defined twice
  at n_f (test.onnx:9)
D0310: Add: expected 2 operands, found 3
  at n_h (test.onnx:10)
D0317: operator Foo is of domain `other`, of which the model imports no version
  at n_i (test.onnx:11)
D0311: output `none` is not defined";
    assert_eq!(text, expected);
}

#[test]
fn shape_arithmetic_is_folded() {
    // Reshape to [-1, last extent] by Shape, Gather, Concat.
    let model = TestModel::new(17)
        .input("x", DType::F32, &["2", "3", "4"])
        .init("two", &i64s(&[2]))
        .init("minus", &i64s(&[-1]))
        .node("Shape", &["x"], &["s"], vec![])
        .node("Gather", &["s", "two"], &["last"], vec![])
        .node(
            "Concat",
            &["minus", "last"],
            &["t"],
            vec![attr("axis", 0i64)],
        )
        .node("Reshape", &["x", "t"], &["y"], vec![])
        .output("y");
    let imported = model.import().unwrap();
    assert_eq!(
        op_counts(&imported).into_iter().collect::<Vec<_>>(),
        [("reshape", 1)]
    );
    assert_eq!(
        imported.module.weights.len(),
        0,
        "what was folded is dropped"
    );
}

#[test]
fn extents_are_followed_as_expressions() {
    // Flatten to [n * 3, 2] by hand, and give the extents as data.
    let mut model = TestModel::new(17)
        .input("x", DType::F32, &["n", "3", "2"])
        .init("zero", &i64_scalar(0))
        .init("three", &i64_scalar(3))
        .init("axes", &i64s(&[0]))
        .init("two", &i64s(&[2]))
        .node("Shape", &["x"], &["s"], vec![])
        .node("Gather", &["s", "zero"], &["n"], vec![])
        .node("Mul", &["n", "three"], &["rows"], vec![])
        .node("Unsqueeze", &["rows", "axes"], &["rows1"], vec![])
        .node(
            "Concat",
            &["rows1", "two"],
            &["t"],
            vec![attr("axis", 0i64)],
        )
        .node("Reshape", &["x", "t"], &["y"], vec![])
        .node("Sub", &["rows1", "two"], &["d"], vec![])
        .output("y")
        .output("t")
        .output("d");
    let error = model.errors();
    assert!(
        error.contains("D0314") && error.contains("--dim n=EXTENT"),
        "{error}"
    );

    model.options.dims.insert("n".into(), DimBinding::AtMost(5));
    let imported = model.import().unwrap();
    let func = &imported.module.functions.values().as_slice()[0];
    assert_eq!(func.ty(func.results()[0]).to_string(), "f32[3*n, 2]");
    assert_eq!(imported.module.dims.get("n"), Some(&5));
    for n in [0u64, 2, 5] {
        let x = f32s(&[n, 3, 2], &vec![1.0; 6 * n as usize]);
        let results = run_module(&imported, &[x]);
        assert_eq!(results[0].shape(), [3 * n, 2]);
        assert_eq!(results[1], i64s(&[3 * n as i64, 2]));
        assert_eq!(results[2], i64s(&[3 * n as i64 - 2]));
    }

    model.options.dims.insert("n".into(), DimBinding::Exact(4));
    let imported = model.import().unwrap();
    assert_eq!(imported.module.dims.len(), 0);
    assert_eq!(
        op_counts(&imported).into_iter().collect::<Vec<_>>(),
        [("reshape", 1)]
    );
}

#[test]
fn comparisons_of_extents_are_decided() {
    // The pattern that exporters write for `expand`: where(shape == -1, ones, shape).
    let mut model = TestModel::new(17)
        .input("x", DType::F32, &["n", "1"])
        .init("minus", &i64s(&[-1]))
        .init("ones", &i64s(&[1, 1]))
        .init("four", &i64s(&[4]))
        .init("one", &i64s(&[0]))
        .init("end", &i64s(&[1]))
        .node("Shape", &["x"], &["s"], vec![])
        .node("Slice", &["s", "one", "end"], &["n"], vec![])
        .node("Concat", &["n", "four"], &["t"], vec![attr("axis", 0i64)])
        .node("Equal", &["t", "minus"], &["unset"], vec![])
        .node("Where", &["unset", "ones", "t"], &["u"], vec![])
        .node("Expand", &["x", "u"], &["y"], vec![])
        .output("y");
    model.options.dims.insert("n".into(), DimBinding::AtMost(9));
    let results = model.run(&[f32s(&[2, 1], &[5.0, 6.0])]);
    assert_eq!(results[0], f32s(&[2, 4], &[5., 5., 5., 5., 6., 6., 6., 6.]));
}

#[test]
fn shapes_of_inputs_come_from_the_caller() {
    let model = TestModel::new(17)
        .input("x", DType::F32, &["n", ""])
        .input("z", DType::F32, &["n", "2"])
        .node("Add", &["x", "z"], &["y"], vec![])
        .output("y");
    let error = model.errors();
    assert!(error.contains("`n` is dimension 0 of input `x`"), "{error}");
    assert!(
        error.contains("`x.1` is dimension 1 of input `x`"),
        "{error}"
    );
    assert!(error.contains("--dim n=EXTENT --dim x.1=EXTENT"), "{error}");

    let with = |change: &dyn Fn(&mut ImportOptions)| {
        let mut model = model.clone();
        change(&mut model.options);
        model.import().map_err(|e| e.to_string())
    };
    let given = |name: Option<&str>, shape: &[u64]| GivenShape {
        name: name.map(String::from),
        shape: shape.to_vec(),
    };
    // The first input's shape binds what the second shares with it.
    with(&|o| drop(o.shapes.insert("x".into(), vec![3, 2]))).unwrap();
    with(&|o| o.bind_from_inputs = vec![given(None, &[3, 2])]).unwrap();
    with(&|o| o.bind_from_inputs = vec![given(Some("z"), &[3, 2]), given(Some("x"), &[3, 2])])
        .unwrap();
    let error = with(&|o| o.bind_from_inputs = vec![given(None, &[3, 2]), given(None, &[4, 2])])
        .unwrap_err();
    assert!(
        error.contains("D0316: dimension `n` would be 3 and 4"),
        "{error}"
    );
    let error = with(&|o| drop(o.shapes.insert("x".into(), vec![3]))).unwrap_err();
    assert!(
        error.contains("D0316: input `x` has rank 2, the given shape has 1"),
        "{error}"
    );
    let error = with(&|o| {
        o.shapes.insert("x".into(), vec![3, 2]);
        o.dims.insert("m".into(), DimBinding::Exact(1));
    })
    .unwrap_err();
    assert!(error.contains("D0323: --dim names `m`"), "{error}");
}

#[test]
fn inputs_with_known_values_count_as_constants() {
    let mut model = TestModel::new(17)
        .input("x", DType::F32, &["4"])
        .input("s", DType::I64, &["2"])
        .node("Reshape", &["x", "s"], &["y"], vec![])
        .output("y");
    let error = model.errors();
    assert!(
        error.starts_with("D0406: Reshape: operand 1 (the shape) is computed"),
        "{error}"
    );
    model
        .options
        .constant_inputs
        .insert("s".into(), i64s(&[2, 2]));
    let results = model.run(&[vector(&[1., 2., 3., 4.]), i64s(&[2, 2])]);
    assert_eq!(results[0].shape(), [2, 2]);
}

fn branch(op: &str, inner: &str) -> GraphProto {
    GraphProto {
        name: "branch".into(),
        node: vec![node(op, &["x", "c"], &[inner], vec![])],
        output: vec![untyped(inner)],
        ..Default::default()
    }
}

fn if_model() -> TestModel {
    let branches = vec![
        attr("then_branch", branch("Add", "a")),
        attr("else_branch", branch("Sub", "b")),
    ];
    TestModel::new(17)
        .input("x", DType::F32, &["2"])
        .init("c", &vector(&[1.0, 2.0]))
        .node("If", &["cond"], &["y"], branches)
        .output("y")
}

#[test]
fn if_takes_what_is_around_it_as_operands() {
    let mut model = if_model();
    model
        .graph()
        .input
        .push(value_info("cond", DType::Bool, &[]));
    let imported = model.import().unwrap();
    let func = &imported.module.functions.values().as_slice()[0];
    let node = &func.nodes.values().as_slice()[func.nodes.len() - 1];
    assert_eq!(
        (node.op.name(), node.args.len()),
        ("if", 2),
        "weights are no operands"
    );
    let truth = |b: bool| Tensor::from_stored(DType::Bool, &[], vec![u8::from(b)]);
    let x = vector(&[10.0, 20.0]);
    assert_eq!(
        run_module(&imported, &[x.clone(), truth(true)]),
        [vector(&[11.0, 22.0])]
    );
    assert_eq!(
        run_module(&imported, &[x, truth(false)]),
        [vector(&[9.0, 18.0])]
    );
}

#[test]
fn if_with_a_known_condition_is_one_branch() {
    let truth = Tensor::from_stored(DType::Bool, &[], vec![0u8]);
    let imported = if_model().init("cond", &truth).import().unwrap();
    assert_eq!(
        op_counts(&imported).into_iter().collect::<Vec<_>>(),
        [("sub", 1)]
    );
}

/// `sum` goes around; every row is its value times the number of the trip.
fn loop_model() -> TestModel {
    let body = GraphProto {
        name: "body".into(),
        input: vec![untyped("i"), untyped("cond_in"), untyped("sum")],
        node: vec![
            node("Add", &["sum", "x"], &["next"], vec![]),
            node("CastLike", &["i", "x"], &["i_f"], vec![]),
            node("Mul", &["next", "i_f"], &["row"], vec![]),
            node("Identity", &["cond_in"], &["cond_out"], vec![]),
        ],
        output: vec![untyped("cond_out"), untyped("next"), untyped("row")],
        ..Default::default()
    };
    TestModel::new(17)
        .input("x", DType::F32, &["2"])
        .init("zero", &vector(&[0.0, 0.0]))
        .node(
            "Loop",
            &["trips", "", "zero"],
            &["sum", "rows"],
            vec![attr("body", body)],
        )
        .output("sum")
        .output("rows")
}

#[test]
fn a_loop_of_known_length_has_a_constant_extent() {
    let results = loop_model()
        .init("trips", &i64_scalar(3))
        .run(&[vector(&[1.0, 2.0])]);
    assert_eq!(results[0], vector(&[3.0, 6.0]));
    assert_eq!(results[1], f32s(&[3, 2], &[0., 0., 2., 4., 6., 12.]));
}

#[test]
fn a_loop_of_unknown_length_needs_a_bound() {
    let mut model = loop_model().input("trips", DType::I64, &[]);
    let error = model.errors();
    assert!(
        error.contains("D0407") && error.contains("--bound rows=N"),
        "{error}"
    );
    model.options.bounds.insert("rows".into(), 4);
    let results = model.run(&[vector(&[1.0, 2.0]), i64_scalar(2)]);
    assert_eq!(results[1], f32s(&[2, 2], &[0., 0., 2., 4.]));
}

#[test]
fn scans_follow_axes_and_directions() {
    let body = GraphProto {
        name: "body".into(),
        input: vec![untyped("sum"), untyped("column")],
        node: vec![
            node("Add", &["sum", "column"], &["next"], vec![]),
            node("Identity", &["next"], &["row"], vec![]),
        ],
        output: vec![untyped("next"), untyped("row")],
        ..Default::default()
    };
    let attributes = vec![
        attr("body", body),
        attr("num_scan_inputs", 1i64),
        attr("scan_input_axes", &[1i64][..]),
        attr("scan_input_directions", &[1i64][..]),
        attr("scan_output_axes", &[-1i64][..]),
    ];
    let results = TestModel::new(17)
        .input("x", DType::F32, &["2", "3"])
        .init("zero", &vector(&[0.0, 0.0]))
        .node("Scan", &["zero", "x"], &["sum", "rows"], attributes)
        .output("sum")
        .output("rows")
        .run(&[f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.])]);
    assert_eq!(results[0], vector(&[6.0, 15.0]));
    assert_eq!(results[1], f32s(&[2, 3], &[3., 5., 6., 6., 11., 15.]));
}

fn function(name: &str, body: &str) -> FunctionProto {
    let mut scaled = node("Constant", &[], &["k"], vec![attr("value_float", 0f32)]);
    scaled.attribute[0].ref_attr_name = "factor".into();
    scaled.attribute[0].f = None;
    FunctionProto {
        name: name.into(),
        domain: "my".into(),
        input: vec!["a".into(), "unused".into()],
        output: vec!["r".into()],
        attribute: vec![],
        attribute_proto: vec![attr("factor", 2f32)],
        node: vec![scaled, node(body, &["a", "k"], &["r"], vec![])],
        opset_import: [("", 17), ("my", 1)]
            .map(|(domain, version)| OperatorSetIdProto {
                domain: domain.into(),
                version,
            })
            .into(),
        ..Default::default()
    }
}

#[test]
fn functions_are_expanded_with_their_attributes() {
    let mut model = TestModel::new(17)
        .domain("my", 1)
        .input("x", DType::F32, &["2"])
        .node("my::Scale", &["x"], &["y"], vec![])
        .node("my::Scale", &["y"], &["z"], vec![attr("factor", 5f32)])
        .output("z");
    model.proto.functions.push(function("Scale", "Mul"));
    assert_eq!(model.run(&[vector(&[1.0, 2.0])]), [vector(&[10.0, 20.0])]);
    let imported = model.import().unwrap();
    let func = &imported.module.functions.values().as_slice()[0];
    let places: Vec<&str> = func
        .nodes
        .values()
        .map(|n| &*n.loc.as_ref().unwrap().name)
        .collect();
    assert!(places.contains(&"n_y/n_r"), "{places:?}");
}

#[test]
fn recursion_is_refused() {
    let mut model = TestModel::new(17)
        .domain("my", 1)
        .input("x", DType::F32, &["2"])
        .node("my::F", &["x"], &["y"], vec![])
        .output("y");
    model.proto.functions.push(function("F", "my::G"));
    model.proto.functions.push(function("G", "my::F"));
    let error = model.errors();
    assert!(
        error.starts_with("D0318: function `F` calls itself"),
        "{error}"
    );
    assert_eq!(error.matches("D0").count(), 1, "{error}");
}

#[test]
fn expansion_is_bounded() {
    // Each function calls the next one twice: 2^40 nodes.
    let mut model = TestModel::new(17)
        .domain("my", 1)
        .input("x", DType::F32, &[])
        .node("my::F0", &["x"], &["y"], vec![])
        .output("y");
    for n in 0..40 {
        let mut f = function(&format!("F{n}"), "Add");
        let next = format!("my::F{}", n + 1);
        f.node = vec![
            node(&next, &["a"], &["b"], vec![]),
            node(&next, &["b"], &["r"], vec![]),
        ];
        model.proto.functions.push(f);
    }
    let error = model.errors();
    assert!(error.contains("D0321"), "{error}");
}

#[test]
fn nesting_is_bounded() {
    let mut model = TestModel::new(17)
        .domain("my", 1)
        .input("x", DType::F32, &[])
        .node("my::F0", &["x"], &["y"], vec![])
        .output("y");
    for n in 0..200 {
        let mut f = function(&format!("F{n}"), "Add");
        f.node = vec![node(&format!("my::F{}", n + 1), &["a"], &["r"], vec![])];
        model.proto.functions.push(f);
    }
    let error = model.errors();
    assert!(
        error.starts_with("D0321: graphs and functions are nested"),
        "{error}"
    );
    assert_eq!(error.matches("D0").count(), 1, "{error}");
}

#[test]
fn huge_shapes_are_refused_without_being_made() {
    let model = TestModel::new(17)
        .init("s", &i64s(&[1 << 40, 1 << 40]))
        .init("t", &i64s(&[1 << 60]))
        .init("zero", &i64_scalar(0))
        .init("far", &i64_scalar(i64::MAX))
        .init("one", &i64_scalar(1))
        .node("ConstantOfShape", &["s"], &["a"], vec![])
        .node("ConstantOfShape", &["t"], &["b"], vec![])
        .node("Range", &["zero", "far", "one"], &["c"], vec![])
        .output("a")
        .output("b")
        .output("c");
    let error = model.errors();
    assert!(
        error.contains("D0320: ConstantOfShape: a tensor"),
        "{error}"
    );
    assert!(error.contains("D0320: Range: a tensor"), "{error}");
}

#[test]
fn old_and_new_operator_sets() {
    let mut old = two_nodes();
    old.proto.opset_import[0].version = 9;
    assert!(old.import().unwrap().warnings.to_string().contains("D0340"));
    let mut new = two_nodes();
    new.proto.opset_import[0].version = 99;
    assert!(new.errors().contains("D0401"));
    let error = TestModel::new(9)
        .input("x", DType::F32, &["2"])
        .node("Round", &["x"], &["y"], vec![])
        .output("y")
        .errors();
    assert!(
        error.contains("D0401") && error.contains("from version 11 on"),
        "{error}"
    );
}

#[test]
fn a_stale_output_type_is_a_warning() {
    let mut model = two_nodes();
    model.graph().output[0] = value_info("y", DType::F32, &["3"]);
    let imported = model.import().unwrap();
    assert!(
        imported
            .warnings
            .to_string()
            .starts_with("D0341: output `y` is f32[2]")
    );
}

#[test]
fn damaged_models_never_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let mut functions = two_nodes()
        .domain("my", 1)
        .node("my::F", &["y"], &["z"], vec![]);
    functions.proto.functions.push(function("F", "Mul"));
    let models = [
        loop_model().init("trips", &i64_scalar(3)),
        if_model().input("cond", DType::Bool, &[]),
        functions.output("z"),
    ];
    let mut imported = 0;
    for model in &models {
        let bytes = model.proto.encode_to_vec();
        for _ in 0..400 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + random(3) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    _ => {
                        bytes.remove(at);
                    }
                }
            }
            imported += usize::from(import_bytes("m", bytes, &model.options).is_ok());
        }
    }
    assert!(imported > 20, "some damage does no harm");
}
