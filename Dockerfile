# The two images of dfs:
#
#   docker build --target dfs          -t ghcr.io/dfs-io/dfs:0.1.0 .
#   docker build --target dfs-operator -t ghcr.io/dfs-io/dfs-operator:0.1.0 .
#
# The same works with podman or buildah. If the binaries are already compiled, pass a directory with
# out/dfs and out/dfs-operator in place of the build stage: --build-context build=DIRECTORY.

# The toolchain must not have a newer libc than the base.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm
# The C runtime, CA certificates and the user 65532; no shell, no package manager.
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# Inputs for compiling the dependencies: manifests, the lock file, and empty sources. The next stage
# copies the result, which changes only with a manifest, so that the layer with the dependencies
# stays cached.
FROM ${RUST_IMAGE} AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -name rust-toolchain.toml -delete \
    && find . -mindepth 2 -name Cargo.toml -printf '%h\n' | while read -r package; do \
        mkdir -p "$package/src" \
        && echo 'fn main() {}' >"$package/src/main.rs" \
        && : >"$package/src/lib.rs"; \
    done \
    && find . -type d -empty -delete

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY --from=manifests /src .
RUN cargo build --locked --release --package dfs-cli --package dfs-operator
COPY . .
# Sources can be older than the layer above, and cargo compares their times.
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo build --locked --release --package dfs-cli --package dfs-operator \
    && mkdir /out \
    && strip --strip-debug -o /out/dfs target/release/dfs \
    && strip --strip-debug -o /out/dfs-operator target/release/dfs-operator

FROM ${BASE_IMAGE} AS dfs
LABEL org.opencontainers.image.title="dfs" \
      org.opencontainers.image.description="Coordinator, datanode and command line of dfs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/dfs /usr/local/bin/dfs
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/dfs"]

FROM ${BASE_IMAGE} AS dfs-operator
LABEL org.opencontainers.image.title="dfs-operator" \
      org.opencontainers.image.description="Runs dfs on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/dfs-operator /usr/local/bin/dfs-operator
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/dfs-operator"]
