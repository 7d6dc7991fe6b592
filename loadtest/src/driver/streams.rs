//! `streams`: the simulator's own capacity, so that no run measures the double.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::measure::{Counters, Latencies, bump, counts, progress, read};
use super::options::{Arrivals, Common, Load, Streams};
use super::pace::{Pacer, schedule};
use super::process::{megabytes, memory};
use super::report::Report;
use super::simulator_log::SimulatorLog;
use super::target::Target;
use crate::simulator::reply_text;
use crate::simulator::script::Directives;

struct Run {
    target: Target,
    marker: String,
    tokens: u32,
    model_time: Duration,
    counters: Arc<Counters>,
    lateness: Arc<Latencies>,
}

pub(crate) async fn run(common: &Common, options: &Streams) -> anyhow::Result<Report> {
    let target = Target::resolve(&common.simulator, common.allow_remote).await?;
    let mut simulator = SimulatorLog::connect(common).await?;
    let directives = Directives::parse(&options.marker).context("the marker is mistyped")?;
    let run = Arc::new(Run {
        target,
        marker: options.marker.clone(),
        tokens: directives.tokens.context("the marker must say tokens=N")?,
        model_time: simulator.model_time(&options.marker).await?,
        counters: Arc::default(),
        lateness: Arc::new(Latencies::new()),
    });
    let load = Load {
        rate: options.rate,
        seconds: 3_600,
        arrivals: Arrivals::Even,
        closed: None,
        most: options.count,
        warm_up: 0,
    };
    let _progress = progress(common.quiet, counts(&run.counters, &run.lateness));
    let pacer = Pacer::start(schedule(&load, common.seed))?;
    let mut streams = JoinSet::new();
    while let Some((number, due)) = pacer.next().await {
        let run = Arc::clone(&run);
        streams.spawn(async move {
            bump(&run.counters.sent);
            match run.stream(number).await {
                Ok(()) => {
                    bump(&run.counters.completed);
                    run.lateness
                        .record(due.elapsed().saturating_sub(run.model_time));
                }
                Err(error) => run.counters.fail(format!("stream: {error}")),
            }
        });
    }
    let opened = pacer.len();
    let end = Instant::now() + Duration::from_secs(u64::from(options.seconds));
    let (mut most, mut resident) = (0, None);
    loop {
        let stats = simulator.stats().await?;
        if stats.in_flight >= most {
            most = stats.in_flight;
            resident = options.pid.map(memory).transpose()?;
        }
        let over = tokio::time::timeout(Duration::from_millis(250), async {
            while streams.join_next().await.is_some() {}
        });
        if over.await.is_ok() || Instant::now() >= end {
            break;
        }
    }
    let unfinished = streams.len();
    streams.shutdown().await;

    let mut report = Report::new(format!("streams, {opened} streams of the simulator"));
    report.figure("marker", &options.marker);
    report.figure("most streams at once", most);
    report.figure(
        "streams complete, with the right text",
        read(&run.counters.completed),
    );
    report.figure("streams that did not end in time", unfinished);
    if let Some(memory) = resident {
        report.figure(
            "simulator's RSS at the most streams",
            megabytes(memory.now_kib),
        );
    }
    report.latency(
        "end of the stream, later than the model's own time",
        run.lateness.summary(),
    );
    report.fail(run.counters.failures());
    Ok(report)
}

impl Run {
    /// Opens a connection, reads a whole stream, and compares its text.
    async fn stream(&self, number: usize) -> anyhow::Result<()> {
        let question = format!("Stream {number} [[sim:{}]]", self.marker);
        let body = json!({"model": "sim/load:free", "stream": true, "messages": [{"role": "user", "content": question}]});
        let request = Request::post("/api/v1/chat/completions")
            .header(header::HOST, &self.target.host)
            .header(header::AUTHORIZATION, "Bearer load")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))?;
        let stream = TcpStream::connect(self.target.address)
            .await
            .context("failed to connect")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        drop(crate::task::spawn(connection));
        let response = sender
            .send_request(request)
            .await
            .context("failed to send")?;
        anyhow::ensure!(
            response.status().is_success(),
            "HTTP {}",
            response.status().as_u16()
        );
        bump(&self.counters.accepted);
        let mut body = Body::new(response.into_body()).into_data_stream();
        let mut reader = Reader::default();
        while let Some(bytes) = body.next().await {
            reader.feed(&bytes.context("the stream broke")?)?;
        }
        anyhow::ensure!(reader.done, "no [DONE]");
        anyhow::ensure!(
            reader.text == reply_text(&question, self.tokens),
            "the text is wrong"
        );
        Ok(())
    }
}

/// Reads the events of a stream that come in any pieces.
#[derive(Debug, Default)]
struct Reader {
    rest: Vec<u8>,
    text: String,
    done: bool,
}

impl Reader {
    fn feed(&mut self, bytes: &Bytes) -> anyhow::Result<()> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data: ") else {
                continue;
            };
            if data.starts_with(b"[DONE]") {
                self.done = true;
                continue;
            }
            let chunk: serde_json::Value =
                serde_json::from_slice(data).context("a chunk is not JSON")?;
            self.text.push_str(
                chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .unwrap_or_default(),
            );
        }
        Ok(())
    }
}
