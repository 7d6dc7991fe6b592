//! Which directives act on a call: those of the rules that match it, then those of its markers.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::marker::{Marker, markers};
use super::script::{Directives, Endpoint, Rule, ScriptError};

/// How many timed markers are counted; the oldest is forgotten first.
const MARKERS_COUNTED: usize = 200_000;

/// What a call looks like to the rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Nothing for the endpoints that only read: `/key`, `/credits`, `/generation`.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) model: &'a str,
    pub(crate) key: &'a str,
    pub(crate) key_label: &'a str,
    /// The user messages (or inputs), oldest first.
    pub(crate) messages: &'a [String],
}

/// The decision about a call.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) directives: Directives,
    /// The texts of the markers that acted.
    pub(crate) markers: String,
}

/// The rules in force and the counts of timed markers.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Active>,
    last_id: u64,
    counts: HashMap<u64, u32>,
    order: VecDeque<u64>,
}

#[derive(Debug)]
struct Active {
    id: u64,
    rule: Rule,
    directives: Directives,
    used: u32,
}

impl Rules {
    /// Puts a rule in force, after those that are.
    pub(crate) fn add(&mut self, rule: Rule) -> Result<u64, ScriptError> {
        let mut directives = Directives::parse(&rule.directives)?;
        directives.reply.clone_from(&rule.reply);
        self.last_id += 1;
        self.rules.push(Active {
            id: self.last_id,
            rule,
            directives,
            used: 0,
        });
        Ok(self.last_id)
    }

    /// The rules in force, with their numbers and how often each acted.
    pub(crate) fn list(&self) -> Vec<(u64, Rule, u32)> {
        self.rules
            .iter()
            .map(|active| (active.id, active.rule.clone(), active.used))
            .collect()
    }

    /// Takes one rule back; false when there is none of that number.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|active| active.id != id);
        self.rules.len() < before
    }

    /// Takes everything back, the counts of markers too.
    pub(crate) fn clear(&mut self) {
        let last_id = self.last_id;
        *self = Self {
            last_id,
            ..Self::default()
        };
    }

    /// Decides about a call, and counts it. Of several timed rules (or markers) that match, only
    /// the first that is not used up acts and is counted, so they take turns.
    pub(crate) fn decide(&mut self, subject: Subject<'_>) -> Result<Decision, ScriptError> {
        let mut decision = Decision::default();
        let mut timed = false;
        for active in self
            .rules
            .iter_mut()
            .filter(|active| active.matches(subject))
        {
            if let Some(times) = active.directives.times {
                if timed || active.used >= times {
                    continue;
                }
                timed = true;
            }
            active.used += 1;
            decision.directives.overlay(active.directives.clone());
        }
        timed = false;
        let Some((last, older)) = subject.messages.split_last() else {
            return Ok(decision);
        };
        let embeddings = subject.endpoint == Some(Endpoint::Embeddings);
        let sources = older
            .iter()
            .map(|message| (message, embeddings))
            .chain([(last, true)]);
        for (message, is_current) in sources {
            for marker in markers(message) {
                let directives = Directives::parse(marker.list)?;
                if !(is_current || directives.sticky)
                    || directives.title != (subject.endpoint == Some(Endpoint::Title))
                    || !directives.applies_to(subject.model, subject.key, subject.key_label)
                {
                    continue;
                }
                if let Some(times) = directives.times {
                    if timed || !self.count(subject.endpoint, message, marker, times) {
                        continue;
                    }
                    timed = true;
                }
                decision.directives.overlay(directives);
                if !decision.markers.is_empty() {
                    decision.markers.push(' ');
                }
                decision.markers.push_str(marker.text);
            }
        }
        Ok(decision)
    }

    /// True, and counted, while the marker has acted fewer than `times` times.
    fn count(
        &mut self,
        endpoint: Option<Endpoint>,
        message: &str,
        marker: Marker<'_>,
        times: u32,
    ) -> bool {
        // Fixed keys: the hash lives no longer than the process.
        let mut hasher = DefaultHasher::new();
        (endpoint, message, marker.text).hash(&mut hasher);
        let key = hasher.finish();
        if !self.counts.contains_key(&key) {
            self.order.push_back(key);
            if self.order.len() > MARKERS_COUNTED
                && let Some(oldest) = self.order.pop_front()
            {
                self.counts.remove(&oldest);
            }
        }
        let used = self.counts.entry(key).or_default();
        let acts = *used < times;
        *used += u32::from(acts);
        acts
    }
}

