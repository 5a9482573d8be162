//! What a server has taught us by refusing: which words it takes, and how long an answer may be asked for.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    AnswerBound, ChatRequest, Endpoint, GatewayError, Outgoing, estimate_prompt,
    outgoing::{self, Bound, Fields},
};

/// Asking for less than this is of no use; rather nothing is said of it.
const SHORTEST_ANSWER: u32 = 64;
/// What one request may be refused for before its refusal is taken as final: two words, and the halving of a long answer.
const MOST_LESSONS: u32 = 10;
const COMPLETION: &str = "max_completion_tokens";
/// More models than this are on no list; what was learned of others is learned again.
const MOST_MODELS: usize = 1000;

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `max_completion_tokens`, which OpenAI's newer models demand, instead of `max_tokens`, which is all that older servers know.
    pub(super) completion: bool,
    /// `stream_options`, without which OpenAI reports no usage and which some servers refuse.
    pub(super) usage: bool,
    /// The longest answer asked for, in tokens; `None` leaves it to the server.
    pub(super) limit: Option<u32>,
}

/// What holds for a server, and for each of its models.
pub(super) struct Quirks {
    completion: AtomicBool,
    usage: AtomicBool,
    models: Mutex<HashMap<String, Room>>,
}

/// What a model has room for, as far as it has said so.
#[derive(Clone, Copy, Default)]
struct Room {
    /// In an answer.
    answer: Option<u32>,
    /// In question and answer together.
    context: Option<u32>,
    /// No limit of any size is taken.
    unlimited: bool,
    /// The longest answer that it is said to give is more than it gives: a bound of that size is not taken.
    overstated: bool,
}

impl Room {
    fn limit(self, wanted: u32, prompt: impl FnOnce() -> u32) -> Option<u32> {
        if self.unlimited {
            return None;
        }
        let limit = self.answer.map_or(wanted, |most| wanted.min(most));
        Some(self.context.map_or(limit, |context| {
            limit.min(context.saturating_sub(prompt()).max(SHORTEST_ANSWER))
        }))
    }
}

impl Quirks {
    pub(super) fn new(is_openai: bool) -> Self {
        Self {
            completion: is_openai.into(),
            usage: true.into(),
            models: Mutex::default(),
        }
    }

    /// How to write this request, and what its refusals teach.
    pub(super) fn begin<'a>(&'a self, request: &'a ChatRequest) -> Lesson<'a> {
        let room = self.models().get(&request.model).copied().unwrap_or_default();
        Lesson {
            quirks: self,
            request,
            limit: room.limit(request.max_tokens, || prompt_of(request)),
            room,
            swapped: false,
            searching: None,
            lessons: 0,
        }
    }

    /// How the answer of a program's request is to be bounded, and what its refusals teach.
    pub(super) fn bounding<'a>(&'a self, request: &Outgoing<'a>, fields: &Fields<'_>) -> Bounding<'a> {
        let names = request.endpoint.bounds();
        let room = self.models().get(request.model).copied().unwrap_or_default();
        let is_own = outgoing::said(names, fields).is_some();
        let is_taken = |bound: &AnswerBound| {
            let is_too_large = room.overstated || room.answer.is_some_and(|most| most < bound.tokens);
            is_own || bound.is_budget || !(room.unlimited || is_too_large)
        };
        let word = match request.endpoint {
            Endpoint::Chat if self.completion() => COMPLETION,
            Endpoint::Chat => "max_tokens",
            _ => names.first().copied().unwrap_or_default(),
        };
        Bounding {
            quirks: self,
            model: request.model,
            bound: request.bound.filter(|_| !names.is_empty()).filter(is_taken),
            names,
            word,
            is_own,
            swapped: false,
            overstated: false,
        }
    }

    /// Whether answers are bounded by `max_completion_tokens` rather than `max_tokens`.
    fn completion(&self) -> bool {
        self.completion.load(Ordering::Relaxed)
    }

    /// Whether streams are asked for their usage.
    pub(super) fn usage(&self) -> bool {
        self.usage.load(Ordering::Relaxed)
    }

    /// Whether this refuses the wish for usage; remembers it.
    pub(super) fn refuses_usage(&self, error: &GatewayError) -> bool {
        let GatewayError::Refused {
            status: Some(400 | 422),
            detail,
        } = error
        else {
            return false;
        };
        let detail = detail.to_lowercase();
        let refuses = detail.contains("stream_options") || detail.contains("include_usage");
        if refuses {
            self.usage.store(false, Ordering::Relaxed);
        }
        refuses
    }

    fn models(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, model: &str, room: Room) {
        let mut models = self.models();
        if models.len() >= MOST_MODELS && !models.contains_key(model) {
            models.clear();
        }
        models.insert(model.to_owned(), room);
    }
}

