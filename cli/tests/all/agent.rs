//! The commands of an agent, against a server that charges and a sandbox of Stripe.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use farebox_middleware::{Payments, Stripe};
use farebox_protocol::{ErrorCode, Payment, PaymentRequired, PaymentResponse, Units, usd};
use farebox_sandbox::Sandbox;
use serde_json::{Value, json};

use crate::Ended;

const NUMBER: &str = "4242424242424242";
const CARD: &str = "4242424242424242:11:2047:987";
const DECLINED: &str = "4000000000000002:11:2047:987";
const POLICY: &str = r#"
allow = ["127.0.0.1"]
per_request = "0.05 usd"
per_top_up = "5.00 usd"
per_day = "10.00 usd"
"#;

/// Somebody with an agent, and what it may pay at: Stripe, and a server.
struct Owner {
    folder: tempfile::TempDir,
    sandbox: Sandbox,
    /// The server's address.
    shop: String,
}

impl Owner {
    /// With a policy.
    async fn new() -> Owner {
        let owner = Owner::without_policy().await;
        owner.write("policy.toml", POLICY);
        owner
    }

    async fn without_policy() -> Owner {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("config")).unwrap();
        let sandbox = Sandbox::builder().start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let shop = serve(shop(&sandbox).await).await;
        Owner { folder, sandbox, shop }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.config().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command
            .env("FAREBOX_CONFIG_DIR", self.config())
            .env("FAREBOX_STATE_DIR", self.state())
            .env("STRIPE_API_BASE", self.sandbox.url())
            .env("FAREBOX_CARD", CARD);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.end(self.command(arguments))
    }

    /// Ends a run, whose output may hold neither secrets nor colours.
    fn end(&self, mut command: Command) -> Ended {
        let ended = Ended::from(command.output().unwrap());
        let said = format!("{}{}", ended.output, ended.errors);
        for secret in [NUMBER, self.sandbox.publishable_key(), ":987", "\x1b"] {
            assert!(!said.contains(secret), "{secret}: {said}");
        }
        if let Some(credential) = self.credential() {
            assert!(!said.contains(&credential), "{said}");
        }
        ended
    }

    fn get(&self, arguments: &[&str]) -> Ended {
        let (path, options) = arguments.split_last().unwrap();
        let url = format!("{}{path}", self.shop);
        self.run(&[&["get"], options, &[url.as_str()]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(arguments);
        assert_eq!(ended.status, 0, "{arguments:?}: {}", ended.errors);
        serde_json::from_str(&ended.output).unwrap()
    }

    /// The credential that is kept, whoever gave it.
    fn credential(&self) -> Option<String> {
        let text = fs::read_to_string(self.state().join("agent.json")).ok()?;
        let state: Value = serde_json::from_str(&text).unwrap();
        let known = state["origins"].as_object()?.values().next()?;
        Some(known["credential"].as_str()?.to_owned())
    }
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

async fn shop(sandbox: &Sandbox) -> Router {
    let stripe = Stripe::new(sandbox.secret_key(), sandbox.publishable_key()).unwrap();
    let payments = Payments::builder(stripe.base_url(sandbox.url()).unwrap())
        .ledger("memory:")
        .secret(b"a secret of the tests, 32 bytes long")
        .open()
        .await
        .unwrap();
    let price = |text: &str| {
        payments.price(farebox_protocol::Money::parse(text, usd!("0").currency()).unwrap())
    };
    let echo = |headers: HeaderMap, body: Bytes| async move {
        let kind = headers["content-type"].to_str().unwrap().to_owned();
        ([("x-kind", kind)], body)
    };
    Router::new()
        .route("/joke", get(|| async { "A joke." }).route_layer(price("0.01")))
        .route("/novel", get(|| async { "A novel." }).route_layer(price("0.90")))
        .route("/echo", post(echo).route_layer(price("0.02")))
        .route("/broken", get(|| async { StatusCode::IM_A_TEAPOT }).route_layer(price("0.01")))
        .route("/free", get(|| async { "free" }))
        .route("/bytes", get(|| async { vec![0, 159, 146, 150, 10] }))
        .route("/headers", get(|headers: HeaderMap| async move { headers["x-a"].clone().to_str().unwrap().to_owned() }))
        .nest_service("/account", payments.account_routes())
}

/// A server that offers at a cent, and answers payments as its script says: the payment, and how
/// many came before.
async fn scripted(
    sandbox: &Sandbox,
    script: impl Fn(&Payment, usize) -> Response + Send + Sync + 'static,
) -> String {
    let (key, seen, script) =
        (sandbox.publishable_key().to_owned(), Arc::new(AtomicUsize::new(0)), Arc::new(script));
    let answer = move |request: Request| {
        let payment = request.headers().get("payment");
        let payment = payment.map(|value| Payment::decode(value.as_bytes()).unwrap());
        let answer = match payment {
            Some(payment) => script(&payment, seen.fetch_add(1, Ordering::SeqCst)),
            None => {
                let required = PaymentRequired::stripe("/", usd!("0.01"), usd!("5"), &key);
                let headers = [("payment-required", required.encode())];
                (StatusCode::PAYMENT_REQUIRED, headers, required.to_json()).into_response()
            }
        };
        async move { answer }
    };
    serve(Router::new().fallback(answer)).await
}

fn pending() -> Response {
    let code = ErrorCode::PaymentPending;
    (code.status(), [("retry-after", "1")], PaymentResponse::refused(code).to_json())
        .into_response()
}

fn served() -> Response {
    let told = PaymentResponse {
        charge_id: Some("ch_1".to_owned()),
        credits_remaining: Units::new(49_900).unwrap(),
        client_id: "payer.1.secret".to_owned(),
        charged: Units::new(100),
        currency: Some(usd!("0").currency()),
        ..PaymentResponse::refused(ErrorCode::PaymentPending)
    };
    let told = PaymentResponse { success: true, error: None, error_code: None, ..told };
    ([("payment-response", told.encode())], "served").into_response()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_paid_and_its_body_is_untouched() {
    let owner = Owner::new().await;
    let first = owner.get(&["/joke"]);
    assert_eq!((first.status, first.output.as_str()), (0, "A joke."), "{}", first.errors);
    let paid = format!("cost 0.01 usd, 4.99 usd left at {}; card charged 5.00 usd\n", owner.shop);
    assert_eq!(first.errors, paid);
    let second = owner.get(&["/joke"]);
    assert_eq!(second.errors, format!("cost 0.01 usd, 4.98 usd left at {}\n", owner.shop));
    assert_eq!(owner.sandbox.charges().len(), 1, "the credit is kept from run to run");
    let free = owner.command(&["get", &format!("{}/bytes", owner.shop)]).output().unwrap();
    assert_eq!(free.stdout, [0, 159, 146, 150, 10]);
    assert_eq!(free.stderr, b"", "nothing was paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn method_headers_and_body_are_those_of_the_command_line() {
    let owner = Owner::new().await;
    let text = owner.get(&["-d", "a=b", "/echo"]);
    assert_eq!((text.status, text.output.as_str()), (0, "a=b"), "{}", text.errors);
    fs::write(owner.folder.path().join("body"), "from a file").unwrap();
    let file = owner.get(&[
        "-X",
        "POST",
        "-H",
        "content-type: text/plain",
        "-d",
        "@body",
        "--json",
        "/echo",
    ]);
    let answer: Value = serde_json::from_str(&file.output).unwrap();
    assert_eq!(answer["body"], "from a file");
    assert_eq!(answer["headers"]["x-kind"], json!(["text/plain"]));
    assert_eq!(owner.get(&["-H", "x-a: 1", "/headers"]).output, "1");
    let out = owner.get(&["-o", "out", "/joke"]);
    assert_eq!((out.status, out.output.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(owner.folder.path().join("out")).unwrap(), "A joke.");
    let stdin = owner.folder.path().join("body");
    let mut piped = owner.command(&["get", "-d", "-", &format!("{}/echo", owner.shop)]);
    piped.stdin(fs::File::open(stdin).unwrap());
    assert_eq!(owner.end(piped).output, "from a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_the_answer_the_receipt_and_the_events() {
    let owner = Owner::new().await;
    let url = format!("{}/joke", owner.shop);
    let answer = owner.json(&["get", "--json", &url]);
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("A joke.")));
    assert_eq!(answer["receipt"]["charged"], "0.01 usd");
    assert_eq!(answer["receipt"]["topUp"], "5.00 usd");
    let events: Vec<_> =
        answer["events"].as_array().unwrap().iter().map(|event| event["event"].clone()).collect();
    assert_eq!(events, ["offer_seen", "paying", "topped_up", "spent"]);
    assert!(answer["headers"].get("payment-response").is_none(), "it holds the credential");
    let verbose = owner.get(&["-v", "/joke"]).errors;
    for words in ["> GET /joke\n", "* it cost 0.01 usd; 4.98 usd left\n", "< 200 OK\n"] {
        assert!(verbose.contains(words), "{words}: {verbose}");
    }
    let bytes = owner.json(&["get", "--json", &format!("{}/bytes", owner.shop)]);
    assert_eq!((&bytes["bodyBase64"], &bytes["receipt"]), (&json!("AJ+Slgo="), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ending_has_its_exit_status() {
    let owner = Owner::new().await;
    let dear = owner.get(&["/novel"]);
    assert_eq!((dear.status, dear.output.as_str()), (5, ""));
    assert!(dear.errors.contains("0.90 usd is above the limit per request"), "{}", dear.errors);
    let capped = owner.get(&["--max-price", "0.005", "/joke"]);
    assert_eq!(capped.status, 5, "{}", capped.errors);
    let failed = owner.get(&["--json", "/novel"]);
    let failed_json: Value = serde_json::from_str(&failed.output).unwrap();
    assert_eq!((failed.status, &failed_json["exit"]), (5, &json!(5)));
    assert_eq!(failed_json["refusal"]["refusal"], "above");
    let mut declined = owner.command(&["get", &format!("{}/joke", owner.shop)]);
    declined.env("FAREBOX_CARD", DECLINED);
    assert_eq!(owner.end(declined).status, 9);
    let mut no_card = owner.command(&["get", &format!("{}/joke", owner.shop)]);
    no_card.env_remove("FAREBOX_CARD");
    let no_card = owner.end(no_card);
    assert_eq!(no_card.status, 1);
    assert!(no_card.errors.contains("set FAREBOX_CARD"), "{}", no_card.errors);
    let mut no_stripe = owner.command(&["get", &format!("{}/joke", owner.shop)]);
    no_stripe.env("STRIPE_API_BASE", "http://127.0.0.1:1");
    assert_eq!(owner.end(no_stripe).status, 10);
    assert!(owner.sandbox.charges().is_empty());
    assert_eq!(owner.get(&["/broken"]).status, 22);
    assert_eq!(owner.get(&["/nowhere"]).status, 22);
    assert_eq!(owner.run(&["get", "http://127.0.0.1:1/"]).status, 1);
    assert_eq!(owner.get(&["--max-price", "much", "/joke"]).status, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_charge_is_waited_for_and_paid_once() {
    let owner = Owner::new().await;
    let server = scripted(&owner.sandbox, |_, before| match before {
        0 | 1 => pending(),
        _ => served(),
    })
    .await;
    let served = owner.run(&["get", &server]);
    assert_eq!((served.status, served.output.as_str()), (0, "served"), "{}", served.errors);
    assert!(served.errors.contains("not known yet; waiting\n"), "{}", served.errors);
    let never = scripted(&owner.sandbox, |_, _| pending()).await;
    let unknown = owner.run(&["get", "--wait", "0", &never]);
    assert_eq!(unknown.status, 8, "{}", unknown.errors);
    let listed = owner.json(&["credentials", "list", "--json"]);
    let open: Vec<_> = listed.as_array().unwrap().iter().map(|row| &row["unresolved"]).collect();
    assert!(open.contains(&&json!("5.00 usd")), "{listed}");
    assert_eq!(owner.run(&["credentials", "forget", "--yes", &never]).status, 1);
    let written_off = owner.run(&["credentials", "write-off", &never]);
    assert!(written_off.output.starts_with("5.00 usd at "), "{written_off:?}");
    assert_eq!(owner.run(&["credentials", "write-off", &never]).status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_asked_through_a_service() {
    for (said, status) in [("approved", 0), ("denied", 6), ("pending", 7)] {
        let owner = Owner::new().await;
        let approve = move |request: Request| async move {
            assert_eq!(request.headers()["authorization"], "Bearer a token");
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            match serde_json::from_slice::<Value>(&body) {
                Ok(question) => json!({
                    "id": question["id"], "fingerprint": question["fingerprint"], "status": said,
                })
                .to_string()
                .into_response(),
                Err(_) => (StatusCode::NOT_FOUND, parts.uri.to_string()).into_response(),
            }
        };
        let approver = serve(Router::new().fallback(approve)).await;
        owner.write("policy.toml", &format!("{POLICY}ask_above = \"1.00 usd\"\n"));
        let settings = format!(
            "approver = {{ webhook = {{ url = \"{approver}\", token_env = \"TOKEN\" }} }}\n"
        );
        owner.write("settings.toml", &settings);
        let url = format!("{}/joke", owner.shop);
        let mut command = owner.command(&["get", "--wait", "1", "--key", "a", &url]);
        command.env("TOKEN", "a token");
        let ended = owner.end(command);
        assert_eq!(ended.status, status, "{said}: {}", ended.errors);
        assert!(ended.errors.contains("waiting for the owner's answer to approval"), "{said}");
        assert_eq!(owner.sandbox.charges().len(), usize::from(status == 0), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_pays_nothing() {
    let owner = Owner::new().await;
    let shown = owner.get(&["--dry-run", "/joke"]);
    assert_eq!(shown.status, 0, "{}", shown.errors);
    for words in
        ["price 0.01 usd, top-up 5.00 usd", "limit per day", "\nallowed\n", "Nothing was paid."]
    {
        assert!(shown.output.contains(words), "{words}: {}", shown.output);
    }
    let novel = owner.get(&["--dry-run", "--json", "/novel"]);
    let json: Value = serde_json::from_str(&novel.output).unwrap();
    assert_eq!((novel.status, &json["exit"]), (5, &json!(5)));
    assert_eq!(json["proposals"][0]["explanation"]["decision"], "refuse");
    let free = owner.get(&["--dry-run", "/bytes"]);
    assert!(free.output.contains("It asks for no payment"), "{}", free.output);
    let post = owner.get(&["--dry-run", "-d", "x", "/echo"]);
    assert_eq!(post.status, 1);
    assert!(post.errors.contains("POST may change something"), "{}", post.errors);
    let paths: Vec<_> = owner.sandbox.calls().iter().map(|call| call.path.clone()).collect();
    assert!(!paths.iter().any(|path| path.contains("payment_methods")), "{paths:?}");
    assert!(owner.sandbox.charges().is_empty());
    let spent = owner.json(&["spend", "--json"]);
    assert_eq!(spent["limits"][0]["used"], "0.00 usd");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_is_paid_and_the_policy_that_would_do_is_shown() {
    let owner = Owner::without_policy().await;
    assert_eq!(owner.get(&["/free"]).status, 0);
    let refused = owner.get(&["/joke"]);
    assert_eq!((refused.status, refused.output.as_str()), (5, ""));
    assert!(owner.sandbox.charges().is_empty());
    let (_, policy) = refused.errors.split_once("such as:\n\n").unwrap();
    assert!(refused.errors.contains("config/policy.toml"), "{}", refused.errors);
    owner.write("policy.toml", policy);
    assert_eq!(owner.get(&["/joke"]).status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_the_owners_alone() {
    let owner = Owner::new().await;
    assert_eq!(owner.get(&["/joke"]).status, 0);
    assert_eq!(mode(&owner.state()), 0o700);
    for entry in fs::read_dir(owner.state()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    owner.write("settings.toml", "guard = false\n");
    let settings = owner.config().join("settings.toml");
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = owner.get(&["/free"]);
    assert_eq!(refused.status, 1);
    assert!(refused.errors.contains(&format!("`chmod 600 {}`", settings.display())), "{refused:?}");
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(owner.get(&["/free"]).status, 0);
    owner.write("settings.toml", &format!("card_env = \"A\"\ntokenizer = {NUMBER}\n"));
    let wrong = owner.get(&["/free"]);
    assert!(wrong.errors.contains("settings.toml: line 2: this cannot be read"), "{wrong:?}");
    owner.write("settings.toml", "");
    let policy = owner.config().join("policy.toml");
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(owner.get(&["/free"]).errors.contains("can be changed by others"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_is_told_in_rows_charts_and_json() {
    let owner = Owner::new().await;
    assert_eq!(owner.run(&["spend"]).output.lines().next(), Some("Nothing was spent."));
    for _ in 0..3 {
        assert_eq!(owner.get(&["/joke"]).status, 0);
    }
    let table = owner.run(&["spend"]).output;
    let row = table.lines().find(|line| line.starts_with(&owner.shop)).unwrap();
    let columns: Vec<_> = row.split_whitespace().skip(1).collect();
    assert_eq!(columns, ["0.03", "usd", "3", "5.00", "4.97"], "{table}");
    let day = table.lines().find(|line| line.starts_with("day ")).unwrap();
    assert!(day.split_whitespace().take(4).eq(["day", "10.00", "5.00", "5.00"]), "{day}");
    for by in ["day", "week", "month", "origin"] {
        let json = owner.json(&["spend", "--by", by, "--since", "30d", "--json"]);
        let rows = json["rows"].as_array().unwrap();
        assert_eq!((rows.len(), &rows[0]["spent"]), (1, &json!("0.03 usd")), "{by}");
        assert_eq!(rows[0]["day"].is_null(), by == "origin");
    }
    let chart = owner.run(&["spend", "--chart", "--by", "month"]).output;
    let bar = chart.lines().nth(1).unwrap();
    assert!(bar.is_ascii() && bar.ends_with("####") && bar.len() <= 80, "{chart}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_shown_only_if_asked_for_and_forgotten_only_if_confirmed() {
    let owner = Owner::new().await;
    assert_eq!(owner.get(&["/joke"]).status, 0);
    let credential = owner.credential().unwrap();
    let listed = owner.run(&["credentials", "list"]).output;
    assert!(listed.contains(&owner.shop) && listed.contains("4.99 usd"), "{listed}");
    let end = &owner.sandbox.publishable_key()[owner.sandbox.publishable_key().len() - 4..];
    assert!(listed.contains(&format!("...{end}")), "{listed}");
    let shown = owner.command(&["credentials", "list", "--show"]).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains(&credential));

    let account = format!("{}/account", owner.shop);
    let payment = Payment { client_id: Some(credential.parse().unwrap()), ..Payment::default() };
    let issue = reqwest::Client::builder().no_proxy().build().unwrap();
    let issued = issue.post(format!("{account}/credentials")).header("payment", payment.encode());
    assert_eq!(issued.body(r#"{"label":"crawler"}"#).send().await.unwrap().status(), 201);
    let further = owner.run(&["credentials", "revoke", &account]);
    assert!(further.output.contains("crawler"), "{further:?}");
    assert_eq!(
        owner.run(&["credentials", "revoke", &account, "1"]).output,
        "Credential 1 is revoked.\n"
    );
    assert!(owner.run(&["credentials", "revoke", &account]).output.starts_with("No further"));
    let clear = owner.run(&["credentials", "revoke", "http://example.com/account", "1"]);
    assert!(clear.errors.contains("in the clear"), "{clear:?}");

    let unasked = owner.run(&["credentials", "forget", &owner.shop]);
    assert_eq!(unasked.status, 1);
    assert!(unasked.errors.contains("--yes"));
    assert!(owner.credential().is_some());
    assert_eq!(owner.run(&["credentials", "forget-key", &owner.shop]).status, 0);
    assert_eq!(owner.run(&["credentials", "forget", "--yes", &owner.shop]).status, 0);
    assert_eq!(owner.credential(), None);
    assert_eq!(owner.run(&["credentials", "forget", "--yes", &owner.shop]).status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_checked_before_an_agent_lives_by_it() {
    let owner = Owner::new().await;
    let file = owner.config().join("policy.toml");
    let check = |arguments: &[&str]| {
        owner.run(&[&["policy", "check", file.to_str().unwrap()], arguments].concat())
    };
    let plain = check(&["--strict"]);
    assert_eq!(plain.status, 0, "{}", plain.output);
    assert!(plain.output.contains("at most, from the card in a day"), "{}", plain.output);
    let asked = ["--url", "http://127.0.0.1:9/x", "--price"];
    assert_eq!(check(&[&asked[..], &["0.05"]].concat()).status, 0);
    let dear = check(&[&asked[..], &["0.06"]].concat());
    assert_eq!(dear.status, 5);
    assert!(dear.output.contains("refused: 0.06 usd is above"), "{}", dear.output);
    let json = check(&[&asked[..], &["0.01", "--top-up", "6", "--json"]].concat());
    let json: Value = serde_json::from_str(&json.output).unwrap();
    assert_eq!(
        (&json["valid"], &json["explanation"]["decision"]),
        (&json!(true), &json!("refuse"))
    );

    owner.write("policy.toml", "allow = []\n");
    assert_eq!(check(&[]).status, 0);
    let strict = check(&["--strict"]);
    assert_eq!(strict.status, 4);
    assert!(strict.output.contains("warning: no host is allowed"), "{}", strict.output);
    owner.write("policy.toml", "allow = []\nper_dya = \"5.00 usd\"\n");
    let wrong = check(&[]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.errors.contains("line 2:"), "{}", wrong.errors);
    assert!(wrong.errors.contains("did you mean `per_day`?"), "{}", wrong.errors);
    let json = check(&["--json"]);
    let told: Value = serde_json::from_str(&json.output).unwrap();
    assert_eq!((json.status, &told["valid"], &told["line"]), (1, &json!(false), &json!(2)));

    let example = owner.run(&["policy", "example"]).output;
    owner.write("policy.toml", &example);
    assert_eq!(check(&["--strict"]).status, 0);
}
