//! The rows of the service.

use serde::Serialize;

/// The key of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskKey {
    /// The function that computes outhashes.
    pub method: String,
    /// The hash of the task's input.
    pub taskhash: String,
}

/// The unihash of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The task.
    pub task: TaskKey,
    /// Its unihash.
    pub unihash: String,
}

/// The report of a task that has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The task.
    pub task: TaskKey,
    /// The hash of its output.
    pub outhash: String,
    /// The unihash that the task gets unless it is equivalent to another one.
    pub unihash: String,
    /// The origin of the report.
    pub origin: Origin,
}

/// The origin of a report. For people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The user.
    pub owner: Option<String>,
    /// The name of the recipe.
    #[serde(rename = "PN")]
    pub pn: Option<String>,
    /// Its version.
    #[serde(rename = "PV")]
    pub pv: Option<String>,
    /// Its revision.
    #[serde(rename = "PR")]
    pub pr: Option<String>,
    /// The name of the task.
    pub task: Option<String>,
    /// The text of which the outhash is the hash.
    pub outhash_siginfo: Option<String>,
}

/// A recorded report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedReport {
    /// The number of the row.
    pub id: i64,
    /// The method of the task.
    pub method: String,
    /// The hash of its input.
    pub taskhash: String,
    /// The hash of its output.
    pub outhash: String,
    /// The time of the report in ISO 8601.
    pub created: Option<String>,
    /// The origin.
    #[serde(flatten)]
    pub origin: Origin,
    /// The unihash of the task, if it was asked for.
    #[serde(flatten)]
    pub unihash: Option<RecordedUnihash>,
}

/// A recorded unihash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedUnihash {
    /// The unihash.
    pub unihash: String,
    /// The mark of the last garbage collection that keeps it.
    pub gc_mark: String,
}

impl RecordedReport {
    /// Returns the unihash of the task, if it was asked for.
    pub fn mapping(&self) -> Option<Mapping> {
        let recorded = self.unihash.as_ref()?;
        Some(Mapping {
            task: self.task(),
            unihash: recorded.unihash.clone(),
        })
    }

    /// Returns the report as it was made.
    pub fn to_report(&self) -> Report {
        let recorded = self.unihash.as_ref();
        Report {
            task: self.task(),
            outhash: self.outhash.clone(),
            unihash: recorded.map_or_else(String::new, |recorded| recorded.unihash.clone()),
            origin: self.origin.clone(),
        }
    }

    fn task(&self) -> TaskKey {
        TaskKey {
            method: self.method.clone(),
            taskhash: self.taskhash.clone(),
        }
    }
}
