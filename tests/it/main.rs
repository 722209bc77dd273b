//! Rooms together, on fakes and localhost: no root, no sleeps.

mod store;