/// A little more than counted here, since the server counts in its own way.
fn prompt_of(request: &ChatRequest) -> u32 {
    let prompt = estimate_prompt(&request.messages);
    prompt.saturating_add(prompt / 10).saturating_add(16)
}

/// What was too large.
#[derive(Clone, Copy)]
enum Large {
    Answer,
    Both,
}

/// One request on its way to a shape that is taken.
pub(super) struct Lesson<'a> {
    quirks: &'a Quirks,
    request: &'a ChatRequest,
    limit: Option<u32>,
    room: Room,
    /// Both words for the limit are tried, each once.
    swapped: bool,
    /// A smaller limit is looked for, without the server having said which.
    searching: Option<Large>,
    lessons: u32,
}

impl Lesson<'_> {
    pub(super) fn shape(&self) -> Shape {
        Shape {
            completion: self.quirks.completion(),
            usage: self.quirks.usage(),
            limit: self.limit,
        }
    }

    /// Whether this refusal says that the request may pass in another shape, which is the one to take next.
    pub(super) fn learn(&mut self, error: &GatewayError) -> bool {
        let Some((detail, too_long)) = refusal(error) else {
            return false;
        };
        self.lessons += 1;
        if self.lessons > MOST_LESSONS {
            return false;
        }
        let shape = self.shape();
        if shape.usage && self.quirks.refuses_usage(error) {
            return true;
        }
        let Some(limit) = self.limit else { return false };
        let word = if shape.completion {
            "max_completion_tokens"
        } else {
            "max_tokens"
        };
        let named = detail.contains("max_tokens") || detail.contains("max_completion_tokens");
        if !too_long && detail.contains(word) && is_unknown(&detail) {
            if self.swapped {
                self.give_up_on_limit();
            } else {
                self.swapped = true;
                self.quirks.completion.store(!shape.completion, Ordering::Relaxed);
            }
            return true;
        }
        if too_long {
            self.too_long(&detail, limit, named)
        } else if named {
            self.searching = Some(Large::Answer);
            self.halve(limit);
            true
        } else {
            false
        }
    }

    /// Question and answer together are too much: the answer is made smaller if that helps, else the question must be.
    fn too_long(&mut self, detail: &str, limit: u32, named: bool) -> bool {
        let about_answer =
            named || detail.contains("completion") || crate::gateway::without_older_half(self.request).is_none();
        if let Some(context) = stated_context(detail) {
            self.room.context = Some(context);
            self.quirks.remember(&self.request.model, self.room);
            let prompt = prompt_of(self.request);
            if prompt.saturating_add(SHORTEST_ANSWER) > context
                && crate::gateway::without_older_half(self.request).is_some()
            {
                return false;
            }
            if let Some(next) = self.room.limit(limit, || prompt).filter(|next| *next < limit) {
                self.limit = Some(next);
                return true;
            }
        }
        if about_answer {
            self.searching = Some(Large::Both);
            self.halve(limit);
        }
        about_answer
    }

    fn halve(&mut self, limit: u32) {
        match limit / 2 {
            half if half >= SHORTEST_ANSWER => self.limit = Some(half),
            _ => self.give_up_on_limit(),
        }
    }

    fn give_up_on_limit(&mut self) {
        self.limit = None;
        self.searching = Some(Large::Answer);
    }

    /// The request was taken: what had to be looked for is kept.
    pub(super) fn passed(&mut self) {
        let Some(large) = self.searching else { return };
        match (large, self.limit) {
            (_, None) => self.room.unlimited = true,
            (Large::Answer, Some(limit)) => self.room.answer = Some(limit),
            (Large::Both, Some(limit)) => {
                self.room.context = Some(prompt_of(self.request).saturating_add(limit));
            }
        }
        self.quirks.remember(&self.request.model, self.room);
    }
}

