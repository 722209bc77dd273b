//! A session of the protocol: the requests of one connection, within the permissions of its user.

mod authorization;
mod lines;
mod users;

use std::sync::Arc;
use std::time::Instant;

use linerpc::decoder::Event;
use linerpc::encoder::InvokeError;
use linerpc::{Buffers, Framing, FramingError, MessageDecoder, Next, Session};
use serde_json::{Map, json};

pub use authorization::Access;

use authorization::Denied;
use lines::Lines;

use crate::condition::{Column, Table};
use crate::permission::Permission;
use crate::protocol::reply::{CountReply, StatsReply, UnihashReply};
use crate::protocol::request::{Mark, split_task_line};
use crate::protocol::{GREETING, MESSAGE_BYTES_MAX, OK, ProtocolError, Request, StreamMode};
use crate::row::{Mapping, Report, TaskKey};
use crate::service::{Maintenance, Service, ServiceError};
use crate::store::User;

/// The error that ends a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The peer violates the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The user lacks a permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request cannot be fulfilled, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The service failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl From<FramingError> for SessionError {
    fn from(error: FramingError) -> Self {
        Self::Protocol(error.into())
    }
}

impl SessionError {
    /// Returns the text that the peer receives before its connection is closed. A client of BitBake
    /// fails then. It gets no text after a failure of the service: then it only warns and builds on.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::Protocol(ProtocolError::Framing(_))
            | Self::Service(ServiceError::Store(_) | ServiceError::Closed) => None,
            error => Some(error.to_string()),
        }
    }
}

/// A session.
#[derive(Debug)]
pub struct HashSession {
    service: Service,
    access: Arc<Access>,
    peer: Arc<str>,
    buffers: Buffers,
    stream: Option<StreamMode>,
    lines: Lines,
    user: Option<User>,
}

impl Session for HashSession {
    type Error = SessionError;

    fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    async fn handle(&mut self) -> Result<Next, SessionError> {
        let handled = self.handle_received().await;
        if let Err(error) = &handled {
            self.service.metrics().refusals.inc();
            if let Some(message) = error.refusal() {
                self.buffers.reply(&InvokeError::new(message));
            }
        }
        handled
    }
}

impl HashSession {
    /// Begins a session of a peer.
    pub fn new(service: Service, access: Arc<Access>, peer: Arc<str>, framing: Framing) -> Self {
        let decoder = MessageDecoder::new(GREETING, MESSAGE_BYTES_MAX).with_framing(framing);
        Self {
            service,
            access,
            peer,
            buffers: Buffers::new(decoder, framing),
            stream: None,
            lines: Lines::default(),
            user: None,
        }
    }

