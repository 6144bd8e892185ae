use std::fs;

use super::super::npy::tests::one_of_each;
use super::super::source::offset_in;
use super::*;

fn file_of(json: &str, data: &[u8]) -> Arc<SourceFile> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.extend(data);
    Arc::new(SourceFile::from_bytes("x.safetensors", bytes))
}

#[test]
fn every_type_round_trips_without_copies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let mut tensors = one_of_each();
    write_safetensors(&path, &tensors).unwrap();
    let opened = open_safetensors(&path).unwrap();
    assert!(opened.unsupported.is_empty());
    let mut read = Vec::new();
    for (name, data) in opened.tensors {
        let tensor = data.load().unwrap();
        let RawTensorSource::InFile { file, offset, len } = &data.source else {
            panic!("in the file")
        };
        assert_eq!((tensor.data.len() as u64, *len), (*len, *len));
        assert!(*len == 0 || offset_in(&file.bytes, &tensor.data) == Some(*offset));
        read.push((name, tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    read.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(read, tensors);
}

#[test]
fn files_are_those_of_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let tensors = one_of_each();
    write_safetensors(&path, &tensors).unwrap();
    let views = tensors.iter().map(|(name, tensor)| {
        let shape = tensor.shape.iter().map(|&extent| extent as usize).collect();
        let dtype = file_dtype(tensor.dtype);
        (
            name,
            safetensors::tensor::TensorView::new(dtype, shape, &tensor.data).unwrap(),
        )
    });
    assert_eq!(
        fs::read(&path).unwrap(),
        safetensors::serialize(views, None).unwrap()
    );
}

#[test]
fn unsupported_types_do_not_hide_the_others() {
    let file = file_of(
        r#"{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},
            "b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#,
        &[1, 2, 3],
    );
    let parsed = parse(&file).unwrap();
    assert_eq!(parsed.unsupported["a"].code, code::UNSUPPORTED_DTYPE);
    assert_eq!(parsed.tensors[0].1.load().unwrap().data[..], [3]);
}

#[test]
fn bad_names_and_files_are_coded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let (_, tensor) = one_of_each().swap_remove(0);
    for names in [["a", "a"], ["a", "__metadata__"]] {
        let tensors = names.map(|name| (name.to_owned(), tensor.clone()));
        assert_eq!(
            write_safetensors(&path, &tensors).unwrap_err().code,
            code::TENSOR_NAME
        );
    }
    let bad = |json: &str, data: &[u8]| {
        let error = parse(&file_of(json, data)).unwrap_err();
        assert_eq!(error.code, code::SAFETENSORS_FORMAT, "{error}");
    };
    bad("not json", &[]);
    bad(
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
        &[1],
    );
    bad(
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
        &[1, 2, 3],
    );
    bad(
        r#"{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}}"#,
        &[1],
    );
    fs::write(&path, b"").unwrap();
    assert_eq!(
        open_safetensors(&path).unwrap_err().code,
        code::SAFETENSORS_FORMAT
    );

    write_safetensors(&path, &one_of_each()).unwrap();
    let good = fs::read(&path).unwrap();
    let mut random = 1u64;
    for _ in 0..10_000 {
        let mut bad = good.clone();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let bit = (random >> 33) as usize % (bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(parsed) = parse(&Arc::new(SourceFile::from_bytes("x", bad))) {
            assert!(parsed.tensors.iter().all(|(_, data)| data.load().is_ok()));
        }
    }
}
