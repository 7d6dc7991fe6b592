//! What the help desk's model is told: the entries that were found, numbered so that it can cite them.

use shared::domain::KnowledgeDocument;

/// An entry as the model reads it.
#[must_use]
pub fn entry(number: usize, document: &KnowledgeDocument) -> String {
    let mut text = format!("[{number}]");
    for (name, field) in [
        ("Menu", &document.menu),
        ("Issue", &document.issue),
        ("Solution", &document.solution),
        ("Note of the developers", &document.note_dev),
        ("Note of the testers", &document.note_qa),
    ] {
        if !field.is_empty() {
            text.push_str(&format!("\n{name}: {field}"));
        }
    }
    text.push('\n');
    text
}

/// Everything besides the conversation: how to use the entries, the entries, and where the matter stands.
#[must_use]
pub fn desk(documents: &[&KnowledgeDocument], note: Option<&str>, handed_over: bool) -> String {
    let mut text = match documents.is_empty() {
        true => "The knowledge base has no entry that answers this. Say so honestly, ask for what is missing, and do not \
                 make up menus, buttons or steps."
            .to_owned(),
        false => "Entries of the knowledge base follow. Answer from them only, cite each one you use by its number as in \
                  [1], and say so when they do not answer the question."
            .to_owned(),
    };
    if let Some(note) = note {
        text.push_str(&format!("\nA support officer left this note: {note}"));
    }
    if handed_over {
        text.push_str("\nA support officer has been told and will take over; say so.");
    }
    for (document, number) in documents.iter().zip(1..) {
        text.push_str("\n\n");
        text.push_str(&entry(number, document));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::Clock;

    #[test]
    fn entries_are_numbered_and_what_is_missing_is_said() {
        let now = Clock::system().now();
        let document = KnowledgeDocument {
            id: uuid::Uuid::nil(),
            collection: "default".to_owned(),
            menu: "SPP".to_owned(),
            issue: "gagal simpan".to_owned(),
            solution: "Muat ulang".to_owned(),
            note_dev: String::new(),
            note_qa: String::new(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let text = desk(&[&document, &document], Some("sudah ditelepon"), true);
        assert!(
            text.contains("[2]\nMenu: SPP\nIssue: gagal simpan\nSolution: Muat ulang\n"),
            "{text}"
        );
        assert!(
            text.contains("sudah ditelepon") && text.contains("will take over"),
            "{text}"
        );
        assert!(!text.contains("testers"));
        assert!(desk(&[], None, false).contains("no entry"));
    }
}
