use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::import::onnx::wire::tensor_proto::Segment;
use crate::import::onnx::wire::tests::corpus;
use crate::import::onnx::wire::{GraphProto, StringStringEntryProto};

fn proto(data_type: DataType, dims: &[i64]) -> TensorProto {
    let (name, data_type) = ("w".to_owned(), data_type as i32);
    TensorProto {
        name,
        data_type,
        dims: dims.to_vec(),
        ..Default::default()
    }
}

/// Reads a tensor as the whole of a file.
fn read(tensor: &TensorProto) -> Result<RawTensor, IoError> {
    let file = SourceFile::from_bytes("t.pb", tensor.encode_to_vec());
    Ok(read_tensor(&ModelFiles::in_memory(file))?.1)
}

fn refusal(tensor: &TensorProto) -> u16 {
    let error = read(tensor).unwrap_err();
    assert!(
        error.message.contains("`w`") || error.code == code::BAD_TENSOR_FILE,
        "{error}"
    );
    error.code
}

fn le<const N: usize>(values: &[[u8; N]]) -> Bytes {
    values.concat().into()
}

#[test]
fn typed_fields_decode() {
    let int32 = |data_type, values: &[i32]| {
        let tensor = proto(data_type, &[values.len() as i64]);
        read(&TensorProto {
            int32_data: values.to_vec(),
            ..tensor
        })
    };
    assert_eq!(
        int32(DataType::Bool, &[0, 1, 7]).unwrap().data[..],
        [0, 1, 1]
    );
    assert_eq!(
        int32(DataType::Int8, &[-128, 127]).unwrap().data[..],
        [128, 127]
    );
    assert_eq!(
        int32(DataType::Uint8, &[0, 255]).unwrap().data[..],
        [0, 255]
    );
    assert_eq!(
        int32(DataType::Int16, &[-2]).unwrap().data[..],
        [0xfe, 0xff]
    );
    assert_eq!(
        int32(DataType::Uint16, &[0xfffe]).unwrap().data[..],
        [0xfe, 0xff]
    );
    let half = int32(DataType::Float16, &[0x3c00]).unwrap();
    assert_eq!(
        (half.dtype, &half.data[..]),
        (RawDType::F16, &[0x00, 0x3c][..])
    );
    let brain = int32(DataType::Bfloat16, &[0x3f80]).unwrap();
    assert_eq!(
        (brain.dtype, &brain.data[..]),
        (RawDType::BF16, &[0x80, 0x3f][..])
    );
    assert_eq!(
        int32(DataType::Int32, &[-5]).unwrap().data,
        le(&[(-5i32).to_le_bytes()])
    );
    for (data_type, value) in [
        (DataType::Int8, 128),
        (DataType::Uint8, -1),
        (DataType::Int16, 1 << 15),
        (DataType::Float16, 1 << 16),
    ] {
        assert_eq!(
            int32(data_type, &[0, value]).unwrap_err().code,
            code::VALUE_RANGE
        );
    }

    let long = TensorProto {
        int64_data: vec![-6],
        ..proto(DataType::Int64, &[])
    };
    let long = read(&long).unwrap();
    assert_eq!(
        (long.shape, long.data),
        (vec![], le(&[(-6i64).to_le_bytes()]))
    );
    let wide = |data_type, value| TensorProto {
        uint64_data: vec![value],
        ..proto(data_type, &[1])
    };
    let value = read(&wide(DataType::Uint64, u64::MAX)).unwrap();
    assert_eq!(value.data, le(&[u64::MAX.to_le_bytes()]));
    let value = read(&wide(DataType::Uint32, 7)).unwrap();
    assert_eq!(value.data, le(&[7u32.to_le_bytes()]));
    assert_eq!(refusal(&wide(DataType::Uint32, 1 << 32)), code::VALUE_RANGE);

    let (one, two) = (1f32.to_le_bytes(), 2f32.to_le_bytes());
    let split = vec![le(&[one]), le(&[two])];
    let split = read(&TensorProto {
        float_data: split,
        ..proto(DataType::Float, &[2])
    })
    .unwrap();
    assert_eq!(split.data, le(&[one, two]));
    let double = le(&[3f64.to_le_bytes()]);
    let tensor = TensorProto {
        double_data: vec![double.clone()],
        ..proto(DataType::Double, &[1, 1])
    };
    assert_eq!(read(&tensor).unwrap().data, double);
}

