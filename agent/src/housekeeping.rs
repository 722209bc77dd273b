//! Housekeeping: retention, disk pressure, the doctor.

pub mod disk_pressure;
pub mod doctor;
pub mod retention;
