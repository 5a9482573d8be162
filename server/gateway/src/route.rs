//! From the name that was asked for to the targets that may answer, in the order in which they are tried.

use std::{sync::Arc, time::Duration};

use crate::{
    ByDetail, Catalogue, ChatRequest, GatewayError, Model, ModelKind, ModelSpec, Price,
    upstream::{Key, Leave, Upstream},
};

/// A model at its provider.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) model: Arc<ModelSpec>,
    pub(crate) upstream: Arc<Upstream>,
}

/// An alias with all that it leads to; never empty.
pub(crate) struct Route {
    pub(crate) model: Arc<Model>,
    /// In everything that of the dearest target.
    pub(crate) price: Price,
    pub(crate) kind: ModelKind,
    pub(crate) shown: bool,
    tiers: Vec<Vec<(Target, u32)>>,
}

impl Route {
    pub(crate) fn new(name: &str, shown: bool, tiers: Vec<Vec<(Target, u32)>>) -> Option<Self> {
        let models: Vec<Vec<Arc<ModelSpec>>> = tiers
            .iter()
            .map(|tier| tier.iter().map(|(target, _)| Arc::clone(&target.model)).collect())
            .collect();
        Some(Self {
            kind: models.iter().flatten().next()?.kind,
            model: Arc::new(Catalogue::view(name, &models)?),
            price: Catalogue::dearest(&models)?,
            shown,
            tiers,
        })
    }

    pub(crate) fn first(&self) -> Option<&Target> {
        self.targets().next()
    }

    /// All that may answer.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.tiers.iter().flatten().map(|(target, _)| target)
    }

    /// Nobody else can be asked.
    pub(crate) fn is_one_target(&self) -> bool {
        self.targets().nth(1).is_none()
    }

    /// The most tokens of one picture.
    pub(crate) fn picture(&self) -> ByDetail {
        let tokens = self.targets().map(|target| ByDetail::of_model(&target.model.name));
        tokens.reduce(ByDetail::max).unwrap_or_default()
    }

    /// Whoever is asked under this name, it is the same model: vectors of different ones cannot be compared.
    pub(crate) fn is_one_model(&self) -> bool {
        let mut names = self.targets().map(|target| &target.model.name);
        let first = names.next();
        names.all(|name| Some(name) == first)
    }

    /// Sets out; within a tier the weights decide who is first, and who comes after.
    pub(crate) fn journey(&self) -> Journey {
        let mut targets = Vec::new();
        for tier in &self.tiers {
            let mut rest: Vec<&(Target, u32)> = tier.iter().collect();
            while !rest.is_empty() {
                let weights = rest.iter().map(|(_, weight)| u64::from(*weight));
                let total: u64 = weights.sum();
                let mut point = if total == 0 { 0 } else { rand::random_range(0..total) };
                let chosen = rest.iter().position(|(_, weight)| {
                    let here = point < u64::from(*weight) || total == 0;
                    point = point.saturating_sub(u64::from(*weight));
                    here
                });
                targets.push(rest.remove(chosen.unwrap_or(0)).0.clone());
            }
        }
        Journey {
            visited: vec![false; targets.len()],
            targets,
            keys: Vec::new(),
        }
    }
}

/// One request on its way from target to target.
pub(crate) struct Journey {
    targets: Vec<Target>,
    visited: Vec<bool>,
    /// Those that were asked with already.
    keys: Vec<Arc<Key>>,
}

/// A target that may be asked now.
pub(crate) struct Hop {
    at: usize,
    pub(crate) target: Target,
    pub(crate) key: Arc<Key>,
    leave: Leave,
}

impl Journey {
    /// The first target in order that may be asked and was not yet; else why the last one may not. Where nobody may and nobody was,
    /// the first one is asked all the same, if it can be.
    pub(crate) fn next(&mut self) -> Result<Hop, GatewayError> {
        self.next_where(|_| true).or_else(|why| {
            if self.visited.contains(&true) {
                return Err(why);
            }
            let places = 0..self.targets.len();
            places
                .map(|at| self.visit(at, &[], true))
                .find(Result::is_ok)
                .unwrap_or(Err(why))
        })
    }

    /// Those come last that are known to find the question too long, if there is one that reads more and is not known to. To be called
    /// before anybody is asked.
    pub(crate) fn put_last(&mut self, is_too_long: impl Fn(&ModelSpec) -> bool) {
        let fits = self.targets.iter().filter(|target| !is_too_long(&target.model));
        let largest = fits.map(|target| target.model.context_tokens).max().unwrap_or(0);
        self.targets
            .sort_by_cached_key(|target| target.model.context_tokens < largest && is_too_long(&target.model));
    }

    /// Whether there is a target that was not asked yet and is not left alone.
    pub(crate) fn has_next(&self) -> bool {
        let mut fresh = self.targets.iter().zip(&self.visited).filter(|(_, visited)| !**visited);
        fresh.any(|(target, _)| !target.upstream.rests_beyond(Duration::ZERO))
    }

    /// One that reads more at once than `hop`.
    pub(crate) fn larger(&mut self, hop: &Hop) -> Option<Hop> {
        let context = hop.target.model.context_tokens;
        self.next_where(|target| target.model.context_tokens > context).ok()
    }

    fn next_where(&mut self, suits: impl Fn(&Target) -> bool) -> Result<Hop, GatewayError> {
        let mut why = GatewayError::down("there is nobody else to ask");
        for at in 0..self.targets.len() {
            if self.visited[at] || !suits(&self.targets[at]) {
                continue;
            }
            match self.visit(at, &[], false) {
                Ok(hop) => return Ok(hop),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// The same target with another key, if there is one that does not rest.
    pub(crate) fn with_another_key(&mut self, hop: &Hop) -> Option<Hop> {
        if !hop.target.upstream.has_key_but(&self.keys) {
            return None;
        }
        let keys = self.keys.clone();
        self.visit(hop.at, &keys, false).ok()
    }

    /// The same target once more, with whichever key.
    pub(crate) fn again(&mut self, hop: &Hop) -> Result<Hop, GatewayError> {
        self.visit(hop.at, &[], false)
    }

    fn visit(&mut self, at: usize, but: &[Arc<Key>], anyway: bool) -> Result<Hop, GatewayError> {
        let target = self.targets[at].clone();
        let (key, leave) = target.upstream.admit(but, anyway)?;
        self.visited[at] = true;
        self.keys.push(Arc::clone(&key));
        Ok(Hop { at, target, key, leave })
    }
}

impl Hop {
    pub(crate) fn good(&mut self) {
        self.leave.good();
    }

    pub(crate) fn failed(&mut self, error: &GatewayError) {
        self.leave.failed(&self.key, error);
    }

    pub(crate) fn provider(&self) -> &str {
        &self.target.upstream.spec.name
    }

    /// The request in the words of this target.
    pub(crate) fn request(&self, request: &ChatRequest) -> ChatRequest {
        ChatRequest {
            model: self.target.model.name.clone(),
            max_tokens: request.max_tokens.min(self.target.model.max_answer_tokens),
            ..request.clone()
        }
    }
}
