//! Bodies that cannot be sent twice.
//!
//! A request whose price is not known is sent, answered 402, and sent again with a payment. A
//! streamed body is gone by then. Either it is kept in memory, if it is short enough, or its
//! caller allows that the price is asked without it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE,
    CONTENT_TYPE, EXPECT, HeaderName, TRAILER, TRANSFER_ENCODING,
};
use http_body::{Body as _, Frame, SizeHint};
use reqwest::{Body, Request};

/// Headers that describe a body, or how it is sent.
const OF_THE_BODY: [HeaderName; 11] = [
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    EXPECT,
    TRAILER,
    TRANSFER_ENCODING,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
];

/// Allows that a request of unknown price is first sent with an empty body, to learn the price:
/// an extension of the request.
///
/// For bodies that can be sent only once and are too long to be kept in memory. A server that
/// asks nothing for the request carries it out with the empty body, so this is for routes that
/// are known to be paid.
///
/// ```
/// use farebox_client::AskFirst;
///
/// let client = reqwest_middleware::ClientWithMiddleware::from(reqwest::Client::new());
/// let mut upload = client.post("https://api.example.com/upload").with_extension(AskFirst);
/// assert_eq!(upload.extensions().get(), Some(&AskFirst));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskFirst;

/// `request` with its body in memory, so that it can be sent again, if it is a stream of at most
/// `limit` bytes without trailers. A longer one is streamed as before, its start from memory.
///
/// Memory holds at most `limit` bytes and one more frame. Nothing is sent while the body is read,
/// and the request's timeout does not run.
///
/// # Errors
///
/// The body's own, in its start. One that comes later ends the send, as it does anyway.
pub(crate) async fn replayable(mut request: Request, limit: usize) -> reqwest::Result<Request> {
    let stream =
        |body: &Body| body.as_bytes().is_none() && !exceeds(body.size_hint().lower(), limit);
    if request.body().is_some_and(stream)
        && let Some(body) = request.body_mut().take()
    {
        *request.body_mut() = Some(kept(body, limit).await?);
    }
    Ok(request)
}

async fn kept(mut rest: Body, limit: usize) -> reqwest::Result<Body> {
    let mut start = VecDeque::new();
    let mut length = 0_usize;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await {
        let frame = frame?;
        let fits = frame.data_ref().is_some_and(|data| {
            length = length.saturating_add(data.len());
            length <= limit
        });
        start.push_back(frame);
        if !fits {
            return Ok(Body::wrap(Rejoined { start, rest }));
        }
    }
    let mut whole = BytesMut::with_capacity(length);
    for data in start.iter().filter_map(Frame::data_ref) {
        whole.extend_from_slice(data);
    }
    Ok(Body::from(whole.freeze()))
}

fn exceeds(length: u64, limit: usize) -> bool {
    usize::try_from(length).map_or(true, |length| length > limit)
}

/// The same request with an empty body.
pub(crate) fn without_body(request: &Request) -> Request {
    let mut empty = Request::new(request.method().clone(), request.url().clone());
    *empty.timeout_mut() = request.timeout().copied();
    *empty.version_mut() = request.version();
    *empty.headers_mut() = request.headers().clone();
    for name in OF_THE_BODY {
        empty.headers_mut().remove(name);
    }
    empty.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    empty
}

/// A body whose `start` was read, put together again.
pub(crate) fn rejoined(start: Bytes, rest: Body) -> Body {
    let start = Some(start).filter(|start| !start.is_empty()).map(Frame::data);
    Body::wrap(Rejoined { start: start.into_iter().collect(), rest })
}

