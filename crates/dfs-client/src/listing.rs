//! The entries of a directory.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dfs_proto::v1;
use dfs_proto::wire::{self, FieldError};
use dfs_types::Target;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use tonic::Streaming;

use crate::{Client, Entry, Error, FileStat};

/// Entries requested at a time.
const LIST_PAGE: u64 = 1_000;

/// The entries of a directory in name order, fetched page by page.
///
/// An entry that exists throughout is listed exactly once, regardless of concurrent changes. Memory
/// is bounded by a page of 1,000 entries. As a [`Stream`] it ends after its first error;
/// [`Listing::next`] may be called again after one, and retries the same page.
pub struct Listing {
    client: Client,
    directory: Target,
    after: Bytes,
    ready: VecDeque<Entry>,
    is_complete: bool,
    has_failed: bool,
    /// The page being fetched.
    page: Option<BoxFuture<'static, Result<Vec<Entry>, Error>>>,
}

impl Client {
    /// Lists a directory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::DfsPath;
    /// # use dfs_client::{PutOptions, PutSource};
    ///
    /// # let path = DfsPath::new("/songs")?;
    /// # client.put(&path, PutSource::bytes("la la la"), PutOptions::default()).await?;
    /// let mut listing = client.list(&DfsPath::root());
    /// while let Some(entry) = listing.next().await? {
    ///     println!("{} has {} bytes", entry.name, entry.stat.size);
    /// #     assert_eq!((entry.name.to_string().as_str(), entry.stat.size), ("songs", 8));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, directory: impl Into<Target>) -> Listing {
        Listing {
            client: self.clone(),
            directory: directory.into(),
            after: Bytes::new(),
            ready: VecDeque::new(),
            is_complete: false,
            has_failed: false,
            page: None,
        }
    }
}

impl Listing {
    /// Returns the next entry; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        std::future::poll_fn(|cx| self.poll_entry(cx)).await
    }

    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Entry>, Error>> {
        if self.ready.is_empty() && !self.is_complete {
            let page = self.page.get_or_insert_with(|| {
                let (client, directory, after) =
                    (self.client.clone(), self.directory.clone(), self.after.clone());
                let page =
                    async move { client.with_request_id(page(&client, directory, after)).await };
                page.boxed()
            });
            let fetched = ready!(page.poll_unpin(cx));
            self.page = None;
            let fetched = match fetched {
                Ok(fetched) => fetched,
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.is_complete = (fetched.len() as u64) < LIST_PAGE;
            if let Some(last) = fetched.last() {
                self.after = last.name.to_bytes();
            }
            self.ready = fetched.into();
        }
        Poll::Ready(Ok(self.ready.pop_front()))
    }
}

impl Stream for Listing {
    type Item = Result<Entry, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let listing = self.get_mut();
        if listing.has_failed {
            return Poll::Ready(None);
        }
        let entry = ready!(listing.poll_entry(cx));
        listing.has_failed = entry.is_err();
        Poll::Ready(entry.transpose())
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("directory", &self.directory).finish_non_exhaustive()
    }
}

async fn page(client: &Client, directory: Target, after: Bytes) -> Result<Vec<Entry>, Error> {
    let context = directory.to_string();
    let request = v1::ListRequest { target: Some(directory.into()), after, limit: LIST_PAGE };
    // The stream is read within the call, so that a broken one is retried.
    let entries = client.call(&context, |mut c| {
        let request = request.clone();
        async move {
            let pages: Streaming<v1::ListPage> = c.list_directory(request).await?.into_inner();
            let entries = collect(pages).await?;
            Ok(tonic::Response::new(entries))
        }
    });
    let entries = entries.await?.into_iter().map(entry).collect::<Result<_, _>>();
    entries.map_err(|error| Error::wire(context, &error))
}

async fn collect(
    mut pages: Streaming<v1::ListPage>,
) -> Result<Vec<v1::DirectoryEntry>, tonic::Status> {
    let mut entries = Vec::new();
    while let Some(page) = pages.message().await? {
        entries.extend(page.entries);
        if entries.len() as u64 > LIST_PAGE {
            return Err(tonic::Status::internal("a listing is longer than was asked for"));
        }
    }
    Ok(entries)
}

fn entry(entry: v1::DirectoryEntry) -> Result<Entry, FieldError> {
    Ok(Entry {
        name: wire::name("entries.name", &entry.name)?,
        stat: FileStat::from_wire(entry.stat)?,
    })
}
