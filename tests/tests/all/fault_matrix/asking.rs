//! A wire behind which Stripe answers with an intent that waits for the card's holder.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What Farebox asks for, and something of the same length that means nothing to Stripe.
const ASKED: &[u8] = b"error_on_requires_action=true";
const MEANT: &[u8] = b"metadata[not_understood]=true";

/// The URL of a wire to the bank at `url`, as long as the test runs.
pub(super) async fn wire(url: &str) -> String {
    let bank = url.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let bank = TcpStream::connect(&bank).await.unwrap();
            tokio::spawn(pass(client, bank));
        }
    });
    format!("http://{address}")
}

/// A request is one piece; whoever ends first ends both.
async fn pass(mut client: TcpStream, mut bank: TcpStream) -> std::io::Result<()> {
    let (mut there, mut back) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut there) => match read? {
                0 => return Ok(()),
                length => {
                    let piece = &mut there[..length];
                    let asked = piece.windows(ASKED.len()).position(|words| words == ASKED);
                    if let Some(at) = asked {
                        piece[at..at + ASKED.len()].copy_from_slice(MEANT);
                    }
                    bank.write_all(piece).await?;
                }
            },
            read = bank.read(&mut back) => match read? {
                0 => return Ok(()),
                length => client.write_all(&back[..length]).await?,
            },
        }
    }
}
