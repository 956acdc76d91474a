use futures_util::stream;
use proptest::prelude::*;
use tonic::Code;
use v1::chunk_data::Kind;

use super::*;

fn frame(data: &[u8]) -> v1::ChunkFrame {
    v1::ChunkFrame {
        offset: 65_536,
        data: Bytes::copy_from_slice(data),
        block_crc32c: vec![1, 2, 3],
        is_final: true,
        total_length: 7,
        total_crc32c: 9,
        total_sha256: Bytes::from_static(&[5; 32]),
        origin: Some(v1::ChunkOrigin { inode: 3, path: "/f".into(), file_offset: 0 }),
    }
}

fn encoded(message: impl Bulk) -> Vec<u8> {
    let (mut head, bulk) = message.into_parts();
    head.extend_from_slice(&bulk);
    head
}

#[test]
fn parts_decode_as_one_protobuf_message() {
    for data in [vec![], vec![1], vec![7; 100_000]] {
        let of_frame = frame(&data);
        assert_eq!(v1::ChunkFrame::decode(&encoded(of_frame.clone())[..]), Ok(of_frame.clone()));
        let of_data = v1::ChunkData { kind: Some(Kind::Frame(of_frame)) };
        assert_eq!(v1::ChunkData::decode(&encoded(of_data.clone())[..]), Ok(of_data));
    }
    let attach = v1::Attach { session_id: Bytes::from_static(&[1; 16]), attach_number: 3 };
    let attach = v1::ChunkData { kind: Some(Kind::Attach(attach)) };
    assert_eq!(v1::ChunkData::decode(&encoded(attach.clone())[..]), Ok(attach));
}

#[test]
fn frame_bytes_are_not_copied_on_either_side() {
    let sent = frame(&vec![7; 100_000]);
    let at = sent.data.as_ptr();
    let (head, bulk) = v1::ChunkData { kind: Some(Kind::Frame(sent)) }.into_parts();
    assert_eq!(bulk.as_ptr(), at);
    let mut received = Received::default();
    let length = (head.len() + bulk.len()) as u32;
    received.push([&[0], &length.to_be_bytes()[..], &head].concat().into());
    assert_eq!(received.take_message::<v1::ChunkData>().unwrap(), None);
    received.push(bulk);
    let message = received.take_message::<v1::ChunkData>().unwrap().unwrap();
    let Some(Kind::Frame(frame)) = message.kind else { panic!("it was a frame") };
    assert_eq!(frame.data.as_ptr(), at);
    assert_eq!(received.remaining(), 0);
}

/// Returns all bytes of a body, and the status at its end.
async fn drained<S, M>(mut body: Outgoing<S>) -> (Vec<u8>, Option<Status>)
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Bulk,
{
    let mut bytes = Vec::new();
    let mut status = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(trailers) => status = Status::from_header_map(trailers.trailers_ref().unwrap()),
        }
    }
    (bytes, status)
}

#[tokio::test]
async fn only_responses_end_with_a_status() {
    let messages = || stream::iter([Ok(frame(b"abc"))]);
    let ended = |end| Outgoing { messages: messages(), bulk: Bytes::new(), end };
    let (of_request, status) = drained(ended(End::Request)).await;
    assert!(status.is_none());
    let (of_answer, status) = drained(ended(End::Answer)).await;
    assert_eq!(of_request, of_answer);
    assert_eq!(status.unwrap().code(), Code::Ok);
    let messages = stream::iter([Ok(frame(b"abc")), Err(Status::data_loss("flipped"))]);
    let (bytes, status) =
        drained(Outgoing { messages, bulk: Bytes::new(), end: End::Answer }).await;
    assert_eq!(bytes, of_answer);
    let status = status.unwrap();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "flipped"));
}

fn incoming(pieces: Vec<Bytes>, owes_status: bool) -> Incoming<v1::ChunkFrame> {
    struct Pieces(VecDeque<Bytes>);
    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }
    Incoming::new(Body::new(Pieces(pieces.into())), owes_status)
}

#[tokio::test]
async fn truncated_stream_is_an_error() {
    let body = Outgoing {
        messages: stream::iter([Ok(frame(b"abc"))]),
        bulk: Bytes::new(),
        end: End::Request,
    };
    let (bytes, _) = drained(body).await;
    let bytes = Bytes::from(bytes);
    let mut whole = incoming(vec![bytes.clone()], false);
    assert_eq!(whole.message().await.unwrap(), Some(frame(b"abc")));
    assert_eq!(whole.message().await.unwrap(), None);
    let mut without_status = incoming(vec![bytes.clone()], true);
    assert!(without_status.message().await.unwrap().is_some());
    assert_eq!(without_status.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(without_status.next().await.is_none());
    let mut within = incoming(vec![bytes.slice(..bytes.len() - 1)], false);
    assert_eq!(within.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn invalid_messages_are_refused() {
    let too_long = (FRAME_MESSAGE_LEN_MAX as u32 + 1).to_be_bytes();
    let too_long = [&[0], &too_long[..]].concat();
    let compressed = vec![1, 0, 0, 0, 0];
    let garbage = vec![0, 0, 0, 0, 1, 0xff];
    for (bytes, code) in
        [(too_long, Code::OutOfRange), (compressed, Code::Unimplemented), (garbage, Code::Internal)]
    {
        let mut messages = incoming(vec![bytes.into()], false);
        assert_eq!(messages.message().await.unwrap_err().code(), code);
        assert!(messages.next().await.is_none());
    }
}

proptest! {
    /// The messages are the same, however the connection splits the bytes.
    #[test]
    fn messages_survive_any_fragmentation(
        sizes in proptest::collection::vec(0_usize..3_000, 0..5),
        cuts in proptest::collection::vec(0_usize..15_000, 0..12),
    ) {
        let sent: Vec<_> = sizes.iter().map(|size| frame(&vec![3; *size])).collect();
        let messages = stream::iter(sent.clone().into_iter().map(Ok));
        let body = Outgoing { messages, bulk: Bytes::new(), end: End::Request };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (bytes, _) = runtime.block_on(drained(body));
        let mut bytes = Bytes::from(bytes);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut at = 0;
        for cut in cuts {
            pieces.push(bytes.split_to(cut - at));
            at = cut;
        }
        pieces.push(bytes);
        let received: Vec<_> = runtime.block_on(
            incoming(pieces, false).map(|message| message.unwrap()).collect(),
        );
        prop_assert_eq!(received, sent);
    }
}
