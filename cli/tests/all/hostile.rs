//! `farebox hostile`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use farebox_protocol::Payment;
use serde_json::Value;

use crate::Place;

/// Pays whatever is asked.
async fn pay_anything(stripe: &str, url: &str) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let method = http
        .post(format!("{stripe}/v1/payment_methods"))
        .bearer_auth("pk_test_farebox_sandbox")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(
            "type=card&card[number]=4242424242424242\
             &card[exp_month]=12&card[exp_year]=2040&card[cvc]=123",
        );
    let method: Value =
        serde_json::from_str(&method.send().await.unwrap().text().await.unwrap()).unwrap();
    let payment_method_id = method["id"].as_str().unwrap().parse().ok();
    let payment = Payment { payment_method_id, ..Payment::default() }.encode();
    assert!(http.get(url).header("payment", payment).send().await.unwrap().status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pays_anything_is_found_out_by_another_program() {
    let place = Place::new();
    let mut command = place.command(&["hostile", "--listen", "127.0.0.1:0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let started: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let list = format!("{}/scenarios", started["url"].as_str().unwrap());
    let list = reqwest::get(list).await.unwrap().text().await.unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["stripe"], started["stripe"]);
    let scenarios = list["scenarios"].as_array().unwrap();
    let dear = scenarios.iter().find(|scenario| scenario["name"] == "dear").unwrap();
    pay_anything(list["stripe"].as_str().unwrap(), dear["url"].as_str().unwrap()).await;

    // A person's Ctrl-C.
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let verdicts: Vec<Value> = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(verdicts.len(), scenarios.len());
    let verdict = verdicts.iter().find(|verdict| verdict["name"] == "dear").unwrap();
    assert_eq!(
        (&verdict["cost"], &verdict["allowed"], &verdict["within"]),
        (&500.into(), &0.into(), &false.into())
    );
    assert_eq!(child.wait().unwrap().code(), Some(4), "something is left to look at");
}
