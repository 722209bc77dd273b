//! A thread that answers the requests of many tasks in batches, such as the writer of a database.

use std::thread::{self, ThreadId};

use tokio::sync::oneshot;

/// Creates the two ends of a request that the calling task sends to another thread.
pub fn reply<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = oneshot::channel();
    let thread = thread::current().id();
    (Reply { sender, thread }, Answer(receiver))
}

/// The end of the thread that answers.
#[derive(Debug)]
pub struct Reply<T> {
    sender: oneshot::Sender<Delivery<T>>,
    /// The thread of the task that waits, which is also that of other tasks.
    thread: ThreadId,
}

/// The end of the task that waits. It must be awaited or dropped soon, and a task with several must
/// await them in the order of its requests, because other tasks may get their answers through it.
#[derive(Debug)]
pub struct Answer<T>(oneshot::Receiver<Delivery<T>>);

impl<T> Reply<T> {
    /// Sends the answer. A task that has ended gets none.
    pub fn send(self, answer: T) {
        deliver(self.sender, answer, Others::default());
    }

    /// Sends answers.
    ///
    /// To wake a task of a thread that waits for events costs a system call. Therefore the first
    /// task of each thread delivers the answers of the others, whose wakes cost nothing there.
    pub fn send_all(answers: impl IntoIterator<Item = (Self, T)>) {
        let mut threads: Vec<(ThreadId, Vec<_>)> = Vec::new();
        for (Self { sender, thread }, answer) in answers {
            match threads.iter_mut().find(|(id, _)| *id == thread) {
                Some((_, waiting)) => waiting.push((sender, answer)),
                None => threads.push((thread, vec![(sender, answer)])),
            }
        }
        for (_, waiting) in threads {
            let mut waiting = waiting.into_iter();
            if let Some((sender, answer)) = waiting.next() {
                deliver(sender, answer, Others(waiting.collect()));
            }
        }
    }
}

impl<T> Answer<T> {
    /// Waits for the answer. Returns `None` if the other end was dropped.
    pub async fn receive(self) -> Option<T> {
        let Delivery { answer, others } = self.0.await.ok()?;
        drop(others);
        Some(answer)
    }
}

/// An answer, and those of other tasks.
#[derive(Debug)]
struct Delivery<T> {
    answer: T,
    others: Others<T>,
}

/// Answers that are delivered when this is dropped: by the task that has received it, or if that
/// task has ended, by the one who noticed it.
#[derive(Debug)]
struct Others<T>(Vec<(oneshot::Sender<Delivery<T>>, T)>);

impl<T> Default for Others<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Drop for Others<T> {
    fn drop(&mut self) {
        for (sender, answer) in self.0.drain(..) {
            deliver(sender, answer, Self::default());
        }
    }
}

fn deliver<T>(sender: oneshot::Sender<Delivery<T>>, answer: T, others: Others<T>) {
    // A delivery that is not received is dropped, which delivers the other answers.
    let _ = sender.send(Delivery { answer, others });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_task_gets_its_own_answer() {
        let (replies, answers): (Vec<_>, Vec<_>) = (0..5).map(|_| reply()).unzip();
        let answers: Vec<_> = answers
            .into_iter()
            .map(|answer: Answer<i32>| tokio::spawn(answer.receive()))
            .collect();
        let sending = thread::spawn(|| Reply::send_all(replies.into_iter().zip(0..)));
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(answer.await.unwrap(), Some(number));
        }
        sending.join().unwrap();
    }

    #[tokio::test]
    async fn a_task_may_await_several_answers_in_the_order_of_its_requests() {
        let (replies, answers): (Vec<_>, Vec<_>) = (0..3).map(|_| reply()).unzip();
        Reply::send_all(replies.into_iter().zip(0..));
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(answer.receive().await, Some(number));
        }
    }

    #[tokio::test]
    async fn answers_are_delivered_although_tasks_have_ended() {
        for ended in 0..3 {
            for is_sent_before in [false, true] {
                let (replies, mut answers): (Vec<_>, Vec<_>) = (0..3).map(|_| reply()).unzip();
                let answered = replies.into_iter().zip(["a", "b", "c"]);
                if is_sent_before {
                    Reply::send_all(answered);
                    drop(answers.remove(ended));
                } else {
                    drop(answers.remove(ended));
                    Reply::send_all(answered);
                }
                let mut expected = vec!["a", "b", "c"];
                expected.remove(ended);
                for (answer, expected) in answers.into_iter().zip(expected) {
                    assert_eq!(answer.receive().await, Some(expected));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_dropped_is_noticed() {
        let (dropped, answer) = reply::<()>();
        drop(dropped);
        assert_eq!(answer.receive().await, None);
    }
}
