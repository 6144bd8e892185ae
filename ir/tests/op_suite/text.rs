//! The text form: what prints reads back, for every sample of every op and for whole modules.

use crate::common::{describe, instantiate};
use dojoc_ir::attr::Number;
use dojoc_ir::diag::Loc;
use dojoc_ir::dim::Dim;
use dojoc_ir::graph::{
    FunctionBuilder, Module, Output, State, StateInit, Weight, WeightSource, parse,
};
use dojoc_ir::level::Level as _;
use dojoc_ir::ops::{Full, Op};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Shape, Type};

fn round_trip(module: &Module) {
    let text = module.to_string();
    let (again, _) = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(again.to_string(), text);
    assert_eq!(again, module.compacted(), "{text}");

    let formatted = dojoc_grammar::format(&text).expect("printed text is well-formed");
    assert_eq!(dojoc_grammar::format(&formatted).as_ref(), Ok(&formatted));
    assert_eq!(
        Module::parse(&formatted).expect("formatted text reads back"),
        again
    );
}

#[test]
fn every_sample_reads_back_and_verifies() {
    for sample in Op::samples() {
        let mut module = Module::default();
        let func = instantiate(&sample).unwrap_or_else(|e| panic!("{}: {e}", describe(&sample)));
        let mut declare = |dim: &Dim| {
            if let Dim::Expr(poly) = dim {
                poly.for_each_symbol(&mut |name, max| {
                    module.dims.insert(name.clone(), max);
                });
            }
        };
        for value in func.values.values() {
            value.ty.dims().iter().for_each(&mut declare);
        }
        for node in func.nodes.values() {
            node.op.attrs().for_each_dim(&mut declare);
        }
        module.functions.push(func);
        round_trip(&module);
        module
            .verify()
            .unwrap_or_else(|e| panic!("{}: {e}", describe(&sample)));
    }
}

#[test]
fn names_weights_states_and_locations_read_back() {
    let mut module = Module {
        name: "a model/1".into(),
        ..Module::default()
    };
    for (name, max) in [("n", 128), ("batch size", 8), ("f32", 4)] {
        module.dims.insert(name.into(), max);
    }
    let external = module.weights.push(Weight {
        name: "onnx::W/1".into(),
        ty: Type::of(DType::F32, &[2, 3]),
        source: WeightSource::External {
            file: "weights.bin".into(),
            offset: 1 << 40,
            length: 24,
        },
        data: None,
    });
    let tensors = [
        Tensor::from_vec(&[2], vec![0.1f32, -1e-30]),
        Tensor::from_vec(&[3], vec![7i64; 3]),
        Tensor::from_vec(&[2], vec![f64::NAN, -0.0]),
        Tensor::from_vec(&[1], vec![u64::MAX]),
        Tensor::from_vec(
            &[100],
            (0..100).map(|x| half::bf16::from_f32(x as f32)).collect(),
        ),
        Tensor::from_stored(DType::Bool, &[2], vec![1u8, 0]),
        Tensor::from_stored(DType::Cfp8E4M3, &[3], vec![1u8, 0, 255]),
        Tensor::from_vec::<f32>(&[0, 3], vec![]),
        Tensor::scalar(DType::F16, Scalar::F32(f32::INFINITY)),
    ];
    for (position, tensor) in tensors.into_iter().enumerate() {
        module
            .weights
            .push(Weight::inline(format!("w{position}"), tensor));
    }
    let init = module
        .weights
        .push(Weight::inline("init", Tensor::from_vec(&[1], vec![1.5f32])));
    let ty = Type::of(DType::F32, &[1]);
    let step = StateInit::Weight(init);
    let state = module.states.push(State {
        name: "step".into(),
        ty: ty.clone(),
        init: step,
    });
    module.states.push(State {
        name: "cache".into(),
        ty,
        init: StateInit::Zeros,
    });

    let mut b = FunctionBuilder::new("train");
    let n = Dim::symbol("n", 128);
    let batch = Dim::symbol("batch size", 8);
    let odd = Dim::symbol("f32", 4).add(&n).unwrap().mul(&batch).unwrap();
    let shape = Shape::new([n.clone(), odd, Dim::Const(3)]);
    let x = b.param(Type::new(DType::F32, shape.clone()), Some("575".into()));
    let y = b.param(Type::new(DType::F32, Shape::new([batch])), None);
    b.set_loc(Some(std::sync::Arc::new(Loc {
        name: "layer \"1\"".into(),
        file: "model.onnx".into(),
        line: 12,
    })));
    let z = b.op(UnaryFn::Neg, &[x]).unwrap();
    b.set_name(z, "out/z");
    let fill = Full {
        dtype: DType::F32,
        shape: shape.dims().to_vec(),
        value: Number::Int(0),
    };
    let zeros = b.op(fill, &[]).unwrap();
    let sum = b.op(BinaryFn::Add, &[z, zeros]).unwrap();
    let w = b.weight(&module, external);
    let w = b.op(UnaryFn::Exp, &[w]).unwrap();
    let s = b.state(&module, state);
    let s = b.op(BinaryFn::Add, &[s, s]).unwrap();
    let output = |name: &str, aliases| Output {
        name: name.into(),
        aliases,
    };
    let outputs = vec![
        output("z", None),
        output("w", None),
        output("s", Some(state)),
        output("y", None),
    ];
    let func = b.finish(&[sum, w, s, y], outputs);
    module.functions.push(func);
    module.verify().unwrap_or_else(|e| panic!("{e}"));
    round_trip(&module);
}

#[test]
fn printing_survives_broken_ir() {
    for sample in Op::samples().iter().take(200) {
        let func = instantiate(sample).expect("samples are well-typed");
        let mut module = Module::default();
        let id = module.functions.push(func);
        module.functions[id].nodes = Default::default();
        assert!(module.to_string().contains('?'));
        module.functions[id].values = Default::default();
        let _ = module.to_string();
        assert!(module.verify().is_err());
    }
}
