//! What Stripe and the ledger do not agree about, and money that goes back, as the operator's
//! command does it: on a running server, and on its ledger.

use farebox_ledger::Ledger;
use farebox_ledger::store::fund;
use farebox_middleware::usd;
use farebox_protocol::{PayerId, Payment, Units};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::operate::{SECRET, farebox, json, server, try_farebox};
use crate::support::{Answer, Bank, DECLINED_CARD, Program, by_card, by_credential, card, get};

type Environment = Vec<(&'static str, String)>;

/// A server on a ledger in a file, its operator, and a payer who paid 5 dollars.
struct House {
    bank: Bank,
    program: Program,
    operator: Environment,
    http: reqwest::Client,
    credential: String,
    payer: String,
    ledger: String,
    _folder: TempDir,
}

impl House {
    async fn open() -> House {
        let bank = Bank::open().await;
        let folder = tempfile::tempdir().unwrap();
        let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
        let (program, operator) = server(&bank, &ledger).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let joke = format!("{}/api/joke", program.url);
        let paid = get(&http, &joke, &by_card(&bank.method(&card(1)).await)).await.unwrap();
        let credential = paid.credential();
        let payer = credential[..64].to_owned();
        House { bank, program, operator, http, credential, payer, ledger, _folder: folder }
    }

    /// Asks for more credit than there is, with another card.
    async fn top_up(&self, number: &str, min_credit: i64) -> Answer {
        let client_id = by_credential(&self.credential).client_id;
        let by_card = by_card(&self.bank.method(number).await);
        let payment = Payment { client_id, min_credit: Units::new(min_credit), ..by_card };
        get(&self.http, &format!("{}/api/joke", self.program.url), &payment).await.unwrap()
    }

    /// A POST to Stripe, as the merchant's own programs or its dashboard send it.
    async fn at_stripe(&self, path: &str, form: &str) -> String {
        let [(_, secret), ..] = self.bank.environment();
        let request = self.http.post(format!("{}/v1/{path}", self.bank.url())).bearer_auth(secret);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(form.to_owned()).send().await.unwrap().text().await.unwrap();
        let answer = json(&answer);
        answer["id"].as_str().unwrap_or_else(|| panic!("{path}: {answer}")).to_owned()
    }

    /// A charge of which the server knows nothing; in cents.
    async fn charge(&self, payer: &str, number: u64, amount: u32) -> String {
        let method = self.bank.method(&card(7)).await;
        let form = format!(
            "amount={amount}&currency=usd&confirm=true&payment_method={method}\
             &allowed_payment_method_types[]=card&metadata[farebox]=1&metadata[payer]={payer}\
             &metadata[top_up]=tu_{payer}_usd_{number}"
        );
        self.at_stripe("payment_intents", &form).await
    }

    async fn sheet(&self) -> Value {
        json(&farebox(&self.operator, &format!("account show {} --json", self.payer)).await)
    }

    /// What the payer has, in micros.
    async fn available(&self) -> i64 {
        self.sheet().await["accounts"][0]["available"].as_i64().unwrap()
    }

    async fn frozen(&self) -> Vec<String> {
        serde_json::from_value(self.sheet().await["frozen"].take()).unwrap()
    }

    /// How a command ended, and what it said.
    async fn says(&self, line: &str) -> (i32, String) {
        ended(&self.operator, line).await
    }
}

async fn ended(environment: &[(&str, String)], line: &str) -> (i32, String) {
    let output = try_farebox(environment, line).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_charge_that_the_ledger_lacks_is_booked_unless_it_is_only_to_be_told() {
    let house = House::open().await;
    let (status, said) = house.says("reconcile").await;
    assert!(status == 0 && said.contains("1 charges at Stripe, 1 top-ups"), "{said}");
    // The card is declined, and then it pays under the same number all the same.
    house.top_up(DECLINED_CARD, 60_000).await;
    let statement = farebox(&house.operator, &format!("account statement {}", house.payer)).await;
    assert!(statement.contains("top-up 2, card_declined"), "{statement}");
    let before = house.available().await;
    let intent = house.charge(&house.payer, 2, 700).await;

    let (status, said) = house.says("reconcile --dry-run").await;
    assert_eq!(status, 4, "{said}");
    for told in [intent.as_str(), "7.00", "received", "not changed (--dry-run)"] {
        assert!(said.contains(told), "{told} is not in {said}");
    }
    assert_eq!(house.available().await, before);
    let (status, said) = house.says("reconcile --since 24h").await;
    assert!(status == 0 && said.contains("booked"), "{status}: {said}");
    assert_eq!((house.available().await, house.frozen().await), (before + 7_000_000, vec![]));
    let (status, said) = house.says("reconcile --json").await;
    let told = json(&said);
    assert_eq!((status, &told["differences"], &told["unread"]), (0, &json!([]), &json!([])));
    assert_eq!(json(&farebox(&house.operator, "audit").await)["clean"], true);
}

#[tokio::test]
async fn money_that_has_no_place_freezes_its_payer_until_it_was_given_back() {
    let house = House::open().await;
    let stranger = "7".repeat(64);
    let intent = house.charge(&house.payer, 9, 800).await;
    let foreign = house.charge(&stranger, 1, 900).await;
    let (status, said) = house.says("reconcile --dry-run").await;
    assert!(status == 4 && said.contains(&intent), "{said}");
    assert_eq!(house.frozen().await, Vec::<String>::new());

    let (status, said) = house.says("reconcile").await;
    assert_eq!(status, 4, "{said}");
    let line = |intent: &str| said.lines().find(|line| line.contains(intent)).unwrap().to_owned();
    assert!(line(&intent).contains("payer frozen"), "{said}");
    assert!(line(&foreign).contains("no payer of this ledger"), "{said}");
    let reason = format!("unbooked_{intent}");
    assert_eq!((house.frozen().await, house.available().await), (vec![reason], 4_990_000));
    let shown = farebox(&house.operator, &format!("account show {}", house.payer)).await;
    assert!(shown.contains("a card paid, with no place here"), "{shown}");
    assert_eq!(house.says(&format!("account show {stranger}")).await.0, 1, "no book was made");

    house.at_stripe("refunds", &format!("payment_intent={intent}")).await;
    house.at_stripe("refunds", &format!("payment_intent={foreign}")).await;
    let (status, said) = house.says("reconcile").await;
    assert!(status == 0 && said.contains("agree"), "{status}: {said}");
    assert_eq!(house.frozen().await, Vec::<String>::new());
}

#[tokio::test]
async fn credit_that_no_charge_paid_freezes_its_payer_also_without_a_server() {
    let House { bank, program, payer, ledger, _folder, .. } = House::open().await;
    program.terminate().await;
    assert!(program.end().await.success());
    let id: PayerId = payer.parse().unwrap();
    let (books, _) = Ledger::open_existing(&ledger).await.unwrap();
    fund(&books, &id, usd!("3")).await.unwrap();
    drop(books);
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_SECRET", SECRET.to_owned()));
    environment.push(("FAREBOX_LEDGER", ledger));
    let frozen = async || {
        let sheet = farebox(&environment, &format!("account show {payer} --json")).await;
        json(&sheet)["frozen"].clone()
    };

    let (status, said) = ended(&environment, "reconcile --dry-run").await;
    assert!(status == 4 && said.contains("not at Stripe"), "{said}");
    assert_eq!(frozen().await, json!([]));
    let (status, said) = ended(&environment, "reconcile").await;
    assert!(status == 4 && said.contains("payer frozen"), "{said}");
    assert_eq!(frozen().await, json!(["unpaid_pi_test_2"]));

    // What Stripe does know goes back all the same.
    let line = format!("account refund {payer} --top-up 1 --amount 4.50 --yes");
    let (status, said) = ended(&environment, &line).await;
    assert!(status == 0 && said.contains("The payer has 3.49 usd left."), "{status}: {said}");
    assert_eq!(bank.sandbox().refunds()[0].amount, 450);
    let (status, said) =
        ended(&environment, &format!("account refund {payer} --top-up 7 --yes")).await;
    assert!(status == 1 && said.contains("no such charge"), "{said}");
    let audit = json(&farebox(&environment, "audit").await);
    assert_eq!((&audit["clean"], &audit["open"]), (&json!(true), &json!(0)));
}

#[tokio::test]
async fn the_newest_charge_goes_back_first_and_never_more_than_is_unspent() {
    let house = House::open().await;
    assert!(house.top_up(&card(2), 60_000).await.is_served());
    assert_eq!(house.available().await, 9_980_000);
    let refund = format!("account refund {}", house.payer);
    let (status, said) = house.says(&format!("{refund} --amount 9.99 --yes")).await;
    assert!(status == 1 && said.contains("only 9.98 usd can be given back"), "{said}");
    let (status, said) = house.says(&refund).await;
    assert!(status == 1 && said.contains("--yes"), "{said}");
    assert!(house.bank.sandbox().refunds().is_empty());

    let said = farebox(&house.operator, &format!("{refund} --amount 6 --yes")).await;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(
        &lines[1..3],
        ["2    5.00  usd  given back", "1    1.00  usd  given back"],
        "{said}"
    );
    assert!(said.contains("6.00 usd is given back. The payer has 3.98 usd left."), "{said}");
    let said = farebox(&house.operator, &format!("{refund} --yes --json")).await;
    let told = json(&said);
    assert_eq!((&told["available"], told["parts"].as_array().unwrap().len()), (&json!(0), 1));
    let cards: Vec<i64> =
        house.bank.sandbox().refunds().iter().rev().map(|refund| refund.amount).collect();
    assert_eq!(cards.iter().sum::<i64>(), 998, "{cards:?}");
    let (status, said) = house.says(&format!("{refund} --yes")).await;
    assert!(status == 1 && said.contains("nothing to give back"), "{said}");
    // Nothing is left to be booked.
    assert_eq!(house.says("reconcile --dry-run").await.0, 0);
}

#[tokio::test]
async fn refunds_and_disputes_made_elsewhere_are_booked() {
    let house = House::open().await;
    let intent = house.bank.charges()[0].id.clone();
    house.at_stripe("refunds", &format!("payment_intent={intent}&amount=120")).await;
    let (status, said) = house.says("reconcile").await;
    let booked = said.lines().find(|line| line.contains(&intent)).unwrap_or_default();
    assert!(status == 0 && booked.contains("refunded") && booked.contains("3.80"), "{said}");
    assert_eq!(house.available().await, 3_790_000);

    // Stripe refuses to refund what is disputed, so it is credit again, less the dispute.
    let dispute = house.bank.sandbox().dispute_part(&intent, 100).unwrap();
    let (status, said) = house.says(&format!("account refund {} --yes", house.payer)).await;
    assert!(status == 4 && said.contains("refused by Stripe"), "{status}: {said}");
    assert_eq!(house.available().await, 2_790_000);
    assert_eq!(house.says("reconcile").await.0, 0);
    assert_eq!(house.frozen().await, std::slice::from_ref(&dispute));
    let shown = farebox(&house.operator, &format!("account show {}", house.payer)).await;
    assert!(shown.contains("a dispute: winning it lifts this"), "{shown}");
    house.bank.sandbox().win(&dispute).unwrap();
    let (status, said) = house.says("reconcile").await;
    assert!(status == 0 && said.contains("withdrawn"), "{status}: {said}");
    assert_eq!((house.available().await, house.frozen().await), (3_790_000, vec![]));
}
