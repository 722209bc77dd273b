//! The page that says what an action would do, before it is done.

use askama::Template;

use crate::frame::Frame;
use crate::words::Prose;

/// The page that says what an action would do.
#[derive(Debug, Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The steps, from a dry run.
    pub steps: Vec<String>,
    /// Sentences about what stays as it is.
    pub kept: Vec<String>,
    /// The path to which the form is sent.
    pub action: String,
    /// The fields that the form repeats.
    pub fields: Vec<(String, String)>,
    /// The words on the button.
    pub button: String,
    /// The path of the page to return to.
    pub back: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_repeats_its_fields_and_is_only_offered_if_there_is_something_to_do() {
        let page = |steps: &[&str]| Confirm {
            frame: Frame::plain("Prune"),
            steps: steps.iter().map(ToString::to_string).collect(),
            kept: Vec::new(),
            action: "/machines/demo/prune".to_owned(),
            fields: vec![("keep".to_owned(), "\"><script>".to_owned())],
            button: "Prune".to_owned(),
            back: "/machines/demo".to_owned(),
        };
        let html = page(&["delete revision 1"]).render().unwrap();
        assert!(html.contains("name=\"confirm\" value=\"yes\"") && !html.contains("<script>"));
        assert!(
            !page(&[])
                .render()
                .unwrap()
                .contains("<form class=\"actions\"")
        );
    }
}
