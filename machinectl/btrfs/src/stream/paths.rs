//! Maps of paths to what is known of them.

use std::collections::BTreeMap;

/// Removes and returns what is below a directory, with the rest of its path, which begins with a
/// slash.
pub(super) fn take_below<V>(map: &mut BTreeMap<Vec<u8>, V>, path: &[u8]) -> Vec<(Vec<u8>, V)> {
    // The slash is followed by `0`.
    let range = [path, b"/"].concat()..[path, b"0"].concat();
    let below: Vec<_> = map.range(range).map(|(path, _)| path.clone()).collect();
    below
        .into_iter()
        .filter_map(|it| Some((it[path.len()..].to_owned(), map.remove(&it)?)))
        .collect()
}

/// Moves an entry with all that is below it. An entry at the new path is replaced.
pub fn rename<V>(map: &mut BTreeMap<Vec<u8>, V>, from: &[u8], to: &[u8]) {
    let (moved, below) = (map.remove(from), take_below(map, from));
    remove(map, to);
    map.extend(moved.map(|it| (to.to_owned(), it)));
    map.extend(
        below
            .into_iter()
            .map(|(rest, it)| ([to, &rest].concat(), it)),
    );
}

/// Removes an entry with all that is below it.
pub fn remove<V>(map: &mut BTreeMap<Vec<u8>, V>, path: &[u8]) {
    map.remove(path);
    take_below(map, path);
}