#[test]
fn shapes_and_fields_are_checked() {
    let six = Bytes::from_static(&[0; 6]);
    let raw = |dims: &[i64]| TensorProto {
        raw_data: six.clone(),
        ..proto(DataType::Int16, dims)
    };
    assert_eq!(read(&raw(&[3, 1])).unwrap().shape, [3, 1]);
    assert_eq!(refusal(&raw(&[4])), code::DATA_SIZE);
    assert_eq!(refusal(&raw(&[-3])), code::BAD_DIMS);
    assert_eq!(
        refusal(&raw(&[i64::MAX, i64::MAX, i64::MAX])),
        code::BAD_DIMS
    );
    assert_eq!(refusal(&raw(&[i64::MAX, 2])), code::BAD_DIMS);
    assert_eq!(refusal(&raw(&[0, 3])), code::DATA_SIZE);
    let empty = read(&proto(DataType::Float, &[i64::MAX, i64::MAX, 0])).unwrap();
    assert!(empty.data.is_empty());
    assert_eq!(refusal(&proto(DataType::Float, &[2])), code::DATA_SIZE);

    let both = TensorProto {
        int32_data: vec![1, 2, 3],
        ..raw(&[3])
    };
    assert_eq!(refusal(&both), code::DATA_FIELD);
    let wrong = TensorProto {
        int64_data: vec![1],
        ..proto(DataType::Float, &[1])
    };
    assert_eq!(refusal(&wrong), code::DATA_FIELD);
    assert_eq!(
        refusal(&TensorProto {
            segment: Some(Segment::default()),
            ..raw(&[3])
        }),
        516
    );
    assert_eq!(
        refusal(&TensorProto {
            data_location: 2,
            ..raw(&[3])
        }),
        code::DATA_FIELD
    );

    for (number, expected) in [
        (0, code::UNKNOWN_DTYPE),
        (29, code::UNKNOWN_DTYPE),
        (-1, code::UNKNOWN_DTYPE),
    ]
    .into_iter()
    .chain(
        [8, 14, 15]
            .into_iter()
            .chain(17..=28)
            .map(|n| (n, code::UNSUPPORTED_DTYPE)),
    ) {
        assert_eq!(
            refusal(&TensorProto {
                data_type: number,
                ..raw(&[3])
            }),
            expected
        );
    }
    let error = raw_dtype(DataType::Float8e4m3fn as i32).unwrap_err();
    assert!(error.message.contains("FLOAT8E4M3FN"), "{error}");
}

#[test]
fn lists_are_not_read_as_tensors() {
    let tensor = TensorProto {
        raw_data: Bytes::from_static(&[1]),
        ..proto(DataType::Uint8, &[1])
    };
    let list = SequenceProto {
        name: "x".to_owned(),
        elem_type: 1,
        tensor_values: vec![tensor; 2],
        ..Default::default()
    };
    // As a tensor: INT8, shape [2], with the two values that the inner list's bytes happen to be.
    let lists = SequenceProto {
        name: "\u{2}".to_owned(),
        elem_type: 3,
        sequence_values: vec![SequenceProto {
            elem_type: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let empty = SequenceProto {
        elem_type: 1,
        ..Default::default()
    };
    for (value, expected) in [
        (&list, code::BAD_TENSOR_FILE),
        (&lists, code::BAD_TENSOR_FILE),
        (&empty, code::DATA_SIZE),
    ] {
        let file = SourceFile::from_bytes("t.pb", value.encode_to_vec());
        let error = read_tensor(&ModelFiles::in_memory(file)).unwrap_err();
        assert_eq!(error.code, expected, "{error}");
    }
    let noise = SourceFile::from_bytes("t.pb", &b"\xff\xff\xff\xff"[..]);
    let error = read_tensor(&ModelFiles::in_memory(noise)).unwrap_err();
    assert_eq!(error.code, code::BAD_TENSOR_FILE);
}

#[test]
fn models_need_a_graph() {
    let model = ModelProto {
        graph: Some(GraphProto::default()),
        ..Default::default()
    };
    let file = |bytes: Vec<u8>| SourceFile::from_bytes("m.onnx", bytes);
    assert_eq!(decode_model(&file(model.encode_to_vec())).unwrap(), model);
    let without = ModelProto {
        ir_version: 8,
        ..Default::default()
    }
    .encode_to_vec();
    for bytes in [vec![], without, b"not a model".to_vec()] {
        assert_eq!(
            decode_model(&file(bytes)).unwrap_err().code,
            code::BAD_MODEL
        );
    }
}

/// A model folder with 16 bytes of weights, and an external tensor of two numbers.
fn external(entries: &[(&str, &str)]) -> Result<TensorData, IoError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), b"model").unwrap();
    fs::write(folder.path().join("w.bin"), (0..16).collect::<Vec<u8>>()).unwrap();
    let files = ModelFiles::open(folder.path().join("model.onnx")).unwrap();
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let tensor = TensorProto {
        data_location: DataLocation::External as i32,
        external_data: entries.iter().map(entry).collect(),
        ..proto(DataType::Float, &[2])
    };
    tensor_raw(&tensor, &files)
}

