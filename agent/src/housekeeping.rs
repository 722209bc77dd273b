//! Housekeeping: retention, disk pressure, the doctor, the SLSA check, machined.

pub mod disk_pressure;
pub mod doctor;
pub mod machined;
pub mod retention;
pub mod slsa;
