//! The text of mail; pure. Names of packages and messages come from others: no header has a line end
//! of theirs, and each line of the text is shown as one.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use config::notify::{Notice, NotifyKind, Problem, ToldBuild};
use config::printable;

use crate::Site;

/// The longest line of the text, in bytes.
const LINE_MAX: usize = 300;
/// The longest subject, in bytes.
const SUBJECT_MAX: usize = 200;
/// The largest number of bytes in an encoded word of a header.
const WORD_BYTES_MAX: usize = 42;

/// The words with which compilers, build tools and shells begin errors.
const ERROR_WORDS: [&str; 5] = ["error:", "ERROR:", "fatal error", "FATAL:", "*** ["];
/// The number of lines with errors that are shown.
const ERRORS_MAX: usize = 5;

/// The sender of mail.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'s> {
    /// The host or farm.
    pub site: Site<'s>,
    /// The address; that of the site if `None`.
    pub from: Option<&'s str>,
    /// The beginning of the address of a build's page.
    pub link: Option<&'s str>,
}

/// Returns the first lines of a log that tell of errors.
pub fn first_errors(log: &str) -> Vec<String> {
    let lines = log.lines().map(str::trim);
    let is_error = |line: &&str| ERROR_WORDS.iter().any(|word| line.contains(word));
    lines.filter(is_error).take(ERRORS_MAX).map(line).collect()
}

/// Returns a message with its headers, as `sendmail -t` reads it.
pub fn message<B: ToldBuild>(
    sender: &Sender<'_>,
    to: &[String],
    id: &str,
    notice: &Notice<B>,
    errors: &[String],
) -> String {
    let name = sender.site.name();
    let from = sender.from;
    let domain = domain(name);
    let from = from.map_or_else(|| format!("buildhost@{domain}"), str::to_owned);
    let date = notice.timestamp.strftime("%a, %d %b %Y %H:%M:%S +0000");
    let subject = header(&format!("[{name}] {}", subject(notice)));
    let mut text = format!(
        "From: {from}\nTo: {}\nSubject: {subject}\nDate: {date}\nMessage-ID: <{id}@{domain}>\n\
         Auto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n",
        to.join(", ")
    );
    // Writing into memory cannot fail.
    let _ = match (&notice.data.build, &notice.data.problem) {
        (Some(build), _) => about(&mut text, sender, &**build, notice, errors),
        (None, Some(problem)) => about_problem(&mut text, sender.site, problem, notice),
        (None, None) => writeln!(text, "This is a test of the rule {}.", notice.data.rule),
    };
    text
}

fn subject<B: ToldBuild>(notice: &Notice<B>) -> String {
    if let Some(problem) = &notice.data.problem {
        let word = if notice.kind == NotifyKind::ProblemEnded {
            "ended: "
        } else {
            ""
        };
        let Problem { id, subject, .. } = problem;
        let blank = if subject.is_empty() { "" } else { " " };
        return format!("{word}{id}{blank}{subject}");
    }
    let Some(build) = &notice.data.build else {
        return format!("test of {}", notice.data.rule);
    };
    let outcome = outcome(&**build);
    let words = match notice.kind {
        NotifyKind::Failed => "failed".to_owned(),
        NotifyKind::Fixed => "succeeds again".to_owned(),
        _ => format!("ended: {outcome}"),
    };
    format!("{} on {} {words}", build.package(), build.machine())
}

fn outcome(build: &impl ToldBuild) -> String {
    build.outcome().map(|it| it.to_string()).unwrap_or_default()
}