/// The bound of a program's request on its way to one that is taken. What the program has said itself is not touched.
pub(super) struct Bounding<'a> {
    quirks: &'a Quirks,
    model: &'a str,
    bound: Option<AnswerBound>,
    names: &'static [&'static str],
    word: &'static str,
    /// The program has said one, which is only made smaller.
    is_own: bool,
    swapped: bool,
    overstated: bool,
}

impl Bounding<'_> {
    pub(super) fn bound(&self) -> Option<Bound<'static>> {
        self.bound.map(|bound| Bound {
            names: self.names,
            usual: self.word,
            tokens: bound.tokens,
        })
    }

    /// Whether this refuses a bound that the program knows nothing of, and the request is to be sent at once with another word for
    /// it, or without.
    pub(super) fn learn(&mut self, error: &GatewayError) -> bool {
        let Some(bound) = self.bound.filter(|_| !self.is_own) else {
            return false;
        };
        let Some((detail, too_long)) = refusal(error) else {
            return false;
        };
        if !too_long && !self.names.iter().any(|name| detail.contains(name)) {
            return false;
        }
        let is_word = !too_long && is_unknown(&detail);
        let other = self.names.iter().find(|name| **name != self.word);
        if let Some(other) = other.filter(|_| is_word && !self.swapped) {
            (self.word, self.swapped) = (other, true);
            return true;
        }
        if bound.is_budget {
            return false;
        }
        self.overstated = !too_long && !is_word;
        self.bound = None;
        true
    }

    /// The request was taken: what it took is kept.
    pub(super) fn passed(&self) {
        if self.swapped && self.bound.is_some() {
            self.quirks.completion.store(self.word == COMPLETION, Ordering::Relaxed);
        }
        if self.overstated {
            let room = self.quirks.models().get(self.model).copied().unwrap_or_default();
            let room = Room {
                overstated: true,
                ..room
            };
            self.quirks.remember(self.model, room);
        }
    }
}

/// What a server says of a request that it does not take as it is, in small letters, and whether it is too long for the model.
fn refusal(error: &GatewayError) -> Option<(String, bool)> {
    match error {
        GatewayError::Refused {
            status: Some(400 | 422),
            detail,
        } => Some((detail.to_lowercase(), false)),
        GatewayError::Context { detail, .. } => Some((detail.to_lowercase(), true)),
        _ => None,
    }
}

/// Whether a server does not know the word, rather than not liking its value.
fn is_unknown(detail: &str) -> bool {
    const UNKNOWN: [&str; 9] = [
        "unsupported",
        "not supported",
        "unrecognized",
        "unknown",
        "unexpected",
        "extra",
        "not permitted",
        "not allowed",
        "instead",
    ];
    UNKNOWN.iter().any(|word| detail.contains(word))
}