/// A body whose start was read, frame by frame as it came.
struct Rejoined {
    start: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl http_body::Body for Rejoined {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<reqwest::Result<Frame<Bytes>>>> {
        match self.start.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.start.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let start = self.start.iter().filter_map(Frame::data_ref);
        let start = start.fold(0_u64, |sum, data| {
            sum.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX))
        });
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(start));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(start)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use http::{HeaderMap, Method, StatusCode};

    use super::*;

    const LIMIT: usize = 10;

    /// A stream of frames that counts how many were taken.
    #[derive(Clone, Default)]
    struct Stream {
        data: VecDeque<Bytes>,
        trailers: Option<HeaderMap>,
        /// Whether it breaks off with an error after its last frame.
        breaks: bool,
        exact: Option<u64>,
        taken: Arc<AtomicUsize>,
    }

    impl Stream {
        fn of(lengths: &[usize]) -> Stream {
            let mut bytes = b'a'..=b'z';
            let data = lengths.iter().map(|length| vec![bytes.next().unwrap(); *length].into());
            Stream { data: data.collect(), ..Stream::default() }
        }

        fn length(&self) -> usize {
            self.data.iter().map(Bytes::len).sum()
        }

        fn taken(&self) -> usize {
            self.taken.load(Ordering::SeqCst)
        }
    }

    impl http_body::Body for Stream {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            self.taken.fetch_add(1, Ordering::SeqCst);
            Poll::Ready(if let Some(data) = self.data.pop_front() {
                Some(Ok(Frame::data(data)))
            } else if std::mem::take(&mut self.breaks) {
                Some(Err(io::Error::other("the file broke off")))
            } else {
                self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))
            })
        }

        fn size_hint(&self) -> SizeHint {
            self.exact.map_or_else(SizeHint::new, |_| {
                SizeHint::with_exact(self.length().try_into().unwrap())
            })
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Seen {
        method: Method,
        headers: HeaderMap,
        body: Vec<u8>,
        trailers: Option<HeaderMap>,
        whole: bool,
    }

    /// A server that says OK and keeps what it saw.
    struct Server(reqwest::Url, Arc<Mutex<Vec<Seen>>>);

    impl Server {
        async fn start() -> Server {
            let seen = Arc::<Mutex<Vec<Seen>>>::default();
            let log = Arc::clone(&seen);
            let app = Router::new().fallback(move |request: axum::extract::Request| {
                let log = Arc::clone(&log);
                async move {
                    let (parts, mut body) = request.into_parts();
                    let (method, headers) = (parts.method, parts.headers);
                    let mut seen =
                        Seen { method, headers, body: Vec::new(), trailers: None, whole: true };
                    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                        match frame.map(Frame::into_data) {
                            Ok(Ok(data)) => seen.body.extend_from_slice(&data),
                            Ok(Err(frame)) => seen.trailers = frame.into_trailers().ok(),
                            Err(_) => seen.whole = false,
                        }
                        if !seen.whole {
                            break;
                        }
                    }
                    log.lock().unwrap().push(seen);
                    StatusCode::OK
                }
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/upload", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
            Server(url.parse().unwrap(), seen)
        }

        fn post(&self, body: Stream) -> Request {
            let mut request = Request::new(Method::POST, self.0.clone());
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            request.headers_mut().insert(TRAILER, HeaderValue::from_static("digest"));
            *request.body_mut() = Some(Body::wrap(body));
            request
        }

        async fn saw(&self, request: Request) -> Seen {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.execute(request).await.unwrap();
            self.1.lock().unwrap().pop().unwrap()
        }
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static("digest"), HeaderValue::from_static("1"))])
    }

    #[tokio::test]
    async fn a_stream_up_to_the_limit_can_be_sent_again() {
        let server = Server::start().await;
        for lengths in [&[][..], &[0], &[1], &[10], &[4, 6], &[0, 9, 0, 1, 0]] {
            for exact in [None, Some(0)] {
                let stream = Stream { exact, ..Stream::of(lengths) };
                let sent = replayable(server.post(stream.clone()), LIMIT).await.unwrap();
                let again = sent.try_clone().unwrap().try_clone().unwrap();
                let bare = server.saw(server.post(stream.clone())).await;
                for request in [sent, again] {
                    let seen = server.saw(request).await;
                    assert_eq!((&seen.body, seen.whole), (&bare.body, true), "{lengths:?}");
                    let length =
                        seen.headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
                    assert_eq!(length.unwrap_or("0"), stream.length().to_string());
                    assert_eq!(seen.headers[CONTENT_TYPE], "text/plain");
                    assert!(!seen.headers.contains_key(TRANSFER_ENCODING));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_longer_stream_goes_out_as_it_would_have_anyway() {
        let server = Server::start().await;
        let lengths = [&[11][..], &[10, 1], &[5, 6, 7], &[1; 20], &[0, 10, 0, 3], &[100_000, 9]];
        let mut compared = 0;
        for lengths in lengths {
            for (exact, trailers) in [(None, None), (Some(0), None), (None, Some(trailers()))] {
                let stream = Stream { exact, trailers, ..Stream::of(lengths) };
                let bare = server.saw(server.post(stream.clone())).await;
                let sent = replayable(server.post(stream.clone()), LIMIT).await.unwrap();
                assert!(sent.try_clone().is_none(), "{lengths:?}");
                let seen = server.saw(sent).await;
                assert_eq!(seen, bare, "{lengths:?}");
                assert_eq!((seen.body.len(), seen.whole), (stream.length(), true));
                assert_eq!(seen.trailers, stream.trailers);
                compared += 1;
            }
        }
        assert_eq!(compared, 18);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_the_limit_and_one_frame() {
        let server = Server::start().await;
        let stream = Stream::of(&[4; 6]);
        let request = replayable(server.post(stream.clone()), LIMIT).await.unwrap();
        assert_eq!((stream.taken(), request.body().unwrap().size_hint().lower()), (3, 12));
        let known = Stream { exact: Some(0), ..Stream::of(&[4; 6]) };
        replayable(server.post(known.clone()), LIMIT).await.unwrap();
        assert_eq!(known.taken(), 0);
    }

    #[tokio::test]
    async fn trailers_of_a_short_stream_are_sent_once() {
        let server = Server::start().await;
        let stream = Stream { trailers: Some(trailers()), ..Stream::of(&[3]) };
        let bare = server.saw(server.post(stream.clone())).await;
        let sent = replayable(server.post(stream), LIMIT).await.unwrap();
        assert!(sent.try_clone().is_none());
        let seen = server.saw(sent).await;
        assert_eq!((&seen, seen.trailers.clone()), (&bare, Some(trailers())));
    }

    #[tokio::test]
    async fn an_error_of_the_stream_reaches_the_caller() {
        let says = |error: reqwest::Error| {
            let mut cause: Option<&dyn std::error::Error> = error.source();
            while let Some(error) = cause.filter(|cause| !cause.is::<io::Error>()) {
                cause = error.source();
            }
            cause.is_some_and(|cause| cause.to_string() == "the file broke off")
        };
        let server = Server::start().await;
        let early = Stream { breaks: true, ..Stream::of(&[3]) };
        assert!(says(replayable(server.post(early), LIMIT).await.unwrap_err()));
        let late = Stream { breaks: true, ..Stream::of(&[30]) };
        let sent = replayable(server.post(late), LIMIT).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        assert!(says(client.execute(sent).await.unwrap_err()));
        assert!(server.1.lock().unwrap().iter().all(|seen| !seen.whole));
    }

    #[tokio::test]
    async fn bodies_in_memory_and_no_body_stay_as_they_are() {
        let server = Server::start().await;
        for body in [None, Some(Body::from("")), Some(Body::from("longer than the limit"))] {
            let bytes = body.as_ref().and_then(Body::as_bytes).map(<[u8]>::to_vec);
            let mut request = Request::new(Method::POST, server.0.clone());
            *request.body_mut() = body;
            let request = replayable(request, LIMIT).await.unwrap();
            let kept = request.body().map(|body| body.as_bytes().unwrap().to_vec());
            assert_eq!(kept, bytes);
            assert_eq!(server.saw(request).await.body, bytes.unwrap_or_default());
        }
    }

    #[tokio::test]
    async fn the_price_is_asked_with_an_empty_body_and_what_is_not_about_the_body() {
        let server = Server::start().await;
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET] {
            let stream = Stream { exact: Some(0), ..Stream::of(&[4; 6]) };
            let mut request = server.post(stream.clone());
            *request.method_mut() = method.clone();
            *request.timeout_mut() = Some(std::time::Duration::from_secs(9));
            for name in OF_THE_BODY {
                request.headers_mut().insert(name, HeaderValue::from_static("24"));
            }
            request.headers_mut().insert("x-api-key", HeaderValue::from_static("k"));
            let empty = without_body(&request);
            assert_eq!((empty.timeout(), empty.version()), (request.timeout(), request.version()));
            let seen = server.saw(empty).await;
            assert_eq!((seen.method, seen.body.len(), stream.taken()), (method, 0, 0));
            assert_eq!(
                (&seen.headers["x-api-key"], &seen.headers[CONTENT_LENGTH]),
                (&HeaderValue::from_static("k"), &HeaderValue::from_static("0"))
            );
            for name in OF_THE_BODY {
                assert!(name == CONTENT_LENGTH || !seen.headers.contains_key(name));
            }
        }
    }
}
