use std::fs;

use super::super::npy::tests::one_of_each;
use super::super::raw::RawDType;
use super::*;

#[test]
fn archives_round_trip_and_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("a.npz"), folder.path().join("b.npz"));
    let tensors = one_of_each();
    write_npz(&path, &tensors).unwrap();
    assert_eq!(read_npz(&path).unwrap(), tensors);
    write_npz(&again, &tensors).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    write_npz(&path, &[]).unwrap();
    assert_eq!(read_npz(&path).unwrap(), []);
}

#[test]
fn compressed_archives_are_read() {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let zeros = RawTensor::new(RawDType::F32, vec![100, 100], vec![0; 40_000].into()).unwrap();
    archive.start_file("zeros.npy", options).unwrap();
    write_array(&mut archive, &zeros).unwrap();
    let bytes = Bytes::from(archive.finish().unwrap().into_inner());
    assert!(bytes.len() < 1_000);
    assert_eq!(parse_npz(&bytes).unwrap(), [("zeros".to_owned(), zeros)]);
}

#[test]
fn names_must_be_distinct_after_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let one = |dtype| RawTensor::new(dtype, vec![1], vec![0; 2].into()).unwrap();
    let named = |name: &str, dtype| (name.to_owned(), one(dtype));
    for tensors in [
        vec![named("x", RawDType::U16), named("x", RawDType::BF16)],
        vec![named("x.bf16", RawDType::U16)],
        vec![named("a\0b", RawDType::I16)],
    ] {
        assert_eq!(
            write_npz(&path, &tensors).unwrap_err().code,
            code::TENSOR_NAME
        );
    }
    assert!(!path.exists());
    // A name may end in the suffix where the type is not uint16; the two members differ.
    let tensors = vec![named("x", RawDType::BF16), named("x.bf16", RawDType::BF16)];
    write_npz(&path, &tensors).unwrap();
    assert_eq!(read_npz(&path).unwrap(), tensors);
}

#[test]
fn bad_archives_are_coded() {
    let member = |name: &str, contents: &[u8]| {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        archive
            .start_file(name, SimpleFileOptions::default())
            .unwrap();
        archive.write_all(contents).unwrap();
        Bytes::from(archive.finish().unwrap().into_inner())
    };
    let failure = |bytes: &Bytes| parse_npz(bytes).unwrap_err().code;
    assert_eq!(failure(&Bytes::new()), code::NPZ_FORMAT);
    assert_eq!(
        failure(&Bytes::from_static(b"no archive")),
        code::NPZ_FORMAT
    );
    assert_eq!(failure(&member("readme.txt", b"text")), code::NPZ_FORMAT);
    assert_eq!(failure(&member("x.npy", b"no array")), code::NPY_FORMAT);
}

#[test]
fn damaged_archives_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    write_npz(&path, &one_of_each()[..2]).unwrap();
    let good = fs::read(&path).unwrap();
    let (mut random, mut refused) = (1u64, 0);
    for len in 0..good.len() {
        refused += usize::from(parse_npz(&Bytes::copy_from_slice(&good[..len])).is_err());
    }
    assert_eq!(refused, good.len());
    for _ in 0..10_000 {
        let mut bad = good.clone();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let bit = (random >> 33) as usize % (bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        refused += usize::from(parse_npz(&bad.into()).is_err());
    }
    assert!(refused > good.len());
}
