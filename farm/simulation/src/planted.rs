//! Planted bugs: each breaks one seam between the real code and the simulated world. The real code has
//! no switches; a bug changes the values that go into it or come out of it.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A result counts for the newest lease, also if it belongs to an older one.
    FinishIgnoresEpoch,
    /// A result counts from any host.
    FinishIgnoresHost,
    /// A second result replaces the first one.
    FinishOverwrites,
    /// A claim takes a build that another host has.
    ClaimIgnoresState,
    /// A claim does not raise the epoch.
    ClaimKeepsEpoch,
    /// A poll claims although the host has polled again.
    ClaimIgnoresBeat,
    /// A drained host gets builds.
    ClaimIgnoresDrain,
    /// A host gets builds in its window.
    ClaimIgnoresWindows,
    /// A host with an older revision gets builds.
    ClaimIgnoresRevision,
    /// A host with other content under the published number gets builds.
    ContentIsIgnored,
    /// A second publication of a revision replaces its content.
    PublishReplacesContent,
    /// A host loses its leases although it has polled again.
    RescueIgnoresBeat,
    /// A build that kills its hosts is tried for ever.
    LossIsNotCounted,
    /// A lease that was given back unused counts as lost.
    UnusedIsLost,
    /// A lost guest counts as unused.
    LostIsUnused,
    /// A repeated submission makes a second build.
    SubmitIgnoresKey,
    /// A late publication replaces a newer revision.
    PublishLowers,
    /// The cancellation of a running build is forgotten.
    CancelForgets,
    /// A commit without an answer counts as success.
    UnknownIsSuccess,
    /// The watch waits for a quarter of the lease.
    WatchIsImpatient,
    /// The watch uses a clock that is set.
    WatchUsesWallClock,
    /// The watch does not start again when the beat changes.
    WatchMissesBeats,
    /// No host ever loses its leases.
    WatchSleeps,
    /// A lease that a host does not know is not granted again.
    NoSecondGrant,
    /// The answer to an earlier poll counts for the last one.
    HostTakesAnyAnswer,
    /// The host uses its leases to their ends and beyond.
    HostUsesWholeLease,
    /// The host uses a clock that is set.
    HostUsesWallClock,
    /// Only the agent ends guests, which does not work while it is dead.
    NoGuard,
    /// A guest starts before its lease is on disk.
    GuestBeforeRecord,
    /// A result is reported before it is on disk.
    ReportBeforeStore,
    /// A result is dropped when it was sent.
    OutboxForgets,
    /// A temporary failure counts as the end of a report.
    UnavailableIsFinal,
    /// A late arrival replaces a newer revision on a host.
    FetchLowers,
    /// A host does not notice that a revision has not arrived.
    FetchIsNotRepeated,
    /// A host offers what its builds use.
    OfferIgnoresBuilds,
    /// A new agent does not see the guests of the last one.
    RecoveryMissesGuests,
    /// The answers to beats that were written together go to each other's polls.
    BatchMixesHosts,
    /// The answer to a poll has the leases of the poll before.
    LeasesAreCached,
    /// Leases before the newest one of a host are not read.
    LeasesMissOlderClaims,
    /// A submission is acknowledged when one coordinator has its sources.
    SourceHasOneCopy,
    /// A source is forgotten although a build waits that names it.
    SourceExpiresInUse,
    /// A source is forgotten although a schedule names it.
    ScheduleSourceExpires,
    /// A guest starts although a source of its build has not arrived.
    GuestWithoutSource,
    /// A time of a schedule that has its build gets another one.
    RunIgnoresKey,
    /// A run counts although another coordinator has run the schedule since it was read.
    RunIgnoresMark,
    /// A schedule runs that was paused after it was read.
    RunIgnoresPause,
    /// A run raises the mark, and its build is lost.
    RunLosesBuild,
    /// A run submits although the build of the last one is unfinished.
    RunForgetsUnfinished,
    /// A run marks times as done that have passed since the schedule was read.
    RunSkipsTimes,
    /// A coordinator runs schedules by its own clock.
    ScheduleUsesWallClock,
    /// A revision becomes current although its content differs.
    FetchIsNotVerified,
    /// A revision that was cut counts as whole.
    FetchTakesCut,
    /// A log that was cut counts as whole.
    UploadTakesCut,
    /// An archive is recorded before the store has confirmed its files.
    ArchiveBeforePut,
    /// A host that does not send counts as one that does not have the files any more.
    SilenceIsLoss,
    /// An upload is forgotten when it is taken.
    UploadIsForgotten,
    /// A result does not note that its files are to be archived.
    FinishMissesUpload,
    /// A failure on a revision on trial is the result of its build.
    FailureOnTrialIsFinal,
    /// A build that was on trial may be on trial again.
    TriedIsForgotten,
    /// A build is claimed for a candidate whose trial has ended.
    ClaimIgnoresTrialEnd,
    /// Hosts are not told that a trial has ended.
    EndOfTrialIsNotTold,
    /// A revision on trial becomes current when it arrives.
    CandidateIsCurrent,
    /// A build that runs on a candidate counts as a success.
    RunningIsSuccess,
    /// A failure counts against a candidate before the build has succeeded elsewhere.
    FailureIsNotCompared,
}