#[test]
fn external_data_is_a_range_of_its_file() {
    let data = external(&[
        ("location", "w.bin"),
        ("offset", "4"),
        ("length", "8"),
        ("checksum", "?"),
    ])
    .unwrap();
    let RawTensorSource::InFile { file, offset, len } = &data.source else {
        panic!("in a file")
    };
    assert_eq!((&*file.name, *offset, *len), ("w.bin", 4, 8));
    let tensor = data.load().unwrap();
    assert_eq!(tensor.data[..], [4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(offset_in(&file.bytes, &tensor.data), Some(4));
    let whole = external(&[("location", "w.bin")]).unwrap().load().unwrap();
    assert_eq!(whole.data[..], [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn external_data_errors_give_the_figures() {
    let at = ("location", "w.bin");
    for (entries, expected) in [
        (vec![], code::EXTERNAL_KEYS),
        (vec![at, at], code::EXTERNAL_KEYS),
        (vec![at, ("offset", "+4")], code::EXTERNAL_KEYS),
        (vec![at, ("offset", " 4")], code::EXTERNAL_KEYS),
        (vec![at, ("offset", "")], code::EXTERNAL_KEYS),
        (vec![at, ("length", "0x8")], code::EXTERNAL_KEYS),
        (
            vec![at, ("length", "18446744073709551616")],
            code::EXTERNAL_KEYS,
        ),
        (vec![at, ("length", "16")], code::EXTERNAL_RANGE),
        (
            vec![at, ("offset", "9"), ("length", "8")],
            code::EXTERNAL_RANGE,
        ),
        (
            vec![at, ("offset", "18446744073709551615")],
            code::EXTERNAL_RANGE,
        ),
        (vec![("location", "none.bin")], code::NOT_FOUND),
        (vec![("location", "../w.bin")], code::EXTERNAL_PATH),
    ] {
        let error = external(&entries).unwrap_err();
        assert_eq!(error.code, expected, "{entries:?}: {error}");
        // A missing file is one problem, however many tensors refer to it.
        assert_eq!(
            error.message.contains("`w`"),
            expected != code::NOT_FOUND,
            "{error}"
        );
    }
    let error = external(&[at, ("offset", "12"), ("length", "8")]).unwrap_err();
    let expected = "offset 12, length 8 of external data file `w.bin` of 16 bytes";
    assert!(error.message.contains(expected), "{error}");
}

#[test]
fn damaged_tensor_files_never_panic() {
    let tensors = [
        TensorProto {
            int32_data: vec![1, -2, 3],
            ..proto(DataType::Int8, &[3])
        },
        TensorProto {
            raw_data: Bytes::from_static(&[0; 8]),
            ..proto(DataType::Float, &[2])
        },
    ];
    let (mut random, mut refused) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    for good in tensors.map(|tensor| tensor.encode_to_vec()) {
        for round in 0..20_000 {
            let mut bad = good.clone();
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bit = (random >> 33) as usize % (bad.len() * 8);
            bad[bit / 8] ^= 1 << (bit % 8);
            bad.truncate(bad.len() - round % bad.len().min(5));
            let files = ModelFiles::in_memory(SourceFile::from_bytes("t.pb", bad));
            if let Err(error) = read_tensor(&files) {
                assert!(
                    super::super::CODES
                        .iter()
                        .any(|(code, ..)| *code == error.code)
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 10_000);
}

/// All of the corpus' tensors load, except those of types or kinds that dojoc does not have.
#[test]
fn every_corpus_tensor_loads() {
    let (files, mut loaded) = (corpus("pb"), 0);
    let mut refused = BTreeMap::<u16, usize>::new();
    for path in &files {
        match read_tensor_file(path) {
            Ok(_) => loaded += 1,
            Err(error) => *refused.entry(error.code).or_default() += 1,
        }
    }
    let known = [code::UNSUPPORTED_DTYPE, code::BAD_TENSOR_FILE];
    assert!(
        refused.keys().all(|code| known.contains(code)),
        "{refused:?}"
    );
    assert!(
        loaded * 10 >= files.len() * 9,
        "{loaded} of {}, {refused:?}",
        files.len()
    );
}

/// All initialisers are found; the weights that the corpus keeps outside are not there.
#[test]
fn every_corpus_initializer_is_found() {
    for path in corpus("onnx") {
        let files = ModelFiles::open(&path).unwrap();
        let model = decode_model(files.model()).unwrap();
        for tensor in model.graph.iter().flat_map(|graph| &graph.initializer) {
            match tensor_raw(tensor, &files) {
                Ok(data) => assert!(data.load().is_ok()),
                Err(error) => assert!(
                    matches!(error.code, code::NOT_FOUND | code::UNSUPPORTED_DTYPE),
                    "{error}"
                ),
            }
        }
    }
}