/// The size of the context where a refusal states it: `maximum context length is 4096 tokens`, `context size (4096 tokens)`.
fn stated_context(detail: &str) -> Option<u32> {
    let after = ["context length is", "context size"]
        .iter()
        .find_map(|words| detail.split_once(words))?
        .1;
    let digits = after.trim_start_matches([' ', '(', ':', '=', '`']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().filter(|context| *context > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, Turn};

    fn request(turns: usize) -> ChatRequest {
        let turn = Turn {
            role: Role::User,
            text: "hi".into(),
        };
        ChatRequest {
            model: "m".into(),
            messages: vec![turn; turns],
            max_tokens: 4096,
            user: String::new(),
        }
    }

    fn refused(detail: &str) -> GatewayError {
        GatewayError::Refused {
            status: Some(400),
            detail: detail.into(),
        }
    }

    fn too_long(detail: &str) -> GatewayError {
        GatewayError::Context {
            status: Some(400),
            detail: detail.into(),
        }
    }

    #[test]
    fn refused_words_are_swapped_or_left_out_and_remembered() {
        let (quirks, request) = (Quirks::new(false), request(1));
        let mut lesson = quirks.begin(&request);
        assert!(!lesson.learn(&refused("Unknown parameter: 'user'")));
        let openai = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        assert!(lesson.learn(&refused(openai)));
        assert!(lesson.learn(&refused("stream_options must be null")));
        lesson.passed();
        let expected = Shape {
            completion: true,
            usage: false,
            limit: Some(4096),
        };
        assert_eq!(quirks.begin(&request).shape(), expected);
        // A server that knows neither word is asked without, and not over and over.
        let mut lesson = quirks.begin(&request);
        assert!(lesson.learn(&refused("max_completion_tokens: extra fields not permitted")));
        assert!(lesson.learn(&refused("max_tokens: extra fields not permitted")));
        assert_eq!(lesson.shape().limit, None);
        assert!(!lesson.learn(&refused("max_tokens: extra fields not permitted")));
    }

    #[test]
    fn an_answer_that_is_too_long_is_halved_until_it_is_taken_and_remembered_for_the_model() {
        let (quirks, mut request) = (Quirks::new(false), request(1));
        let mut lesson = quirks.begin(&request);
        assert!(lesson.learn(&refused(
            "max_tokens is too large: 4096. This model supports at most 1500 tokens"
        )));
        assert!(lesson.learn(&refused(
            "max_tokens is too large: 2048. This model supports at most 1500 tokens"
        )));
        lesson.passed();
        assert_eq!(quirks.begin(&request).shape().limit, Some(1024));
        request.model = "another".into();
        assert_eq!(quirks.begin(&request).shape().limit, Some(4096));
        // One that takes no number at all is asked without.
        let mut lesson = quirks.begin(&request);
        while lesson.shape().limit.is_some() {
            assert!(lesson.learn(&refused("max_tokens is wrong")));
        }
        lesson.passed();
        assert_eq!(quirks.begin(&request).shape().limit, None);
    }

    #[test]
    fn a_stated_context_leaves_the_rest_of_it_to_the_answer() {
        for words in [
            "This model's maximum context length is 2048 tokens. However, you requested 4106 tokens (10 in the messages, 4096 in the completion).",
            "the request exceeds the available context size (2048 tokens), try increasing it",
        ] {
            let (quirks, request) = (Quirks::new(false), request(1));
            let mut lesson = quirks.begin(&request);
            assert!(lesson.learn(&too_long(words)));
            let limit = lesson.shape().limit.unwrap();
            assert!((1900..2040).contains(&limit), "{limit}");
            assert_eq!(quirks.begin(&request).shape().limit, Some(limit));
        }
    }

    #[test]
    fn what_is_long_by_its_past_is_left_to_be_shortened() {
        let (quirks, long) = (Quirks::new(false), request(3000));
        let words =
            "This model's maximum context length is 2048 tokens, (9000 in the messages, 4096 in the completion)";
        assert!(!quirks.begin(&long).learn(&too_long(words)));
        assert!(
            !Quirks::new(false)
                .begin(&request(2))
                .learn(&too_long("prompt is too long"))
        );
        // With nothing to leave out, the answer has to give way.
        let alone = request(1);
        let mut lesson = quirks.begin(&alone);
        assert!(lesson.learn(&too_long("prompt is too long")));
    }
}
