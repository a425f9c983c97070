use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farebox_client::{
    Agent, Answer, ApprovalId, Approver, ApproverError, MaxPrice, PaymentError, PaymentKey,
    Question, Reason, usd,
};

use crate::support::{Server, agent, client, failure, held, honest, policy, tokenizer};

/// An owner who answers as the script says, and remembers what was asked.
#[derive(Clone)]
struct Owner {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl Owner {
    /// Gives these answers one after the other, and then the last one again and again.
    fn answering(answers: &[Answer]) -> Owner {
        Owner { answers: Arc::new(Mutex::new(answers.to_vec())), asked: Arc::default() }
    }

    fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<ApprovalId> {
        let mut ids: Vec<_> = self.asked().iter().map(|question| question.id).collect();
        ids.dedup();
        ids
    }
}

impl Approver for Owner {
    async fn ask(&self, question: &Question) -> Result<Answer, ApproverError> {
        self.asked.lock().unwrap().push(question.clone());
        let mut answers = self.answers.lock().unwrap();
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0] })
    }
}

fn asking(stripe: &Server, owner: &Owner) -> Agent {
    let agent = agent(policy().ask_above(usd!("4")), stripe).approver(owner.clone());
    agent.approval_timeout(Duration::ZERO)
}

#[tokio::test]
async fn a_payment_above_the_threshold_is_made_once_its_owner_says_yes() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let owner = Owner::answering(&[Answer::Pending, Answer::Approved]);
    let agent = asking(&stripe, &owner).approval_timeout(Duration::from_secs(20));
    let http = client(&agent);
    let response = http.get(server.url("/joke?lang=en")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "served");
    assert_eq!((provider.charges(), held(&agent).await), (1, usd!("5")));

    let asked = owner.asked();
    assert_eq!((asked.len(), owner.ids().len()), (2, 1), "one question, looked at twice");
    let question = &asked[0];
    assert_eq!((question.price, question.top_up), (usd!("0.01"), Some(usd!("5"))));
    assert_eq!((question.path.as_str(), question.method.as_str()), ("/joke?lang=en", "GET"));
    // What is paid from credit stays below the threshold.
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(owner.asked().len(), 2);
}

#[tokio::test]
async fn a_no_costs_nothing_and_is_not_asked_again_by_the_same_call() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let owner = Owner::answering(&[Answer::Denied]);
    let agent = asking(&stripe, &owner);
    let http = client(&agent);
    let mut extensions = http::Extensions::new();
    for _ in 0..3 {
        let request = http.get(server.url("/joke")).build().unwrap();
        let result = http.execute_with_extensions(request, &mut extensions).await;
        assert!(matches!(failure(&result), PaymentError::ApprovalDenied), "{result:?}");
    }
    assert_eq!((owner.asked().len(), provider.charges(), stripe.seen().len()), (1, 0, 0));
    assert_eq!(held(&agent).await, usd!("0"));
}

#[tokio::test]
async fn a_pending_answer_is_never_a_yes_and_the_question_survives_a_restart() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let owner = Owner::answering(&[Answer::Pending]);
    let call = |agent: &Agent| {
        let request = client(agent).get(server.url("/joke"));
        request.with_extension(PaymentKey::new("task-17").unwrap()).send()
    };
    let first = asking(&stripe, &owner).state(&path).unwrap();
    let result = call(&first).await;
    let PaymentError::ApprovalPending { id, .. } = failure(&result) else { panic!("{result:?}") };
    assert_eq!((provider.charges(), held(&first).await), (0, usd!("0")));
    drop(first);

    // Another process: the same question, with the same time, then a yes.
    let later = Owner::answering(&[Answer::Approved]);
    let second = asking(&stripe, &later).clock(|| crate::support::NOW + 60).state(&path).unwrap();
    call(&second).await.unwrap();
    assert_eq!(later.asked()[0], owner.asked()[0]);
    assert_eq!((later.ids(), provider.charges()), (vec![*id], 1));

    // The yes was for one payment. Another call is another question.
    provider.balance.store(0, Ordering::SeqCst);
    let denies = Owner::answering(&[Answer::Denied]);
    let third = asking(&stripe, &denies).state(&path).unwrap();
    let result = client(&third).get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::ApprovalDenied));
    assert_ne!(denies.ids(), later.ids());
}

