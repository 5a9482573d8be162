use chrono::{DateTime, TimeDelta, Utc};
use domain::{ConversationId, JobId, MessageId, views::Author};
use repositories::{
    messages::{self, NewMessage},
    people,
};
use uuid::Uuid;

use crate::{database::TestDatabase, fixtures};

struct Talk {
    test: TestDatabase,
    conversation: ConversationId,
    start: DateTime<Utc>,
}

impl Talk {
    async fn new() -> Self {
        let test = TestDatabase::new().await;
        let start = test.now().await.unwrap();
        let anna = fixtures::meet(&mut test.acquire().await.unwrap(), 7, start).await;
        Self {
            test,
            conversation: anna.conversation,
            start,
        }
    }

    async fn keep(&self, second: i64, author: Author, text: &str, tokens: i32, in_context: bool) {
        let message = NewMessage {
            id: MessageId(Uuid::now_v7()),
            at: self.start + TimeDelta::seconds(second),
            author,
            user: None,
            text,
            tokens,
            in_context,
            error_code: None,
            error_cause: None,
        };
        let job = JobId(Uuid::now_v7());
        let mut db = self.test.acquire().await.unwrap();
        messages::insert(&mut db, self.conversation, job, &[message])
            .await
            .unwrap();
    }

    async fn seen(&self, tokens: i64, limit: i64) -> Vec<String> {
        let mut db = self.test.acquire().await.unwrap();
        let history = messages::history(&mut db, self.conversation, tokens, 0, limit, None)
            .await
            .unwrap();
        history.into_iter().map(|message| message.text).collect()
    }
}

#[tokio::test]
async fn the_model_sees_the_newest_that_fit_oldest_first() {
    let talk = Talk::new().await;
    for second in 1..=5 {
        talk.keep(second, Author::User, &format!("message {second}"), 10, true)
            .await;
    }
    assert_eq!(
        talk.seen(50, 100).await,
        ["message 1", "message 2", "message 3", "message 4", "message 5"]
    );
    assert_eq!(talk.seen(39, 100).await, ["message 3", "message 4", "message 5"]);
    assert_eq!(talk.seen(1000, 2).await, ["message 4", "message 5"]);
    assert!(talk.seen(9, 100).await.is_empty());
    // One that does not fit ends it, even if an older, shorter one would.
    talk.keep(6, Author::Bot, "long", 35, true).await;
    talk.keep(7, Author::User, "last", 1, true).await;
    assert_eq!(talk.seen(30, 100).await, ["last"]);
}

#[tokio::test]
async fn a_history_begins_with_a_question_and_holds_whole_exchanges() {
    let talk = Talk::new().await;
    for round in 0..4 {
        talk.keep(2 * round, Author::User, &format!("question {round}"), 10, true)
            .await;
        talk.keep(2 * round + 1, Author::Bot, &format!("answer {round}"), 10, true)
            .await;
    }
    let whole = ["question 2", "answer 2", "question 3", "answer 3"];
    // Cut by size or by number, between exchanges or in the middle of one.
    for (tokens, limit) in [(40, 100), (59, 100), (1000, 4), (1000, 5)] {
        assert_eq!(
            talk.seen(tokens, limit).await,
            whole,
            "{tokens} tokens, {limit} messages"
        );
    }
    assert!(talk.seen(10, 100).await.is_empty());
}

/// The clocks of replicas differ; what was said later must not be shown earlier.
#[tokio::test]
async fn messages_stay_in_the_order_in_which_they_were_kept() {
    let talk = Talk::new().await;
    let clocks = [30, 1, 2, 33, 3];
    for (number, second) in clocks.into_iter().enumerate() {
        talk.keep(second, Author::User, &format!("message {number}"), 10, true)
            .await;
    }
    let all = talk.seen(1000, 100).await;
    assert_eq!(all, ["message 0", "message 1", "message 2", "message 3", "message 4"]);
    assert_eq!(talk.seen(1000, 2).await, ["message 3", "message 4"]);
    // No further than needed: as soon as a clock is ahead of all that was kept, it is believed.
    let ahead =
        "messages WHERE created_at > (SELECT started_at FROM conversations) + interval '33 seconds 1 millisecond'";
    assert_eq!(talk.test.count(ahead).await, 0);
}

#[tokio::test]
async fn refusals_and_commands_are_kept_but_not_shown_to_the_model() {
    let talk = Talk::new().await;
    talk.keep(1, Author::User, "question", 1, true).await;
    talk.keep(2, Author::Bot, "answer", 1, true).await;
    talk.keep(3, Author::User, "/usage", 1000, false).await;
    talk.keep(4, Author::Bot, "you used…", 1000, false).await;
    assert_eq!(talk.seen(10, 2).await, ["question", "answer"]);
    let (transcript, more) = messages::transcript(&mut talk.test.acquire().await.unwrap(), talk.conversation, None, 10)
        .await
        .unwrap()
        .unwrap();
    let texts: Vec<&str> = transcript
        .messages
        .iter()
        .map(|message| message.text.as_str())
        .collect();
    assert_eq!(texts, ["question", "answer", "/usage", "you used…"]);
    assert!(!more);
}

#[tokio::test]
async fn nul_in_a_text_is_left_out_and_the_rest_kept() {
    let talk = Talk::new().await;
    talk.keep(1, Author::User, "a\0b\0", 1, true).await;
    assert_eq!(talk.seen(10, 10).await, ["ab"]);
}

#[tokio::test]
async fn a_renewed_conversation_is_empty_and_keeps_the_model() {
    let talk = Talk::new().await;
    let mut db = talk.test.acquire().await.unwrap();
    people::set_model(&mut db, talk.conversation, "gpt-x").await.unwrap();
    talk.keep(1, Author::User, "before", 1, true).await;
    let later = talk.start + TimeDelta::seconds(5);
    people::renew(&mut db, talk.conversation, later).await.unwrap();
    // A job that is run again renews once.
    people::renew(&mut db, talk.conversation, later).await.unwrap();
    let now = fixtures::meet(&mut db, 7, later).await;
    assert_ne!(now.conversation, talk.conversation);
    assert_eq!(now.model.as_deref(), Some("gpt-x"));
    assert!(
        messages::history(&mut db, now.conversation, 1000, 0, 100, None)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(talk.test.count("conversations").await, 2);
    let ended: DateTime<Utc> = talk
        .test
        .one("SELECT ended_at FROM conversations WHERE ended_at IS NOT NULL")
        .await;
    assert_eq!(ended, later);
}
