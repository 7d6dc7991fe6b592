use super::*;

#[test]
fn reads_directives() {
    let parsed = Directives::parse("503, retry_after=2, times=2, in=chunk, at=7").unwrap();
    let failure = parsed.resolved_failure().unwrap();
    assert_eq!((failure.status, failure.retry_after), (503, Some(2.0)));
    assert_eq!(
        (parsed.times, parsed.place, parsed.at),
        (Some(2), Some(Place::Chunk), Some(7))
    );
    let hang = Directives::parse("hang").unwrap();
    assert_eq!(hang.before_headers, Some(BeforeHeaders::Hang));
    assert_eq!(
        Directives::parse("hang=body,cut=40").unwrap().incidents,
        [(0, Incident::Hang), (40, Incident::Cut)]
    );
}

#[test]
fn refuses_what_it_does_not_know() {
    for list in [
        "hnag",
        "status=200",
        "ttft",
        "ttft=soon",
        "empty=1",
        "in=header,503",
        "in=chunk",
        "429=1",
        "rate=-1",
        "rate=NaN",
    ] {
        assert!(Directives::parse(list).is_err(), "{list}");
    }
}

#[test]
fn later_directives_win() {
    let mut base = Directives::parse("503,retry_after=2,tokens=5").unwrap();
    base.overlay(Directives::parse("429").unwrap());
    let failure = base.resolved_failure().unwrap();
    assert_eq!(
        (failure.status, failure.retry_after, base.tokens),
        (429, None, Some(5))
    );
}

#[test]
fn globs() {
    for (pattern, text, matches) in [
        ("*:free", "a/b:free", true),
        ("*:free", "a/b", false),
        ("a/b", "a/b", true),
        ("a/b", "a/bc", false),
        ("a*c*e", "abcde", true),
        ("a*c*e", "ace", true),
        ("a*c*e", "aec", false),
        ("*", "", true),
    ] {
        assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
    }
}
