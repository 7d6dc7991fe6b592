//! Comma-separated values as RFC 4180 has them and as spreadsheets write them, character by character:
//! the delimiter is found out, quoted fields may hold line breaks, and every record knows its line.

/// The longest field, in bytes. What is longer is a quote that nobody closed.
const MAX_FIELD: usize = 64 * 1024;
/// The first line is waited for so long, in bytes, to find the delimiter in it.
const MAX_HEADER: usize = 64 * 1024;

/// A record and the line it begins on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) line: u32,
    pub(super) fields: Vec<String>,
}

/// What is wrong, and on which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: u32,
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote within a quoted field: its end, or one half of a quote that is meant.
    Quote,
}

#[derive(Debug)]
pub(super) struct Reader {
    /// What came before the delimiter was known.
    head: String,
    delimiter: Option<char>,
    at: At,
    field: String,
    fields: Vec<String>,
    line: u32,
    record_line: u32,
    quote_line: u32,
    after_return: bool,
    records: Vec<Record>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            head: String::new(),
            delimiter: None,
            at: At::FieldStart,
            field: String::new(),
            fields: Vec::new(),
            line: 1,
            record_line: 1,
            quote_line: 1,
            after_return: false,
            records: Vec::new(),
        }
    }

    /// The delimiter, once it is known.
    pub(super) fn delimiter(&self) -> Option<char> {
        self.delimiter
    }

    /// The line that is being read.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// The records that are complete.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Malformed> {
        if self.delimiter.is_some() {
            return self.read(text);
        }
        self.head.push_str(text);
        match delimiter_of(&self.head) {
            Some(delimiter) => self.begin(delimiter),
            None if self.head.len() > MAX_HEADER => {
                Err(self.malformed("the first line does not end; this is no CSV file"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn finish(&mut self) -> Result<(), Malformed> {
        if self.delimiter.is_none() {
            self.head.push('\n');
            let delimiter = delimiter_of(&self.head).unwrap_or(',');
            self.begin(delimiter)?;
        }
        if self.at == At::Quoted {
            return Err(self.unclosed());
        }
        if !self.fields.is_empty() || !self.field.is_empty() || self.at == At::Quote {
            self.end_record();
        }
        Ok(())
    }

    fn begin(&mut self, delimiter: char) -> Result<(), Malformed> {
        self.delimiter = Some(delimiter);
        let head = std::mem::take(&mut self.head);
        self.read(&head)
    }

    fn read(&mut self, text: &str) -> Result<(), Malformed> {
        let delimiter = self.delimiter.unwrap_or(',');
        for character in text.chars() {
            let after_return = std::mem::take(&mut self.after_return);
            let character = match character {
                '\n' if after_return => continue,
                '\r' => {
                    self.after_return = true;
                    '\n'
                }
                '\0' => {
                    return Err(self.malformed("there is a NUL character; this is no text file"));
                }
                other => other,
            };
            self.step(character, delimiter)?;
            if character == '\n' {
                self.line += 1;
                if self.at == At::FieldStart && self.fields.is_empty() {
                    self.record_line = self.line;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, character: char, delimiter: char) -> Result<(), Malformed> {
        match (self.at, character) {
            (At::Quoted, '"') => self.at = At::Quote,
            (At::Quoted, _) => {
                if self.field.len() >= MAX_FIELD {
                    return Err(self.unclosed());
                }
                self.field.push(character);
            }
            (At::Quote, '"') => {
                self.field.push('"');
                self.at = At::Quoted;
            }
            (At::FieldStart, '"') => {
                self.at = At::Quoted;
                self.quote_line = self.line;
            }
            (_, '\n') => self.end_record(),
            (_, _) if character == delimiter => {
                self.fields.push(std::mem::take(&mut self.field));
                self.at = At::FieldStart;
            }
            (At::Quote, ' ' | '\t') => {}
            (At::Quote, _) => {
                return Err(self.malformed(
                    "there is text after a closing quote; a quote within a field is written twice",
                ));
            }
            (At::FieldStart | At::Plain, _) => {
                if self.field.len() >= MAX_FIELD {
                    return Err(self.malformed("a field is longer than 64 KiB"));
                }
                self.field.push(character);
                self.at = At::Plain;
            }
        }
        Ok(())
    }

    fn end_record(&mut self) {
        self.fields.push(std::mem::take(&mut self.field));
        self.at = At::FieldStart;
        let fields = std::mem::take(&mut self.fields);
        // A blank line is no row; one of delimiters alone is, and whoever reads it says what it lacks.
        if fields.len() > 1 || fields.iter().any(|field| !field.trim().is_empty()) {
            let line = self.record_line;
            self.records.push(Record { line, fields });
        }
    }

    fn malformed(&self, message: &str) -> Malformed {
        Malformed {
            line: self.line,
            message: message.to_owned(),
        }
    }

    fn unclosed(&self) -> Malformed {
        Malformed {
            line: self.quote_line,
            message: "the quoted field that begins here is not closed, or is longer than 64 KiB"
                .to_owned(),
        }
    }
}

/// The delimiter that the first line with text has most of, outside quotes; none before that line is
/// complete.
fn delimiter_of(text: &str) -> Option<char> {
    let (mut quoted, mut counts, mut blank) = (false, [0_u32; 3], true);
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            '\n' | '\r' if !quoted && !blank => {
                let most = counts.iter().max().copied().unwrap_or(0);
                let place = counts.iter().position(|count| *count == most)?;
                return Some([',', ';', '\t'][place]);
            }
            ',' if !quoted => counts[0] += 1,
            ';' if !quoted => counts[1] += 1,
            '\t' if !quoted => counts[2] += 1,
            _ => {}
        }
        blank &= character.is_whitespace();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, piece: usize) -> Result<Vec<(u32, Vec<String>)>, Malformed> {
        let mut reader = Reader::new();
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(piece) {
            reader.push(&piece.iter().collect::<String>())?;
        }
        reader.finish()?;
        Ok(reader
            .take()
            .into_iter()
            .map(|record| (record.line, record.fields))
            .collect())
    }

    fn rows(expected: &[(u32, &[&str])]) -> Vec<(u32, Vec<String>)> {
        let owned = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect();
        expected
            .iter()
            .map(|(line, fields)| (*line, owned(fields)))
            .collect()
    }

    #[test]
    fn spreadsheets_are_read_wherever_they_are_cut() {
        for piece in [1, 2, 3, 1000] {
            for (text, expected) in [
                ("a,b\n1,2\n", rows(&[(1, &["a", "b"]), (2, &["1", "2"])])),
                (
                    "a;b\r\n1,5;2\r\n",
                    rows(&[(1, &["a", "b"]), (2, &["1,5", "2"])]),
                ),
                ("a\tb\r1\t2", rows(&[(1, &["a", "b"]), (2, &["1", "2"])])),
                (
                    "a,\"b,c\"\n\"x\ny\",\"say \"\"hi\"\"\"\n\n,\nz,",
                    rows(&[
                        (1, &["a", "b,c"]),
                        (2, &["x\ny", "say \"hi\""]),
                        (5, &["", ""]),
                        (6, &["z", ""]),
                    ]),
                ),
                (
                    "\n\na,b\n1,\"\"\n",
                    rows(&[(3, &["a", "b"]), (4, &["1", ""])]),
                ),
                (
                    "\"a\";\"b\"\n\"1\" ;2\n",
                    rows(&[(1, &["a", "b"]), (2, &["1", "2"])]),
                ),
                ("a,5\" disk\n", rows(&[(1, &["a", "5\" disk"])])),
                ("", rows(&[])),
            ] {
                assert_eq!(read(text, piece), Ok(expected), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_broken_is_named_with_its_line() {
        for (text, line, word) in [
            ("a,b\n1,2\n\"x,2\n3,4\n", 3, "not closed"),
            ("a,b\n1,\"2\"x\n", 2, "closing quote"),
            ("a,b\n1,\0\n", 2, "NUL"),
        ] {
            let error = read(text, 7).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(error.message.contains(word), "{}", error.message);
        }
        let endless = "x".repeat(MAX_HEADER + 1);
        assert!(
            read(&endless, 5000)
                .unwrap_err()
                .message
                .contains("does not end")
        );
        let huge = format!("a,b\n{},x\n", "x".repeat(MAX_FIELD + 1));
        assert_eq!(read(&huge, 5000).unwrap_err().line, 2);
    }
}
