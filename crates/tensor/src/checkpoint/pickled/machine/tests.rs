//! Programs that are read, and programs that are refused.

use super::*;

const STORAGE: &[u8] = b"(X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x06tQ";

fn state(tensor: &[u8]) -> Vec<u8> {
    [b"\x80\x02}q\x00X\x01\x00\x00\x00w", tensor, b"s."].concat()
}

fn whole() -> Vec<u8> {
    let tensor = [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        STORAGE,
        b"K\x01K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR",
    ];
    state(&tensor.concat())
}

fn tensors(program: &[u8], reach: Reach) -> Result<Vec<(&str, Described<'_>)>, String> {
    run(program, 0, reach, &Cell::new(STEPS))?.tensors()
}

#[test]
fn a_tensor_is_described_by_its_storage_offset_shape_and_strides() {
    let program = whole();
    let found = tensors(&program, Reach::Keys).unwrap();
    let expected =
        Described { storage: Place::Key("7"), dtype: Dtype::F16, offset: 1, shape: vec![2, 3], strides: vec![3, 1] };
    assert_eq!(found, [("w", expected)]);
}

#[test]
fn whatever_a_dictionary_of_tensors_does_not_need_is_an_error_that_names_it() {
    let negative = [b"ctorch._utils\n_rebuild_tensor_v2\n(", STORAGE, b"J\xff\xff\xff\xff)))tR"].concat();
    let sides = [b"ctorch._utils\n_rebuild_tensor_v2\n(", STORAGE, b"K\x00(", &b"K\x01".repeat(17), b"t))tR"].concat();
    let cases: &[(&[u8], &str)] = &[
        (
            b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.",
            "it asks for os.system, which no dictionary of tensors needs",
        ),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "it asks for posix.system"),
        (b"\x80\x02ctorch\nload\n.", "it asks for torch.load"),
        (b"\x80\x02cbuiltins\neval\n.", "it asks for builtins.eval"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.", "it asks for numpy.core.multiarray._reconstruct"),
        (b"\x80\x02c_codecs\nencode\n.", "it asks for _codecs.encode"),
        (b"\x80\x02(i__main__\nx\n.", "instruction INST (0x69)"),
        (b"\x80\x02)\x81.", "instruction NEWOBJ (0x81)"),
        (b"\x80\x02\x82\x01.", "instruction EXT1 (0x82)"),
        (b"\x80\x02\xff.", "instruction 0xff"),
        (b"\x80\x02K\x01.", "it holds no dictionary of tensors"),
        (b"\x80\x02}K\x01Ns.", "a key of its dictionary is no text"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x03K\x01.\x85R.", "it is no stream of torch.save"),
        (&state(b"K\x01"), "\"w\" in it is no tensor"),
        (&state(&negative), "a size in it is -1"),
        (&state(&sides), "a tensor in it has 17 sides"),
        (&[b')'.to_be_bytes().as_slice(), &[0x85; 1000], b"."].concat(), "nest more than 16 deep"),
        (b"X\xff\xff\xff\xffabc.", "its program is truncated"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "its program is truncated"),
        (&[b"c".as_slice(), &[b'x'; 5000]].concat(), "its program is truncated"),
        (b"", "its program is truncated"),
    ];
    for (program, expected) in cases {
        let found = tensors(program, Reach::Bytes).unwrap_err();
        assert!(found.contains(expected), "{expected:?} is not in {found:?}");
    }
}

#[test]
fn what_grows_without_end_ends_at_the_limit_of_instructions() {
    // Marks, lists and dictionaries are a byte each and take room.
    for instruction in [b"(".as_slice(), b"]", b"}", b"N\x94", b"h\x00"] {
        let program = [b"N\x94", instruction.repeat(STEPS).as_slice()].concat();
        let found = tensors(&program, Reach::Bytes).unwrap_err();
        assert_eq!(found, format!("its program has more than {STEPS} instructions"));
    }
}

#[test]
fn tuples_that_hold_one_another_many_times_cost_no_more_than_they_are_long() {
    // Each holds the one before a hundred times: a hundred to the power of ten, were they copied.
    let mut program = b")\x94".to_vec();
    for place in 0..10u8 {
        program.push(b'(');
        program.extend([b'h', place].repeat(100));
        program.extend(b"t\x94");
    }
    program.push(b'.');
    assert_eq!(tensors(&program, Reach::Bytes).unwrap_err(), "it holds no dictionary of tensors");
}

#[test]
fn a_program_cut_or_changed_anywhere_is_an_error_and_no_panic() {
    let whole = whole();
    for length in 0..whole.len() {
        assert!(tensors(&whole[..length], Reach::Keys).is_err(), "cut at {length}");
        for value in 0..=u8::MAX {
            let mut changed = whole.clone();
            changed[length] = value;
            let _ = tensors(&changed, Reach::Bytes);
        }
    }
}