#[tokio::test]
async fn a_yes_that_came_before_a_crash_is_not_asked_for_again() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let key = PaymentKey::new("task-17").unwrap();
    // The tokenizer is down after the owner agreed.
    let down = Server::start(|_| crate::support::answer(http::StatusCode::BAD_GATEWAY, "")).await;
    let owner = Owner::answering(&[Answer::Approved]);
    let first = asking(&down, &owner).state(&path).unwrap();
    let result = client(&first).get(server.url("/joke")).with_extension(key.clone()).send().await;
    assert!(matches!(failure(&result), PaymentError::TokenizerUnavailable));
    drop(first);
    let asleep = Owner::answering(&[Answer::Denied]);
    let second = asking(&stripe, &asleep).state(&path).unwrap();
    client(&second).get(server.url("/joke")).with_extension(key).send().await.unwrap();
    assert_eq!((asleep.asked().len(), provider.charges()), (0, 1));
}

#[tokio::test]
async fn a_yes_to_one_price_is_no_yes_to_another() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let owner = Owner::answering(&[Answer::Approved, Answer::Denied]);
    let agent = agent(policy().ask_above(usd!("0.005")), &stripe).approver(owner.clone());
    let http = client(&agent);
    let key = PaymentKey::new("task-17").unwrap();
    http.get(server.url("/joke")).with_extension(key.clone()).send().await.unwrap();
    provider.price.store(200, Ordering::SeqCst);
    let result = http.get(server.url("/joke")).with_extension(key).send().await;
    assert!(matches!(failure(&result), PaymentError::ApprovalDenied), "{result:?}");
    let asked = owner.asked();
    assert_eq!((asked[0].price, asked[1].price), (usd!("0.01"), usd!("0.02")));
    assert_eq!((asked[0].top_up, asked[1].top_up), (Some(usd!("5")), None), "there is credit");
}

#[tokio::test]
async fn without_an_approver_what_needs_one_is_refused() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy().ask_above(usd!("4")), &stripe);
    let result = client(&agent).get(server.url("/joke")).send().await;
    let PaymentError::Refused(Reason::NobodyToAsk(_)) = failure(&result) else {
        panic!("{result:?}")
    };
    assert_eq!((provider.charges(), stripe.seen().len()), (0, 0));
}

#[tokio::test]
async fn a_yes_does_not_lift_a_limit() {
    let (provider, server) = honest(300).await;
    let stripe = tokenizer().await;
    let owner = Owner::answering(&[Answer::Approved]);
    let agent = asking(&stripe, &owner);
    let http = client(&agent);
    let dear = http.get(server.url("/joke")).with_extension(MaxPrice(usd!("0.02"))).send().await;
    assert!(matches!(failure(&dear), PaymentError::Refused(Reason::MaxPrice { .. })));
    assert_eq!(owner.asked().len(), 0);
    for _ in 0..2 {
        http.get(server.url("/joke")).send().await.unwrap();
        provider.balance.store(0, Ordering::SeqCst);
    }
    let result = http.get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::Refused(Reason::Policy(_))), "{result:?}");
    assert_eq!((provider.charges(), owner.asked().len()), (2, 2));
}

/// Changes the price between the question and the payment.
struct Raises(Arc<AtomicUsize>, Arc<crate::support::Honest>);

impl Approver for Raises {
    async fn ask(&self, _: &Question) -> Result<Answer, ApproverError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.price.store(400, Ordering::SeqCst);
        Ok(Answer::Approved)
    }
}

#[tokio::test]
async fn a_price_that_rises_while_the_owner_thinks_is_not_paid_with_that_yes() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let raises = Raises(Arc::clone(&asked), Arc::clone(&provider));
    let agent = agent(policy().ask_above(usd!("4")), &stripe).approver(raises);
    let result = client(&agent).get(server.url("/joke")).send().await;
    assert!(result.is_err(), "{result:?}");
    assert_eq!((provider.charges(), asked.load(Ordering::SeqCst)), (0, 1));
    assert_eq!(held(&agent).await, usd!("0"));
}
