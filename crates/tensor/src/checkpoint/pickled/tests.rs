//! Forms of files, their damage, and places of tensors.

use super::*;
use proptest::prelude::*;
use safetensors::Dtype;

fn described(offset: usize, shape: &[usize], strides: &[usize]) -> Described<'static> {
    let (shape, strides) = (shape.to_vec(), strides.to_vec());
    Described { storage: Place::Key("0"), dtype: Dtype::F32, offset, shape, strides }
}

#[test]
fn a_tensor_may_not_reach_past_its_storage() {
    let storage = 100..148;
    let placed = |offset, shape: &[usize], strides: &[usize]| place(&storage, "w", described(offset, shape, strides));
    assert_eq!(placed(0, &[3, 4], &[4, 1]).unwrap().strides, None);
    assert_eq!(placed(0, &[4, 3], &[1, 4]).unwrap().strides, Some(vec![1, 4]));
    // A view that repeats one row.
    assert_eq!(placed(8, &[9, 4], &[0, 1]).unwrap().strides, Some(vec![0, 1]));
    assert_eq!(placed(0, &[0, 4], &[4, 1]).unwrap().elements(), 0);
    for (offset, shape, strides) in [
        (1, [3, 4], [4, 1]),
        (0, [3, 5], [4, 1]),
        (0, [3, 4], [5, 1]),
        (13, [0, 4], [4, 1]),
        (usize::MAX, [1, 1], [1, 1]),
        (0, [usize::MAX, 2], [1, 1]),
        (0, [2, 2], [usize::MAX, 1]),
    ] {
        assert!(placed(offset, &shape, &strides).is_err(), "{offset} {shape:?} {strides:?}");
    }
    let lost = place_all(vec![("w", described(0, &[1], &[1]))], |key| Err(format!("data/{key}")));
    assert_eq!(lost.unwrap_err(), "\"w\" lies in data/0, which is not there");
}

