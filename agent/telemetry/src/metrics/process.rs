//! The metrics of the agent's process, under the names that all clients of Prometheus use.

use procfs::ProcResult;
use procfs::process::{LimitValue, Process};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Returns the metrics of this process in OpenMetrics; an empty text if the kernel does not tell.
/// Blocks.
pub(super) fn to_text() -> String {
    let mut text = String::new();
    if let Ok(registry) = read() {
        // Writing into memory cannot fail.
        let _ = encode(&mut text, &registry);
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "the values are far smaller")]
fn read() -> ProcResult<Registry> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let mut all = Registry::with_prefix("process");
    let cpu = (stat.utime + stat.stime) as f64 / ticks;
    let cpu: ConstCounter<f64> = ConstCounter::new(cpu);
    all.register_with_unit("cpu", "Processor time", Unit::Seconds, cpu);
    let boot = procfs::boot_time_secs()? as f64;
    let mut gauge = |name: &str, help: &str, value: f64| {
        all.register(name, help, ConstGauge::<f64>::new(value));
    };
    let began = boot + stat.starttime as f64 / ticks;
    gauge("start_time_seconds", "Start of the process", began);
    let resident = stat.rss as f64 * procfs::page_size() as f64;
    gauge("resident_memory_bytes", "Memory in RAM", resident);
    gauge(
        "virtual_memory_bytes",
        "Size of the address space",
        stat.vsize as f64,
    );
    gauge("threads", "Threads", stat.num_threads as f64);
    gauge(
        "open_fds",
        "Open file descriptors",
        process.fd_count()? as f64,
    );
    if let LimitValue::Value(most) = process.limits()?.max_open_files.soft_limit {
        gauge("max_fds", "Limit on open file descriptors", most as f64);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_its_metrics() {
        let text = super::to_text();
        for name in [
            "cpu_seconds_total",
            "start_time_seconds",
            "resident_memory_bytes",
            "virtual_memory_bytes",
            "threads",
            "open_fds",
            "max_fds",
        ] {
            let line = format!("\nprocess_{name} ");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
