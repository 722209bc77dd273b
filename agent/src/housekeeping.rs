//! Everything that keeps the host in order: retention, disk pressure, the doctor.

pub mod disk_pressure;
pub mod doctor;
pub mod retention;
