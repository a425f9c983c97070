//! A client that is cheap, keeps its connection, and hangs up when it is dropped.

use farebox_protocol::Payment;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::Answer;

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Nothing was sent.
    NotSent,
    /// Whether the request had an effect is unknown.
    Lost,
}

/// One connection. Dropping a request closes it, in whatever state the request is.
#[derive(Default)]
pub(crate) struct Wire(Option<(String, BufReader<TcpStream>)>);

impl Wire {
    pub(crate) async fn get(
        &mut self,
        url: &str,
        path: &str,
        payment: &Payment,
    ) -> Result<Answer, Unanswered> {
        let payment = format!("payment: {}\r\n", payment.encode());
        self.send("GET", url, path, &payment).await
    }

    pub(crate) async fn post(&mut self, url: &str, path: &str) -> Result<Answer, Unanswered> {
        self.send("POST", url, path, "content-length: 0\r\n").await
    }

    async fn send(
        &mut self,
        method: &str,
        url: &str,
        path: &str,
        headers: &str,
    ) -> Result<Answer, Unanswered> {
        let address = url.strip_prefix("http://").unwrap();
        let mut stream = match self.0.take() {
            Some((at, stream)) if at == address => stream,
            _ => {
                let stream = TcpStream::connect(address).await.map_err(|_| Unanswered::NotSent)?;
                stream.set_nodelay(true).map_err(|_| Unanswered::NotSent)?;
                BufReader::new(stream)
            }
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: api\r\n{headers}\r\n");
        let exchanged = async {
            stream.write_all(request.as_bytes()).await.ok()?;
            read(&mut stream).await
        };
        let (answer, keep) = exchanged.await.ok_or(Unanswered::Lost)?;
        if keep {
            self.0 = Some((address.to_owned(), stream));
        }
        Ok(answer)
    }
}

/// An answer with a length, and whether the connection stays.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<(Answer, bool)> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok());
    let mut body = vec![0; length.map_or(Some(0), |length| length.parse().ok())?];
    stream.read_exact(&mut body).await.ok()?;
    let keep = headers.get("connection").is_none_or(|value| value != "close");
    Some((Answer { status, headers, body: String::from_utf8(body).ok()? }, keep))
}
