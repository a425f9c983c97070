//! Strict reading of parameters, and what every answer carries.

use reqwest::Method;

use crate::support::{Api, PAYMENT};

#[tokio::test]
async fn unknown_parameters_are_named() {
    let api = Api::start().await;
    let cases = [
        ("/v1/payment_intents", "amount=500&currency=usd&amonut=1", "amonut"),
        (
            "/v1/payment_intents",
            &format!("{PAYMENT}&automatic_payment_methods[x]=1"),
            "automatic_payment_methods[x]",
        ),
        ("/v1/customers", "nmae=a", "nmae"),
        ("/v1/setup_intents", "amount=5", "amount"),
        ("/v1/payment_methods", "type=card&card[token]=tok_visa&card[cvv]=123", "card[cvv]"),
    ];
    for (path, form, param) in cases {
        let answer = api.post(path, form).await;
        answer.is_invalid("parameter_unknown", param);
        assert_eq!(answer.text("error.message"), format!("Received unknown parameter: {param}"));
    }
    let answer = api.post("/v1/customers", "a=1&b=2").await;
    assert_eq!(answer.text("error.message"), "Received unknown parameters: a, b");
}

#[tokio::test]
async fn queries_are_read_as_strictly_as_bodies() {
    let api = Api::start().await;
    api.get("/v1/payment_intents?limt=3").await.is_invalid("parameter_unknown", "limt");
    api.get("/v1/account?a=1").await.is_invalid("parameter_unknown", "a");
    let customer = api.customer().await;
    let path = format!("/v1/customers/{customer}?limit=1");
    api.get(&path).await.is_invalid("parameter_unknown", "limit");
}

#[tokio::test]
async fn missing_and_mistyped_parameters_have_codes() {
    let api = Api::start().await;
    let cases = [
        ("currency=usd", "parameter_missing", "amount"),
        ("amount=500", "parameter_missing", "currency"),
        ("amount=5.00&currency=usd", "parameter_invalid_integer", "amount"),
        ("amount=abc&currency=usd", "parameter_invalid_integer", "amount"),
        ("amount=&currency=usd", "parameter_invalid_empty", "amount"),
        ("amount=500&currency=usd&confirm=yes", "", "confirm"),
        ("amount=500&currency=usd&capture_method=later", "", "capture_method"),
        ("amount=500&currency=usd&metadata=x", "", "metadata"),
        ("amount=500&currency=usd&description[a]=x", "", "description"),
        (
            "amount=500&currency=usd&automatic_payment_methods[allow_redirects]=never",
            "parameter_missing",
            "automatic_payment_methods[enabled]",
        ),
        ("amount=500&currency=usd&payment_method_types[]=boleto", "", "payment_method_types"),
        ("amount=500&currency=usd&off_session=true", "", "off_session"),
        ("amount=500&currency=usd&error_on_requires_action=true", "", "error_on_requires_action"),
    ];
    for (form, code, param) in cases {
        api.post("/v1/payment_intents", form).await.is_invalid(code, param);
    }
    let both = format!("{PAYMENT}&payment_method_types[]=card");
    let answer = api.post("/v1/payment_intents", &both).await;
    answer.is_error(400, "invalid_request_error", "parameters_exclusive");
}

#[tokio::test]
async fn metadata_is_bounded_and_empty_values_are_absent() {
    let api = Api::start().await;
    let answer = api.post("/v1/customers", "metadata[a]=1&metadata[b]=").await.ok();
    assert_eq!(answer.at("metadata"), serde_json::json!({ "a": "1" }));
    let long_key = format!("metadata[{}]=1", "k".repeat(41));
    let long_value = format!("metadata[k]={}", "v".repeat(501));
    let many: Vec<String> = (0..51).map(|n| format!("metadata[k{n}]=1")).collect();
    for form in [long_key, long_value, many.join("&")] {
        api.post("/v1/customers", &form).await.is_invalid("", "metadata");
    }
}

