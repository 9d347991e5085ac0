//! tonicgrpc server PORT LOG
//! tonicgrpc client PORT LOG COUNT CONCURRENCY KIND...
//!
//! The same as grpc_peer.py, of tonic: see there for the kinds of calls. Messages are plain bytes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::sync::Mutex;
use tokio_stream::{Iter, StreamExt};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::StreamingService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

type Answer = Vec<Result<Bytes, Status>>;

#[derive(Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A method is named shop.Cart/KIND-NUMBER.
#[derive(Clone)]
struct Method {
    name: String,
    kind: String,
    number: usize,
}

impl Method {
    fn of(path: &str) -> Self {
        let name = path.trim_start_matches('/');
        let (kind, number) = name.rsplit_once('/').unwrap().1.split_once('-').unwrap();
        Self {
            name: name.into(),
            kind: kind.into(),
            number: number.parse().unwrap(),
        }
    }

    fn is(&self, kinds: &[&str]) -> bool {
        kinds.contains(&self.kind.as_str())
    }

    fn failure(&self) -> Status {
        Status::new(Code::from_i32((self.number % 16 + 1) as i32), "as asked")
    }

    fn requests(&self) -> Vec<Bytes> {
        let count = if self.is(&["client", "both"]) {
            self.number % 5
        } else {
            1
        };
        vec![Bytes::from(vec![b'q'; self.number]); count]
    }

    fn answer(&self) -> Answer {
        let message = Bytes::from(vec![b'r'; 2 * self.number]);
        if self.is(&["halfway"]) {
            return vec![Ok(message), Err(self.failure())];
        }
        let count = if self.is(&["server", "both"]) {
            self.number % 5
        } else {
            1
        };
        vec![Ok(message); count]
    }
}

/// One JSON line for each call.
#[derive(Clone)]
struct Log(Arc<File>);

impl Log {
    fn write(&self, method: &str, code: Code) {
        let mut status = String::new();
        for letter in format!("{code:?}").chars() {
            if letter.is_uppercase() && !status.is_empty() {
                status.push('_');
            }
            status.push(letter.to_ascii_uppercase());
        }
        let line = format!("{{\"method\": \"{method}\", \"status\": \"{status}\"}}\n");
        (&*self.0).write_all(line.as_bytes()).unwrap();
    }
}

/// Logs that a call was given up if it goes before the call has ended.
struct GivenUp {
    log: Log,
    method: String,
    ended: bool,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if !self.ended {
            self.log.write(&self.method, Code::Cancelled);
        }
    }
}

struct Handler {
    log: Log,
    method: Method,
}

type Pinned<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl StreamingService<Bytes> for Handler {
    type Response = Bytes;
    type ResponseStream = Iter<std::vec::IntoIter<Result<Bytes, Status>>>;
    type Future = Pinned<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (log, method) = (self.log.clone(), self.method.clone());
        Box::pin(async move {
            let mut call = GivenUp {
                log: log.clone(),
                method: method.name.clone(),
                ended: false,
            };
            if method.is(&["slow", "cancel"]) {
                std::future::pending::<()>().await;
            }
            let mut requests = request.into_inner();
            while requests.message().await?.is_some() {}
            call.ended = true;
            if method.is(&["fail", "halfway"]) {
                log.write(&method.name, method.failure().code());
            } else {
                log.write(&method.name, Code::Ok);
            }
            if method.is(&["fail"]) {
                return Err(method.failure());
            }
            Ok(Response::new(tokio_stream::iter(method.answer())))
        })
    }
}

/// Every path is a method.
#[derive(Clone)]
struct AnyMethod(Log);

impl tower_service::Service<http::Request<Body>> for AnyMethod {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pinned<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = Handler {
            log: self.0.clone(),
            method: Method::of(request.uri().path()),
        };
        Box::pin(async move {
            let mut server = tonic::server::Grpc::new(BytesCodec);
            Ok(server.streaming(handler, request).await)
        })
    }
}

async fn answered(channel: Channel, method: &Method) -> Result<(), Status> {
    let mut request = Request::new(tokio_stream::iter(method.requests()));
    let seconds = if method.is(&["slow"]) { 4 } else { 60 };
    request.set_timeout(Duration::from_secs(seconds));
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = format!("/{}", method.name).parse().unwrap();
    let response = client.streaming(request, path, BytesCodec).await?;
    let mut messages = response.into_inner();
    while messages.next().await.transpose()?.is_some() {}
    Ok(())
}

async fn call(channel: Channel, log: &Log, method: &Method) {
    let limit = Duration::from_millis(if method.is(&["cancel"]) { 100 } else { 60_000 });
    // What is no longer waited for is given up.
    let code = match tokio::time::timeout(limit, answered(channel, method)).await {
        Ok(Ok(())) => Code::Ok,
        Ok(Err(status)) => status.code(),
        Err(_) => Code::Cancelled,
    };
    log.write(&method.name, code);
}

async fn ask(port: u16, log: Log, count: usize, concurrency: usize, kinds: &[String]) {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let methods = (0..count).map(|number| {
        let kind = &kinds[number % kinds.len()];
        Method {
            name: format!("shop.Cart/{kind}-{number}"),
            kind: kind.clone(),
            number,
        }
    });
    let jobs = Arc::new(Mutex::new(methods.collect::<VecDeque<_>>()));
    let mut workers = Vec::new();
    for _ in 0..concurrency {
        let (jobs, channel, log) = (jobs.clone(), channel.clone(), log.clone());
        workers.push(tokio::spawn(async move {
            loop {
                let Some(method) = jobs.lock().await.pop_front() else {
                    return;
                };
                call(channel.clone(), &log, &method).await;
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let port: u16 = arguments[2].parse().unwrap();
    let file = File::options()
        .create(true)
        .append(true)
        .open(&arguments[3])
        .unwrap();
    let log = Log(Arc::new(file));
    if arguments[1] == "server" {
        Server::builder()
            .serve(([127, 0, 0, 1], port).into(), AnyMethod(log))
            .await
            .unwrap();
    } else {
        let (count, concurrency) = (arguments[4].parse().unwrap(), arguments[5].parse().unwrap());
        ask(port, log, count, concurrency, &arguments[6..]).await;
    }
}
