//! Calls to the API server.

use std::time::Duration;

use crate::Error;

/// Time limit for a reply of the API server.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Queries an API server with a time limit.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    server: String,
}

impl Asker {
    pub(crate) fn new(server: String) -> Self {
        Self { server }
    }

    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let server = self.server.clone();
        let Ok(answer) = tokio::time::timeout(ANSWER_WITHIN, answer).await else {
            let seconds = ANSWER_WITHIN.as_secs();
            return Err(Error::Silent { server, what: what.to_owned(), seconds });
        };
        answer.map_err(|error| match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                Error::Forbidden { message: status.message }
            }
            // Lists exist, even if empty, if the resource is known.
            kube::Error::Api(status) if status.is_not_found() => Error::NotInstalled { server },
            source => Error::Ask { server, what: what.to_owned(), source },
        })
    }
}
