//! Builds as Toaster's monitoring API shows them, byte for byte. docs/toaster.md explains each field.

pub mod answer;
mod facts;
mod python;
mod view;

pub use facts::Facts;
pub use python::to_json;
pub use view::{
    AnyBuild, Building, Finished, FinishedList, OneBuild, Recent, Unfinished, finished, micros,
    recent, unfinished, with_log,
};