#[tokio::test]
async fn unknown_routes_are_404_in_stripes_words() {
    let api = Api::start().await;
    for (method, path) in [
        (Method::GET, "/v1/coupons"),
        (Method::POST, "/v1/payouts"),
        (Method::DELETE, "/v1/customers/cus_1"),
        (Method::GET, "/v1/"),
        (Method::GET, "/"),
        (Method::POST, "/v2/payment_intents"),
    ] {
        let answer = api.request(method.clone(), path).secret().send().await;
        answer.is_error(404, "invalid_request_error", "");
        let expected = format!("Unrecognized request URL ({method}: {path}).");
        assert!(answer.text("error.message").starts_with(&expected));
    }
}

#[tokio::test]
async fn absent_objects_are_404_in_the_path_and_400_in_a_parameter() {
    let api = Api::start().await;
    for path in [
        "/v1/payment_intents/pi_1",
        "/v1/setup_intents/seti_1",
        "/v1/customers/cus_1",
        "/v1/customers/cus_1/payment_methods",
        "/v1/payment_methods/pm_1",
        "/v1/charges/ch_1",
    ] {
        api.get(path).await.is_error(404, "invalid_request_error", "resource_missing");
    }
    let answer = api.pay("pm_nope", "").await;
    answer.is_invalid("resource_missing", "payment_method");
    assert_eq!(answer.text("error.message"), "No such PaymentMethod: 'pm_nope'");
    let answer = api.pay("pm_card_visa", "&customer=cus_nope").await;
    answer.is_invalid("resource_missing", "customer");
    assert!(api.sandbox.charges().is_empty());
}

#[tokio::test]
async fn only_forms_are_read_and_only_short_ones() {
    let api = Api::start().await;
    let json = api.request(Method::POST, "/v1/customers").secret().form("{}");
    let json = json.header("content-type", "application/json").send().await;
    assert_eq!(json.status, 400);
    let long = format!("name={}", "a".repeat(70_000));
    api.post("/v1/customers", &long).await.is_error(413, "invalid_request_error", "");
    assert!(api.get("/v1/customers").await.ok().at("data").as_array().unwrap().is_empty());
}

#[tokio::test]
async fn every_answer_names_its_request_and_echoes_version_and_key() {
    let api = Api::start().await;
    let request = api.request(Method::POST, "/v1/customers").secret().form("");
    let request = request.header("stripe-version", "2026-10-28.endive");
    let answer = request.header("idempotency-key", "k1").send().await.ok();
    assert_eq!(answer.header("stripe-version"), Some("2026-10-28.endive"));
    assert_eq!(answer.header("idempotency-key"), Some("k1"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for answer in
        [answer, api.get("/v1/nothing").await, api.request(Method::GET, "/v1/account").send().await]
    {
        assert!(answer.header("request-id").unwrap().starts_with("req_"));
    }
    let wrong = api.request(Method::GET, "/v1/account").secret().header("stripe-version", "new");
    assert_eq!(wrong.send().await.status, 400);
}

#[tokio::test]
async fn expand_replaces_ids_and_refuses_other_properties() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let more = format!(
        "&customer={customer}&expand[]=latest_charge.payment_intent&expand[]=customer\
             &expand[]=payment_method"
    );
    let paid = api.pay("pm_card_visa", &more).await.ok();
    assert_eq!(paid.at("latest_charge.amount_captured"), 500);
    assert_eq!(paid.at("latest_charge.payment_intent.status"), "succeeded");
    assert_eq!(paid.at("customer.object"), "customer");
    assert_eq!(paid.at("payment_method.card.brand"), "visa");
    let list = api.get("/v1/payment_intents?expand[]=data.latest_charge").await.ok();
    assert_eq!(list.at("data.0.latest_charge.object"), "charge");
    for path in ["amount", "latest_charge.amount", "data.latest_charge", "a.b.c.d.e"] {
        let path = format!("/v1/payment_intents/{}?expand[]={path}", paid.text("id"));
        api.get(&path).await.is_invalid("", "expand");
    }
}
