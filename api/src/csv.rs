//! Tables for spreadsheets, RFC 4180.

/// A table as it is written.
#[derive(Debug)]
pub(crate) struct Table(String);

impl Table {
    /// With these columns.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.line(columns);
        table
    }

    /// One more line.
    pub(crate) fn line(&mut self, cells: &[&str]) {
        for (at, text) in cells.iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            cell(&mut self.0, text);
        }
        self.0.push_str("\r\n");
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// A spreadsheet takes what begins like this for a formula and runs it, and names of models come from
/// outside. An apostrophe makes it a text; no number that is written here begins so.
const FORMULA: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '＠'];

fn cell(out: &mut String, text: &str) {
    let is_formula = text
        .trim_start_matches([' ', '"', '\'', '\u{feff}'])
        .starts_with(FORMULA);
    let is_plain = !is_formula && !text.contains([',', '"', '\r', '\n', ';']);
    if is_plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    if is_formula {
        out.push('\'');
    }
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn a_name_is_never_a_formula() {
        let mut table = Table::new(&["a", "b"]);
        table.line(&["=HYPERLINK(\"http://x\",\"y\")", "0.1"]);
        table.line(&["+1", " @SUM(A1)"]);
        table.line(&["two\nlines", "a,\"b\""]);
        table.line(&["\t=1", "openai/gpt-4o-mini"]);
        assert_eq!(
            table.finish(),
            "a,b\r\n\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",0.1\r\n\"'+1\",\"' @SUM(A1)\"\r\n\
             \"two\nlines\",\"a,\"\"b\"\"\"\r\n\"'\t=1\",openai/gpt-4o-mini\r\n"
        );
    }
}
