//! Who may come in.

use super::*;

#[tokio::test]
async fn a_handler_is_reached_by_those_its_extractor_names() {
    let (user, admin) = (token("user"), token("admin"));
    assert_eq!(
        with("/user", &[("authorization", &user)]).await,
        format!("200 {USER}")
    );
    assert_eq!(
        with(
            "/user",
            &[("authorization", &user.replace("Bearer", "bEARER"))]
        )
        .await,
        format!("200 {USER}")
    );
    assert_eq!(
        with("/admin", &[("authorization", &admin)]).await,
        format!("200 {USER}")
    );
    assert_eq!(
        with("/admin", &[("authorization", &user)]).await,
        "403 admin_required"
    );
    assert_eq!(
        with(
            "/internal",
            &[("x-service-key", "a-key-of-another-service")]
        )
        .await,
        "200 in"
    );
    assert_eq!(
        with("/internal", &[("x-service-key", "a-key")]).await,
        "401 service_key_invalid"
    );
    assert_eq!(
        with("/internal", &[("authorization", &admin)]).await,
        "401 service_key_invalid"
    );
    for path in ["/user", "/admin"] {
        assert_eq!(with(path, &[]).await, "401 unauthenticated");
        assert_eq!(
            with(path, &[("authorization", "Basic dTpw")]).await,
            "401 unauthenticated"
        );
        assert_eq!(
            with(path, &[("authorization", "Bearer forged")]).await,
            "401 token_invalid"
        );
        assert_eq!(
            with(path, &[("authorization", &user), ("authorization", &admin)]).await,
            "401 token_invalid"
        );
    }
}

#[tokio::test]
async fn a_refusal_names_the_scheme() {
    let request = Request::get("/user")
        .header("authorization", "Bearer forged")
        .body(Body::empty())
        .unwrap();
    let response = router().oneshot(request).await.unwrap();
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        "Bearer error=\"invalid_token\""
    );
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
}
