//! The beats of many polls, which are one operation of the store.

use std::collections::{BTreeSet, VecDeque};

use crate::operation::{Answer, Operation, Unknown};
use crate::{HostId, Offer};

/// The most beats of one operation.
const BATCH_MAX: usize = 256;
/// The time for which beats are collected while the queue is empty.
const COLLECT_MS: u64 = 100;

/// The polls that wait for their beats, each with something by which its answer finds it.
#[derive(Debug, Clone)]
pub struct Beats<T> {
    waiting: VecDeque<(T, HostId, Offer)>,
}

impl<T> Default for Beats<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<T> Beats<T> {
    /// Adds the beat of a poll.
    pub fn add(&mut self, poll: T, host: HostId, offer: Offer) {
        self.waiting.push_back((poll, host, offer));
    }

    /// Returns the next operation and its polls. Two polls of one host get beats of their own, because a
    /// claim names the beat of its poll: the later one stays for the next operation.
    pub fn take(&mut self) -> Option<(Vec<T>, Operation)> {
        let (mut polls, mut beats) = (Vec::new(), Vec::new());
        let (mut hosts, mut later) = (BTreeSet::new(), VecDeque::new());
        for (poll, host, offer) in self.waiting.drain(..) {
            if beats.len() < BATCH_MAX && hosts.insert(host) {
                polls.push(poll);
                beats.push((host, offer));
            } else {
                later.push_back((poll, host, offer));
            }
        }
        self.waiting = later;
        (!polls.is_empty()).then_some((polls, Operation::Beats(beats)))
    }
}

/// Returns the answer to each poll of an operation.
pub fn split<T>(
    polls: Vec<T>,
    answer: Result<Answer, Unknown>,
) -> impl Iterator<Item = (T, Result<Answer, Unknown>)> {
    let answers = match answer {
        Ok(Answer::Beats(answers)) if answers.len() == polls.len() => answers,
        _ => Vec::new(),
    };
    let mut answers = answers.into_iter();
    polls
        .into_iter()
        .map(move |poll| (poll, answers.next().ok_or(Unknown)))
}

/// Returns the time for which beats are collected. Polls that may get builds are not delayed; then the
/// beats that come while an operation is under way are the next one.
pub fn collect_ms(is_queue_empty: bool) -> u64 {
    if is_queue_empty { COLLECT_MS } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_polls_of_a_host_get_different_beats() {
        let mut beats = Beats::default();
        for (poll, host) in [(1, 7), (2, 8), (3, 7)] {
            beats.add(poll, HostId(host), Offer::default());
        }
        let (polls, operation) = beats.take().unwrap();
        assert_eq!(polls, [1, 2]);
        let hosts = [HostId(7), HostId(8)].map(|it| (it, Offer::default()));
        assert_eq!(operation, Operation::Beats(hosts.into()));
        assert_eq!(beats.take().unwrap().0, [3]);
        assert_eq!(beats.take(), None);
    }

    #[test]
    fn an_operation_is_bounded() {
        let mut beats = Beats::default();
        (0..600).for_each(|it| beats.add(it, HostId(it), Offer::default()));
        let sizes: Vec<_> = std::iter::from_fn(|| Some(beats.take()?.0.len())).collect();
        assert_eq!(sizes, [256, 256, 88]);
    }

    #[test]
    fn each_poll_gets_its_answer_or_learns_that_it_is_unknown() {
        let answers = Answer::Beats(vec![Answer::Done, Answer::NotFound]);
        let found: Vec<_> = split(vec!['a', 'b'], Ok(answers)).collect();
        assert_eq!(
            found,
            [('a', Ok(Answer::Done)), ('b', Ok(Answer::NotFound))]
        );
        let lost: Vec<_> = split(vec!['a'], Err(Unknown)).collect();
        assert_eq!(lost, [('a', Err(Unknown))]);
    }
}
