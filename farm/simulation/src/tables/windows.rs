//! The windows of hosts.

use farm_core::HostId;
use farm_core::operation::Answer;
use farm_core::windows::{NewWindow, Occurrence, Window, WindowId};

use super::Tables;

impl Tables {
    pub(super) fn add_window(&mut self, host: HostId, new: NewWindow) -> Answer {
        let Some(record) = self.hosts.get_mut(&host) else {
            return Answer::NotFound;
        };
        let mut windows = record.windows.values_mut();
        if let Some(same) = windows.find(|it| it.occurrence == new.occurrence) {
            (same.weekly, same.reason) = (new.weekly, new.reason);
            record.orders += 1;
            return Answer::Window(same.id);
        }
        self.windows += 1;
        let id = WindowId(self.windows);
        let window = Window {
            id,
            occurrence: new.occurrence,
            weekly: new.weekly,
            reason: new.reason,
        };
        record.windows.insert(id, window);
        record.orders += 1;
        Answer::Window(id)
    }

    pub(super) fn remove_window(&mut self, host: HostId, id: WindowId) -> Answer {
        let Some(record) = self.hosts.get_mut(&host) else {
            return Answer::NotFound;
        };
        record.windows.remove(&id);
        record.orders += 1;
        Answer::Done
    }

    pub(super) fn move_window(
        &mut self,
        id: WindowId,
        over: Occurrence,
        next: Option<Occurrence>,
    ) -> Answer {
        for record in self.hosts.values_mut() {
            let found = record.windows.get_mut(&id);
            let Some(window) = found.filter(|it| it.occurrence == over) else {
                continue;
            };
            match next {
                Some(next) => window.occurrence = next,
                None => drop(record.windows.remove(&id)),
            }
        }
        Answer::Done
    }
}