fn text(text: &str) -> Vec<u8> {
    [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

/// A storage by its key, as an instruction.
fn by_key(key: &str, elements: u8) -> Vec<u8> {
    let kind = text("storage");
    [b"(", &*kind, b"ctorch\nFloatStorage\n", &text(key), &text("cpu"), b"K", &[elements], b"NtQ"].concat()
}

/// What `torch.save` wrote before 1.6 of an object with these storages.
fn stream(object: &[u8], storages: &[(&str, Vec<f32>)]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}".to_vec();
    file.extend([text("little_endian"), b"\x88s.\x80\x02".to_vec(), object.to_vec(), b".\x80\x02](".to_vec()].concat());
    file.extend(storages.iter().flat_map(|(key, _)| text(key)));
    file.extend(b"e.");
    for (_, values) in storages {
        file.extend((values.len() as u64).to_le_bytes());
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    file
}

/// A tensor `[2, 2]` in a storage, as an instruction.
fn tensor(storage: &[u8]) -> Vec<u8> {
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, b"K\x00K\x02K\x02\x86K\x02K\x01\x86\x89NtR"].concat()
}

const VALUES: [f32; 4] = [4.0, 1.0, 1.0, 2.0];

fn dictionary(storage: &[u8]) -> Vec<u8> {
    [b"}".to_vec(), text("w"), tensor(storage), b"s".to_vec()].concat()
}

/// One dictionary of one tensor in each of the three forms.
fn forms() -> [Vec<u8>; 3] {
    let old = stream(&dictionary(&by_key("7", 4)), &[("7", VALUES.to_vec())]);
    let bytes = stream(&by_key("7", 4), &[("7", VALUES.to_vec())]);
    let literal = [b"B", (bytes.len() as u32).to_le_bytes().as_slice(), &bytes].concat();
    let storage = [b"ctorch.storage\n_load_from_bytes\n", &*literal, b"\x85R"].concat();
    let plain = [b"\x80\x03".to_vec(), dictionary(&storage), b".".to_vec()].concat();
    let program = [b"\x80\x02".to_vec(), dictionary(&by_key("7", 4)), b".".to_vec()].concat();
    let values = VALUES.map(f32::to_le_bytes).concat();
    [archive::tests::zip(&[("m/data.pkl", &program), ("m/data/7", &values)]), old, plain]
}

#[test]
fn a_tensor_is_found_in_each_form() {
    for file in forms() {
        let found = tensors(&file).unwrap();
        let info = &found["w"];
        assert_eq!((info.dtype, &*info.shape, &info.strides), (Dtype::F32, [2, 2].as_slice(), &None));
        assert_eq!(&file[info.bytes.clone()], VALUES.map(f32::to_le_bytes).concat());
    }
}

#[test]
fn what_does_not_fit_in_a_stream_is_named() {
    let one = |elements| stream(&dictionary(&by_key("7", elements)), &[("7", VALUES.to_vec())]);
    let cases = [
        (one(5), "a storage in it is said to have 5 elements, and 4"),
        (stream(&dictionary(&by_key("7", 4)), &[]), "\"w\" lies in storage 7, which is not there"),
        (stream(&dictionary(&by_key("7", 4)), &[("8", vec![])]), "storage \"8\" in it is nobody's"),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02K\x01.".to_vec(), "of a protocol"),
        (b"GIF89a".to_vec(), "it is neither a zip nor a pickle"),
        ([forms()[2].clone(), b"more".to_vec()].concat(), "its program ends at byte"),
    ];
    for (file, expected) in cases {
        let found = tensors(&file).unwrap_err();
        assert!(found.contains(expected), "{expected:?} is not in {found:?}");
    }
    // A stream in a stream has no business there.
    let bytes = stream(&by_key("7", 4), &[("7", VALUES.to_vec())]);
    let literal = [b"B", (bytes.len() as u32).to_le_bytes().as_slice(), &bytes].concat();
    let nested = stream(&[b"ctorch.storage\n_load_from_bytes\n", &*literal, b"\x85R"].concat(), &[]);
    assert!(tensors(&nested).unwrap_err().contains("loads from bytes inside what was saved by torch"));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for file in forms() {
        for length in 0..file.len() {
            assert!(tensors(&file[..length]).is_err(), "cut at {length}");
        }
    }
}

/// Whatever a damaged file says, what is found of it lies inside it.
fn stays_inside(file: &[u8]) {
    if let Ok(found) = tensors(file) {
        for info in found.values() {
            assert!(info.bytes.end <= file.len() && info.shape.len() <= 16);
        }
    }
}

#[test]
fn a_byte_changed_anywhere_leads_to_no_place_outside_the_file() {
    for file in forms() {
        for at in 0..file.len() {
            for value in [0, 1, 0x28, 0x52, 0x7f, 0x80, 0x94, 0xff, file[at].wrapping_add(1)] {
                let mut changed = file.clone();
                changed[at] = value;
                stays_inside(&changed);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn mutated_files_are_read_or_refused_and_nothing_else(
        form in 0usize..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<[u8; 4]>()), 1..12),
    ) {
        let mut file = forms()[form].clone();
        for (at, how, bytes) in edits {
            let at = at.index(file.len());
            match how {
                0 => file[at] = bytes[0],
                1 => { file.splice(at..at, bytes); }
                2 => { file.remove(at); }
                // A piece of the file once more.
                _ => {
                    let end = (at + usize::from(bytes[0])).min(file.len());
                    let piece = file[at..end].to_vec();
                    let to = usize::from(bytes[1]) % file.len();
                    file.splice(to..to, piece);
                }
            }
            if file.is_empty() { break; }
        }
        stays_inside(&file);
    }

    #[test]
    fn programs_of_any_instructions_end(
        program in prop::collection::vec(prop_oneof![
            Just(b"N".to_vec()), Just(b"(".to_vec()), Just(b")".to_vec()), Just(b"}".to_vec()), Just(b"]".to_vec()),
            Just(b"\x94".to_vec()), Just(b"h\x00".to_vec()), Just(b"h\x01".to_vec()), Just(b"t".to_vec()),
            Just(b"\x85".to_vec()), Just(b"\x86".to_vec()), Just(b"R".to_vec()), Just(b"Q".to_vec()),
            Just(b"s".to_vec()), Just(b"u".to_vec()), Just(b"a".to_vec()), Just(b"e".to_vec()), Just(b"b".to_vec()),
            Just(b"K\x02".to_vec()), Just(b"C\x02ab".to_vec()), Just(b"\x8c\x01w".to_vec()), Just(b".".to_vec()),
            Just(b"ccollections\nOrderedDict\n".to_vec()), Just(b"ctorch\nFloatStorage\n".to_vec()),
            Just(b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec()),
            Just(b"ctorch.storage\n_load_from_bytes\n".to_vec()), Just(by_key("7", 4)),
        ], 0..200),
    ) {
        stays_inside(&[b"\x80\x04".to_vec(), program.concat()].concat());
    }
}
