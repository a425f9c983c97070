//! Pages, filters and their order.

use crate::support::{Answer, Api, NOW, PAYMENT};

fn ids(list: &Answer) -> Vec<String> {
    let data = list.at("data");
    data.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Five intents a minute apart, oldest first; the second and the fourth are the customer's.
async fn five(api: &Api, customer: &str) -> Vec<String> {
    let mut made = Vec::new();
    for at in 0..5 {
        let whose = if at % 2 == 1 { format!("&customer={customer}") } else { String::new() };
        let intent = api.post("/v1/payment_intents", &format!("{PAYMENT}{whose}")).await.ok();
        made.push(intent.text("id"));
        api.advance(60);
    }
    made
}

#[tokio::test]
async fn pages_run_from_new_to_old_and_back() {
    let api = Api::start().await;
    let made = five(&api, &api.customer().await).await;
    let all = api.get("/v1/payment_intents").await.ok();
    assert_eq!((all.at("object"), all.at("url")), ("list".into(), "/v1/payment_intents".into()));
    let newest_first: Vec<_> = made.iter().rev().cloned().collect();
    assert_eq!((ids(&all), all.at("has_more")), (newest_first.clone(), false.into()));

    let first = api.get("/v1/payment_intents?limit=2").await.ok();
    assert_eq!((ids(&first), first.at("has_more")), (newest_first[..2].to_vec(), true.into()));
    let path = format!("/v1/payment_intents?limit=2&starting_after={}", newest_first[1]);
    let second = api.get(&path).await.ok();
    assert_eq!((ids(&second), second.at("has_more")), (newest_first[2..4].to_vec(), true.into()));
    let path = format!("/v1/payment_intents?limit=2&starting_after={}", newest_first[3]);
    let last = api.get(&path).await.ok();
    assert_eq!((ids(&last), last.at("has_more")), (newest_first[4..].to_vec(), false.into()));
    let path = format!("/v1/payment_intents?limit=2&ending_before={}", newest_first[3]);
    let back = api.get(&path).await.ok();
    assert_eq!((ids(&back), back.at("has_more")), (newest_first[1..3].to_vec(), true.into()));
    let path = format!("/v1/payment_intents?limit=2&ending_before={}", newest_first[1]);
    let back = api.get(&path).await.ok();
    assert_eq!((ids(&back), back.at("has_more")), (newest_first[..1].to_vec(), false.into()));
}

#[tokio::test]
async fn lists_are_filtered_by_customer_and_creation() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let made = five(&api, &customer).await;
    let mine = api.get(&format!("/v1/payment_intents?customer={customer}&limit=1")).await.ok();
    assert_eq!((ids(&mine), mine.at("has_more")), (vec![made[3].clone()], true.into()));
    let at = |n: i64| NOW + 60 * n;
    for (query, expected) in [
        (format!("created[gte]={}", at(3)), &made[3..]),
        (format!("created[gt]={}", at(3)), &made[4..]),
        (format!("created[lte]={}", at(1)), &made[..2]),
        (format!("created[lt]={}", at(1)), &made[..1]),
        (format!("created[gte]={}&created[lt]={}", at(1), at(3)), &made[1..3]),
        (format!("created={}", at(2)), &made[2..3]),
    ] {
        let mut found = ids(&api.get(&format!("/v1/payment_intents?{query}")).await.ok());
        found.reverse();
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn bad_pages_are_refused() {
    let api = Api::start().await;
    for (query, code, param) in [
        ("limit=0", "parameter_invalid_integer", "limit"),
        ("limit=101", "parameter_invalid_integer", "limit"),
        ("starting_after=pi_1", "resource_missing", "starting_after"),
        ("ending_before=pi_1", "resource_missing", "ending_before"),
        ("customer=cus_1", "resource_missing", "customer"),
        ("created[after]=1", "parameter_unknown", "created[after]"),
        ("created[gte]=x", "parameter_invalid_integer", "created[gte]"),
    ] {
        api.get(&format!("/v1/payment_intents?{query}")).await.is_invalid(code, param);
    }
    let both = api.get("/v1/payment_intents?starting_after=a&ending_before=b").await;
    both.is_error(400, "invalid_request_error", "parameters_exclusive");
}

#[tokio::test]
async fn a_customers_cards_are_listed_under_it() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let mut cards = Vec::new();
    for alias in ["visa", "mastercard"] {
        let path = format!("/v1/payment_methods/pm_card_{alias}/attach");
        let attached = api.post(&path, &format!("customer={customer}")).await.ok();
        cards.insert(0, attached.text("id"));
    }
    api.card("4242424242424242").await;
    let path = format!("/v1/customers/{customer}/payment_methods");
    let listed = api.get(&format!("{path}?type=card")).await.ok();
    assert_eq!((ids(&listed), listed.text("url")), (cards.clone(), path));
    let listed = api.get(&format!("/v1/payment_methods?customer={customer}")).await.ok();
    assert_eq!(ids(&listed), cards);
}

#[tokio::test]
async fn customers_and_setup_intents_are_listed() {
    let api = Api::start().await;
    let customer = api.post("/v1/customers", "email=a@b.c").await.ok().text("id");
    api.customer().await;
    assert_eq!(
        ids(&api.get("/v1/customers?email=a@b.c").await.ok()),
        std::slice::from_ref(&customer)
    );
    let form = format!("customer={customer}&payment_method=pm_card_visa");
    let intent = api.post("/v1/setup_intents", &form).await.ok();
    api.post("/v1/setup_intents", "").await.ok();
    for query in [
        format!("customer={customer}"),
        format!("payment_method={}", intent.text("payment_method")),
    ] {
        let listed = api.get(&format!("/v1/setup_intents?{query}")).await.ok();
        assert_eq!(ids(&listed), [intent.text("id")]);
    }
}

#[tokio::test]
async fn customers_are_found_by_what_they_are_searched_for() {
    let api = Api::start().await;
    let new = async |form: &str| api.post("/v1/customers", form).await.ok().text("id");
    let ann = new("name=Ann&email=ann@a.example&metadata[payer]=p1&metadata[x]=it's").await;
    let bob = new("name=Bob&email=bob@b.example&metadata[payer]=p2").await;
    let search = async |query: &str| {
        let query = form_urlencoded::byte_serialize(query.as_bytes()).collect::<String>();
        api.get(&format!("/v1/customers/search?query={query}")).await
    };
    let found = search("metadata['payer']:'p1'").await.ok();
    assert_eq!((found.at("object"), ids(&found)), ("search_result".into(), vec![ann.clone()]));
    assert_eq!(ids(&search(r#"metadata["payer"]:"p2""#).await.ok()), [bob.as_str()]);
    assert_eq!(ids(&search(r"metadata['x']:'it\'s' AND name:'Ann'").await.ok()), [ann.as_str()]);
    assert_eq!(ids(&search("email~'EXAMPLE' AND -name:'Ann'").await.ok()), [bob]);
    assert!(ids(&search("metadata['payer']:'p3'").await.ok()).is_empty());
    for malformed in ["", "name", "name:Ann", "name:'Ann", "name:'Ann' OR name:'Bob'", "phone:'1'"]
    {
        let refused = search(malformed).await;
        assert_eq!(refused.status, 400, "{malformed}");
    }
    let page = api.get("/v1/customers/search?query=email~%27example%27&limit=1").await.ok();
    assert_eq!((ids(&page).len(), page.at("has_more")), (1, true.into()));
}
