use proptest::prelude::*;

use super::super::format::{
    ATTRIBUTE_PARENT, ATTRIBUTE_PARENT_TRANSACTION, ATTRIBUTE_PATH, ATTRIBUTE_TRANSACTION,
    ATTRIBUTE_UUID, Parent,
};
use super::*;
use crate::Uuid;

fn command(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn value(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), value].concat()
}

fn start(name: &str, parent: Option<Uuid>) -> Vec<u8> {
    let mut payload = value(ATTRIBUTE_PATH, name.as_bytes());
    payload.extend(value(ATTRIBUTE_UUID, Uuid::from_u128(7).as_bytes()));
    payload.extend(value(ATTRIBUTE_TRANSACTION, &9_u64.to_le_bytes()));
    if let Some(parent) = parent {
        payload.extend(value(ATTRIBUTE_PARENT, parent.as_bytes()));
        payload.extend(value(ATTRIBUTE_PARENT_TRANSACTION, &8_u64.to_le_bytes()));
    }
    let kind = if parent.is_some() {
        SNAPSHOT
    } else {
        SUBVOLUME
    };
    [MAGIC, &1_u32.to_le_bytes(), &command(kind, &payload)].concat()
}

fn whole(name: &str) -> Vec<u8> {
    [
        start(name, None),
        command(3, &value(ATTRIBUTE_PATH, b"file")),
        command(
            15,
            &[value(ATTRIBUTE_PATH, b"file"), value(19, &[7; 300])].concat(),
        ),
        command(END, b""),
    ]
    .concat()
}

fn copy(bytes: &[u8]) -> Result<Vec<u8>, StreamError> {
    let mut sink = Vec::new();
    StreamReader::open(bytes)?.copy_to(&mut sink, None)?;
    Ok(sink)
}

#[test]
fn the_header_has_the_fields_of_the_first_command() {
    let parent = Uuid::from_u128(5);
    let bytes = start("linux-2", Some(parent));
    let header = Header {
        name: "linux-2".into(),
        uuid: Uuid::from_u128(7),
        transaction: 9,
        parent: Some(Parent {
            uuid: parent,
            transaction: 8,
        }),
    };
    assert_eq!(StreamReader::open(&bytes[..]).unwrap().header(), &header);
}

#[test]
fn a_stream_is_copied_up_to_its_end_command() {
    let bytes = whole("linux-1");
    assert_eq!(copy(&bytes).unwrap(), bytes);
    let more = [&bytes[..], b"more"].concat();
    assert_eq!(copy(&more).unwrap(), bytes);
}

#[test]
fn a_stream_that_is_cut_anywhere_is_refused() {
    let bytes = whole("linux-1");
    for length in 1..bytes.len() {
        let error = copy(&bytes[..length]).unwrap_err();
        assert!(
            matches!(error, StreamError::Truncated(_)),
            "{length}: {error}"
        );
    }
    assert!(matches!(copy(b"").unwrap_err(), StreamError::Empty));
}

/// Copies the stream from a file into a pipe.
fn splice(bytes: &[u8]) -> Result<Vec<u8>, StreamError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let (mut out, sink) = io::pipe().unwrap();
    let reader = std::thread::spawn(move || {
        let mut passed = Vec::new();
        out.read_to_end(&mut passed).map(|_| passed)
    });
    let input = TimeoutReader::open(file.path()).unwrap();
    let spliced =
        StreamReader::open(input).and_then(|stream| stream.splice_to(sink, &mut |_| Ok(())));
    let passed = reader.join().unwrap().unwrap();
    spliced.map(|()| passed)
}

#[test]
fn splicing_a_file_equals_copying_it() {
    let bytes = whole("linux-1");
    let more = [&bytes[..], b"more"].concat();
    assert_eq!(splice(&more).unwrap(), bytes);
    for length in 1..bytes.len() {
        let (spliced, copied) = (splice(&bytes[..length]), copy(&bytes[..length]));
        assert_eq!(
            spliced.unwrap_err().to_string(),
            copied.unwrap_err().to_string()
        );
    }
    let second = [
        bytes.strip_suffix(&command(END, b"")[..]).unwrap(),
        &start("../evil", None)[START_LENGTH..],
    ];
    assert!(matches!(
        splice(&second.concat()).unwrap_err(),
        StreamError::Damaged(_)
    ));
}

#[test]
fn a_file_longer_than_a_window_is_spliced() {
    let mut bytes = start("linux-1", None);
    for number in 0..40_u8 {
        let content = value(19, &vec![number; 50_000]);
        bytes.extend(command(
            15,
            &[content, value(ATTRIBUTE_PATH, b"file")].concat(),
        ));
    }
    bytes.extend(command(END, b""));
    assert!(splice(&bytes).unwrap() == bytes);
}

#[test]
fn foreign_content_is_recognized() {
    let table: [(&[u8], &str); 4] = [
        (b"hello", "the input is no `btrfs send` stream"),
        (
            b"\x28\xb5\x2f\xfd and more of it, compressed",
            "put `zstd -dc` before it",
        ),
        (b"\x1f\x8b", "put `gzip -dc` before it"),
        (&[0; 100], "the input is no `btrfs send` stream"),
    ];
    for (bytes, expected) in table {
        let error = copy(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_second_subvolume_in_a_stream_is_refused() {
    let second = start("../evil", None).split_off(START_LENGTH);
    let bytes = [start("linux-1", None), second, command(END, b"")].concat();
    assert!(matches!(copy(&bytes).unwrap_err(), StreamError::Damaged(_)));
}

proptest! {
    #[test]
    fn no_flipped_bit_makes_the_reader_panic(at in 0_usize..420, bit in 0_u8..8) {
        let mut bytes = whole("linux-1");
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        let _ = copy(&bytes);
    }
}
