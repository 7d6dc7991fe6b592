//! Judgements of single messages; the evaluation set measures how good they are on the whole.

use super::*;

#[test]
fn intents_of_plain_messages() {
    for (message, expected) in [
        (
            "Saya lupa password dan tidak bisa login",
            Intent::LoginIssue,
        ),
        ("akun saya kekunci min", Intent::LoginIssue),
        ("My account is locked", Intent::LoginIssue),
        ("Pagu DPA tidak sesuai dengan RKA", Intent::DpaIssue),
        (
            "Neraca tidak balance setelah posting jurnal",
            Intent::LaporanIssue,
        ),
        ("Halaman blank putih terus", Intent::TechnicalIssue),
        ("tombol simpan ga bisa diklik", Intent::TechnicalIssue),
        ("Bagaimana cara membuat SPP LS?", Intent::GeneralInquiry),
        ("Saya sangat kecewa dengan pelayanan ini", Intent::Complaint),
        (
            "Mohon ditambahkan fitur ekspor ke Excel",
            Intent::FeatureRequest,
        ),
        ("halo", Intent::GeneralInquiry),
        ("", Intent::GeneralInquiry),
    ] {
        let judged = judge(message);
        assert_eq!(judged.intent, expected, "{message}: {judged:?}");
        assert!((0.0..=1.0).contains(&judged.confidence), "{judged:?}");
    }
}

#[test]
fn moods_with_negation_and_emphasis() {
    let mood = |message: &str| judge(message).sentiment;
    assert!(mood("terima kasih, sangat membantu") > 0.5);
    assert!(mood("aplikasinya bagus") > 0.3);
    assert!(mood("aplikasinya tidak bagus") < -0.3);
    assert!(mood("ga puas sama jawabannya") < -0.3);
    assert!(mood("kecewa bangettt!!!") < mood("agak kecewa"));
    assert!(mood("this is not helpful") < -0.2);
    assert!(mood("the worst service, totally useless!") < -0.8);
    // A fault is no bad mood.
    assert!(mood("SPP gagal simpan, muncul error") > -0.4);
    assert_eq!(mood("bagaimana cara cetak SP2D?"), 0.0);
    assert_eq!(mood(""), 0.0);
    for message in [
        "goblok tolol bangsat sampah!!!!!!",
        "great excellent perfect love awesome",
    ] {
        assert!((-1.0..=1.0).contains(&mood(message)));
    }
}

#[test]
fn languages() {
    assert_eq!(judge("How do I print the SP2D?").language, Language::En);
    assert_eq!(judge("SP2D ga bisa dicetak").language, Language::Id);
    assert_eq!(judge("error 500").language, Language::Id);
}

#[test]
fn a_person_takes_over_when_the_rules_say() {
    let rules = Rules {
        sentiment_threshold: -0.5,
        max_failed_attempts: 3,
    };
    let turn = |intent, answered| Turn { intent, answered };
    let (failed, complained) = (
        turn(Intent::TechnicalIssue, false),
        turn(Intent::Complaint, true),
    );
    let fine = turn(Intent::GeneralInquiry, true);
    for (message, answered, before, expected) in [
        (
            "Saya mau bicara dengan petugas",
            true,
            vec![],
            Some(Reason::CustomerRequest),
        ),
        (
            "please connect me to a human",
            true,
            vec![],
            Some(Reason::CustomerRequest),
        ),
        ("Bagaimana operator mengunggah SPJ?", true, vec![], None),
        (
            "Saya kecewa sekali, parah!",
            true,
            vec![],
            Some(Reason::NegativeSentiment),
        ),
        (
            "saya mau komplain",
            true,
            vec![complained],
            Some(Reason::Complaint),
        ),
        ("saya mau komplain", true, vec![complained, fine], None),
        (
            "SPP gagal simpan",
            false,
            vec![failed, failed],
            Some(Reason::MissingKnowledge),
        ),
        ("SPP gagal simpan", true, vec![failed, failed], None),
        ("SPP gagal simpan", false, vec![failed, fine, failed], None),
    ] {
        let escalation = escalate(&judge(message), answered, &before, rules);
        assert_eq!(
            escalation.reason,
            expected,
            "{message} {:?}",
            judge(message)
        );
        assert_eq!(escalation.should, expected.is_some());
    }
}

#[test]
fn suggestions_and_templates_speak_the_persons_language() {
    for intent in Intent::ALL {
        for language in [Language::Id, Language::En] {
            let texts = suggestions(intent, language);
            assert!(
                texts.iter().all(|text| judge(text).language == language),
                "{texts:?}"
            );
            let answer = template(intent, language, Some("Muat ulang."));
            assert!(answer.contains("[1]") && answer.contains("Muat ulang."));
            assert!(!template(intent, language, None).contains("[1]"));
        }
        assert_eq!(serde_json::to_value(intent).unwrap(), intent.as_str());
    }
}
