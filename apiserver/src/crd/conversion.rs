//! Objects in other versions: by rules, or by asking a definition's webhook.
//!
//! `apiextensions-apiserver/pkg/apiserver/conversion`. Kubernetes asks for one object at a time where it reads the store;
//! here a list, or what a watch has gathered, is one question.

use std::sync::{Arc, Weak};
use std::time::Duration;

use minik8s_api::custom::conversion::{WebhookConversion, accept};
use minik8s_api::kinds::{Kind, convert};
use minik8s_api::status::{Status, StatusReason};
use minik8s_api::strategy::Strategy;
use parking_lot::Mutex;
use serde_json::Value;

use crate::outgoing::Outgoing;
use crate::outgoing::webhook::{Bounds, WebhookClient};

/// How long a webhook may take for one question.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much is asked at once; a longer list is several questions.
const MAX_ASKED_BYTES: usize = 8 * 1024 * 1024;
/// How long an answer may be.
const MAX_ANSWER_BYTES: usize = 4 * MAX_ASKED_BYTES;

/// A definition's webhook, as long as the definition is served.
type Client = (Weak<WebhookConversion>, Arc<WebhookClient>);

/// Converts objects between the versions of their kind.
pub struct Converter {
    outgoing: Outgoing,
    clients: Mutex<Vec<Client>>,
}

/// Whether the versions of a kind convert by a webhook.
pub fn by_webhook(kind: &Kind) -> Option<&Arc<WebhookConversion>> {
    kind.definition.as_ref()?.conversion.as_ref()
}

impl Converter {
    /// A converter that asks webhooks over `outgoing`.
    pub fn new(outgoing: Outgoing) -> Converter {
        Converter { outgoing, clients: Mutex::default() }
    }

    /// One object; `from` is what it is now.
    pub async fn one(&self, from: &Arc<Kind>, to: &Kind, object: Value) -> Result<Value, Status> {
        let mut converted = self.all(vec![(Arc::clone(from), object)], to).await?;
        converted.pop().ok_or_else(|| Status::internal_error("a conversion lost its object"))
    }

    /// Objects, each beside what it is now, in the version of `to` and in the same order.
    pub async fn all(&self, objects: Vec<(Arc<Kind>, Value)>, to: &Kind) -> Result<Vec<Value>, Status> {
        let Some(webhook) = by_webhook(to) else {
            let converted = objects.into_iter().map(|(from, mut object)| {
                convert(&from, to, &mut object);
                object
            });
            return Ok(converted.collect());
        };
        let mut converted: Vec<Value> = Vec::with_capacity(objects.len());
        let mut asked = Question::default();
        for (from, object) in objects {
            // Of one version already: no question.
            if from.version != to.version {
                asked.add(converted.len(), &from, object.clone());
            }
            converted.push(object);
            if asked.bytes >= MAX_ASKED_BYTES {
                self.ask(webhook, to, std::mem::take(&mut asked), &mut converted).await?;
            }
        }
        self.ask(webhook, to, asked, &mut converted).await?;
        Ok(converted)
    }

    /// Puts the answers where the question says.
    async fn ask(
        &self,
        webhook: &Arc<WebhookConversion>,
        to: &Kind,
        asked: Question,
        converted: &mut [Value],
    ) -> Result<(), Status> {
        let Some(first) = asked.first else { return Ok(()) };
        let failed = |error: String| failure(format!("conversion webhook for {first} {error}"));
        let client = self.client(webhook).map_err(|error| failed(format!("failed: {error}")))?;
        let uid = self.outgoing.random().uuid();
        let review = webhook.review(&uid, &to.api_version(), &asked.objects).map_err(failure)?;
        let bounds = Bounds { timeout: TIMEOUT, answer_bytes: MAX_ANSWER_BYTES };
        let answer = client.post(&self.outgoing, &review.body, bounds).await;
        let answer =
            answer.and_then(|answer| review.read(answer)).map_err(|error| failed(format!("failed: {error}")))?;
        let count = asked.objects.len();
        if answer.len() != count {
            return Err(failed(format!("returned {} objects, expected {count}", answer.len())));
        }
        let answers = asked.objects.iter().zip(answer).enumerate();
        for (index, (original, answer)) in answers {
            let index_told = (count > 1).then_some(index);
            let mut object = accept(original, answer, &to.api_version(), index_told).map_err(failed)?;
            if let Some(definition) = &to.definition {
                definition.prune(&mut object);
                definition.set_defaults(&mut object);
            }
            converted[asked.places[index]] = object;
        }
        Ok(())
    }

    fn client(&self, webhook: &Arc<WebhookConversion>) -> Result<Arc<WebhookClient>, String> {
        let mut clients = self.clients.lock();
        clients.retain(|(of, _)| of.strong_count() > 0);
        let known = clients.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(webhook)));
        if let Some((_, client)) = known {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(WebhookClient::new(&webhook.client_config, self.outgoing.clock())?);
        clients.push((Arc::downgrade(webhook), Arc::clone(&client)));
        Ok(client)
    }
}

/// Objects to ask about, and where they belong.
#[derive(Default)]
struct Question {
    objects: Vec<Value>,
    places: Vec<usize>,
    bytes: usize,
    /// The kind of the first, by which Kubernetes names what failed.
    first: Option<String>,
}

impl Question {
    fn add(&mut self, place: usize, from: &Kind, object: Value) {
        self.bytes += length(&object);
        self.objects.push(object);
        self.places.push(place);
        self.first.get_or_insert_with(|| from.gvk().to_string());
    }
}

/// The length of a value as JSON, in bytes.
fn length(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and a value has nothing that JSON cannot say.
    drop(serde_json::to_writer(&mut count, value));
    count.0
}

/// Kubernetes lets the error through as it is: 500 without a reason.
fn failure(message: String) -> Status {
    Status { reason: StatusReason::Unknown, details: None, message, ..Status::internal_error("") }
}