fn about<B: ToldBuild>(
    text: &mut String,
    sender: &Sender<'_>,
    build: &B,
    notice: &Notice<B>,
    errors: &[String],
) -> std::fmt::Result {
    writeln!(text, "{}.", line(&subject(notice)))?;
    if !build.message().is_empty() {
        writeln!(text)?;
        for it in build.message().lines() {
            writeln!(text, "{}", line(it))?;
        }
    }
    if !errors.is_empty() {
        writeln!(text, "\nThe first errors in its log:\n")?;
        for it in errors {
            writeln!(text, "    {}", line(it))?;
        }
    }
    let (id, site) = (build.id(), sender.site);
    let preposition = match site {
        Site::Host(_) => "on",
        Site::Farm(_) => "of",
    };
    writeln!(
        text,
        "\nBuild:     {id} {preposition} {} {}",
        site.word(),
        line(site.name())
    )?;
    if let Some(host) = build.host() {
        writeln!(text, "Host:      {}", line(host))?;
    }
    writeln!(text, "Outcome:   {}", outcome(build))?;
    writeln!(text, "Toolchain: {}", build.toolchain())?;
    writeln!(text, "Submitter: {}", line(&build.submitter().to_string()))?;
    if let Some(before) = &notice.data.before {
        let word = if before.good { "succeeded" } else { "failed" };
        let since = before.since.strftime("%Y-%m-%d %H:%M UTC");
        writeln!(
            text,
            "Before:    {word} since build {} ({since})",
            before.build
        )?;
    }
    match (sender.link, site) {
        (Some(link), _) => writeln!(text, "Page:      {link}{id}"),
        (None, Site::Host(_)) => {
            writeln!(text, "\n`buildhost log {id}` on the host shows its log.")
        }
        (None, Site::Farm(_)) => {
            writeln!(text, "\n`buildhost --farm URL log {id}` shows its log.")
        }
    }
}

fn about_problem<B: ToldBuild>(
    text: &mut String,
    site: Site<'_>,
    problem: &Problem,
    notice: &Notice<B>,
) -> std::fmt::Result {
    let Problem {
        id,
        proof,
        advice,
        since,
        ..
    } = problem;
    let since = since.strftime("%Y-%m-%d %H:%M UTC");
    writeln!(text, "{}.\n", line(id.meaning()))?;
    writeln!(text, "Problem:  {}", line(&subject(notice)))?;
    let (word, name) = match site {
        Site::Host(name) => ("Host", name),
        Site::Farm(name) => ("Farm", name),
    };
    writeln!(text, "{word}:     {}", line(name))?;
    writeln!(text, "Evidence: {}", line(proof))?;
    writeln!(text, "Since:    {since}")?;
    if notice.kind == NotifyKind::ProblemEnded {
        let end = notice.timestamp.strftime("%Y-%m-%d %H:%M UTC");
        return writeln!(text, "Ended:    {end}");
    }
    writeln!(text, "Advice:   {}", line(advice))?;
    if let Site::Host(_) = site {
        writeln!(text, "\n`buildhost doctor` on the host tells more.")?;
    }
    Ok(())
}

/// Returns the name of a host or farm as a part of addresses.
fn domain(name: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    name.replace(|c| !is_allowed(c), "-")
}

/// Returns text as one line that is shown as it is. A dot alone would end the input of sendmail.
fn line(text: &str) -> String {
    if text == "." {
        return " .".to_owned();
    }
    let mut text = printable(text).to_string().replace(['\r', '\n'], " ");
    text.truncate(text.floor_char_boundary(LINE_MAX));
    text
}

/// Returns text as the value of a header: in ASCII, on one line, or in encoded words (RFC 2047).
fn header(text: &str) -> String {
    let mut text = line(text);
    text.truncate(text.floor_char_boundary(SUBJECT_MAX));
    let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !text.contains("=?");
    if is_plain {
        return text;
    }
    let mut words = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD_BYTES_MAX));
        words.push(format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(word)));
        rest = after;
    }
    words.join("\n ")
}

#[cfg(test)]
mod tests {
    use config::builds::{Build, Submitter};
    use config::notify::{NoticeData, PackageState, ProblemId};
    use config::task::Outcome;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn notice(message: &str) -> Notice {
        let request = r#"{"machine": "linux", "target": "hello-1.0", "sources": []}"#;
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut build = Build::new(
            config::BuildId(7),
            serde_json::from_str(request).unwrap(),
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            second(1_780_000_000),
        );
        build.outcome = Some(Outcome::Error);
        build.message = message.to_owned();
        Notice {
            kind: NotifyKind::Failed,
            timestamp: second(1_780_000_000),
            data: NoticeData {
                rule: "team".parse().unwrap(),
                before: Some(PackageState {
                    good: true,
                    build: config::BuildId(3),
                    since: second(1_770_000_000),
                }),
                build: Some(Box::new(build)),
                problem: None,
            },
        }
    }

