//! The same without Botdeck: polls, asks the provider as a stream, sends the answer. Keeps nothing, limits nothing, survives
//! nothing. Users run side by side, the messages of one in order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

#[derive(Clone, clap::Args)]
pub struct Settings {
    #[arg(long)]
    pub telegram: String,
    #[arg(long)]
    pub token: String,
    #[arg(long)]
    pub provider: String,
    #[arg(long)]
    pub key: String,
    #[arg(long)]
    pub model: String,
}

struct Loop {
    http: reqwest::Client,
    settings: Settings,
}

pub async fn answer_for_ever(settings: Settings) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
    let this = Arc::new(Loop { http, settings });
    let mut lanes: HashMap<i64, mpsc::UnboundedSender<String>> = HashMap::new();
    let mut offset = 0;
    loop {
        let params = json!({"offset": offset, "timeout": 25, "allowed_updates": ["message"]});
        let updates = this.telegram("getUpdates", params).await?;
        for update in updates.as_array().into_iter().flatten() {
            offset = update["update_id"].as_i64().context("no update_id")? + 1;
            let message = &update["message"];
            let (Some(chat), Some(text)) = (message["chat"]["id"].as_i64(), message["text"].as_str()) else {
                continue;
            };
            let lane = lanes.entry(chat).or_insert_with(|| {
                let (lane, questions) = mpsc::unbounded_channel();
                tokio::spawn(Arc::clone(&this).work(chat, questions));
                lane
            });
            let _ = lane.send(text.to_owned());
        }
    }
}

impl Loop {
    async fn work(self: Arc<Self>, chat: i64, mut questions: mpsc::UnboundedReceiver<String>) {
        while let Some(question) = questions.recv().await {
            if let Err(error) = self.answer(chat, &question).await {
                eprintln!("the bare loop failed: {error:#}");
                std::process::exit(1);
            }
        }
    }

    async fn answer(&self, chat: i64, question: &str) -> anyhow::Result<()> {
        let text = self.ask(question).await?;
        self.telegram("sendMessage", json!({"chat_id": chat, "text": text}))
            .await?;
        Ok(())
    }

    async fn telegram(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let Settings { telegram, token, .. } = &self.settings;
        let request = self.http.post(format!("{telegram}/bot{token}/{method}"));
        let request = request.json(&params).timeout(Duration::from_secs(35));
        let mut answer: Value = request.send().await?.json().await?;
        if answer["ok"] != true {
            bail!("{method}: {}", answer["description"]);
        }
        Ok(answer["result"].take())
    }

    async fn ask(&self, question: &str) -> anyhow::Result<String> {
        let Settings {
            provider, key, model, ..
        } = &self.settings;
        let body = json!({
            "model": model, "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": question}],
        });
        let request = self.http.post(format!("{provider}/chat/completions"));
        let response = request.bearer_auth(key).json(&body).send().await?.error_for_status()?;
        let mut chunks = response.bytes_stream();
        let (mut text, mut rest) = (String::new(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            rest.extend_from_slice(&chunk?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let Some(event) = line.strip_prefix(b"data: ") else {
                    continue;
                };
                if event.starts_with(b"[DONE]") {
                    return Ok(text);
                }
                let event: Value = serde_json::from_slice(event)?;
                text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
            }
        }
        bail!("the stream ended early")
    }
}