impl Active {
    fn matches(&self, subject: Subject<'_>) -> bool {
        let rule = &self.rule;
        let conditions = [&rule.model, &self.directives.model];
        // A rule without an endpoint is an outage of everything, titles and `GET /key` too; one that
        // is counted is for calls of models, as nobody knows when a worker looks at its keys.
        let endpoint = rule
            .endpoint
            .or(self.directives.title.then_some(Endpoint::Title));
        endpoint.is_none_or(|endpoint| Some(endpoint) == subject.endpoint)
            && (subject.endpoint.is_some()
                || self.directives.times.is_none()
                    && conditions.iter().all(|condition| condition.is_none()))
            && conditions
                .into_iter()
                .flatten()
                .all(|pattern| super::script::glob(pattern, subject.model))
            && [&rule.key, &self.directives.key]
                .into_iter()
                .flatten()
                .all(|wanted| wanted == subject.key || wanted == subject.key_label)
            && rule.contains.as_deref().is_none_or(|wanted| {
                let said = match (subject.endpoint, subject.messages) {
                    (Some(Endpoint::Embeddings), inputs) => inputs,
                    (_, [.., last]) => std::slice::from_ref(last),
                    (_, []) => &[],
                };
                said.iter().any(|text| text.contains(wanted))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>(model: &'a str, messages: &'a [String]) -> Subject<'a> {
        Subject {
            endpoint: Some(Endpoint::Chat),
            model,
            key: "k1",
            key_label: "k1",
            messages,
        }
    }

    #[test]
    fn a_counted_rule_is_not_used_up_by_questions_about_keys() {
        let about_keys = Subject {
            endpoint: None,
            ..subject("", &[])
        };
        let mut rules = Rules::default();
        for (directives, acts) in [("401,times=1", None), ("503", Some(503))] {
            let rule = Rule {
                directives: directives.into(),
                ..Rule::default()
            };
            rules.add(rule).unwrap();
            let decision = rules.decide(about_keys).unwrap();
            let status = decision.directives.failure.map(|failure| failure.status);
            assert_eq!(status, acts, "{directives}");
        }
    }

    fn status(rules: &mut Rules, model: &str, messages: &[&str]) -> Option<u16> {
        let messages: Vec<String> = messages
            .iter()
            .map(|message| (*message).to_owned())
            .collect();
        let decision = rules.decide(subject(model, &messages)).unwrap();
        decision.directives.failure.map(|failure| failure.status)
    }

    #[test]
    fn timed_markers_take_turns() {
        let mut rules = Rules::default();
        let message = "x [[sim:503,times=1]] [[sim:429,times=2]]";
        let seen: Vec<_> = (0..4)
            .map(|_| status(&mut rules, "m", &[message]))
            .collect();
        assert_eq!(seen, [Some(503), Some(429), Some(429), None]);
        assert_eq!(
            status(&mut rules, "m", &["y [[sim:503,times=1]]"]),
            Some(503)
        );
    }

    #[test]
    fn older_messages_count_only_when_sticky() {
        let mut rules = Rules::default();
        assert_eq!(status(&mut rules, "m", &["[[sim:500]]", "next"]), None);
        assert_eq!(
            status(&mut rules, "m", &["[[sim:500,sticky]]", "next"]),
            Some(500)
        );
    }

    #[test]
    fn rules_match_model_key_and_text() {
        let mut rules = Rules::default();
        rules
            .add(Rule {
                model: Some("*:free".into()),
                directives: "429,times=1".into(),
                ..Rule::default()
            })
            .unwrap();
        rules
            .add(Rule {
                contains: Some("help".into()),
                directives: "500".into(),
                ..Rule::default()
            })
            .unwrap();
        assert_eq!(status(&mut rules, "a", &["x"]), None);
        assert_eq!(status(&mut rules, "a:free", &["x"]), Some(429));
        assert_eq!(status(&mut rules, "a:free", &["x"]), None);
        assert_eq!(status(&mut rules, "a", &["help me"]), Some(500));
        let id = rules
            .add(Rule {
                directives: "key=k2,401".into(),
                ..Rule::default()
            })
            .unwrap();
        assert_eq!(status(&mut rules, "a", &["x"]), None);
        assert!(rules.remove(id) && !rules.remove(id));
        rules.clear();
        assert_eq!(status(&mut rules, "a", &["help me"]), None);
    }

    #[test]
    fn titles_ignore_the_markers_of_replies() {
        let mut rules = Rules::default();
        let messages = ["[[sim:500]] [[sim:title,429]]".to_owned()];
        let title = Subject {
            endpoint: Some(Endpoint::Title),
            ..subject("m", &messages)
        };
        assert_eq!(
            rules
                .decide(title)
                .unwrap()
                .directives
                .failure
                .unwrap()
                .status,
            429
        );
        assert_eq!(
            rules
                .decide(subject("m", &messages))
                .unwrap()
                .directives
                .failure
                .unwrap()
                .status,
            500
        );
    }

    #[test]
    fn a_mistyped_marker_is_an_error() {
        let messages = ["[[sim:hnag]]".to_owned()];
        assert!(Rules::default().decide(subject("m", &messages)).is_err());
    }
}
