//! The schedules: each coordinator runs what is due. The store decides if several try the same.

use std::collections::BTreeSet;

use config::ScheduleName;
use farm_core::operation::{Answer, Operation};
use farm_core::schedules::due;
use tracing::{info, warn};

use super::Coordinator;

impl Coordinator {
    /// Runs the schedules that are due. `invalid` has those whose timing was found to be invalid before, so
    /// that each is logged once.
    pub(super) async fn look_at_schedules(&self, invalid: &mut BTreeSet<ScheduleName>) {
        let answer = self.store.apply(&Operation::Schedules).await;
        self.counters.count(&Operation::Schedules, &answer);
        let Ok(Answer::Schedules { now, schedules }) = answer else {
            return;
        };
        let round = due(now, &schedules);
        for (name, occasion) in round.runs {
            let run = Operation::RunSchedule(name.clone(), occasion);
            let answer = self.store.apply(&run).await;
            self.note(&run, &answer);
            if let Ok(Answer::Ran(build, result)) = answer {
                info!(schedule = %name, %build, %result, "ran a schedule");
            }
        }
        let known = std::mem::take(invalid);
        for (name, error) in round.invalid {
            if !known.contains(&name) {
                let error = error.to_string();
                warn!(schedule = %name, error, "the timing of a schedule is invalid here");
            }
            invalid.insert(name);
        }
    }
}
