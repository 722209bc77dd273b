//! Tests with real btrfs on loop devices, real QEMU and real containers. They need root, and each
//! runs in a process of its own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails at the first error, and prints its measurements"
)]

mod add_upgrade;
mod agent;
mod agent_kills;
mod archives;
mod arrivals;
mod attach;
mod auxiliaries;
mod backend;
mod bad_input;
mod bbot_workers;
mod bitbake_checkout;
mod caches;
mod cancels;
mod checkpoints;
mod ci_systems;
mod cleanup_delete;
mod confinement;
mod consoles;
mod containers;
mod content_manifests;
mod content_records;
mod controller_kills;
mod controllers;
mod disk_pressure;
mod doctor;
mod driven_guests;
mod dry_run;
mod egress;
mod escaped_qemu;
mod farm_hosts;
mod feeds;
mod fetch;
mod flood;
mod forks;
mod full_disk;
mod gitlab;
mod guest_failures;
mod guests;
mod hash_equivalence;
mod host_pressure;
mod hostile_builds;
mod hostile_guest;
mod hostile_images;
mod hostile_streams;
mod hostile_tools;
mod image_make;
mod import_export;
mod import_formats;
mod load;
mod manifest_formats;
mod manual_changes;
mod messages;
mod notifications;
mod packagers;
mod power_cut;
mod project_bisect;
mod push_pull;
mod queue;
mod ready_guests;
mod rebuild_bisect;
mod remote_agent;
mod resources;
mod resumed_transfers;
mod revision_diff;
mod revision_retention;
mod revisions;
mod sandbox_escape;
mod schedules;
mod secrets;
mod service;
mod shared_networks;
mod signed_provenance;
mod sizes;
mod socket_group;
mod ssh_mirrors;
mod stock_debian;
mod stream_chains;
mod syscall_faults;
mod tftp;
mod trials;
mod two_volumes;
mod uefi;
mod volumes;
mod web_page;
