//! The decoder against every way of cutting the bytes.

use std::convert::Infallible;

use proptest::prelude::*;

use super::super::watch::Watch;
use super::*;
use crate::upstream::Timeouts;

fn pulse() -> Pulse {
    let second = std::time::Duration::from_secs(1);
    Watch::start(Timeouts {
        connect: second,
        first_token: second,
        idle: second,
        total: second,
        interim_after: second,
    })
    .pulse()
}

/// The data of all events, or what was wrong.
fn decode(chunks: Vec<Vec<u8>>) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let body = stream::iter(
            chunks
                .into_iter()
                .map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk))),
        );
        let mut events = std::pin::pin!(events(body, pulse()));
        let mut data = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => data.push(event.data),
                Err(error) => return Err(format!("{error:?}")),
            }
        }
        Ok(data)
    })
}

const TEXT: &str = ": OPENROUTER PROCESSING\n\ndata: {\"a\":\"naïve – 日本 👍\"}\n\n: again\r\n\r\ndata: two\r\n\r\nevent: error\ndata: three\n\ndata: [DONE]\n\n";

fn expected() -> Vec<String> {
    ["{\"a\":\"naïve – 日本 👍\"}", "two", "three", "[DONE]"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn every_cut_gives_the_same_events() {
    let bytes = TEXT.as_bytes();
    assert_eq!(decode(vec![bytes.to_vec()]).unwrap(), expected());
    assert_eq!(
        decode(bytes.iter().map(|byte| vec![*byte]).collect()).unwrap(),
        expected()
    );
    for cut in 0..bytes.len() {
        let chunks = vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()];
        assert_eq!(decode(chunks).unwrap(), expected(), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
        let _ = decode(chunks);
    }

    #[test]
    fn text_in_any_script_arrives_whole(texts in prop::collection::vec("[^\\r\\n\u{feff}]{1,30}", 1..5), size in 1..9_usize) {
        let wire: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
        let chunks = wire.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(decode(chunks).unwrap(), texts);
    }
}

#[test]
fn a_byte_order_mark_does_not_bring_it_down() {
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend_from_slice(b": hello\n\ndata: one\n\n");
    assert_eq!(decode(vec![bytes.clone()]).unwrap(), ["one"]);
    assert_eq!(
        decode(bytes.iter().map(|byte| vec![*byte]).collect()).unwrap(),
        ["one"]
    );
}

#[test]
fn a_broken_character_is_noticed_at_once() {
    for broken in [
        b"data: \xff\n\n".as_slice(),
        b"data: \xe6\x97x\n\n",
        b"data: \xc3\xc3\n\n",
    ] {
        let mut chunks = vec![broken.to_vec()];
        chunks.extend(std::iter::repeat_n(b"data: more\n\n".to_vec(), 3));
        assert!(
            decode(chunks.clone()).unwrap_err().contains("UTF-8"),
            "{broken:?}"
        );
        let bytes: Vec<_> = chunks.concat().iter().map(|byte| vec![*byte]).collect();
        assert!(decode(bytes).unwrap_err().contains("UTF-8"), "{broken:?}");
    }
}

#[test]
fn an_endless_event_is_cut_off_and_long_streams_are_not() {
    let endless = vec![vec![b'x'; 64 * 1024]; 5];
    assert!(decode(endless).unwrap_err().contains("too long"));
    let mut event = b"data: ".to_vec();
    event.extend(vec![b'x'; 200 * 1024]);
    event.extend_from_slice(b"\n\n");
    assert_eq!(decode(vec![event; 10]).unwrap().len(), 10);
}
