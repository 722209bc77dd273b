//! The steps of a report, in their order: uploads, then the result; pure.

use crate::Upload;

/// The next step of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file is uploaded.
    Upload(Upload),
    /// The result is sent, which settles the lease.
    Result,
}

/// Returns the next step of a report. `sent` are the parts that the controller has.
pub fn next_step(uploads: &[Upload], sent: &[String]) -> Step {
    let missing = uploads.iter().find(|upload| !sent.contains(&upload.part()));
    missing.map_or(Step::Result, |upload| Step::Upload(upload.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_upload_comes_before_the_result_and_none_twice() {
        let upload = |instance: &str| Upload {
            kind: "archive".into(),
            instance: instance.into(),
            name: "x.tar".into(),
            path: "/x".into(),
        };
        let uploads = [upload("a"), upload("b")];
        let mut sent = Vec::new();
        for expected in &uploads {
            let Step::Upload(next) = next_step(&uploads, &sent) else {
                panic!("an upload is missing");
            };
            assert_eq!(next, *expected);
            sent.push(next.part());
        }
        assert_eq!(next_step(&uploads, &sent), Step::Result);
        assert_eq!(next_step(&[], &[]), Step::Result);
    }
}