    #[test]
    fn a_person_reads_which_problem_began_and_that_it_ended() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut notice = notice("");
        notice.kind = NotifyKind::ProblemBegan;
        notice.data = NoticeData {
            rule: "team".parse().unwrap(),
            before: None,
            build: None,
            problem: Some(Problem {
                id: ProblemId::Host(config::doctor::Id::LowSpace),
                subject: "/volume".to_owned(),
                proof: "3 MiB are free".to_owned(),
                advice: "delete machines".to_owned(),
                since: second(1_780_000_000),
            }),
        };
        let sender = Sender {
            site: Site::Host("build1"),
            from: None,
            link: None,
        };
        let text =
            |notice: &Notice| message(&sender, &["a@example.org".to_owned()], "msg_1", notice, &[]);
        let began = text(&notice);
        assert!(
            began.contains("\nSubject: [build1] low-space /volume\n"),
            "{began}"
        );
        let (_, body) = began.split_once("\n\n").unwrap();
        let expected = "\
the free space is below the reserve; nothing starts.

Problem:  low-space /volume
Host:     build1
Evidence: 3 MiB are free
Since:    2026-05-28 20:26 UTC
Advice:   delete machines

`buildhost doctor` on the host tells more.
";
        assert_eq!(body, expected);
        notice.kind = NotifyKind::ProblemEnded;
        notice.timestamp = second(1_780_000_600);
        let ended = text(&notice);
        assert!(
            ended.contains("\nSubject: [build1] ended: low-space /volume\n"),
            "{ended}"
        );
        assert!(
            ended.ends_with("\nEnded:    2026-05-28 20:36 UTC\n"),
            "{ended}"
        );
    }

    fn text(message: &str, errors: &[String]) -> String {
        let sender = Sender {
            site: Site::Host("build1"),
            from: None,
            link: Some("https://b.example/builds/"),
        };
        let to = ["a@example.org".to_owned(), "b@example.org".to_owned()];
        super::message(&sender, &to, "msg_1", &notice(message), errors)
    }

    #[test]
    fn a_person_reads_what_failed_and_why() {
        let log = "cc -c a.c\na.c:1:2: error: expected `;`\nmake: *** [Makefile:1: a.o] Error 1\n";
        let expected = "\
From: buildhost@build1
To: a@example.org, b@example.org
Subject: [build1] hello-1.0 on linux failed
Date: Thu, 28 May 2026 20:26:40 +0000
Message-ID: <msg_1@build1>
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

hello-1.0 on linux failed.

make failed

The first errors in its log:

    a.c:1:2: error: expected `;`
    make: *** [Makefile:1: a.o] Error 1

Build:     7 on host build1
Outcome:   error
Toolchain: default
Submitter: root
Before:    succeeded since build 3 (2026-02-02 02:40 UTC)
Page:      https://b.example/builds/7
";
        assert_eq!(text("make failed", &first_errors(log)), expected);
    }

    #[test]
    fn a_farm_with_any_name_has_addresses() {
        let sender = Sender {
            site: Site::Farm("Kamera Köln"),
            from: None,
            link: None,
        };
        let to = ["a@example.org".to_owned()];
        let text = super::message(&sender, &to, "msg_1", &notice("make failed"), &[]);
        assert!(text.contains("From: buildhost@Kamera-K-ln\n"), "{text}");
        assert!(text.contains("Message-ID: <msg_1@Kamera-K-ln>\n"), "{text}");
        assert!(
            text.contains("\nBuild:     7 of farm Kamera Köln\n"),
            "{text}"
        );
        assert!(
            text.contains("`buildhost --farm URL log 7` shows its log."),
            "{text}"
        );
    }

    #[test]
    fn a_message_that_is_a_dot_does_not_end_the_mail() {
        assert!(text(".", &[]).contains("\n .\n"));
    }

    proptest! {
        #[test]
        fn nothing_that_others_write_becomes_a_header(message in any::<String>(), log in any::<String>()) {
            let errors = first_errors(&format!("error: {log}"));
            let text = text(&message, &errors);
            let (headers, _) = text.split_once("\n\n").unwrap();
            prop_assert_eq!(headers.lines().count(), 9);
            prop_assert!(text.lines().all(|line| line.len() < 998 && line != "."));
            prop_assert!(!text.contains('\r'));
        }

        #[test]
        fn a_header_is_ascii_in_short_lines(subject in any::<String>()) {
            let header = header(&subject);
            for (index, line) in header.split('\n').enumerate() {
                prop_assert!(line.is_ascii() && line.len() <= SUBJECT_MAX);
                prop_assert!(index == 0 || line.starts_with(" =?utf-8?B?"), "{:?}", line);
                prop_assert!(!line.contains('\r'));
            }
        }
    }
}
