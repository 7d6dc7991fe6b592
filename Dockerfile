# syntax=docker/dockerfile:1
# Both processes in one image of a few libraries and no shell: `docker build .`. The simulated model, for
# compose.yaml and the local overlay, is another one: `docker build --target simulator .`.

ARG RUST_VERSION=1.95

# The slim image has the C compiler that ring and mimalloc need.
FROM rust:${RUST_VERSION}-slim-bookworm AS chef
RUN cargo install --locked cargo-chef@0.1.73
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# Dependencies are a layer of their own, which a change of our own code leaves alone.
FROM chef AS build
COPY --from=plan /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --recipe-path recipe.json -p balas-api -p balas-worker -p loadtest
COPY . .
# Statements are checked against .sqlx: a build reaches no database.
ENV SQLX_OFFLINE=true
RUN cargo build --release --locked -p balas-api -p balas-worker --bins \
 && cargo build --release --locked -p loadtest --bin simulator \
 && strip target/release/balas-api target/release/balas-worker target/release/simulator

FROM gcr.io/distroless/cc-debian12:nonroot AS simulator
COPY --from=build /src/target/release/simulator /usr/local/bin/
USER 65532:65532
ENV SIMULATOR_LISTEN=0.0.0.0:8090
EXPOSE 8090
CMD ["/usr/local/bin/simulator"]

# The last stage is what `docker build .` makes. Nothing is written to disk: run it with --read-only.
FROM gcr.io/distroless/cc-debian12:nonroot AS balas
COPY --from=build /src/target/release/balas-api /src/target/release/balas-worker /usr/local/bin/
USER 65532:65532
ENV HOST=0.0.0.0 PORT=8080 HEALTH_ADDRESS=0.0.0.0:9090
EXPOSE 8080 9090
# The API's; a worker is checked with `balas-worker healthcheck`.
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 CMD ["/usr/local/bin/balas-api", "healthcheck"]
CMD ["/usr/local/bin/balas-api"]
