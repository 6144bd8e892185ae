use std::fs;

use super::*;

/// A `.npy` file of version 1.0 with this header text.
fn npy(header: &str, data: &[u8]) -> Bytes {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes.into()
}

fn header(descr: &str, fortran: bool, shape: &str) -> String {
    let fortran = if fortran { "True" } else { "False" };
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

fn parse(header: &str, data: &[u8]) -> Result<RawTensor, IoError> {
    Ok(parse_npy("x", &npy(header, data))?.1)
}

/// One tensor of each type, with distinct bytes.
pub(crate) fn one_of_each() -> Vec<(String, RawTensor)> {
    let tensor = |dtype: RawDType| {
        let data =
            (0..6 * dtype.size()).map(|at| if dtype == RawDType::Bool { at % 2 } else { at });
        let data: Bytes = data.map(|byte| byte as u8).collect();
        (
            format!("/layer.0/{dtype}"),
            RawTensor::new(dtype, vec![2, 3], data).unwrap(),
        )
    };
    let mut all: Vec<_> = RawDType::ALL.into_iter().map(tensor).collect();
    let scalar = RawTensor::new(RawDType::F32, vec![], Bytes::from_static(&[0, 0, 128, 63]));
    let empty = RawTensor::new(RawDType::I64, vec![4, 0], Bytes::new());
    all.extend([
        ("scalar".to_owned(), scalar.unwrap()),
        ("empty".to_owned(), empty.unwrap()),
    ]);
    all
}

#[test]
fn every_type_round_trips() {
    let folder = tempfile::tempdir().unwrap();
    for (_, tensor) in one_of_each() {
        let suffix = if tensor.dtype == RawDType::BF16 {
            BF16_SUFFIX
        } else {
            ""
        };
        let path = folder.path().join(format!("x{suffix}.npy"));
        write_npy(&path, &tensor).unwrap();
        assert_eq!(read_npy(&path).unwrap(), tensor);
    }
    let (_, u16) = &one_of_each()[2];
    let bf16 = RawTensor {
        dtype: RawDType::BF16,
        ..u16.clone()
    };
    let wrong = [("x.bf16.npy", u16), ("x.npy", &bf16)];
    for (name, tensor) in wrong {
        let error = write_npy(folder.path().join(name), tensor).unwrap_err();
        assert_eq!(error.code, code::TENSOR_NAME);
    }
}

#[test]
fn files_are_those_of_numpy() {
    // numpy.save of arange(3, dtype=int16).
    let mut text = header("<i2", false, "(3,)");
    text.pop();
    let padded = format!("{text:<117}\n");
    let expected = npy(&padded, &[0, 0, 1, 0, 2, 0]);
    let tensor = parse_npy("x", &expected).unwrap().1;
    let mut written = Vec::new();
    write_array(&mut written, &tensor).unwrap();
    assert_eq!(parse_npy("x", &written.into()).unwrap().1, tensor);
    assert_eq!(expected.len(), 128 + 6);
}

#[test]
fn values_are_slices_where_they_can_be() {
    let file = npy(&header("<f4", false, "(2,)"), &[1, 2, 3, 4, 5, 6, 7, 8]);
    let tensor = parse_npy("x", &file).unwrap().1;
    let offset = super::super::offset_in(&file, &tensor.data);
    assert_eq!(offset, Some(file.len() as u64 - 8));
}

#[test]
fn big_endian_and_fortran_order_are_converted() {
    let big = parse(&header(">i2", false, "(2,)"), &[1, 2, 3, 4]).unwrap();
    assert_eq!(big.data[..], [2, 1, 4, 3]);
    // Element [i, j, k] is 100 i + 10 j + k; the first index moves fastest.
    let mut columns = Vec::new();
    for k in 0..4u8 {
        for j in 0..3 {
            columns.extend((0..2).map(|i| 100 * i + 10 * j + k));
        }
    }
    let rows: Vec<u8> = (0..24u8)
        .map(|at| 100 * (at / 12) + 10 * (at / 4 % 3) + at % 4)
        .collect();
    let fortran = parse(&header("|u1", true, "(2, 3, 4)"), &columns).unwrap();
    assert_eq!(
        (fortran.shape, &fortran.data[..]),
        (vec![2, 3, 4], &rows[..])
    );
    let both = parse(&header(">u2", true, "(2, 2)"), &[0, 0, 0, 2, 0, 1, 0, 3]).unwrap();
    assert_eq!(both.data[..], [0, 0, 1, 0, 2, 0, 3, 0]);
    let none = parse(&header("<f8", true, "(0, 5)"), &[]).unwrap();
    assert_eq!((none.shape, none.data.len()), (vec![0, 5], 0));
    let scalar = parse(&header("<f4", true, "()"), &[1, 2, 3, 4]).unwrap();
    assert_eq!(scalar.data[..], [1, 2, 3, 4]);
}

#[test]
fn bad_arrays_are_coded() {
    let shape = |shape: &str| {
        parse(&header("<f4", false, shape), &[0; 8])
            .unwrap_err()
            .code
    };
    for bad in [
        "(3,)", "(1,)", "(-2,)", "(2.0,)", "2", "(0x2,)", "(1_0,)", "(1+1,)", "(2", "(x,)",
    ] {
        assert_eq!(shape(bad), code::NPY_FORMAT, "{bad}");
    }
    assert_eq!(shape("(4294967296, 4294967296)"), code::NPY_FORMAT);
    assert_eq!(shape("(4294967296, 4294967296, 0)"), code::NPY_FORMAT);
    assert_eq!(shape("(99999999999999999999,)"), code::NPY_FORMAT);
    assert_eq!(shape(&"(".repeat(9_000)), code::NPY_FORMAT);
    assert_eq!(shape(&"{".repeat(64)), code::NPY_FORMAT);

    for bad in ["<c8", "|S4", "<U1", "|V2", "<M8[ns]", "<f16"] {
        let error = parse(&header(bad, false, "(1,)"), &[0; 8]).unwrap_err();
        assert_eq!(error.code, code::NPY_DTYPE, "{bad}: {error}");
        assert!(error.help.is_some());
    }
    let record = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': 2, }";
    assert_eq!(parse(record, &[0; 8]).unwrap_err().code, code::NPY_FORMAT);

    let good = npy(&header("<f4", false, "(2,)"), &[0; 8]);
    for len in 0..good.len() {
        assert_eq!(
            parse_npy("x", &good.slice(..len)).unwrap_err().code,
            code::NPY_FORMAT
        );
    }
    let huge = b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}";
    assert!(parse_npy("x", &Bytes::from_static(huge)).is_err());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    fs::write(&path, b"").unwrap();
    assert_eq!(
        read_npy(&path).unwrap_err().path.as_deref(),
        Some(path.as_path())
    );
}

#[test]
fn damaged_headers_never_panic() {
    let good = npy(&header("<f4", true, "(2, 3)"), &[0; 24]);
    let (mut random, mut refused) = (1u64, 0);
    for _ in 0..30_000 {
        let mut bad = good.to_vec();
        for _ in 0..2 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (random >> 33) as usize % (bad.len() - 24);
            // Bytes of the header's own alphabet get deeper than random ones.
            let alphabet = b"{}[](),:'<>|+-0123456789bfiuxTrue\\ ";
            bad[at] = alphabet[(random >> 20) as usize % alphabet.len()];
        }
        refused += usize::from(parse_npy("x", &bad.into()).is_err());
    }
    assert!(refused > 10_000);
}
