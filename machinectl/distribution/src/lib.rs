//! The maker of machines from Linux distributions.
//!
//! A recipe fills a directory with a root file system; the built-in one makes Debian. Then the
//! guest's side of Buildhost is added, and the result becomes the files of a machine, which an
//! import makes a revision. [`plan()`] decides, and [`Making`] acts. Programs of others run as root
//! of a user namespace, see [`sys::user_namespace`].

mod error;
mod make;
mod mirrors;
mod plan;
mod request;
mod work_directory;
mod worker;

pub use error::DistributionError;
pub use make::{MadeMachine, Making};
pub use mirrors::{AptSources, host_sources};
pub use plan::{Plan, plan};
pub use request::{NameFault, PackageName, Recipe, Request, Suite};
pub use worker::{WorkerProgram, find as find_worker};
