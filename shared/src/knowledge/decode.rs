//! Bytes of an uploaded file as text, piece by piece: UTF-8 or Windows-1252, whichever it is.

/// How the file's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// Nothing but ASCII came so far, which both share.
    Undecided,
    Utf8,
    Windows1252,
}

/// What 0x80 to 0x9F are in Windows-1252; what it leaves out is the control character of that number.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Turns bytes into text as they come.
#[derive(Debug)]
pub(super) struct Decoder {
    encoding: Encoding,
    /// The start of a character whose end has not come yet; at most three bytes.
    pending: Vec<u8>,
    /// Whether anything was decoded.
    begun: bool,
}

/// The bytes are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoText {
    /// A mark of UTF-16 or UTF-32 stands at the beginning.
    Utf16,
    /// The file began as UTF-8 and does not go on as such.
    BrokenUtf8,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            encoding: Encoding::Undecided,
            pending: Vec::new(),
            begun: false,
        }
    }

    /// The encoding's name; ASCII alone is UTF-8.
    pub(super) fn encoding(&self) -> &'static str {
        match self.encoding {
            Encoding::Windows1252 => "windows-1252",
            Encoding::Undecided | Encoding::Utf8 => "utf-8",
        }
    }

    /// Appends the text of more bytes. What is broken shows after everything before it was appended.
    pub(super) fn push(&mut self, bytes: &[u8], text: &mut String) -> Result<(), NoText> {
        let mut all = std::mem::take(&mut self.pending);
        all.extend_from_slice(bytes);
        if !self.begun {
            if all.len() < 3
                && [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"]
                    .iter()
                    .any(|mark| mark.starts_with(&all))
            {
                self.pending = all;
                return Ok(());
            }
            self.begun = true;
            if all.starts_with(b"\xff\xfe") || all.starts_with(b"\xfe\xff") {
                return Err(NoText::Utf16);
            }
            if all.starts_with(b"\xef\xbb\xbf") {
                self.encoding = Encoding::Utf8;
                all.drain(..3);
            }
        }
        self.decode(&all, text)
    }

    /// The end: a character that was begun is not finished.
    pub(super) fn finish(&mut self, text: &mut String) -> Result<(), NoText> {
        self.begun = true;
        let rest = std::mem::take(&mut self.pending);
        if rest.is_empty() {
            return Ok(());
        }
        if self.encoding == Encoding::Utf8 {
            return Err(NoText::BrokenUtf8);
        }
        self.encoding = Encoding::Windows1252;
        text.extend(rest.iter().map(|byte| windows_1252(*byte)));
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], text: &mut String) -> Result<(), NoText> {
        if self.encoding == Encoding::Windows1252 {
            text.extend(bytes.iter().map(|byte| windows_1252(*byte)));
            return Ok(());
        }
        match std::str::from_utf8(bytes) {
            Ok(valid) => {
                if !valid.is_ascii() {
                    self.encoding = Encoding::Utf8;
                }
                text.push_str(valid);
                Ok(())
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                // What is valid was just found to be.
                let valid = std::str::from_utf8(valid).unwrap_or_default();
                if !valid.is_ascii() {
                    self.encoding = Encoding::Utf8;
                }
                text.push_str(valid);
                if error.error_len().is_none() {
                    self.pending = rest.to_vec();
                    return Ok(());
                }
                if self.encoding == Encoding::Utf8 {
                    return Err(NoText::BrokenUtf8);
                }
                self.encoding = Encoding::Windows1252;
                text.extend(rest.iter().map(|byte| windows_1252(*byte)));
                Ok(())
            }
        }
    }
}

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], piece: usize) -> Result<(String, &'static str), NoText> {
        let (mut decoder, mut text) = (Decoder::new(), String::new());
        for piece in bytes.chunks(piece) {
            decoder.push(piece, &mut text)?;
        }
        decoder.finish(&mut text)?;
        Ok((text, decoder.encoding()))
    }

    #[test]
    fn both_encodings_are_told_apart_wherever_the_bytes_are_cut() {
        for piece in 1..8 {
            let utf8 = "a\u{feff}é–ñ".as_bytes();
            assert_eq!(
                decode(utf8, piece),
                Ok(("a\u{feff}é–ñ".to_owned(), "utf-8"))
            );
            let marked = b"\xef\xbb\xbfMENU";
            assert_eq!(decode(marked, piece), Ok(("MENU".to_owned(), "utf-8")));
            let windows = b"caf\xe9 \x96 \x93x\x94";
            let expected = ("café – “x”".to_owned(), "windows-1252");
            assert_eq!(decode(windows, piece), Ok(expected));
            assert_eq!(
                decode(b"caf\xe9", piece),
                Ok(("café".to_owned(), "windows-1252"))
            );
            assert_eq!(decode(b"\xff\xfea\0", piece), Err(NoText::Utf16));
            let broken = [&b"\xc3\xa9 then \xe9 x"[..]].concat();
            assert_eq!(decode(&broken, piece), Err(NoText::BrokenUtf8));
            assert_eq!(decode(b"\xc3\xa9\xc3", piece), Err(NoText::BrokenUtf8));
        }
    }
}
