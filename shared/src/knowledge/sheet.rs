//! An uploaded file as entries, row by row, whatever wrote it.

use serde::Serialize;
use utoipa::ToSchema;

use super::csv::{Malformed, Reader, Record};
use super::decode::{Decoder, NoText};
use super::text::clean;
use crate::domain::{EntryText, SkippedRow};

/// Rows shown of a file before it is indexed.
const SHOWN: usize = 5;

/// A column that entries are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// Where in the application it happens.
    Menu,
    /// What people report.
    Issue,
    /// What to do about it.
    Solution,
    /// What developers noted.
    NoteDev,
    /// What testers noted.
    NoteQa,
}

/// The names a column may have, compared in lower case and without blanks, hyphens and underscores.
const NAMES: [(&str, Column); 11] = [
    ("menu", Column::Menu),
    ("issue", Column::Issue),
    ("masalah", Column::Issue),
    ("problem", Column::Issue),
    ("expected", Column::Solution),
    ("solusi", Column::Solution),
    ("solution", Column::Solution),
    ("notebydev", Column::NoteDev),
    ("catatandev", Column::NoteDev),
    ("notebyqa", Column::NoteQa),
    ("catatanqa", Column::NoteQa),
];

/// The file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct FileError {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
}

impl From<Malformed> for FileError {
    fn from(Malformed { line, message }: Malformed) -> Self {
        Self { line, message }
    }
}

/// A row of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// An entry.
    Entry {
        /// The line it begins on.
        line: i32,
        /// Its cleaned fields.
        text: EntryText,
    },
    /// It makes no entry.
    Skipped(SkippedRow),
}

/// How a file was understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Preview {
    /// `utf-8` or `windows-1252`.
    pub encoding: String,
    /// The character between two fields.
    pub delimiter: String,
    /// Each column's name and what it is read as; null is left out.
    pub columns: Vec<NamedColumn>,
    /// Rows of the file, the header and blank lines left out; a row of delimiters alone is one.
    pub rows_read: i32,
    /// The first entries.
    pub rows: Vec<EntryText>,
    /// Rows that make no entry; at most a thousand.
    pub rows_skipped: Vec<SkippedRow>,
}

/// A column of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct NamedColumn {
    /// Its name in the file.
    pub name: String,
    /// What it is read as; null is left out.
    pub column: Option<Column>,
}

/// Reads a file as its bytes come, keeping no more of it than a row.
#[derive(Debug)]
pub struct Sheet {
    decoder: Decoder,
    reader: Reader,
    text: String,
    columns: Option<Vec<NamedColumn>>,
    rows_read: i32,
    rows: Vec<Row>,
}

impl Default for Sheet {
    fn default() -> Self {
        Self {
            decoder: Decoder::new(),
            reader: Reader::new(),
            text: String::new(),
            columns: None,
            rows_read: 0,
            rows: Vec::new(),
        }
    }
}

impl Sheet {
    /// Takes more bytes of the file.
    ///
    /// # Errors
    /// When it turns out that this is no such file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let decoded = self.decoder.push(bytes, &mut self.text);
        self.absorb(decoded)
    }

    /// The end of the file.
    ///
    /// # Errors
    /// When it ends within a quoted field, or has no row.
    pub fn finish(&mut self) -> Result<(), FileError> {
        let decoded = self.decoder.finish(&mut self.text);
        self.absorb(decoded)?;
        self.reader.finish()?;
        self.understand()?;
        if self.columns.is_none() {
            return Err(error(1, "the file is empty"));
        }
        if self.rows_read == 0 {
            return Err(error(
                self.reader.line(),
                "there is no row below the header",
            ));
        }
        Ok(())
    }

    /// The rows that are complete.
    pub fn take(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }

    /// How many rows wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rows.len()
    }

    /// Rows so far, the header and blank lines left out.
    #[must_use]
    pub fn rows_read(&self) -> i32 {
        self.rows_read
    }

    /// How the file is understood, with some of its rows.
    #[must_use]
    pub fn preview(&self, rows: Vec<EntryText>, skipped: Vec<SkippedRow>) -> Preview {
        Preview {
            encoding: self.decoder.encoding().to_owned(),
            delimiter: self.reader.delimiter().unwrap_or(',').to_string(),
            columns: self.columns.clone().unwrap_or_default(),
            rows_read: self.rows_read,
            rows: rows.into_iter().take(SHOWN).collect(),
            rows_skipped: skipped,
        }
    }

    fn absorb(&mut self, decoded: Result<(), NoText>) -> Result<(), FileError> {
        let text = std::mem::take(&mut self.text);
        self.reader.push(&text)?;
        self.understand()?;
        decoded.map_err(|no_text| {
            let message = match no_text {
                NoText::Utf16 => "the file is UTF-16; save it as \"CSV UTF-8\"",
                NoText::BrokenUtf8 => "the file begins as UTF-8 and has bytes here that are none",
            };
            error(self.reader.line(), message)
        })
    }

    fn understand(&mut self) -> Result<(), FileError> {
        for record in self.reader.take() {
            match &self.columns {
                // Spreadsheets may leave empty rows above the header.
                None if record.fields.iter().all(|field| field.trim().is_empty()) => {}
                None => self.columns = Some(columns(&record)?),
                Some(columns) => {
                    let row = row(columns, &record);
                    self.rows_read += 1;
                    self.rows.push(row);
                }
            }
        }
        Ok(())
    }
}