impl Bug {
    /// All bugs.
    pub const ALL: [Self; 64] = [
        Self::FinishIgnoresEpoch,
        Self::FinishIgnoresHost,
        Self::FinishOverwrites,
        Self::ClaimIgnoresState,
        Self::ClaimKeepsEpoch,
        Self::ClaimIgnoresBeat,
        Self::ClaimIgnoresDrain,
        Self::ClaimIgnoresWindows,
        Self::ClaimIgnoresRevision,
        Self::ContentIsIgnored,
        Self::PublishReplacesContent,
        Self::RescueIgnoresBeat,
        Self::LossIsNotCounted,
        Self::UnusedIsLost,
        Self::LostIsUnused,
        Self::SubmitIgnoresKey,
        Self::PublishLowers,
        Self::CancelForgets,
        Self::UnknownIsSuccess,
        Self::WatchIsImpatient,
        Self::WatchUsesWallClock,
        Self::WatchMissesBeats,
        Self::WatchSleeps,
        Self::NoSecondGrant,
        Self::HostTakesAnyAnswer,
        Self::HostUsesWholeLease,
        Self::HostUsesWallClock,
        Self::NoGuard,
        Self::GuestBeforeRecord,
        Self::ReportBeforeStore,
        Self::OutboxForgets,
        Self::UnavailableIsFinal,
        Self::FetchLowers,
        Self::FetchIsNotRepeated,
        Self::OfferIgnoresBuilds,
        Self::RecoveryMissesGuests,
        Self::BatchMixesHosts,
        Self::LeasesAreCached,
        Self::LeasesMissOlderClaims,
        Self::SourceHasOneCopy,
        Self::SourceExpiresInUse,
        Self::ScheduleSourceExpires,
        Self::GuestWithoutSource,
        Self::RunIgnoresKey,
        Self::RunIgnoresMark,
        Self::RunIgnoresPause,
        Self::RunLosesBuild,
        Self::RunForgetsUnfinished,
        Self::RunSkipsTimes,
        Self::ScheduleUsesWallClock,
        Self::FetchIsNotVerified,
        Self::FetchTakesCut,
        Self::UploadTakesCut,
        Self::ArchiveBeforePut,
        Self::SilenceIsLoss,
        Self::UploadIsForgotten,
        Self::FinishMissesUpload,
        Self::FailureOnTrialIsFinal,
        Self::TriedIsForgotten,
        Self::ClaimIgnoresTrialEnd,
        Self::EndOfTrialIsNotTold,
        Self::CandidateIsCurrent,
        Self::RunningIsSuccess,
        Self::FailureIsNotCompared,
    ];
}
