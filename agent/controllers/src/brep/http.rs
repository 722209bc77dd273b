//! The HTTP requests of the protocol.

use config::settings::ControllerRules;
use reqwest_tls::StatusCode;
use reqwest_tls::blocking::Client;
use reqwest_tls::blocking::multipart::Form;
use reqwest_tls::header::CONTENT_TYPE;

use crate::http::{self, answer, is_final, read, refusal, send};
use crate::{Answer, TakeError, Upload};

const MANIFEST: &str = "text/manifest;charset=utf-8";
/// The largest size of a task.
const TASK_BYTES_MAX: u64 = 4 << 20;

/// The client of one controller.
#[derive(Debug)]
pub(super) struct Http {
    rules: ControllerRules,
}

impl Http {
    pub(super) fn new(rules: &ControllerRules) -> Self {
        Self {
            rules: rules.clone(),
        }
    }

    fn client(&self) -> Result<Client, String> {
        http::client(self.rules.connect_max, self.rules.request_max)
    }

    /// Sends a request for a task and returns the answer.
    pub(super) fn request_task(&self, body: String) -> Result<String, TakeError> {
        let client = self.client().map_err(TakeError::Unavailable)?;
        let request = client
            .post(&self.rules.url)
            .header(CONTENT_TYPE, MANIFEST)
            .body(body);
        let response = send(request).map_err(TakeError::Unavailable)?;
        let status = response.status();
        if status != StatusCode::OK {
            let text = refusal(response);
            return Err(if is_final(status) {
                TakeError::Refused(text)
            } else {
                TakeError::Unavailable(text)
            });
        }
        let bytes = read(response, TASK_BYTES_MAX).map_err(TakeError::Unavailable)?;
        if bytes.len() as u64 > TASK_BYTES_MAX {
            let limit = TASK_BYTES_MAX >> 20;
            return Err(TakeError::Refused(format!(
                "its answer is larger than {limit} MiB"
            )));
        }
        String::from_utf8(bytes)
            .map_err(|_| TakeError::Refused("its answer is not UTF-8".to_owned()))
    }

    /// Sends a result.
    pub(super) fn report(&self, url: &str, body: Vec<u8>) -> Answer {
        self.client().map_or_else(Answer::Retry, |client| {
            let request = client.post(url).header(CONTENT_TYPE, MANIFEST).body(body);
            answer(send(request))
        })
    }

    /// Uploads a file.
    pub(super) fn upload(
        &self,
        url: &str,
        session: &str,
        challenge: Option<&str>,
        upload: &Upload,
    ) -> Answer {
        let form = match form(session, challenge, upload) {
            Ok(form) => form,
            Err(error) => return Answer::Retry(error.to_string()),
        };
        self.client().map_or_else(Answer::Retry, |client| {
            answer(send(client.post(url).multipart(form)))
        })
    }
}

/// Returns the form of an upload.
fn form(session: &str, challenge: Option<&str>, upload: &Upload) -> std::io::Result<Form> {
    let digest = sys::file::digest(sys::trusted::open(&upload.path)?)?;
    let mut form = Form::new().text("session", session.to_owned());
    if let Some(challenge) = challenge {
        form = form.text("challenge", challenge.to_owned());
    }
    let file = sys::trusted::open(&upload.path)?;
    let bytes = file.metadata()?.len();
    let archive = reqwest_tls::blocking::multipart::Part::reader_with_length(file, bytes)
        .file_name(upload.name.clone());
    Ok(form
        .text("instance", upload.instance.clone())
        .part("archive", archive)
        .text("sha256sum", digest.to_string()))
}
