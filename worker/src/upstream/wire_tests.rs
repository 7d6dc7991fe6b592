//! Bodies as real servers send them, and as no server should.

use proptest::prelude::*;

use super::*;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn parse(json: &str, free: bool) -> TokenUsage {
    usage(&raw(json), free).unwrap()
}

fn cost(json: &str, free: bool) -> Option<String> {
    parse(json, free).cost.map(|cost| cost.to_string())
}

#[test]
fn a_usage_is_read_whole() {
    let usage = parse(
        r#"{"prompt_tokens":194,"completion_tokens":20,"total_tokens":214,"cost":0.00014175,
            "cost_details":{"upstream_inference_cost":null},
            "prompt_tokens_details":{"cached_tokens":150},"completion_tokens_details":{"reasoning_tokens":4}}"#,
        false,
    );
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens
        ),
        (194, 20, 214, 150, 4)
    );
    assert_eq!(usage.cost, Some("0.00014175".parse().unwrap()));
    assert!(usage.raw.unwrap().get().contains("upstream_inference_cost"));
}

#[test]
fn money_keeps_every_digit() {
    for (text, expected) in [
        ("0.1", "0.1"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1.5e-7", "0.00000015"),
        ("2E-6", "0.000002"),
        ("\"0.0042\"", "0.0042"),
        ("12", "12"),
        ("123456789.000000001", "123456789.000000001"),
    ] {
        let json = format!(r#"{{"completion_tokens":1,"cost":{text}}}"#);
        assert_eq!(cost(&json, false).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn an_unknown_cost_is_not_zero() {
    for json in [
        r#"{"completion_tokens":5}"#,
        r#"{"completion_tokens":5,"cost":null}"#,
        r#"{"completion_tokens":5,"cost":"free"}"#,
        r#"{"completion_tokens":5,"cost":-0.5}"#,
        r#"{"completion_tokens":5,"cost":0}"#,
        r#"{"completion_tokens":5,"cost":0.0}"#,
    ] {
        assert_eq!(cost(json, false), None, "{json}");
    }
}

#[test]
fn zero_is_real_for_free_models_cache_hits_and_replies_that_never_began() {
    assert_eq!(
        cost(r#"{"completion_tokens":5,"cost":0}"#, true).as_deref(),
        Some("0")
    );
    let cached = r#"{"completion_tokens":5,"cost":0,"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":9}}"#;
    assert_eq!(cost(cached, false).as_deref(), Some("0"));
    assert_eq!(
        cost(r#"{"completion_tokens":0,"cost":0}"#, false).as_deref(),
        Some("0")
    );
    assert_eq!(cost(r#"{"completion_tokens":5}"#, true), None);
}

#[test]
fn odd_numbers_are_read_or_ignored() {
    let usage = parse(
        r#"{"prompt_tokens":"12","completion_tokens":7.0,"total_tokens":null,"prompt_tokens_details":null,
            "completion_tokens_details":"none"}"#,
        true,
    );
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens
        ),
        (12, 7, 19)
    );
    let huge = parse(
        r#"{"prompt_tokens":1e99,"completion_tokens":-4,"total_tokens":{"a":1}}"#,
        true,
    );
    assert_eq!(
        (
            huge.prompt_tokens,
            huge.completion_tokens,
            huge.total_tokens
        ),
        (MAX_COUNT, 0, MAX_COUNT)
    );
    assert!(usage_of("[1]").is_none());
    assert!(usage_of("7").is_none());
    assert!(parse(r#"{"note":"\u0000"}"#, true).raw.is_none());
}

fn usage_of(json: &str) -> Option<TokenUsage> {
    usage(&raw(json), true)
}

#[test]
fn text_is_found_in_every_form() {
    for json in [
        r#"{"choices":[{"delta":{"content":"hi"}}]}"#,
        r#"{"choices":[{"message":{"content":"hi","role":"assistant"}}]}"#,
        r#"{"choices":[{"delta":{"content":[{"type":"text","text":"h"},{"type":"text","text":"i"}]}}]}"#,
    ] {
        let chunk: Chunk<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(chunk.text(), "hi", "{json}");
        assert!(chunk.has_token());
    }
}

#[test]
fn odd_fields_do_not_break_a_chunk() {
    for json in [
        "{}",
        r#"{"choices":null,"usage":null,"error":null,"id":null,"model":7}"#,
        r#"{"choices":[],"extra":{"a":[1,2]}}"#,
        r#"{"choices":[{"delta":null,"finish_reason":null,"logprobs":null}]}"#,
        r#"{"choices":[{"delta":{"content":null,"tool_calls":[{"id":1}]},"finish_reason":""}]}"#,
        r#"{"choices":[{"delta":{"content":{"image":true}}}],"id":3.5,"model":true}"#,
    ] {
        let chunk: Chunk<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(
            (chunk.text(), chunk.finish_reason(), chunk.has_token()),
            ("", None, false),
            "{json}"
        );
        assert!(chunk.error().is_none());
    }
}

#[test]
fn reasoning_is_a_sign_of_work_and_no_text() {
    for field in ["reasoning", "reasoning_content"] {
        let json = format!(r#"{{"choices":[{{"delta":{{"content":"","{field}":"hm"}}}}]}}"#);
        let chunk: Chunk<'_> = serde_json::from_str(&json).unwrap();
        assert_eq!((chunk.text(), chunk.has_token()), ("", true));
    }
}

#[test]
fn an_error_is_found_at_the_top_and_in_the_choice() {
    for json in [
        r#"{"error":{"code":502}}"#,
        r#"{"choices":[{"error":{"code":502},"finish_reason":"error"}]}"#,
    ] {
        let chunk: Chunk<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(chunk.error().unwrap()["code"], 502);
    }
}

proptest! {
    #[test]
    fn no_usage_object_makes_it_panic(cost in "[-+0-9.eE\"]{0,40}", tokens in any::<f64>()) {
        let json = format!(r#"{{"cost":{cost},"prompt_tokens":{tokens:?},"completion_tokens":{tokens:e}}}"#);
        if let Ok(raw) = RawValue::from_string(json) {
            usage(&raw, false);
        }
    }
}