fn error(line: u32, message: &str) -> FileError {
    FileError {
        line,
        message: message.to_owned(),
    }
}

/// What each column is, by the names of the header.
fn columns(header: &Record) -> Result<Vec<NamedColumn>, FileError> {
    let mut columns: Vec<NamedColumn> = Vec::new();
    for field in &header.fields {
        let name = clean(field);
        let plain: String = name
            .to_lowercase()
            .chars()
            .filter(|character| !character.is_whitespace() && !"-_.".contains(*character))
            .collect();
        let known = NAMES.iter().find(|(alias, _)| *alias == plain);
        let column = known.map(|(_, column)| *column);
        let twin = columns
            .iter()
            .find(|other| column.is_some() && other.column == column);
        if let Some(twin) = twin {
            let message = format!(
                "the columns \"{}\" and \"{name}\" mean the same; leave one out",
                twin.name
            );
            return Err(error(header.line, &message));
        }
        columns.push(NamedColumn { name, column });
    }
    let has = |wanted: Column| columns.iter().any(|named| named.column == Some(wanted));
    if !has(Column::Issue) && !has(Column::Solution) {
        let message =
            "no column is called ISSUE (or MASALAH, PROBLEM) or EXPECTED (or SOLUSI, SOLUTION)";
        return Err(error(header.line, message));
    }
    Ok(columns)
}

fn row(columns: &[NamedColumn], record: &Record) -> Row {
    let line = i32::try_from(record.line).unwrap_or(i32::MAX);
    let skipped = |reason: String| Row::Skipped(SkippedRow { line, reason });
    let beyond = record.fields.get(columns.len()..).unwrap_or_default();
    if beyond.iter().any(|field| !field.trim().is_empty()) {
        let reason = format!(
            "the row has {} fields and the header {}",
            record.fields.len(),
            columns.len()
        );
        return skipped(reason);
    }
    let mut text = EntryText::default();
    for (named, field) in columns.iter().zip(&record.fields) {
        let place = match named.column {
            Some(Column::Menu) => &mut text.menu,
            Some(Column::Issue) => &mut text.issue,
            Some(Column::Solution) => &mut text.solution,
            Some(Column::NoteDev) => &mut text.note_dev,
            Some(Column::NoteQa) => &mut text.note_qa,
            None => continue,
        };
        *place = clean(field);
    }
    if text.issue.is_empty() && text.solution.is_empty() {
        return skipped("there is neither an issue nor a solution".to_owned());
    }
    Row::Entry { line, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(Preview, Vec<Row>), FileError> {
        let mut sheet = Sheet::default();
        for piece in bytes.chunks(5) {
            sheet.push(piece)?;
        }
        sheet.finish()?;
        let rows = sheet.take();
        Ok((sheet.preview(Vec::new(), Vec::new()), rows))
    }

    #[test]
    fn a_file_of_indonesian_excel_is_understood() {
        let file = b"\xef\xbb\xbf;;;;;\r\nMenu ;MASALAH;Solusi;Catatan Dev;Note_by-QA;PIC\r\n\
            SPP\xc2\xa0;\"Gagal\nsimpan\";Muat ulang;;;Budi\r\n;;;;;\r\n;;;catatan;;\r\nLogin;Lupa;;\r\na;b;c;d;e;f;g\r\n";
        let (preview, rows) = read(file).unwrap();
        assert_eq!(
            (preview.encoding.as_str(), preview.delimiter.as_str()),
            ("utf-8", ";")
        );
        assert_eq!(preview.rows_read, 5);
        let read_as: Vec<_> = preview.columns.iter().map(|named| named.column).collect();
        assert_eq!(read_as[0], Some(Column::Menu));
        assert_eq!(read_as[4..], [Some(Column::NoteQa), None]);
        let Row::Entry { line, text } = &rows[0] else {
            panic!("{rows:?}")
        };
        assert_eq!(
            (*line, text.menu.as_str(), text.issue.as_str()),
            (3, "SPP", "Gagal\nsimpan")
        );
        let skipped = |line, reason: &str| {
            Row::Skipped(SkippedRow {
                line,
                reason: reason.to_owned(),
            })
        };
        for (row, line) in [(1, 5), (2, 6)] {
            assert_eq!(
                rows[row],
                skipped(line, "there is neither an issue nor a solution")
            );
        }
        assert!(matches!(&rows[3], Row::Entry { line: 7, text } if text.issue == "Lupa"));
        assert_eq!(rows[4], skipped(8, "the row has 7 fields and the header 6"));
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_its_line() {
        for (file, line, word) in [
            (&b"MENU,ISSUE,Problem\n1,2,3\n"[..], 1, "mean the same"),
            (b"name,age\nx,1\n", 1, "no column is called"),
            (b"<html><body>\n</body></html>\n", 1, "no column is called"),
            (b"PK\x03\x04\0\0\0\n", 1, "NUL"),
            (b"\xff\xfeM\0E\0", 1, "UTF-16"),
            (b"", 1, "empty"),
            (b"MENU,ISSUE\n", 2, "no row"),
            (b"MENU,ISSUE\na,b\nx,\"y\n", 3, "not closed"),
            (b"MENU,ISSUE\na,\xc3\xa9\nb,c\nd,\xe9z\n", 4, "UTF-8"),
        ] {
            let error = read(file).unwrap_err();
            assert_eq!(error.line, line, "{}", error.message);
            assert!(error.message.contains(word), "{}", error.message);
        }
    }
}