    async fn handle_received(&mut self) -> Result<Next, SessionError> {
        loop {
            if self.buffers.is_output_full() {
                return Ok(Next::Continue);
            }
            if let Some(mode) = self.stream {
                self.lines.fill(&mut self.buffers.decoder)?;
                if self.lines.is_empty() {
                    return Ok(Next::Read);
                }
                self.answer_lines(mode).await?;
                continue;
            }
            match self.buffers.decoder.next_event()? {
                None => return Ok(Next::Read),
                Some(Event::Greeted { needs_headers }) => {
                    if needs_headers {
                        self.buffers.output.push(b'\n');
                    }
                }
                Some(Event::Message(message)) => match Request::parse(message)? {
                    Request::Close => return Ok(Next::Close),
                    request => self.answer(request).await?,
                },
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Result<(), SessionError> {
        self.authorize(&request)?;
        let start = Instant::now();
        let is_stream = matches!(request, Request::Stream(_));
        self.answer_authorized(request).await?;
        if !is_stream {
            self.service.count_requests(1, start);
        }
        Ok(())
    }

    async fn answer_authorized(&mut self, request: Request) -> Result<(), SessionError> {
        match request {
            Request::Close => {}
            Request::Ping => self.buffers.reply(&json!({ "alive": true })),
            Request::Get { task, all: false } => {
                let unihash = self.service.unihash(&task).await?;
                self.reply_unihash(&task, unihash.as_deref());
            }
            Request::Get { task, all: true } => {
                let report = self.service.report_of(task).await?;
                self.buffers.reply(&report);
            }
            Request::GetOuthash {
                task,
                outhash,
                with_unihash,
            } => {
                let report = self
                    .service
                    .report_with(task, outhash, with_unihash)
                    .await?;
                self.buffers.reply(&report);
            }
            Request::Report(report) => self.report(*report).await?,
            Request::ReportEquivalence(mapping) => self.equate(mapping).await?,
            Request::Stream(mode) => {
                self.stream = Some(mode);
                self.buffers.reply(&OK);
            }
            Request::GetStats => {
                let requests = self.service.statistics(|statistics| statistics.clone());
                self.buffers.reply(&StatsReply { requests });
            }
            Request::ResetStats => {
                let requests = self.service.statistics(std::mem::take);
                self.buffers.reply(&StatsReply { requests });
            }
            Request::GetDbUsage => {
                let tables = self.service.usage().await?.into_iter();
                let usage: Map<_, _> = tables
                    .map(|(table, rows)| (table.to_owned(), json!({ "rows": rows })))
                    .collect();
                self.buffers.reply(&json!({ "usage": usage }));
            }
            Request::GetDbQueryColumns => {
                self.buffers.reply(&json!({ "columns": Column::names() }));
            }
            Request::BackfillWait => {
                let tasks = self.service.backfilled().await;
                self.buffers.reply(&json!({ "tasks": tasks }));
            }
            Request::Remove(condition) => self.maintain(Maintenance::Remove(condition)).await?,
            Request::GcMark(mark) => self.maintain(marking(mark)?).await?,
            Request::GcSweep { mark } => self.maintain(Maintenance::Sweep { mark }).await?,
            Request::GcStatus => {
                let status = self.service.gc_status().await?;
                self.buffers.reply(&status);
            }
            Request::CleanUnused { age } => {
                self.maintain(Maintenance::clean_unused_since(age)).await?;
            }
            Request::Auth { username, token } => self.log_in(&username, &token).await?,
            Request::User(request) => self.answer_user_request(request).await?,
        }
        Ok(())
    }

    /// Records a report if the user may; else returns the unihash that its outhash has.
    async fn report(&mut self, mut report: Report) -> Result<(), SessionError> {
        let task = report.task.clone();
        if self.service.is_read_only() || !self.may(&[Permission::Report]) {
            let Report {
                outhash, unihash, ..
            } = report;
            let found = self
                .service
                .report_with(task.clone(), outhash, true)
                .await?;
            let found = found
                .and_then(|found| found.unihash)
                .map(|found| found.unihash);
            self.reply_unihash(&task, Some(&found.unwrap_or(unihash)));
            return Ok(());
        }
        let user = self.user.as_ref().map(|user| &user.username);
        if let Some(owner) = user.or(self.access.owner.as_ref()) {
            report.origin.owner = Some(owner.clone());
        }
        let unihash = self.service.report(report).await?;
        self.reply_unihash(&task, Some(&unihash));
        Ok(())
    }

    async fn equate(&mut self, mapping: Mapping) -> Result<(), SessionError> {
        let task = mapping.task.clone();
        let unihash = if self.service.is_read_only() {
            let recorded = self.service.unihash(&task).await?;
            recorded.map_or(mapping.unihash, |recorded| recorded.to_string())
        } else {
            self.service.equate(mapping).await?
        };
        self.reply_unihash(&task, Some(&unihash));
        Ok(())
    }

    async fn maintain(&mut self, maintenance: Maintenance) -> Result<(), SessionError> {
        tracing::info!(client = %self.peer, ?maintenance, "changing many rows");
        let count = self.service.maintain(maintenance).await?;
        self.buffers.reply(&CountReply { count });
        Ok(())
    }

    fn reply_unihash(&mut self, task: &TaskKey, unihash: Option<&str>) {
        let reply = unihash.map(|unihash| UnihashReply {
            taskhash: &task.taskhash,
            method: &task.method,
            unihash,
        });
        self.buffers.reply(&reply);
    }

    /// Answers the lines that were received, and ends the stream at its end. Lines before a wrong
    /// one are answered.
    async fn answer_lines(&mut self, mode: StreamMode) -> Result<(), SessionError> {
        let start = Instant::now();
        let lines = std::mem::take(&mut self.lines);
        let queries: Vec<&str> = lines.iter().collect();
        let answered = match mode {
            StreamMode::Get => self.answer_tasks(&queries).await,
            StreamMode::Exists => self.answer_unihashes(&queries).await,
            StreamMode::GcMark => self.answer_marks(&queries).await,
        };
        self.service.count_requests(queries.len() as u64, start);
        let is_end = lines.is_end();
        self.lines = lines;
        answered?;
        if is_end {
            self.stream = None;
            self.buffers.output.extend_from_slice(b"ok\n");
        }
        Ok(())
    }

    async fn answer_tasks(&mut self, queries: &[&str]) -> Result<(), SessionError> {
        let (tasks, error) = until_error(queries, |line| split_task_line(line));
        for unihash in self.service.unihashes(&tasks).await? {
            let output = &mut self.buffers.output;
            output.extend_from_slice(unihash.as_deref().unwrap_or_default().as_bytes());
            output.push(b'\n');
        }
        error.map_or(Ok(()), Err)
    }

    async fn answer_unihashes(&mut self, queries: &[&str]) -> Result<(), SessionError> {
        for exists in self.service.exist(queries).await? {
            let answer: &[u8] = if exists { b"true\n" } else { b"false\n" };
            self.buffers.output.extend_from_slice(answer);
        }
        Ok(())
    }

    async fn answer_marks(&mut self, queries: &[&str]) -> Result<(), SessionError> {
        let parse = |line| marking(Mark::parse_line(line)?);
        let (marks, error) = until_error(queries, parse);
        for count in self.service.maintain_all(marks).await? {
            // The line is not chunked: it is short.
            linerpc::encoder::write_line(&mut self.buffers.output, &CountReply { count });
        }
        error.map_or(Ok(()), Err)
    }
}

/// Parses lines up to the first wrong one.
fn until_error<'q, T, E: Into<SessionError>>(
    queries: &[&'q str],
    parse: impl Fn(&'q str) -> Result<T, E>,
) -> (Vec<T>, Option<SessionError>) {
    let mut parsed = Vec::with_capacity(queries.len());
    for query in queries {
        match parse(query) {
            Ok(value) => parsed.push(value),
            Err(error) => return (parsed, Some(error.into())),
        }
    }
    (parsed, None)
}

/// Returns the maintenance that marks rows.
fn marking(Mark { mark, condition }: Mark) -> Result<Maintenance, SessionError> {
    let is_possible = condition == crate::condition::Condition::default()
        || condition.applies_to(Table::Unihashes);
    if !is_possible {
        let text = "a mark selects by method, taskhash, unihash and gc_mark only";
        return Err(SessionError::Refused(text.to_owned()));
    }
    Ok(Maintenance::Mark { mark, condition })
}
