//! Housekeeping: retention, disk pressure, the doctor, the SLSA check.

pub mod disk_pressure;
pub mod doctor;
pub mod retention;
pub mod slsa;
